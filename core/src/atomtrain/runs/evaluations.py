"""What packages do with a training that is over: the hook ``register_evaluations``, and what it is given."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atomtrain.data import Datasets
from atomtrain.errors import OutputError
from atomtrain.files import replacing
from atomtrain.training.observers import Errors
from atomtrain.training.run import TrainingOutcome, TrainingRun

log = logging.getLogger("atomtrain")
FILE = "evaluation.json"
"""errors and findings, in the run's folder"""


@dataclass(frozen=True)
class Findings:
    """What an evaluation found.

    ``lines`` are for the log, ``files`` were written, ``values`` (plain data that JSON has, with units in the names)
    are kept in ``evaluation.json``.
    """

    lines: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Finished:
    """A training that is over.

    ``run.directory`` has the exported ``model.pt``, ``model.ckpt``, ``train.csv``, ``train.log`` and the completed
    ``options.yaml``, and what an evaluation writes goes there. ``run.predictor`` has the best weights; an evaluation
    that moves it or changes it takes a copy. ``errors`` are those of the sets in ``data.sets`` (see
    :mod:`atomtrain.training.metrics` for their keys), ``found`` what earlier evaluations found, by name.
    """

    run: TrainingRun
    data: Datasets
    outcome: TrainingOutcome
    options: dict[str, Any]
    errors: dict[str, Errors]
    found: dict[str, Findings] = field(default_factory=dict)


Evaluation = Callable[[Finished], Findings]


def evaluate(finished: Finished, evaluations: Mapping[str, Evaluation]) -> None:
    """Make ``evaluations`` in their order, add to ``finished.found``, and write what is known to ``evaluation.json``.

    The model is in its place by now: one that fails, or is interrupted, is a warning.
    """
    for name, evaluation in evaluations.items():
        try:
            found = evaluation(finished)
        except KeyboardInterrupt:
            log.warning(f"final_eval: {name} was interrupted; model and checkpoint are whole")
            continue
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            log.warning(f"final_eval: {name} failed, nothing else is touched: {what}")
            log.debug("", exc_info=True)
            continue
        finished.found[name] = found
        for line in found.lines:
            log.info(line)
    _write(finished)


def evaluation_of(directory: Path) -> dict[str, Any]:
    """What ``evaluation.json`` of a run's folder has; nothing where there is none. Raises OutputError."""
    path = directory / FILE
    if not path.is_file():
        return {}
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(f"'{path}' cannot be read: {error}. Move it away") from error
    return told if isinstance(told, dict) else {}


def _write(finished: Finished) -> None:
    told = {
        "errors": finished.errors,
        **{name: found.values for name, found in finished.found.items() if found.values},
    }
    try:
        with replacing(finished.run.directory / FILE) as path:
            path.write_text(json.dumps(told, indent=2, allow_nan=True), encoding="utf-8")
    except OSError as error:
        log.warning(f"'{FILE}' was not written: {error}")
