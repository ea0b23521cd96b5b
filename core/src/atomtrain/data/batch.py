"""Batches: structures gathered from a store into one graph, with what is kept between epochs."""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from atomtrain.data.ahead import ahead
from atomtrain.data.kept import Kept
from atomtrain.data.neighbors import BYTES_PER_PAIR, PairList, pair_list
from atomtrain.data.noise import Noise
from atomtrain.data.store import (
    Slices,
    StructureStore,
    fingerprint,
    offsets_of,
    ranges,
    slices,
)
from atomtrain.graph import HOST, AtomGraph, pair_vectors
from atomtrain.model.base import Constants
from atomtrain.targets import split_key

CPU = torch.device("cpu")
CHUNK = 1024
"""Atoms that are looked at together when constants are computed ahead"""
CPU_CHUNK = 256
"""the same of whole structures on a CPU, whose caches larger pieces leave"""
PAIR_CHUNK = 16384
"""Atoms whose pairs are found together"""
AT_ONCE = 50_000
"""Atoms up to which all that is kept is computed before the first batch; of more it is kept as batches compute it"""
SPARE = 1.1
"""How much more room for pairs is made than a sample says there are"""
AHEAD = 2
"""batches that a thread makes before they are asked for"""
ALIGNED = 16
"""numbers that tensors begin a multiple of apart where they share memory"""


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

    def to(self, device: torch.device) -> Batch:
        """On ``device``. A GPU gets one message for each type of numbers, which nobody waits for."""
        if device.type != "cuda":
            return self._map(lambda t: t.to(device))
        tensors: list[Tensor] = []

        def take(tensor: Tensor) -> Tensor:
            tensors.append(tensor)
            return tensor

        self._map(take)
        moved = iter(moved_together(tensors, device))
        return self._map(lambda _: next(moved))

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
    extras = {k: v if k.startswith(HOST) else f(v) for k, v in graph.extras.items()}
    return AtomGraph._make([*map(f, graph[:-1]), extras])


