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
from ase import Atoms

from atomtrain.data import StructureStore
from atomtrain.evaluation import (
    Evaluation,
    errors_together,
    evaluate_model,
    gradients_of,
    systems_of,
)
from atomtrain.model.export import load_model
from atomtrain.options import BaseTrainerHypers, load_eval_options
from atomtrain.plugins.restore import restore
from atomtrain.targets import DatasetInfo
from atomtrain.tasks import task_of
from atomtrain.training.checkpoint import load_checkpoint
from atomtrain.training.units import ERRORS, quantities, title

ATOMS = 200
"""periodic structures are repeated to so many at least"""
MOVE = 0.01
"""angstrom: by how much atoms move in a step that is timed"""
WARM_UP, FEWEST, MOST, SECONDS = 5, 10, 200, 2.0
"""steps before any is timed (TorchScript compiles); at least and at most so many, within so many seconds"""

Step = Callable[[np.ndarray], np.ndarray]
"""gives the forces (eV/A) ``[n, 3]`` at positions (A) ``[n, 3]``; stress, too, is computed where all is periodic"""


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
    example: Atoms,
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
        atoms = len(larger)
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
    together = errors_together(found)
    errors: list[dict[str, float]] = []
    info = found[0].info
    for quantity in quantities(info, totals):
        own = together.get(quantity.key, {})
        if not own.get("count", 0) > 0:
            continue
        target = info.targets.get(quantity.key)
        shown = [m for m in task_of(target.kind).shown if m in own] if target else []
        named: dict[str, float] = {}
        for metric in ERRORS if ERRORS[0] in own else shown:
            value, unit = own[metric], ""
            if metric in ERRORS:
                value, unit = value * quantity.factor, quantity.unit
            named[f"{quantity.name} {title(metric)}{f' [{unit}]' if unit else ''}"] = value
        if named:
            errors.append(named)
    return errors


# -- dynamics --------------------------------------------------------------------------------------


def repeated(structure: Atoms) -> Atoms:
    """The structure, repeated along its periodic directions until it has ``ATOMS`` atoms, as near a cube as it gets."""
    counts, lengths = np.ones(3, dtype=int), structure.cell.lengths()
    while structure.pbc.any() and len(structure) * counts.prod() < ATOMS:
        counts[np.argmin(np.where(structure.pbc, counts * lengths, np.inf))] += 1
    return structure.repeat(counts.tolist())


def _seconds(call: Step, structure: Atoms) -> float:
    """What a step takes, in the median of some; atoms move a little in each."""
    rng = np.random.default_rng(0)
    taken: list[float] = []
    for k in range(WARM_UP + MOST):
        positions = structure.positions + rng.normal(scale=MOVE, size=structure.positions.shape)
        began = time.perf_counter()
        call(positions)
        if k >= WARM_UP:
            taken.append(time.perf_counter() - began)
        if len(taken) >= FEWEST and sum(taken) > SECONDS:
            break
    return median(taken)


def step_of(path: Path, structure: Atoms, target: str, info: DatasetInfo) -> tuple[Step, str]:
    """A step of dynamics of the model in ``path``, by its energy ``target``; and whether ASE or metatomic makes it."""
    try:
        from metatomic_ase import MetatomicCalculator
    except ImportError:
        return _by_metatomic(path, structure, target, info), "metatomic"
    base, _, variant = target.partition("/")
    if base != "energy":  # which ASE's calculator does not find
        return _by_metatomic(path, structure, target, info), "metatomic"
    atoms = structure.copy()
    variants = {"energy": variant} if variant else None
    atoms.calc = MetatomicCalculator(str(path), variants=variants)

    def call(positions: np.ndarray) -> np.ndarray:
        atoms.positions = positions
        forces: np.ndarray = atoms.get_forces()
        return forces

    return call, "ASE"


def _by_metatomic(path: Path, structure: Atoms, target: str, info: DatasetInfo) -> Step:
    from metatomic.torch import ModelEvaluationOptions, ModelOutput

    model = load_model(path)
    device = "cuda" if _on_cuda(model) else "cpu"
    model = model.to(device)
    dtype = getattr(torch, model.capabilities().dtype)
    lists = model.requested_neighbor_lists()
    # as ASE's calculator asks; a target without a unit is given as it is
    unit = "eV" if info.targets[target].unit else ""
    output = ModelOutput(unit=unit, sample_kind="system")
    options = ModelEvaluationOptions(length_unit="angstrom", outputs={target: output})
    types = torch.from_numpy(structure.numbers.astype(np.int64))
    one = torch.zeros(1, dtype=torch.int64)

    def call(positions: np.ndarray) -> np.ndarray:
        store = StructureStore(
            positions=torch.from_numpy(positions),
            types=types,
            cells=torch.from_numpy(structure.cell.array)[None],
            pbc=torch.from_numpy(structure.pbc)[None],
            offsets=torch.tensor([0, len(positions)]),
        )
        systems, leaves = systems_of(store, one, lists, "angstrom", dtype, device, True)
        energy = model(systems, options, check_consistency=False)[target].block().values
        return gradients_of(energy, systems, leaves, False)["forces"].cpu().numpy()

    return call


def _on_cuda(model: Any) -> bool:
    return torch.cuda.is_available() and "cuda" in model.capabilities().supported_devices
