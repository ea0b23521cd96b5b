"""One scalar per atom, its slope in the density, and what training needs of both, all written out.

Annotated without ``from __future__ import annotations``, which TorchScript cannot read here.
"""

from typing import Any, List, NamedTuple, Tuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import silu

from atomtrain_density.density import by_atom, by_element
from atomtrain_density.elements import BySpecies, add_bend
from atomtrain_density.products import Channels, Moved, Products


class Weights(NamedTuple):
    """All that is learnt of one scalar; S elements, Q columns of the density, F features."""

    pair: Tensor
    """[L + 1, S, Q, 2 C]"""
    third: Tensor
    """[L + 1, S, Q, C]; no columns for correlation 2"""
    first: Tensor
    """[F, n_neurons]"""
    offset: Tensor
    """[n_atoms, n_neurons], atoms in the order of the structures"""
    linear: Tensor
    """[S, F]"""
    last: Tensor
    """[S, n_neurons]"""


class Norm(NamedTuple):
    """Statistics of the training set."""

    density: Tensor
    """[S, Q], the mean of degree 0, which is subtracted"""
    mean: Tensor
    """[S, F], of the features"""
    scale: Tensor
    """[S, F], what the difference is multiplied by"""


class Pass(NamedTuple):
    """From the density to scalars; atoms by element."""

    channels: Channels
    x: Tensor
    """[n_atoms, F] normalised features"""
    z: Tensor
    """[n_atoms, n_neurons], before the activation"""
    linear: Tensor
    """[n_atoms, F], weights"""
    last: Tensor
    """[n_atoms, n_neurons], weights"""
    scalars: Tensor
    """[n_atoms, 1]"""


class Slopes(NamedTuple):
    """Derivatives of the scalars of a :class:`Pass`."""

    channels: Channels
    """see :meth:`Products.adjoint`"""
    by_dot: List[Tensor]
    on_z: Tensor
    density: List[Tensor]
    """[K n_s, Q] for each element"""


class Network(Products):
    """Products, and the readout behind them: scalars and their slopes, in plain operations."""

    def forward_pass(
        self, density: List[Tensor], layout: BySpecies, w: Weights, norm: Norm
    ) -> Pass:
        """Scalars of the density."""
        kinds = layout.kinds
        channels = self.channels_of(density, w.pair, w.third, layout.counts)
        x = self.features(channels, layout.counts)
        x = (x - norm.mean.index_select(0, kinds)).mul_(norm.scale.index_select(0, kinds))
        z = torch.addmm(w.offset.index_select(0, layout.order), x, w.first)
        linear = w.linear.index_select(0, kinds)
        last = w.last.index_select(0, kinds)
        y = (x * linear).sum(1, keepdim=True) + (silu(z) * last).sum(1, keepdim=True)
        return Pass(channels, x, z, linear, last, y)

    def slopes(self, done: Pass, layout: BySpecies, w: Weights, norm: Norm) -> Slopes:
        """The slopes of the scalars of ``done``."""
        on_z = torch.ops.aten.silu_backward(done.last, done.z)
        on_x = torch.addmm(done.linear, on_z, w.first.t())
        on_x.mul_(norm.scale.index_select(0, layout.kinds))
        channels, by_dot = self.adjoint(done.channels, on_x, layout.counts)
        density = self.unmixed(channels, w.pair, w.third, layout.counts)
        return Slopes(channels, by_dot, on_z, density)


def scalars(
    products: Network,
    flat: Tensor,
    layout: BySpecies,
    w: Weights,
    norm: Norm,
    wanted: bool,
) -> "Tuple[Tensor, Tensor | None]":
    """Scalars ``[n_atoms, 1]`` and, if ``wanted``, their slopes ``[n_atoms, K Q]`` in the density ``flat``.

    The density is a constant. First derivatives of both in the weights are autograd's to take.
    """
    y, g = _Scalars.apply(products, flat, layout, norm, wanted, *w)
    return y, g


class _Scalars(torch.autograd.Function):
    """Scalars y and slopes g, and the derivatives in the weights of ``<a, y> + <b, g>``.

    ``<b, g>`` is the change of the sum of all y when the density changes by b. So tangents along b are
    computed forwards; what is backwards from them was computed for the slopes already, and values
    are gone through backwards once, with what tangents add to each.
    """

    @staticmethod
    def forward(
        ctx: Any, products: Network, flat: Tensor, layout: BySpecies, norm: Norm, wanted: bool,
        *weights: Tensor,
    ) -> Any:  # fmt: skip
        w = Weights(*weights)
        density = by_element(flat, layout, products.n_harmonics, norm.density)
        done = products.forward_pass(density, layout, w, norm)
        y = done.scalars.index_select(0, layout.ranks)
        found, g = None, None
        if wanted:
            found = products.slopes(done, layout, w, norm)
            g = by_atom(found.density, layout, products.n_harmonics)
            found = found._replace(density=[])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*weights)
        ctx.known = products, layout, norm, density, done, found
        return y, g

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, a: "Tensor | None", b: "Tensor | None") -> Any:  # type: ignore[override]
        w = Weights(*ctx.saved_tensors)
        products, layout, norm, density, done, found = ctx.known
        kinds, counts = layout.kinds, layout.counts
        scale = norm.scale.index_select(0, kinds)
        x, z = done.x, done.z
        if a is None:
            a = torch.zeros_like(done.scalars)
        else:
            a = a.index_select(0, layout.order)
        on_z = torch.ops.aten.silu_backward(a * done.last, z)
        on_linear = a * x
        on_last = a * silu(z)
        if b is None:
            on_x = torch.addmm(a * done.linear, on_z, w.first.t()).mul_(scale)
            by_first = x.t() @ on_z
            channels, _ = products.adjoint(done.channels, on_x, counts)
            moves: List[Tensor] = []
        else:
            moves = by_element(b, layout, products.n_harmonics, torch.zeros_like(norm.density))
            tangent = products.channels_of(moves, w.pair, w.third, counts, done.channels)
            dx = products.features(done.channels, counts, tangent).mul_(scale)
            dz = dx @ w.first
            add_bend(on_z, z, done.last * dz)
            on_linear += dx
            on_last += torch.ops.aten.silu_backward(dz, z)
            on_x = torch.addmm(a * done.linear, on_z, w.first.t()).mul_(scale)
            by_first = torch.addmm(x.t() @ on_z, dx.t(), found.on_z)
            moved = Moved(tangent, found.channels, found.by_dot)
            channels, _ = products.adjoint(done.channels, on_x, counts, moved)
        by_pair, by_third = products.by_weights(density, channels)
        if moves:
            products.add_by_weights(moves, found.channels, by_pair, by_third)
        by_offset = on_z.index_select(0, layout.ranks)
        by_linear, by_last = (
            v.new_zeros(layout.n_species, v.shape[1]).index_add_(0, kinds, v)
            for v in (on_linear, on_last)
        )
        by_weights = Weights(by_pair, by_third, by_first, by_offset, by_linear, by_last)
        return None, None, None, None, None, *by_weights
