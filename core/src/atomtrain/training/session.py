"""A training under way: what every training does, whichever way it finds its weights.

Signals, observers, ``train.csv``, checkpoints, restarts, validation, the best weights, and processes that share the
work. The engine stands on it, and so does a trainer of your own (:meth:`TrainingRun.session`).
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor

from atomtrain.errors import CheckpointError, OutputError, PluginError, first_line
from atomtrain.model.backbone import embedded_checkpoints
from atomtrain.model.heads import saved_states
from atomtrain.training.checkpoint import not_plain, save_checkpoint
from atomtrain.training.interrupt import Interruption
from atomtrain.training.judge import Judge
from atomtrain.training.observers import EpochRecord, Errors, Observers, StartInfo
from atomtrain.training.outcome import TrainingOutcome
from atomtrain.training.sources import Sources
from atomtrain.training.terms import Objective

if TYPE_CHECKING:
    from atomtrain.data import Batch
    from atomtrain.training.run import TrainingRun

log = logging.getLogger("atomtrain")
CORE_VERSION = 1
LONG = 30.0
"""seconds a training has left before the export of its model is tried"""
LOOK = 2.0
"""seconds between looks at whether the run's folder is there"""
OWN_KEYS = (
    "epoch",
    "passes",
    "random_state",
    "best_score",
    "best_epoch",
    "judged_by",
    "judged_since",
)


class _Stop(BaseException):
    """Leaves the block of a session; no handler for errors is to catch it."""


