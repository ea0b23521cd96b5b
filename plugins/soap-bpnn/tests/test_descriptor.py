"""The radial basis and the three paths against torch-spex and finite differences."""

from __future__ import annotations

import pytest
import torch
from helpers.soap import TYPES, build, info
from spex import SphericalExpansion

from atomtrain.graph import AtomGraph
from atomtrain.model import Growth, with_leaves
from atomtrain_soap_bpnn.descriptor.radial import RadialBasis
from atomtrain_soap_bpnn.descriptor.spectrum import places_of_products
from atomtrain_soap_bpnn.hypers import ModelHypers
from atomtrain_soap_bpnn.model import SoapBpnn


@pytest.fixture
def float64_default():  # type: ignore[no-untyped-def]
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_radial_derivatives_and_cutoff() -> None:
    basis = RadialBasis(5.0, 0.5, 6, 7)
    r = torch.linspace(0.3, 4.9999, 400, dtype=torch.float64, requires_grad=True)
    values, slopes = basis.values_and_derivatives(r.detach()).unbind(1)
    torch.testing.assert_close(basis(r), values, rtol=1e-14, atol=1e-14)
    by_autograd = torch.stack(
        [torch.autograd.grad(basis(r)[:, k].sum(), r)[0] for k in range(values.shape[1])], 1
    )
    torch.testing.assert_close(by_autograd, slopes, rtol=1e-10, atol=1e-10)
    at_edge = basis.values_and_derivatives(torch.tensor([5.0], dtype=torch.float64))
    edge, edge_slope = at_edge.unbind(1)
    assert edge.abs().max() < 1e-15 and edge_slope.abs().max() < 1e-12


def test_nothing_beyond_the_cutoff() -> None:
    """Exactly, in float32 too: the padded layout fills its gaps with vectors from there."""
    basis = RadialBasis(5.0, 0.5, 6, 7).to(torch.float32)
    beyond = torch.tensor([5.0, 5.0 * 3**0.5, 50.0])
    assert not basis(beyond).any() and not basis.values_and_derivatives(beyond)[:, 0].any()


def spex_spectrum(model: SoapBpnn, graph: AtomGraph) -> torch.Tensor:
    """The power spectrum by torch-spex, in this package's order of features."""
    species: dict[str, object] = {"Orthogonal": {"species": list(TYPES)}}
    types = graph.types
    if not model.legacy:
        species = {"Alchemical": {"pseudo_species": 4, "total_species": len(TYPES)}}
        types = model.species_index[graph.types]
    expansion = SphericalExpansion(
        cutoff=5.0,
        max_angular=6,
        radial={"LaplacianEigenstates": {"max_radial": 7}},
        angular="SphericalHarmonics",
        species=species,
        cutoff_function={"ShiftedCosine": {"width": 0.5}},
    )
    if not model.legacy:
        expansion.species.embedding.weight = model.alchemy
    parts = []
    for c in expansion(graph.vectors, graph.centers, graph.neighbors, types):
        c = c.transpose(2, 3).flatten(2)  # [atoms, m, (s n)]
        parts.append(torch.einsum("amq,amr->aqr", c, c).flatten(1))
    return torch.cat(parts, 1)


@pytest.mark.parametrize("legacy", [True, False])
def test_fast_path_is_torch_spex(graph: AtomGraph, legacy: bool, float64_default: None) -> None:
    """Values, gradients, and gradients of forces in the weights, to 1e-10."""
    model = build(legacy)
    weights = [p for p in model.parameters() if p.numel()]

    def results(features: str) -> list[torch.Tensor]:
        g = with_leaves(graph)
        species = model.species_index[graph.types]
        if features == "spex":
            x = spex_spectrum(model, g)
            if legacy:
                x = torch.nn.functional.layer_norm(x, [x.shape[1]])
                x = x[:, model.spectrum.upper] * model.spectrum.root
            model.plain = True
            model.plain_features = lambda *_: (x, [])  # type: ignore[method-assign]
            energies = model(g, ["energy"])["energy"][0]
            del model.plain_features
            model.plain = False
        else:
            x = model.fast_features(g, species)[0]
            energies = model(g, ["energy"])["energy"][0]
        (on_vectors,) = torch.autograd.grad(energies.sum(), g.vectors, create_graph=True)
        generator = torch.Generator().manual_seed(5)
        target = torch.randn(on_vectors.shape, generator=generator)
        loss = (energies**2).sum() + ((on_vectors - target) ** 2).sum()
        return [x, energies, on_vectors, *torch.autograd.grad(loss, weights)]

    for mine, reference in zip(results("fast"), results("spex"), strict=True):
        scale = max(1.0, float(reference.detach().abs().max()))
        torch.testing.assert_close(mine, reference, rtol=1e-10, atol=1e-10 * scale)


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("layers", [0, 1, 2])
@pytest.mark.parametrize("layernorm", [True, False])
def test_fast_is_plain(graph: AtomGraph, legacy: bool, layers: int, layernorm: bool) -> None:
    model = build(legacy, bpnn={"num_hidden_layers": layers, "layernorm": layernorm})

    def results(plain: bool) -> list[torch.Tensor]:
        model.plain = plain
        g = with_leaves(graph)
        energies = model(g, ["energy"])["energy"][0]
        (on_vectors,) = torch.autograd.grad(energies.sum(), g.vectors, create_graph=True)
        weights = [p for p in model.parameters() if p.numel()]
        loss = energies.square().sum() + on_vectors.square().sum()
        gradients = torch.autograd.grad(loss, weights, allow_unused=True)
        return [energies, on_vectors, *(g for g in gradients if g is not None)]

    for fast, plain in zip(results(False), results(True), strict=True):
        scale = max(1.0, float(plain.detach().abs().max()))
        torch.testing.assert_close(fast, plain, rtol=1e-9, atol=1e-11 * scale)


