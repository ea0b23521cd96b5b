"""What a page is about: a training that is over, a run's folder, a checkpoint, or an exported model on data."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from atomtrain.data import Datasets, Files, Remarks, build_datasets, read_section
from atomtrain.data.splits import ranges
from atomtrain.errors import CheckpointError, DataError, OptionsError, OutputError
from atomtrain.files import archive_kind
from atomtrain.model.export import load_model
from atomtrain.options import (
    DatasetSection,
    Options,
    check_units,
    load_eval_options,
    load_options,
)
from atomtrain.plugins.restore import Restored, restore
from atomtrain.report.classification import Classified, classified, write_reports
from atomtrain.report.show import describe, describe_model, rows_of
from atomtrain.runs import Findings, Finished
from atomtrain.runs.evaluations import evaluation_of
from atomtrain.sections.names import symbols
from atomtrain.targets import DatasetInfo
from atomtrain.training.checkpoint import load_checkpoint
from atomtrain.training.device import choose_device, choose_dtype
from atomtrain.training.evaluate import Compared, Samples, compared, errors_on
from atomtrain.training.metrics import ErrorSums
from atomtrain.training.run import TrainingOutcome, TrainingRun
from atomtrain_report.groups import Grouping, grouping_of
from atomtrain_report.sets import Part, chosen, some_of

if TYPE_CHECKING:
    from atomtrain.data import Structures, StructureStore
    from atomtrain.evaluation import Evaluation

log = logging.getLogger("atomtrain")
YAML = (".yaml", ".yml")
PICTURES = (".png", ".jpg", ".jpeg", ".svg")
Classes = dict[str, dict[str, Classified]]
"""classifications by set and target"""


@dataclass
class Subject:
    """All that a page tells, before anything is drawn.

    ``described`` are titles and texts of what the model is, ``directory`` is the run's folder, where there is one, with
    ``train.csv`` in it, ``best`` the epoch or stage of the weights. ``found`` are values of other evaluations by name,
    ``pictures`` lie in the run's folder, ``classes`` are pictures still to be made. ``timings``, ``splits`` are titles
    and texts, ``remarks`` sentences.
    """

    title: str
    model: str
    info: DatasetInfo
    totals: Collection[str]
    parts: list[Part]
    described: list[tuple[str, str]]
    directory: Path | None = None
    best: int | None = None
    options: Mapping[str, Any] | None = None
    found: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    pictures: list[Path] = field(default_factory=list)
    classes: Classes = field(default_factory=dict)
    timings: list[tuple[str, str]] = field(default_factory=list)
    splits: list[tuple[str, str]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def draw_classes(self, folder: Path) -> list[Path]:
        """Tables and pictures of classifications that no run made, in ``folder``; the pictures."""
        return write_reports(folder, self.classes, self.info) if self.classes else []


def subject_of(
    what: Path,
    data: str | Path | None,
    most: int,
    by: Sequence[str],
    *,
    batch_size: int,
    extensions: str | Path | None,
) -> Subject:
    """What ``atomtrain report`` is asked for."""
    run = what if what.is_dir() else None
    if run is not None:
        what = _checkpoint_in(run)
    if archive_kind(what) == "model":
        if data is None:
            raise OptionsError(
                f"'{what}' is an exported model, which does not know its data: name a file of structures or an eval "
                f"file (atomtrain report {what} data.xyz), or give the run's folder or the checkpoint"
            )
        return _of_exported(what, data, most, by, batch_size, extensions)
    checkpoint = load_checkpoint(what)
    restored = restore(checkpoint, "export")
    options = load_options({**checkpoint["options"], "observers": {}, "final_eval": True})
    if data is None:
        grouping = grouping_of(options, by)
        finished, classes = _again(what, run, restored, options)
        found = replace(of_finished(finished, most, by, grouping), classes=classes)
    else:
        found = _of_checkpoint_on(what, restored, options, data, most, by)
    found.model = what.name
    return found


def _checkpoint_in(run: Path) -> Path:
    """The last checkpoint in the folder of a run."""
    for name in ("model.ckpt", "interrupted.ckpt"):
        if (run / name).is_file():
            return run / name
    others = sorted(run.glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    if not others:
        raise CheckpointError(
            f"'{run}' is not the folder of a run, or of one that ended before its first checkpoint: there is no "
            "'.ckpt' file in it; give outputs/<date>/<time>"
        )
    return others[-1]


# -- trainings -----------------------------------------------------------------------------------


def of_finished(
    finished: Finished, most: int, by: Sequence[str], grouping: Grouping | None = None
) -> Subject:
    """Of a training that is over; at most so many structures of each set are looked at one by one.

    Groups are those ``by`` values of the structures, and of the splits.
    """
    run, checkpoint = finished.run, finished.outcome.checkpoint
    options = load_options(finished.options)
    grouping = grouping or grouping_of(options, by)
    predictor = copy.deepcopy(run.predictor)
    parts = []
    for name, structures in finished.data.sets.items():
        if structures is not None:
            parts.append(
                part_of(name, structures, predictor, run, finished.errors.get(name, {}), most)
            )
            parts[-1].groups = grouping.of(parts[-1].store)
    trainer = checkpoint.get("trainer") or {}
    identity = checkpoint["architecture"]
    described = rows_of(describe(checkpoint, "checkpoint"))
    n = sum(p.numel() for p in predictor.model.parameters())
    described.insert(1, ("parameters", f"{n:,}"))
    return Subject(
        title=f"{identity['name']} on {_files(parts)}",
        model="model.pt",
        info=run.dataset_info,
        totals=run.hypers.per_structure_targets,
        parts=parts,
        described=described,
        directory=run.directory,
        best=trainer.get("best_epoch"),
        options=finished.options,
        found={name: one.values for name, one in finished.found.items() if one.values},
        pictures=_pictures(run.directory),
        timings=[_timing(part, f"training's code, {run.device}, {_type(run.dtype)}, batches of "
                         f"{run.hypers.batch_size}") for part in parts],
        splits=_splits(finished.data, options),
        remarks=list(finished.data.warnings),
    )  # fmt: skip


def _pictures(run: Path) -> list[Path]:
    """Pictures that others made in the folder of a run, or in a folder of theirs in it; no page's own."""
    ours = {run / "report", *(page.with_suffix("") for page in run.glob("*.html"))}
    found = [*run.glob("*"), *run.glob("*/*")]
    return sorted(p for p in found if p.suffix in PICTURES and p.parent not in ours)


