"""The training engine: what every architecture gets without writing a trainer.

One epoch: batches in an order that depends on seed and epoch alone, a step on each, validation,
observers, a checkpoint at intervals. Everything a restart needs is in the checkpoint, and everything
else is a pure function of the options, so a resumed run on the CPU repeats the uninterrupted one
bit for bit. What is not of gradients and epochs is the business of the :class:`Session` below it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from atomtrain.data import Limits
from atomtrain.errors import AtomtrainError, OptionsError
from atomtrain.options import LossSpec, TrainerHypers
from atomtrain.schedules import EpochSchedule
from atomtrain.training.brake import Brake
from atomtrain.training.finetune import parameter_groups
from atomtrain.training.lora import LowRank
from atomtrain.training.observers import Errors
from atomtrain.training.optimisation import (
    AveragedWeights,
    build_optimizer,
    learning_rate_factor,
    settings_of,
)
from atomtrain.training.outcome import TrainingOutcome
from atomtrain.training.run import TrainingRun

if TYPE_CHECKING:
    from atomtrain.data import Batch
    from atomtrain.model.base import Model
    from atomtrain.training.metrics import ErrorSums

log = logging.getLogger("atomtrain")
OUTWEIGHED = 100.0
"""how much more of the first loss one target may have than another before it is said"""


def train(model: Model, run: TrainingRun, engine: type[Engine] | None = None) -> TrainingOutcome:
    """Train ``model`` (the one inside ``run.predictor``) and return how it ended.

    ``engine`` is a subclass of :class:`Engine` with another optimiser or step.
    """
    return (engine or Engine)(run).train()


class Engine:
    """The loop. A trainer that differs in its steps alone overrides the methods that say so."""

    def __init__(self, run: TrainingRun) -> None:
        assert isinstance(run.hypers, TrainerHypers)
        self.run = run
        self.hypers = run.hypers
        self.model = run.predictor.model
        # what a restart needs beside what a session has
        self.brake = Brake(self.model)
        self.state: dict[str, Any] = {
            "step_in_epoch": 0,
            "loss_sum": 0.0,
            "losses": [],
            "brake": self.brake,
        }
        self.session = session = run.session(self.state)
        batches = self._batches(0)
        self.n_steps = len(batches) // self._parts(len(batches))
        if self.n_steps == 0:
            raise OptionsError(
                "architecture.training: no training batch is left; batch_atom_bounds, "
                "max_atoms_per_batch or min_atoms_per_batch exclude every one"
            )

        groups = parameter_groups(self.model, self.hypers)
        weights: list[Tensor] = [p for g in groups for p in g["params"]]
        self.low_rank: LowRank | None = None
        if self.hypers.finetune is not None and self.hypers.finetune.lora is not None:
            self.low_rank = LowRank(
                self.model, groups, self.hypers.finetune.lora, self.run.began.new, self.run.seed
            )
            groups = self.low_rank.groups
        self.groups = groups
        self.parameters: list[Tensor] = [p for g in groups for p in g["params"]]
        """what the optimiser moves"""
        self.weights = weights
        """what the loss is differentiated in: the same, but for additions to weights"""
        self.optimizer = self.build_optimizer(groups)
        self.base_rates = [g["lr"] for g in self.optimizer.param_groups]
        self.settings = settings_of(self.optimizer)
        self.average: AveragedWeights | None = None
        if self.hypers.ema_decay:
            self.average = AveragedWeights(self.parameters, self.hypers.ema_decay)
            session.shown = self.average.shown
        if self.low_rank is not None:
            session.shown = self.low_rank.shown(session.shown)
            self.state["low_rank"] = self.low_rank
        self.schedule: EpochSchedule | None = None
        if isinstance(self.hypers.scheduler, dict):
            self.schedule = EpochSchedule(*next(iter(self.hypers.scheduler.items())))
        self.state["optimizer"] = self.optimizer
        if self.average is not None:
            self.state["average"] = self.average
        if self.schedule is not None:
            self.state["schedule"] = self.schedule
        session.about |= {
            "n_parameters": sum(p.numel() for p in self.parameters),
            "num_epochs": self.hypers.num_epochs,
            "n_steps": self.n_steps,
            "skipped": self._skipped(),
            "balance": session.sources.balance(batches),
        }

    @property
    def epoch(self) -> int:
        """The epoch at hand, or the one to come."""
        return self.session.stage

    def reset_optimizer(self) -> None:
        """Settings of the optimiser as the options have them, where a restart brought those of before."""
        for group, settings in zip(self.optimizer.param_groups, self.settings, strict=True):
            group.update(settings)

    # -- the loop ------------------------------------------------------------------------------

    def train(self) -> TrainingOutcome:
        """Go through the epochs that are left."""
        hypers, session = self.hypers, self.session
        with session:
            if session.judge.anew and self.schedule is not None:
                self.schedule.forget_best()
            if self.run.data_changed or self.run.changed_hypers:
                self.brake.forget()
            if self.run.changed_hypers:
                self.reset_optimizer()
            if hypers.num_epochs == 0:
                log.warning("num_epochs is 0: nothing is trained")
            for epoch in session.stages(hypers.num_epochs, repeat=False):
                self.begin_epoch()
                logged = epoch == session.first_stage or epoch % hypers.log_interval == 0
                loss, errors = self._train_epoch(logged or not session.judge.validates)
                record = session.validated(
                    loss,
                    train_errors=errors,
                    learning_rate=self.optimizer.param_groups[0]["lr"],
                    to_be_logged=logged or epoch == hypers.num_epochs - 1,
                    structures=self._seen(epoch),
                )
                if self.schedule is not None:
                    validated = session.judge.validates
                    self.schedule.step(record.validation_loss if validated else loss)
                patience = hypers.early_stopping_patience
                waited = epoch - max(session.judge.best_stage, session.judge.since - 1)
                session.stopped_early = patience is not None and waited >= patience
        return session.outcome()

    def begin_epoch(self) -> None:
        """Called before every epoch, ``self.epoch`` being the one to come. To be overridden."""

    def make_sources(self) -> None:
        """Make the sources of batches anew: to be called where the model has other constants."""
        self.session.sources.make()

    def _train_epoch(self, with_errors: bool) -> tuple[float, Errors]:
        """The mean loss of an epoch, and its errors; one whose loss becomes no number is done again."""
        state = self.state
        begun = {name: state[name] for name in ("step_in_epoch", "loss_sum", "losses")}
        # not a schedule by epochs: these go on, whatever is taken back
        parts = (self.optimizer, self.average, self.low_rank)
        self.brake.keep(self.epoch, [one for one in parts if one is not None])
        while True:
            total, sums, stopping = self._pass(with_errors)
            good = self.brake.holds(state["losses"])
            if not good:
                self._take_back(total)
                state |= begun
            if stopping:
                self.session.stop()
            if good:
                break
        self.brake.release()
        n_steps = max(state["step_in_epoch"], 1)
        state |= {"step_in_epoch": 0, "loss_sum": 0.0, "losses": []}
        return total / n_steps, sums.results() if with_errors else {}

    def _take_back(self, total: float) -> None:
        """Go back to where the epoch began; an error where that has not helped."""
        rate = self.hypers.learning_rate
        if not self.brake.take_back(self.epoch, rate):
            raise AtomtrainError(
                f"the training loss became {total} in epoch {self.epoch}, also with a learning rate of "
                f"{rate * self.brake.factor:.2g} instead of {rate:g}: that is still too high, a label is far off, "
                "or the model gives no numbers for some structure. The last checkpoint in "
                f"'{self.run.directory}' is unharmed"
            )

    def _pass(self, with_errors: bool) -> tuple[float, ErrorSums, bool]:
        """Go through the batches that are left of the epoch: summed loss, errors, whether it was stopped."""
        run, session, state = self.run, self.session, self.state
        processes = run.processes
        self.model.train()
        sums = session.judge.error_sums("train")
        # what was summed before a restart is the sum over all processes
        before = state["loss_sum"] if processes.is_main else 0.0
        loss_sum = torch.tensor(before, dtype=torch.float64, device=run.device)
        batches = self._batches(self.epoch)
        parts = self._parts(len(batches))
        batches = batches[state["step_in_epoch"] * parts : len(batches) // parts * parts]
        stopping = False
        losses = [torch.zeros_like(loss_sum)]
        for k, batch in enumerate(session.sources.shares("train", batches, self.epoch)):
            loss, predictions = session.objective(
                batch, create_graph=True, of=parts, replayed=run.replayed
            )
            if self.epoch == 0 and state["step_in_epoch"] == 0 and batch is not None:
                self._compare_targets(predictions, batch)
            self._add_gradients(loss, anew=k % parts == 0)
            loss_sum += loss.detach()
            losses[-1] = losses[-1] + loss.detach()
            if with_errors and batch is not None:
                session.judge.add(sums, predictions, batch)
            if (k + 1) % parts:
                continue
            self._update()
            losses.append(torch.zeros_like(loss_sum))
            state["step_in_epoch"] += 1
            step = state["step_in_epoch"]
            session.observers.tell(lambda o, s=step: o.on_step(self.epoch, s, self.n_steps))  # type: ignore[misc]
            stopping = session.asked_to_stop()
            if stopping:
                break
        total = float(processes.sum_(loss_sum))
        of_steps: list[float] = processes.sum_(torch.stack(losses)).tolist()
        state["losses"] = [*state["losses"], *of_steps[:-1]]
        processes.sum_(sums.sums)
        state["loss_sum"] = total
        return total, sums, stopping

    def _compare_targets(self, predictions: dict[str, Tensor], batch: Batch) -> None:
        """Say where one target outweighs another so much that the other will not be learnt for long."""
        if not isinstance(self.hypers.loss, LossSpec):  # weights were thought of
            return
        parts = self.session.objective.by_target(predictions, batch)
        ranked = sorted((value, name) for name, value in parts.items() if value > 0)
        if len(ranked) > 1 and ranked[-1][0] > OUTWEIGHED * ranked[0][0]:
            (small, least), (large, most) = ranked[0], ranked[-1]
            log.warning(
                f"the loss begins with {large:.3g} of '{most}' and {small:.3g} of '{least}', which will hardly be "
                "learnt beside it; give each its weight, architecture.training.loss: "
                f"{{{most}: {{weight: {small / large:.1g}}}}}"
            )

    # -- one step ------------------------------------------------------------------------------

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

    def _add_gradients(self, loss: Tensor, anew: bool) -> None:
        if anew:
            self.optimizer.zero_grad(set_to_none=True)
        if loss.requires_grad:
            loss.backward(inputs=[p for p in self.weights if p.requires_grad])

    def _update(self) -> None:
        self._set_learning_rate()
        if self.low_rank is not None:
            self.low_rank.pull()
        self.run.processes.sum_gradients([p for p in self.parameters if p.requires_grad])
        self.step()
        if self.low_rank is not None:
            self.low_rank.merge()
        if self.average is not None:
            self.average.update()

    def _set_learning_rate(self) -> None:
        factor = learning_rate_factor(
            self.epoch * self.n_steps + self.state["step_in_epoch"],
            self.hypers.num_epochs * self.n_steps,
            self.hypers.warmup_fraction,
            self.hypers.scheduler if isinstance(self.hypers.scheduler, str) else "",
        )
        factor *= self.brake.factor
        if self.schedule is not None:
            factor *= self.schedule.factor
        frozen = (
            self.hypers.finetune is not None and self.epoch < self.hypers.finetune.freeze_epochs
        )
        for group, rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = 0.0 if frozen and group["name"] == "encoder" else rate * factor

    # -- batches -------------------------------------------------------------------------------

    def _parts(self, n_batches: int) -> int:
        """How many batches make a step: all of them, where there are fewer than ``accumulate``."""
        return max(1, min(self.hypers.accumulate, n_batches))

    def _batches(self, epoch: int, bounded: bool = True) -> list[Tensor]:
        """The batches of an epoch; ``bounded``: those with too few or too many atoms left out."""
        hypers = self.hypers
        limits = Limits(
            max_atoms=hypers.max_atoms_per_batch,
            min_atoms=hypers.min_atoms_per_batch if bounded else 0,
            bounds=hypers.batch_atom_bounds if bounded else (None, None),
            drop_last=True,
        )
        return self.session.sources.shuffled(epoch, limits)

    def _seen(self, epoch: int) -> int:
        """How many structures an epoch goes through."""
        if self.run.replayed is None:
            return len(self.run.train)
        return sum(len(batch) for batch in self._batches(epoch))

    def _skipped(self) -> tuple[int, int]:
        """Training structures too large for any batch, and those left out by bounds in epoch 0."""
        hypers, n_atoms = self.hypers, self.run.train.n_atoms
        largest = hypers.max_atoms_per_batch
        too_large = 0 if largest is None else int((n_atoms > largest).sum())
        if hypers.batch_atom_bounds == [None, None] and hypers.min_atoms_per_batch == 0:
            return too_large, 0
        kept, all_ = (
            sum(len(batch) for batch in self._batches(0, bounded)) for bounded in (True, False)
        )
        return too_large, all_ - kept
