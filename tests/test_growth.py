"""Fine-tuning on new elements: what is known stays, what is new is learnt, and all else goes on from there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from atomtrain import api
from atomtrain.errors import DataError
from atomtrain.model import Predictor
from atomtrain.plugins.restore import restore
from atomtrain.training.checkpoint import load_checkpoint
from atomtrain_testing import Subject, run_check
from atomtrain_testing.predictions import graph_of, predict

AL, CU, AG, AU = 13, 29, 47, 79
OFFSET = {AL: -100.0, CU: -290.0, AG: -470.0, AU: -790.0}
"""what an atom adds to the energy"""
SOAP = {"soap": {"max_angular": 2, "max_radial": 2, "cutoff": {"radius": 4.0}}}
BPNN = {"num_neurons_per_layer": 8, "layernorm": False}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "ace": ("ace", {"cutoff": 4.0, "num_radial": 4, "max_degree": 2, "num_channels": 6, "num_neurons": 8}),
    "soap": ("soap-bpnn", {**SOAP, "bpnn": BPNN}),
    "soap without layers": ("soap-bpnn", {**SOAP, "bpnn": {"num_hidden_layers": 0, "layernorm": False}}),
    "soap of all": ("soap-bpnn", {**SOAP, "legacy": False, "bpnn": {"num_neurons_per_layer": 8}}),
}  # fmt: skip
MODELS["ace of two layers"] = ("ace", {**MODELS["ace"][1], "num_layers": 2})
MODELS["ace with zbl"] = ("ace", {**MODELS["ace"][1], "zbl": True})
EXACT = "ace", "ace of two layers", "soap of all"
"""sums over more elements are made in the same order there, so that energies agree to the last bit"""


def crystal(seed: int, kinds: tuple[int, ...]) -> Atoms:
    """A strained, shaken cell that has the last of these elements."""
    rng = np.random.default_rng(seed)
    atoms = bulk("Cu", "fcc", a=3.8, cubic=True)
    atoms.numbers[:] = rng.choice(kinds, 4)
    atoms.numbers[0] = kinds[-1]
    strain = np.eye(3) + 0.03 * rng.normal(size=(3, 3))
    atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
    atoms.positions += 0.06 * rng.normal(size=atoms.positions.shape)
    atoms.calc = EMT()
    energy = atoms.get_potential_energy() + sum(OFFSET[z] for z in atoms.numbers)
    results = {"energy": energy, "forces": atoms.get_forces(), "stress": atoms.get_stress()}
    atoms.calc = SinglePointCalculator(atoms, **results)
    atoms.info["rich"] = int((atoms.numbers == kinds[-1]).sum() > 2)
    sizes = {z: 0.1 * (k + 1) for k, z in enumerate((CU, AU, AG, AL))}
    atoms.arrays["size"] = np.array([z + sizes[z] * rng.normal() for z in atoms.numbers])
    return atoms


def write(
    name: str, kinds: tuple[int, ...], n: int = 16, seed: int = 0, shift: float = 0.0
) -> list[Atoms]:
    """``n`` crystals, with ``shift`` more energy for each atom."""
    frames = [crystal(1000 * len(kinds) + seed + k, kinds) for k in range(n)]
    for atoms in frames:
        atoms.calc.results["energy"] += shift * len(atoms)
    ase.io.write(name, frames, format="extxyz")
    return frames


ENERGY = {"energy": {"key": "energy", "unit": "eV", "forces": True, "stress": True}}


def options(
    model: str, data: str, targets: dict[str, Any] = ENERGY, **training: Any
) -> dict[str, Any]:
    architecture, hypers = MODELS[model]
    return {
        "seed": 1,
        "base_precision": 64,
        "architecture": {
            "name": architecture,
            "model": hypers,
            "training": {"num_epochs": 4, "batch_size": 4, "checkpoint_interval": 2, **training},
        },
        "training_set": {"systems": {"read_from": data, "length_unit": "angstrom"}, "targets": targets},
        "validation_set": 0.25,
        "test_set": 0.0,
    }  # fmt: skip


def tune(model: str, data: str, source: str, output: str, **training: Any) -> api.TrainingResult:
    given = {"finetune": {"read_from": source}, **training}
    return api.train(options(model, data, **given), output=output)


def predictor(checkpoint: str) -> Predictor:
    return restore(load_checkpoint(checkpoint), "export").predictor


def compositions(checkpoint: str, target: str = "energy") -> dict[int, float]:
    found = predictor(checkpoint)
    types = found.dataset_info.atomic_types
    return dict(zip(types, found.affine_of(target).shift[:, 0].tolist(), strict=True))


def predicted(checkpoint: str, frames: list[Atoms]) -> dict[str, torch.Tensor]:
    """Everything an energy model says, to be compared."""
    found = predictor(checkpoint)
    all_ = predict(found, graph_of(found.model, frames))
    assert all_.forces is not None and all_.strain is not None
    return {"energy": all_.blocks["energy"][0], "forces": all_.forces, "strain": all_.strain}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "model", ["ace", "ace of two layers", "soap without layers", "soap of all"]
)
def test_a_model_grows(folder: Path, model: str) -> None:
    """Ag comes between Cu and Au, and Al before all."""
    known = write("old.xyz", (CU, AU))
    write("ag.xyz", (CU, AU, AG), seed=100)
    write("al.xyz", (CU, AG, AL), seed=200)
    api.train(options(model, "old.xyz"), output="old.pt")
    tune(model, "ag.xyz", "old.ckpt", "grown.pt", num_epochs=0)
    old, new = compositions("old.ckpt"), compositions("grown.ckpt")
    assert list(new) == [CU, AG, AU]
    assert new[CU] == old[CU] and new[AU] == old[AU]
    assert new[AG] == pytest.approx(OFFSET[AG], abs=4.0)  # of a network that knows nothing of Ag
    before, after = predicted("old.ckpt", known), predicted("grown.ckpt", known)
    for name, values in before.items():
        torch.testing.assert_close(after[name], values, rtol=1e-12, atol=1e-12)
    if model in EXACT:
        assert torch.equal(after["energy"], before["energy"])

    # it learns, and goes on where it stopped
    result = tune(model, "ag.xyz", "old.ckpt", "tuned.pt", num_epochs=6)
    start, end = (load_checkpoint(f"{n}.ckpt")["model"]["last"] for n in ("grown", "tuned"))
    rows = [
        n for n in start if "weight" in n or n in ("pair", "third") if start[n].shape[:1] == (3,)
    ]
    assert all(bool((start[n][1] != end[n][1]).any()) for n in rows)
    for file in ("old.ckpt", "old.pt"):
        Path(file).unlink()
    given = options(model, "ag.xyz", finetune={"read_from": "old.ckpt"}, num_epochs=6)
    api.train(given, output="again.pt", restart=result.directory / "model_4.ckpt")
    one, two = load_checkpoint("tuned.ckpt"), load_checkpoint("again.ckpt")
    for part in ("last", "best"):
        for name, weight in one["model"][part].items():
            assert torch.equal(two["model"][part][name], weight), (part, name)

    # the exported model, and a second growth
    api.export("tuned.ckpt", output="exported.pt")
    (found,) = api.evaluate("exported.pt", {"systems": "ag.xyz", "targets": ENERGY}, output=None)
    assert found.errors["energy"]["rmse"] < 1.0
    known = ase.io.read("ag.xyz", ":")
    tune(model, "al.xyz", "tuned.ckpt", "twice.pt", num_epochs=0)
    assert list(compositions("twice.ckpt")) == [AL, CU, AG, AU]
    before, after = predicted("tuned.ckpt", known), predicted("twice.ckpt", known)
    old, new = compositions("tuned.ckpt"), compositions("twice.ckpt")
    if any(
        old[z] != new[z] for z in old
    ):  # a poor model took what it says of Al for another reference
        assert model == "ace of two layers"
        del before["energy"]
    for name, values in before.items():
        torch.testing.assert_close(after[name], values, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("model", ["ace with zbl", "soap of all"])
@pytest.mark.parametrize("data", ["old.xyz", "others.xyz"])
def test_nothing_changes_in_no_epochs_on_known_elements(
    folder: Path, model: str, data: str
) -> None:
    """Neither on the data it was trained on nor on others of the same reference."""
    frames = write("old.xyz", (CU, AU))
    write("others.xyz", (CU, AU), seed=500)
    api.train(options(model, "old.xyz", num_epochs=20), output="old.pt")
    tune(model, data, "old.ckpt", "tuned.pt", num_epochs=0)
    assert compositions("tuned.ckpt") == compositions("old.ckpt")
    before, after = predicted("old.ckpt", frames), predicted("tuned.ckpt", frames)
    for name, values in before.items():
        assert torch.equal(after[name], values), name


@pytest.mark.parametrize("kinds", [(CU, AU), (CU, AU, AG)])
def test_the_composition_follows_another_reference(folder: Path, kinds: tuple[int, ...]) -> None:
    write("old.xyz", (CU, AU))
    write("moved.xyz", kinds, seed=500, shift=50.0)
    api.train(options("ace", "old.xyz", num_epochs=20), output="old.pt")
    tune("ace", "moved.xyz", "old.ckpt", "tuned.pt", num_epochs=0)
    old, new = compositions("old.ckpt"), compositions("tuned.ckpt")
    for kind in (CU, AU):
        assert new[kind] - old[kind] == pytest.approx(50.0, abs=1.5)
    if AG in kinds:
        assert new[AG] == pytest.approx(OFFSET[AG] + 50.0, abs=4.0)


def test_one_structure_of_another_reference(folder: Path) -> None:
    """Any composition would fit it: only what is beyond the target's scale is another reference."""
    write("old.xyz", (CU, AU))
    api.train(options("ace", "old.xyz"), output="old.pt")
    for shift in (0.0, 50.0):
        frames = [*write("one.xyz", (CU, AU), n=2, seed=500, shift=shift)]
        assert len(frames) == 2
        given = options("ace", "one.xyz", finetune={"read_from": "old.ckpt"}, num_epochs=0)
        api.train({**given, "validation_set": 0.5}, output="tuned.pt")
        changed = compositions("tuned.ckpt")[CU] - compositions("old.ckpt")[CU]
        assert (abs(changed) > 1.0) == (shift > 0.0)


