"""The exported model: it compiles, says what training said, and runs where engines run it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import ase.io
import torch
from ase import Atoms
from torch import Tensor

from atomtrain.errors import TargetError
from atomtrain.graph import n_structures, sum_over_structures
from atomtrain.model import STANDARD, Model, Predictor
from atomtrain.model.export import load_model, requested_inputs, save_model
from atomtrain.model.export.archive import quiet_torchscript
from atomtrain_testing import structures
from atomtrain_testing.checks import (
    NotApplicable,
    check,
    expect_equal,
    require,
)
from atomtrain_testing.predictions import graph_of, predict, predict_one, store_of, with_input
from atomtrain_testing.subject import Subject

STEP = 1e-4
"""of differences of forces, in angstrom"""
CURVED = 1e-4
"""what second derivatives may differ by, as part of the largest: tables have rough ones"""


@check("moves")
def torchscript(subject: Subject) -> None:
    """The model compiles with TorchScript, saves, and loads without any library beside it.

    The exported model compiles with TorchScript, can be saved and opened, needs no library beside metatomic-torch,
    and offers its target. The message is TorchScript's own. What it does not know: numpy, ``**kwargs``, most of
    Python's standard library. ``torch.jit.is_scripting()`` and ``torch.jit.unused`` keep code for training apart.
    """
    path = _exported(subject)
    model = load_model(path)
    offered = set(model.capabilities().outputs)
    lacking = sorted({subject.main.name} - offered)
    require(not lacking, f"the exported model does not offer {', '.join(lacking)}")


@check("torchscript", "lonely_atoms")
def export(subject: Subject) -> None:
    """The exported model predicts what the model predicts in training.

    The file predicts what the model predicts in training: energies, forces, stress and other targets of awkward
    structures, one at a time and all at once, over several calls, since TorchScript compiles anew after the first
    ones.
    """
    from atomtrain.evaluation import evaluate_model
    from atomtrain.options import DatasetSection

    predictor = subject.predictors[subject.main.name]
    frames = structures.awkward(subject.atomic_types)
    # five times the molecule: TorchScript compiles anew after the first calls
    chosen = [frames[k] for k in ("molecule", *frames, "molecule", "crystal", "molecule")]
    chosen = subject.in_turn(chosen)
    data = subject.new_folder("export") / "structures.xyz"
    ase.io.write(data, chosen, format="extxyz")
    values = {"systems": str(data), "extra_data": subject.extra_data()}
    section = DatasetSection.model_validate(values)
    for size in (1, len(chosen)):
        (result,) = evaluate_model(
            _exported(subject), [section], None, batch_size=size, check_consistency=True
        )
        wanted = _in_batches(predictor, chosen, size)
        for key, value in wanted.items():
            what = f"exported against training, {size} structure(s) at once: '{key}'"
            expect_equal(result.predictions[key], value, 10 * subject.tolerance, what)


@check("export")
def ase_calculator(subject: Subject) -> None:
    """The exported model runs in ASE, with the energy, forces and stress of training.

    The file runs as ASE's calculator (``metatomic-ase``) with the energy, forces and stress of training.
    """
    name = subject.energy
    calculator = _calculator(subject)
    predictor = subject.predictors[subject.main.name]
    for title in ("molecule", "crystal", "small cell"):
        atoms = structures.awkward(subject.atomic_types)[title]
        for name_of_input, one in subject.inputs.items():
            atoms = with_input(atoms, name_of_input, one, 1)
        atoms.calc = calculator
        wanted = predict_one(predictor, atoms)
        energy = torch.tensor([_quietly(atoms.get_potential_energy)], dtype=torch.float64)
        expect_equal(energy, wanted.total(name), 10 * subject.tolerance, f"{title}: energy in ASE")
        assert wanted.forces is not None and wanted.strain is not None
        forces = torch.from_numpy(_quietly(atoms.get_forces)).double()
        expect_equal(forces, wanted.forces, 10 * subject.tolerance, f"{title}: forces in ASE")
        if atoms.pbc.all():
            stress = torch.from_numpy(_quietly(lambda a=atoms: a.get_stress(voigt=False))).double()
            matrix = wanted.strain.detach().reshape(3, 3) / atoms.get_volume()
            matrix = 0.5 * (matrix + matrix.T)  # ASE keeps six numbers
            expect_equal(stress, matrix, 10 * subject.tolerance, f"{title}: stress in ASE")


@check("ase_calculator")
def selected_atoms(subject: Subject) -> None:
    """The exported model gives selected atoms what it gives them among all.

    Asked for some atoms, the file gives these atoms the values they have among all, and totals are sums over them.
    LAMMPS asks so for the atoms of one process.
    """
    from metatensor.torch import Labels
    from metatomic.torch import ModelOutput

    name = subject.main.name
    if subject.info(subject.main).targets[name].pooled:
        raise NotApplicable("the target belongs to whole structures")
    calculator = _calculator(subject)
    molecule = structures.some_molecule(subject.atomic_types)
    outputs = {name: ModelOutput(sample_kind="atom")}
    whole = _run(calculator, [molecule, molecule], outputs, None)[name].block(0)
    chosen = torch.tensor([[0, 1], [0, 4], [1, 7]], dtype=torch.int32)
    selection = Labels(["system", "atom"], chosen)
    part = _run(calculator, [molecule, molecule], outputs, selection)[name].block(0)
    require(
        part.samples.values.tolist() == chosen.tolist(),
        f"asked for 3 atoms, the exported model returns {len(part.samples)} samples",
    )
    rows = [1, 4, len(molecule) + 7]
    expect_equal(part.values, whole.values[rows], subject.tolerance, "values of selected atoms")
    outputs = {name: ModelOutput(sample_kind="system")}
    total = _run(calculator, [molecule, molecule], outputs, selection)[name].block(0).values
    wanted = torch.stack([part.values[:2].sum(0), part.values[2]])
    expect_equal(total, wanted, subject.tolerance, "the sum over selected atoms")


@check("torchscript", "gradients")
def second_derivatives(subject: Subject) -> None:
    """Second derivatives of the exported energy are right where they are asked for, and else right or an error.

    A file of ``atomtrain export --second-derivatives`` gives the forces of training, and Hessians that are
    differences of these. A model whose ``forward``, compiled, brings first derivatives of its own takes plain
    operations once ``Model.keep_second_derivatives`` was called, or raises a TargetError there: then this is skipped.
    The file as it is exported otherwise refuses second derivatives, or has them right: parts that autograd
    takes for constants would silently be missing.
    """
    from atomtrain.model.export import with_second_derivatives

    predictor = subject.predictors[subject.energy]
    awkward = structures.awkward(subject.atomic_types)
    frames = subject.in_turn([awkward["molecule"], awkward["small cell"]])
    generator = torch.Generator().manual_seed(0)
    ways = [torch.randn(len(a), 3, generator=generator, dtype=torch.float64) for a in frames]
    forces, wanted = _along(predictor, frames, ways)
    size = float(wanted.abs().max()) or 1.0
    try:
        twice = with_second_derivatives(predictor)
    except TargetError as reason:
        raise NotApplicable(str(reason)) from reason
    usual = asked = load_model(_exported(subject))
    own = {getattr(type(m), "keep_second_derivatives", None) for m in predictor.modules()}
    if own - {None, Model.keep_second_derivatives}:
        with quiet_torchscript():
            asked = torch.jit.script(subject.architecture.export_model(twice, {}))
    found, curvature = _differentiated(asked, subject, frames, ways)
    expect_equal(found, forces, 10 * subject.tolerance, "forces of a file with second derivatives")
    what = "second derivatives of a file that is to have them, times a direction"
    expect_equal(curvature / size, wanted / size, CURVED, what)
    if asked is usual:
        return
    try:
        _, curvature = _differentiated(usual, subject, frames, ways)
    except (RuntimeError, torch.jit.Error):
        return
    what = "second derivatives of a file that does not refuse them, times a direction"
    expect_equal(curvature / size, wanted / size, CURVED, what)


# -- pieces ----------------------------------------------------------------------------------------


def _in_batches(predictor: Predictor, frames: list[Atoms], size: int) -> dict[str, Tensor]:
    """All targets in the form of :class:`atomtrain.evaluation.Evaluation`'s predictions."""
    parts: dict[str, list[Tensor]] = {}
    for start in range(0, len(frames), size):
        graph = graph_of(predictor.model, frames[start : start + size])
        found = predict(predictor, graph)
        for name, target in predictor.dataset_info.targets.items():
            flat = torch.cat([b.detach().flatten(1) for b in found.blocks[name]], dim=1)
            if not (target.per_atom or target.pooled):
                flat = sum_over_structures(flat, graph.structure, n_structures(graph))
            parts.setdefault(name, []).append(flat)
            if target.is_energy:
                assert found.forces is not None and found.strain is not None
                parts.setdefault(f"{name}:forces", []).append(found.forces.detach())
                parts.setdefault(f"{name}:strain", []).append(found.strain.detach())
    return {key: torch.cat(values) for key, values in parts.items()}


