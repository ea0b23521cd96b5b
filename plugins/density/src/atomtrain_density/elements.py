"""Layers of a network per element of the center, or of one for all.

One network per element (Behler-Parrinello, doi 10.1103/PhysRevLett.98.146401) is a stack of weights
``[n_species, ...]``; the atoms are laid out by element, padded to the most frequent one, so that
every layer is one batched product.

Annotated without ``from __future__ import annotations``, which TorchScript cannot read here.
"""

import math
from typing import Any, Dict, List, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import layer_norm, silu

from atomtrain.graph import AtomGraph


class BySpecies(NamedTuple):
    """Atoms laid out by element."""

    order: Tensor
    """[n_atoms] atoms sorted by element"""
    kinds: Tensor
    """[n_atoms] element of each atom of ``order``"""
    counts: List[int]
    """how many atoms of each element"""
    rows: Tensor
    """[n_species * width] atom at each place (the first of all where there is none)"""
    sorted_rows: Tensor
    """[n_species * width] the same, as positions in ``order``"""
    sorted_places: Tensor
    """[n_atoms] place of each atom of ``order``"""
    ranks: Tensor
    """[n_atoms] where in ``order`` each atom is"""
    places: Tensor
    """[n_atoms] place of each atom"""
    n_species: int
    width: int


def by_species(species: Tensor, n_species: int) -> BySpecies:
    """The layout for atoms of ``species [n_atoms]``, counted from 0."""
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        layout = _by_species(species, n_species)
    elif species.device.type == "cpu":
        layout = _by_species_numpy(species, n_species)
    else:
        layout = _by_species(species, n_species)
    return layout


def _by_species(species: Tensor, n_species: int) -> BySpecies:
    n_atoms = species.shape[0]
    counts = torch.bincount(species, minlength=n_species)
    listed: List[int] = counts.tolist()
    width = max(listed) if n_species > 0 else 0
    kinds, order = torch.sort(species, stable=True)
    every = torch.arange(n_atoms, device=species.device)
    gaps: List[int] = []  # empty places before the atoms of each element
    total = 0
    for k, count in enumerate(listed):
        gaps.append(k * width - total)
        total += count
    gap = torch.tensor(gaps, dtype=torch.int64, device=species.device)
    sorted_places = every + gap.index_select(0, kinds)
    sorted_rows = torch.zeros(n_species * width, dtype=torch.int64, device=species.device)
    sorted_rows = sorted_rows.index_copy(0, sorted_places, every)
    rows = order.index_select(0, sorted_rows) if n_atoms > 0 else sorted_rows
    ranks = torch.empty_like(order).index_copy(0, order, every)
    places = sorted_places.index_select(0, ranks)
    return BySpecies(
        order, kinds, listed, rows, sorted_rows, sorted_places, ranks, places, n_species, width
    )


def _by_species_numpy(species: Tensor, n_species: int) -> BySpecies:
    """The same. With few atoms calls take the time, and numpy's take half that of torch's."""
    counts = np.bincount(species.numpy(), minlength=n_species)
    width = int(counts.max(initial=0))
    order = np.argsort(species.numpy(), kind="stable")
    every = np.arange(len(order))
    gaps = np.arange(n_species) * width - (counts.cumsum() - counts)
    sorted_places = every + np.repeat(gaps, counts)
    sorted_rows = np.zeros(n_species * width, dtype=np.int64)
    sorted_rows[sorted_places] = every
    rows = order[sorted_rows] if len(order) > 0 else sorted_rows
    ranks = np.empty_like(order)
    ranks[order] = every
    return BySpecies(
        torch.from_numpy(order),
        torch.from_numpy(species.numpy()[order]),
        counts.tolist(),
        torch.from_numpy(rows),
        torch.from_numpy(sorted_rows),
        torch.from_numpy(sorted_places),
        torch.from_numpy(ranks),
        torch.from_numpy(sorted_places[ranks]),
        n_species,
        width,
    )


def layout_of(graph: AtomGraph, species: Tensor, n_species: int) -> BySpecies:
    """The layout of a batch, for which nobody waits where the batch brings it (:func:`kept_layout`)."""
    kept = graph.extras
    if "host/atoms" not in kept:
        return by_species(species, n_species)
    counts: List[int] = kept["host/atoms"].tolist()
    return BySpecies(
        kept["atoms/order"],
        kept["atoms/kinds"],
        counts,
        kept["atoms/rows"],
        kept["atoms/sorted_rows"],
        kept["atoms/sorted_places"],
        kept["atoms/ranks"],
        kept["atoms/places"],
        n_species,
        max(counts),
    )


def kept_layout(layout: BySpecies) -> Dict[str, Tensor]:
    """What a batch brings of its layout (:meth:`atomtrain.model.Model.layout`)."""
    found = {f"atoms/{k}": v for k, v in layout._asdict().items() if isinstance(v, Tensor)}
    return {**found, "host/atoms": torch.tensor(layout.counts)}


def by_atom(of_species: Tensor, layout: BySpecies) -> Tensor:
    """``[n_species, n] -> [n_atoms, n]`` for atoms sorted by element; of one element as it is."""
    if layout.n_species == 1:
        return of_species
    return of_species.index_select(0, layout.kinds)


def all_together(species: Tensor) -> BySpecies:
    """The layout of a network that all elements share: one group, atoms as they are."""
    every = torch.arange(species.shape[0], device=species.device)
    n = species.shape[0]
    kinds = torch.zeros_like(every)
    return BySpecies(every, kinds, [n], every, every, every, every, every, 1, n)


