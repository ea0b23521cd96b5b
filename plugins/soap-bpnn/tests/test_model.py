"""The model as a whole: physics, TorchScript, hypers."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import torch
from ase import Atoms
from helpers.soap import build, info
from helpers.structures import graph_of
from pydantic import ValidationError

from atomtrain.errors import DataError, TargetError
from atomtrain.graph import AtomGraph
from atomtrain.model import Predictor, forces_and_strain, with_leaves
from atomtrain.plugins import open_architecture
from atomtrain.targets import DatasetInfo, TargetInfo
from atomtrain_soap_bpnn.hypers import ModelHypers
from atomtrain_soap_bpnn.model import SoapBpnn


def energy(model: SoapBpnn, atoms: Atoms) -> float:
    return float(model(graph_of([atoms]), ["energy"])["energy"][0].sum().detach())


@pytest.mark.parametrize("legacy", [True, False])
def test_forces_and_stress_are_derivatives(frames: list[Atoms], legacy: bool) -> None:
    model = build(legacy)
    crystal = frames[2].copy()
    crystal.set_cell(crystal.cell.array @ (np.eye(3) + [[0, 0.1, 0], [0, 0, 0.05], [0, 0, 0]]),
                     scale_atoms=True)  # fmt: skip
    graph = with_leaves(graph_of([crystal]))
    forces, strain = forces_and_strain(
        model(graph, ["energy"])["energy"][0], graph, strain=True, create_graph=False
    )
    assert strain is not None
    h = 1e-4
    for atom, axis in ((0, 0), (3, 2), (5, 1)):
        moved = []
        for sign in (1, -1):
            other = crystal.copy()
            other.positions[atom, axis] += sign * h
            moved.append(energy(model, other))
        assert -(moved[0] - moved[1]) / (2 * h) == pytest.approx(
            float(forces[atom, axis].detach()), rel=1e-6, abs=1e-8
        )
    for a, b in ((0, 0), (0, 1), (2, 1)):
        moved = []
        for sign in (1, -1):
            deformation = np.eye(3)
            deformation[a, b] += sign * h
            other = crystal.copy()
            other.set_cell(crystal.cell.array @ deformation, scale_atoms=True)
            moved.append(energy(model, other))
        assert (moved[0] - moved[1]) / (2 * h) == pytest.approx(
            float(strain[0, 3 * a + b].detach()), rel=1e-6, abs=1e-8
        )


@pytest.mark.parametrize("legacy", [True, False])
def test_symmetries(frames: list[Atoms], legacy: bool) -> None:
    model = build(legacy)
    for atoms in frames[:4]:
        e = energy(model, atoms)
        rotated = atoms.copy()
        rotated.rotate(37, (1, 2, 3), rotate_cell=True)
        assert energy(model, rotated) == pytest.approx(e, abs=1e-11)
        inverted = atoms.copy()
        inverted.positions *= -1
        inverted.set_cell(-atoms.cell.array)
        assert energy(model, inverted) == pytest.approx(e, abs=1e-11)
        permuted = atoms[np.random.default_rng(0).permutation(len(atoms))]
        assert energy(model, permuted) == pytest.approx(e, abs=1e-11)
        if atoms.pbc.any():
            wrapped = atoms.copy()
            wrapped.positions += np.array([7.3, -2.1, 0.0])
            wrapped.wrap()
            assert energy(model, wrapped) == pytest.approx(e, abs=1e-10)
    crystal = frames[2]
    assert energy(model, crystal.repeat((2, 1, 1))) == pytest.approx(
        2 * energy(model, crystal), abs=1e-10
    )


def test_independent_of_the_batch(frames: list[Atoms], graph: AtomGraph) -> None:
    model = build()
    together = model(graph, ["energy"])["energy"][0].detach()
    for k, atoms in enumerate(frames):
        alone = model(graph_of([atoms]), ["energy"])["energy"][0].detach()
        torch.testing.assert_close(together[graph.structure == k], alone, rtol=0, atol=1e-12)


def test_smooth_at_the_cutoff() -> None:
    model = build()
    energies = [
        energy(model, Atoms("CO", positions=[[0, 0, 0], [0, 0, d]]))
        for d in (5.0 - 1e-5, 5.0 - 1e-9, 5.0 + 1e-9)
    ]
    apart = energy(model, Atoms("CO", positions=[[0, 0, 0], [0, 0, 9.0]]))
    assert energies == pytest.approx([apart] * 3, abs=1e-9)


@pytest.mark.parametrize("legacy", [True, False])
def test_scripted_is_eager(frames: list[Atoms], legacy: bool) -> None:
    """Values and forces, over many calls of changing size, one of them without pairs."""
    model = build(legacy)
    predictor = Predictor(model, info())
    scripted = scripted_of(model, info())
    model.plain = False
    for atoms in [frames[k % len(frames)] for k in range(18)]:
        results = []
        for module in (scripted, predictor):
            g = with_leaves(graph_of([atoms]))
            energies = module(g, ["energy"])["energy"][0]
            (on_vectors,) = torch.autograd.grad(energies.sum(), g.vectors, allow_unused=True)
            results.append((energies, on_vectors))
        torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-9, atol=1e-11)


def scripted_of(model: SoapBpnn, data: DatasetInfo) -> torch.jit.ScriptModule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(Predictor(model, data))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "hypers",
    [
        {},
        {"heads": {"energy": "mlp"}},
        {"bpnn": {"layernorm": False, "num_hidden_layers": 1}},
        {"soap": {"max_angular": 0}},
        {"zbl": True},
    ],
)
@pytest.mark.parametrize("folded", [False, True])
def test_closed_form_is_autograd(frames: list[Atoms], hypers: dict, folded: bool) -> None:
    """What an exported model tells autograd holds for any weighting of atoms and order of pairs."""
    targets = {
        "energy": TargetInfo("energy", quantity="energy", unit="eV"),
        "energy/pbe": TargetInfo("energy/pbe", quantity="energy", unit="eV"),
    }
    data = DatasetInfo("angstrom", (1, 6, 8), targets)
    torch.manual_seed(0)
    model = SoapBpnn(ModelHypers(**hypers), data).to(torch.float64)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    plain = Predictor(copy.deepcopy(model), data)
    plain.model.plain = True
    if folded:
        model.before_export()
    scripted = scripted_of(model, data)
    generator = torch.Generator().manual_seed(1)
    # many atoms are laid out by element, few are not
    few = [atoms for atoms in frames if 1 < len(atoms) <= 20]
    assert few and model.closed.few * 8 > max(len(graph_of([a]).centers) for a in few)
    for chosen in (frames, *([atoms] for atoms in few)):
        graph = graph_of(chosen)
        weights = torch.randn(len(graph.types), 1, dtype=torch.float64, generator=generator)
        for order in (torch.arange(len(graph.centers)), torch.randperm(len(graph.centers))):
            results = []
            for module in (scripted, plain):
                pairs = {
                    name: getattr(graph, name)[order]
                    for name in ("centers", "neighbors", "shifts", "vectors")
                }
                g = with_leaves(graph._replace(**pairs))
                found = module(g, list(targets))
                total = sum((weights * found[name][0]).sum() for name in targets)
                (on_vectors,) = torch.autograd.grad(total, g.vectors)
                results.append([*(found[name][0] for name in targets), on_vectors])
            torch.testing.assert_close(results[0], results[1], rtol=1e-9, atol=1e-10)


def test_second_derivatives(graph: AtomGraph) -> None:
    """Refused by a compiled model, never silently wrong; the plain model has them."""
    model = build()
    scripted = scripted_of(copy.deepcopy(model), info())
    model.plain = True
    slopes = []
    for module in (scripted, Predictor(model, info())):
        g = with_leaves(graph)
        energies = module(g, ["energy"])["energy"][0]
        slopes += torch.autograd.grad(energies.sum(), g.vectors, create_graph=True)
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-9, atol=1e-10)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(slopes[0].square().sum(), g.vectors)
    assert torch.autograd.grad(slopes[1].square().sum(), g.vectors)[0].any()


def test_several_targets_and_heads(graph: AtomGraph) -> None:
    targets = {
        "energy": TargetInfo("energy", quantity="energy"),
        "mtt::dos": TargetInfo("mtt::dos", num_subtargets=7),
        "energy/pbe": TargetInfo("energy/pbe", quantity="energy"),
    }
    data = DatasetInfo("angstrom", (1, 6, 8), targets)
    model = SoapBpnn(ModelHypers(heads={"mtt::dos": "mlp"}), data).to(torch.float64)
    found = model(graph, list(targets))
    assert {k: tuple(v[0].shape[1:]) for k, v in found.items()} == {
        "energy": (1,), "mtt::dos": (7,), "energy/pbe": (1,)}  # fmt: skip
    assert list(model(graph, ["mtt::dos"])) == ["mtt::dos"]


def test_retarget() -> None:
    model = build()
    before = model.heads["energy"].blocks[0].linear.weight.clone()
    extra = TargetInfo("energy/pbe", quantity="energy")
    model.retarget(DatasetInfo("angstrom", (1, 6, 8), {**info().targets, "energy/pbe": extra}))
    assert torch.equal(model.heads["energy"].blocks[0].linear.weight, before)
    assert "energy/pbe" in model.heads
    with pytest.raises(DataError, match=r"cannot take \[14\] in"):
        model.retarget(DatasetInfo("angstrom", (1, 6, 8, 14), info().targets))


def test_refusals() -> None:
    with pytest.raises(TargetError, match="spherical tensors, not type 'spacegroup'"):
        group = TargetInfo("mtt::group", kind="spacegroup")
        SoapBpnn(ModelHypers(), DatasetInfo("angstrom", (1,), {"mtt::group": group}))
    with pytest.raises(TargetError, match="'mtt::dipole' is no scalar"):
        vector = TargetInfo("mtt::dipole", kind="cartesian", rank=1)
        SoapBpnn(
            ModelHypers(heads={"mtt::dipole": "mlp"}),
            DatasetInfo("angstrom", (1,), {"mtt::dipole": vector}),
        )
    with pytest.raises(TargetError, match="names energie, which is no target"):
        SoapBpnn(ModelHypers(heads={"energie": "mlp"}), info())
    with pytest.raises(ValidationError, match="width cannot be larger"):
        ModelHypers(soap={"cutoff": {"radius": 1.0, "width": 2.0}})


def test_hypers_are_documented() -> None:
    def check(cls: type) -> None:
        for name, field in cls.model_fields.items():  # type: ignore[attr-defined]
            assert field.description, f"{cls.__name__}.{name}"
            if hasattr(field.annotation, "model_fields"):
                check(field.annotation)

    check(ModelHypers)


def test_described() -> None:
    architecture = open_architecture("soap_bpnn")
    assert architecture.info.name == "soap-bpnn"
    assert architecture.info.target_kinds == ("scalar", "cartesian", "spherical")
