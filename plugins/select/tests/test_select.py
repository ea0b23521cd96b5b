"""The choice, on numbers whose choice is known; the command, on a small model that was trained."""

from __future__ import annotations

import json
from pathlib import Path

import ase.io
import numpy as np
import pytest
from helpers.alloy import options, write_crystal
from typer.testing import CliRunner

from atomtrain import api
from atomtrain.errors import AtomtrainError, DataError, OptionsError, OutputError
from atomtrain.model.export import load_model
from atomtrain_select.choose import By, Pool, choose
from atomtrain_select.command import app
from atomtrain_select.seen import look, uncertainty_output

LINE = np.array([[0.0], [1.0], [1.1], [5.0], [9.0]])
SURE = np.array([1.0, 4.0, 3.9, 0.1, 1.0])


def chosen(by: By, n: int | None = 2, budget: int | None = None, **more: np.ndarray) -> list[int]:
    pool = Pool(more.get("sizes", np.full(5, 2)), SURE, LINE)
    return [one.structure for one in choose(pool, by, n, budget, more.get("known"))]


def test_each_way_chooses_what_it_says() -> None:
    assert chosen("uncertainty", 3) == [1, 2, 0]
    # the most usual, then the farthest from it, then the farthest from both
    assert chosen("distance", 3) == [3, 0, 4]
    # the most uncertain first; its near copy is as uncertain, and teaches nothing more
    assert chosen("both", 3) == [1, 4, 0]
    assert chosen("distance", 2, known=np.array([[0.0], [9.0]])) == [3, 2]
    assert chosen("both", 1, known=np.array([[1.05]])) == [4]


def test_a_budget_of_atoms() -> None:
    sizes = np.array([2, 7, 3, 2, 2])
    assert chosen("uncertainty", None, 6, sizes=sizes) == [2, 0]
    assert chosen("uncertainty", 1, 6, sizes=sizes) == [2]
    assert chosen("uncertainty", None, 1, sizes=sizes) == []


def test_copies_are_not_chosen() -> None:
    pool = Pool(np.full(3, 2), None, np.array([[0.0], [0.0], [3.0]]))
    assert [one.structure for one in choose(pool, "distance", 3, None)] == [0, 2]
    known = np.array([[0.0], [3.0]])
    assert choose(pool, "distance", 3, None, known) == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of crystals of copper and gold, and a pool with one that is far from all of its data."""
    folder = tmp_path_factory.mktemp("select")
    write_crystal(folder / "crystal.xyz", 12)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        api.train(options(test_set=0.0, final_eval=False), output="model.pt")
    pool = ase.io.read(folder / "crystal.xyz", "2:10")
    pool[5].rattle(0.7, seed=1)
    ase.io.write(folder / "pool.xyz", pool)
    return folder


def invoke(folder: Path, *arguments: str) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_what_is_far_from_the_data_is_chosen_and_says_why(folder: Path) -> None:
    given = ("pool.xyz", "-m", "model.pt", "--known", "crystal.xyz", "-o", "next.xyz")
    said = invoke(folder, *given, "-n", "3")
    # the others are in the training data
    assert "structure 5 of 'pool.xyz': distance" in said
    assert "1 of 8 structures by distance" in said
    assert "fewer than asked for" in said
    (found,) = ase.io.read(folder / "next.xyz", ":")
    assert found.info["select_frame"] == 5
    assert found.info["select_file"].endswith("pool.xyz")
    assert found.info["select_distance"] > 0
    np.testing.assert_allclose(found.positions, ase.io.read(folder / "pool.xyz", 5).positions)
    listed = json.loads(invoke(folder, *given, "-n", "1", "--json"))
    assert [one["structure"] for one in listed["chosen"]] == [5]


def test_features_are_means_over_atoms(folder: Path) -> None:
    """A cell twice as large has the same; the choice does not depend on how cells are written down."""
    from atomtrain.data import Files, Remarks, read_section
    from atomtrain.options import DatasetSection

    atoms = ase.io.read(folder / "pool.xyz", 0)
    ase.io.write(folder / "both.xyz", [atoms, atoms * (2, 1, 1)])
    section = DatasetSection.model_validate(
        {
            "systems": {"read_from": str(folder / "both.xyz"), "length_unit": "angstrom"},
            "targets": {},
        }
    )
    store = read_section(section, Files(), Remarks()).store
    model = load_model(folder / "model.pt")
    _, features = look(model, store, "angstrom", uncertainty=None, features="feature")
    assert features is not None
    np.testing.assert_allclose(features[0], features[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "error", "what"),
    [
        (("pool.xyz",), OptionsError, "how many structures"),
        (("pool.xyz", "-n", "2", "--by", "both"), OptionsError, "gives no uncertainty; 'archit"),
        (("pool.xyz", "-n", "2", "--by", "random"), OptionsError, "--by is 'random'"),
        (("pool.xyz", "-n", "2", "-o", "pool.xyz"), OutputError, "one of the files that are read"),
        (("pool.xyz", "-n", "2", "-o", "next.cif"), OutputError, "extended xyz"),
        (("pool.xyz", "-n", "2", "-o", "no/next.xyz"), OutputError, "does not exist"),
        (("none.xyz", "-n", "2"), DataError, "none.xyz"),
        (("iron.xyz", "-n", "2"), DataError, "structure 0 of '.*iron.xyz': .* not know Fe"),
        (("pool.xyz", "--budget", "1"), OptionsError, "none of the 8 structures"),
    ],
)
def test_mistakes(
    folder: Path, arguments: tuple[str, ...], error: type[AtomtrainError], what: str
) -> None:
    (folder / "iron.xyz").write_text("1\nProperties=species:S:1:pos:R:3\nFe 0 0 0\n")
    before = (folder / "pool.xyz").read_bytes()
    with pytest.raises(error, match=what):
        invoke(folder, "-m", "model.pt", *arguments)
    assert (folder / "pool.xyz").read_bytes() == before


def test_whose_uncertainty() -> None:
    class Outputs:
        def __init__(self, *names: str) -> None:
            self.outputs = dict.fromkeys(names)

        def capabilities(self) -> Outputs:
            return self

    many = Outputs("energy", "mtt::aux::gap_uncertainty", "mtt::aux::charge_uncertainty")
    assert uncertainty_output(many, "gap") == "mtt::aux::gap_uncertainty"  # type: ignore[arg-type]
    with pytest.raises(OptionsError, match="several uncertainties"):
        uncertainty_output(many, None)  # type: ignore[arg-type]
    with pytest.raises(OptionsError, match="no uncertainty of 'energy'"):
        uncertainty_output(many, "energy")  # type: ignore[arg-type]
    both = Outputs("energy_uncertainty", "mtt::aux::gap_uncertainty")
    assert uncertainty_output(both, None) == "energy_uncertainty"  # type: ignore[arg-type]
    assert uncertainty_output(Outputs("energy"), None) is None  # type: ignore[arg-type]