def test_kept_constants_change_nothing(graph: AtomGraph) -> None:
    model = build()
    constants = model.constants(graph)
    kept = graph._replace(extras={**constants.per_atom, **constants.per_pair})

    def forces(g: AtomGraph) -> torch.Tensor:
        g = with_leaves(g)
        energy = model(g, ["energy"])["energy"][0].sum()
        return torch.autograd.grad(energy, g.vectors)[0]

    assert torch.equal(forces(graph), forces(kept))


def test_order_of_pairs_does_not_matter(graph: AtomGraph) -> None:
    model = build()
    order = torch.randperm(len(graph.centers), generator=torch.Generator().manual_seed(0))
    shuffled = graph._replace(
        centers=graph.centers[order],
        neighbors=graph.neighbors[order],
        shifts=graph.shifts[order],
        vectors=graph.vectors[order],
    )
    for plain in (False, True):
        model.plain = plain
        a, b = with_leaves(graph), with_leaves(shuffled)
        ea, eb = (model(g, ["energy"])["energy"][0] for g in (a, b))
        torch.testing.assert_close(ea, eb, rtol=1e-12, atol=1e-12)
        (ga,) = torch.autograd.grad(ea.sum(), a.vectors)
        (gb,) = torch.autograd.grad(eb.sum(), b.vectors)
        torch.testing.assert_close(ga[order], gb, rtol=1e-11, atol=1e-12)


def test_a_step_repeats_bit_for_bit(frames: list, graph: AtomGraph) -> None:  # type: ignore[type-arg]
    """float32 with two threads: what restarts rely on."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        g32 = graph._replace(
            **{k: getattr(graph, k).float() for k in ("positions", "cells", "shifts", "vectors")}
        )
        seen = []
        for _ in range(5):
            model = build().to(torch.float32)
            g = with_leaves(g32)
            energies = model(g, ["energy"])["energy"][0]
            (on_vectors,) = torch.autograd.grad(energies.sum(), g.vectors, create_graph=True)
            weights = [p for p in model.parameters() if p.numel()]
            gradients = torch.autograd.grad(on_vectors.square().sum(), weights)
            seen.append(torch.cat([x.flatten() for x in gradients]))
        assert all(torch.equal(seen[0], s) for s in seen[1:])
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("layers", [0, 2])
def test_products_of_few_elements_among_those_of_more(graph: AtomGraph, layers: int) -> None:
    """Where there is no N its products vanish, and the others are where they are said to be."""
    hypers = ModelHypers.model_validate({"bpnn": {"layernorm": False, "num_hidden_layers": layers}})
    few, more = (SoapBpnn(hypers, info(types)).double() for types in (TYPES, (1, 6, 7, 8)))
    growth = Growth(TYPES, (1, 6, 7, 8))
    places = places_of_products(few.n_per_l, growth.places, 4, symmetric=layers > 0)
    wanted, found = (m.plain_features(graph, m.species_index[graph.types])[0] for m in (few, more))
    assert wanted.abs().max() > 0
    torch.testing.assert_close(found[:, places], wanted, rtol=1e-14, atol=1e-14)
    others = torch.ones(found.shape[1], dtype=torch.bool)
    others[places] = False
    assert int(others.sum()) == found.shape[1] - wanted.shape[1]
    assert not found[:, others].any()
