"""Neighbours laid out by the atom in the middle: what arrives from all of them is one batched product.

There are ``[n_atoms, width]`` places. Those without a neighbour have harmonics and radial functions of 0, and what some
other atom sends. Two kinds of things are sent, numbers ``[n_places, n_sent]`` and tensors ``[n_places, K n_sent]``;
what arrives has two parts, ``[n_atoms, K, n_radial n_sent]`` and ``[n_atoms, K n_sent, n_radial]``. Numbers times
radial functions, ``[n_atoms, width, n_radial n_sent]``, are said to be weighed.

Annotated without ``from __future__ import annotations``, which TorchScript cannot read here.
"""

from typing import NamedTuple, Tuple

import torch
from torch import Tensor


class Around(NamedTuple):
    """The pairs of a batch."""

    places: Tensor
    """[n_pairs] place of a pair"""
    neighbors: Tensor
    """[n_places] the atom at a place"""
    harmonics: Tensor
    """[n_atoms, width, K]"""
    radial: Tensor
    """[n_atoms, width, n_radial]"""


def places_around(centers: Tensor, n_atoms: int) -> Tuple[Tensor, int]:
    """Places of pairs with these ``centers [n_pairs]``, in any order, and how many an atom has."""
    counts = torch.bincount(centers, minlength=n_atoms)
    width = int(counts.max()) if n_atoms > 0 else 0
    ordered, order = torch.sort(centers, stable=True)
    starts = torch.cumsum(counts, 0) - counts
    rank = torch.arange(order.shape[0], device=order.device) - starts.index_select(0, ordered)
    places = torch.empty_like(order).index_copy(0, order, rank + width * ordered)
    return places, width


def around(
    places: Tensor, width: int, n_atoms: int, neighbors: Tensor, harmonics: Tensor, radial: Tensor
) -> Around:
    """The layout of pairs with these functions, ``[n_pairs, ...]``."""
    ends = torch.zeros(n_atoms * width, dtype=neighbors.dtype, device=neighbors.device)
    y, r = at_places(harmonics, places, n_atoms, width), at_places(radial, places, n_atoms, width)
    return Around(places, ends.index_copy(0, places, neighbors), y, r)


def at_places(x: Tensor, places: Tensor, n_atoms: int, width: int) -> Tensor:
    """``[n_pairs, m] -> [n_atoms, width, m]``, 0 where there is no pair."""
    none = torch.zeros([n_atoms * width, x.shape[1]], dtype=x.dtype, device=x.device)
    return none.index_copy(0, places, x).reshape(n_atoms, width, x.shape[1])


def of_pairs(x: Tensor, around: Around) -> Tensor:
    """``[n_atoms, width, m] -> [n_pairs, m]``."""
    return x.flatten(0, 1).index_select(0, around.places)


def seen(x: Tensor, around: Around) -> Tensor:
    """What atoms send, ``[n_atoms, m]``, as ``[n_atoms, width, m]`` of the neighbours."""
    n_atoms, width, _ = around.radial.shape
    return x.index_select(0, around.neighbors).reshape(n_atoms, width, x.shape[1])


def weighed(radial: Tensor, sent: Tensor) -> Tensor:
    """``[n_atoms, width, n_radial n_sent]``."""
    return (radial.unsqueeze(3) * sent.unsqueeze(2)).flatten(2)


def arriving(weighed: Tensor, turned: Tensor, around: Around) -> Tensor:
    """What arrives of numbers and tensors, side by side: ``[n_atoms, K, 2 n_radial n_sent]``."""
    one = torch.bmm(around.harmonics.transpose(1, 2), weighed)
    two = torch.bmm(turned.transpose(1, 2), around.radial)
    return torch.cat([one, two.reshape(one.shape)], 2)


class Moving(NamedTuple):
    """How functions of the pairs change, ``[n_atoms, width, ...]``."""

    harmonics: Tensor
    radial: Tensor


