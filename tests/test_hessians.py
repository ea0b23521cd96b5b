"""Exported models that autograd can differentiate twice, and the Hessians they give, in eV/A^2.

The conformance kit asks every architecture for right second derivatives; here is what is made of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.vibrations import Vibrations, VibrationsData
from metatomic.torch import ModelOutput
from metatomic_ase import MetatomicCalculator

from atomtrain.model.export import (
    export_predictor,
    load_model,
    save_model,
    with_second_derivatives,
)
from atomtrain_testing.subject import Subject

SOAP = {
    "soap": {"max_radial": 3, "max_angular": 2, "cutoff": {"radius": 4.0}},
    "bpnn": {"num_neurons_per_layer": 5},
    "zbl": True,
}
HESSIAN = "atomtrain::energy_hessian"


def some_structures() -> list[Atoms]:
    """A molecule, and a crystal whose cell is far smaller than a cutoff; no force is zero by symmetry."""
    rng = np.random.default_rng(0)
    frames = [molecule("CH3OH"), bulk("C", "diamond", a=3.6)]
    frames[1].numbers[1] = 8
    for atoms in frames:
        atoms.positions += 0.05 * rng.normal(size=atoms.positions.shape)
    return frames


@pytest.fixture(scope="module")
def calc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MetatomicCalculator]:
    """Its first calls only: every export is tried in more, when it is verified."""
    path = tmp_path_factory.mktemp("hessians") / "model.pt"
    made = Subject("soap-bpnn", SOAP).predictor()
    save_model(export_predictor(with_second_derivatives(made, hessian=True), {}), path)
    with torch.jit.optimized_execution(False):
        yield MetatomicCalculator(load_model(path), device="cpu")


def hessians(calc: MetatomicCalculator, frames: Sequence[Atoms]) -> list[np.ndarray]:
    """By structure, ``[n, 3, n, 3]``."""
    output = ModelOutput(unit="eV/A^2", sample_kind="system")
    block = calc.run_model(list(frames), {HESSIAN: output})[HESSIAN].block()
    assert block.samples.names == ["system", "first_atom", "second_atom"]
    found = []
    for k, atoms in enumerate(frames):
        own = block.samples.column("system") == k
        first, second = (block.samples.column(name)[own] for name in block.samples.names[1:])
        hessian = np.full((len(atoms), 3, len(atoms), 3), np.nan)
        hessian[first, :, second] = block.values[own, :, :, 0].numpy()
        found.append(hessian)
    return found


def forces(calc: MetatomicCalculator, atoms: Atoms, step: np.ndarray | float) -> np.ndarray:
    moved = atoms.copy()
    moved.positions += step
    return np.asarray(calc.get_forces(moved))


def test_hessians_are_differences_of_forces(calc: MetatomicCalculator) -> None:
    """Of a molecule and a crystal at once, and with autograd switched off."""
    frames, h = some_structures(), 1e-5
    with torch.no_grad():
        together = hessians(calc, frames)
    for atoms, hessian in zip(frames, together, strict=True):
        size = np.abs(hessian).max()
        assert np.abs(hessian - hessian.transpose(2, 3, 0, 1)).max() < 1e-12 * size
        assert np.abs(hessian.sum(2)).max() < 1e-12 * size  # nothing changes where all atoms move
        way = np.random.default_rng(1).normal(size=(len(atoms), 3))
        change = (forces(calc, atoms, -h * way) - forces(calc, atoms, h * way)) / (2 * h)
        atol = 1e-6 * np.abs(change).max()
        np.testing.assert_allclose(np.tensordot(hessian, way), change, rtol=0, atol=atol)


def test_frequencies_and_rotations(calc: MetatomicCalculator, tmp_path: Path) -> None:
    atoms = some_structures()[0][:4]
    turned = atoms.copy()
    turned.rotate(50.0, (1.0, 2.0, 3.0))
    turn = np.linalg.lstsq(atoms.positions, turned.positions, rcond=None)[0]
    hessian, other = hessians(calc, [atoms, turned])
    expected = np.einsum("iajb,ac,bd->icjd", hessian, turn, turn)
    np.testing.assert_allclose(other, expected, atol=1e-10 * np.abs(hessian).max())
    atoms.calc = calc
    by_ase = Vibrations(atoms, delta=1e-4, name=str(tmp_path / "vib"))
    by_ase.run()
    found, wanted = (
        np.square(data.get_energies()).real
        for data in (VibrationsData(atoms, hessian), by_ase.get_vibrations())
    )
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6 * np.abs(wanted).max())
