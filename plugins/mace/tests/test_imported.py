"""Models of mace-torch as checkpoints of ours: trained by mace-torch itself, or built like foundation models."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.io import write

pytest.importorskip(
    "mace", reason="mace-torch needs e3nn 0.4.4 and has an environment of its own: nox -s mace"
)

from mace.calculators import MACECalculator
from metatomic_ase import MetatomicCalculator

import atomtrain
from atomtrain.errors import CheckpointError
from atomtrain_mace import imported
from atomtrain_mace.blocks import building, modules, o3
from atomtrain_mace.command import import_mace

TRAIN = [
    "--name=tiny", "--train_file=train.xyz", "--valid_file=valid.xyz", "--model=MACE", "--hidden_irreps=8x0e + 8x1o",
    "--r_max=4.0", "--num_radial_basis=4", "--max_ell=2", "--correlation=2", "--radial_MLP=[8]", "--E0s=average",
    "--energy_key=energy", "--forces_key=forces", "--batch_size=4", "--max_num_epochs=2", "--ema",
    "--default_dtype=float64", "--device=cpu", "--seed=1", "--eval_interval=10",
]  # fmt: skip


def labelled(n: int, seed: int) -> list[Atoms]:
    """Distorted molecules with the energies and forces of springs between all atoms."""
    random = np.random.default_rng(seed)
    frames = []
    for _ in range(n):
        atoms = molecule("CH3CH2OH")
        rest = atoms.get_all_distances()
        atoms.positions += random.normal(scale=0.08, size=(len(atoms), 3))
        vectors = atoms.positions[:, None] - atoms.positions[None]
        lengths = np.linalg.norm(vectors, axis=2) + np.eye(len(atoms))
        stretch = (lengths - rest) * (1 - np.eye(len(atoms)))
        atoms.info["energy"] = float((stretch**2).sum()) - 400.0
        atoms.arrays["forces"] = -4 * (stretch[:, :, None] * vectors / lengths[:, :, None]).sum(1)
        frames.append(atoms)
    return frames


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, and ``tiny.model``, which mace-torch's own command trained on them."""
    made = tmp_path_factory.mktemp("mace")
    write(made / "train.xyz", labelled(8, 0))
    write(made / "valid.xyz", labelled(4, 1))
    subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "mace.cli.run_train", *TRAIN],
        cwd=made, check=True, capture_output=True,
    )  # fmt: skip
    import_mace(str(made / "tiny.model"), made / "tiny.ckpt")
    atomtrain.export(made / "tiny.ckpt", output=made / "tiny.pt")
    return made


def compare(path: Path, exported: Path, frames: list[Atoms]) -> None:
    theirs = MACECalculator(model_paths=str(path), device="cpu", default_dtype="float64")
    ours = MetatomicCalculator(exported)
    for atoms in frames:
        found = []
        for calculator in (theirs, ours):
            atoms.calc = calculator
            values = [np.array(atoms.get_potential_energy()), atoms.get_forces()]
            if atoms.pbc.all():
                values.append(atoms.get_stress())
            found.append(values)
        for wanted, got in zip(*found, strict=True):
            assert np.abs(wanted - got).max() <= 1e-5 * np.abs(wanted).max()


def periodic(frames: list[Atoms]) -> list[Atoms]:
    """The same in cells smaller than the cutoff."""
    cells = [atoms.copy() for atoms in frames]
    for k, atoms in enumerate(cells):
        atoms.set_cell([[5.2, 0.3, 0.1 * k], [0, 4.9, 0.2], [0.4, 0, 5.5]])
        atoms.pbc = True
    return cells


def test_a_model_trained_by_mace_predicts_the_same(folder: Path) -> None:
    frames = labelled(2, 2)
    compare(folder / "tiny.model", folder / "tiny.pt", [*frames, *periodic(frames)])
    shown = atomtrain.show(folder / "tiny.ckpt")
    assert shown["architecture"]["name"] == "mace"
    assert shown["hypers"]["model"]["hidden_irreps"] == "8x0e + 8x1o"