def part_of(
    name: str,
    structures: Structures,
    predictor: Any,
    run: TrainingRun,
    errors: Any,
    most: int,
) -> Part:
    """A set with predictions of the structures looked at."""
    store = some_of(structures, most)
    began = time.perf_counter()
    found = compared(predictor, store, run)
    seconds = time.perf_counter() - began
    return Part(name, store, len(structures), errors, found, seconds)


def _again(
    path: Path, run: Path | None, restored: Restored, options: Options
) -> tuple[Finished, Classes]:
    """What a training knew at its end, from a checkpoint of it and its data."""
    info = restored.architecture.info
    where = (
        "paths in options are those of the folder in which the training was started: run this there"
    )
    made = _run_of(path, restored, options)
    try:
        data = build_datasets(options, info.default_kind, made.hypers.memory_budget_bytes)
    except (DataError, OptionsError) as error:
        raise error.saying(f"{error} ({where})") from error
    checkpoint = restored.checkpoint
    if data.fingerprint != checkpoint.get("fingerprint"):
        data.warnings.insert(
            0,
            "the training set is not the one that the model was trained on: its files have changed",
        )
    folder = run or path.parent
    made = replace(made, train=data.train, validation=data.validation, directory=folder)
    errors, classes = {}, {}
    for name, store in data.sets.items():
        if store is not None:
            errors[name], classes[name] = _errors(restored, store, made)
    known = {name: Findings(values=values) for name, values in _told(run).items()}
    if run is not None and any(run.glob("reliability_*.png")):
        classes = {}  # the run made their pictures
    outcome = TrainingOutcome(checkpoint, {})
    return Finished(made, data, outcome, checkpoint["options"], errors, known), classes


