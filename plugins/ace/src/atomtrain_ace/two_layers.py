"""One scalar per atom of two layers, its slopes, and what training needs of both, all written out.

What :mod:`atomtrain_ace.scalars` is for one layer. Rows of tables are ordered as there: by element of the atom,
harmonic, atom. Scalars and slopes are what exported models compute, too (:mod:`atomtrain_ace.closed`).

Annotated without ``from __future__ import annotations``, which TorchScript cannot read here.
"""

from typing import Any, List, NamedTuple, Optional, Tuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import silu

from atomtrain_ace.around import (
    Around,
    Moving,
    OnPlaces,
    add_on_places,
    arriving,
    arriving_change,
    moving,
    on_pairs,
    on_places,
    on_sent,
    seen,
    summed_by_sender,
    weighed,
)
from atomtrain_ace.messages import SecondLayer, Sending, normalised
from atomtrain_ace.scalars import Norm, Weights
from atomtrain_density.density import as_atoms, as_rows, by_atom, by_element
from atomtrain_density.elements import BySpecies, add_bend
from atomtrain_density.products import Channels, Moved, Products, Wanted


class Known(NamedTuple):
    """What depends on no weights."""

    layout: BySpecies
    around: Around
    """atoms by element"""
    first: Norm
    second: Norm


class Pass(NamedTuple):
    """From the density to scalars; atoms by element."""

    density: List[Tensor]
    """[K n_s, Q] for each element"""
    first: Channels
    x: Tensor
    """[n_atoms, F of both layers], normalised features"""
    u: Tensor
    """[n_atoms, n_sent], what is sent before the activation"""
    sent: Tensor
    """[n_atoms, width, n_sent], of the neighbours"""
    weighed: Tensor
    """[n_atoms, width, n_radial n_sent]"""
    turned: Tensor
    """[n_atoms, width, K n_sent]"""
    arrived: List[Tensor]
    """[K n_s, Q] for each element, the second density"""
    second: Channels
    z: Tensor
    """[n_atoms, n_neurons], before the activation"""
    linear: Tensor
    """[n_atoms, F of both layers], weights"""
    last: Tensor
    """[n_atoms, n_neurons], weights"""
    scalars: Tensor
    """[n_atoms, 1]"""


class Asked(NamedTuple):
    """Derivatives of a sum in what the second layer is made of."""

    channels: Channels
    dots: List[Tensor]
    """see :meth:`Products.adjoint`"""
    one: Tensor
    """[n_atoms, K, n_radial n_sent], what arrived of numbers"""
    two: Tensor
    """[n_atoms, K n_sent, n_radial], what arrived of tensors"""
    own: Tensor
    """[n_rows, n_own], own channels"""


class Slopes(NamedTuple):
    """Derivatives of the sum of the scalars of a :class:`Pass`."""

    on_z: Tensor
    second: Asked
    places: OnPlaces
    on_sent: Tensor
    """[n_atoms, n_sent]"""
    on_turned: Tensor
    """[n_rows, n_sent]"""
    first: Channels
    dots: List[Tensor]


class Change(NamedTuple):
    """How a :class:`Pass` changes along a change of the density and of the pairs."""

    density: List[Tensor]
    moved: Moving
    first: Channels
    x: Tensor
    u: Tensor
    product: List[Tensor]
    arrived: List[Tensor]
    second: Channels
    z: Tensor