def _exported(subject: Subject) -> Path:
    """The file of the exported model, written once."""
    path = subject.folder / "exported.pt"
    if not path.exists():
        metadata: dict[str, Any] = {"name": f"{subject.name}, untrained"}
        model = subject.architecture.export_model(subject.predictors[subject.main.name], metadata)
        save_model(model, path)
    return path


def _along(predictor: Predictor, frames: list[Atoms], ways: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Forces in training ``[n_atoms, 3]``, and minus their derivatives along ``ways``, by differences."""
    at, change = [], []
    for atoms, way in zip(frames, ways, strict=True):
        found = []
        for k in (0, -2, -1, 1, 2):
            moved = atoms.copy()
            moved.positions += k * STEP * way.numpy()
            forces = predict_one(predictor, moved).forces
            assert forces is not None
            found.append(forces.detach())
        at.append(found[0])
        change.append((8 * (found[2] - found[3]) - (found[1] - found[4])) / (12 * STEP))
    return torch.cat(at), torch.cat(change)


def _differentiated(
    model: Any, subject: Subject, frames: list[Atoms], ways: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """Forces of an exported model ``[n_atoms, 3]``, and second derivatives of its energy times ``ways``."""
    from metatomic.torch import ModelEvaluationOptions, ModelOutput

    from atomtrain.evaluation import systems_of

    energy = subject.energy
    store = store_of(frames, subject.inputs)
    lists, inputs = model.requested_neighbor_lists(), requested_inputs(model)
    part = torch.arange(len(frames))
    systems, leaves = systems_of(store, part, lists, "angstrom", torch.float64, "cpu", True, inputs)
    positions = leaves[: len(frames)]
    options = ModelEvaluationOptions("angstrom", {energy: ModelOutput(sample_kind="system")})
    with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
        values = _quietly(lambda: model(systems, options, check_consistency=True))
        total = values[energy].block().values.sum()
        slopes = torch.autograd.grad(total, positions, create_graph=True)
        along = (torch.cat(slopes) * torch.cat(ways)).sum()
        curvature = torch.autograd.grad(along, positions)
    return -torch.cat(slopes).detach(), torch.cat(curvature)


def _calculator(subject: Subject) -> Any:
    own = sorted(set(subject.inputs) - set(STANDARD))
    if own:
        raise NotApplicable(f"ASE's calculator has no input '{own[0]}'")
    try:
        from metatomic_ase import MetatomicCalculator
    except ImportError as error:
        raise NotApplicable(
            "needs ASE's calculator for exported models: pip install metatomic-ase"
        ) from error
    return _quietly(lambda: MetatomicCalculator(str(_exported(subject)), device="cpu"))


def _run(calculator: Any, frames: list[Any], outputs: Any, selected: Any) -> Any:
    return _quietly(lambda: calculator.run_model(frames, outputs, selected))


def _quietly(function: Any) -> Any:
    """Call without the warnings of libraries about themselves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function()
