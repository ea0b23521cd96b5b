"""What a model takes from the training set before it is trained: means and sizes.

All are statistics of float64 that later trainings keep. The density has no weights, so that its statistics are
the data's; features are normalised as they come from the weights that training starts with. Elements, and pairs of
elements, of which the data have few are drawn to the mean of the others, and those that they do not have get it: what
two atoms say of an element made features of others a thousand times too large, and a later training may bring more.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from atomtrain.data import Batch
from atomtrain.model import Growth, forces_and_strain, with_leaves
from atomtrain_ace.messages import normalised
from atomtrain_density.elements import by_species
from atomtrain_density.short_range import note_shortest

if TYPE_CHECKING:
    from atomtrain_ace.messages import SecondLayer
    from atomtrain_ace.model import Ace

FLOOR = 0.3
"""of the largest variance: combinations of radial functions that vary less are not blown up to size 1"""
SMALLER = 0.7
"""Features of three neighbours are that much smaller than those of two, and so on: what many do together counts less,
and is learnt last. With every feature of one size errors far from the data were a twentieth larger."""
FEW = 20
"""atoms of a kind that weigh as much as all other kinds"""
CLOSEST = 0.9
"""of the shortest distance of two elements: where the network stops to believe in distances"""
N_FORCES = 20
"""structures that say how large forces are"""


def calibrate_new(model: Ace, trained: Ace, growth: Growth) -> None:
    """Set what the buffers of ``model`` have of new elements; of the others they stay those of ``trained``."""
    of_new = torch.zeros(model.n_species, dtype=torch.bool)
    of_new[growth.added] = True
    columns = of_new.repeat_interleave(model.hypers.num_radial)

    def keep_old(exact: Ace) -> None:
        growth.take_over(exact, trained)
        # where there is no new neighbour, nothing is to be seen of one
        exact.density_mean[(~of_new).unsqueeze(1) & columns] = 0.0

    calibrate(model, growth.batches(), keep_old)


def _nothing(exact: Ace) -> None:
    pass


@torch.no_grad()
def calibrate(
    model: Ace, batches: Iterator[Batch], after_each: Callable[[Ace], None] = _nothing
) -> None:
    """Set the buffers of ``model``; ``after_each`` is called before one is used for the next."""
    seen = list(batches)
    if not seen:
        return
    exact = copy.deepcopy(model).to(torch.float64)
    species = [exact.species_index[batch.graph.types] for batch in seen]
    exact.inner.fill_(torch.inf)
    for kinds, batch in zip(species, seen, strict=True):
        note_shortest(exact.inner, batch.graph, kinds)
    exact.inner[exact.inner == torch.inf] = 0.0  # no such pair
    exact.inner *= CLOSEST
    densities = [exact._fast_density(b.graph, s) for b, s in zip(seen, species, strict=True)]
    every = torch.cat(species)
    flat = torch.cat([density for density, _ in densities])
    _whiten(exact, every, flat)
    after_each(exact)
    layout = by_species(every, exact.n_species)
    features = exact.first_layer(flat, every, layout).features
    sizes = SMALLER ** (exact.products.neighbors_of_features() - 2.0).clamp(min=0.0)
    _normalise(features, every, exact.feature_mean, exact.feature_scale, sizes)
    after_each(exact)
    if exact.second is not None:
        second = exact.second
        arrived: list[Tensor] = []
        for kinds, (density, pairs) in zip(species, densities, strict=True):
            own = by_species(kinds, exact.n_species)
            first = exact.first_layer(density, kinds, own)
            x = normalised(first.features, kinds, exact.feature_mean, exact.feature_scale)
            arrived.append(second.density(x, first, kinds, own, pairs))
        _equalise(second, every, torch.cat(arrived))
        after_each(exact)
        features = second.raw_features(torch.cat(arrived), layout, every)
        _normalise(features, every, second.feature_mean, second.feature_scale, sizes)
        after_each(exact)
    _size(exact, seen[:N_FORCES])
    model.load_state_dict(exact.state_dict())


def _whiten(model: Ace, species: Tensor, flat: Tensor) -> None:
    """Radial functions of variance 1 and no correlation, for each pair of elements and degree.

    Without the mean of degree 0, which no product then has to do with. Of atoms that have such neighbours: where few
    have, those few would else be large.
    """
    n_species, n_radial = model.n_species, model.hypers.num_radial
    blocks = model.blocks.split(flat)[: model.hypers.max_degree + 1]
    model.density_mean.copy_(_moments(blocks[0][:, 0], species, n_species)[0])
    for degree, block in enumerate(blocks):
        covariance = torch.zeros(n_species, n_species, n_radial, n_radial, dtype=flat.dtype)
        counts = torch.zeros(n_species, n_species, dtype=torch.int64)
        for s in species.unique().tolist():
            own = block[species == s].unflatten(2, (n_species, n_radial))
            there = own.abs().amax((1, 3)) > 0.0
            if degree == 0:
                own = own - model.density_mean[s].unflatten(0, (n_species, n_radial))
            counts[s] = there.sum(0)
            rows = own * there[:, None, :, None]
            covariance[s] = torch.einsum("amtp,amtq->tpq", rows, rows) / own.shape[1]
        covariance /= counts.clamp(min=1)[:, :, None, None]
        drawn = _drawn(covariance.flatten(0, 1), counts.flatten())
        model.whitening[degree] = _whitening(drawn)


def _whitening(covariance: Tensor) -> Tensor:
    """What makes vectors with these covariances ``[n, m, m]`` uncorrelated and of variance 1, but for small ones."""
    variances, directions = torch.linalg.eigh(covariance)
    largest = variances[:, -1:].clamp(min=1e-12)
    size = torch.rsqrt(variances.clamp(min=0.0) + FLOOR * largest)
    return (directions * size.unsqueeze(1)) @ directions.mT


def _as_others(rows: Tensor, there: Tensor) -> None:
    """What is not ``there [n]`` gets the mean of the ``rows [n, ...]`` that are."""
    if bool(there.any()):
        rows[~there] = rows[there].mean(0)


def _drawn(rows: Tensor, counts: Tensor) -> Tensor:
    """Statistics ``[n, ...]`` of kinds that ``counts [n]`` atoms had: those of few are drawn to the mean of others."""
    weight = (counts / (counts + FEW)).reshape(-1, *[1] * (rows.dim() - 1))
    mean = (weight * rows).sum(0) / weight.sum().clamp(min=1e-12)
    return weight * rows + (1.0 - weight) * mean


def _moments(values: Tensor, species: Tensor, n_species: int) -> tuple[Tensor, Tensor]:
    """Mean and variance of ``values [n_atoms, ...]`` by element, ``[n_species, ...]`` each; the variance is drawn."""
    counts = torch.bincount(species, minlength=n_species)
    means = values.new_zeros(n_species, *values.shape[1:])
    variances = torch.zeros_like(means)
    for s in species.unique().tolist():
        own = values[species == s]
        means[s], variances[s] = own.mean(0), own.var(0, correction=0)
    _as_others(means, counts > 0)
    return means, _drawn(variances, counts)


def _normalise(
    features: Tensor, species: Tensor, mean: Tensor, scale: Tensor, sizes: Tensor
) -> None:
    """Mean and deviation of the features ``[n_atoms, F]``, for each element; they get these ``sizes [F]``."""
    means, variances = _moments(features, species, len(mean))
    deviation = variances.sqrt()
    floor = 1e-3 * deviation.mean(1, keepdim=True) + 1e-12  # features that do not vary stay small
    mean.copy_(means)
    scale.copy_(sizes / (deviation + floor))


def _equalise(second: SecondLayer, species: Tensor, density: Tensor) -> None:
    """As :func:`_whiten`, for what neighbours send ``[n_atoms, K, Q]``; own channels get variance 1."""
    n_species, n_radial, n_sent = len(second.mean), second.n_radial, second.n_sent
    half = n_radial * n_sent
    counts = torch.bincount(species, minlength=n_species)
    second.mean.copy_(_moments(density[:, 0], species, n_species)[0])
    for degree in range(second.products.degree + 1):
        part = density[:, degree**2 : (degree + 1) ** 2]
        if degree == 0:
            part = part - second.mean[species].unsqueeze(1)
        one = part[:, :, :half].unflatten(2, (n_radial, n_sent)).mT
        two = part[:, :, half : 2 * half].unflatten(2, (n_sent, n_radial))
        blocks = torch.cat([one, two], 2)
        covariance = blocks.new_zeros(n_species, 2 * n_sent, n_radial, n_radial)
        squares = part.new_zeros(n_species, second.n_own)
        for s in species.unique().tolist():
            own = blocks[species == s]
            covariance[s] = torch.einsum("amtp,amtq->tpq", own, own) / own[:, :, 0, 0].numel()
            squares[s] = part[species == s, :, 2 * half :].square().mean((0, 1))
        white = _whitening(_drawn(covariance, counts).flatten(0, 1))
        second.whitening[degree] = white
        size = _drawn(squares, counts).sqrt()
        second.scale[degree] = 1.0 / (size + 1e-3 * size.mean(1, keepdim=True) + 1e-12)


def _size(model: Ace, batches: list[Batch]) -> None:
    """Features so large that forces of energies start as large as those of the data."""
    mine = wanted = 0.0
    for name in model.heads:
        for batch in batches:
            label = batch.labels.get(f"{name}:forces")
            if label is None:
                continue
            graph = with_leaves(batch.graph)
            with torch.enable_grad():
                energies = model(graph, [name])[name][0]
            forces, _ = forces_and_strain(energies, graph, strain=False, create_graph=False)
            there = batch.masks.get(f"{name}:forces")
            if there is not None:
                there = there.expand(label.shape)
                forces, label = forces[there], label[there]
            mine += float(forces.square().sum())
            wanted += float(label.square().sum())
    if mine > 0.0 and wanted > 0.0:
        model.size.mul_(math.sqrt(wanted / mine))
