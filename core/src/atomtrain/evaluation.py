"""Run an exported model on structures: predictions, errors, time per atom.

Works on any metatomic model, not only on ours: structures go in as metatomic systems, forces and
stress come from autograd on positions and strain, exactly as an engine would ask for them.
"""

from __future__ import annotations

import json
import logging
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from metatensor.torch import Labels, TensorBlock, TensorMap
from metatomic.torch import (
    AtomisticModel,
    ModelEvaluationOptions,
    ModelOutput,
    NeighborListOptions,
    System,
    register_autograd_neighbors,
)
from torch import Tensor

from atomtrain.data import (
    Files,
    LoadedSection,
    Remarks,
    StructureStore,
    check_inputs,
    display,
    pair_list,
    read_section,
)
from atomtrain.data.checks import set_warnings
from atomtrain.data.labels import SectionFiles
from atomtrain.data.noise import input_of
from atomtrain.data.writers import Output, choose_output
from atomtrain.data.writers.base import Predictions
from atomtrain.errors import DataError, OptionsError, OutputError, TargetError, nearest
from atomtrain.graph import volumes
from atomtrain.model import ExtraInput
from atomtrain.model.export import load_model, requested_inputs
from atomtrain.model.export.archive import quiet_torchscript
from atomtrain.options import DatasetSection
from atomtrain.sections.names import symbols
from atomtrain.targets import (
    DatasetInfo,
    TargetInfo,
    ensemble_name,
    forces_uncertainty_name,
    split_key,
    uncertainty_name,
)
from atomtrain.tasks import task_of
from atomtrain.training.evaluate import Compared
from atomtrain.training.metrics import ErrorSums, as_counted, label_keys, label_variances
from atomtrain.training.reliability import Reliability, spread_of_gradients
from atomtrain.training.units import errors_line

log = logging.getLogger("atomtrain")


@dataclass(frozen=True)
class Evaluation:
    """Results on one section of an eval file.

    ``errors``: label key -> rmse, mae, count (energies per atom unless the model was trained on totals,
    strain as stress), in the units of ``info``'s targets. ``predictions``: label key -> values like
    labels (``<target>:stress`` is [n_structures, 9], zero without volume). ``output``: what was
    written, if anything; with the extension ``.mts`` there is a file ``<stem>_<target>.mts`` for each
    target. ``structures`` are what was evaluated, with their labels; ``totals`` the targets that do not count per atom.
    Where the model gives a target's standard deviation (``energy_uncertainty``), ``predictions`` have it under that
    name, those of forces of an ensemble as ``energy_forces_uncertainty [n_atoms, 3]``, and ``reliability`` holds both
    against the errors, by label key.
    """

    info: DatasetInfo
    errors: dict[str, dict[str, float]]
    predictions: dict[str, Tensor]
    seconds_per_atom: float
    output: Path | None
    structures: StructureStore
    totals: list[str]
    reliability: dict[str, Reliability] = field(default_factory=dict)

    def compared(self) -> dict[str, Compared]:
        """Predictions beside the labels that there are, by label key."""
        rows = _side_by_side(self.structures, self.info, self.predictions, self.totals)
        return {
            key: Compared.of(values, labels, mask, self.info.targets[split_key(key)[0]])
            for key, values, labels, mask in rows
        }