class Session:
    """One training. A context: inside it signals ask to stop, and where nothing is lost the block is left.

    Attributes
    ----------
    state: what the trainer has in checkpoints beside the weights: numbers, text, tensors, lists and dictionaries of
        them, and objects with ``state_dict`` and ``load_state_dict``. On a restart it is as it was when the block
        is entered.
    stage: the stage (or epoch) to come, counted from 0.
    objective, sources, judge: the loss of a batch; batches; validation and the best weights.
    """

    def __init__(self, run: TrainingRun, state: MutableMapping[str, Any] | None = None) -> None:
        self.run = run
        self.state: MutableMapping[str, Any] = {} if state is None else state
        taken = sorted(set(self.state) & set(OWN_KEYS))
        if taken:
            raise PluginError(
                f"run.session: {', '.join(taken)} in the state is the session's own; call it otherwise"
            )
        self.observers = Observers(run.observers if run.processes.is_main else [])
        self.objective = Objective(run)
        self.sources = Sources(run)
        self.judge = Judge(run, self.objective, self.sources)
        self.shown: Callable[[], AbstractContextManager[None]] = nullcontext
        """context in which the model has the weights to be validated: averages of them, for instance"""
        self.stage = 0
        self.stopped_early = False
        model = run.predictor.model
        self.about: StartInfo = {
            "n_parameters": sum(p.numel() for p in model.parameters()),
            "first_epoch": 0,
            "num_epochs": 0,
            "n_steps": 0,
            "skipped": (0, 0),
            "balance": "",
            "kept": self.sources.report(),
        }
        self._interruption = Interruption()
        self._stopping = self._homeless = False
        self._looked = time.monotonic()
        self._passes: dict[str, int] = {}
        self._begun: set[str] = set()
        self._unsaved = "the main process could not write a checkpoint"
        self._boundary: dict[str, Any] | None = None
        self._in_stages = False
        self._n_stages: int | None = None
        self._n_validated = 0
        self._rehearsed = run.rehearse is None
        self._outcome: TrainingOutcome | None = None

    # -- the block -----------------------------------------------------------------------------

    def __enter__(self) -> Session:
        self._interruption.__enter__()
        try:
            self._check_state()
            torch.manual_seed(self.run.seed)
            if self.run.checkpoint is not None and self.run.checkpoint.get("trainer"):
                self._resume(self.run.checkpoint)
            self.first_stage = self.about["first_epoch"] = self.stage
            self.observers.tell(lambda o: o.on_start(self.run, self.about))
            if self.run.trial is not None:
                self.run.trial.begin(self.about)
            self._started = self._stage_began = time.monotonic()
        except BaseException:
            self._interruption.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        stopped = isinstance(error, _Stop)
        try:
            if error is None or stopped:
                self.outcome()
            else:
                self.observers.tell(lambda o: o.on_failure(error))
        finally:
            self._interruption.__exit__(None, None, None)
        return stopped

    def asked_to_stop(self) -> bool:
        """Whether a signal reached any of the processes, which all call this at once, or the run's folder is gone."""
        requested, homeless = self._interruption.requested, self._is_homeless()
        requested |= self.run.trial is not None and self.run.trial.overdue
        if self.run.processes.size > 1:
            # on the CPU: nobody waits for a GPU
            flags = torch.tensor([float(requested), float(homeless)])
            requested, homeless = (self.run.processes.sum_(flags) > 0).tolist()
        self._homeless = self._homeless or homeless
        self._stopping = self._stopping or requested or homeless
        return self._stopping

    def _is_homeless(self) -> bool:
        """Whether somebody took the run's folder away; looked at every few seconds, by the main process."""
        now = time.monotonic()
        if not self.run.processes.is_main or now - self._looked < LOOK:
            return False
        self._looked = now
        return not self.run.directory.is_dir()

    def stop(self) -> NoReturn:
        """Leave the block, to be gone on with from here."""
        self._stopping = True
        raise _Stop

    # -- what a trainer goes through -----------------------------------------------------------

    def batches(
        self,
        part: str = "train",
        label: str = "",
        *,
        sums: Sequence[str] = (),
        structures: Tensor | None = None,
    ) -> Iterator[Batch]:
        """This process's shares of the batches of ``train`` or ``validation``, structures in their order.

        Labels are as the network is to give them (:func:`atomtrain.training.predict.normalised_store`). The block
        of the session is left between two batches when a signal asks for it.

        A pass with a ``label`` is gone through once in a training, its progress shown: a restart goes on behind the
        last batch that was done, and finds nothing where all are. ``sums`` then names tensors of the ``state`` that
        batches are added to: each process adds its own, and after the pass all have the sums over all. A pass
        without a label is one more look at everything. ``structures`` are indices, where it is not to be all.
        No process may wait for others inside the loop: not all get as many batches.
        """
        done = self._begin_pass(label, sums) if label else 0
        order = self.sources.in_order(part)
        if structures is not None:
            chosen = [b[torch.isin(b, structures)] for b in order]
            order = [b for b in chosen if len(b)]
        stopping = self.asked_to_stop()
        for batch in self.sources.shares(part, order[done:]) if not stopping else ():
            if batch is not None:
                yield batch
            done += 1
            if label:
                self._passes[label] = done
                self.progress(label, done, len(order), "batches")
            stopping = self.asked_to_stop()
            if stopping:
                break
        for name in sums:
            self.run.processes.sum_(self.state[name])
        if stopping:
            raise _Stop

    def _begin_pass(self, label: str, sums: Sequence[str]) -> int:
        """How many of its batches a restart finds done."""
        if label in self._begun:
            raise PluginError(
                f"the pass '{label}' was gone through before: a pass with a label is made once in a training"
            )
        self._begun.add(label)
        if not self.run.processes.is_main:  # what was summed before is the main process's
            for name in sums:
                self.state[name].zero_()
        return self._passes.get(label, 0)

    def full_gradient(self) -> Tensor:
        """The mean training loss over all batches; its gradient is added to that of the parameters.

        For optimisers that look at everything at once. Processes share the work and all get the sums.
        """
        model, processes = self.run.predictor.model, self.run.processes
        trained = [p for p in model.parameters() if p.requires_grad]
        batches = self.sources.in_order("train")
        total = torch.zeros((), dtype=torch.float64, device=self.run.device)
        for batch in self.sources.shares("train", batches):
            if self.asked_to_stop():
                raise _Stop
            loss, _ = self.objective(batch, create_graph=True)
            if loss.requires_grad:
                (loss / len(batches)).backward(inputs=trained)
            total += loss.detach() / len(batches)
        processes.sum_gradients(trained)
        return processes.sum_(total)

    def forget_pass(self, label: str) -> None:
        """Go through a pass of this label anew, though the checkpoint says it was done."""
        self._passes.pop(label, None)

    def progress(self, label: str, done: int, total: int, unit: str) -> None:
        """Show how far something is that is neither a pass nor a stage."""
        self.observers.tell(lambda o: o.on_progress(label, done, total, unit))

    def stages(self, n: int, *, anew: bool = False, repeat: bool = True) -> Iterator[int]:
        """The stages that are left of ``n``; :meth:`validated` ends each.

        The loop, and the block of the session, end when a signal asks for it. ``repeat``: a stage that was left in
        its middle is begun again by a restart; a trainer whose ``state`` is right at any time says False.
        ``anew``: none of the stages of the checkpoint counts, nor its best weights.
        """
        if anew:
            self.stage = self.first_stage = 0
            self.judge.forget()
        self._n_stages, self._in_stages = n, True
        while self.stage < n and not self.stopped_early:
            if self.asked_to_stop():
                raise _Stop
            before = self.stage
            self._boundary = self._checkpoint() if repeat else None
            if self.run.trial is not None:
                self.run.trial.begin_stage(n - before)
            self._stage_began = time.monotonic()
            yield before
            if self.stage == before:
                raise PluginError(f"stage {before} ended without session.validated(...)")
            self._boundary = None
            self._save_at_interval()
        self._in_stages = False

    def validated(
        self,
        train_loss: float = math.nan,
        label: Mapping[str, object] | None = None,
        *,
        train_errors: Errors | None = None,
        learning_rate: float = math.nan,
        to_be_logged: bool = True,
        structures: int = 0,
    ) -> EpochRecord:
        """End a stage: validate the weights the model has, keep them if they are the best, tell observers.

        ``train_loss`` is for the eye; ``label`` says what the stage was (``{"ridge": 1e-6}``), ``structures``
        how many were gone through. All processes call this at once.
        """
        stage, title = self.stage, ", ".join(f"{k} {_short(v)}" for k, v in (label or {}).items())
        with self.shown():
            judged = self.judge.judge(stage, train_loss, title)
        now = time.monotonic()
        seconds, n = now - self._stage_began, self._n_stages or 0
        per_stage = (now - self._started) / (stage - self.first_stage + 1)
        record = EpochRecord(
            epoch=stage,
            num_epochs=n,
            learning_rate=learning_rate,
            stage=title,
            train_loss=train_loss,
            train_errors=train_errors or {},
            to_be_logged=to_be_logged,
            seconds=seconds,
            structures_per_second=structures / max(seconds, 1e-9),
            seconds_left=per_stage * (n - stage - 1) if n else math.nan,
            **judged,
        )
        self.stage += 1
        self._n_validated += 1
        self._stage_began = now
        self.observers.tell(lambda o: o.on_epoch(record))
        if self.run.trial is not None:
            self.run.trial.end_stage()
            raise _Stop
        if not self._in_stages:
            self._save_at_interval()
        if not self._rehearsed and record.seconds_left > LONG:
            self._rehearse()
        return record

    def outcome(self) -> TrainingOutcome:
        """How the training ended. To be returned by ``train_model``, after the block."""
        if self._outcome is None:
            done = self._n_stages is not None and self.stage >= self._n_stages
            interrupted = self._stopping and not done and not self.stopped_early
            if self.run.trial is not None:
                overdue = self.run.trial.overdue
                self.run.trial.end(self._interruption.requested or (self._stopping and not overdue))
                interrupted = True  # nothing is written, and nobody asks whether it is trained
            elif self._homeless or not self._main_says(self.run.directory.is_dir()):
                self._save_elsewhere()
            elif interrupted and not self._save("interrupted.ckpt"):
                raise OutputError(f"{self._unsaved}. {self.run.remedy}")
            checkpoint = self._checkpoint()
            best = self.judge.best_weights
            if best is None:
                with self.shown():
                    best = self._weights()
            self._outcome = TrainingOutcome(
                checkpoint, best, interrupted, self.stopped_early, self._n_validated
            )
            self.observers.tell(lambda o: o.on_end(self._outcome))  # type: ignore[arg-type]
        return self._outcome

    # -- checkpoints ---------------------------------------------------------------------------

    def _save_at_interval(self) -> None:
        interval = self.run.hypers.checkpoint_interval
        if interval and self.stage % interval == 0:
            self._save(f"model_{self.stage}.ckpt")

    def _save(self, name: str) -> bool:
        """Write a checkpoint; False, and a warning, where that is not possible. All processes call this at once."""
        path, written = self.run.directory / name, True
        if self.run.processes.is_main:
            self._check_state()
            try:
                save_checkpoint(self._boundary or self._checkpoint(), path)
            except OutputError as error:
                self._unsaved, written = str(error), False
                log.warning(f"{error}; the training goes on without this checkpoint")
        written = self._main_says(written)
        if written:
            self.run.remember(path)
            self.observers.tell(lambda o: o.on_checkpoint(path))
        return written

    def _main_says(self, flag: bool) -> bool:
        """The main process's answer, in all; all have met then."""
        if self.run.processes.size == 1:
            return flag
        said = torch.tensor([float(flag)], device=self.run.device)
        return bool(self.run.processes.broadcast_(said) > 0)

    def _save_elsewhere(self) -> NoReturn:
        """End a training whose folder is gone: what there is goes into a new one."""
        directory = self.run.directory
        said = f"the run's folder '{directory}' was removed during the training, with its log and checkpoints"
        made = True
        if self.run.processes.is_main:
            try:
                directory.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                self._unsaved, made = error.strerror or str(error), False
        if self._main_says(made) and self._save("interrupted.ckpt"):
            raise OutputError(f"{said}. {self.run.remedy}")
        raise OutputError(f"{said}, and it cannot be made again: {self._unsaved}")

    def _check_state(self) -> None:
        for name, value in self.state.items():
            odd = not_plain(_saved(value), f"state['{name}']")
            if odd:
                raise PluginError(
                    f"run.session: {odd}, which checkpoints cannot have: tensors, numbers, text, lists and "
                    "dictionaries of them, and objects with state_dict and load_state_dict"
                )

    def _weights(self) -> dict[str, Tensor]:
        # copies: whoever has the outcome may load other weights into the model
        state = self.run.predictor.model.state_dict()
        return {k: v.detach().clone() for k, v in state.items()}

    def _checkpoint(self) -> dict[str, Any]:
        predictor, judge = self.run.predictor, self.judge
        affine = {k: v for k, v in predictor.state_dict().items() if k.startswith("affine.")}
        outer, best, embedded = embedded_checkpoints(
            predictor.model, self._weights(), judge.best_weights
        )
        own, heads = saved_states(outer, best, predictor.model)
        return {
            **self.run.header,
            "model": own,
            "core": {"version": CORE_VERSION, "affine": affine, "heads": heads},
            "trainer": {
                **{name: _saved(value) for name, value in self.state.items()},
                **judge.state(),
                "epoch": self.stage,
                "passes": dict(self._passes),
                "random_state": torch.get_rng_state(),
            },
            "metrics": copy.deepcopy(judge.metrics),
            "embedded": embedded,
        }

    def _resume(self, checkpoint: dict[str, Any]) -> None:
        """Take up the training state; weights, compositions and scales were loaded when the model was."""
        saved = checkpoint["trainer"]
        for name, value in self.state.items():
            if name not in saved or saved[name] is None:
                continue
            try:
                self.state[name] = _loaded(value, saved[name])
            except Exception as error:
                raise CheckpointError(
                    f"'{name}' of the training state in the checkpoint cannot be taken up: "
                    f"{first_line(error, typed=True)}"
                ) from error
        if "epoch" not in saved:
            raise CheckpointError(
                "the checkpoint has no state of a training that could be gone on with"
            )
        self.stage = saved["epoch"]
        self._passes = dict(saved.get("passes") or {})
        self.judge.resume(checkpoint, self.stage, self.shown())
        torch.set_rng_state(saved["random_state"])

    def _rehearse(self) -> None:
        """Try the export before hours are spent on a model that cannot be exported."""
        self._rehearsed = True
        if self.run.rehearse is not None and self.run.processes.is_main:
            random = torch.get_rng_state()
            self.run.rehearse(self._checkpoint())
            torch.set_rng_state(random)


def _saved(value: Any) -> Any:
    """Plain data and tensors of something in the state; copies, for it goes on."""
    if hasattr(value, "state_dict"):
        value = value.state_dict()
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _saved(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_saved(item) for item in value]
    return copy.deepcopy(value)


def _loaded(value: Any, saved: Any) -> Any:
    """What was saved, in the object it came from where there is one."""
    if hasattr(value, "load_state_dict"):
        value.load_state_dict(saved)
        return value
    if isinstance(value, Tensor):
        if value.shape != saved.shape:
            raise ValueError(f"its shape is {list(saved.shape)}, and {list(value.shape)} today")
        with torch.no_grad():
            return value.copy_(saved)
    return copy.deepcopy(saved)


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
