"""Tensor targets: how they turn, that every path gives the same, what comes out beside them."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from ase import Atoms
from helpers.structures import graph_of

from atomtrain.errors import TargetError
from atomtrain.graph import AtomGraph
from atomtrain.model import Predictor, with_leaves
from atomtrain.model.export import export_predictor
from atomtrain.targets import DatasetInfo, TargetInfo
from atomtrain.targets.layout import Irrep
from atomtrain_density.elements import by_species
from atomtrain_density.harmonics import SphericalHarmonics
from atomtrain_soap_bpnn.hypers import ModelHypers
from atomtrain_soap_bpnn.model import SoapBpnn

IRREPS = (
    Irrep(0, 1, 2), Irrep(0, -1), Irrep(1, 1, 2), Irrep(1, -1), Irrep(2, 1), Irrep(2, -1, 3),
    Irrep(3, 1), Irrep(5, 1), Irrep(8, 1),
)  # fmt: skip
TARGETS = {
    "energy": TargetInfo("energy", quantity="energy", unit="eV"),
    "mtt::all": TargetInfo("mtt::all", kind="spherical", irreps=IRREPS, per_atom=True),
    "mtt::vector": TargetInfo("mtt::vector", kind="cartesian", rank=1, num_subtargets=3),
    "mtt::matrix": TargetInfo("mtt::matrix", kind="cartesian", rank=2, num_subtargets=2),
    "non_conservative_stress": TargetInfo("non_conservative_stress", kind="cartesian", rank=2),
}
DATA = DatasetInfo("angstrom", (1, 6, 8), TARGETS)


def build(legacy: bool = True, **hypers: object) -> SoapBpnn:
    torch.manual_seed(0)
    return SoapBpnn(ModelHypers(legacy=legacy, **hypers), DATA).to(torch.float64)


def turn(degree: int, rotation: np.ndarray) -> torch.Tensor:
    """Matrix D with Y(R v) = Y(v) D for real harmonics of one degree, from the harmonics alone."""
    harmonics = SphericalHarmonics(degree)
    v = torch.nn.functional.normalize(
        torch.randn(300, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64), dim=1
    )
    part = slice(degree * degree, (degree + 1) ** 2)
    before = harmonics(v)[:, part]
    after = harmonics(v @ torch.from_numpy(rotation).T)[:, part]
    return torch.linalg.lstsq(before, after).solution


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal to rounding, measured by the largest entry."""
    size = max(1.0, float(expected.detach().abs().max()))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-11 * size)


def some_rotation() -> np.ndarray:
    q, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    return q * np.sign(np.linalg.det(q))


@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("lambda_basis", [True, False])
def test_tensors_turn_with_the_structure(
    frames: list[Atoms], legacy: bool, lambda_basis: bool
) -> None:
    model = build(legacy, add_lambda_basis=lambda_basis)
    names = list(TARGETS)
    rotation = some_rotation()
    r = torch.from_numpy(rotation)
    for atoms in frames[:4]:
        found = model(graph_of([atoms]), names)
        for inverted in (False, True):
            sign = -1.0 if inverted else 1.0
            other = atoms.copy()
            other.positions = sign * atoms.positions @ rotation.T
            other.set_cell(sign * atoms.cell.array @ rotation.T)
            again = model(graph_of([other]), names)
            for irrep, a, b in zip(IRREPS, found["mtt::all"], again["mtt::all"], strict=True):
                parity = irrep.o3_sigma * (-1) ** irrep.o3_lambda if inverted else 1
                expected = torch.einsum("imp,mn->inp", a, turn(irrep.o3_lambda, rotation))
                close(b, parity * expected)
            vector = torch.einsum("ab,ibp->iap", r, found["mtt::vector"][0])
            close(again["mtt::vector"][0], sign * vector)
            for name in ("mtt::matrix", "non_conservative_stress"):
                m = torch.einsum("ab,ibcp,dc->iadp", r, found[name][0], r)
                close(again[name][0], m)
        assert float(found["mtt::all"][0].detach().abs().max()) > 1e-4
    stress = found["non_conservative_stress"][0]
    close(stress, stress.transpose(1, 2))
    matrix = found["mtt::matrix"][0]
    assert float((matrix - matrix.transpose(1, 2)).detach().abs().max()) > 1e-10


