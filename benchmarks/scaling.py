"""How the cost of an architecture grows: atoms, neighbours, elements, structures.

Times a training step with forces (one thread) on periodic random packings, prints a table and the
exponent between neighbouring rows: 1 is linear. ``python benchmarks/scaling.py ace``, with the Python that has
``atomtrain`` and that architecture (``soap-bpnn`` unless another is named); it takes some minutes.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from statistics import median

import numpy as np
import torch
from ase import Atoms

from atomtrain.contract import BuildContext
from atomtrain.data import BatchSource, Label, StructureStore
from atomtrain.model import Predictor
from atomtrain.plugins import open_architecture
from atomtrain.plugins.restore import build_model
from atomtrain.targets import DatasetInfo, TargetInfo
from atomtrain.training.predict import predict

ELEMENTS = (1, 6, 7, 8, 9, 15, 16, 17)
CUTOFF = 5.0


def packing(n_atoms: int, n_neighbors: int, n_elements: int, seed: int = 0) -> Atoms:
    """A shaken lattice with about ``n_neighbors`` atoms within the cutoff of each."""
    rng = np.random.default_rng(seed)
    density = n_neighbors / (4 / 3 * math.pi * CUTOFF**3)
    per_side = max(1, round(n_atoms ** (1 / 3)))
    layers = math.ceil(n_atoms / per_side**2)
    spacing = density ** (-1 / 3)
    sites = np.array(list(np.ndindex(per_side, per_side, layers)))[:n_atoms] * spacing
    positions = sites + 0.1 * spacing * rng.normal(size=(n_atoms, 3))
    numbers = rng.permutation(np.resize(ELEMENTS[:n_elements], n_atoms))
    cell = [per_side * spacing, per_side * spacing, layers * spacing]
    return Atoms(numbers, positions, cell=cell, pbc=True)


def store_of(frames: list[Atoms]) -> StructureStore:
    """Structures with made-up energies and forces."""
    n_atoms = sum(map(len, frames))
    generator = torch.Generator().manual_seed(0)
    random = torch.randn(n_atoms, 3, dtype=torch.float64, generator=generator)
    counts = np.cumsum([0, *(len(a) for a in frames)])
    return StructureStore(
        positions=torch.from_numpy(np.concatenate([a.positions for a in frames])),
        types=torch.from_numpy(np.concatenate([a.numbers for a in frames]).astype(np.int64)),
        cells=torch.from_numpy(np.stack([a.cell.array for a in frames])),
        pbc=torch.from_numpy(np.stack([a.pbc for a in frames])),
        offsets=torch.from_numpy(counts.astype(np.int64)),
        labels={
            "energy": Label(random[: len(frames), :1], False),
            "energy:forces": Label(random, True),
        },
    )


def step_time(
    name: str, frames: list[Atoms], n_elements: int, batch: int
) -> tuple[float, float, int, float]:
    """Milliseconds of processor time of a training step on ``batch`` of the ``frames``.

    Also those of what is done once, pair lists and descriptors of all frames; the pairs of a step; and
    the megabytes that are kept.
    """
    torch.manual_seed(0)
    target = TargetInfo("energy", quantity="energy", gradients=("forces",))
    info = DatasetInfo("angstrom", ELEMENTS[:n_elements], {"energy": target})
    architecture = open_architecture(name)
    hypers = architecture.model_hypers_class()()
    model = build_model(architecture, hypers, info, BuildContext("train"))
    predictor = Predictor(model, info).to(dtype=torch.float32)
    store = store_of(frames)
    start = time.process_time()
    source = BatchSource(
        store,
        cutoff=CUTOFF,
        dtype=torch.float32,
        constants=predictor.model.constants,
        memory_budget=8 * 10**9,
    )
    once = 1000 * (time.process_time() - start)
    parameters = list(predictor.model.parameters())
    optimizer = torch.optim.Adam(parameters, fused=True)
    times = []
    n_pairs = 0
    generator = torch.Generator().manual_seed(0)
    for _ in range(7 if batch == len(frames) else 60):
        chosen = torch.randperm(len(frames), generator=generator)[:batch]
        start = time.process_time()
        made = source.batch(chosen)
        found = predict(predictor, made, create_graph=True)
        loss = sum((found[key] - made.labels[key]).square().mean() for key in found)
        optimizer.zero_grad()
        loss.backward(inputs=parameters)  # type: ignore[union-attr]
        optimizer.step()
        times.append(1000 * (time.process_time() - start))
        n_pairs = len(made.graph.centers)
    return median(times[2:]), once, n_pairs, source.memory / 1e6


def studies() -> Iterator[tuple[str, list[int], Callable[[int], tuple[list[Atoms], int, int]]]]:
    """What grows, its values, and for a value structures, elements, and how many are a batch."""
    yield (
        "structures in the data set",
        [100, 1000, 10000],
        lambda n: ([packing(9, 8, 3, seed) for seed in range(n)], 3, 8),
    )
    yield "atoms", [100, 300, 1000, 3000, 10000], lambda n: ([packing(n, 40, 2)], 2, 1)
    yield "neighbours", [20, 40, 70, 100], lambda n: ([packing(1000, n, 2)], 2, 1)
    yield "elements", [1, 2, 4, 8], lambda n: ([packing(1000, 40, n)], n, 1)
    yield (
        "structures in a batch",
        [1, 10, 100, 1000],
        lambda n: ([packing(9, 8, 3, seed) for seed in range(n)], 3, n),
    )


def main() -> None:
    """Measure and print."""
    name = sys.argv[1] if len(sys.argv) > 1 else "soap-bpnn"
    torch.set_num_threads(1)
    print(
        "| what grows | value | pairs | step, ms | exponent | once, ms | kept, MB |\n"
        "|---|---|---|---|---|---|---|"
    )
    for what, values, make in studies():
        before: tuple[int, float] | None = None
        for value in values:
            milliseconds, once, n_pairs, kept = step_time(name, *make(value))
            exponent = ""
            if before is not None:
                ratio = math.log(milliseconds / before[1]) / math.log(value / before[0])
                exponent = f"{ratio:.2f}"
            cells = f"{what} | {value} | {n_pairs} | {milliseconds:.3g} | {exponent}"
            print(f"| {cells} | {once:.4g} | {kept:.3g} |", flush=True)
            before = (value, milliseconds)


if __name__ == "__main__":
    main()