def moving(harmonics: Tensor, radial: Tensor, around: Around) -> Moving:
    """The change of ``[n_pairs, ...]`` at the places."""
    n_atoms, width, _ = around.radial.shape
    return Moving(
        at_places(harmonics, around.places, n_atoms, width),
        at_places(radial, around.places, n_atoms, width),
    )


def arriving_change(
    weighed: Tensor,
    turned: Tensor,
    change_of_weighed: Tensor,
    change_of_turned: Tensor,
    around: Around,
    moved: Moving,
) -> Tensor:
    """How :func:`arriving` changes, with what is sent and with the pairs."""
    one = torch.bmm(around.harmonics.transpose(1, 2), change_of_weighed)
    one.baddbmm_(moved.harmonics.transpose(1, 2), weighed)
    two = torch.bmm(change_of_turned.transpose(1, 2), around.radial)
    two.baddbmm_(turned.transpose(1, 2), moved.radial)
    return torch.cat([one, two.view(one.shape)], 2)


class OnPlaces(NamedTuple):
    """Derivatives in what is at the places."""

    weighed: Tensor
    """[n_atoms, width, n_radial n_sent]"""
    turned: Tensor
    """[n_atoms, width, K n_sent]"""


def on_places(one: Tensor, two: Tensor, around: Around) -> OnPlaces:
    """The adjoint of :func:`arriving`, given the derivatives in both parts."""
    on_turned = torch.bmm(around.radial, two.transpose(1, 2))
    return OnPlaces(torch.bmm(around.harmonics, one), on_turned)


def add_on_places(one: Tensor, two: Tensor, moved: Moving, found: OnPlaces) -> None:
    """Add that of the change with the pairs."""
    found.weighed.baddbmm_(moved.harmonics, one)
    found.turned.baddbmm_(moved.radial, two.transpose(1, 2))


def on_sent(on_weighed: Tensor, radial: Tensor) -> Tensor:
    """The adjoint of :func:`weighed` in what is sent, ``[n_atoms, width, n_sent]``."""
    n_atoms, width, n_radial = radial.shape
    n_sent = on_weighed.shape[2] // n_radial
    by_radial = on_weighed.view(n_atoms * width, n_radial, n_sent)
    found = torch.bmm(radial.reshape(n_atoms * width, 1, n_radial), by_radial)
    return found.view(n_atoms, width, n_sent)


def on_pairs(
    one: Tensor,
    two: Tensor,
    found: OnPlaces,
    weighed: Tensor,
    sent: Tensor,
    turned: Tensor,
    around: Around,
) -> Tuple[Tensor, Tensor]:
    """The adjoint of :func:`arriving` in harmonics and radial functions, ``[n_pairs, ...]``."""
    n_atoms, width, n_radial = around.radial.shape
    n_sent = sent.shape[2]
    on_harmonics = torch.bmm(weighed, one.transpose(1, 2))
    on_radial = torch.bmm(turned, two)
    by_radial = found.weighed.view(n_atoms * width, n_radial, n_sent)
    more = torch.bmm(by_radial, sent.reshape(n_atoms * width, n_sent, 1))
    on_radial += more.view(n_atoms, width, n_radial)
    return of_pairs(on_harmonics, around), of_pairs(on_radial, around)


def summed_by_sender(numbers: Tensor, tensors: Tensor, around: Around) -> Tuple[Tensor, Tensor]:
    """What is at the places, summed by neighbour: ``[n_atoms, ...]`` each."""
    pairs = torch.cat([of_pairs(numbers, around), of_pairs(tensors, around)], 1)
    ends = around.neighbors.index_select(0, around.places)
    none = torch.zeros([numbers.shape[0], pairs.shape[1]], dtype=pairs.dtype, device=pairs.device)
    summed = none.index_add_(0, ends, pairs)
    n_sent = numbers.shape[2]
    return summed[:, :n_sent], summed[:, n_sent:]
