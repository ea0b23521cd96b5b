"""What a trained model is measured by: its errors, a step of dynamics, its size."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from atomtrain.data import StructureStore
from atomtrain.evaluation import Evaluation, evaluate_model, gradients_of, systems_of
from atomtrain.model.export import load_model
from atomtrain.options import BaseTrainerHypers, load_eval_options
from atomtrain.plugins.restore import restore
from atomtrain.targets import DatasetInfo
from atomtrain.targets.units import conversion
from atomtrain.tasks import task_of
from atomtrain.training.checkpoint import load_checkpoint
from atomtrain.training.units import ERRORS, quantities, title
from atomtrain_compare.split import Structure

ATOMS = 200
"""periodic structures are repeated to so many at least"""
MOVE = 0.01
"""angstrom: by how much atoms move in a step that is timed"""
WARM_UP, FEWEST, MOST, SECONDS = 5, 10, 200, 2.0
"""steps before any is timed (TorchScript compiles); at least and at most so many, within so many seconds"""

Step = Callable[[np.ndarray], np.ndarray]
"""gives the forces ``[n, 3]`` at positions ``[n, 3]``; stress, too, is computed, as engines do"""


@dataclass(frozen=True)
class Measured:
    """What is known of a model.

    ``errors``: ``forces RMSE [meV/A]`` and the like, with numbers in these units; ``shown``: names of those that stand
    for each quantity, the RMSE of numbers. ``step_us``: microseconds per atom of
    a step of dynamics, None where there is no energy to move atoms by; with ``step_atoms`` atoms, by ``step_by``.
    """

    errors: dict[str, float] = field(default_factory=dict)
    shown: list[str] = field(default_factory=list)
    step_us: float | None = None
    step_atoms: int = 0
    step_by: str = ""
    model_mb: float = 0.0
    parameters: int = 0


def measure(
    folder: Path,
    sections: Sequence[Mapping[str, Any]],
    example: Structure,
    hypers: BaseTrainerHypers,
) -> Measured:
    """Measure the ``model.pt`` (and ``model.ckpt``) of a run's folder, which was trained with these ``hypers``.

    Errors are taken on the ``sections`` of an eval file; dynamics are of the ``example``.
    """
    path = folder / "model.pt"
    evaluated = load_eval_options([dict(section) for section in sections])
    found = evaluate_model(path, evaluated, None, batch_size=hypers.batch_size)
    info = found[0].info
    predictor = restore(load_checkpoint(folder / "model.ckpt"), "export").predictor
    energies = [name for name, target in info.targets.items() if target.is_energy]
    step, atoms, by = None, 0, ""
    if energies:
        larger = repeated(example)
        atoms = len(larger.numbers)
        call, by = step_of(path, larger, energies[0], info)
        step = 1e6 * _seconds(call, larger) / atoms
    errors = errors_of(found, hypers.per_structure_targets)
    return Measured(
        errors={name: value for part in errors for name, value in part.items()},
        shown=[next(iter(part)) for part in errors],
        step_us=step,
        step_atoms=atoms,
        step_by=by,
        model_mb=path.stat().st_size / 1e6,
        parameters=sum(p.numel() for p in predictor.model.parameters()),
    )


def errors_of(found: Sequence[Evaluation], totals: Sequence[str]) -> list[dict[str, float]]:
    """The errors of each quantity, of all sections together, named with their units: ``energy RMSE [meV/atom]``.

    ``totals`` are targets of structures whose errors are not per atom.
    """
    errors: list[dict[str, float]] = []
    info = found[0].info
    for quantity in quantities(info, totals):
        parts = [one.errors[quantity.key] for one in found if quantity.key in one.errors]
        parts = [part for part in parts if part.get("count", 0) > 0]
        target = info.targets.get(quantity.key)
        named: dict[str, float] = {}
        own = [m for m in task_of(target.kind).shown if parts and m in parts[0]] if target else []
        for metric in ERRORS if parts and ERRORS[0] in parts[0] else own:
            power = 2 if metric == "rmse" else 1
            weights = [part["count"] for part in parts]
            value = float(np.average([part[metric] ** power for part in parts], weights=weights))
            value, unit = value ** (1 / power), ""
            if metric in ERRORS:
                value, unit = value * quantity.factor, quantity.unit
            named[f"{quantity.name} {title(metric)}{f' [{unit}]' if unit else ''}"] = value
        if named:
            errors.append(named)
    return errors


# -- dynamics --------------------------------------------------------------------------------------


def repeated(structure: Structure) -> Structure:
    """The structure, repeated along its periodic directions until it has ``ATOMS`` atoms, as near a cube as it gets."""
    counts, lengths = np.ones(3, dtype=int), np.linalg.norm(structure.cell, axis=1)
    if not structure.pbc.any():
        return structure
    while len(structure.numbers) * counts.prod() < ATOMS:
        counts[np.argmin(np.where(structure.pbc, counts * lengths, np.inf))] += 1
    shifts = np.array(list(np.ndindex(*counts)), dtype=float) @ structure.cell
    return Structure(
        numbers=np.tile(structure.numbers, len(shifts)),
        positions=(shifts[:, None] + structure.positions).reshape(-1, 3),
        cell=structure.cell * counts[:, None],
        pbc=structure.pbc,
        unit=structure.unit,
    )


def _seconds(call: Step, structure: Structure) -> float:
    """What a step takes, in the median of some; atoms move a little in each."""
    rng = np.random.default_rng(0)
    scale = MOVE * conversion("angstrom", structure.unit)
    taken: list[float] = []
    for k in range(WARM_UP + MOST):
        positions = structure.positions + rng.normal(scale=scale, size=structure.positions.shape)
        began = time.perf_counter()
        call(positions)
        if k >= WARM_UP:
            taken.append(time.perf_counter() - began)
        if len(taken) >= FEWEST and sum(taken) > SECONDS:
            break
    return median(taken)


def step_of(path: Path, structure: Structure, target: str, info: DatasetInfo) -> tuple[Step, str]:
    """A step of dynamics of the model in ``path``, by its energy ``target``; and whether ASE or metatomic makes it."""
    try:
        from metatomic_ase import MetatomicCalculator
    except ImportError:
        return _by_metatomic(path, structure, target, info), "metatomic"
    base, _, variant = target.partition("/")
    if base != "energy":  # which ASE's calculator does not find
        return _by_metatomic(path, structure, target, info), "metatomic"
    import ase

    to_angstrom = conversion(structure.unit, "angstrom")
    atoms = ase.Atoms(
        numbers=structure.numbers,
        positions=structure.positions * to_angstrom,
        cell=structure.cell * to_angstrom,
        pbc=structure.pbc,
    )
    variants = {"energy": variant} if variant else None
    atoms.calc = MetatomicCalculator(str(path), variants=variants)

    def call(positions: np.ndarray) -> np.ndarray:
        atoms.positions = positions * to_angstrom
        forces: np.ndarray = atoms.get_forces()
        return forces

    return call, "ASE"


def _by_metatomic(path: Path, structure: Structure, target: str, info: DatasetInfo) -> Step:
    from metatomic.torch import ModelEvaluationOptions, ModelOutput

    model = load_model(path)
    device = "cuda" if _on_cuda(model) else "cpu"
    model = model.to(device)
    dtype = getattr(torch, model.capabilities().dtype)
    lists = model.requested_neighbor_lists()
    output = ModelOutput(unit=info.targets[target].unit, sample_kind="system")
    options = ModelEvaluationOptions(length_unit=structure.unit, outputs={target: output})

    def call(positions: np.ndarray) -> np.ndarray:
        store = StructureStore(
            positions=torch.from_numpy(positions),
            types=torch.from_numpy(structure.numbers),
            cells=torch.from_numpy(structure.cell)[None],
            pbc=torch.from_numpy(structure.pbc)[None],
            offsets=torch.tensor([0, len(positions)]),
        )
        one = torch.zeros(1, dtype=torch.int64)
        systems, leaves = systems_of(store, one, lists, structure.unit, dtype, device, True)
        energy = model(systems, options, check_consistency=False)[target].block().values
        return gradients_of(energy, systems, leaves, False)["forces"].cpu().numpy()

    return call


def _on_cuda(model: Any) -> bool:
    return torch.cuda.is_available() and "cuda" in model.capabilities().supported_devices