def _run_of(path: Path, restored: Restored, options: Options) -> TrainingRun:
    """A run with the model of a checkpoint, and nothing to train on."""
    architecture, predictor = restored.architecture, restored.predictor
    hypers = architecture.trainer_hypers_class().model_validate(
        restored.checkpoint["hypers"]["trainer"]
    )
    nothing: Any = ()
    return TrainingRun(
        predictor=predictor,
        dataset_info=predictor.dataset_info,
        hypers=hypers,  # type: ignore[arg-type]
        train=nothing,
        validation=nothing,
        device=choose_device(None, architecture.info.devices),
        dtype=choose_dtype(options.base_precision, architecture.info.dtypes),
        seed=options.seed,
        directory=path.parent,
        header={},
    )


def _errors(
    restored: Restored, store: Structures, run: TrainingRun
) -> tuple[Any, dict[str, Classified]]:
    samples = Samples()
    sums, _ = errors_on(restored.predictor, store, run, samples=samples)
    return sums.results(), classified(samples, sums.confusions(), run.dataset_info)


def _told(run: Path | None) -> dict[str, Any]:
    """What evaluations of the run found."""
    if run is not None:
        with suppress(OutputError):
            return {name: v for name, v in evaluation_of(run).items() if name != "errors"}
    return {}


# -- models on data ------------------------------------------------------------------------------


def _of_checkpoint_on(
    path: Path,
    restored: Restored,
    options: Options,
    data: str | Path,
    most: int,
    by: Sequence[str],
) -> Subject:
    """The model of a checkpoint on other data than its own."""
    info, run = restored.predictor.dataset_info, _run_of(path, restored, options)
    targets = _anywhere(options.training_set[0].model_dump(mode="json")["targets"])
    sections = _asked(data, targets, options.training_set[0].systems.length_unit)
    grouping = Grouping(sections, (), by)
    files, remarks = Files(), Remarks()
    parts, classes = [], {}
    for name, section in zip(_names_of(sections), sections, strict=True):
        with _guessed(data):
            loaded = read_section(section, files, remarks, known=info.targets)
        _check_elements(loaded.store, info, str(path))
        errors, classes[name] = _errors(restored, loaded.store, run)
        parts.append(part_of(name, loaded.store, restored.predictor, run, errors, most))
        parts[-1].groups = grouping.of(parts[-1].store)
    described = rows_of(describe(restored.checkpoint, "checkpoint"))
    how = f"training's code, {run.device}, {_type(run.dtype)}, batches of {run.hypers.batch_size}"
    return Subject(
        title=f"{restored.checkpoint['architecture']['name']} on {_files(parts)}",
        model=path.name,
        info=info,
        totals=run.hypers.per_structure_targets,
        parts=parts,
        described=described,
        classes=classes,
        timings=[_timing(part, how) for part in parts],
        remarks=remarks.warnings,
    )


def _of_exported(
    path: Path,
    data: str | Path,
    most: int,
    by: Sequence[str],
    batch_size: int,
    extensions: str | Path | None,
) -> Subject:
    """An exported model, ours or another's, on data."""
    from atomtrain.evaluation import evaluate_model, told

    model = load_model(path, extensions=extensions)
    known = told(model)
    outputs = dict(model.capabilities().outputs.items())
    targets = {
        name: {"unit": outputs[name].unit}
        for name in (known or [n for n in outputs if n.split("/")[0] == "energy"])
        if name in outputs
    }
    sections = _asked(data, targets, model.capabilities().length_unit or "angstrom")
    grouping = Grouping(sections, (), by)
    with _guessed(data):
        found = evaluate_model(
            path, sections, None, batch_size=batch_size, extensions=extensions, warm_up=True
        )
    parts, classes = [], {}
    for name, one in zip(_names_of(sections), found, strict=True):
        parts.append(_part_of(name, one, most))
        parts[-1].groups = grouping.of(parts[-1].store)
        classes[name] = _classes(one)
    described = describe_model(model)
    name = (described.get("architecture") or {}).get("name") or model.metadata().name
    how = f"exported model in TorchScript, batches of {batch_size}"
    info = replace(
        found[0].info, targets={k: t for one in found for k, t in one.info.targets.items()}
    )
    return Subject(
        title=f"{name or path.name} on {_files(parts)}",
        model=path.name,
        info=info,
        totals=found[0].totals,
        parts=parts,
        described=rows_of(described),
        classes=classes,
        timings=[_timing(part, how) for part in parts],
    )