def test_it_is_fine_tuned(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On its own target and another one; before the first step it predicts what it was taken for."""
    monkeypatch.chdir(folder)
    frames = labelled(8, 3)
    for atoms in frames:
        atoms.info["dipole"] = atoms.positions.sum(0)
    write("more.xyz", frames)
    options = {
        "architecture": {
            "name": "mace",
            "model": atomtrain.show("tiny.ckpt")["hypers"]["model"],
            "training": {
                "num_epochs": 1,
                "batch_size": 4,
                "learning_rate": 1e-4,
                "finetune": {"method": "full", "read_from": "tiny.ckpt"},
            },
        },
        "base_precision": 64,
        "training_set": {
            "systems": {"read_from": "more.xyz", "length_unit": "angstrom"},
            "targets": {
                "energy": {"key": "energy", "unit": "eV", "forces": {"key": "forces"}},
                "mtt::dipole": {"key": "dipole", "type": {"cartesian": {"rank": 1}}},
            },
        },
        "validation_set": 2,
        "final_eval": False,
    }
    atomtrain.train(options, output="tuned.pt")
    forces = []
    for name in ("tiny.pt", "tuned.pt"):
        atoms = labelled(1, 4)[0]
        atoms.calc = MetatomicCalculator(name)
        forces.append(atoms.get_forces())
    off = np.abs(forces[0] - forces[1]).max() / np.abs(forces[0]).max()
    assert 0.0 < off < 0.2


def built(**changes: Any) -> Any:
    """A model with many elements, as foundation models are, with random weights."""
    elements = [1, 3, 6, 7, 8, 9, 14, 17, 26, 29, 47, 92]
    kinds = modules.interaction_classes
    first = kinds[changes.pop("interaction_first", "RealAgnosticResidualInteractionBlock")]
    later = kinds[changes.pop("interaction", "RealAgnosticResidualInteractionBlock")]
    heads = changes.get("heads") or ["Default"]
    given = {
        "r_max": 4.5, "num_bessel": 6, "num_polynomial_cutoff": 5, "max_ell": 2, "num_interactions": 2,
        "hidden_irreps": o3.Irreps("4x0e + 4x1o"), "MLP_irreps": o3.Irreps("16x0e"), "correlation": 3,
        "gate": torch.nn.functional.silu, "radial_MLP": [8, 8], "avg_num_neighbors": 17.3, "heads": heads,
    }  # fmt: skip
    torch.manual_seed(5)
    with building():
        return modules.ScaleShiftMACE(
            interaction_cls=later,
            interaction_cls_first=first,
            num_elements=len(elements),
            atomic_numbers=elements,
            atomic_energies=np.random.default_rng(0).normal(size=(len(heads), len(elements))) * 500,
            atomic_inter_scale=[0.8 + 0.3 * k for k in range(len(heads))],
            atomic_inter_shift=[0.1 + k for k in range(len(heads))],
            **{**given, **changes},
        )


LIKE: dict[str, tuple[dict[str, Any], str | None]] = {
    "MP-0": ({}, None),
    "MP-0b": (
        {
            "pair_repulsion": True,
            "distance_transform": "Agnesi",
            "interaction_first": "RealAgnosticDensityInteractionBlock",
            "interaction": "RealAgnosticDensityResidualInteractionBlock",
        },
        None,
    ),
    "OFF": ({"hidden_irreps": o3.Irreps("4x0e"), "num_polynomial_cutoff": 6, "max_ell": 3}, None),
    "several heads": ({"heads": ["pt_head", "mine", "other"]}, "mine"),
    "nonlinear": (
        {
            "interaction_first": "RealAgnosticResidualNonLinearInteractionBlock",
            "interaction": "RealAgnosticResidualNonLinearInteractionBlock",
            "apply_cutoff": False,
            "edge_irreps": o3.Irreps("2x0e + 2x1o"),
            "use_last_readout_only": True,
        },
        None,
    ),
    "one layer": ({"num_interactions": 1}, None),
}


@pytest.mark.parametrize("name", LIKE)
def test_models_like_foundation_models(name: str) -> None:
    changes, head = LIKE[name]
    model = built(**changes)
    predictor, hypers = imported.convert(model, head)
    assert imported.difference(predictor, model, head) < 1e-10
    assert type(hypers).model_validate(hypers.model_dump(mode="json")) == hypers
    in_float32 = model.to(torch.float32)
    predictor, _ = imported.convert(in_float32, head)
    assert imported.difference(predictor, in_float32, head) < 1e-5


def test_a_foundation_file_in_ase(tmp_path: Path) -> None:
    """With the repulsion, which is scaled there, and the stress of small cells."""
    torch.save(built(**LIKE["MP-0b"][0]), tmp_path / "big.model")
    import_mace(str(tmp_path / "big.model"), tmp_path / "big.ckpt")
    atomtrain.export(tmp_path / "big.ckpt", output=tmp_path / "big.pt")
    frames = labelled(1, 6)
    compare(tmp_path / "big.model", tmp_path / "big.pt", [*frames, *periodic(frames)])


def _with(change: Callable[[Any], object], **changes: Any) -> Any:
    model = built(**changes)
    change(model)
    return model


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "weights": (lambda: {"model": {}}, "without the model they belong to"),
    "another class": (lambda: torch.nn.Linear(1, 1), "is a Linear"),
    "inputs": (
        lambda: _with(
            lambda m: None,
            embedding_specs={
                "total_charge": {"type": "continuous", "per": "graph", "in_dim": 1, "emb_dim": 4}
            },
        ),
        r"embeddings of further inputs \(total_charge\)",
    ),
    "readouts": (
        lambda: _with(lambda m: None, readout_cls=modules.NonLinearBiasReadoutBlock),
        "a readout NonLinearBiasReadoutBlock",
    ),
    "several heads": (
        lambda: built(heads=["a", "b"]),
        r"several heads: choose one with --head \(a, b\)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_taken_over_is_refused_by_name(tmp_path: Path, case: str) -> None:
    make, message = REFUSED[case]
    torch.save(make(), tmp_path / "a.model")
    with pytest.raises(CheckpointError, match=message):
        import_mace(str(tmp_path / "a.model"), tmp_path / "a.ckpt")
    assert not (tmp_path / "a.ckpt").exists()


def test_what_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "text.model").write_text("no pickle")
    with pytest.raises(CheckpointError, match="cannot be read as a model of mace-torch"):
        import_mace(str(tmp_path / "text.model"), tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match="there is no file"):
        import_mace(str(tmp_path / "absent.model"), tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match="has no head 'x'"):
        imported.convert(built(), "x")
