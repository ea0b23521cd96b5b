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

from atomtrain_density.elements import BySpecies, add_bend, by_atom, first_layer
from atomtrain_density.pairs import dots


class Inputs(NamedTuple):
    """Features, and what their derivative in what was normalised needs."""

    features: Tensor
    """[n_atoms, n_features]"""
    inverse_deviation: Tensor
    """[n_atoms, 1], which products were multiplied by"""
    n_products: int
    """how many products mean and deviation are those of; 0 where nothing is normalised"""


class Network(NamedTuple):
    """Weights of the layers per element, SiLU after all but the last, none with a bias but the first."""

    first: Tensor
    """[n_species, n_neurons, n_features]; without a mean where features are normalised"""
    offset: Tensor
    """[n_species, n_neurons], added by the first layer"""
    hidden: List[Tensor]
    """[n_species, n_neurons, n_neurons] each"""
    last: Tensor
    """[n_species, 1, n_neurons]"""
    shift: List[Tensor]
    """[n_atoms, n_neurons], added by the first layer, atoms in the order of the structures; or nothing"""


class Pass(NamedTuple):
    """What the layers made of the features: the first for atoms by element, the others padded."""

    inputs: Inputs
    """atoms sorted by element"""
    linear: Tensor
    """[n_atoms, n_neurons], what the first layer makes of the features before the offset is added"""
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
    rows: Tensor
    """that of the first divided by the deviation: what the first layer's weights are multiplied by"""
    products: Tensor
    """[n_atoms, n_features], in what was normalised, atoms in the order of the structures"""


def forward_pass(inputs: Inputs, layout: BySpecies, network: Network) -> Pass:
    """The scalars of the features."""
    if layout.n_species > 1:
        inputs = Inputs(
            inputs.features.index_select(0, layout.order),
            inputs.inverse_deviation.index_select(0, layout.order),
            inputs.n_products,
        )
    linear = first_layer(inputs.features, network.first, layout)
    z = linear + by_atom(network.offset, layout)
    for shift in network.shift:
        z = z + shift.index_select(0, layout.order)
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
    return Pass(inputs, linear, before, after, y.index_select(0, layout.places))


def slopes(done: Pass, layout: BySpecies, network: Network) -> Slopes:
    """The slopes of the scalars of ``done``.

    The derivative of the normalisation takes the parts along the mean and along the features away. The
    first layer's weights have no mean, and the other part follows from its few neurons.
    """
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

    inputs = done.inputs
    rows = by_before * inputs.inverse_deviation if inputs.n_products > 0 else by_before
    g = torch.empty_like(inputs.features)
    parts = g.split_with_sizes(layout.counts)
    for k, part in enumerate(rows.split_with_sizes(layout.counts)):
        torch.mm(part, network.first[k], out=parts[k])
    if inputs.n_products > 0:
        along = dots(rows, done.linear)
        g.addcmul_(inputs.features, along, value=-1.0 / inputs.n_products)
    if layout.n_species > 1:
        g = g.index_select(0, layout.ranks)
    return Slopes(after, before, rows, g)


def scalars_of_few(
    inputs: Inputs, species: Tensor, own: Tensor, network: Network
) -> Tuple[Tensor, Tensor, Tensor]:
    """Scalars, slopes, and what the last layer takes, of few atoms in as few operations as possible.

    ``own [n_atoms, n_species]`` is 1 for the element of an atom, else 0. The first layers of all
    elements are for all atoms, of the others each atom gets a copy.
    """
    x = inputs.features
    first = network.first.flatten(0, 1)
    linear = torch.mm(x, first.t()).reshape(own.shape[0], own.shape[1], -1)
    linear = torch.bmm(own.unsqueeze(1), linear)
    z = linear + network.offset.unsqueeze(1).index_select(0, species)
    for shift in network.shift:
        z = z + shift.unsqueeze(1)
    a = silu(z)
    before = [z]
    hidden: List[Tensor] = []
    for each in network.hidden:
        weight = each.index_select(0, species)
        z = torch.bmm(a, weight.transpose(1, 2))
        a = silu(z)
        before.append(z)
        hidden.append(weight)
    g = network.last.index_select(0, species)
    y = (a * g).sum(2)
    last = a.squeeze(1)
    for k in range(len(hidden), 0, -1):
        g = torch.bmm(torch.ops.aten.silu_backward(g, before[k]), hidden[k - 1])
    g = torch.ops.aten.silu_backward(g, before[0])
    if inputs.n_products > 0:
        g = g * inputs.inverse_deviation.unsqueeze(2)
    of_products = torch.mm(torch.bmm(own.unsqueeze(2), g).flatten(1), first)
    if inputs.n_products > 0:
        of_products.addcmul_(x, (g * linear).sum(2), value=-1.0 / inputs.n_products)
    return y, of_products, last