def evaluate_model(
    path: Path,
    sections: Sequence[DatasetSection],
    output: str | Path | None,
    *,
    batch_size: int = 1,
    extensions: str | Path | None = None,
    check_consistency: bool = False,
    warm_up: bool = True,
) -> list[Evaluation]:
    """Evaluate the model in ``path`` on each section; see :func:`atomtrain.api.evaluate`."""
    if batch_size < 1:
        raise OptionsError(f"the batch size must be at least 1, got {batch_size}")
    outputs = [
        None if output is None else choose_output(output, k if len(sections) > 1 else None)
        for k in range(len(sections))
    ]
    model = load_model(path, extensions=extensions)
    device = "cuda" if runs_on_cuda(model) else "cpu"
    model = model.to(device)
    files = Files()
    remarks = Remarks()
    work = []
    for section in sections:  # everything is read and checked before anything is computed
        loaded = read_section(section, files, remarks, known=told(model))
        remarks.warnings += [f"{section.where()}: {text}" for text in set_warnings(loaded.store)]
        work.append((loaded, _targets(model, section, loaded.targets)))
        _check_structures(model, loaded.store, section)
    for note in dict.fromkeys([*files.lines, *remarks.notes]):
        log.info(note)
    for warning in dict.fromkeys([*files.warnings, *remarks.warnings]):
        log.warning(warning)
    _check_outputs(outputs, [info for _, info in work], files)
    totals = _totals(model)
    results = []
    for (loaded, info), section, place in zip(work, sections, outputs, strict=True):
        store = loaded.store
        asked = _Asked.of(model, info, _gradients(section, info))
        predictions, seconds = _predictions(
            model, device, store, asked, batch_size, check_consistency, warm_up
        )
        errors = _errors(store, info, predictions, totals)
        if place is not None:
            cells = _cells(loaded, files, section)
            place.write(Predictions(store, cells, {**info.targets, **asked.beside}, predictions))
            log.info("predictions written: %s", ", ".join(map(str, place.files(info.targets))))
        line = errors_line(info, errors, ("rmse", "mae"), totals)
        log.info("%s: %s", display(section.systems.read_from), line or "no targets to compare with")
        reliability = _reliability(store, info, predictions, totals)
        for key, found in reliability.items():
            log.info("uncertainty of %s: %s", key, found.line())
        per_atom = seconds / len(store.types)
        compiling = "" if warm_up else " (with what the first calls take to compile)"
        log.info("time: %.4g ms per atom%s", per_atom * 1e3, compiling)
        written = None if place is None else place.path
        results.append(
            Evaluation(info, errors, predictions, per_atom, written, store, totals, reliability)
        )
    return results


def structures_of(model: AtomisticModel, section: DatasetSection) -> StructureStore:
    """The structures of a section, which the ``model`` must know."""
    store = read_section(section, Files(), Remarks(), known=told(model)).store
    _check_structures(model, store, section)
    return store


class _Asked(NamedTuple):
    """What is to be predicted: targets, which gradients of each, and standard deviations ``beside`` them."""

    info: DatasetInfo
    gradients: dict[str, set[str]]
    beside: dict[str, TargetInfo]

    @classmethod
    def of(cls, model: AtomisticModel, info: DatasetInfo, gradients: dict[str, set[str]]) -> _Asked:
        """With the standard deviations that the model gives, those of forces where it gives an ensemble."""
        offered = model.capabilities().outputs
        beside: dict[str, TargetInfo] = {}
        for name, target in info.targets.items():
            called = uncertainty_name(name)
            if called in offered and called not in info.targets and target.is_scalar:
                plain = TargetInfo(called, unit=target.unit, per_atom=target.per_atom)
                beside[called] = replace(plain, num_subtargets=target.num_subtargets)
            if ensemble_name(name) in offered and "forces" in gradients.get(name, ()):
                called = forces_uncertainty_name(name)
                unit = f"{target.unit}/{info.length_unit}" if target.unit else ""
                beside[called] = TargetInfo(called, "cartesian", unit=unit, per_atom=True, rank=1)
        return cls(info, gradients, beside)


def _predictions(
    model: AtomisticModel,
    device: str,
    store: StructureStore,
    asked: _Asked,
    batch_size: int,
    check_consistency: bool,
    warm_up: bool,
) -> tuple[dict[str, Tensor], float]:
    """Predictions of all structures by label key, and the seconds they took.

    What an ensemble tells of forces takes a call of its own, which is not counted.
    """
    info, gradients, beside = asked
    dtype = getattr(torch, model.capabilities().dtype)
    lists, inputs = model.requested_neighbor_lists(), requested_inputs(model)
    offered = model.capabilities().outputs
    outputs = {
        name: ModelOutput(unit=target.unit, sample_kind="atom" if target.per_atom else "system")
        for name, target in {**info.targets, **beside}.items()
        if name in offered
    }
    options = ModelEvaluationOptions(length_unit=info.length_unit, outputs=outputs)
    energies = list(gradients)
    members = [name for name in energies if forces_uncertainty_name(name) in beside]
    collected: dict[str, list[Tensor]] = {}
    seconds = 0.0
    # the first calls of a TorchScript model compile it; they are not what is to be timed
    warmup = torch.arange(min(batch_size, len(store)))
    for part in [*[warmup] * (2 if warm_up else 0), *torch.arange(len(store)).split(batch_size)]:
        systems, leaves = systems_of(
            store, part, lists, info.length_unit, dtype, device, bool(energies), inputs
        )
        start = time.perf_counter()
        with quiet_torchscript():
            found = model(systems, options, check_consistency=check_consistency)
        batch: dict[str, Tensor] = {}
        for name in outputs:
            blocks = [block.values.flatten(1) for block in found[name].blocks()]
            batch[name] = torch.cat(blocks, dim=1)
        for name in energies:
            last = name == energies[-1]
            for key, values in gradients_of(batch[name], systems, leaves, not last).items():
                if key in gradients[name]:
                    batch[f"{name}:{key}"] = values
        # bringing results to the CPU waits for the device: it belongs to the time
        there = {key: v.detach().to("cpu", torch.float64) for key, v in batch.items()}
        if part is not warmup:
            seconds += time.perf_counter() - start
            for name in members:
                systems, leaves = systems_of(
                    store, part, lists, info.length_unit, dtype, device, True, inputs
                )
                spread = _spread_of_forces(model, name, systems, leaves, info)
                there[forces_uncertainty_name(name)] = spread.to("cpu", torch.float64)
            for key, value in there.items():
                collected.setdefault(key, []).append(value)
    return {key: torch.cat(parts) for key, parts in collected.items()}, seconds


