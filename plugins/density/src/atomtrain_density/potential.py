"""What models on a density have in common.

Annotated without ``from __future__ import annotations``, which TorchScript cannot read here.
"""

from typing import Dict, List

import torch
from torch import Tensor, nn

from atomtrain.graph import AtomGraph, n_structures, type_table
from atomtrain.model import ZBL, Model
from atomtrain.targets import DatasetInfo
from atomtrain_density.elements import by_species, kept_layout
from atomtrain_density.pairs import groups_of, kept_groups
from atomtrain_density.targets import (
    any_gradients,
    largest_degree,
    refuse_new_elements,
)


class DensityModel(Model):
    """Elements, a head for each target, and which of four ways leads to an output.

    All ways lead to the same numbers, and :meth:`way` chooses:

    - ``closed form``: exported, single scalars, and what their last layers take where nobody differentiates it;
      brings its first derivatives itself;
    - ``plain``: exported, everything else; torch's operations alone, differentiable as often as one likes;
    - ``fast scalar``: in training, one scalar is all that is wanted; values and slopes at once;
    - ``fast``: in training, everything else; the density and its first derivatives are kept or explicit.

    ``plain = True`` takes the plain way everywhere: for derivatives beyond the first (Hessians).

    A subclass sets ``heads``, ``last_layers``, the names of their features by target, ``degree``, the largest of
    its density, ``n_columns``, the number of its features, ``has_closed_form``, whether single scalars have one, and
    ``hears_neighbors``, whether an atom's scalar depends on other pairs than those that start from it: then the
    closed form is that of the sum over atoms, and who asks for atoms one by one goes the plain way;
    it says what changes with targets (:meth:`build_density`, :meth:`add_heads`). Where elements have networks of
    their own, each has columns of features of its own, zero for atoms of the others.
    """

    has_closed_form: bool
    n_columns: int
    degree: int
    heads: nn.ModuleDict

    def __init__(
        self, dataset_info: DatasetInfo, name: str, cutoff: float, max_degree: int, zbl: bool
    ) -> None:
        super().__init__()
        self.plain = False
        self.hears_neighbors = False
        self.name = name
        self.max_degree = max_degree
        self.zbl = zbl
        self.cutoff = float(cutoff)
        self.atomic_types: List[int] = list(dataset_info.atomic_types)
        self.n_species = len(self.atomic_types)
        self.species_index: Tensor
        self.register_buffer("species_index", type_table(self.atomic_types), persistent=False)
        if zbl:
            self.baseline = ZBL(dataset_info)
            self.cutoff = max(self.cutoff, self.baseline.cutoff)
        self.has_gradients = any_gradients(dataset_info)
        self.last_layers: Dict[str, str] = {}

    @torch.jit.ignore
    def build_density(self, degree: int) -> None:
        """Make the parts that compute the density up to a degree, and set ``degree``; none has weights."""
        raise NotImplementedError

    @torch.jit.ignore
    def add_heads(self, dataset_info: DatasetInfo) -> None:
        """Make heads for the targets that have none."""
        raise NotImplementedError

    @torch.jit.ignore
    def degree_for(self, dataset_info: DatasetInfo) -> int:
        """Up to which degree the density has to go: as far as features or the targets' tensors need it."""
        return largest_degree(dataset_info, self.max_degree, self.name)

    def way(self, graph: AtomGraph, outputs: List[str]) -> str:
        """Which of the four ways (see the class) leads to these outputs."""
        detached = "atomtrain::detached" in graph.extras or not graph.vectors.requires_grad
        count, beside = 0, 0
        for name, head in self.heads.items():
            if head.single:
                if name in outputs:
                    count += 1
                if detached and self.last_layers[name] in outputs:
                    beside += 1
        scalars = count > 0 and count + beside == len(outputs)
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            own = not self.hears_neighbors or "atomtrain::per_atom" not in graph.extras
            closed = self.has_closed_form and (own or not graph.vectors.requires_grad)
            return "closed form" if scalars and closed and not self.plain else "plain"
        if self.plain:
            return "plain"
        return "fast scalar" if self.has_closed_form and scalars and len(outputs) == 1 else "fast"

    @torch.jit.ignore
    def keep_second_derivatives(self) -> None:
        """See :meth:`atomtrain.model.Model.keep_second_derivatives`."""
        self.plain = True

    @torch.jit.ignore
    def layout(self, graph: AtomGraph) -> Dict[str, Tensor]:
        """See :meth:`atomtrain.model.Model.layout`: atoms by element, pairs by center and element."""
        species = type_table(self.atomic_types)[graph.types]
        groups = groups_of(graph, species, self.n_species)
        return {**kept_groups(groups), **kept_layout(by_species(species, self.n_species))}

    @torch.jit.ignore
    def feature_outputs(self) -> Dict[str, int]:
        """``feature`` and the last-layer features of each target."""
        return {
            "feature": self.n_columns,
            **dict.fromkeys(self.last_layers.values(), self.n_columns),
        }

    @torch.jit.ignore
    def last_layer_outputs(self) -> Dict[str, str]:
        """Those of scalars."""
        return {n: o for n, o in self.last_layers.items() if self.heads[n].scalar}

    @torch.jit.ignore
    def last_layer_weights(self, target: str) -> Tensor:
        """See :meth:`atomtrain.model.Model.last_layer_weights`; columns by element."""
        weight: Tensor = self.heads[target].last_weight()  # type: ignore[operator]
        return weight.transpose(0, 1).flatten(1)

    @torch.jit.ignore
    def last_layer_groups(self, target: str) -> int:
        """One for each element, if each has a head of its own."""
        return int(self.heads[target].last_weight().shape[0])  # type: ignore[operator]

    @torch.jit.ignore
    def retarget(self, dataset_info: DatasetInfo) -> None:
        """New targets get new heads; the elements stay."""
        refuse_new_elements(self.atomic_types, dataset_info, self.name)
        if self.zbl:
            self.baseline = ZBL(dataset_info)
        for name in list(self.heads):
            if name not in dataset_info.targets:
                del self.heads[name]
        degree = self.degree_for(dataset_info)
        if degree != self.degree:
            self.build_density(degree)
        self.has_gradients = any_gradients(dataset_info)
        example = next(self.parameters())
        self.add_heads(dataset_info)
        self.to(example.device, example.dtype)


