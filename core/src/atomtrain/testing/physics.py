"""What physics asks: derivatives, symmetries, smoothness, sums, and awkward structures.

All in float64, on models with random weights and on one structure at a time unless said otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from ase import Atoms
from scipy.special import lpmv
from torch import Tensor

from atomtrain.model import Predictor
from atomtrain.targets import Block
from atomtrain.testing import structures
from atomtrain.testing.checks import NotApplicable, check, expect_equal, require
from atomtrain.testing.subject import (
    Prediction,
    Subject,
    graph_of,
    predict,
    predict_one,
)


@check("moves")
def gradients(subject: Subject) -> None:
    """Forces and stress are the derivatives of the energy, by finite differences."""
    name = subject.energy
    if not subject.energy_conservative:
        raise NotApplicable("the forces are not promised to be derivatives of the energy")
    predictor = subject.predictors[subject.main.name]
    rng = np.random.default_rng(0)
    frames = structures.awkward(subject.atomic_types)

    def energy(atoms: Atoms) -> float:
        return float(predict_one(predictor, atoms).total(name).detach())

    for title in ("molecule", "crystal", "small cell"):
        atoms = frames[title]
        found = predict_one(predictor, atoms)
        assert found.forces is not None and found.strain is not None
        forces = found.forces.detach().numpy()
        strain = found.strain.detach().reshape(3, 3).numpy()
        for _ in range(2):
            along = rng.normal(size=forces.shape)
            slope = _derivative(lambda h, a=atoms, u=along: energy(_moved(a, h * u)))  # type: ignore[misc]
            wanted = -float((forces * along).sum())
            size = float(np.linalg.norm(forces) * np.linalg.norm(along))
            require(
                abs(slope - wanted) <= 1e-5 * size + 1e-7,
                f"{title}: the energy changes by {slope:.8g} per unit of a displacement, the "
                f"forces say {wanted:.8g}. Is a part of the energy detached from the pair vectors, "
                "or a backward of your own wrong?",
            )
        if not atoms.pbc.all():
            continue
        shape = rng.normal(size=(3, 3))
        slope = _derivative(lambda h, a=atoms, e=shape: energy(_strained(a, h * e)))  # type: ignore[misc]
        wanted = float((strain * shape).sum())
        size = float(np.linalg.norm(strain) * np.linalg.norm(shape))
        require(
            abs(slope - wanted) <= 1e-5 * size + 1e-7,
            f"{title}: the energy changes by {slope:.8g} per unit of a strain, volume times stress "
            f"says {wanted:.8g}",
        )


@check("gradients")
def training_gradients(subject: Subject) -> None:
    """Energies and forces have the right derivatives in the weights, by finite differences."""
    name = subject.energy
    predictor = subject.predictor()
    weights = [p for p in predictor.model.parameters() if p.requires_grad]
    if not weights:
        raise NotApplicable("the model has no weights")
    frames = structures.awkward(subject.atomic_types)
    graph = graph_of(predictor.model, [frames["molecule"], frames["crystal"]])
    generator = torch.Generator().manual_seed(0)

    def some(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, dtype=like.dtype)

    on_forces = some(graph.positions)

    def value(create_graph: bool) -> Tensor:
        found = predict(predictor, graph, create_graph=create_graph)
        assert found.forces is not None and found.strain is not None
        return (found.forces * on_forces).sum() + found.total(name).sum() + found.strain.sum()

    slopes = torch.autograd.grad(value(True), weights, allow_unused=True)
    direction = [some(w) for w in weights]
    wanted = sum(
        float((s * d).sum()) for s, d in zip(slopes, direction, strict=True) if s is not None
    )
    size = math.sqrt(sum(float(s.square().sum()) for s in slopes if s is not None))
    size *= math.sqrt(sum(float(d.square().sum()) for d in direction))
    start = [w.detach().clone() for w in weights]

    def along(h: float) -> float:
        with torch.no_grad():
            for weight, before, step in zip(weights, start, direction, strict=True):
                weight.copy_(before + h * step)
        return float(value(False).detach())

    slope = _derivative(along, 1e-5)
    require(
        abs(slope - wanted) <= 1e-4 * size + 1e-6,
        f"energies and forces change by {slope:.8g} along a change of the weights, autograd says "
        f"{wanted:.8g}: training on forces would go the wrong way. Is a backward of your own not "
        "differentiable itself?",
    )


@check("moves")
def lonely_atoms(subject: Subject) -> None:
    """Atoms without any neighbour have finite predictions and no forces."""
    frames = structures.awkward(subject.atomic_types)
    lonely = [frames["single atom"], frames["atoms far apart"]]
    for name, predictor in subject.predictors.items():
        reach = float(predictor.model.interaction_range)
        boxed = frames["single atom"].copy()
        boxed.set_cell(np.eye(3) * 2.5 * float(predictor.model.cutoff))
        boxed.pbc = True
        for atoms in [*lonely, boxed]:
            found = predict_one(predictor, atoms)
            what = f"'{name}' of {len(atoms)} atom(s) without neighbours"
            for blocks in found.blocks.values():
                for block in blocks:
                    require(bool(torch.isfinite(block).all()), f"{what} is not finite")
            if found.forces is not None:
                require(bool(torch.isfinite(found.forces).all()), f"{what}: forces not finite")
                force = float(found.forces.abs().max())
                if math.isfinite(reach):
                    require(force <= 1e-10, f"{what}: there is a force of {force:.3g}")


@check("lonely_atoms")
def constants(subject: Subject) -> None:
    """What the model says is constant changes nothing when it is kept between epochs."""
    predictor = subject.predictor()
    frames = list(structures.awkward(subject.atomic_types).values())
    plain = graph_of(predictor.model, frames)
    kept = graph_of(predictor.model, frames, constants=True)
    if not set(kept.extras) - set(plain.extras):
        raise NotApplicable("the model declares no constants")
    found, wanted = predict(predictor, kept), predict(predictor, plain)
    _same(subject, found, wanted, "with its constants from 'constants'")


@check("moves")
def rotation(subject: Subject) -> None:
    """Turning a structure turns vectors and tensors with it and leaves scalars as they are."""
    if not subject.equivariant:
        raise NotApplicable("the architecture is not promised to be equivariant")
    q, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    _check_turned(subject, q * np.sign(np.linalg.det(q)), "rotated")


@check("moves")
def inversion(subject: Subject) -> None:
    """Inverting a structure changes the sign of what is odd, and of nothing else."""
    if not subject.equivariant:
        raise NotApplicable("the architecture is not promised to be equivariant")
    _check_turned(subject, -np.eye(3), "inverted")


@check("moves")
def permutation(subject: Subject) -> None:
    """The order of the atoms does not matter."""
    rng = np.random.default_rng(1)
    for name, predictor in subject.predictors.items():
        for title, atoms in structures.neighbourly(subject.atomic_types).items():
            order = rng.permutation(len(atoms))
            wanted = predict_one(predictor, atoms)
            found = predict_one(predictor, atoms[order])
            rows = torch.from_numpy(order)
            permuted = Prediction(
                {n: [b[rows] for b in blocks] for n, blocks in wanted.blocks.items()},
                None if wanted.forces is None else wanted.forces[rows],
                wanted.strain,
            )
            _same(subject, found, permuted, f"{title}, atoms in another order: '{name}'")


@check("moves")
def translation(subject: Subject) -> None:
    """Moving a structure, or atoms by whole cell vectors, changes nothing."""
    for name, predictor in subject.predictors.items():
        for title, atoms in structures.neighbourly(subject.atomic_types).items():
            wanted = predict_one(predictor, atoms)
            moved = _moved(atoms, np.array([1.7, -2.3, 0.9]))
            _same(subject, predict_one(predictor, moved), wanted, f"{title}, moved: '{name}'")
            if atoms.pbc.any():
                cells = np.random.default_rng(2).integers(-2, 3, size=(len(atoms), 3)) * atoms.pbc
                moved = _moved(atoms, cells @ atoms.cell.array)
                what = f"{title}, atoms moved to other cells: '{name}'"
                _same(subject, predict_one(predictor, moved), wanted, what)


@check("lonely_atoms")
def smoothness(subject: Subject) -> None:
    """Energy and forces do not jump where an atom crosses the cutoff."""
    name = subject.energy
    predictor = subject.predictors[subject.main.name]
    cutoff = float(predictor.model.cutoff)
    types = subject.atomic_types
    for first in types:
        for second in types:
            found = []
            for factor in (1 - 1e-7, 1 + 1e-7):
                atoms = structures.trio(types, first, second, factor * cutoff, 0.4 * cutoff)
                found.append(predict_one(predictor, atoms))
            inside, outside = found
            jump = float((inside.total(name) - outside.total(name)).detach().abs())
            size = max(1.0, float(outside.total(name).detach().abs()))
            which = f"atomic numbers {first} and {second} at the cutoff {cutoff:g}"
            require(
                jump <= 1e-4 * size,
                f"{which}: the energy jumps by {jump:.3g}. Multiply what a neighbour contributes "
                "by a function that reaches zero there",
            )
            assert inside.forces is not None and outside.forces is not None
            kick = float((inside.forces - outside.forces).abs().max())
            size = max(1.0, float(outside.forces.abs().max()))
            require(
                kick <= 1e-4 * size,
                f"{which}: the forces jump by {kick:.3g} while the energy does not. The function "
                "that ends the neighbourhood must reach zero with zero slope",
            )


@check("lonely_atoms")
def extensivity(subject: Subject) -> None:
    """Two structures far apart, and a doubled cell, have the sum of the energies."""
    name = subject.energy
    predictor = subject.predictors[subject.main.name]
    reach = max(float(predictor.model.cutoff), 1.0)
    molecule = structures.some_molecule(subject.atomic_types)

    def energy(atoms: Atoms) -> Tensor:
        return predict_one(predictor, atoms).total(name)

    box = molecule.copy()
    box.set_cell(np.diag(np.ptp(box.positions, axis=0).round(6) + 2.5 * reach))
    box.pbc = True
    expect_equal(
        energy(box.repeat((2, 1, 1))),
        2 * energy(box),
        10 * subject.tolerance,
        "a periodic box repeated twice against twice the energy of one",
    )
    far = float(predictor.model.interaction_range)
    if math.isinf(far):
        return
    other = _moved(molecule[:5], np.array([3 * max(far, reach) + 30.0, 0.0, 0.0]))
    expect_equal(
        energy(molecule + other),
        energy(molecule) + energy(other),
        10 * subject.tolerance,
        "two molecules far apart against the sum of their energies",
    )


@check("moves")
def interaction_range(subject: Subject) -> None:
    """Atoms beyond the interaction range the model states have no influence."""
    predictor = subject.predictors[subject.main.name]
    model = predictor.model
    reach = float(model.interaction_range)
    require(
        reach >= float(model.cutoff) or reach > 0,
        f"interaction_range is {reach}, cutoff {model.cutoff}: engines would cut neighbours off",
    )
    if math.isinf(reach):
        raise NotApplicable("the model says that its range is infinite")
    spacing = 0.45 * float(model.cutoff)
    n = int(reach / (0.8 * spacing)) + 6
    atoms = structures.chain(subject.atomic_types, n, spacing)
    moved = atoms.copy()
    moved.positions[-1] += [0.1 * spacing, 0.2 * spacing, 0.1]
    distances = np.minimum(atoms.get_distances(-1, range(n)), moved.get_distances(-1, range(n)))
    far = torch.from_numpy(distances > reach)
    before, after = predict_one(predictor, atoms), predict_one(predictor, moved)
    for name, blocks in before.blocks.items():
        for a, b in zip(blocks, after.blocks[name], strict=True):
            expect_equal(
                b[far],
                a[far],
                subject.tolerance,
                f"'{name}' of atoms more than the stated interaction range {reach:g} away from an "
                "atom that moves",
            )


@check("moves")
def small_cells(subject: Subject) -> None:
    """In cells smaller than the cutoff an atom meets its own images, and every image counts."""
    predictor = subject.predictors[subject.main.name]
    cell = structures.thin_cell(subject.atomic_types, float(predictor.model.cutoff))
    # one crystal in cells of different shape: the images of an atom in one are atoms in another
    shapes = [(4, 1, 1), (1, 4, 1), (2, 2, 1), (1, 2, 2)]
    name = subject.main.name
    totals = [predict_one(predictor, cell.repeat(shape)).total(name) for shape in shapes]
    for shape, total in zip(shapes[1:], totals[1:], strict=True):
        expect_equal(
            total,
            totals[0],
            10 * subject.tolerance,
            f"'{name}' of one crystal in cells of {shapes[0]} and {shape}",
        )


@check("lonely_atoms")
def batch_independence(subject: Subject) -> None:
    """A structure has the same predictions alone and among others."""
    frames = structures.awkward(subject.atomic_types)
    for name, predictor in subject.predictors.items():
        graph = graph_of(predictor.model, list(frames.values()))
        together = predict(predictor, graph)
        for k, (title, atoms) in enumerate(frames.items()):
            rows = graph.structure == k
            part = Prediction(
                {n: [b[rows] for b in blocks] for n, blocks in together.blocks.items()},
                None if together.forces is None else together.forces[rows],
                None if together.strain is None else together.strain[k : k + 1],
            )
            alone = predict_one(predictor, atoms)
            _same(subject, part, alone, f"{title} among {len(frames)} structures: '{name}'")


# -- pieces ----------------------------------------------------------------------------------------


def _check_turned(subject: Subject, matrix: np.ndarray, how: str) -> None:
    for name, predictor in subject.predictors.items():
        for title, atoms in structures.neighbourly(subject.atomic_types).items():
            other = atoms.copy()
            other.positions = atoms.positions @ matrix.T
            other.set_cell(atoms.cell.array @ matrix.T)
            before = predict_one(predictor, atoms)
            wanted = _turned(predictor, before, matrix)
            _same(subject, predict_one(predictor, other), wanted, f"{title}, {how}: '{name}'")


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
    return Prediction(blocks, forces, strain)


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


def _same(subject: Subject, found: Prediction, wanted: Prediction, what: str) -> None:
    """Compare every number of two predictions."""
    for name, blocks in wanted.blocks.items():
        for k, block in enumerate(blocks):
            part = what if len(blocks) == 1 else f"{what}, block {k}"
            expect_equal(found.blocks[name][k], block, subject.tolerance, part)
    if wanted.forces is not None and found.forces is not None:
        expect_equal(found.forces, wanted.forces, 10 * subject.tolerance, f"{what}: forces")
    if wanted.strain is not None and found.strain is not None:
        expect_equal(found.strain, wanted.strain, 100 * subject.tolerance, f"{what}: stress")


def _derivative(f: Callable[[float], float], h: float = 1e-4) -> float:
    """Central differences at h and h/2, extrapolated: exact to the fourth order in h."""
    coarse = (f(h) - f(-h)) / (2 * h)
    fine = (f(h / 2) - f(-h / 2)) / h
    return (4 * fine - coarse) / 3


def _moved(atoms: Atoms, by: np.ndarray) -> Atoms:
    other = atoms.copy()
    other.positions = other.positions + by
    return other


def _strained(atoms: Atoms, strain: np.ndarray) -> Atoms:
    """Positions and cell times ``1 + strain``, as ASE defines stress: r' = r (1 + strain)."""
    other = atoms.copy()
    other.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    return other


__all__ = [
    "batch_independence",
    "constants",
    "extensivity",
    "gradients",
    "interaction_range",
    "inversion",
    "lonely_atoms",
    "permutation",
    "rotation",
    "small_cells",
    "smoothness",
    "training_gradients",
    "translation",
]