def _spread_of_forces(
    model: AtomisticModel, name: str, systems: list[System], leaves: list[Tensor], info: DatasetInfo
) -> Tensor:
    """Standard deviation ``[n_atoms, 3]`` over an ensemble of the forces of an energy."""
    output = {ensemble_name(name): ModelOutput(unit=info.targets[name].unit, sample_kind="system")}
    with quiet_torchscript():
        found = model(
            systems, ModelEvaluationOptions(info.length_unit, output), check_consistency=False
        )
    members = found[ensemble_name(name)].block().values
    return spread_of_gradients(members, leaves[: len(systems)])


def _gradients(section: DatasetSection, info: DatasetInfo) -> dict[str, set[str]]:
    """Which results of :func:`gradients_of` to keep of each energy: what the options do not turn off."""
    wanted: dict[str, set[str]] = {}
    for name, target in info.targets.items():
        if target.is_energy:
            said = section.targets.get(name)
            forces = said is None or said.forces is not None
            stress = said is None or said.stress is not None or said.virial is not None
            kept = {*(["forces"] if forces else []), *(["strain", "stress"] if stress else [])}
            if kept:
                wanted[name] = kept
    return wanted


def gradients_of(
    energy: Tensor, systems: list[System], leaves: list[Tensor], retain_graph: bool
) -> dict[str, Tensor]:
    """``forces``, ``strain`` derivative and ``stress``; ``leaves`` are as of :func:`systems_of`."""
    found = torch.autograd.grad(
        energy.sum(), leaves, retain_graph=retain_graph, allow_unused=True, materialize_grads=True
    )
    strain = torch.stack(found[len(systems) :]).reshape(-1, 9).to(torch.float64)
    periodic = torch.stack([system.pbc.all() for system in systems])
    volume = volumes(torch.stack([system.cell.detach() for system in systems])) * periodic
    inverse = (volume > 0) / torch.where(volume > 0, volume, 1.0)
    return {
        "forces": -torch.cat(found[: len(systems)]),
        "strain": strain,
        "stress": strain * inverse[:, None],
    }


def systems_of(
    store: StructureStore,
    part: Tensor,
    lists: list[NeighborListOptions],
    length_unit: str,
    dtype: torch.dtype,
    device: str,
    gradients: bool,
    inputs: Mapping[str, ModelOutput] | None = None,
) -> tuple[list[System], list[Tensor]]:
    """metatomic systems with the neighbour lists and ``inputs`` the model asks for; positions, then strains."""
    systems, all_positions, strains = [], [], []
    for k in part.tolist():
        start, stop = int(store.offsets[k]), int(store.offsets[k + 1])
        positions = store.positions[start:stop].to(device, dtype).requires_grad_(gradients)
        cell = store.cells[k].to(device, dtype)
        strain = torch.eye(3, dtype=dtype, device=device, requires_grad=gradients)
        system = System(
            types=store.types[start:stop].to(device, torch.int32),
            positions=positions @ strain,
            cell=cell @ strain,
            pbc=store.pbc[k].to(device),
        )
        all_positions.append(positions)
        strains.append(strain)
        for options in lists:
            block = _pairs(store, k, options, length_unit, dtype).to(device)
            if gradients:
                register_autograd_neighbors(system, block)
            system.add_neighbor_list(options, block)
        for name, wanted in (inputs or {}).items():
            found = _input(store, k, name, wanted.unit, device, dtype)
            with warnings.catch_warnings():  # of names that are none of metatomic's
                warnings.simplefilter("ignore")
                system.add_data(name, found)
        systems.append(system)
    return systems, [*all_positions, *strains]