def _part_of(name: str, one: Evaluation, most: int) -> Part:
    store, found = one.structures, one.compared()
    seconds, total = one.seconds_per_atom * len(store.types), len(store)
    if total > most:
        rows = chosen(total, most)
        atoms = store.atom_indices(rows)
        for key, both in found.items():
            which = atoms if store.labels[key].per_atom else rows
            found[key] = Compared(both.predictions[which], both.labels[which])
        seconds *= len(atoms) / len(store.types)
        store = store.select(rows)
    return Part(name, store, total, one.errors, found, seconds)


def _classes(one: Evaluation) -> dict[str, Classified]:
    """Classifications of an evaluation."""
    sums = ErrorSums(
        [key for key in one.info.targets if key in one.structures.labels],
        torch.device("cpu"), {}, one.info,
    )  # fmt: skip
    for key in sums.tasks:
        label = one.structures.labels[key]
        sums.add_samples(key, one.predictions[key], label.values, label.mask)
    both = one.compared()
    return {
        key: Classified(both[key].labels.numpy(), both[key].predictions.numpy(), matrix)
        for key, matrix in sums.confusions().items()
        if both[key].labels.shape[1] == len(matrix)
    }


def _asked(data: str | Path, targets: Mapping[str, Any], length_unit: str) -> list[DatasetSection]:
    """The sections of an eval file, or one of a file of structures, with these targets."""
    if Path(data).suffix.lower() in YAML:
        sections = load_eval_options(data)
    else:
        systems = {"read_from": str(data), "length_unit": length_unit}
        sections = load_eval_options({"systems": systems, "targets": dict(targets)})
    check_units(sections)
    return sections


@contextmanager
def _guessed(data: str | Path) -> Iterator[None]:
    """Says of labels that are not found where to name them."""
    try:
        yield
    except DataError as error:
        if Path(data).suffix.lower() in YAML or " has no " not in str(error):
            raise
        raise DataError(
            f"{error}; say what labels are called in an eval file and give that instead of '{data}' (without targets "
            "in it the page has no errors)"
        ) from error


def _anywhere(targets: Any) -> Any:
    """What options say of targets without the files that they are in."""
    if not isinstance(targets, Mapping):
        return targets
    files = ("read_from", "reader", "format")
    return {key: _anywhere(value) for key, value in targets.items() if key not in files}


def _names_of(sections: Sequence[DatasetSection]) -> list[str]:
    """The sets that sections are, for people: no two alike."""
    names = [", ".join(Path(path).name for path in _paths(section)) for section in sections]
    return [name if names.count(name) == 1 else f"{name} ({k})" for k, name in enumerate(names)]


def _paths(section: DatasetSection) -> list[str]:
    found = section.systems.read_from
    return [found] if isinstance(found, str) else list(found)


def _check_elements(store: StructureStore, info: DatasetInfo, model: str) -> None:
    unknown = sorted(set(store.elements) - set(info.atomic_types))
    if unknown:
        raise DataError(
            f"{store.origin(store.first_with(unknown))} contains {symbols(unknown)}, which '{model}' does not know "
            f"(it knows {symbols(info.atomic_types)}); look at structures of these elements only"
        )


# -- words ---------------------------------------------------------------------------------------


def _files(parts: Sequence[Part]) -> str:
    """The files that structures came from, for a title."""
    names = list(dict.fromkeys(Path(file).name for part in parts for file in part.store.files))
    if not names:
        return "its data"
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _splits(data: Datasets, options: Options) -> list[tuple[str, str]]:
    """Which structures are in which set."""
    found = []
    for name, structures in data.sets.items():
        if structures is None:
            continue
        said = []
        frames = data.splits.get("train" if name == "training" else name, [])
        for section, own in zip(options.training_set, frames, strict=False):
            if own:
                said.append(f"{ranges(own)} of {', '.join(_paths(section))}")
        said = said or [", ".join(map(str, structures.sample.files[:5]))]
        found.append((name, f"{len(structures)} structures: {'; '.join(said)}"))
    return found


def _timing(part: Part, how: str) -> tuple[str, str]:
    per = part.seconds / max(len(part.store), 1)
    atom = part.seconds / max(len(part.store.types), 1)
    return (
        f"evaluating the {part.name} set",
        f"{1e3 * per:.3g} ms per structure, {1e6 * atom:.3g} µs per atom ({how})",
    )


def _type(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
