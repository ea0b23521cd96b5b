"""Symmetries: what turning, inverting, permuting and moving a structure may change, and how."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.special import lpmv
from torch import Tensor

from atomtrain.model import Predictor
from atomtrain.targets import Block
from atomtrain_testing import structures
from atomtrain_testing.checks import NotApplicable, check
from atomtrain_testing.predictions import Prediction, expect_same, predict_one
from atomtrain_testing.structures import moved_by
from atomtrain_testing.subject import Subject


@check("moves")
def rotation(subject: Subject) -> None:
    """Turning a structure turns vectors and tensors with it and leaves scalars as they are.

    Turning a structure leaves scalars as they are, turns forces, stress, vectors and matrices, and mixes spherical
    components of degree l by Wigner's matrix (l = 1 is y, z, x). Every kind of target that the architecture
    declares is looked at. A model that is not equivariant by construction says ``equivariant = False``.
    """
    if not subject.equivariant:
        raise NotApplicable("the architecture is not promised to be equivariant")
    q, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    _check_turned(subject, q * np.sign(np.linalg.det(q)), "rotated")


@check("moves")
def inversion(subject: Subject) -> None:
    """Inverting a structure changes the sign of what is odd, and of nothing else.

    Inverting a structure changes the sign of vectors and of spherical tensors with ``o3_sigma (-1)^l = -1``, and of
    nothing else. A model that uses triple products of neighbours' vectors is the usual one to fail.
    """
    if not subject.equivariant:
        raise NotApplicable("the architecture is not promised to be equivariant")
    _check_turned(subject, -np.eye(3), "inverted")


@check("moves")
def permutation(subject: Subject) -> None:
    """The order of the atoms does not matter.

    The order of the atoms does not matter, neither for totals nor for the values of each atom. Results must not
    depend on the order of the pairs either: in exported models it is another one.
    """
    rng = np.random.default_rng(1)
    for name, predictor in subject.predictors.items():
        for title, atoms in structures.neighbourly(subject.atomic_types).items():
            order = rng.permutation(len(atoms))
            wanted = predict_one(predictor, atoms)
            found = predict_one(predictor, atoms[order])
            permuted = wanted.pick(torch.from_numpy(order))
            expect_same(
                found, permuted, subject.tolerance, f"{title}, atoms in another order: '{name}'"
            )


@check("moves")
def translation(subject: Subject) -> None:
    """Moving a structure, or atoms by whole cell vectors, changes nothing.

    Moving everything, or single atoms by whole cell vectors, changes nothing. Use ``vectors``, or positions
    together with ``shifts``; never positions alone. A sum on a mesh (P3M) is not exact here: give it a
    ``tolerance`` of ``1e-6``.
    """
    for name, predictor in subject.predictors.items():
        for title, atoms in structures.neighbourly(subject.atomic_types).items():
            wanted = predict_one(predictor, atoms)
            moved = moved_by(atoms, np.array([1.7, -2.3, 0.9]))
            expect_same(
                predict_one(predictor, moved),
                wanted,
                subject.tolerance,
                f"{title}, moved: '{name}'",
            )
            if atoms.pbc.any():
                cells = np.random.default_rng(2).integers(-2, 3, size=(len(atoms), 3)) * atoms.pbc
                moved = moved_by(atoms, cells @ atoms.cell.array)
                what = f"{title}, atoms moved to other cells: '{name}'"
                expect_same(predict_one(predictor, moved), wanted, subject.tolerance, what)


# -- pieces ----------------------------------------------------------------------------------------


def _check_turned(subject: Subject, matrix: np.ndarray, how: str) -> None:
    for name, predictor in subject.predictors.items():
        for title, atoms in structures.neighbourly(subject.atomic_types).items():
            other = atoms.copy()
            other.positions = atoms.positions @ matrix.T
            other.set_cell(atoms.cell.array @ matrix.T)
            before = predict_one(predictor, atoms)
            wanted = _turned(predictor, before, matrix)
            expect_same(
                predict_one(predictor, other),
                wanted,
                subject.tolerance,
                f"{title}, {how}: '{name}'",
            )


def _turned(predictor: Predictor, found: Prediction, matrix: np.ndarray) -> Prediction:
    """What a prediction must become when the structure is turned by an orthogonal matrix."""
    q = torch.from_numpy(matrix)
    blocks = {}
    for name, target in predictor.dataset_info.targets.items():
        blocks[name] = [
            _turned_block(layout, values.detach(), matrix)
            for layout, values in zip(target.blocks, found.blocks[name], strict=True)
        ]
    forces = None if found.forces is None else found.forces @ q.T
    strain = found.strain
    if strain is not None:
        strain = (q @ strain.reshape(-1, 3, 3) @ q.T).reshape(-1, 9)
    return Prediction(blocks, forces, strain, found.pooled)


def _turned_block(layout: Block, values: Tensor, matrix: np.ndarray) -> Tensor:
    if not layout.components:
        return values
    if layout.components[0][0] == "o3_mu":
        key = dict(layout.key)
        degree, improper = key["o3_lambda"], np.linalg.det(matrix) < 0
        parity = key["o3_sigma"] * (-1) ** degree if improper else 1
        proper = -matrix if improper else matrix
        turn = torch.from_numpy(_wigner(degree, proper))
        return parity * torch.einsum("mn,inp->imp", turn, values)
    q = torch.from_numpy(matrix)
    for axis in range(len(layout.components)):
        values = torch.tensordot(values, q, dims=([axis + 1], [1])).movedim(-1, axis + 1)
    return values


def _wigner(degree: int, rotation: np.ndarray) -> np.ndarray:
    """D with ``Y(R v) = D Y(v)``, from the harmonics at many directions."""
    v = np.random.default_rng(5).normal(size=(20 * (degree + 1), 3))
    solution, *_ = np.linalg.lstsq(_harmonics(degree, v), _harmonics(degree, v @ rotation.T))
    return np.asarray(solution.T)


def _harmonics(degree: int, v: np.ndarray) -> np.ndarray:
    """Real spherical harmonics of one degree, m = -l ... l (for l = 1: y, z, x), up to a factor."""
    r = np.linalg.norm(v, axis=1)
    azimuth = np.arctan2(v[:, 1], v[:, 0])
    columns = []
    for m in range(-degree, degree + 1):
        k = abs(m)
        norm = math.sqrt(math.factorial(degree - k) / math.factorial(degree + k))
        norm *= (-1) ** k * (math.sqrt(2) if m else 1.0)
        wave = np.sin(k * azimuth) if m < 0 else np.cos(k * azimuth)
        columns.append(norm * lpmv(k, degree, v[:, 2] / r) * wave)
    return np.stack(columns, axis=1)