def inputs_of_file(model: AtomisticModel, store: StructureStore) -> dict[str, ExtraInput]:
    """The same as an architecture says it; how wide they are, the file does not tell, and the ``store`` decides."""
    widths = {name: label.values.shape[1] for name, label in store.extra.items()}
    return {
        name: ExtraInput(one.sample_kind == "atom", one.unit, widths.get(name, 1))
        for name, one in requested_inputs(model).items()
    }


def _input(
    store: StructureStore, k: int, name: str, unit: str, device: str, dtype: torch.dtype
) -> TensorMap:
    """Extra data of structure ``k`` as metatomic has them, which it must have."""
    label = store.extra[name]
    first, last = int(store.offsets[k]), int(store.offsets[k + 1])
    rows = label.values[first:last] if label.per_atom else label.values[k : k + 1]
    numbers = torch.arange(len(rows), dtype=torch.int32)
    samples = Labels("system", torch.zeros(1, 1, dtype=torch.int32))
    if label.per_atom:
        samples = Labels(["system", "atom"], torch.stack([0 * numbers, numbers], dim=1))
    values = rows.to(device, dtype)
    title = name.split("::")[-1].split("/")[0]
    properties = Labels.range(title if title.isidentifier() else "_", values.shape[1])
    block = TensorBlock(values, samples.to(device), [], properties.to(device))
    found = TensorMap(Labels.single().to(device), [block])
    found.set_info("unit", unit)
    return found


def _pairs(
    store: StructureStore,
    k: int,
    options: NeighborListOptions,
    length_unit: str,
    dtype: torch.dtype,
) -> TensorBlock:
    """The neighbour list of structure ``k``; the model states its cutoff in its own unit of length."""
    pairs = pair_list(store, torch.tensor([k]), options.engine_cutoff(length_unit))
    keep = torch.ones(len(pairs.centers), dtype=torch.bool)
    if not options.full_list:
        keep = _half(pairs.centers, pairs.neighbors, pairs.shifts)
    i, j, shifts = pairs.centers[keep].long(), pairs.neighbors[keep].long(), pairs.shifts[keep]
    positions = store.positions[store.offsets[k] : store.offsets[k + 1]]
    vectors = positions[j] - positions[i] + shifts.to(torch.float64) @ store.cells[k]
    names = ["first_atom", "second_atom", "cell_shift_a", "cell_shift_b", "cell_shift_c"]
    samples = torch.cat([i[:, None], j[:, None], shifts.long()], dim=1).to(torch.int32)
    return TensorBlock(
        vectors.to(dtype).reshape(-1, 3, 1),
        Labels(names, samples),
        [Labels.range("xyz", 3)],
        Labels.range("distance", 1),
    )


def _half(centers: Tensor, neighbors: Tensor, shifts: Tensor) -> Tensor:
    """Each pair once: of i-j and j-i (with opposite shifts) the one that compares larger."""
    first_nonzero = torch.zeros(len(centers), dtype=torch.int64)
    for axis in (2, 1, 0):
        s = shifts[:, axis].long()
        first_nonzero = torch.where(s != 0, s, first_nonzero)
    return (first_nonzero > 0) | ((first_nonzero == 0) & (neighbors > centers))


def _targets(
    model: AtomisticModel, section: DatasetSection, found: dict[str, TargetInfo]
) -> DatasetInfo:
    """What to compute: the section's targets, or all the model offers if it names none."""
    capabilities = model.capabilities()
    offered = dict(capabilities.outputs.items())
    targets: dict[str, TargetInfo] = {}
    for name, target in found.items():
        if name not in offered:
            near = nearest(name, offered)
            hint = f"; did you mean '{near}'?" if near else ""
            raise TargetError(
                f"{section.where('targets', name)}: the model does not predict '{name}'{hint} "
                f"(it predicts {', '.join(offered)})"
            )
        targets[name] = replace(target, unit=target.unit or offered[name].unit)
    energies = {
        name: TargetInfo(name, quantity="energy", unit=output.unit)
        for name, output in offered.items()
        if name.split("/")[0] == "energy"
    }
    targets = targets or told(model) or energies
    if not targets:
        raise TargetError(
            f"{section.where()}: name the targets to predict (the model offers {', '.join(offered)})"
        )
    return DatasetInfo(
        section.systems.length_unit, tuple(sorted(capabilities.atomic_types)), targets
    )


def told(model: AtomisticModel) -> dict[str, TargetInfo]:
    """What one of our own files says each output is; nothing for those of others."""
    info = model.metadata().extra.get("dataset_info")
    return {} if info is None else DatasetInfo.from_dict(json.loads(info)).targets


