"""Batches: structures gathered from a store into one graph, with what is kept between epochs."""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from atomtrain.data.kept import Kept, structures_key
from atomtrain.data.neighbors import BYTES_PER_PAIR, PairList, pair_list
from atomtrain.data.noise import Noise
from atomtrain.data.store import Slices, StructureStore, slices
from atomtrain.graph import AtomGraph, pair_vectors
from atomtrain.model.base import Constants
from atomtrain.targets import split_key

CHUNK = 1024
"""Atoms that are looked at together when constants are computed ahead"""
CPU_CHUNK = 256
"""the same of whole structures on a CPU, whose caches larger pieces leave"""
PAIR_CHUNK = 16384
"""Atoms whose pairs are found together"""


@dataclass
class Batch:
    """``n`` structures as a graph, their labels and masks by key (see StructureStore.labels).

    ``n_atoms [n]`` is in the float dtype of the graph, ready to divide by. ``structures [n]`` are
    the indices in the store.
    """

    graph: AtomGraph
    labels: dict[str, Tensor]
    masks: dict[str, Tensor | None]
    structures: Tensor
    n_atoms: Tensor
    noisy: dict[str, AtomGraph] = field(default_factory=dict)
    """the same structures with noise, by :func:`atomtrain.data.noise.input_of`; without extras of the model"""

    def pin_memory(self) -> Batch:
        """In page-locked memory, from which a GPU copies without waiting."""
        return self._map(lambda t: t.pin_memory())

    def to(self, device: torch.device) -> Batch:
        """On ``device``; the copy does not wait where the memory is pinned."""
        return self._map(lambda t: t.to(device, non_blocking=True))

    def _map(self, f: Callable[[Tensor], Tensor]) -> Batch:
        return Batch(
            _mapped(self.graph, f),
            {k: f(v) for k, v in self.labels.items()},
            {k: None if v is None else f(v) for k, v in self.masks.items()},
            self.structures,
            f(self.n_atoms),
            {k: _mapped(v, f) for k, v in self.noisy.items()},
        )


def _mapped(graph: AtomGraph, f: Callable[[Tensor], Tensor]) -> AtomGraph:
    return AtomGraph(
        positions=f(graph.positions),
        types=f(graph.types),
        cells=f(graph.cells),
        pbc=f(graph.pbc),
        structure=f(graph.structure),
        centers=f(graph.centers),
        neighbors=f(graph.neighbors),
        shifts=f(graph.shifts),
        vectors=f(graph.vectors),
        extras={k: f(v) for k, v in graph.extras.items()},
    )