def scalars(
    inputs: Inputs, layout: BySpecies, network: Network, wanted: bool
) -> "Tuple[Tensor, Tensor | None]":
    """Scalars ``[n_atoms, 1]`` and, if ``wanted``, their slopes ``[n_atoms, n_features]``.

    Slopes are derivatives in what was normalised. ``inputs`` are constants. First derivatives of both
    in the weights are autograd's to take.
    """
    shift = network.shift[0] if network.shift else None
    y, g = _Scalars.apply(
        inputs, layout, wanted, shift,
        network.first, network.offset, network.last, *network.hidden,
    )  # fmt: skip
    return y, g


class _Scalars(torch.autograd.Function):
    """Scalars y and slopes g, and the derivatives in the weights of ``<a, y> + <b, g>``.

    ``<b, g>`` is the change of the sum of all y when what was normalised changes by b; so the tangents
    of the layers along b are computed forwards, then values and tangents are gone through backwards
    together. The change of the features themselves is never formed: it is a combination of b, the
    features and the direction of the mean, and so are the products with it. Of the derivative in the
    first layer's weights the part along the mean is left as it comes: they have none.
    """

    @staticmethod
    def forward(
        ctx: Any, inputs: Inputs, layout: BySpecies, wanted: bool, shift: "Tensor | None",
        first: Tensor, offset: Tensor, last: Tensor, *hidden: Tensor,
    ) -> Any:  # fmt: skip
        network = Network(first, offset, list(hidden), last, [] if shift is None else [shift])
        done = forward_pass(inputs, layout, network)
        found = slopes(done, layout, network) if wanted else None
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(first, offset, last, *hidden)
        # all but the outputs, which would keep themselves alive through this function
        ctx.layout, ctx.done = layout, done._replace(scalars=offset)
        ctx.sloped = None if found is None else found._replace(products=offset)
        return done.scalars, None if found is None else found.products

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(  # noqa: C901, PLR0915 (a derivative, written out)
        ctx: Any, a: "Tensor | None", b: "Tensor | None"
    ) -> Any:  # type: ignore[override]
        first, offset, last, *hidden = ctx.saved_tensors
        layout: BySpecies = ctx.layout
        done: Pass = ctx.done
        sloped: Slopes = ctx.sloped
        (x, inverse, n_products), before, after = done.inputs, done.before, done.after
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
            t = first_layer(b, first, layout)
            if n_products > 0:
                on_features = torch.linalg.vecdot(b, x).unsqueeze(1)
                t.addcmul_(done.linear, on_features, value=-1.0 / n_products).mul_(inverse)
            along = [t]
            t = torch.ops.aten.silu_backward(t, before[0])
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
                add_bend(by_before, before[k], sloped.after[k] * along[k])
            if k > 0:
                by_weight = torch.bmm(by_before.transpose(1, 2), after[k - 1])
                if b is not None:
                    by_weight.baddbmm_(sloped.before[k].transpose(1, 2), moved[k - 1])
                by_hidden.append(by_weight)
                by_after = torch.bmm(by_before, hidden[k - 1])

        by_first = torch.empty_like(first)
        by_offset = torch.empty_like(offset)
        rows, columns = [by_before], [x]
        if b is not None:
            if n_products > 0:
                change = torch.addcmul(by_before, sloped.rows, on_features, value=-1.0 / n_products)
                rows = [change]
            rows.append(sloped.rows)
            columns.append(b)
        parts = [part.split_with_sizes(layout.counts) for part in (by_before, *rows, *columns)]
        for k, (g, *factors) in enumerate(zip(*parts, strict=True)):
            torch.sum(g, 0, out=by_offset[k])
            torch.mm(factors[0].t(), factors[len(rows)], out=by_first[k])
            if b is not None:
                by_first[k].addmm_(factors[1].t(), factors[3])
        by_shift = by_before.index_select(0, layout.ranks) if ctx.needs_input_grad[3] else None
        return None, None, None, by_shift, by_first, by_offset, by_last, *reversed(by_hidden)