class TwoLayers(nn.Module):
    """The products of both layers, and what leads from one to the other. It has no weights of its own."""

    def __init__(self, first: Products, second: SecondLayer) -> None:
        super().__init__()
        self.first = first
        self.second = second.products
        self.n_radial = second.n_radial
        self.n_sent = second.n_sent
        self.n_own = second.n_own

    # -- from one order of rows to another -----------------------------------------------------

    def product_of(self, c: Channels) -> Tensor:
        """What tensors to send are mixtures of, ``[n_rows, C]``."""
        return c.product if self.first.correlation > 2 else c.pair[:, : self.first.channels]

    def rows_of(self, x: Tensor, counts: List[int]) -> List[Tensor]:
        """``[n_rows, m] -> [K n_s, m]`` for each element."""
        return list(x.split([n * self.first.n_harmonics for n in counts]))

    def joined(self, arrived: Tensor, c: Channels, counts: List[int]) -> List[Tensor]:
        """The second density, ``[K n_s, Q]`` for each element, of ``[n_atoms, K, ...]`` and own channels."""
        n_harmonics, width = arrived.shape[1], arrived.shape[2]
        own = self.rows_of(c.pair[:, : self.n_own], counts)
        parts: List[Tensor] = []
        for part, mine, n in zip(arrived.split_with_sizes(counts), own, counts):  # noqa: B905
            rows = arrived.new_empty([n_harmonics * n, width + self.n_own])
            by_harmonic = rows.view(n_harmonics, n, width + self.n_own)
            by_harmonic[:, :, :width].copy_(part.transpose(0, 1))
            rows[:, width:] = mine
            parts.append(rows)
        return parts

    # -- passes --------------------------------------------------------------------------------

    def forward_pass(self, density: List[Tensor], known: Known, w: Weights, s: Sending) -> Pass:
        """Scalars of the density."""
        kinds, counts = known.layout.kinds, known.layout.counts
        first = self.first.channels_of(density, w.pair, w.third, counts)
        x = self.first.features(first, counts)
        x = normalised(x, kinds, known.first.mean, known.first.scale)
        u = torch.addmm(s.offset.index_select(0, kinds), x, s.send)
        sent = seen(silu(u), known.around)
        turned = self._turned(self.product_of(first), known, s)
        numbers = weighed(known.around.radial, sent)
        arrived = self.joined(arriving(numbers, turned, known.around), first, counts)
        for k, rows in enumerate(arrived):
            rows[: counts[k]] -= known.second.density[k]
        second = self.second.channels_of(arrived, s.pair, s.third, counts)
        x2 = self.second.features(second, counts)
        x2 = normalised(x2, kinds, known.second.mean, known.second.scale)
        x = torch.cat([x, x2], 1)
        z = torch.addmm(w.offset.index_select(0, known.layout.order), x, w.first)
        linear = w.linear.index_select(0, kinds)
        last = w.last.index_select(0, kinds)
        y = (x * linear).sum(1, keepdim=True) + (silu(z) * last).sum(1, keepdim=True)
        return Pass(
            density, first, x, u, sent, numbers, turned, arrived, second, z, linear, last, y
        )

    def slopes(
        self, done: Pass, known: Known, w: Weights, s: Sending, share: Optional[Tensor] = None
    ) -> Tuple[Slopes, List[Tensor], Tensor, Tensor]:
        """Of the sum of the scalars: in the density, and in the pairs' harmonics and radial functions.

        ``share [n_atoms, 1]``: weights of that sum, if it is not the plain one; atoms by element.
        """
        counts = known.layout.counts
        last, linear = done.last, done.linear
        if share is not None:
            last, linear = share * last, share * linear
        on_z = torch.ops.aten.silu_backward(last, done.z)
        on_x, on_x2 = self._halves(torch.addmm(linear, on_z, w.first.t()), known)
        second = self._second(done, on_x2, known, s, None)
        places = on_places(second.one, second.two, known.around)
        on_y, on_r = on_pairs(
            second.one, second.two, places, done.weighed, done.sent, done.turned, known.around
        )
        numbers = on_sent(places.weighed, known.around.radial)
        by_sender, on_turned = self._by_sender(numbers, places.turned, known)
        on_x.addmm_(torch.ops.aten.silu_backward(by_sender, done.u), s.send.t())
        first, dots = self._first(done, on_x, on_turned, second, known, s, None)
        density = self.first.unmixed(first, w.pair, w.third, counts)
        found = Slopes(on_z, second, places, by_sender, on_turned, first, dots)
        return found, density, on_y, on_r

    def change(
        self, along: Tuple[List[Tensor], Tensor, Tensor], done: Pass, known: Known, w: Weights,
        s: Sending,
    ) -> Change:  # fmt: skip
        """When the density, and harmonics and radial functions of the pairs, change ``along``."""
        kinds, counts = known.layout.kinds, known.layout.counts
        density, dy, dr = along
        moved = moving(dy, dr, known.around)
        first = self.first.channels_of(density, w.pair, w.third, counts, done.first)
        x = self.first.features(done.first, counts, first)
        x.mul_(known.first.scale.index_select(0, kinds))
        u = x @ s.send
        sent = seen(torch.ops.aten.silu_backward(u, done.u), known.around)
        product = self.product_of(first)
        turned = self._turned(product, known, s)
        numbers = weighed(moved.radial, done.sent).add_(weighed(known.around.radial, sent))
        change = arriving_change(done.weighed, done.turned, numbers, turned, known.around, moved)
        arrived = self.joined(change, first, counts)
        second = self.second.channels_of(arrived, s.pair, s.third, counts, done.second)
        x2 = self.second.features(done.second, counts, second)
        x2.mul_(known.second.scale.index_select(0, kinds))
        x = torch.cat([x, x2], 1)
        rows = self.rows_of(product, counts)
        return Change(density, moved, first, x, u, rows, arrived, second, x @ w.first)

    def by_weights(
        self, a: Tensor, change: Optional[Change], done: Pass, found: Optional[Slopes], known: Known,
        w: Weights, s: Sending,
    ) -> Tuple[Tensor, ...]:  # fmt: skip
        """Derivatives in all weights of ``<a, y>`` and of how much the sum of y changes.

        In the order of :class:`Weights` and :class:`Sending`.
        """
        kinds, counts = known.layout.kinds, known.layout.counts
        n_first = self.first.n_features
        on_z = torch.ops.aten.silu_backward(a * done.last, done.z)
        on_linear = a * done.x
        on_last = a * silu(done.z)
        if change is not None:
            assert found is not None
            add_bend(on_z, done.z, done.last * change.z)
            on_linear += change.x
            on_last += torch.ops.aten.silu_backward(change.z, done.z)
        by_first = done.x.t() @ on_z
        on_x, on_x2 = self._halves(torch.addmm(a * done.linear, on_z, w.first.t()), known)

        moved = None
        if change is not None and found is not None:
            by_first.addmm_(change.x.t(), found.on_z)
            moved = Moved(change.second, found.second.channels, found.second.dots)
        second = self._second(done, on_x2, known, s, moved)
        places = on_places(second.one, second.two, known.around)
        if change is not None and found is not None:
            add_on_places(found.second.one, found.second.two, change.moved, places)
        numbers = on_sent(places.weighed, known.around.radial)
        if change is not None and found is not None:
            numbers += on_sent(found.places.weighed, change.moved.radial)
        by_sender, on_turned = self._by_sender(numbers, places.turned, known)
        on_u = torch.ops.aten.silu_backward(by_sender, done.u)
        if change is not None and found is not None:
            add_bend(on_u, done.u, found.on_sent * change.u)
        by_send = done.x[:, :n_first].t() @ on_u
        on_x.addmm_(on_u, s.send.t())
        if change is not None and found is not None:
            by_send.addmm_(
                change.x[:, :n_first].t(), torch.ops.aten.silu_backward(found.on_sent, done.u)
            )
            moved = Moved(change.first, found.first, found.dots)
        first, _ = self._first(done, on_x, on_turned, second, known, s, moved)

        by_turn = torch.empty_like(s.turn)
        product = self.rows_of(self.product_of(done.first), counts)
        self.first.by_weight(product, on_turned, by_turn, 0.0)
        by_pair, by_third = self.first.by_weights(done.density, first)
        by_pair2, by_third2 = self.second.by_weights(done.arrived, second.channels)
        if change is not None and found is not None:
            self.first.by_weight(change.product, found.on_turned, by_turn, 1.0)
            self.first.add_by_weights(change.density, found.first, by_pair, by_third)
            self.second.add_by_weights(change.arrived, found.second.channels, by_pair2, by_third2)
        n_species = known.layout.n_species
        on_offset = on_z.index_select(0, known.layout.ranks)
        by_linear, by_last, on_send_offset = (
            v.new_zeros(n_species, v.shape[1]).index_add_(0, kinds, v)
            for v in (on_linear, on_last, on_u)
        )
        return (
            *Weights(by_pair, by_third, by_first, on_offset, by_linear, by_last),
            *Sending(by_send, on_send_offset, by_turn, by_pair2, by_third2),
        )

    # -- pieces of them ------------------------------------------------------------------------

    def _turned(self, product: Tensor, known: Known, s: Sending) -> Tensor:
        """The tensors that neighbours send, ``[n_atoms, width, K n_sent]``."""
        counts = known.layout.counts
        turned = self.first.mix(self.rows_of(product, counts), s.turn)
        turned = as_atoms(self.rows_of(turned, counts), self.first.n_harmonics)
        return seen(turned, known.around)

    def _halves(self, on_x: Tensor, known: Known) -> Tuple[Tensor, Tensor]:
        """Derivatives in the normalised features of the first layer, and in those of the second as they come."""
        n_first = self.first.n_features
        scale = known.second.scale.index_select(0, known.layout.kinds)
        return on_x[:, :n_first].contiguous(), on_x[:, n_first:] * scale

    def _second(
        self, done: Pass, on_features: Tensor, known: Known, s: Sending, moved: Optional[Moved]
    ) -> Asked:
        """From features of the second layer to what arrived, and own channels."""
        counts = known.layout.counts
        channels, dots = self.second.adjoint(done.second, on_features, counts, moved)
        rows = self.second.unmixed(channels, s.pair, s.third, counts)
        half = self.n_radial * self.n_sent
        n_harmonics = self.first.n_harmonics
        one: List[Tensor] = []
        two: List[Tensor] = []
        own: List[Tensor] = []
        for part, n in zip(rows, counts):  # noqa: B905
            atoms = part.view(n_harmonics, n, part.shape[1]).transpose(0, 1)
            numbers, tensors = atoms[:, :, :half], atoms[:, :, half : 2 * half]
            one.append(numbers)
            two.append(tensors.reshape(n, n_harmonics * self.n_sent, self.n_radial))
            own.append(part[:, 2 * half :])
        return Asked(channels, dots, torch.cat(one), torch.cat(two), torch.cat(own))

    def _by_sender(self, on_sent: Tensor, on_turned: Tensor, known: Known) -> Tuple[Tensor, Tensor]:
        """What places ask of senders: ``[n_atoms, n_sent]`` and ``[n_rows, n_sent]``."""
        numbers, tensors = summed_by_sender(on_sent, on_turned, known.around)
        return numbers, torch.cat(as_rows(tensors, known.layout.counts, self.first.n_harmonics))

    def _first(
        self, done: Pass, on_x: Tensor, on_turned: Tensor, second: Asked, known: Known, s: Sending,
        moved: Optional[Moved],
    ) -> Tuple[Channels, List[Tensor]]:  # fmt: skip
        """From normalised features of the first layer, and what the second asks of it, to its channels."""
        counts = known.layout.counts
        on_x.mul_(known.first.scale.index_select(0, known.layout.kinds))
        product = torch.cat(self.first.unmix(on_turned, s.turn, counts))
        wanted = Wanted(second.own, product)
        return self.first.adjoint(done.first, on_x, counts, moved, wanted)