def columns_by_element(x: Tensor, layout: BySpecies) -> Tensor:
    """``[n_species, width, n] -> [n_atoms, n_species * n]``, columns by element of the center.

    Those of the other elements are 0.
    """
    n_groups, n = x.shape[0], x.shape[2]
    y = x.flatten(0, 1).index_select(0, layout.places)
    if n_groups == 1:
        return y
    group = torch.div(layout.places, layout.width, rounding_mode="floor")
    own = torch.nn.functional.one_hot(group, n_groups).to(y.dtype)
    return (own.unsqueeze(2) * y.unsqueeze(1)).reshape(y.shape[0], n_groups * n)


def own_columns(x: Tensor, species: Tensor, n_species: int) -> Tensor:
    """``[n_atoms, n] -> [n_atoms, n_species * n]``: each atom's numbers in the columns of its element, else 0."""
    if n_species == 1:
        return x
    own = torch.nn.functional.one_hot(species, n_species).to(x.dtype)
    return (own.unsqueeze(2) * x.unsqueeze(1)).flatten(1)


def _weight(n_species: int, n_out: int, n_in: int) -> nn.Parameter:
    """``[n_species, n_out, n_in]``, initialised as torch initialises its linear layers."""
    bound = 1.0 / math.sqrt(n_in)
    return nn.Parameter(torch.empty(n_species, n_out, n_in).uniform_(-bound, bound))


class LinearBySpecies(nn.Module):
    """A linear layer without bias per element: ``[n_species, width, n_in] -> [..., n_out]``."""

    def __init__(self, n_species: int, n_in: int, n_out: int) -> None:
        super().__init__()
        self.weight = _weight(n_species, n_out, n_in)

    def forward(self, x: Tensor) -> Tensor:
        return torch.bmm(x, self.weight.transpose(1, 2))


def activation(x: Tensor) -> Tensor:
    """SiLU, ``x sigmoid(x)``."""
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        y = silu(x)
    else:
        y = _Silu.apply(x)
    return y


class _Silu(torch.autograd.Function):
    """torch's SiLU, whose derivatives autograd takes apart into several times as many operations."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return silu(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:  # type: ignore[override]
        return _SiluGradient.apply(g, *ctx.saved_tensors)


class _SiluGradient(torch.autograd.Function):
    """``g silu'(x)``. Its backward is made of plain operations, so it has all further derivatives."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(g, x)
        return torch.ops.aten.silu_backward(g, x)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, by_result: Tensor) -> Any:  # type: ignore[override]
        g, x = ctx.saved_tensors
        s = torch.sigmoid(x)
        rest = 1.0 - s
        slope = s * torch.addcmul(torch.ones_like(x), x, rest)
        second = s * rest * torch.addcmul(torch.full_like(x, 2.0), x, rest - s)
        return by_result * slope, by_result * g * second


def add_bend(g: Tensor, z: Tensor, factor: Tensor) -> None:
    """Add ``factor silu''(z)`` to ``g``; silu'' = s (1 - s) (2 + z (1 - 2 s)) with the sigmoid s."""
    s = torch.sigmoid(z)
    bend = torch.ops.aten.sigmoid_backward(factor, s)
    g.addcmul_(bend, (z + 2.0).addcmul_(z, s, value=-2.0))


def normalised(x: Tensor) -> Tensor:
    """Rows of ``x [n, n_features]`` with mean 0 and variance 1: a layer norm without scale and shift."""
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        y = layer_norm(x, [x.shape[1]])
    else:
        y = _Normalised.apply(x)
    return y


class _Normalised(torch.autograd.Function):
    """torch's layer norm, whose second derivatives autograd takes apart into dozens of passes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = x - x.mean(1, keepdim=True)
        inverse = torch.rsqrt(torch.linalg.vecdot(y, y).unsqueeze(1) / x.shape[1] + 1e-5)
        y.mul_(inverse)
        ctx.save_for_backward(x, y, inverse)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:  # type: ignore[override]
        x, y, inverse = ctx.saved_tensors
        return _NormalisedGradient.apply(g, x, y.detach(), inverse)


class _NormalisedGradient(torch.autograd.Function):
    """``J g`` with ``J = (1 - 1/F - y y^T / F) / deviation``, which is symmetric.

    With a = <g, y> / F, b = <v, y> / F, c = <g, v> / F of centred g and v, the derivative of <v, J g>
    in what was normalised is ``((3 a b - c) y - b g - a v) / variance``.
    """

    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, y: Tensor, inverse: Tensor) -> Tensor:
        g = g - g.mean(1, keepdim=True)
        a = torch.linalg.vecdot(g, y).unsqueeze(1) / y.shape[1]
        ctx.save_for_backward(g, y, inverse, a)
        return torch.addcmul(g, y, a, value=-1.0).mul_(inverse)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, v: Tensor) -> Any:  # type: ignore[override]
        g, y, inverse, a = ctx.saved_tensors
        v = v - v.mean(1, keepdim=True)
        b = torch.linalg.vecdot(v, y).unsqueeze(1) / y.shape[1]
        c = torch.linalg.vecdot(v, g).unsqueeze(1) / y.shape[1]
        square = inverse.square()
        by_x = y * ((3.0 * a * b - c) * square)
        by_x.addcmul_(g, b * square, value=-1.0).addcmul_(v, a * square, value=-1.0)
        return v.addcmul_(y, b, value=-1.0).mul_(inverse), by_x, None, None


def first_layer(x: Tensor, weight: Tensor, layout: BySpecies) -> Tensor:
    """``[n_atoms, n_in] -> [n_atoms, n_out]`` for atoms sorted by element; one product an element."""
    weights = weight.unbind(0)
    parts: List[Tensor] = []
    for k, part in enumerate(x.split_with_sizes(layout.counts)):
        parts.append(torch.mm(part, weights[k].t()))
    return torch.cat(parts)
