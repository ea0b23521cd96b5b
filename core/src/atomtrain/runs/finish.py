"""After a training: the final checkpoint, the exported model, its errors on every set, and the summary."""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass, field
from pathlib import Path

from atomtrain.errors import AtomtrainError, OutputError, VerificationError
from atomtrain.model.export import describe_checkpoint
from atomtrain.report.classification import (
    Classified,
    classified,
    write_confusions,
    write_reports,
)
from atomtrain.runs.directory import deliver
from atomtrain.runs.evaluations import Finished, evaluate
from atomtrain.runs.prepare import Prepared
from atomtrain.training.checkpoint import save_checkpoint
from atomtrain.training.evaluate import Samples, errors_on
from atomtrain.training.observers import Errors
from atomtrain.training.run import TrainingOutcome
from atomtrain.training.units import errors_line
from atomtrain.verification import save_verified, unverified

log = logging.getLogger("atomtrain")


@dataclass(frozen=True)
class TrainingResult:
    """Where the results of a training are, and its errors by set (``train``, ``test``, ...)."""

    model: Path | None
    checkpoint: Path
    directory: Path
    errors: dict[str, Errors] = field(default_factory=dict)
    interrupted: bool = False


def finish(
    prepared: Prepared,
    outcome: TrainingOutcome,
    output: Path,
    extensions: str | Path | None = None,
) -> TrainingResult:
    """Export what a training gave to ``output``, the checkpoint beside it, and say how good it is.

    Raises VerificationError where the file does not do what was trained: checkpoint and file are there then, the
    file as ``<stem>.unverified.pt``. Only the main process does; one that a signal stopped only says how to go on.
    """
    directory = prepared.run.directory
    if not prepared.run.processes.is_main:
        path = directory / "model.ckpt"
        return TrainingResult(None, path, directory, interrupted=outcome.interrupted)
    if outcome.interrupted:
        path = directory / "interrupted.ckpt"
        log.warning(f"stopped by a signal; go on with: atomtrain train ... --restart {path}")
        return TrainingResult(None, path, directory, interrupted=True)
    checkpoint = output.with_suffix(".ckpt")
    try:
        save_checkpoint(outcome.checkpoint, directory / "model.ckpt")
    except OutputError as error:
        raise OutputError(f"{error}. {prepared.run.remedy}") from error
    deliver(directory / "model.ckpt", checkpoint)
    try:
        _export(prepared, outcome, extensions)
    except VerificationError:
        deliver(unverified(directory / "model.pt"), unverified(output))
        log.info(f"the checkpoint is right: {checkpoint}")
        raise
    except AtomtrainError:
        log.info(f"nothing is lost: the checkpoint is whole, {checkpoint}")
        raise
    deliver(directory / "model.pt", output)
    errors: dict[str, Errors] = {}
    pictures: list[Path] = []
    if prepared.plan.options.final_eval is not False:
        errors, pictures = _evaluate(prepared)
        if prepared.run.began.errors:
            log.info("errors of the best model beside those before the fine-tuning:")
            for line in prepared.tuned_by.lines(prepared.run, prepared.run.began.errors):
                log.info(f"  {line}")
        found = Finished(prepared.run, prepared.data, outcome, prepared.plan.completed, errors)
        evaluate(found, prepared.plan.evaluations)
        pictures += [file for one in found.found.values() for file in one.files]
    early = " (stopped early)" if outcome.stopped_early else ""
    log.info(
        f"done{early}; {_best(outcome)}{'' if prepared.data.validated else ', the last: there is no validation set'}"
    )
    log.info(f"  model       {output} (for ASE, LAMMPS, i-PI, torch-sim)")
    log.info(f"  checkpoint  {checkpoint} (for restart, fine-tuning, export)")
    log.info(f"  run         {directory} (log, train.csv, options, splits, checkpoints)")
    if pictures:
        log.info(f"  to look at  {', '.join(map(str, pictures))}")
    log.info(f"next: atomtrain show {output}; atomtrain eval {output} eval.yaml")
    return TrainingResult(output, checkpoint, directory, errors)


def _best(outcome: TrainingOutcome) -> str:
    """Which epoch or stage the model is of."""
    found = outcome.checkpoint["trainer"]["best_epoch"]
    if found < 0:
        return "nothing was trained"
    label = outcome.checkpoint["metrics"].get("best", "")
    return f"best stage {found} ({label})" if label else f"best epoch {found}"


def _export(prepared: Prepared, outcome: TrainingOutcome, extensions: str | Path | None) -> None:
    """Write the model into the run's directory, verified; the predictor has the best weights then."""
    architecture, run = prepared.plan.architecture, prepared.run
    run.predictor.model.load_state_dict(outcome.best_weights)
    metadata = describe_checkpoint(outcome.checkpoint, architecture.info)
    # a copy: what the file is held against is none of the architecture's business any more
    exported = architecture.export_model(copy.deepcopy(run.predictor), metadata)
    some = (run.validation if len(run.validation) > 0 else run.train).sample
    foreign = save_verified(
        exported, run.directory / "model.pt", run.predictor, some, extensions=extensions
    )
    if foreign:
        log.warning(f"the model needs the libraries in '{extensions}' beside it")


def _evaluate(prepared: Prepared) -> tuple[dict[str, Errors], list[Path]]:
    """Errors of the best model by set, and the pictures that were made."""
    run, data, info = prepared.run, prepared.data, prepared.run.dataset_info

    def said(found: Errors) -> str:
        return errors_line(info, found, ("rmse", "mae"), run.hypers.per_structure_targets)

    errors: dict[str, Errors] = {}
    classes: dict[str, dict[str, Classified]] = {}
    predictor = copy.deepcopy(run.predictor)
    for name, store in data.sets.items():
        if store is None:
            continue
        samples = Samples()
        sums, groups = errors_on(predictor, store, run, samples=samples)
        confusions = sums.confusions()
        write_confusions(run.directory, name, confusions, info)
        classes[name] = classified(samples, confusions, info)
        errors[name] = sums.results()
        log.info(f"final {name} errors of the best model: {said(errors[name])}")
        for group, part in groups.items():
            line = said(part.results())
            if line:
                log.info(f"  {group}: {line}")
    return errors, write_reports(run.directory, classes, info)
