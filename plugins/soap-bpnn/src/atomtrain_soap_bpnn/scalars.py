"""One scalar per atom from its features, the scalar's slope along them, and what training needs of both.

Forces need the slope dy/dx of a network, and training on forces the derivative of that in the weights.
Autograd finds it by recording the first derivative operation by operation, which for a network this
small takes longer than to compute it. Here all of it is written out: values forwards, slopes
backwards, and one function (:class:`_Scalars`) for the derivatives of both in the weights.

Annotated without ``from __future__ import annotations``, which TorchScript cannot read here.
"""

from typing import Any, List, NamedTuple, Tuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import silu

from atomtrain_soap_bpnn.network import BySpecies, first_layer


class Network(NamedTuple):
    """Weights of the layers per element, SiLU after all but the last, none with a bias but the first."""

    first: Tensor
    """[n_species, n_neurons, n_features]"""
    offset: Tensor
    """[n_species, n_neurons], added by the first layer"""
    hidden: List[Tensor]
    """[n_species, n_neurons, n_neurons] each"""
    last: Tensor
    """[n_species, 1, n_neurons]"""


class Pass(NamedTuple):
    """What the layers made of the features: the first for atoms by element, the others padded."""

    features: Tensor
    """[n_atoms, n_features], atoms sorted by element"""
    before: List[Tensor]
    """what each SiLU was given: ``[n_atoms, n_neurons]``, then ``[n_species, width, n_neurons]``"""
    after: List[Tensor]
    """what it gave, ``[n_species, width, n_neurons]`` each"""
    scalars: Tensor
    """[n_atoms, 1]"""


class Slopes(NamedTuple):
    """Derivatives of the scalars, in the shapes of :class:`Pass`."""

    after: List[Tensor]
    """in what each SiLU gave; that of the first ``[n_atoms, n_neurons]``"""
    before: List[Tensor]
    """in what it was given"""
    features: Tensor
    """[n_atoms, n_features], atoms in the order of the structures"""


def forward_pass(x: Tensor, layout: BySpecies, network: Network) -> Pass:
    """The scalars of features ``x [n_atoms, n_features]``."""
    if layout.n_species > 1:
        x = x.index_select(0, layout.order)
    z = first_layer(x, network.first, network.offset, layout)
    before = [z]
    a = silu(z).index_select(0, layout.sorted_rows)
    a = a.reshape(layout.n_species, layout.width, z.shape[1])
    after = [a]
    for weight in network.hidden:
        z = torch.bmm(a, weight.transpose(1, 2))
        a = silu(z)
        before.append(z)
        after.append(a)
    y = torch.bmm(a, network.last.transpose(1, 2)).flatten(0, 1)
    return Pass(x, before, after, y.index_select(0, layout.places))


def slopes(done: Pass, layout: BySpecies, network: Network) -> Slopes:
    """The slopes of the scalars of ``done``."""
    n = len(network.hidden)
    by_after = network.last.expand(done.after[n].shape)
    after: List[Tensor] = []
    before: List[Tensor] = []
    for k in range(n, 0, -1):
        by_before = torch.ops.aten.silu_backward(by_after, done.before[k])
        after.append(by_after)
        before.append(by_before)
        by_after = torch.bmm(by_before, network.hidden[k - 1])
    by_after = by_after.flatten(0, 1).index_select(0, layout.sorted_places)
    by_before = torch.ops.aten.silu_backward(by_after, done.before[0])
    after.append(by_after)
    before.append(by_before)
    after.reverse()
    before.reverse()
    g = torch.empty_like(done.features)
    parts = g.split(layout.counts)
    for k, part in enumerate(by_before.split(layout.counts)):
        torch.mm(part, network.first[k], out=parts[k])
    if layout.n_species > 1:
        g = g.index_select(0, layout.ranks)
    return Slopes(after, before, g)


def scalars_of_few(x: Tensor, own: Tensor, network: Network) -> Tuple[Tensor, Tensor]:
    """Scalars and slopes of few atoms in as few operations as possible.

    ``own [n_atoms, n_species]`` is 1 for the element of an atom, else 0. The first layers of all
    elements are for all atoms, of the others each atom gets a copy.
    """
    first = network.first.flatten(0, 1)
    z = torch.mm(x, first.t()).reshape(own.shape[0], own.shape[1], -1)
    z = torch.bmm(own.unsqueeze(1), z + network.offset)
    a = silu(z)
    before = [z]
    hidden: List[Tensor] = []
    for each in network.hidden:
        weight = torch.mm(own, each.flatten(1)).reshape(own.shape[0], each.shape[1], each.shape[2])
        z = torch.bmm(a, weight.transpose(1, 2))
        a = silu(z)
        before.append(z)
        hidden.append(weight)
    g = torch.mm(own, network.last.flatten(1)).unsqueeze(1)
    y = (a * g).sum(2)
    for k in range(len(hidden), 0, -1):
        g = torch.bmm(torch.ops.aten.silu_backward(g, before[k]), hidden[k - 1])
    g = torch.ops.aten.silu_backward(g, before[0])
    return y, torch.mm(torch.bmm(own.unsqueeze(2), g).flatten(1), first)


