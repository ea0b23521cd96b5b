"""Which weights are the best: validation, the score it gives, and the weights that had the smallest."""

from __future__ import annotations

import logging
import math
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from atomtrain.errors import AtomtrainError
from atomtrain.model.backbone import with_embedded
from atomtrain.model.heads import saved_state
from atomtrain.training.metrics import (
    ErrorSums,
    block_columns,
    constant_labels,
    error_floors,
    label_keys,
    label_variances,
    score,
)
from atomtrain.training.observers import Errors
from atomtrain.training.predict import add_errors

if TYPE_CHECKING:
    from atomtrain.data import Batch
    from atomtrain.training.run import TrainingRun
    from atomtrain.training.sources import Sources
    from atomtrain.training.terms import Objective

log = logging.getLogger("atomtrain")


class Judge:
    """Validates a run's model and keeps the best weights; without validation the last are the best.

    Attributes
    ----------
    best_score, best_stage, best_weights: of the stage with the smallest score; before the first inf, -1 and None.
    since: the first stage judged by today's validation set.
    anew: whether a restart found another one than the checkpoint was judged by.
    metrics: what the checkpoint tells of the last stage and of the best.
    """

    def __init__(self, run: TrainingRun, objective: Objective, sources: Sources) -> None:
        self._run, self._objective, self._sources = run, objective, sources
        self._predictor, self._model = run.predictor, run.predictor.model
        info, hypers = run.dataset_info, run.hypers
        self.validates = len(run.validation) > 0
        self._totals = frozenset(hypers.per_structure_targets)
        self._keys = label_keys(info)
        self._blocks = block_columns(info) if hypers.log_separate_blocks else {}
        stores = {"train": run.train.sample, "validation": run.validation.sample}
        self._variances = {
            part: label_variances(store, info, self._totals) for part, store in stores.items()
        }
        # what the best model is chosen by; blocks are just for the eye
        idle = constant_labels([s for s in stores.values() if len(s)], info, self._totals)
        self._telling = [key for key in self._keys if key not in idle] or self._keys
        self._floors = error_floors(run.predictor, run.train.sample, self._totals)
        self._judged_by = self._what_judges()

        self.best_score = math.inf
        self.best_stage = -1
        self.best_weights: dict[str, Tensor] | None = None
        self.since = 0
        self.anew = False
        self.metrics: dict[str, Any] = {}

    def error_sums(self, part: str) -> ErrorSums:
        """Empty sums of errors for the labels of ``train`` or ``validation``."""
        run = self._run
        return ErrorSums(
            self._keys, run.device, self._blocks, run.dataset_info, self._variances[part]
        )

    def add(self, sums: ErrorSums, predictions: dict[str, Tensor], batch: Batch) -> None:
        """Add the errors of a batch."""
        add_errors(sums, self._predictor, predictions, batch, self._totals)

    @torch.enable_grad()  # forces need it, whatever the trainer switched off
    def validate(self) -> tuple[float, Errors]:
        """Loss and errors on the validation set, of the weights the model has."""
        run = self._run
        self._model.eval()
        sums = self.error_sums("validation")
        loss_sum = torch.zeros((), dtype=torch.float64, device=run.device)
        larger = all(term.mean for term in self._objective.terms)
        batches = self._sources.in_order("validation", larger=larger)
        for batch in self._sources.shares("validation", batches):
            loss, predictions = self._objective(batch, create_graph=False)
            loss_sum += loss.detach()
            if batch is not None:
                self.add(sums, predictions, batch)
        run.processes.sum_(loss_sum)
        run.processes.sum_(sums.sums)
        return float(loss_sum) / max(len(batches), 1), sums.results()

    def judge(self, stage: int, train_loss: float, label: str) -> dict[str, Any]:
        """Validate the weights the model has, and keep them if they are the best so far.

        Gives what an :class:`EpochRecord` says of it. Raises AtomtrainError where errors are NaN.
        """
        about = {"epoch": stage, "train_loss": train_loss, **({"stage": label} if label else {})}
        if not self.validates:
            self.best_stage, self.best_weights = stage, self._weights()
            self.metrics = {**about, "best_epoch": stage, **({"best": label} if label else {})}
            last = {"best_epoch": stage, "best_stage": label}
            return {"validation_loss": math.nan, "is_best": True, **last}
        loss, errors = self.validate()
        value = self._score(loss, errors, stage)
        is_best = value < self.best_score
        if is_best:
            self.best_score, self.best_stage = value, stage
            self.best_weights = self._weights()
        before = self.metrics
        self.metrics = {
            **about,
            "validation_loss": loss,
            "validation_errors": errors,
            "best_epoch": self.best_stage,
            "best_score": self.best_score,
            "best_errors": errors if is_best else before.get("best_errors", errors),
        }
        best = label if is_best else before.get("best", "")
        if best:
            self.metrics["best"] = best
        return {
            "validation_loss": loss,
            "validation_errors": errors,
            "score": value,
            "is_best": is_best,
            "best_epoch": self.best_stage,
            "best_stage": best,
            "best_errors": self.metrics["best_errors"],
        }

    def forget(self) -> None:
        """No stage so far counts."""
        self.best_score, self.best_stage, self.best_weights = math.inf, -1, None

    def state(self) -> dict[str, Any]:
        """What a checkpoint has of it beside the best weights."""
        return {
            "best_score": self.best_score,
            "best_epoch": self.best_stage,
            "judged_by": self._judged_by,
            "judged_since": self.since,
        }

    def resume(
        self, checkpoint: dict[str, Any], stage: int, shown: AbstractContextManager[None]
    ) -> None:
        """Go on from a checkpoint, ``stage`` being the one to come.

        In the context ``shown`` the model has the weights that validation is to see.
        """
        state = checkpoint["trainer"]
        self.best_score, self.best_stage = state["best_score"], state["best_epoch"]
        if checkpoint["model"]["best"] is not None:
            joined = with_embedded(
                self._model, saved_state(checkpoint, "best", self._model), "best"
            )
            self.best_weights = {k: v.to(self._run.device) for k, v in joined.items()}
        self.metrics = dict(checkpoint.get("metrics") or {})
        self.since = state.get("judged_since", 0)
        self.anew = state.get("judged_by") != self._judged_by
        if self.anew:
            self._judge_again(stage, shown)

    def _judge_again(self, stage: int, shown: AbstractContextManager[None]) -> None:
        """Score the best weights anew: their score belongs to another validation set, or to none known."""
        self.since = stage
        if self.best_weights is None:
            return
        if not self.validates:
            with shown:
                self.best_weights = self._weights()
            self.best_score, self.best_stage = math.inf, stage - 1
            log.warning("there is no validation set any more: the best model is the last one")
            return
        now = self._weights()
        self._model.load_state_dict(self.best_weights)
        loss, errors = self.validate()
        self._model.load_state_dict(now)
        before, self.best_score = self.best_score, self._score(loss, errors, stage)
        self.metrics |= {"best_score": self.best_score, "best_errors": errors}
        if self.best_score != before:
            log.warning(
                "what the best model is chosen by (the validation set, best_model_metric) is not as it "
                f"was: the weights of epoch {self.best_stage}, the best so far, were judged anew"
            )

    def _weights(self) -> dict[str, Tensor]:
        return {k: v.detach().clone() for k, v in self._model.state_dict().items()}

    def _score(self, loss: float, errors: Errors, stage: int) -> float:
        chosen_by = {key: errors[key] for key in self._telling}
        if not any(found["count"] for found in chosen_by.values()):
            chosen_by = {key: errors[key] for key in self._keys}
        run = self._run
        metric = run.hypers.best_model_metric
        value = score(metric, loss, chosen_by, run.dataset_info, self._floors)
        if math.isnan(loss) or math.isnan(value):
            raise AtomtrainError(
                f"the errors on the validation set became NaN in epoch {stage}, {self._why()}. The last "
                f"checkpoint in '{run.directory}' is unharmed"
            )
        return value

    def _why(self) -> str:
        """Whether NaN comes from the weights or from the structures."""
        sick = not_finite(self._model.state_dict())
        if sick:
            return f"because weights are not finite: {sick}"
        return (
            "and all weights are finite: something is in the validation set that the model cannot compute; "
            "look for structures that are unlike those of the training set"
        )

    def _what_judges(self) -> str:
        """What the best score belongs to: the validation set, and how it is scored."""
        if not self.validates:
            return "nothing"
        metric: str = self._run.hypers.best_model_metric
        if metric == "loss":
            terms = self._objective.terms
            metric += repr([(term.key, term.weight, term.per_structure) for term in terms])
        return f"{metric} of {self._run.validation.fingerprint}"


def not_finite(weights: dict[str, Tensor]) -> str:
    """Names of the tensors with NaN or infinite numbers, the first few; empty where there is none."""
    sick = [
        name
        for name, value in weights.items()
        if value.is_floating_point() and not bool(value.isfinite().all())
    ]
    return ", ".join(sick[:3]) + (", ..." if len(sick) > 3 else "")
