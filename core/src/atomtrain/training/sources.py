"""The structures of a training as batches: what is kept of them, and which process gets which."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from atomtrain.data import Batch, BatchSource, Kept, Limits, Noise, StructureStore, epoch_batches
from atomtrain.training.predict import normalised_store

if TYPE_CHECKING:
    from atomtrain.training.run import TrainingRun

VALIDATION_ATOMS = 200
"""Batches of validation are as large as this allows, and never smaller than those of training."""


class Sources:
    """Batches of ``train`` and ``validation``, labels normalised, within the memory budget."""

    def __init__(self, run: TrainingRun) -> None:
        self._run = run
        if run.kept is None:
            run.kept = Kept(run.hypers.memory_budget_bytes, scratch=run.directory)
        self.make()

    def make(self) -> None:
        """Make them: to be called again where the model has other constants."""
        run, model = self._run, self._run.predictor.model
        self._sources = {
            part: BatchSource(
                normalised_store(store, run.predictor),
                cutoff=model.cutoff,
                dtype=run.dtype,
                constants=model.constants,
                layout=model.layout,
                device=run.device,
                memory_budget=budget,
                num_workers=run.hypers.num_workers,
                noise=Noise.of(run.dataset_info, run.seed, fixed=part != "train"),
                of_structures=model.keeps_structures(),
                kept=run.kept,
            )
            for part, store, budget in self._shared_out()
        }

    def _shared_out(self) -> list[tuple[str, StructureStore, int]]:
        """The stores that have structures, with the memory budget shared out by their size."""
        train, validation = self._run.train, self._run.validation
        budget = self._run.hypers.memory_budget_bytes
        share = len(train.types) / max(1, len(train.types) + len(validation.types))
        stores = [
            ("train", train, int(budget * share)),
            ("validation", validation, int(budget * (1 - share))),
        ]
        return [entry for entry in stores if len(entry[1])]

    def report(self) -> dict[str, str]:
        """What is kept of each part, in words."""
        return {part: source.report() for part, source in self._sources.items()}

    def in_order(self, part: str, *, larger: bool = False) -> list[Tensor]:
        """All structures of a part in their order, batch by batch; ``larger`` where small batches cost time."""
        store = self._run.train if part == "train" else self._run.validation
        batch_size = self._run.hypers.batch_size
        if larger and len(store):
            batch_size = max(batch_size, VALIDATION_ATOMS // max(1, int(store.n_atoms.max())))
        limits = Limits(max_atoms=self._run.hypers.max_atoms_per_batch, skip_large=False)
        return epoch_batches(store.n_atoms, batch_size, limits=limits)

    def shares(
        self, part: str, batches: Sequence[Tensor], epoch: int = 0
    ) -> Iterator[Batch | None]:
        """This process's share of every batch, None where it has none; noise as of the ``epoch``."""
        processes = self._run.processes
        shares = [b[processes.rank :: processes.size] for b in batches]
        if part not in self._sources:
            return
        local = self._sources[part].epoch([s for s in shares if len(s)], epoch)
        for share in shares:
            yield next(local) if len(share) else None