def test_elements_that_no_structure_tells_apart(folder: Path) -> None:
    """All have as much Ag as Cu: what is missing is Ag's, and Cu stays as it is."""
    write("old.xyz", (CU, AU))
    frames = write("both.xyz", (CU, AU, AG), seed=100)
    for atoms in frames:
        results = dict(atoms.calc.results)
        results["energy"] += sum(OFFSET[z] for z in (CU, CU, AG, AG)) - sum(
            OFFSET[z] for z in atoms.numbers
        )
        atoms.numbers[:] = [CU, CU, AG, AG]
        atoms.calc = SinglePointCalculator(atoms, **results)
    ase.io.write("both.xyz", frames, format="extxyz")
    api.train(options("ace", "old.xyz"), output="old.pt")
    tune("ace", "both.xyz", "old.ckpt", "tuned.pt", num_epochs=0)
    assert compositions("tuned.ckpt")[CU] == compositions("old.ckpt")[CU]
    assert compositions("tuned.ckpt")[AG] == pytest.approx(OFFSET[AG], abs=15.0)


def test_targets_of_atoms_and_classes(folder: Path) -> None:
    """Their scale is that of the new element's atoms; a head of the core grows with the features."""
    targets = {
        "mtt::size": {"key": "size", "sample_kind": "atom"},
        "mtt::rich": {"key": "rich", "type": "binary"},
    }
    known = write("old.xyz", (CU, AU))
    write("ag.xyz", (CU, AU, AG), seed=100)
    api.train(options("ace", "old.xyz", targets), output="old.pt")
    given = options("ace", "ag.xyz", targets, finetune={"read_from": "old.ckpt"}, num_epochs=0)
    given["architecture"]["atomic_types"] = [AL, "Cu", "Ag", "Au"]  # more than there are data of
    api.train(given, output="new.pt")
    old, new = predictor("old.ckpt"), predictor("new.ckpt")
    assert new.dataset_info.atomic_types == (AL, CU, AG, AU)
    for name in targets:
        for buffer in ("shift", "scale", "reference"):
            one, other = (getattr(p.affine_of(name), buffer) for p in (old, new))
            assert torch.equal(other[[1, 3]], one)
    sizes = new.affine_of("mtt::size")
    assert sizes.shift[2, 0] == pytest.approx(47.0, abs=0.2)
    assert float(sizes.reference[2]) == pytest.approx(0.3, rel=0.3)
    assert float(sizes.reference[0]) == pytest.approx(
        float(sizes.reference[[1, 3]].square().mean().sqrt())
    )
    for name in targets:
        a, b = (p(graph_of(p.model, known), [name])[name][0] for p in (old, new))
        torch.testing.assert_close(b, a, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("model", ["ace"])
def test_elements_that_were_given_and_had_no_data(folder: Path, model: str) -> None:
    """The model has room for Ag since its training on Cu and Au; fine-tuning fills it."""
    write("old.xyz", (CU, AU), n=40)
    write("ag.xyz", (CU, AU, AG), n=40, seed=100)
    given = options(model, "old.xyz", num_epochs=20)
    given["architecture"]["atomic_types"] = ["Cu", "Ag", "Au"]
    api.train(given, output="room.pt")
    assert compositions("room.ckpt")[AG] == 0.0
    first, last = (
        tune(model, "ag.xyz", "room.ckpt", "new.pt", num_epochs=n).errors for n in (0, 40)
    )
    assert compositions("new.ckpt")[AG] == pytest.approx(OFFSET[AG], abs=4.0)
    before, after = (found["validation"]["energy:forces"]["rmse"] for found in (first, last))
    assert after < 0.8 * before


def test_a_head_that_is_inherited_and_one_that_is_new(folder: Path) -> None:
    write("old.xyz", (CU, AU))
    write("ag.xyz", (CU, AU, AG), seed=100)
    api.train(options("ace", "old.xyz"), output="old.pt")
    targets = {"energy/emt": ENERGY["energy"], "mtt::size": {"key": "size", "sample_kind": "atom"}}
    source = {"read_from": "old.ckpt", "inherit_heads": {"energy/emt": "energy"}}
    api.train(options("ace", "ag.xyz", targets, finetune=source, num_epochs=0), output="new.pt")
    old, new = (
        load_checkpoint("old.ckpt")["model"]["best"],
        load_checkpoint("new.ckpt")["model"]["last"],
    )
    name = "heads.{}.blocks.0.linear.weight"
    assert torch.equal(new[name.format("energy/emt")][[0, 2]], old[name.format("energy")])
    assert compositions("new.ckpt", "energy/emt")[AG] == pytest.approx(OFFSET[AG], abs=2.0)
    assert compositions("new.ckpt", "mtt::size")[AG] == pytest.approx(47.0, abs=0.2)


def test_given_compositions_hold_for_new_elements(folder: Path) -> None:
    write("old.xyz", (CU, AU))
    write("ag.xyz", (CU, AU, AG), seed=100)
    api.train(options("ace", "old.xyz"), output="old.pt")
    tune(
        "ace",
        "ag.xyz",
        "old.ckpt",
        "new.pt",
        num_epochs=0,
        atomic_baseline={"energy": {"Ag": -1.5}},
    )
    assert compositions("new.ckpt")[AG] == -1.5


def test_the_encoder_is_not_trained(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    write("old.xyz", (CU, AU))
    write("ag.xyz", (CU, AU, AG), seed=100)
    api.train(options("ace", "old.xyz"), output="old.pt")
    caplog.set_level("INFO", "atomtrain")
    source = {"read_from": "old.ckpt", "method": "heads"}
    api.train(options("ace", "ag.xyz", finetune=source, num_epochs=1), output="new.pt")
    assert "the model takes in Ag: weights that come with an element start anew" in caplog.text
    assert "what it has of Ag stays as random as it starts; 'full' trains it" in caplog.text


@pytest.mark.parametrize(
    ("hypers", "why"),
    [
        ({}, r"its layer norm \(bpnn.layernorm\) takes mean and size of the features of all elements together"),
        ({"bpnn": {"num_hidden_layers": 0, "layernorm": False}, "heads": {"energy": "mlp"}},
         "without hidden layers"),
    ],
)  # fmt: skip
def test_what_cannot_grow_says_why(folder: Path, hypers: dict[str, Any], why: str) -> None:
    write("old.xyz", (CU, AU))
    write("ag.xyz", (CU, AU, AG), seed=100)
    given = options("soap", "old.xyz", num_epochs=1)
    given["architecture"]["model"] = {**SOAP, **hypers}
    api.train(given, output="old.pt")
    with pytest.raises(DataError, match=why) as error:
        tune("soap", "ag.xyz", "old.ckpt", "new.pt")
    message = str(error.value)
    assert (
        "the training data contain Ag, which the checkpoint 'old.ckpt' was not trained for"
        in message
    )
    assert "(it knows Cu, Au)" in message
    assert (
        "train anew, with all elements you may want later in architecture.atomic_types" in message
    )


def test_a_classifier_is_limited_by_its_backbone(folder: Path) -> None:
    """It takes in what its backbone knows; a backbone is grown first."""
    for kinds, file in (((CU, AU), "old.xyz"), ((CU, AU, AG), "ag.xyz")):
        write(file, kinds, seed=100)
    gold = [crystal(k, (AU,)) for k in range(16)]
    for k, atoms in enumerate(gold):
        atoms.info["rich"] = k % 2
    ase.io.write("au.xyz", gold, format="extxyz")
    api.train(options("ace", "old.xyz", num_epochs=1), output="backbone.pt")
    targets = {"mtt::rich": {"key": "rich", "type": "binary"}}

    def classify(data: str, output: str, **training: Any) -> None:
        given = options("ace", data, targets, **{"num_epochs": 2, **training})
        given["architecture"].update(name="classifier", model={"hidden_sizes": [4]})
        api.train(given, output=output)

    classify("au.xyz", "gold.pt", model_checkpoint="backbone.ckpt")
    assert load_checkpoint("gold.ckpt")["dataset_info"]["atomic_types"] == [AU]
    classify("old.xyz", "both.pt", finetune={"read_from": "gold.ckpt"}, num_epochs=0)
    assert load_checkpoint("both.ckpt")["dataset_info"]["atomic_types"] == [CU, AU]
    one, two = predictor("gold.ckpt"), predictor("both.ckpt")
    a, b = (p(graph_of(p.model, gold), ["mtt::rich"])["mtt::rich"][0] for p in (one, two))
    assert torch.equal(a, b)
    with pytest.raises(
        DataError, match=r"fine-tune that model on these elements .* and begin with the result"
    ):
        classify("ag.xyz", "three.pt", finetune={"read_from": "both.ckpt"})
    tune("ace", "ag.xyz", "backbone.ckpt", "wider.pt", num_epochs=1)
    classify("ag.xyz", "three.pt", model_checkpoint="wider.ckpt")


@pytest.mark.parametrize("model", ["soap", "soap of all"])
def test_the_kit(model: str) -> None:
    """ACE's own tests run all of it; SOAP-BPNN's are on a model that does not grow."""
    outcome = run_check(Subject(*MODELS[model]), "new_elements")
    assert outcome.verdict == "passed", outcome.message