class BatchSource:
    """Makes batches of a store's structures.

    The store's extra data go to ``graph.extras`` under their names. Pairs are found once if they
    fit ``memory_budget`` (bytes), else whenever a batch is made. What the model's ``constants``
    computes of a graph is kept likewise, in what is left of the budget; where it does not fit,
    batches come without and the model computes it each time. With ``num_workers`` processes batches
    are made ahead of their use. If constants are ``of_structures``, they take the place of all that:
    they go to ``kept`` and batches come without atoms. ``noise`` also gives every batch with noise in
    its positions (whose pairs are found anew), and the noise as labels.
    """

    def __init__(
        self,
        store: StructureStore,
        *,
        cutoff: float,
        dtype: torch.dtype,
        constants: Callable[[AtomGraph], Constants] | None,
        device: torch.device,
        memory_budget: int,
        num_workers: int | None,
        noise: Noise | None = None,
        of_structures: bool = False,
        kept: Kept | None = None,
    ) -> None:
        self.noise = noise
        self.noisy = {} if noise is None else noise.draw(store, 0)
        # who sees noisy structures only needs no pairs of the others
        self.clean = noise is None or any(
            split_key(key)[0] not in noise.inputs for key in store.labels
        )
        self.store = store
        self.periodic = bool(store.pbc.any())
        self.cutoff = cutoff
        self.dtype = dtype
        self.device = device
        self.labels = {
            key: (label.values.to(dtype), label.mask, label.per_atom)
            for key, label in store.labels.items()
        }
        self.extra = {
            name: (label.values.to(dtype), label.per_atom) for name, label in store.extra.items()
        }
        self.pairs: PairList | None = None
        self.per_atom: dict[str, Tensor] = {}
        self.per_pair: dict[str, Tensor] = {}
        self.per_structure: dict[str, Tensor] = {}
        if of_structures and constants is not None and noise is None and len(store) > 0:
            self._keep_structures(constants, kept or Kept(memory_budget))
        if self.per_structure:
            self.num_workers = 0
            return
        if self.clean:
            self._keep_pairs(memory_budget)
        used = self.memory
        if constants is not None and self.pairs is not None and device.type == "cpu":
            self._keep_constants(constants, memory_budget - used)
        # Gathering kept pairs is cheaper than a message to another process.
        self.num_workers = num_workers or 0
        if num_workers is None and self.pairs is None and len(store) > 0:
            self.num_workers = 1 if (torch.get_num_threads() > 1 and memory_budget > 0) else 0

    @property
    def memory(self) -> int:
        """Bytes kept for pairs and constants."""
        kept = [*self.per_atom.values(), *self.per_pair.values(), *self.per_structure.values()]
        if self.pairs is not None:
            kept += [self.pairs.centers, self.pairs.neighbors, self.pairs.shifts]
        return sum(t.numel() * t.element_size() for t in kept)

    def report(self) -> str:
        """What is kept between epochs, in words."""
        if self.per_structure:
            return f"features of structures kept ({self.memory / 1e6:.0f} MB)"
        if not self.clean:
            return "pair lists made for every batch (its noise is new)"
        if self.pairs is None:
            return "pair lists made for every batch (memory_budget)"
        what = "pair lists" + (" and descriptors" if self.per_atom or self.per_pair else "")
        return f"{what} kept ({self.memory / 1e6:.0f} MB)"

    def batch(self, structures: Tensor) -> Batch:
        """One batch, on the CPU."""
        store = self.store
        if self.per_structure:
            return self._without_atoms(structures)
        of_atoms = slices(store.offsets, structures)
        atoms = of_atoms.rows
        extras = {
            name: values.index_select(0, atoms if per_atom else structures)
            for name, (values, per_atom) in self.extra.items()
        }
        noisy = {
            name: self._graph(
                one.store,
                structures,
                of_atoms,
                pair_list(one.store, structures, self.cutoff),
                dict(extras),
            )
            for name, one in self.noisy.items()
        }
        if self.pairs is not None:
            of_pairs = slices(self.pairs.offsets, structures)
            chosen = of_pairs.rows
            extras.update({k: v.index_select(0, atoms) for k, v in self.per_atom.items()})
            extras.update({k: v.index_select(0, chosen) for k, v in self.per_pair.items()})
            graph = self._graph(store, structures, of_atoms, self.pairs, extras, of_pairs)
        elif self.clean:
            pairs = pair_list(store, structures, self.cutoff)
            graph = self._graph(store, structures, of_atoms, pairs, extras)
        else:
            graph = next(iter(noisy.values()))
        labels: dict[str, Tensor] = {}
        masks: dict[str, Tensor | None] = {}
        for key, (values, mask, per_atom) in self.labels.items():
            rows = atoms if per_atom else structures
            if self.noise is not None and key in self.noise.inputs:
                unit = self.noisy[self.noise.inputs[key]].unit
                labels[key] = unit.index_select(0, atoms).to(self.dtype)
            else:
                labels[key] = values.index_select(0, rows)
            masks[key] = None if mask is None else mask.index_select(0, rows)
        n_atoms = of_atoms.counts.to(self.dtype)
        return Batch(graph, labels, masks, structures, n_atoms, noisy)

    def _without_atoms(self, structures: Tensor) -> Batch:
        """A batch of which the model needs what is kept of structures alone."""
        store, dtype = self.store, self.dtype
        counts = store.n_atoms.index_select(0, structures)
        atoms = torch.empty(0, dtype=torch.int64)
        if any(per_atom for _, _, per_atom in self.labels.values()):
            atoms = store.atom_indices(structures)
        none = torch.empty(0, 3, dtype=dtype)
        nobody = torch.empty(0, dtype=torch.int64)
        graph = AtomGraph(
            positions=none,
            types=nobody,
            cells=store.cells.index_select(0, structures).to(dtype),
            pbc=store.pbc.index_select(0, structures),
            structure=nobody,
            centers=nobody,
            neighbors=nobody,
            shifts=none,
            vectors=none,
            extras={k: v.index_select(0, structures) for k, v in self.per_structure.items()},
        )
        labels: dict[str, Tensor] = {}
        masks: dict[str, Tensor | None] = {}
        for key, (values, mask, per_atom) in self.labels.items():
            rows = atoms if per_atom else structures
            labels[key] = values.index_select(0, rows)
            masks[key] = None if mask is None else mask.index_select(0, rows)
        return Batch(graph, labels, masks, structures, counts.to(dtype))

    def _graph(
        self,
        store: StructureStore,
        structures: Tensor,
        of_atoms: Slices,
        pairs: PairList,
        extras: dict[str, Tensor],
        of_pairs: Slices | None = None,
    ) -> AtomGraph:
        """Structures of a store as one graph, from their ``pairs`` or from ``of_pairs`` of these."""
        dtype = self.dtype
        centers, neighbors, shifts = pairs.centers, pairs.neighbors, pairs.shifts
        if of_pairs is None:
            owners = torch.repeat_interleave(pairs.offsets[1:] - pairs.offsets[:-1])
        else:
            owners, chosen = of_pairs.owners, of_pairs.rows
            centers, neighbors = centers.index_select(0, chosen), neighbors.index_select(0, chosen)
            shifts = shifts.index_select(0, chosen)
        first_atom = of_atoms.firsts.index_select(0, owners)
        centers, neighbors = centers + first_atom, neighbors + first_atom
        structure = of_atoms.owners
        positions = store.positions.index_select(0, of_atoms.rows)
        cells = store.cells.index_select(0, structures)
        if self.periodic:
            shifts = shifts.to(torch.float64)
            vectors = pair_vectors(positions, cells, structure, centers, neighbors, shifts)
        else:  # all shifts are zero
            vectors = positions.index_select(0, neighbors) - positions.index_select(0, centers)
        return AtomGraph(
            positions=positions.to(dtype),
            types=store.types.index_select(0, of_atoms.rows),
            cells=cells.to(dtype),
            pbc=store.pbc.index_select(0, structures),
            structure=structure,
            centers=centers,
            neighbors=neighbors,
            shifts=shifts.to(dtype),
            vectors=vectors.to(dtype),
            extras=extras,
        )

    def epoch(self, batches: Sequence[Tensor], epoch: int = 0) -> Iterator[Batch]:
        """The given batches in order, on the device; noise as of this ``epoch``."""
        if self.noise is not None and not self.noise.fixed:
            self.noisy = self.noise.draw(self.store, epoch)
        cuda = self.device.type == "cuda"
        if self.num_workers == 0:
            made: Iterator[Batch] = map(self.batch, batches)
        else:
            # Forked workers share the store; elsewhere (Windows) it is sent to them. A generator of
            # its own: a loader draws a seed, and a resumed run must find torch's state untouched.
            forks = "fork" in multiprocessing.get_all_start_methods()
            made = iter(
                torch.utils.data.DataLoader(
                    _Batches(self, list(batches)),
                    batch_size=None,
                    num_workers=self.num_workers,
                    prefetch_factor=4,
                    multiprocessing_context="fork" if forks else None,
                    generator=torch.Generator(),
                )
            )
        for batch in made:
            yield (
                batch
                if self.device.type == "cpu"
                else (batch.pin_memory() if cuda else batch).to(self.device)
            )

    @torch.no_grad()
    def _keep_structures(self, constants: Callable[[AtomGraph], Constants], kept: Kept) -> None:
        """Ask a single structure what the tables look like, and fill them for all."""

        def computed(structures: Tensor) -> Constants:
            return constants(self.batch(structures).to(self.device).graph)

        found = computed(torch.zeros(1, dtype=torch.int64))

        def fill(tables: dict[str, Tensor]) -> None:
            chunk = CPU_CHUNK if self.device.type == "cpu" else PAIR_CHUNK
            for part in _pieces(self.store, chunk):
                for name, values in computed(part).per_structure.items():
                    tables[name][part] = values.to("cpu")

        key = f"{found.key}, cutoff {self.cutoff}, {self.dtype}, {structures_key(self.store)}"
        self.per_structure = kept.tables(key, found.per_structure, len(self.store), fill)

    def _keep_pairs(self, budget: int) -> None:
        if len(self.store) == 0 or budget <= 0:
            return
        # Found in pieces, so that a data set beyond the budget is noticed before memory is full.
        pieces: list[PairList] = []
        total = 0
        for part in _pieces(self.store, PAIR_CHUNK):
            piece = pair_list(self.store, part, self.cutoff)
            total += len(piece.centers) * BYTES_PER_PAIR
            if total > budget:
                return
            pieces.append(piece)
        counts = torch.cat([p.offsets[1:] - p.offsets[:-1] for p in pieces])
        self.pairs = PairList(
            torch.cat([p.centers for p in pieces]),
            torch.cat([p.neighbors for p in pieces]),
            torch.cat([p.shifts for p in pieces]),
            torch.cat([counts.new_zeros(1), counts.cumsum(0)]),
        )

    @torch.no_grad()
    def _keep_constants(self, constants: Callable[[AtomGraph], Constants], budget: int) -> None:
        n_atoms, n_pairs = len(self.store.types), 0
        if self.pairs is not None:
            n_pairs = len(self.pairs.centers)
        atom = pair = 0
        for part in _pieces(self.store, CHUNK):
            graph = self.batch(part).graph
            found = constants(graph)
            if atom == 0:
                per_atom, budget = _tables(found.per_atom, n_atoms, budget)
                per_pair, budget = _tables(found.per_pair, n_pairs, budget)
                if not per_atom and not per_pair:
                    return
            atoms, pairs = len(graph.types), len(graph.centers)
            for name, table in per_atom.items():
                table[atom : atom + atoms] = found.per_atom[name]
            for name, table in per_pair.items():
                table[pair : pair + pairs] = found.per_pair[name]
            atom, pair = atom + atoms, pair + pairs
        if atom > 0:
            self.per_atom, self.per_pair = per_atom, per_pair


class _Batches(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """The batches of an epoch, made where they are asked for."""

    def __init__(self, source: BatchSource, batches: list[Tensor]) -> None:
        self.source = source
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Batch:
        return self.source.batch(self.batches[index])


def _pieces(store: StructureStore, n_atoms: int) -> list[Tensor]:
    """All structures in consecutive pieces of about ``n_atoms`` atoms, at least one each."""
    if len(store) == 0:
        return []
    piece = (store.offsets[1:] - 1) // n_atoms
    sizes = torch.unique_consecutive(piece, return_counts=True)[1]
    return list(torch.split(torch.arange(len(store)), sizes.tolist()))


def _tables(examples: dict[str, Tensor], rows: int, budget: int) -> tuple[dict[str, Tensor], int]:
    """Empty tables for those that fit, in their order, and what is left of the budget."""
    tables: dict[str, Tensor] = {}
    for name, example in examples.items():
        size = math.prod(example.shape[1:]) * example.element_size() * rows
        if 0 < size <= budget:
            tables[name] = torch.empty((rows, *example.shape[1:]), dtype=example.dtype)
            budget -= size
    return tables, budget
