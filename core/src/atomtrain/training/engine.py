"""The training engine: what every architecture gets without writing a trainer.

One epoch: batches in an order that depends on seed and epoch alone, a step on each, validation,
observers, a checkpoint at intervals. Everything a restart needs is in the checkpoint, and everything
else is a pure function of the options, so a resumed run on the CPU repeats the uninterrupted one
bit for bit.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from atomtrain.data import BatchSource, Kept, Limits, Noise, epoch_batches, fingerprint
from atomtrain.errors import AtomtrainError, OptionsError
from atomtrain.model.backbone import embedded_checkpoints, with_embedded
from atomtrain.model.heads import saved_state, saved_states
from atomtrain.schedules import EpochSchedule
from atomtrain.training.checkpoint import save_checkpoint
from atomtrain.training.finetune import parameter_groups
from atomtrain.training.interrupt import Interruption
from atomtrain.training.metrics import (
    ErrorSums,
    block_columns,
    constant_labels,
    error_floors,
    label_keys,
    label_variances,
    score,
)
from atomtrain.training.observers import EpochRecord, Errors, Observers
from atomtrain.training.optimisation import (
    AveragedWeights,
    build_optimizer,
    learning_rate_factor,
)
from atomtrain.training.predict import add_errors, normalised_store, predict
from atomtrain.training.run import TrainingOutcome, TrainingRun
from atomtrain.training.terms import loss_terms

if TYPE_CHECKING:
    from atomtrain.data import Batch
    from atomtrain.model.base import Model

log = logging.getLogger("atomtrain")
CORE_VERSION = 1
VALIDATION_ATOMS = 200
"""Batches of validation are as large as this allows, and never smaller than those of training."""


def train(model: Model, run: TrainingRun, engine: type[Engine] | None = None) -> TrainingOutcome:
    """Train ``model`` (the one inside ``run.predictor``) and return how it ended.

    ``engine`` is a subclass of :class:`Engine` with another optimiser or step.
    """
    with Interruption() as interruption:
        return (engine or Engine)(run, interruption).train()


class Engine:
    """The loop. A trainer that differs in its steps alone overrides the methods that say so."""

    def __init__(self, run: TrainingRun, interruption: Interruption) -> None:
        self.run = run
        self.hypers = run.hypers
        self.interruption = interruption
        self.observers = Observers(run.observers if run.processes.is_main else [])
        self.predictor = run.predictor.to(device=run.device, dtype=run.dtype)
        self.model = self.predictor.model
        self.terms = loss_terms(run.dataset_info, self.hypers, run.train.labels)
        self.keys = label_keys(run.dataset_info)
        self.blocks = block_columns(run.dataset_info) if self.hypers.log_separate_blocks else {}
        self.totals = frozenset(self.hypers.per_structure_targets)
        self.variances = {
            part: label_variances(store, run.dataset_info, self.totals)
            for part, store in (("train", run.train), ("validation", run.validation))
        }

        # what the best model is chosen by; blocks are just for the eye
        self.validates = len(run.validation) > 0
        stores = [store for _, store, _ in self._stores()]
        idle = constant_labels(stores, run.dataset_info, self.totals)
        self.telling = [key for key in self.keys if key not in idle] or self.keys
        self.floors = error_floors(self.predictor, run.train, self.totals)
        self.judged_by = self._judged_by()

        self.kept = run.kept or Kept(self.hypers.memory_budget_bytes, scratch=run.directory)
        run.kept = self.kept
        self.make_sources()
        self.n_steps = len(self._batches("train", 0))
        if self.n_steps == 0:
            raise OptionsError(
                "architecture.training: no training batch is left; batch_atom_bounds, "
                "max_atoms_per_batch or min_atoms_per_batch exclude every one"
            )

        groups = parameter_groups(self.model, self.hypers)
        self.groups = groups
        self.parameters: list[Tensor] = [p for g in groups for p in g["params"]]
        self.optimizer = self.build_optimizer(groups)
        self.base_rates = [g["lr"] for g in self.optimizer.param_groups]
        self.average = (
            AveragedWeights(self.parameters, self.hypers.ema_decay)
            if self.hypers.ema_decay
            else None
        )

        self.schedule: EpochSchedule | None = None
        if isinstance(self.hypers.scheduler, dict):
            self.schedule = EpochSchedule(*next(iter(self.hypers.scheduler.items())))

        self.epoch = 0  # the one to be done next
        self.step_in_epoch = 0
        self.loss_sum = 0.0
        self.best_score = math.inf
        self.best_epoch = -1
        self.best_weights: dict[str, Tensor] | None = None
        self.judged_since = 0  # the first epoch judged by today's validation set
        self.metrics: dict[str, Any] = {}
        torch.manual_seed(run.seed)
        if run.checkpoint is not None and run.checkpoint.get("trainer"):
            self._resume(run.checkpoint)

    # -- the loop ------------------------------------------------------------------------------

    def train(self) -> TrainingOutcome:
        """Go through the epochs that are left."""
        hypers = self.hypers
        self._say_start()
        stopped_early = False
        start, first_epoch = time.monotonic(), self.epoch
        while self.epoch < hypers.num_epochs and not stopped_early:
            epoch_start = time.monotonic()
            self.begin_epoch()
            logged = self.epoch == first_epoch or self.epoch % hypers.log_interval == 0
            train_loss, train_errors = self._train_epoch(logged or not self.validates)
            if self.interruption.requested:
                break
            record = self._judge(train_loss)
            now = time.monotonic()
            seconds = now - epoch_start
            per_epoch = (now - start) / (self.epoch - first_epoch + 1)
            record = replace(
                record,
                train_errors=train_errors,
                to_be_logged=logged or self.epoch == hypers.num_epochs - 1,
                seconds=seconds,
                structures_per_second=len(self.run.train) / max(seconds, 1e-9),
                seconds_left=per_epoch * (hypers.num_epochs - self.epoch - 1),
            )
            self.epoch += 1
            self.step_in_epoch, self.loss_sum = 0, 0.0
            self.observers.tell(lambda o, r=record: o.on_epoch(r))  # type: ignore[misc]
            if hypers.checkpoint_interval and self.epoch % hypers.checkpoint_interval == 0:
                self._write(f"model_{self.epoch}.ckpt")
            patience = hypers.early_stopping_patience
            waited = self.epoch - 1 - max(self.best_epoch, self.judged_since - 1)
            stopped_early = patience is not None and waited >= patience

        interrupted = self.epoch < hypers.num_epochs and not stopped_early
        if interrupted:
            self._write("interrupted.ckpt")
        outcome = TrainingOutcome(
            checkpoint=self._checkpoint(),
            best_weights=self.best_weights or self._validated_weights(),
            interrupted=interrupted,
            stopped_early=stopped_early,
        )
        self.observers.tell(lambda o: o.on_end(outcome))
        return outcome

    def _judge(self, train_loss: float) -> EpochRecord:
        """Validate, and keep the weights if they are the best so far; without validation the last are."""
        if not self.validates:
            return self._keep_the_last(train_loss)
        loss, errors = self._validate()
        value = self._score(loss, errors)
        is_best = value < self.best_score
        if is_best:
            self.best_score, self.best_epoch = value, self.epoch
            self.best_weights = self._validated_weights()
        self.metrics = {
            "epoch": self.epoch,
            "train_loss": train_loss,
            "validation_loss": loss,
            "validation_errors": errors,
            "best_epoch": self.best_epoch,
            "best_score": self.best_score,
            "best_errors": errors if is_best else self.metrics.get("best_errors", errors),
        }
        if self.schedule is not None:
            self.schedule.step(loss)
        return self._record(train_loss, loss, is_best, validation_errors=errors, score=value)

    def _keep_the_last(self, train_loss: float) -> EpochRecord:
        self.best_epoch, self.best_weights = self.epoch, self._validated_weights()
        self.metrics = {"epoch": self.epoch, "train_loss": train_loss, "best_epoch": self.epoch}
        if self.schedule is not None:
            self.schedule.step(train_loss)
        return self._record(train_loss, math.nan, True)

    def _record(
        self, train_loss: float, validation_loss: float, is_best: bool, **judged: Any
    ) -> EpochRecord:
        return EpochRecord(
            epoch=self.epoch,
            num_epochs=self.hypers.num_epochs,
            learning_rate=self.optimizer.param_groups[0]["lr"],
            train_loss=train_loss,
            validation_loss=validation_loss,
            is_best=is_best,
            **judged,
        )

    def _score(self, loss: float, errors: Errors) -> float:
        chosen_by = {key: errors[key] for key in self.telling}
        if not any(found["count"] for found in chosen_by.values()):
            chosen_by = {key: errors[key] for key in self.keys}
        metric = self.hypers.best_model_metric
        value = score(metric, loss, chosen_by, self.run.dataset_info, self.floors)
        if math.isnan(loss) or math.isnan(value):
            raise AtomtrainError(
                f"the errors on the validation set became NaN in epoch {self.epoch}, those in training "
                "did not: something is in the validation set that the model cannot compute; look for "
                "structures that are unlike those of the training set. The last checkpoint in "
                f"'{self.run.directory}' is unharmed"
            )
        return value

    def begin_epoch(self) -> None:
        """Called before every epoch, ``self.epoch`` being the one to come. To be overridden."""

    def make_sources(self) -> None:
        """Make the sources of batches: to be called again where the model has other constants."""
        self.sources = {
            part: BatchSource(
                normalised_store(store, self.predictor),
                cutoff=self.model.cutoff,
                dtype=self.run.dtype,
                constants=self.model.constants,
                device=self.run.device,
                memory_budget=budget,
                num_workers=self.hypers.num_workers,
                noise=Noise.of(self.run.dataset_info, self.run.seed, fixed=part != "train"),
                of_structures=self.model.keeps_structures(),
                kept=self.kept,
            )
            for part, store, budget in self._stores()
        }

    def _train_epoch(self, with_errors: bool) -> tuple[float, Errors]:
        run = self.run
        self.model.train()
        sums = self._error_sums("train")
        loss_sum = torch.tensor(self.loss_sum, dtype=torch.float64, device=run.device)
        batches = self._batches("train", self.epoch)[self.step_in_epoch :]
        shares = [b[run.processes.rank :: run.processes.size] for b in batches]
        local = self.sources["train"].epoch([s for s in shares if len(s)], self.epoch)
        for share in shares:
            batch = next(local) if len(share) else None
            self._set_learning_rate()
            loss, predictions = self._loss(batch, create_graph=True)
            self._update(loss)
            loss_sum += loss.detach()
            if with_errors and batch is not None:
                add_errors(sums, self.predictor, predictions, batch, self.totals)
            self.step_in_epoch += 1
            self.observers.tell(lambda o: o.on_step(self.epoch, self.step_in_epoch, self.n_steps))
            if self._stop_requested():
                break
        self.loss_sum = float(loss_sum)
        total = loss_sum.clone()
        run.processes.sum_(total)
        run.processes.sum_(sums.sums)
        if not math.isfinite(float(total)):
            raise AtomtrainError(
                f"the training loss became {float(total)} in epoch {self.epoch}: the learning "
                f"rate ({self.hypers.learning_rate}) is probably too high, or a label is far off; "
                "lower architecture.training.learning_rate or set grad_clip_norm. The last "
                f"checkpoint in '{run.directory}' is unharmed"
            )
        done = self.step_in_epoch
        return float(total) / max(done, 1), sums.results() if with_errors else {}

    def _error_sums(self, part: str) -> ErrorSums:
        return ErrorSums(
            self.keys, self.run.device, self.blocks, self.run.dataset_info, self.variances[part]
        )

    def _validate(self, averaged: bool = True) -> tuple[float, Errors]:
        """Loss and errors on the validation set; ``averaged``: of averaged weights if there are any."""
        run = self.run
        self.model.eval()
        average = self.average if averaged else None
        if average is not None:
            average.swap()
        sums = self._error_sums("validation")
        loss_sum = torch.zeros((), dtype=torch.float64, device=run.device)
        batches = self._batches("validation", 0)
        shares = [b[run.processes.rank :: run.processes.size] for b in batches]
        local = self.sources["validation"].epoch([s for s in shares if len(s)])
        for share in shares:
            batch = next(local) if len(share) else None
            loss, predictions = self._loss(batch, create_graph=False)
            loss_sum += loss.detach()
            if batch is not None:
                add_errors(sums, self.predictor, predictions, batch, self.totals)
        if average is not None:
            average.swap()
        run.processes.sum_(loss_sum)
        run.processes.sum_(sums.sums)
        return float(loss_sum) / max(len(batches), 1), sums.results()

    # -- one step ------------------------------------------------------------------------------

    def _loss(self, batch: Batch | None, create_graph: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """This process's part of the batch's loss; the parts of all processes add up to it."""
        predictions: dict[str, Tensor] = {}
        if batch is not None:
            predictions = predict(self.predictor, batch, create_graph=create_graph)
        numerators: list[Tensor | None] = []
        counts: list[Tensor | float] = []
        for term in self.terms:
            if batch is None or term.key not in predictions:
                numerators.append(None)
                counts.append(0.0)
                continue
            numerator, count = term(
                predictions[term.key],
                batch.labels[term.key],
                batch.masks.get(term.key),
                batch.n_atoms,
            )
            numerators.append(numerator)
            counts.append(count)
        if self.run.processes.size > 1:
            shared = torch.tensor(
                [float(c) for c in counts], dtype=torch.float64, device=self.run.device
            )
            self.run.processes.sum_(shared)
            counts = shared.tolist()
        loss = torch.zeros((), dtype=self.run.dtype, device=self.run.device)
        for term, part, number in zip(self.terms, numerators, counts, strict=True):
            if part is None:
                continue
            if term.mean:
                part = part / (
                    number.clamp(min=1) if isinstance(number, Tensor) else max(number, 1)
                )
            loss = loss + part
        return loss, predictions

    def build_optimizer(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """The optimiser of these parameter groups (:mod:`atomtrain.training.finetune`).

        To be overridden. Its state must be all a restart needs.
        """
        return build_optimizer(groups, self.hypers)

    def step(self) -> None:
        """One step of the optimiser; the gradients are there, summed over all processes.

        To be overridden.
        """
        if self.hypers.grad_clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.hypers.grad_clip_norm)
        self.optimizer.step()

    def _update(self, loss: Tensor) -> None:
        trained = [p for p in self.parameters if p.requires_grad]
        self.optimizer.zero_grad(set_to_none=True)
        if loss.requires_grad:
            loss.backward(inputs=trained)
        self.run.processes.sum_gradients(trained)
        self.step()
        if self.average is not None:
            self.average.update()

    def _set_learning_rate(self) -> None:
        factor = learning_rate_factor(
            self.epoch * self.n_steps + self.step_in_epoch,
            self.hypers.num_epochs * self.n_steps,
            self.hypers.warmup_fraction,
            self.hypers.scheduler if isinstance(self.hypers.scheduler, str) else "",
        )
        if self.schedule is not None:
            factor *= self.schedule.factor
        frozen = (
            self.hypers.finetune is not None and self.epoch < self.hypers.finetune.freeze_epochs
        )
        for group, rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = 0.0 if frozen and group["name"] == "encoder" else rate * factor

    def _stop_requested(self) -> bool:
        """Whether a signal reached any of the processes."""
        if self.run.processes.size > 1:
            flag = torch.tensor(float(self.interruption.requested), device=self.run.device)
            self.interruption.requested = bool(self.run.processes.sum_(flag) > 0)
        return self.interruption.requested

    # -- batches -------------------------------------------------------------------------------

    def _stores(self) -> list[tuple[str, Any, int]]:
        """The stores that have structures, with the memory budget shared out by their size."""
        train, validation = self.run.train, self.run.validation
        budget = self.hypers.memory_budget_bytes
        share = len(train.types) / max(1, len(train.types) + len(validation.types))
        stores = [
            ("train", train, int(budget * share)),
            ("validation", validation, int(budget * (1 - share))),
        ]
        return [entry for entry in stores if len(entry[1])]

    def _batches(self, part: str, epoch: int, bounded: bool = True) -> list[Tensor]:
        """The batches of an epoch; ``bounded``: those with too few or too many atoms left out."""
        store = self.run.train if part == "train" else self.run.validation
        training = part == "train"
        bounded = bounded and training
        batch_size = self.hypers.batch_size
        if not training and len(store) and all(term.mean for term in self.terms):
            n_atoms = max(1, int(store.n_atoms.max()))
            batch_size = max(batch_size, VALIDATION_ATOMS // n_atoms)
        limits = Limits(
            max_atoms=self.hypers.max_atoms_per_batch,
            min_atoms=self.hypers.min_atoms_per_batch if bounded else 0,
            bounds=self.hypers.batch_atom_bounds if bounded else (None, None),
            skip_large=training,
            drop_last=training,
        )
        shuffled = (self.run.seed, epoch) if training else None
        return epoch_batches(store.n_atoms, batch_size, shuffled=shuffled, limits=limits)

    # -- checkpoints ---------------------------------------------------------------------------

    def _validated_weights(self) -> dict[str, Tensor]:
        """A copy of the weights that validation saw."""
        if self.average is not None:
            self.average.swap()
        weights = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        if self.average is not None:
            self.average.swap()
        return weights

    def _checkpoint(self) -> dict[str, Any]:
        affine = {k: v for k, v in self.predictor.state_dict().items() if k.startswith("affine.")}
        # copies: whoever has the outcome may load other weights into the model
        weights = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        outer, best_outer, embedded = embedded_checkpoints(self.model, weights, self.best_weights)
        own, heads = saved_states(outer, best_outer, self.model)
        return {
            **self.run.header,
            "model": own,
            "core": {"version": CORE_VERSION, "affine": affine, "heads": heads},
            "trainer": {
                "optimizer": self.optimizer.state_dict(),
                "average": None if self.average is None else self.average.average,
                "epoch": self.epoch,
                "step_in_epoch": self.step_in_epoch,
                "loss_sum": self.loss_sum,
                "best_score": self.best_score,
                "best_epoch": self.best_epoch,
                "judged_by": self.judged_by,
                "judged_since": self.judged_since,
                "random_state": torch.get_rng_state(),
                "schedule": None if self.schedule is None else self.schedule.state(),
            },
            "metrics": copy.deepcopy(self.metrics),
            "embedded": embedded,
        }

    def _write(self, name: str) -> None:
        if self.run.processes.is_main:
            path = self.run.directory / name
            save_checkpoint(self._checkpoint(), path)
            self.observers.tell(lambda o: o.on_checkpoint(path))
        self.run.processes.barrier()

    def _resume(self, checkpoint: dict[str, Any]) -> None:
        """Take up the training state; weights, compositions and scales were loaded when the model was."""
        state = checkpoint["trainer"]
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None and state["average"] is not None:
            for mine, saved in zip(self.average.average, state["average"], strict=True):
                mine.copy_(saved)
        self.epoch, self.step_in_epoch = state["epoch"], state["step_in_epoch"]
        self.loss_sum = state["loss_sum"]
        self.best_score, self.best_epoch = state["best_score"], state["best_epoch"]
        if checkpoint["model"]["best"] is not None:
            best = saved_state(checkpoint, "best", self.model)
            joined = with_embedded(self.model, best, "best")
            self.best_weights = {k: v.to(self.run.device) for k, v in joined.items()}
        if self.schedule is not None and state.get("schedule"):
            self.schedule.load(state["schedule"])
        self.metrics = dict(checkpoint.get("metrics") or {})
        self.judged_since = state.get("judged_since", 0)
        if state.get("judged_by") != self.judged_by:
            self._judge_again()
        torch.set_rng_state(state["random_state"])

    def _judged_by(self) -> str:
        """What the best score belongs to: the validation set, and how it is scored."""
        if not self.validates:
            return "nothing"
        metric: str = self.hypers.best_model_metric
        if metric == "loss":
            metric += repr([(term.key, term.weight, term.per_structure) for term in self.terms])
        return f"{metric} of {fingerprint(self.run.validation)}"

    def _judge_again(self) -> None:
        """Score the best weights anew: their score belongs to another validation set, or to none known."""
        self.judged_since = self.epoch
        if self.schedule is not None:
            self.schedule.forget_best()
        if self.best_weights is None:
            return
        if not self.validates:
            self.best_score, self.best_epoch = math.inf, self.epoch - 1
            self.best_weights = self._validated_weights()
            log.warning("there is no validation set any more: the best model is the last one")
            return
        now = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.model.load_state_dict(self.best_weights)
        loss, errors = self._validate(averaged=False)
        self.model.load_state_dict(now)
        before, self.best_score = self.best_score, self._score(loss, errors)
        self.metrics |= {"best_score": self.best_score, "best_errors": errors}
        if self.best_score != before:
            log.warning(
                "what the best model is chosen by (the validation set, best_model_metric) is not as it "
                f"was: the weights of epoch {self.best_epoch}, the best so far, were judged anew"
            )

    def _skipped(self) -> tuple[int, int]:
        """Training structures too large for any batch, and those left out by bounds in epoch 0."""
        hypers, n_atoms = self.hypers, self.run.train.n_atoms
        largest = hypers.max_atoms_per_batch
        too_large = 0 if largest is None else int((n_atoms > largest).sum())
        if hypers.batch_atom_bounds == [None, None] and hypers.min_atoms_per_batch == 0:
            return too_large, 0
        kept, all_ = (
            sum(len(batch) for batch in self._batches("train", 0, bounded))
            for bounded in (True, False)
        )
        return too_large, all_ - kept

    def _say_start(self) -> None:
        info = {
            "n_parameters": sum(p.numel() for p in self.parameters),
            "first_epoch": self.epoch,
            "num_epochs": self.hypers.num_epochs,
            "n_steps": self.n_steps,
            "skipped": self._skipped(),
            "kept": {part: source.report() for part, source in self.sources.items()},
        }
        self.observers.tell(lambda o: o.on_start(self.run, info))
