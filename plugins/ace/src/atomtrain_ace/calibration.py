"""What a model takes from the training set before it is trained: means and sizes.

All are statistics of float64 that later trainings keep. The density has no weights, so that its statistics are
the data's; features are normalised as they come from the weights that training starts with. Elements, and pairs of
elements, that the data do not have get the mean of the others: a later training may bring them.
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
    _normalise(features, every, exact.feature_mean, exact.feature_scale)
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
        _normalise(features, every, second.feature_mean, second.feature_scale)
        after_each(exact)
    _size(exact, seen[:N_FORCES])
    model.load_state_dict(exact.state_dict())


def _whiten(model: Ace, species: Tensor, flat: Tensor) -> None:
    """Radial functions of variance 1 and no correlation, for each pair of elements and degree.

    Without the mean of degree 0, which no product then has to do with.
    """
    n_species = model.n_species
    blocks = model.blocks.split(flat)[: model.hypers.max_degree + 1]
    seen = torch.zeros(model.whitening.shape[:2], dtype=torch.bool)
    for s in species.unique().tolist():
        for degree, block in enumerate(blocks):
            own = block[species == s]
            if degree == 0:
                model.density_mean[s] = own.mean(0)[0]
                own = own - own.mean(0)
            for t, part in enumerate(own.flatten(0, 1).chunk(n_species, 1)):
                variances, directions = torch.linalg.eigh(part.T @ part / len(part))
                if float(variances[-1]) < 1e-12:
                    continue  # no such neighbours
                size = torch.rsqrt(variances.clamp(min=0.0) + FLOOR * variances[-1])
                model.whitening[degree, s * n_species + t] = (directions * size) @ directions.T
                seen[degree, s * n_species + t] = True
    _as_others(model.density_mean, _there(species, n_species))
    for matrices, there in zip(model.whitening, seen, strict=True):
        _as_others(matrices, there)


def _there(species: Tensor, n_species: int) -> Tensor:
    """``[n_species]`` bool: of which elements there are atoms."""
    return torch.bincount(species, minlength=n_species) > 0


def _as_others(rows: Tensor, there: Tensor) -> None:
    """What is not ``there [n]`` gets the mean of the ``rows [n, ...]`` that are."""
    if bool(there.any()):
        rows[~there] = rows[there].mean(0)


def _normalise(features: Tensor, species: Tensor, mean: Tensor, scale: Tensor) -> None:
    """Mean and deviation of the features ``[n_atoms, F]``, for each element."""
    for s in species.unique().tolist():
        own = features[species == s]
        deviation = own.std(0, correction=0)
        floor = 1e-3 * float(deviation.mean()) + 1e-12  # features that do not vary stay small
        mean[s] = own.mean(0)
        scale[s] = 1.0 / (deviation + floor)
    for rows in (mean, scale):
        _as_others(rows, _there(species, len(rows)))


def _equalise(second: SecondLayer, species: Tensor, density: Tensor) -> None:
    """Columns of the second layer's density ``[n_atoms, K, Q]`` get variance 1, by degree and element."""
    for s in species.unique().tolist():
        own = density[species == s]
        second.mean[s] = own[:, 0].mean(0)
        for degree in range(second.products.degree + 1):
            part = own[:, degree**2 : (degree + 1) ** 2]
            part = part - part.mean(0) if degree == 0 else part
            size = part.square().mean((0, 1)).sqrt()
            second.scale[degree, s] = 1.0 / (size + 1e-3 * float(size.mean()) + 1e-12)
    for rows in (second.mean, *second.scale):
        _as_others(rows, _there(species, len(rows)))


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
