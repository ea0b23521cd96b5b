"""Exported models that autograd can differentiate twice, and the Hessians they give, of all architectures of ours."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.vibrations import Vibrations, VibrationsData
from metatomic.torch import ModelOutput
from metatomic_ase import MetatomicCalculator

from atomtrain.model import Predictor
from atomtrain.model.export import (
    export_predictor,
    load_model,
    save_model,
    with_second_derivatives,
)
from atomtrain_testing.subject import Subject

ACE = {"cutoff": 3.5, "num_radial": 4, "max_degree": 2, "num_channels": 6, "num_neurons": 5}
SOAP = {"soap": {"max_radial": 3, "max_angular": 2}, "bpnn": {"num_neurons_per_layer": 5}}
LINEAR = {"cutoff": 3.5, "num_radial": 4, "max_degree": 2, "num_pairs": 5, "num_products": 4}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "soap-bpnn": ("soap-bpnn", SOAP),
    "soap-bpnn with ZBL": ("soap-bpnn", {**SOAP, "zbl": True}),
    "ace, one layer": ("ace", ACE),
    "ace, two layers": ("ace", {**ACE, "num_layers": 2, "num_messages": 2}),
    "linear": ("linear", LINEAR),
}
HESSIAN = "atomtrain::energy_hessian"


def predictor(kind: str) -> Predictor:
    name, hypers = MODELS[kind]
    return Subject(name, hypers).predictor()


def calculator(made: Predictor, path: Path) -> MetatomicCalculator:
    save_model(export_predictor(made, {}), path)
    return MetatomicCalculator(load_model(path), device="cpu")


def some_structures() -> list[Atoms]:
    """A molecule, and a crystal whose cell is far smaller than a cutoff; no force is zero by symmetry."""
    rng = np.random.default_rng(0)
    frames = [molecule("CH3OH"), bulk("C", "diamond", a=3.6)]
    frames[1].numbers[1] = 8
    for atoms in frames:
        atoms.positions += 0.05 * rng.normal(size=atoms.positions.shape)
    return frames


def hessians(calc: MetatomicCalculator, frames: Sequence[Atoms]) -> list[np.ndarray]:
    """By structure, ``[n, 3, n, 3]``."""
    output = ModelOutput(unit="eV/A^2", sample_kind="atom_pair")
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


def forces(calc: MetatomicCalculator, atoms: Atoms, step: np.ndarray) -> np.ndarray:
    moved = atoms.copy()
    moved.positions += step
    return np.asarray(calc.get_forces(moved))


@pytest.mark.parametrize("kind", MODELS)
def test_hessians_are_differences_of_forces(kind: str, tmp_path: Path) -> None:
    made = predictor(kind)
    usual = calculator(made, tmp_path / "usual.pt")
    calc = calculator(with_second_derivatives(made, hessian=True), tmp_path / "m.pt")
    frames = some_structures()
    for _ in range(3):
        together = hessians(calc, frames)
        print(calc)
    h = 1e-5
    for atoms, hessian in zip(frames, together, strict=True):
        n = len(atoms)
        flat = hessian.reshape(3 * n, 3 * n)
        size = np.abs(flat).max()
        (alone,) = hessians(calc, [atoms])
        print(kind, n, size, "alone", np.abs(alone - hessian).max() / size,
          "sym", np.abs(flat - flat.T).max() / size, "asr", np.abs(hessian.sum(2)).max() / size)
        way = np.random.default_rng(1).normal(size=(n, 3))
        change = forces(calc, atoms, -h * way) - forces(calc, atoms, h * way)
        wanted = change / (2 * h)
        print("fd", np.abs(flat @ way.ravel() - wanted.ravel()).max() / np.abs(wanted).max())
        print("force", np.abs(calc.get_forces(atoms) - usual.get_forces(atoms)).max(), calc.get_potential_energy(atoms) - usual.get_potential_energy(atoms))
