"""What physics asks: derivatives, smoothness, sums, and awkward structures.

All in float64, on models with random weights and on one structure at a time unless said otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from atomtrain_testing import structures
from atomtrain_testing.checks import (
    ConformanceError,
    NotApplicable,
    check,
    expect_equal,
    require,
)
from atomtrain_testing.predictions import (
    expect_same,
    graph_of,
    predict,
    predict_one,
    with_input,
)
from atomtrain_testing.structures import moved_by
from atomtrain_testing.subject import Subject


@check("moves")
def gradients(subject: Subject) -> None:
    """Forces and stress are the derivatives of the energy, by finite differences.

    Forces and stress, which the core takes by autograd, are the derivatives of the energy: compared with finite
    differences along random displacements and strains of a molecule, a skewed crystal, and a cell of one atom. It
    fails where a part of the energy is detached from ``vectors``, ``positions`` and ``cells``, or where an autograd
    function of your own has a wrong backward.
    """
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
            slope = _derivative(lambda h, a=atoms, u=along: energy(moved_by(a, h * u)))  # type: ignore[misc]
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
    """Energies and forces have the right derivatives in the weights, by finite differences.

    Energies, forces and stress have the right derivatives in the weights, again by finite differences. It fails
    where a weight is used detached, and where a backward of your own cannot be differentiated itself: training on
    forces then goes the wrong way without any error.
    """
    name = subject.energy
    predictor = subject.predictor()
    weights = [p for p in predictor.model.parameters() if p.requires_grad]
    if not weights:
        raise NotApplicable("no weight of the model is trained along gradients")
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
    """Atoms without any neighbour have finite predictions and no forces.

    A single atom, an atom alone in a large cell, and two atoms far apart have finite predictions, and no forces
    where the interaction range is finite. Divisions by a number of neighbours, and norms of sums over them, are the
    usual reasons: the gradient of ``norm`` at zero is not finite.
    """
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
    """What the model says is constant changes nothing when it is kept between epochs.

    What the model computes ahead in ``Model.constants`` and finds again in ``graph.extras`` gives what it would
    compute without, and so does all of it but one, since memory may be enough for a part. Skipped for models that
    declare nothing constant.
    """
    predictor = subject.predictor()
    frames = list(structures.awkward(subject.atomic_types).values())
    plain = graph_of(predictor.model, frames)
    kept = graph_of(predictor.model, frames, constants=True)
    names = sorted(set(kept.extras) - set(plain.extras))
    if not names:
        raise NotApplicable("the model declares no constants")
    wanted = predict(predictor, plain)
    found = predict(predictor, kept)
    expect_same(found, wanted, subject.tolerance, "with its constants from 'constants'")
    for name in names:  # memory may be enough for some of them
        rest = {k: v for k, v in kept.extras.items() if k != name}
        found = predict(predictor, kept._replace(extras=rest))
        expect_same(found, wanted, subject.tolerance, f"with all its constants but '{name}'")


@check("lonely_atoms")
def smoothness(subject: Subject) -> None:
    """Energy and forces do not jump where an atom crosses the cutoff.

    Where an atom crosses the cutoff, neither energy nor forces jump. Multiply what a neighbour contributes by a
    function that reaches zero at the cutoff with zero slope. Molecular dynamics heats up otherwise.
    """
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
    """Two structures far apart, and a doubled cell, have the sum of the energies.

    Two molecules far apart have the sum of their energies and a doubled cell has twice the energy. Numbers of
    atoms, means over structures and normalisation over them break it.
    """
    name = subject.energy
    predictor = subject.predictors[subject.main.name]
    reach = max(float(predictor.model.cutoff), 1.0)
    molecule = structures.some_molecule(subject.atomic_types)

    def energy(atoms: Atoms) -> Tensor:
        for key, one in subject.inputs.items():  # two charges are no sum of one
            atoms = atoms if one.per_atom else with_input(atoms, key, one, 0)
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
    other = moved_by(molecule[:5], np.array([3 * max(far, reach) + 30.0, 0.0, 0.0]))
    expect_equal(
        energy(molecule + other),
        energy(molecule) + energy(other),
        10 * subject.tolerance,
        "two molecules far apart against the sum of their energies",
    )


@check("moves")
def interaction_range(subject: Subject) -> None:
    """Atoms beyond the interaction range the model states have no influence.

    Atoms farther apart than ``interaction_range`` have no influence on each other. Engines that split space among
    processes rely on it. A model that passes messages between neighbours n times has n times its cutoff; a
    long-ranged one says ``inf``.
    """
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
    if subject.main.name in before.pooled:
        raise NotApplicable("the target belongs to whole structures")
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
    """In cells smaller than the cutoff an atom meets its own images, and every image counts.

    In a cell smaller than the cutoff an atom is its own neighbour, and the same neighbour several times. One
    crystal is given in cells of several shapes; all must have one energy. It fails where pairs with ``centers ==
    neighbors`` are left out or images are merged.
    """
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
    """A structure has the same predictions alone and among others.

    A structure has the same predictions alone and among others, lonely atoms included. Batch normalisation, and
    sums that forget ``graph.structure``, break it.
    """
    frames = structures.awkward(subject.atomic_types)
    frames = dict(zip(frames, subject.in_turn(list(frames.values())), strict=True))
    for name, predictor in subject.predictors.items():
        graph = graph_of(predictor.model, list(frames.values()))
        together = predict(predictor, graph)
        for k, (title, atoms) in enumerate(frames.items()):
            part = together.pick(graph.structure == k, k)
            alone = predict_one(predictor, atoms)
            expect_same(
                part, alone, subject.tolerance, f"{title} among {len(frames)} structures: '{name}'"
            )


@check("lonely_atoms")
def extra_inputs(subject: Subject) -> None:
    """Predictions depend on the extra inputs, each structure's on its own, and one that is missing is an error.

    What the model says it takes beside atoms (``extra_inputs``) changes its main target, for every example of the
    input. A batch without it is an error: read ``graph.extras[name]``, and put no value of your own in its place,
    which nobody would notice. All other checks are made with values of these inputs: the second example where a
    structure is alone (so that invariances are asked where the input does something), others among several
    structures.
    """
    if not subject.inputs:
        raise NotApplicable("the model takes nothing beside atoms")
    predictor, main = subject.predictors[subject.main.name], subject.main.name
    molecule = structures.some_molecule(subject.atomic_types)
    for name, one in subject.inputs.items():
        frames = [with_input(molecule, name, one, k) for k in range(len(one.examples))]
        found = [predict_one(predictor, atoms).total(main).detach() for atoms in frames]
        for value, other in zip(one.examples[1:], found[1:], strict=True):
            require(
                float((other - found[0]).abs().max()) > 1e-7,
                f"'{main}' is the same for {one.examples[0]:g} and {value:g} of '{name}'",
            )
        graph = graph_of(predictor.model, [molecule])
        without = {key: values for key, values in graph.extras.items() if key != name}
        try:
            predict(predictor, graph._replace(extras=without))
        except Exception:  # of any kind
            continue
        raise ConformanceError(f"a structure without '{name}' is no error")


# -- pieces ----------------------------------------------------------------------------------------


def _derivative(f: Callable[[float], float], h: float = 1e-4) -> float:
    """Central differences at h and h/2, extrapolated: exact to the fourth order in h."""
    coarse = (f(h) - f(-h)) / (2 * h)
    fine = (f(h / 2) - f(-h / 2)) / h
    return (4 * fine - coarse) / 3


def _strained(atoms: Atoms, strain: np.ndarray) -> Atoms:
    """Positions and cell times ``1 + strain``, as ASE defines stress: r' = r (1 + strain)."""
    other = atoms.copy()
    other.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    return other
