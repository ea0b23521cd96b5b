"""Where an architecture answers ``train_model``: what the core's engine does for all others, checked of its own."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args, get_origin

import torch
from pydantic import ValidationError
from torch import Tensor

from atomtrain.errors import PluginError
from atomtrain.options import TrainerHypers
from atomtrain.training.observers import EpochRecord, Observer
from atomtrain_testing.checks import NotApplicable, check, require
from atomtrain_testing.subject import Subject
from atomtrain_testing.training import LENGTH, Heard, Trained, train, trained


@check("restart")
def interruption(subject: Subject) -> None:
    """A training that a signal stops, in a pass or between stages, goes on as if nothing had been.

    SIGTERM in the middle of a pass over the data, of an epoch, or between two stages: the training stops there,
    leaves ``interrupted.ckpt``, and started again from it ends with the same weights, bit for bit.
    ``session.batches`` and ``session.stages`` see to it; what a solution is made of belongs in the ``state`` given
    to ``run.session``, and has to be right after each batch.
    """
    _of_its_own(subject)
    whole = trained(subject)
    moments = _moments(whole.heard)
    if not moments:
        raise NotApplicable("its training is one stage without passes: there is nowhere to stop it")
    for moment in moments:
        with _unheard_signals() as unheard:
            stopped = train(subject, [subject.main], observer=_Stop(moment), **LENGTH)
        require(
            not unheard,
            f"train_model does not hear SIGTERM {moment}, which ends the program: do the work inside "
            "'with run.session(...)'",
        )
        require(
            stopped.outcome.interrupted,
            f"train_model went on after SIGTERM {moment}: go through session.batches and session.stages, or ask "
            "session.asked_to_stop()",
        )
        left = stopped.folder / "interrupted.ckpt"
        require(left.exists(), f"train_model left no interrupted.ckpt after SIGTERM {moment}")
        resumed = train(subject, [subject.main], restart=left, **LENGTH)
        n = [len(one.heard.stages) for one in (stopped, resumed, whole)]
        require(
            n[0] + n[1] == n[2],
            f"stopped {moment}, {n[0]} of {n[2]} {whole.word} were done, and {n[1]} after the restart",
        )
        different = _different(resumed.weights, whole.weights) or _different(
            resumed.outcome.best_weights, whole.outcome.best_weights
        )
        require(
            not different,
            f"'{different}' ends elsewhere when train_model is stopped {moment} and restarted. Is there anything "
            "that is not in the state given to run.session, or summed before the stop and once more after it?",
        )


@check("checkpoints")
def changes(subject: Subject) -> None:
    """A restart with other hypers of the trainer, or other data, does not end with the old result.

    A training that is over is started again, each of the trainer's own hypers changed, and on other structures
    (where trainings have epochs: one that is half over). ``run.changed_hypers`` and ``run.data_changed`` say so:
    ``session.stages(..., anew=True)`` forgets the stages that are done, ``session.forget_pass`` a pass over
    the data, whose sums have to be set to zero.
    """
    _of_its_own(subject)
    whole = trained(subject)
    old = _result(subject, whole)
    start = whole.checkpoint
    if subject.has_hyper("num_epochs"):
        start = whole.folder / f"model_{len(whole.losses) // 2}.ckpt"

    def again(**changed: Any) -> bool:
        """Whether a restart ends with another result; the core refuses some that do not."""
        try:
            done = train(subject, [subject.main], restart=start, **{**LENGTH, **changed})
        except PluginError as error:
            if "left the result as it was" in str(error):
                return False
            raise
        return bool(_different(_result(subject, done), old))

    for name, value in _other_hypers(subject):
        if again(**{name: value}):
            continue
        fresh = _result(subject, train(subject, [subject.main], **{**LENGTH, name: value}))
        require(
            not _different(fresh, old),  # one that makes no difference here
            f"restarted with another {name} ({value}), train_model ends with the old result: look at "
            "run.changed_hypers, and go through session.stages(..., anew=True)",
        )
    require(
        again(seed=2),
        "restarted on other structures, train_model ends with the old result: look at run.data_changed; "
        "session.forget_pass(label) and session.stages(..., anew=True) begin anew",
    )


@check("trains")
def precision(subject: Subject) -> None:
    """Weights are computed in the precision that was asked for.

    Asked for float64 and for float32 (as far as both are declared) the weights are of that type, and those of
    float64 are not rounded to float32 on the way. Labels and positions come in the precision asked for; sums and
    solutions may be of a higher one, and are copied into the model's own tensors.
    """
    _of_its_own(subject)
    declared = subject.dtypes or subject.architecture.info.dtypes
    for bits, name in ((32, "float32"), (64, "float64")):
        if name not in declared:
            continue
        done = trained(subject)
        if subject.precision != bits:
            done = train(subject, [subject.main], base_precision=bits, **LENGTH)
        best = done.outcome.best_weights
        for key, weight in done.weights.items():
            require(
                weight.dtype == best[key].dtype,
                f"train_model leaves '{key}' in {weight.dtype} where {best[key].dtype} was asked for",
            )
        moved = [
            weight
            for key, weight in best.items()
            if weight.dtype == torch.float64 and bool((weight != done.start[key]).any())
        ]
        require(
            not moved or any(bool((w != w.float()).any()) for w in moved),
            "asked for float64, train_model ends with weights that are all numbers of float32: something on the way "
            "is of a lower precision",
        )


# -- pieces ----------------------------------------------------------------------------------------


def _of_its_own(subject: Subject) -> None:
    if not subject.trains_itself:
        raise NotApplicable("not needed: the core's engine trains")


class _Moment:
    """A point of a training, in words, and what is told there."""

    def __init__(self, words: str, *told: object) -> None:
        self.words, self.told = words, told

    def __str__(self) -> str:
        return self.words


class _Stop(Observer):
    """Sends SIGTERM once, at a moment."""

    def __init__(self, moment: _Moment) -> None:
        self._moment, self._sent = moment, False

    def on_step(self, epoch: int, step: int, n_steps: int) -> None:
        """One step."""
        self._now("step", epoch, step)

    def on_progress(self, label: str, done: int, total: int, unit: str) -> None:
        """One batch."""
        self._now("pass", label, done)

    def on_epoch(self, record: EpochRecord) -> None:
        """One stage."""
        self._now("stage", record.epoch)

    def _now(self, *told: object) -> None:
        if told == self._moment.told and not self._sent:
            self._sent = True
            signal.raise_signal(signal.SIGTERM)


def _moments(heard: Heard) -> list[_Moment]:
    """Where a training that told this can be stopped: in a pass, in an epoch, between stages."""
    passes = [(label, n) for label, n in heard.passes.items() if n > 1]
    found = [
        _Moment(f"after {n // 2} of {n} batches of '{label}'", "pass", label, n // 2)
        for label, n in passes[:1]
    ]
    if len(heard.stages) > 1:
        if heard.n_steps > 1:
            found.append(_Moment("after the first step of epoch 1", "step", 1, 1))
        found.append(_Moment("after stage 0", "stage", 0))
    return found


@contextmanager
def _unheard_signals() -> Iterator[list[int]]:
    """Block in which a SIGTERM that nobody hears is taken down instead of ending the program."""
    if threading.current_thread() is not threading.main_thread():
        raise NotApplicable("signals can be sent in the main thread only")
    unheard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: unheard.append(number))
    try:
        yield unheard
    finally:
        signal.signal(signal.SIGTERM, before)


def _result(subject: Subject, done: Trained) -> dict[str, Tensor]:
    """What a training is told apart by: where it ended after so many epochs, else the best there was."""
    return done.weights if subject.has_hyper("num_epochs") else done.outcome.best_weights


def _different(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> str:
    """The first weight that is not the same, bit for bit; empty where all are."""
    for name, weight in wanted.items():
        if not torch.equal(found[name], weight):
            return name
    return ""


def _other_hypers(subject: Subject) -> Iterator[tuple[str, Any]]:
    """The hypers that the trainer has beyond the core's, each with another value that it takes."""
    now = subject.trainer_hypers()
    for name, field in type(now).model_fields.items():
        if name in TrainerHypers.model_fields:
            continue
        for value in _others(getattr(now, name), field.annotation):
            try:
                subject.trainer_hypers(**{name: value})
            except ValidationError:
                continue
            yield name, value
            break


def _others(value: Any, annotation: Any) -> list[Any]:
    """Values to try in place of one."""
    if get_origin(annotation) is Literal:
        return [other for other in get_args(annotation) if other != value]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value - 1]
    if isinstance(value, float):
        return [10.0 * value, 0.1 * value, 0.5 * value] if value else [0.1]
    if isinstance(value, (list, tuple)) and value:
        by_entry = [_others(one, None) for one in value]
        return [list(others) for others in zip(*by_entry, strict=False)]
    return []