def with_slopes(y: Tensor, slopes: Tensor, vectors: Tensor, centers: Tensor) -> Tensor:
    """Scalars ``y [n_atoms, 1]`` as functions of the pair vectors, given their ``slopes [n_pairs, 3]``.

    An atom's scalar is a function of the vectors that start from it, and so autograd is told its value and
    its slope along each of them. There are no second derivatives, and autograd refuses them: they would else be
    taken for zero, also where a baseline has some. TorchScript knows no way to raise an error from a derivative, but
    torch has none of what cdist has for a derivative; here it is of a zero, and zero.
    """
    along = ((vectors - vectors.detach()) * slopes).sum(1, keepdim=True)
    total = along.sum(0, keepdim=True)
    return y.index_add(0, centers, along) + torch.cdist(total, total.detach(), 1.0)


def any_selected(selected: Tensor, graph: AtomGraph) -> Tensor:
    """For each atom one of its structure that is ``selected [n_atoms]``, or the first atom of all, ``[n_atoms]``.

    The sum over those that are selected has the slopes of pairs that start from others, too: it gets them there.
    """
    rows = selected.nonzero().squeeze(1)
    hosts = torch.zeros([n_structures(graph)], dtype=rows.dtype, device=rows.device)
    hosts.index_copy_(0, graph.structure.index_select(0, rows), rows)
    return hosts.index_select(0, graph.structure)
