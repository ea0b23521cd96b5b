"""The model as a whole: four ways to the same numbers, statistics, other targets and elements."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from ase import Atoms
from helpers.soap import TYPES, info
from helpers.structures import graph_of, source_of

from atomtrain.data import Batch
from atomtrain.errors import DataError
from atomtrain.graph import AtomGraph
from atomtrain.model import Growth, forces_and_strain, with_leaves
from atomtrain.targets import DatasetInfo, TargetInfo
from atomtrain_ace import calibration
from atomtrain_ace.hypers import ModelHypers, TrainerHypers
from atomtrain_ace.messages import normalised
from atomtrain_ace.model import Ace
from atomtrain_density.elements import by_species
from atomtrain_testing.predictions import store_of

SMALL: dict[str, Any] = {
    "cutoff": 4.5,
    "num_radial": 4,
    "max_degree": 2,
    "num_channels": 5,
    "num_neurons": 7,
}

Way = tuple[torch.Tensor, ...]


def results(model: torch.nn.Module, graph: AtomGraph) -> Way:
    graph = with_leaves(graph)
    energies = model(graph, ["energy"])["energy"][0]
    forces, strain = forces_and_strain(energies, graph, strain=True, create_graph=False)
    assert strain is not None
    return energies.detach(), forces.detach(), strain.detach()


def close(one: Way, other: Way) -> None:
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def among(one: torch.Tensor, others: torch.Tensor) -> bool:
    return bool(((others.amin(0) <= one) & (one <= others.amax(0))).all())


def sizes_of(model: Ace) -> torch.Tensor:
    """How large features are on the data."""
    orders = model.products.neighbors_of_features().to(torch.float64)
    return (calibration.SMALLER ** (orders - 2.0).clamp(min=0.0)).repeat(model.hypers.num_layers)


def graph_batch(frames: list[Atoms]) -> Batch:
    return source_of(store_of(frames), cutoff=4.5).batch(torch.arange(len(frames)))


def test_all_ways_agree(model: Ace, batch: Batch) -> None:
    graph = batch.graph
    fast = results(model, graph)
    kept = model.constants(graph)
    close(fast, results(model, graph._replace(extras={**kept.per_atom, **kept.per_pair})))
    without = model(graph._replace(extras=kept.per_atom), ["energy"])["energy"][0]
    torch.testing.assert_close(without, fast[0], rtol=1e-9, atol=1e-9)
    both = model(with_leaves(graph), ["energy", "feature"])
    torch.testing.assert_close(both["energy"][0].detach(), fast[0], rtol=1e-9, atol=1e-9)
    plain = copy.deepcopy(model)
    plain.plain = True
    close(fast, results(plain, graph))
    exported = copy.deepcopy(model)
    exported.before_export()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        close(fast, results(torch.jit.script(exported), graph))


def test_pairs_shorter_than_any_in_the_data(model: Ace, batch: Batch) -> None:
    """All ways agree there too, forces are derivatives, and the network is not asked what it cannot know."""
    shortest = float(torch.linalg.vector_norm(batch.graph.vectors, dim=1).min())
    assert 0.5 * shortest < float(model.inner[model.inner > 0].min()) < shortest
    assert torch.equal(model.inner, model.inner.T)
    with torch.no_grad():
        model.inner.fill_(2.0)  # now many pairs are
    test_all_ways_agree(model, batch)
    energies = []
    for r in torch.linspace(0.3, 2.5, 441).tolist():
        graph = graph_of([Atoms("OC", positions=[[0, 0, 0], [0, 0, r]])])
        energy, forces, _ = results(model, graph)
        energies.append((float(energy.sum()), float(forces[1, 2])))
    e, f = torch.tensor(energies, dtype=torch.float64).T
    step = 2.2 / 440
    torch.testing.assert_close(
        f[1:-1], -(e[2:] - e[:-2]) / (2 * step), rtol=1e-2, atol=1e-2 * float(f.abs().max())
    )
    flat = int((0.8 * 2.0 - 0.3) / step)
    assert float(f[:flat].abs().max()) < 1e-8 < float(f[flat + 20 :].abs().max())


def test_derivatives_in_the_weights_agree(model: Ace, batch: Batch) -> None:
    def gradients(model: Ace) -> list[torch.Tensor]:
        graph = with_leaves(batch.graph)
        energies = model(graph, ["energy"])["energy"][0]
        forces, strain = forces_and_strain(energies, graph, strain=True, create_graph=True)
        assert strain is not None
        loss = energies.square().sum() + (forces - batch.labels["energy:forces"]).square().sum()
        loss = loss + strain.square().sum()
        return list(torch.autograd.grad(loss, [p for p in model.parameters() if p.numel()]))

    fast = gradients(model)
    model.plain = True
    for found, expected in zip(fast, gradients(model), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9 * float(expected.norm()))


def test_statistics_of_the_training_set(
    model: Ace, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "FEW", 1e-9)  # these few are enough
    model.calibrate(iter([batch]))
    species = model.species_index[batch.graph.types]
    features = model(batch.graph, ["feature"])["feature"][0].detach() / model.size
    for s in range(len(TYPES)):
        own = features[species == s, s * model.n_hidden :][:, : model.n_features]
        assert float(own.mean(0).abs().max()) < 1e-9
        deviation = own.std(0, correction=0)
        sizes = sizes_of(model)
        assert bool((deviation <= sizes).all()) and float((deviation / sizes).median()) > 0.99
    forces = results(model, batch.graph)[1]
    wanted = batch.labels["energy:forces"]
    assert float(forces.norm()) == pytest.approx(float(wanted.norm()), rel=1e-6)


def test_elements_that_are_missing_do_no_harm(batch: Batch) -> None:
    model = Ace(ModelHypers(num_channels=4), info((1, 6, 8, 79))).to(torch.float64)
    model.calibrate(iter([batch]))
    gold = graph_of([Atoms("Au2", positions=[[0, 0, 0], [0, 0, 2.5]])])
    assert all(bool(torch.isfinite(part).all()) for part in results(model, gold))


def test_other_targets_and_elements(model: Ace, frames: list[Atoms]) -> None:
    before = results(model, graph_of(frames))
    dipole = TargetInfo("dipole", kind="cartesian", rank=1, quantity="", gradients=())
    both = DatasetInfo("angstrom", TYPES, {**info().targets, "dipole": dipole})
    model.retarget(both)
    close(before, results(model, graph_of(frames)))
    assert model(graph_of(frames), ["dipole"])["dipole"][0].shape[1:] == (3, 1)
    with pytest.raises(DataError, match=r"built for the atomic numbers .* cannot take \[14\] in"):
        model.retarget(info((1, 6, 14)))


def test_biases_are_no_matrices() -> None:
    """Muon must not take them for some: see the core's ``is_matrix``."""
    from atomtrain.training.optimisation import is_matrix

    model = Ace(ModelHypers(), info())
    matrices = {name for name, p in model.named_parameters() if is_matrix(p) and p.numel()}
    assert matrices == {"pair", "third", "first"}
    assert TrainerHypers().optimizer == "muon"