class _TwoLayers(torch.autograd.Function):
    """Scalars y, and the slopes g of their sum in the density and in the pairs' harmonics and radial functions.

    Derivatives in the weights are of ``<a, y> + <b, g>``; see :mod:`atomtrain_ace.scalars`.
    """

    @staticmethod
    def forward(
        ctx: Any, layers: TwoLayers, flat: Tensor, known: Known, wanted: bool, *weights: Tensor
    ) -> Any:
        w, s = split(weights)
        layout, n_harmonics = known.layout, layers.first.n_harmonics
        density = by_element(flat, layout, n_harmonics, known.first.density)
        done = layers.forward_pass(density, known, w, s)
        y = done.scalars.index_select(0, layout.ranks)
        found, g, on_y, on_r = None, None, None, None
        if wanted:
            found, by_density, on_y, on_r = layers.slopes(done, known, w, s)
            g = by_atom(by_density, layout, n_harmonics)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*weights)
        ctx.known = layers, known, done, found
        return y, g, on_y, on_r

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, a: Optional[Tensor], *b: Optional[Tensor]) -> Any:  # type: ignore[override]
        w, s = split(ctx.saved_tensors)
        layers, known, done, found = ctx.known
        layout = known.layout
        a = torch.zeros_like(done.scalars) if a is None else a.index_select(0, layout.order)
        change = None
        by_g, dy, dr = b
        if by_g is not None and dy is not None and dr is not None:
            nothing = torch.zeros_like(known.first.density)
            along = by_element(by_g, layout, layers.first.n_harmonics, nothing)
            change = layers.change((along, dy, dr), done, known, w, s)
        return None, None, None, None, *layers.by_weights(a, change, done, found, known, w, s)


def split(weights: Tuple[Tensor, ...]) -> Tuple[Weights, Sending]:
    """All weights, in order."""
    n = len(Weights._fields)
    return Weights(*weights[:n]), Sending(*weights[n:])


def scalars_of_two_layers(
    layers: TwoLayers, flat: Tensor, known: Known, w: Weights, s: Sending, wanted: bool
) -> Tuple[Tensor, Optional[Tuple[Tensor, Tensor, Tensor]]]:
    """Scalars ``[n_atoms, 1]`` of the density ``flat`` and, if ``wanted``, the slopes of their sum.

    In the density ``[n_atoms, K Q]``, and in the pairs' harmonics ``[n_pairs, K]`` and radial functions
    ``[n_pairs, n_radial]`` that messages are weighed with. Density and pairs are constants; first derivatives of all of
    it in the weights are autograd's to take.
    """
    y, *slopes = _TwoLayers.apply(layers, flat, known, wanted, *w, *s)
    if not wanted:
        return y, None
    g, on_y, on_r = slopes
    return y, (g, on_y, on_r)
