"""What a predictor says of structures, and whether two predictions agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from atomtrain.data import BatchSource, Label, StructureStore
from atomtrain.graph import AtomGraph
from atomtrain.model import (
    ExtraInput,
    Model,
    Predictor,
    forces_and_strain,
    inputs_of,
    with_leaves,
)
from atomtrain_testing.checks import expect_equal


@dataclass
class Prediction:
    """What a predictor says of one batch: blocks per atom, and the derivatives of its energy.

    Targets in ``pooled`` have one row per structure instead.
    """

    blocks: dict[str, list[Tensor]]
    forces: Tensor | None = None
    strain: Tensor | None = None
    pooled: frozenset[str] = frozenset()

    def total(self, name: str) -> Tensor:
        """A target of a single structure: the sum over all atoms of its first block."""
        return self.blocks[name][0].sum(0)

    def pick(self, rows: Tensor, structure: int | None = None) -> Prediction:
        """These atoms, and ``structure`` or the only one there is."""
        k = slice(None) if structure is None else slice(structure, structure + 1)
        blocks = {
            n: [b[k] if n in self.pooled else b[rows] for b in blocks]
            for n, blocks in self.blocks.items()
        }
        forces = None if self.forces is None else self.forces[rows]
        strain = None if self.strain is None else self.strain[k]
        return Prediction(blocks, forces, strain, self.pooled)


def store_of(
    frames: Sequence[Atoms], inputs: Mapping[str, ExtraInput] | None = None
) -> StructureStore:
    """Structures without labels, with the extra ``inputs`` of a model as :func:`inputs_for` gives them."""
    extra = {}
    for name, one in (inputs or {}).items():
        values = [inputs_for(atoms, name, one).reshape(-1, one.width) for atoms in frames]
        extra[name] = Label(torch.from_numpy(np.concatenate(values)), one.per_atom)
    counts = torch.tensor([0, *(len(a) for a in frames)]).cumsum(0)
    return StructureStore(
        positions=torch.cat([torch.from_numpy(a.positions) for a in frames]).double(),
        types=torch.cat([torch.from_numpy(a.numbers) for a in frames]).long(),
        cells=torch.stack(
            [torch.from_numpy(a.cell.array * a.pbc[:, None]) for a in frames]
        ).double(),
        pbc=torch.stack([torch.tensor([bool(p) for p in a.pbc]) for a in frames]),
        offsets=counts,
        extra=extra,
    )


def inputs_for(atoms: Atoms, name: str, one: ExtraInput) -> np.ndarray:
    """What a structure has of an extra input, or each of its atoms: what ASE has under its name, else an example.

    The second example for structures, as the first may be one for which the model does nothing; by element for atoms.
    """
    if one.per_atom:
        if name in atoms.arrays:
            return np.asarray(atoms.arrays[name], dtype=float)
        examples = np.array(one.examples, dtype=float)[atoms.numbers % len(one.examples)]
        return np.repeat(examples, one.width).reshape(len(atoms), one.width)
    return np.full(one.width, atoms.info.get(name, one.examples[1]), dtype=float)


def with_input(atoms: Atoms, name: str, one: ExtraInput, example: int) -> Atoms:
    """A copy with one of the examples, or from this on, if there is one for each atom."""
    found, n = atoms.copy(), len(one.examples)
    found.calc = atoms.calc  # with its labels
    if one.per_atom:
        values = np.array(one.examples, dtype=float)[(example + np.arange(len(atoms))) % n]
        found.set_array(name, np.repeat(values, one.width).reshape(len(atoms), one.width))
    else:
        found.info[name] = one.examples[example % n]
    return found


def graph_of(
    model: Model,
    frames: Sequence[Atoms],
    dtype: torch.dtype = torch.float64,
    *,
    constants: bool = False,
) -> AtomGraph:
    """All frames as one batch, as training would see it."""
    kept = model.constants if constants else None
    store = store_of(frames, inputs_of(model))
    source = BatchSource(store, float(model.cutoff), dtype, kept, memory_budget=10**9)
    return source.batch(torch.arange(len(frames))).graph


def predict(predictor: Predictor, graph: AtomGraph, *, create_graph: bool = False) -> Prediction:
    """Every target of the predictor, with forces and strain derivative where it is an energy."""
    info = predictor.dataset_info
    energies = [name for name, target in info.targets.items() if target.is_energy]
    pooled = frozenset(name for name, target in info.targets.items() if target.pooled)
    if not energies:
        return Prediction(predictor(graph, list(info.targets)), pooled=pooled)
    graph = with_leaves(graph)
    blocks = predictor(graph, list(info.targets))
    energy = blocks[energies[0]][0].sum()
    if not energy.requires_grad:  # no atom has a neighbour, or nothing depends on positions
        energy = energy + 0.0 * graph.positions.sum()
    forces, strain = forces_and_strain(energy, graph, strain=True, create_graph=create_graph)
    return Prediction(blocks, forces, strain, pooled)


def predict_one(predictor: Predictor, atoms: Atoms) -> Prediction:
    """:func:`predict` of one structure alone."""
    return predict(predictor, graph_of(predictor.model, [atoms]))


def expect_same(found: Prediction, wanted: Prediction, tolerance: float, what: str) -> None:
    """Compare every number of two predictions."""
    for name, blocks in wanted.blocks.items():
        for k, block in enumerate(blocks):
            part = what if len(blocks) == 1 else f"{what}, block {k}"
            expect_equal(found.blocks[name][k], block, tolerance, part)
    if wanted.forces is not None and found.forces is not None:
        expect_equal(found.forces, wanted.forces, 10 * tolerance, f"{what}: forces")
    if wanted.strain is not None and found.strain is not None:
        expect_equal(found.strain, wanted.strain, 100 * tolerance, f"{what}: stress")
