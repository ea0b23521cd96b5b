"""What the file of an exported model should give: what the trained model gives, else what other calls gave."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from atomtrain.data import BatchSource, StructureStore
from atomtrain.graph import sum_over_structures
from atomtrain.model import Predictor
from atomtrain.model.gradients import forces_and_strain, with_leaves
from atomtrain.verification.calls import ExportedFile, Given

SAME = {torch.float32: 1e-4, torch.float64: 1e-8}
"""How far numbers may be off, as part of their size, by the precision of the network: another order of summation makes
a hundredth of it."""


@dataclass(frozen=True)
class Wanted:
    """``values [n_samples, n]`` of all structures, and how far each may be off, ``[n_samples, 1]``."""

    values: Tensor
    allowed: Tensor


def of_predictor(
    predictor: Predictor, store: StructureStore, file: ExportedFile
) -> dict[str, Wanted]:
    """What the trained model gives, by the keys of :class:`Given`.

    The size of a number is that of what is trained: of the largest atom's without the composition, which is exact,
    and at least the scale.
    """
    predictor = copy.deepcopy(predictor).cpu().eval()
    model, info = predictor.model, predictor.dataset_info
    floats = {t.dtype for t in (*model.parameters(), *model.buffers())}
    dtype = torch.float64 if torch.float64 in floats else torch.float32
    model.to(dtype)
    same = max(SAME[dtype], SAME[file.precision])
    source = BatchSource(replace(store, labels={}), model.cutoff, dtype)
    graph = with_leaves(source.batch(torch.arange(len(store))).graph)
    known = {*info.targets, *model.feature_outputs(), *model.structure_outputs()}
    names = [name for name in file.outputs if name in known]
    of_atoms = model.atom_outputs()  # what the file is asked for of atoms, as far as atoms have it
    called = {of_atoms.get(name, name): name for name in names}
    wanted: dict[str, Wanted] = {}

    def want(key: str, values: Tensor, size: Tensor | float) -> None:
        allowed = torch.as_tensor(same * size, dtype=torch.float64)
        wanted[key] = Wanted(values.detach().double(), allowed.expand(len(values), 1))

    for answer, blocks in predictor(graph, list(called)).items():
        name = called[answer]
        rows = torch.cat([block.flatten(1) for block in blocks], dim=1)
        trained, size = rows.detach(), 0.0
        target = info.targets.get(name)
        if target is not None and not (target.per_volume or target.pooled):
            affine = predictor.affine_of(name)
            nothing = [torch.zeros_like(block) for block in blocks]
            composition = affine(nothing, predictor.type_index[graph.types])
            trained = trained - torch.cat([block.flatten(1) for block in composition], dim=1)
            size = float(affine.scale.max())
        size = max(size, float(trained.abs().max()))
        if name in file.of_atoms:
            want(f"{name} of atoms", rows, size)
            sums = sum_over_structures(rows, graph.structure, len(store))
            want(name, sums, size * store.n_atoms[:, None])
        else:
            want(name, rows, size)
        if name in file.energies:
            energy = rows if rows.requires_grad else rows + 0.0 * graph.vectors.sum()
            forces, strain = forces_and_strain(
                energy, graph, strain=True, create_graph=False, retain_graph=True
            )
            assert strain is not None
            for key, gradient in ((f"{name}:forces", forces), (f"{name}:strain", strain)):
                want(key, gradient, max(float(gradient.detach().abs().max()), size / file.angstrom))
    return wanted


def of_itself(given: Sequence[Given], file: ExportedFile) -> dict[str, Wanted]:
    """What the last call on all structures gave, where nothing else is known.

    Energies may hold huge compositions: their size is what an angstrom changes, but they are rounded as they are.
    """
    whole: dict[str, Tensor] = {}
    for one in given:
        if len(one.rows) >= len(whole.get(one.key, ())) and not one.key.endswith(" of atoms"):
            whole[one.key] = one.values
    wanted = {}
    for key, values in whole.items():
        name = key.removesuffix(":forces").removesuffix(":strain")
        allowed = SAME[file.precision] * float(values.abs().max())
        if name in file.energies:
            changes = float(whole[f"{name}:forces"].abs().max()) * file.angstrom
            rounding = 8 * torch.finfo(file.dtype).eps * float(whole[name].abs().max())
            allowed = SAME[file.precision] * changes + rounding
            if key.endswith(":forces"):
                allowed /= file.angstrom
        wanted[key] = Wanted(values, torch.full((len(values), 1), allowed, dtype=torch.float64))
    return wanted