@pytest.mark.parametrize("legacy", [True, False])
def test_fast_is_plain_is_scripted(graph: AtomGraph, legacy: bool) -> None:
    """Values and derivatives of tensors in the pair vectors, on all three paths; kept ones too."""
    model = build(legacy)
    names = [n for n in TARGETS if n != "non_conservative_stress"] + ["feature"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(Predictor(model, DATA))
    weights = {}
    results = []
    for path in ("fast", "plain", "scripted"):
        g = with_leaves(graph)
        model.plain = path == "plain"
        found = scripted.model(g, names) if path == "scripted" else model(g, names)
        flat = torch.cat([b.flatten() for n in names for b in found[n]])
        if not weights:
            weights["w"] = torch.randn(flat.shape, dtype=torch.float64)
        (slope,) = torch.autograd.grad((flat * weights["w"]).sum(), g.vectors)
        results.append((flat, slope))
    model.plain = False
    for other in results[1:]:
        torch.testing.assert_close(other[0], results[0][0], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(other[1], results[0][1], rtol=1e-8, atol=1e-9)
    kept = graph._replace(extras=model.constants(graph).per_atom)
    found = model(kept, names)
    flat = torch.cat([b.flatten() for n in names for b in found[n]])
    torch.testing.assert_close(flat, results[0][0], rtol=1e-12, atol=1e-12)


def test_the_basis_is_complete(graph: AtomGraph, frames: list[Atoms]) -> None:
    """In a place without symmetry the basis of every degree spans all components."""
    model = build(add_lambda_basis=False)
    g = graph_of([frames[0]])
    species = model.species_index[g.types]
    densities = model.plain_features(g, species)[1]
    layout = by_species(species, 3)
    for block in model.heads["mtt::all"].blocks:
        basis = block.basis(densities, species, layout).detach()
        singular = torch.linalg.svdvals(basis / basis.norm(dim=1, keepdim=True))[:, -1]
        assert float(singular.median()) > 1e-6, (block.basis.degree, block.basis.pseudo)


@pytest.mark.parametrize("legacy", [True, False])
def test_features(graph: AtomGraph, legacy: bool) -> None:
    """With networks by element: one stretch of columns per element, zero outside the atom's own."""
    model = build(legacy)
    feature = model(graph, ["feature"])["feature"][0]
    widths = model.feature_outputs()
    assert feature.shape == (len(graph.types), widths["feature"])
    assert widths["feature"] == (96 if legacy else 32)
    assert "mtt::aux::all_last_layer_features" in widths
    if legacy:
        by_element = feature.detach().reshape(-1, 3, 32)
        species = model.species_index[graph.types]
        for k in range(3):
            assert bool((by_element[species != k][:, k] == 0).all())
            assert bool((by_element[species == k][:, k] != 0).any())
        head = model.heads["energy"]
        weight = head.blocks[0].linear.weight.reshape(-1)  # [elements x neurons]
        last = model(graph, ["mtt::aux::energy_last_layer_features"])
        energies = last["mtt::aux::energy_last_layer_features"][0] @ weight
        torch.testing.assert_close(energies, model(graph, ["energy"])["energy"][0][:, 0])


def test_exported(frames: list[Atoms]) -> None:
    """Names, shapes and values through metatomic, per atom and per structure."""
    from metatomic.torch import ModelOutput
    from metatomic_ase import MetatomicCalculator

    model = build()
    predictor = Predictor(model, DATA)
    exported = export_predictor(predictor, {})
    outputs = exported.capabilities().outputs
    assert {*TARGETS, *model.feature_outputs()} <= set(outputs)
    assert "features" in outputs  # the older spelling, which metatomic keeps
    calculator = MetatomicCalculator(exported, device="cpu", check_consistency=True)
    names = [*TARGETS, "feature"]
    g = graph_of([frames[2], frames[0]])
    expected = predictor(g, names)
    for kind in ("atom", "system"):
        asked = {n: ModelOutput(sample_kind=kind) for n in names}
        found = calculator.run_model([frames[2], frames[0]], asked)
        for name in names:
            for block, value in zip(found[name].blocks(), expected[name], strict=True):
                if kind == "system":
                    value = torch.stack([value[g.structure == k].sum(0) for k in range(2)])
                torch.testing.assert_close(block.values, value, rtol=1e-9, atol=1e-9)
    keys = found["mtt::all"].keys
    assert keys.names == ["o3_lambda", "o3_sigma"]
    assert keys.values.tolist() == [[i.o3_lambda, i.o3_sigma] for i in IRREPS]
    assert found["mtt::matrix"].block().values.shape == (2, 3, 3, 2)
    assert found["feature"].block().properties.names == ["feature"]
    assert float(found["non_conservative_stress"].block().values[1].abs().max()) == 0.0


def test_refused() -> None:
    ragged = TargetInfo("mtt::ragged", kind="spherical")
    with pytest.raises(TargetError, match="give 'irreps' as one list"):
        SoapBpnn(ModelHypers(), DatasetInfo("angstrom", (1,), {"mtt::ragged": ragged}))


def test_retarget_to_a_higher_degree(graph: AtomGraph) -> None:
    energy = {"energy": TARGETS["energy"]}
    torch.manual_seed(0)
    model = SoapBpnn(
        ModelHypers(soap={"max_angular": 2}), DatasetInfo("angstrom", (1, 6, 8), energy)
    )
    model = model.to(torch.float64)
    before = model(graph, ["energy"])["energy"][0]
    high = TargetInfo("mtt::high", kind="spherical", irreps=(Irrep(4, 1),))
    model.retarget(DatasetInfo("angstrom", (1, 6, 8), {**energy, "mtt::high": high}))
    found = model(graph, ["energy", "mtt::high"])
    torch.testing.assert_close(found["energy"][0], before, rtol=1e-6, atol=1e-6)
    assert found["mtt::high"][0].shape == (len(graph.types), 9, 1)
