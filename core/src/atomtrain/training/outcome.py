"""How a training ended, and whether a trainer of one's own did what a training must."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from atomtrain.options import TrainerHypers
from atomtrain.training.checkpoint import not_plain
from atomtrain.training.judge import not_finite

if TYPE_CHECKING:
    from atomtrain.training.run import TrainingRun

STATE = ("epoch", "best_epoch", "best_score", "judged_by", "random_state")
"""what every checkpoint has of a training, whichever way it went"""


@dataclass
class TrainingOutcome:
    """What a training ends with (:meth:`atomtrain.training.session.Session.outcome`).

    ``checkpoint`` is the complete final checkpoint (last and best weights), ``best_weights`` the
    model's state that is to be exported, ``interrupted`` whether a signal ended it early, ``stages`` how many
    epochs or stages it went through since it was started, or started again.
    """

    checkpoint: dict[str, Any]
    best_weights: dict[str, Tensor]
    interrupted: bool = False
    stopped_early: bool = False
    stages: int = 0


@dataclass(frozen=True)
class Entry:
    """What a model's tensors are like when ``train_model`` gets it: shape and type, and sums that tell changes."""

    like: dict[str, tuple[tuple[int, ...], torch.dtype]]
    sums: dict[str, tuple[float, float]]

    @classmethod
    def of(cls, run: TrainingRun) -> Entry:
        """Of the model of a run."""
        state = run.predictor.model.state_dict()
        like = {name: (tuple(value.shape), value.dtype) for name, value in state.items()}
        return cls(like, {name: _sums(value) for name, value in state.items()})


def mistake_in(outcome: object, run: TrainingRun, entry: Entry) -> str:
    """What is wrong with the answer to ``train_model``, and the remedy; empty where nothing is."""
    remedy = "return session.outcome() after the block of run.session"
    if outcome is None:
        return f"train_model returned nothing; {remedy}"
    if not isinstance(outcome, TrainingOutcome):
        return f"train_model returned {type(outcome).__name__}, no TrainingOutcome; {remedy}"
    return (
        _mistaken_weights(outcome.best_weights, entry)
        or _mistaken_checkpoint(outcome, run, entry, remedy)
        or ("" if outcome.interrupted else _untrained(outcome, run, entry))
    )


def _mistaken_weights(weights: object, entry: Entry, what: str = "best_weights") -> str:
    if not isinstance(weights, dict):
        return f"train_model gave {type(weights).__name__} as {what}, no state of the model"
    for name in sorted({*weights, *entry.like}):
        if name not in weights or name not in entry.like:
            which = "are without" if name in entry.like else "have, and the model has not,"
            return (
                f"train_model: the {what} {which} '{name}'; give model.state_dict() as it was built"
            )
        value, (shape, dtype) = weights[name], entry.like[name]
        if tuple(value.shape) != shape:
            return (
                f"train_model: '{name}' of the {what} has shape {list(value.shape)}, and {list(shape)} when it was "
                "built; shapes follow from hypers and data, so that checkpoints can be loaded"
            )
        if value.dtype != dtype:
            return (
                f"train_model: '{name}' of the {what} is {_type(value.dtype)}, where {_type(dtype)} was asked for; "
                "copy into the model's own tensors (parameter.data.copy_), or compute in another precision on a copy"
            )
    sick = not_finite(weights)
    if sick:
        return f"train_model: the {what} are not finite: {sick}"
    return ""


def _mistaken_checkpoint(
    outcome: TrainingOutcome, run: TrainingRun, entry: Entry, remedy: str
) -> str:
    checkpoint = outcome.checkpoint
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("trainer"), dict):
        return f"train_model gave a checkpoint without a training state; {remedy}"
    missing = [key for key in (*run.header, "model", "core", "metrics") if key not in checkpoint]
    missing += [f"trainer.{key}" for key in STATE if key not in checkpoint["trainer"]]
    if missing:
        return f"train_model gave a checkpoint without {', '.join(missing)}; {remedy}"
    odd = not_plain(checkpoint["trainer"], "state")
    if odd:
        return (
            f"train_model: {odd}, which checkpoints cannot have: tensors, numbers, text, lists and dictionaries of "
            "them, and objects with state_dict"
        )
    return ""


def _untrained(outcome: TrainingOutcome, run: TrainingRun, entry: Entry) -> str:
    state = outcome.checkpoint["trainer"]
    if getattr(run.hypers, "num_epochs", 1) == 0:
        return ""  # as asked
    if state["best_epoch"] < 0 or (len(run.validation) and not math.isfinite(state["best_score"])):
        return (
            "train_model never looked at the validation set: call session.validated(...) when the model has weights "
            "worth it; the best of them are exported"
        )
    new = [n for n, sums in entry.sums.items() if _sums(outcome.best_weights[n]) != sums]
    if not new and entry.like and run.checkpoint is None:
        return "train_model left all weights as they were: nothing was trained"
    changed = [f"other hypers ({', '.join(run.changed_hypers)})"] if run.changed_hypers else []
    changed += ["other data"] if run.data_changed else []
    # the engine's are those "from here on", also where nothing is left to be done
    if changed and not outcome.stages and not isinstance(run.hypers, TrainerHypers):
        return (
            f"train_model went on from a checkpoint with {' and '.join(changed)} and left the result as it was: look "
            "at run.changed_hypers and run.data_changed, and go through session.stages(..., anew=True)"
        )
    return ""


def _sums(value: Tensor) -> tuple[float, float]:
    wide = value.detach().to(torch.float64)
    return float(wide.sum()), float(wide.abs().sum())


def _type(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