def _check_structures(
    model: AtomisticModel, store: StructureStore, section: DatasetSection
) -> None:
    """Raise DataError or OptionsError unless the model can take the structures of a section."""
    check_inputs(inputs_of_file(model, store), store, section)
    known = set(model.capabilities().atomic_types)
    unknown = sorted(set(store.types.tolist()) - known)
    if unknown:
        raise DataError(
            f"{store.origin(store.first_with(unknown))} contains {symbols(unknown)}, which the model does not know "
            f"(it knows {symbols(sorted(known))}); evaluate structures of these elements only"
        )


def _totals(model: AtomisticModel) -> list[str]:
    """The targets that one of our own files was trained on as totals, not per atom."""
    hypers = json.loads(model.metadata().extra.get("hypers", "{}"))
    return list((hypers.get("trainer") or {}).get("per_structure_targets") or ())


Row = tuple[str, Tensor, Tensor, "Tensor | None"]


def _errors(
    store: StructureStore, info: DatasetInfo, predictions: dict[str, Tensor], totals: list[str]
) -> dict[str, dict[str, float]]:
    variances = label_variances(store, info, totals)
    return _counted(list(_side_by_side(store, info, predictions, totals)), info, variances)


def errors_together(found: Sequence[Evaluation]) -> dict[str, dict[str, float]]:
    """Errors as of one :class:`Evaluation` on all the structures of several of one model; without R2."""
    targets = {name: target for one in found for name, target in one.info.targets.items()}
    rows = [
        row
        for one in found
        for row in _side_by_side(one.structures, one.info, one.predictions, one.totals)
    ]
    return _counted(rows, replace(found[0].info, targets=targets), {})


def _counted(
    rows: Sequence[Row], info: DatasetInfo, variances: Mapping[str, float]
) -> dict[str, dict[str, float]]:
    keys = list(dict.fromkeys(key for key, *_ in rows))
    sums = ErrorSums(keys, torch.device("cpu"), {}, info, variances)
    for key, values, labels, mask in rows:
        if key in sums.tasks:
            sums.add_samples(key, values, labels, mask)
        else:
            sums.add(key, values - labels, mask)
    return sums.results()


def _reliability(
    store: StructureStore, info: DatasetInfo, predictions: dict[str, Tensor], totals: list[str]
) -> dict[str, Reliability]:
    """Errors held against the standard deviations that were predicted for them, as errors are counted."""
    found: dict[str, Reliability] = {}
    for key, values, labels, mask in _side_by_side(store, info, predictions, totals):
        name, gradient = split_key(key)
        called = forces_uncertainty_name(name) if gradient == "forces" else uncertainty_name(name)
        if gradient == "strain" or called not in predictions:
            continue
        sigma = as_counted(predictions[called], store, info.targets[name], gradient, totals)
        errors = values - labels
        if mask is not None:
            errors = errors.masked_fill(~mask.bool(), torch.nan)
        found[key] = Reliability.of(errors, sigma)
    return found


def _side_by_side(
    store: StructureStore, info: DatasetInfo, predictions: dict[str, Tensor], totals: list[str]
) -> Iterator[Row]:
    """Label keys that there are labels of, predictions and labels as errors are counted, and where labels are."""
    for key in label_keys(info):
        name, gradient = split_key(key)
        target, label = info.targets[name], store.labels.get(key)
        # the noise of a denoising target is known in training only
        if label is None or input_of(target):
            continue
        values, labels = predictions[key], label.values
        if task_of(target.kind).metric_size(target) == 0 or gradient:
            labels = as_counted(labels, store, target, gradient, totals)
            # what a model predicts per volume is trained, and stored, as volume times that
            if not target.per_volume:
                values = as_counted(values, store, target, gradient, totals)
        yield key, values, labels, label.mask


def _check_outputs(
    outputs: Sequence[Output | None], infos: Sequence[DatasetInfo], files: Files
) -> None:
    """Predictions must not take the place of data that are read."""
    for output, info in zip(outputs, infos, strict=True):
        for file in [] if output is None else output.files(info.targets):
            if file.resolve() in files.paths:
                raise OutputError(
                    f"'{file}' is one of the files that are evaluated; write predictions elsewhere"
                )
            if file.is_file():
                log.info("replacing the earlier '%s'", file)


def _cells(loaded: LoadedSection, files: Files, section: DatasetSection) -> np.ndarray:
    """The cells as they are in the file, also along directions that are not periodic."""
    structures = SectionFiles(section, files).structures
    return np.stack([structures[k].cell for k in loaded.frames])


def runs_on_cuda(model: AtomisticModel) -> bool:
    """Whether there is a CUDA device that the model runs on."""
    return torch.cuda.is_available() and "cuda" in model.capabilities().supported_devices