def test_weighted_sums_have_their_own_gradient(model: Ace, batch: Batch) -> None:
    """With two layers an atom's energy depends on vectors that start from others."""
    weights = torch.linspace(0.0, 2.0, len(batch.graph.types), dtype=torch.float64).unsqueeze(1)

    def gradients(model: Ace) -> list[torch.Tensor]:
        graph = with_leaves(batch.graph)
        total = (weights * model(graph, ["energy"])["energy"][0]).sum()
        (slopes,) = torch.autograd.grad(total, graph.vectors, create_graph=True)
        return [
            slopes.detach(),
            *torch.autograd.grad(slopes.square().sum(), [model.pair, model.first]),
        ]

    fast = gradients(model)
    model.plain = True
    for found, expected in zip(fast, gradients(model), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9 * float(expected.norm()))


def test_an_exported_model_differentiates_what_engines_ask_for(model: Ace, batch: Batch) -> None:
    """The sum over atoms, over those that are selected, or over atoms that are weighed in any way."""
    exported = copy.deepcopy(model)
    exported.before_export()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(exported)
    model.plain = True
    n_atoms = len(batch.graph.types)
    selected = torch.arange(n_atoms) % 3 != 0
    any_weights = torch.linspace(0.0, 2.0, n_atoms, dtype=torch.float64)
    asked = [
        ({"atomtrain::selected": selected}, selected.to(torch.float64)),
        ({"atomtrain::per_atom": batch.graph.types[:0]}, any_weights),
    ]
    for extras, weights in asked:
        slopes = []
        for one in (scripted, model):
            graph = with_leaves(batch.graph)._replace(extras=extras)
            total = (weights.unsqueeze(1) * one(graph, ["energy"])["energy"][0]).sum()
            slopes.append(torch.autograd.grad(total, graph.vectors)[0])
        torch.testing.assert_close(*slopes, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("num_layers", [1, 2])
def test_elements_without_data_are_seen_as_the_others(batch: Batch, num_layers: int) -> None:
    """N is known but not there: a later training may bring it."""
    hypers = ModelHypers(**SMALL, num_layers=num_layers)
    torch.manual_seed(0)
    model = Ace(hypers, info((1, 6, 7, 8))).to(torch.float64)
    model.calibrate(iter([batch]))
    n, others = 2, [0, 1, 3]
    means, scales = [model.feature_mean, model.density_mean], [model.feature_scale]
    if model.second is not None:
        means.append(model.second.mean)
        scales += [model.second.feature_scale, model.second.scale[1]]
    for rows in means:
        assert rows[others].abs().sum() > 0
        torch.testing.assert_close(rows[n], rows[others].mean(0))
    for rows in scales:
        assert among(rows[n], rows[others])
    for size in torch.linalg.matrix_norm(model.whitening, 2).reshape(3, 4, 4):
        assert among(size[n, n], size[others][:, others].flatten())


@pytest.mark.parametrize("num_layers", [1, 2])
def test_few_atoms_do_not_say_how_large_features_are(batch: Batch, num_layers: int) -> None:
    """The only S is nearly out of sight; features of others were ten thousand deviations once it was near."""

    def with_sulphur(distance: float) -> Atoms:
        return Atoms("SOCH", positions=[[0, 0, 0], [distance, 0, 0], [6, 0, 0], [6.8, 0.7, 0]])

    torch.manual_seed(0)
    model = Ace(ModelHypers(**SMALL, num_layers=num_layers), info((1, 6, 8, 16))).to(torch.float64)
    model.calibrate(iter([graph_batch([with_sulphur(4.2)]), batch]))
    features = model(graph_of([with_sulphur(1.5)]), ["feature"])["feature"][0] / model.size
    assert float(features.detach().abs().max()) < 30.0


@pytest.mark.parametrize("num_layers", [1, 2])
def test_a_grown_model_has_statistics_of_old_and_new(
    batch: Batch, frames: list[Atoms], num_layers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """N is new: what is known stays to the last bit, what is new is found in structures with it."""
    monkeypatch.setattr(calibration, "FEW", 1e-9)  # these few are enough
    hypers = ModelHypers(**SMALL, num_layers=num_layers)
    torch.manual_seed(0)
    trained = Ace(hypers, info(TYPES)).to(torch.float64)
    trained.calibrate(iter([batch]))
    grown = Ace(hypers, info((1, 6, 7, 8))).to(torch.float64)
    changed = [atoms.copy() for atoms in frames[:4]]
    for atoms in changed:
        atoms.numbers[::2] = 7
    new = source_of(store_of(changed), cutoff=4.5).batch(torch.arange(len(changed)))
    grown.grow(trained, Growth(TYPES, (1, 6, 7, 8), lambda: iter([new])))

    old, n, width = [0, 1, 3], 2, SMALL["num_radial"]
    pairs = grown.whitening.reshape(3, 4, 4, width, width)
    assert torch.equal(pairs[:, old][:, :, old].flatten(1, 2), trained.whitening)
    assert torch.equal(grown.inner[old][:, old], trained.inner)
    assert torch.equal(grown.feature_scale[old], trained.feature_scale)
    assert torch.equal(grown.size, trained.size)
    means = grown.density_mean.reshape(4, 4, width)
    assert torch.equal(means[old][:, old].flatten(1), trained.density_mean)
    assert not means[old][:, n].any()  # without N there is nothing to be seen of it
    assert means[n, n].any()
    # atoms of N have features of mean 0 and as large as those of others
    species = grown.species_index[new.graph.types]
    layout = by_species(species, 4)
    flat, _ = grown._fast_density(new.graph, species)
    features = grown.first_layer(flat, species, layout).features
    own = normalised(features, species, grown.feature_mean, grown.feature_scale)[
        species == n
    ].detach()
    torch.testing.assert_close(own.mean(0), torch.zeros_like(own[0]), atol=1e-9, rtol=0)
    relative = own.std(0, correction=0) / sizes_of(grown)[: own.shape[1]]
    assert float(relative.median()) == pytest.approx(1.0, abs=0.01)
    # how close N comes to what is known
    graph = new.graph
    r = torch.linalg.vector_norm(graph.vectors, dim=1)
    near = (graph.types[graph.centers] == 6) & (graph.types[graph.neighbors] == 7)
    assert float(grown.inner[1, n]) == pytest.approx(0.9 * float(r[near].min()))