def moved_together(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """The tensors on a GPU: those of one type side by side in page-locked memory, copied at once."""
    found: dict[int, Tensor] = {}
    for dtype in dict.fromkeys(t.dtype for t in tensors):
        alike = [k for k, t in enumerate(tensors) if t.dtype == dtype]
        sizes = [-(-tensors[k].numel() // ALIGNED) * ALIGNED for k in alike]
        flat = torch.empty(sum(sizes), dtype=dtype, pin_memory=device.type == "cuda")
        for k, part in zip(alike, flat.split(sizes), strict=True):
            part[: tensors[k].numel()].view(tensors[k].shape).copy_(tensors[k])
        for k, part in zip(alike, flat.to(device, non_blocking=True).split(sizes), strict=True):
            found[k] = part[: tensors[k].numel()].view(tensors[k].shape)
    return [found[k] for k in range(len(tensors))]


@dataclass(eq=False)
class BatchSource:
    """Makes batches of a store's structures.

    The store's extra data go to ``graph.extras`` under their names. Pairs are kept if they fit ``memory_budget``
    (bytes), else found whenever a batch is made. What the model's ``constants`` computes of a graph is kept likewise,
    in what is left of the budget; where it does not fit, batches come without and the model computes it each time. Of a
    small store that is done beforehand, of a large one as batches come. ``num_workers`` processes make batches ahead of
    their use; None: a thread, where anything is left to be computed. With ``bring_constants`` batches bring what is
    not kept as well, for whoever makes them ahead. If constants are ``of_structures``, they take the place of all that:
    they go to ``kept`` and batches come without atoms. Batches for a GPU have in their extras what the model's
    ``layout`` says of them. ``noise`` also gives every batch with noise in its positions (whose pairs are found anew),
    and the noise as labels.
    """

    store: StructureStore
    cutoff: float
    dtype: torch.dtype
    constants: Callable[[AtomGraph], Constants] | None = None
    device: torch.device = CPU
    memory_budget: int = 0
    num_workers: int | None = 0
    noise: Noise | None = None
    of_structures: bool = False
    kept: Kept | None = None
    layout: Callable[[AtomGraph], dict[str, Tensor]] | None = None
    bring_constants: bool = False
    pairs: PairList | None = field(default=None, init=False)
    per_atom: dict[str, Tensor] = field(default_factory=dict, init=False)
    per_pair: dict[str, Tensor] = field(default_factory=dict, init=False)
    per_structure: dict[str, Tensor] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        store, noise = self.store, self.noise
        self.noisy = {} if noise is None else noise.draw(store, 0)
        # who sees noisy structures only needs no pairs of the others
        self.clean = noise is None or any(
            split_key(key)[0] not in noise.inputs for key in store.labels
        )
        self.periodic = bool(store.pbc.any())
        self.labels = {k: v.to(self.dtype) for k, v in store.labels.items()}
        self.extra = {k: v.to(self.dtype) for k, v in store.extra.items()}
        self._room: _Room | None = None
        self._all = self.constants is None  # whether all constants are kept, or there are none
        if self.of_structures and self.constants is not None and noise is None and len(store) > 0:
            self._keep_structures(self.constants)
        if self.clean and not self.per_structure and len(store) > 0 and self.memory_budget > 0:
            if len(store.types) <= AT_ONCE:
                self._keep()
            elif not self.num_workers:  # of what other processes compute nothing could be kept
                self._make_room()
        done = self.per_structure or (self.pairs is not None and self._room is None and self._all)
        self._in_thread = self.num_workers is None and not done and len(store) > 0
        self.bring_constants = self.device.type == "cpu" and (
            self.bring_constants or self._in_thread or self._room is not None
        )

    @cached_property
    def cost(self) -> Tensor:
        """About what a structure costs, [n]: its pairs if they were found beforehand, else its atoms.

        The same in all processes, whatever they made so far.
        """
        if self.pairs is not None and self._room is None:
            return self.pairs.counts + self.store.n_atoms
        return self.store.n_atoms

    def _keep(self) -> None:
        """Compute what is kept, as far as it fits."""
        self.pairs = self._all_pairs()
        if self.pairs is not None and self.constants is not None and self.device.type == "cpu":
            self._keep_constants(self.pairs, self.constants, self.memory_budget - self.memory)

    @torch.no_grad()
    def _make_room(self) -> None:
        """Make tables for what batches will compute, if all of it will fit: how much that is a sample tells."""
        n_atoms, n = len(self.store.types), len(self.store)
        some = (
            torch.linspace(0, n - 1, max(1, min(n, CHUNK * n // n_atoms))).to(torch.int64).unique()
        )
        of_atoms, pairs = slices(self.store.offsets, some), pair_list(self.store, some, self.cutoff)
        room = int(SPARE * len(pairs.centers) * n_atoms / len(of_atoms.rows)) + 1
        budget = self.memory_budget - room * BYTES_PER_PAIR
        if budget < 0:
            return
        if self.constants is not None and self.device.type == "cpu":
            found = self.constants(self._graph(self.store, some, of_atoms, new=pairs))
            # what is kept is of the first batch a structure is in; another's must be that to the last bit
            half = torch.arange(0, len(some), 2)
            own = self.constants(
                self._graph(self.store, some[half], slices(self.store.offsets, some[half]))
            )
            atoms = slices(offsets_of(of_atoms.counts), half).rows
            if _equal(found.per_atom, own.per_atom, atoms) and _equal(
                found.per_pair, own.per_pair, slices(pairs.offsets, half).rows
            ):
                self.per_atom, budget = _tables(found.per_atom, n_atoms, budget)
                self.per_pair, budget = _tables(found.per_pair, room, budget)
            self._all = self._are_kept(found)
        self.pairs = PairList.empty(room)
        self._room = _Room(n)

    def _are_kept(self, found: Constants) -> bool:
        return len(found.per_atom) + len(found.per_pair) == len(self.per_atom) + len(self.per_pair)

    def _fill(self, structures: Tensor, atoms: Tensor, pairs: PairList, found: Constants) -> None:
        """Keep what a batch computed of structures of which nothing is kept yet."""
        assert self._room is not None and self.pairs is not None
        fresh = self._room.starts[structures] < 0
        counts = pairs.counts[fresh]
        rows = self._room.taken(structures[fresh], counts, len(self.pairs.centers))
        if rows is None:
            return
        of_pairs = fresh.repeat_interleave(pairs.counts)
        of_atoms = fresh.repeat_interleave(self.store.n_atoms[structures])
        for name in ("centers", "neighbors", "shifts"):
            getattr(self.pairs, name)[rows] = getattr(pairs, name)[of_pairs]
        for name, table in self.per_pair.items():
            table[rows] = found.per_pair[name][of_pairs]
        for name, table in self.per_atom.items():
            table[atoms[of_atoms]] = found.per_atom[name][of_atoms]

    def _kept_rows(self, structures: Tensor) -> Slices | None:
        """The rows of all pairs of these structures in the tables; None where they are not all kept."""
        if self.pairs is None:
            return None
        if self._room is None:
            return slices(self.pairs.offsets, structures)
        return self._room.rows(structures)

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
        when = " as they come" if self._room is not None else ""
        return f"{what} kept{when} ({self.memory / 1e6:.0f} MB)"

    def batch(self, structures: Tensor) -> Batch:
        """One batch, on the CPU."""
        if self.per_structure:
            return self._without_atoms(structures)
        of_atoms = slices(self.store.offsets, structures)
        noisy = {k: self._graph(v.store, structures, of_atoms) for k, v in self.noisy.items()}
        if self.clean:
            graph = self._clean_graph(structures, of_atoms)
        else:
            graph = next(iter(noisy.values()))
        if self.layout is not None and self.device.type != "cpu":
            graph.extras.update(self.layout(graph))
        labels, masks = self._labels(structures, of_atoms.rows)
        for key, seen in self.noise.inputs.items() if self.noise is not None else ():
            if key in labels:
                unit = self.noisy[seen].unit.index_select(0, of_atoms.rows)
                labels[key] = unit.to(self.dtype)
        return Batch(graph, labels, masks, structures, of_atoms.counts.to(self.dtype), noisy)

    @torch.no_grad()
    def _clean_graph(self, structures: Tensor, of_atoms: Slices) -> AtomGraph:
        kept, pairs = self._kept_rows(structures), None
        if kept is None:
            pairs = pair_list(self.store, structures, self.cutoff)
        graph, found = self._graph(self.store, structures, of_atoms, kept, pairs), Constants()
        if self.constants is not None and self.bring_constants and (kept is None or not self._all):
            found = self.constants(graph)
            graph.extras.update({**found.per_atom, **found.per_pair})
        if self._room is not None and pairs is not None:
            self._fill(structures, of_atoms.rows, pairs, found)
        return graph

    def _without_atoms(self, structures: Tensor) -> Batch:
        """A batch of which the model needs what is kept of structures alone."""
        atoms = torch.empty(0, dtype=torch.int64)
        if any(label.per_atom for label in self.labels.values()):
            atoms = self.store.atom_indices(structures)
        none = torch.empty(0, 3, dtype=self.dtype)
        nobody = torch.empty(0, dtype=torch.int64)
        graph = AtomGraph(
            positions=none,
            types=nobody,
            cells=self.store.cells.index_select(0, structures).to(self.dtype),
            pbc=self.store.pbc.index_select(0, structures),
            structure=nobody,
            centers=nobody,
            neighbors=nobody,
            shifts=none,
            vectors=none,
            extras={k: v.index_select(0, structures) for k, v in self.per_structure.items()},
        )
        counts = self.store.n_atoms.index_select(0, structures)
        return Batch(graph, *self._labels(structures, atoms), structures, counts.to(self.dtype))

    def _labels(
        self, structures: Tensor, atoms: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor | None]]:
        """Values and masks of all labels."""
        taken = {
            key: label.take(atoms if label.per_atom else structures)
            for key, label in self.labels.items()
        }
        return {k: v.values for k, v in taken.items()}, {k: v.mask for k, v in taken.items()}

    def _graph(
        self,
        store: StructureStore,
        structures: Tensor,
        of_atoms: Slices,
        kept: Slices | None = None,
        new: PairList | None = None,
    ) -> AtomGraph:
        """Structures of this source's store, or of one with noise, as one graph.

        Their pairs are rows of the ``kept`` ones, or the ``new`` ones, or found here.
        """
        dtype, structure, atoms = self.dtype, of_atoms.owners, of_atoms.rows
        extras = {
            name: label.take(atoms if label.per_atom else structures).values
            for name, label in self.extra.items()
        }
        if kept is not None:
            assert self.pairs is not None
            pairs, owners, chosen = self.pairs, kept.owners, kept.rows
            centers, neighbors, shifts = (
                table.index_select(0, chosen)
                for table in (pairs.centers, pairs.neighbors, pairs.shifts)
            )
            extras.update({k: v.index_select(0, atoms) for k, v in self.per_atom.items()})
            extras.update({k: v.index_select(0, chosen) for k, v in self.per_pair.items()})
        else:
            pairs = new or pair_list(store, structures, self.cutoff)
            centers, neighbors, shifts = pairs.centers, pairs.neighbors, pairs.shifts
            owners = torch.repeat_interleave(pairs.counts)
        first_atom = of_atoms.firsts.index_select(0, owners)
        centers, neighbors = centers + first_atom, neighbors + first_atom
        positions = store.positions.index_select(0, atoms)
        cells = store.cells.index_select(0, structures)
        if self.periodic:
            shifts = shifts.to(torch.float64)
            vectors = pair_vectors(positions, cells, structure, centers, neighbors, shifts)
        else:  # all shifts are zero
            vectors = positions.index_select(0, neighbors) - positions.index_select(0, centers)
        return AtomGraph(
            positions=positions.to(dtype),
            types=store.types.index_select(0, atoms),
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
        made: Iterator[Batch] = map(self.batch, batches)
        if self.num_workers:
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
        if self.device.type == "cpu":
            return ahead(made, AHEAD) if self._in_thread else made
        sent = (batch.to(self.device) for batch in made)
        # a GPU is as quick as it is told what to do, and gathering a batch would take half of that time
        return ahead(sent, AHEAD) if self.device.type == "cuda" else sent

    @torch.no_grad()
    def _keep_structures(self, constants: Callable[[AtomGraph], Constants]) -> None:
        """Ask a single structure what the tables look like, and fill them for all."""

        def computed(structures: Tensor) -> Constants:
            return constants(self.batch(structures).to(self.device).graph)

        found = computed(torch.zeros(1, dtype=torch.int64))

        def fill(tables: dict[str, Tensor]) -> None:
            chunk = CPU_CHUNK if self.device.type == "cpu" else PAIR_CHUNK
            for part in _pieces(self.store, chunk):
                for name, values in computed(part).per_structure.items():
                    tables[name][part] = values.to("cpu")

        structures = fingerprint(self.store, labels=False)
        key = f"{found.key}, cutoff {self.cutoff}, {self.dtype}, {structures}"
        kept = self.kept or Kept(self.memory_budget)
        self.per_structure = kept.tables(key, found.per_structure, len(self.store), fill)

    def _all_pairs(self) -> PairList | None:
        """The pairs of all structures; None where they do not fit."""
        # Found in pieces, so that a data set beyond the budget is noticed before memory is full.
        pieces: list[PairList] = []
        total = 0
        for part in _pieces(self.store, PAIR_CHUNK):
            piece = pair_list(self.store, part, self.cutoff)
            total += len(piece.centers) * BYTES_PER_PAIR
            if total > self.memory_budget:
                return None
            pieces.append(piece)
        return PairList.joined(pieces)

    @torch.no_grad()
    def _keep_constants(
        self, pairs: PairList, constants: Callable[[AtomGraph], Constants], budget: int
    ) -> None:
        atom = pair = 0
        for part in _pieces(self.store, CHUNK):
            of_atoms = slices(self.store.offsets, part)
            graph = self._graph(self.store, part, of_atoms, slices(pairs.offsets, part))
            found = constants(graph)
            if atom == 0:
                per_atom, budget = _tables(found.per_atom, len(self.store.types), budget)
                per_pair, budget = _tables(found.per_pair, len(pairs.centers), budget)
                if not per_atom and not per_pair:
                    return
            atoms, n_pairs = len(graph.types), len(graph.centers)
            for name, table in per_atom.items():
                table[atom : atom + atoms] = found.per_atom[name]
            for name, table in per_pair.items():
                table[pair : pair + n_pairs] = found.per_pair[name]
            atom, pair = atom + atoms, pair + n_pairs
        if atom > 0:
            self.per_atom, self.per_pair = per_atom, per_pair
            self._all = self._are_kept(found)


@dataclass
class _Batches(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """The batches of an epoch, made where they are asked for."""

    source: BatchSource
    batches: list[Tensor]

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


class _Room:
    """Where the pairs of ``n`` structures are in tables that fill as batches compute them."""

    def __init__(self, n: int) -> None:
        self.starts = torch.full((n,), -1, dtype=torch.int64)
        self.counts = torch.zeros(n, dtype=torch.int64)
        self.used = 0

    def rows(self, structures: Tensor) -> Slices | None:
        """The rows of structures, one after the other; None where some have none yet."""
        starts = self.starts[structures]
        if bool((starts < 0).any()):
            return None
        return ranges(starts.numpy(), self.counts[structures].numpy())

    def taken(self, structures: Tensor, counts: Tensor, room: int) -> slice | None:
        """Rows for as many pairs of structures; None where the tables are full."""
        n = int(counts.sum())
        if self.used + n > room or not len(structures):
            return None
        rows = slice(self.used, self.used + n)
        self.counts[structures] = counts
        self.starts[structures] = self.used + counts.cumsum(0) - counts
        self.used += n
        return rows


def _equal(found: dict[str, Tensor], other: dict[str, Tensor], rows: Tensor) -> bool:
    """Whether some rows of tables are to the last bit those of others."""
    return all(torch.equal(found[name][rows], other[name]) for name in found)


def _tables(examples: dict[str, Tensor], rows: int, budget: int) -> tuple[dict[str, Tensor], int]:
    """Empty tables for those that fit, in their order, and what is left of the budget."""
    tables: dict[str, Tensor] = {}
    for name, example in examples.items():
        size = math.prod(example.shape[1:]) * example.element_size() * rows
        if 0 < size <= budget:
            tables[name] = torch.empty((rows, *example.shape[1:]), dtype=example.dtype)
            budget -= size
    return tables, budget