def scalars(
    x: Tensor, layout: BySpecies, network: Network, wanted: bool
) -> "Tuple[Tensor, Tensor | None]":
    """Scalars ``[n_atoms, 1]`` and, if ``wanted``, slopes ``[n_atoms, n_features]``.

    ``x`` are constants. First derivatives of both in the weights are autograd's to take.
    """
    y, g = _Scalars.apply(
        x, layout, wanted, network.first, network.offset, network.last, *network.hidden
    )
    return y, g


class _Scalars(torch.autograd.Function):
    """Scalars y and slopes g, and the derivatives in the weights of ``<a, y> + <b, g>``.

    ``<b, g>`` is the change of the sum of all y when x changes by b; so the tangents of the layers
    along b are computed forwards, then values and tangents are gone through backwards together.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, layout: BySpecies, wanted: bool,
        first: Tensor, offset: Tensor, last: Tensor, *hidden: Tensor,
    ) -> Any:  # fmt: skip
        network = Network(first, offset, list(hidden), last)
        done = forward_pass(x, layout, network)
        found = slopes(done, layout, network) if wanted else None
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(first, offset, last, *hidden)
        ctx.layout = layout
        ctx.values = (done.features, done.before, done.after)
        ctx.slopes = None if found is None else (found.after, found.before)
        return done.scalars, None if found is None else found.features

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, a: "Tensor | None", b: "Tensor | None") -> Any:  # type: ignore[override]
        first, offset, last, *hidden = ctx.saved_tensors
        layout: BySpecies = ctx.layout
        x, before, after = ctx.values
        shape = (layout.n_species, layout.width)

        by_after = torch.zeros_like(after[-1])
        by_last = torch.zeros_like(last)
        if a is not None:
            a = a.new_zeros(layout.n_species * layout.width, 1).index_copy_(0, layout.places, a)
            a = a.reshape(*shape, 1)
            by_after = a * last
            by_last = torch.bmm(a.transpose(1, 2), after[-1])
        along: List[Tensor] = []  # tangents of what SiLU was given, and of what it gave
        moved: List[Tensor] = []
        if b is not None:
            if layout.n_species > 1:
                b = b.index_select(0, layout.order)
            along = [first_layer(b, first, None, layout)]
            t = torch.ops.aten.silu_backward(along[0], before[0])
            t = t.new_zeros(shape[0] * shape[1], t.shape[1]).index_copy_(0, layout.sorted_places, t)
            moved = [t.reshape(*shape, -1)]
            for weight, z in zip(hidden, before[1:], strict=True):
                along.append(torch.bmm(moved[-1], weight.transpose(1, 2)))
                moved.append(torch.ops.aten.silu_backward(along[-1], z))
            by_last += moved[-1].sum(1, keepdim=True)

        by_hidden: List[Tensor] = []
        for k in range(len(hidden), -1, -1):
            if k == 0:
                by_after = by_after.flatten(0, 1).index_select(0, layout.sorted_places)
            by_before = torch.ops.aten.silu_backward(by_after, before[k])
            if b is not None:
                _add_bend(by_before, before[k], ctx.slopes[0][k] * along[k])
            if k > 0:
                by_weight = torch.bmm(by_before.transpose(1, 2), after[k - 1])
                if b is not None:
                    by_weight.baddbmm_(ctx.slopes[1][k].transpose(1, 2), moved[k - 1])
                by_hidden.append(by_weight)
                by_after = torch.bmm(by_before, hidden[k - 1])

        by_first = torch.empty_like(first)
        by_offset = torch.empty_like(offset)
        parts = [by_before.split(layout.counts), x.split(layout.counts)]
        if b is not None:
            parts += [ctx.slopes[1][0].split(layout.counts), b.split(layout.counts)]
        for k, (g, x_, *rest) in enumerate(zip(*parts, strict=True)):
            torch.mm(g.t(), x_, out=by_first[k])
            torch.sum(g, 0, out=by_offset[k])
            if b is not None:
                by_first[k].addmm_(rest[0].t(), rest[1])
        return None, None, None, by_first, by_offset, by_last, *reversed(by_hidden)


def _add_bend(g: Tensor, z: Tensor, factor: Tensor) -> None:
    """Add ``factor silu''(z)`` to ``g``; silu'' = s (1 - s) (2 + z (1 - 2 s)) with the sigmoid s."""
    s = torch.sigmoid(z)
    bend = torch.ops.aten.sigmoid_backward(factor, s)
    g.addcmul_(bend, (z + 2.0).addcmul_(z, s, value=-2.0))
