"""The structures of a training as batches: what is kept of them, and which process gets which."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from atomtrain.data import (
    Batch,
    BatchSource,
    Kept,
    Limits,
    Noise,
    StreamedStore,
    Structures,
    StructureStore,
    epoch_batches,
    replay_batches,
)
from atomtrain.data.ahead import ahead
from atomtrain.errors import OptionsError
from atomtrain.training.predict import normalised_store

if TYPE_CHECKING:
    from atomtrain.training.run import TrainingRun

log = logging.getLogger("atomtrain")
VALIDATION_ATOMS = 200
"""Batches of validation are as large as this allows, and never smaller than those of training."""
ALL = Limits()
LOOKED_AT = 200
"""batches that tell how even all are"""
UNEVEN = 3.0
"""How much larger than the mean the largest structure may be before batches by atoms are recommended"""
AHEAD = 4
"""batches that are made before they are asked for"""


@dataclass(eq=False)
class StreamedSource:
    """Makes batches of structures on disk, a window of batches at a time in memory.

    ``make`` makes a source of a window's structures. Whoever reads and makes batches is a thread, a few batches ahead,
    unless ``num_workers`` is 0.
    """

    store: StreamedStore
    make: Callable[[StructureStore], BatchSource]
    num_workers: int | None = None

    def report(self) -> str:
        """What is kept between epochs, in words."""
        return f"{len(self.store)} structures read from disk as batches need them (memory_budget)"

    def epoch(self, batches: Sequence[Tensor], epoch: int = 0) -> Iterator[Batch]:
        """The given batches in order, on the device; noise as of this ``epoch``."""
        made = self._batches(batches, epoch)
        return made if self.num_workers == 0 else ahead(made, AHEAD)

    def _batches(self, batches: Sequence[Tensor], epoch: int) -> Iterator[Batch]:
        start = 0
        while start < len(batches):
            stop, n = start + 1, len(batches[start])
            while stop < len(batches) and n + len(batches[stop]) <= self.store.blocks.window:
                n += len(batches[stop])
                stop += 1
            yield from self._window(batches[start:stop], epoch)
            start = stop

    def _window(self, batches: Sequence[Tensor], epoch: int) -> Iterator[Batch]:
        structures = torch.unique(torch.cat(list(batches)))
        source = self.make(self.store.select(structures))
        local = [torch.searchsorted(structures, batch) for batch in batches]
        for batch, mine in zip(source.epoch(local, epoch), batches, strict=True):
            batch.structures = mine
            yield batch


class Sources:
    """Batches of ``train`` and ``validation``, labels normalised, within the memory budget."""

    def __init__(self, run: TrainingRun) -> None:
        self._run = run
        if run.kept is None:
            run.kept = Kept(run.hypers.memory_budget_bytes, scratch=run.directory)
        if run.trial is not None:
            run.kept.adds_files = False
        self._sources: dict[str, BatchSource | StreamedSource] = {}
        self.make()

    def make(self) -> None:
        """Make them: to be called again where the model has other constants."""
        budget, workers = self._run.hypers.memory_budget_bytes, self._run.hypers.num_workers
        if self._run.trial is not None:  # what others do ahead could not be told from nothing
            workers = 0
        of_structures = self._run.predictor.model.keeps_structures()
        stores = self._stores()
        atoms = sum(int(store.n_atoms.sum()) for store in stores.values())
        for part, store in stores.items():
            if isinstance(store, StreamedStore) and of_structures:
                log.info(
                    f"{part}: all structures are read at once, as what is kept of them is found once"
                )
                store = store.select(torch.arange(len(store)))
                store.ids = None
            if isinstance(store, StructureStore):
                share = int(budget * int(store.n_atoms.sum()) / max(1, atoms))
                self._sources[part] = self._source(part, store, share, workers)
                continue
            make = partial(self._source, part, budget=0, num_workers=0, ahead=workers != 0)
            self._sources[part] = StreamedSource(store, make, workers)

    def _source(
        self,
        part: str,
        store: StructureStore,
        budget: int,
        num_workers: int | None,
        ahead: bool = False,
    ) -> BatchSource:
        run, model = self._run, self._run.predictor.model
        return BatchSource(
            normalised_store(store, run.predictor),
            cutoff=model.cutoff,
            dtype=run.dtype,
            constants=model.constants,
            layout=model.layout,
            device=run.device,
            memory_budget=budget,
            num_workers=num_workers,
            bring_constants=ahead,
            noise=Noise.of(run.dataset_info, run.seed, fixed=part != "train"),
            of_structures=model.keeps_structures(),
            kept=run.kept,
        )

    def _stores(self) -> dict[str, Structures]:
        """The stores that have structures."""
        stores = {"train": self._run.train, "validation": self._run.validation}
        return {part: store for part, store in stores.items() if len(store)}

    def report(self) -> dict[str, str]:
        """What is kept of each part, in words."""
        return {part: source.report() for part, source in self._sources.items()}

    def shuffled(self, epoch: int, limits: Limits = ALL) -> list[Tensor]:
        """The batches of an epoch of training, the same for the same seed and epoch."""
        store, replayed = self._run.train, self._run.replayed
        if replayed is not None:
            try:
                return replay_batches(
                    store.n_atoms,
                    self._run.hypers.batch_size,
                    replayed.old,
                    replayed.share,
                    shuffled=(self._run.seed, epoch),
                    limits=limits,
                )
            except ValueError as error:
                raise OptionsError(
                    f"architecture.training.finetune.replay.share: {error}; give it more, or batches more atoms"
                ) from error
        return epoch_batches(
            store.n_atoms,
            self._run.hypers.batch_size,
            shuffled=(self._run.seed, epoch),
            blocks=store.blocks if isinstance(store, StreamedStore) else None,
            limits=limits,
        )

    def _shared_out(self, part: str, batch: Tensor) -> list[Tensor]:
        """What each process gets of a batch: about as many pairs as the others, structures in their order."""
        size = self._run.processes.size
        source = self._sources.get(part)
        cost = source.cost[batch] if isinstance(source, BatchSource) and size > 1 else None
        if cost is None or bool((cost == cost[0]).all()):
            return [batch[rank::size] for rank in range(size)]
        shares: list[list[int]] = [[] for _ in range(size)]
        given = [0] * size
        costs = cost.tolist()
        for k in sorted(range(len(batch)), key=lambda k: -costs[k]):
            least = given.index(min(given))
            shares[least].append(k)
            given[least] += costs[k]
        return [batch[torch.tensor(sorted(share), dtype=torch.int64)] for share in shares]

    def balance(self, batches: Sequence[Tensor]) -> str:
        """How full batches by atoms are, and how even those of several processes, in words; empty: neither is."""
        said, some = [], batches[:LOOKED_AT]
        n_atoms = self._run.train.n_atoms
        largest = self._run.hypers.max_atoms_per_batch
        if largest is not None and some:
            full = sum(int(n_atoms[b].sum()) for b in some) / (largest * len(some))
            said.append(f"batches of up to {largest} atoms are {100 * full:.0f} % full")
        elif some and int(n_atoms.max()) > UNEVEN * float(n_atoms.double().mean()):
            mean = self._run.hypers.batch_size * float(n_atoms.double().mean())
            said.append(
                f"structures have {int(n_atoms.min())} to {int(n_atoms.max())} atoms: batches by atoms take as long as "
                f"one another (max_atoms_per_batch: {max(int(n_atoms.max()), round(mean))})"
            )
        source, size = self._sources.get("train"), self._run.processes.size
        if size > 1 and isinstance(source, BatchSource) and some:
            costs = [
                [int(source.cost[s].sum()) for s in self._shared_out("train", b)] for b in some
            ]
            waste = 1 - sum(map(sum, costs)) / (size * sum(map(max, costs)))
            said.append(
                f"{100 * waste:.0f} % of the time of {size} processes is waiting for one another's structures"
            )
        return "; ".join(said)

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
        """This process's share of every batch, None where it has none; noise as of the ``epoch``.

        Of a training that is only tried, of a few batches.
        """
        trial = self._run.trial
        if trial is None:
            return self._shares(part, batches, epoch)
        n_atoms = (self._run.train if part == "train" else self._run.validation).n_atoms
        some = trial.some(part, batches, n_atoms)
        sizes = [int(n_atoms[batch].sum()) for batch in some]
        whole = trial.pass_(part, batches, n_atoms)
        return trial.watched(whole, sizes, self._shares(part, some, epoch))

    def _shares(self, part: str, batches: Sequence[Tensor], epoch: int) -> Iterator[Batch | None]:
        rank = self._run.processes.rank
        shares = [self._shared_out(part, batch)[rank] for batch in batches]
        if part not in self._sources:
            return
        local = self._sources[part].epoch([s for s in shares if len(s)], epoch)
        for share in shares:
            yield next(local) if len(share) else None
