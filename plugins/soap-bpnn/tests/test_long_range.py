"""Long-range features: electrostatics against what is known, derivatives, TorchScript, export."""

from __future__ import annotations

import copy
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import torch
import yaml
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator
from helpers.soap import info
from helpers.structures import graph_of
from metatomic_ase import MetatomicCalculator
from pydantic import ValidationError

from atomtrain import api
from atomtrain.errors import DataError, OptionsError
from atomtrain.graph import AtomGraph
from atomtrain.model import Predictor, forces_and_strain, with_leaves
from atomtrain.plugins.restore import restore
from atomtrain.training.checkpoint import load_checkpoint
from atomtrain_soap_bpnn.hypers import ModelHypers
from atomtrain_soap_bpnn.model import SoapBpnn

torchpme = pytest.importorskip("torchpme")
from atomtrain_soap_bpnn.long_range import LongRange  # noqa: E402

EWALD = pytest.mark.parametrize("ewald", [False, True])


def long_range(ewald: bool = False, radius: float = 5.0, n: int = 3, **hypers: Any) -> LongRange:
    section = ModelHypers(long_range={"enable": True, "use_ewald": ewald, **hypers}).long_range
    return LongRange(section, n, radius).to(torch.float64)


def build(ewald: bool = False, legacy: bool = True) -> SoapBpnn:
    torch.manual_seed(3)
    hypers = ModelHypers(
        soap={"max_angular": 2, "max_radial": 2, "cutoff": {"radius": 4.0}},
        bpnn={"num_neurons_per_layer": 6},
        legacy=legacy,
        long_range={"enable": True, "use_ewald": ewald},
    )
    model = SoapBpnn(hypers, info()).to(torch.float64)
    with torch.no_grad():  # large enough to be seen in every comparison
        assert model.long_range is not None
        for parameter in model.long_range.parameters():
            parameter.mul_(3.0)
    return model


def energy(model: SoapBpnn, atoms: Atoms) -> float:
    return float(model(graph_of([atoms]), ["energy"])["energy"][0].detach().sum())


def inside(graph: AtomGraph, charges: torch.Tensor, radius: float) -> torch.Tensor:
    """What is left out within the radius: half the sum of q_j f(r) / r."""
    r = graph.vectors.norm(dim=1)
    f = torch.where(r < radius, 0.5 + 0.5 * torch.cos(math.pi * r / radius), 0.0)
    return 0.5 * torch.zeros_like(charges).index_add(
        0, graph.centers, charges[graph.neighbors] * (f / r).unsqueeze(1)
    )


# -- electrostatics --------------------------------------------------------------------------------


@EWALD
@pytest.mark.parametrize(
    ("name", "madelung"), [("rocksalt", 1.74756459463318), ("cesiumchloride", 1.76267477307098)]
)
def test_madelung(ewald: bool, name: str, madelung: float) -> None:
    """The energy of point charges: with a narrow smearing erf(r / sqrt(2) s) is 1 at all pairs."""
    crystal = bulk("NaCl", name, a=4.0).repeat(2)  # rocksalt: a skewed, primitive cell
    nearest = 2.0 if name == "rocksalt" else 4.0 * math.sqrt(3) / 2
    graph = graph_of([crystal])
    q = torch.where(graph.types == 11, 1.0, -1.0).to(torch.float64).unsqueeze(1)
    module = long_range(ewald, smearing=0.35, kspace_resolution=0.15)
    potential = module.potential(graph, q) + inside(graph, q, 5.0)
    # each atom has half of its interactions
    expected = -0.5 * q * madelung / nearest
    torch.testing.assert_close(potential, expected, rtol=1e-6, atol=0)


def test_p3m_is_torch_pmes(frames: list[Atoms]) -> None:
    graph = graph_of([frames[2]])
    q = torch.randn(len(frames[2]), 4, dtype=torch.float64)
    for nodes in (1, 2, 3, 4, 5):
        reference = torchpme.P3MCalculator(
            torchpme.CoulombPotential(smearing=1.4, exclusion_radius=5.0),
            mesh_spacing=1.33, interpolation_nodes=nodes, full_neighbor_list=True,
        ).to(torch.float64)  # fmt: skip
        expected = reference(
            q, graph.cells[0], graph.positions,
            torch.stack([graph.centers, graph.neighbors], 1), graph.vectors.norm(dim=1),
        )  # fmt: skip
        found = long_range(interpolation_nodes=nodes).potential(graph, q)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)


def test_p3m_is_near_ewald(frames: list[Atoms]) -> None:
    graph = graph_of([frames[1], frames[2], frames[3]])
    q = torch.randn(len(graph.types), 4, dtype=torch.float64)
    found = [long_range(ewald).potential(graph, q) for ewald in (False, True)]
    torch.testing.assert_close(*found, rtol=0, atol=1e-4)


def test_molecules_are_summed_directly(frames: list[Atoms]) -> None:
    molecules = [frames[0], frames[4], frames[5], molecule("C6H6")]
    graph = graph_of(molecules)
    q = torch.randn(len(graph.types), 3, dtype=torch.float64)
    expected, first = [], 0
    for atoms in molecules:
        for i in range(len(atoms)):
            total = torch.zeros(3, dtype=torch.float64)
            for j in range(len(atoms)):
                if i != j:
                    r = atoms.get_distance(i, j)
                    f = 0.5 * (1 + math.cos(math.pi * min(r / 5.0, 1.0)))
                    total += 0.5 * q[first + j] * (1 - f) / r
            expected.append(total)
        first += len(atoms)
    found = long_range().potential(graph, q)
    torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=1e-13)


@EWALD
def test_slab(ewald: bool) -> None:
    """Against the plain sum over images in the plane, neutral in each ring of cells."""
    slab = Atoms(
        "COCO", positions=[[0, 0, 0], [2, 2, 0.3], [2, 0, 2.1], [0, 2, 2.5]],
        cell=[4, 4.4, 0], pbc=[True, True, False],
    )  # fmt: skip
    slab.rotate(30, (1, 2, 3), rotate_cell=True)  # its normal along no axis
    q = torch.tensor([[1.0], [-1.0], [1.5], [-1.5]], dtype=torch.float64)
    module = long_range(ewald, smearing=0.4, kspace_resolution=0.25)
    graph = graph_of([slab])
    found = module.potential(graph, q) + inside(graph, q, 5.0)
    index = np.arange(-150, 151)
    images = (index[:, None, None] * slab.cell[0] + index[None, :, None] * slab.cell[1]).reshape(
        -1, 3
    )
    # cut off smoothly; what is missing goes with one over the length, hence the extrapolation
    near, far = (np.exp(-np.square(np.linalg.norm(images, axis=1) / c)) for c in (100.0, 200.0))
    smooth = 2 * far - near
    expected = []
    for i in range(4):
        total = 0.0
        for j in range(4):
            r = np.linalg.norm(slab.positions[j] - slab.positions[i] + images, axis=1)
            here = r > 1e-9
            total += 0.5 * float(q[j]) * float((smooth[here] / r[here]).sum())
        expected.append([total])
    torch.testing.assert_close(
        found, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=2e-4
    )


def test_wires_are_refused(frames: list[Atoms]) -> None:
    wire = Atoms("CO", positions=[[0, 0, 0], [0, 0, 1.5]], cell=[0, 0, 3], pbc=[0, 0, 1])
    with pytest.raises(DataError, match="periodic in one direction only"):
        energy(build(), wire)


# -- the model -------------------------------------------------------------------------------------


def skewed(frames: list[Atoms]) -> Atoms:
    crystal = frames[2].copy()
    shear = np.eye(3) + [[0, 0.1, 0], [0, 0, 0.05], [0, 0, 0]]
    crystal.set_cell(crystal.cell.array @ shear, scale_atoms=True)
    return crystal


@EWALD
@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("kind", ["molecule", "crystal", "slab"])
def test_forces_and_stress_are_derivatives(
    frames: list[Atoms], ewald: bool, legacy: bool, kind: str
) -> None:
    if kind == "molecule" and ewald:
        pytest.skip("molecules are summed directly")
    atoms = {"molecule": frames[0], "crystal": skewed(frames), "slab": frames[3]}[kind]
    model = build(ewald, legacy)
    graph = with_leaves(graph_of([atoms]))
    energies = model(graph, ["energy"])["energy"][0]
    forces, strain = forces_and_strain(energies, graph, strain=True, create_graph=False)
    assert strain is not None
    strain = strain.detach()
    # the height of a slab decides its vacuum, on which the energy depends very weakly
    relative, absolute = (1e-5, 2e-6) if kind == "slab" else (1e-6, 1e-8)
    h = 3e-5
    for atom, axis in ((0, 0), (3, 2), (5, 1)):
        moved = []
        for sign in (1, -1):
            other = atoms.copy()
            other.positions[atom, axis] += sign * h
            moved.append(energy(model, other))
        slope = (moved[0] - moved[1]) / (2 * h)
        assert -slope == pytest.approx(float(forces[atom, axis]), rel=relative, abs=absolute)
    for a, b in ((0, 0), (0, 1), (2, 1)):
        moved = []
        for sign in (1, -1):
            deformation = np.eye(3)
            deformation[a, b] += sign * h
            other = atoms.copy()
            other.positions = other.positions @ deformation
            other.set_cell(atoms.cell.array @ deformation)
            moved.append(energy(model, other))
        slope = (moved[0] - moved[1]) / (2 * h)
        assert slope == pytest.approx(float(strain[0, 3 * a + b]), rel=relative, abs=absolute)


@EWALD
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("legacy", [True, False])
def test_trains_on_forces_and_stress(
    frames: list[Atoms], ewald: bool, dtype: torch.dtype, legacy: bool
) -> None:
    """Gradients of such a loss are those of finite differences in the weights."""
    model = build(ewald, legacy).to(dtype)
    structures = [frames[0], skewed(frames), frames[3]]

    def loss() -> torch.Tensor:
        graph = with_leaves(graph_of(structures, dtype=dtype))
        energies = model(graph, ["energy"])["energy"][0]
        forces, strain = forces_and_strain(energies, graph, strain=True, create_graph=True)
        assert strain is not None
        return forces.square().sum() + strain.square().sum()

    loss().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or bool(parameter.grad.isfinite().all()), name
    if dtype == torch.float32:
        return
    assert model.long_range is not None
    for weight in (model.long_range.charges.weight, model.long_range.output[0].bias):
        flat, grad, h = weight.detach().view(-1), weight.grad, 1e-5
        assert grad is not None
        flat[2] += h
        up = float(loss().detach())
        flat[2] -= 2 * h
        down = float(loss().detach())
        flat[2] += h
        assert (up - down) / (2 * h) == pytest.approx(float(grad.view(-1)[2]), rel=1e-5)


@EWALD
def test_symmetries(frames: list[Atoms], ewald: bool) -> None:
    model = build(ewald)
    with torch.no_grad():
        model.long_range.charges.weight.mul_(3.0)
    for atoms in (frames[0], frames[2], frames[3]):
        e = energy(model, atoms)
        rotated = atoms.copy()
        rotated.rotate(37, (1, 2, 3), rotate_cell=True)
        assert energy(model, rotated) == pytest.approx(e, abs=1e-10)  # the mesh turns along
        permuted = atoms[np.random.default_rng(0).permutation(len(atoms))]
        assert energy(model, permuted) == pytest.approx(e, abs=1e-10)
        moved = atoms.copy()
        moved.positions += np.array([0.71, -0.33, 0.52])
        on_a_mesh = atoms.pbc.any() and not ewald
        assert energy(model, moved) == pytest.approx(e, abs=2e-5 if on_a_mesh else 1e-10)
    crystal = frames[2]
    assert energy(model, crystal.repeat((2, 1, 1))) == pytest.approx(
        2 * energy(model, crystal), abs=1e-8 if ewald else 2e-5
    )


def test_sees_beyond_the_cutoff() -> None:
    model = build()
    energies = []
    for d in (8.0, 9.0):
        pair = molecule("H2O")
        pair.extend(Atoms("O", positions=[[0, 0, d]]))
        energies.append(energy(model, pair))
    assert abs(energies[1] - energies[0]) > 1e-4
    assert model.interaction_range == math.inf


@EWALD
@pytest.mark.parametrize("legacy", [True, False])
def test_independent_of_the_batch(frames: list[Atoms], ewald: bool, legacy: bool) -> None:
    """Molecules, crystals, slabs and single atoms in one batch."""
    model = build(ewald, legacy)
    mixed = [frames[k] for k in (1, 0, 3, 4, 2, 5, 0)]
    graph = graph_of(mixed)
    together = model(graph, ["energy"])["energy"][0].detach()
    for k, atoms in enumerate(mixed):
        alone = model(graph_of([atoms]), ["energy"])["energy"][0].detach()
        torch.testing.assert_close(together[graph.structure == k], alone, rtol=0, atol=1e-12)


@EWALD
@pytest.mark.parametrize("legacy", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.filterwarnings("ignore")
def test_scripted_is_eager(
    frames: list[Atoms], ewald: bool, legacy: bool, dtype: torch.dtype
) -> None:
    """Also when TorchScript has seen the same shapes twice and uses derivatives of its own."""
    model = build(ewald, legacy).to(dtype)
    predictor = Predictor(model, info())
    scripted = torch.jit.script(copy.deepcopy(predictor))
    tolerance = 2e-5 if dtype == torch.float32 else 1e-10
    for k in (2, 2, 2, 3, 3, 0, 0, 0, 1, 4, 5, 2, 2, 0, 3):
        for batch in ([frames[k]], [frames[k], frames[2], frames[0]]):
            results = []
            for module in (scripted, predictor):
                graph = with_leaves(graph_of(batch, dtype=dtype))
                energies = module(graph, ["energy"])["energy"][0]
                forces, strain = forces_and_strain(energies, graph, strain=True, create_graph=False)
                results.append((energies.detach(), forces, strain.detach()))
            for a, b in zip(*results, strict=True):
                torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)
    copy.deepcopy(predictor)  # also after it was used


# -- from options to other programs ----------------------------------------------------------------


def write_data(path: Path) -> None:
    """Noble gas dimers, chains and crystals, with and without a cell."""
    frames = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        if seed % 2:
            atoms = bulk("Ar", "fcc", a=4.4 + 0.5 * rng.random(), cubic=True)
        else:
            atoms = Atoms("Ar3", positions=[[0, 0, 0], [3.4, 0, 0], [0.3, 3.3, 0]])
        atoms.numbers[0] = 36
        atoms.rattle(0.1, seed=seed)
        atoms.calc = LennardJones(sigma=3.0, epsilon=0.1)
        results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
        if seed % 2:
            results["stress"] = atoms.get_stress()
        atoms.calc = SinglePointCalculator(atoms, **results)
        frames.append(atoms)
    ase.io.write(path, frames, format="extxyz")


OPTIONS = {
    "seed": 1,
    "base_precision": 64,
    "architecture": {
        "name": "soap-bpnn",
        "model": {
            "long_range": {"enable": True},
            "soap": {"max_angular": 2, "max_radial": 2, "cutoff": {"radius": 4.0}},
            "bpnn": {"num_neurons_per_layer": 6},
        },
        "training": {"num_epochs": 8, "batch_size": 4},
    },
    "training_set": {
        "systems": {"read_from": "data.xyz", "length_unit": "angstrom"},
        "targets": {
            "energy": {
                "key": "energy", "unit": "eV", "forces": True,
                "stress": {"read_from": "data.xyz", "key": "stress"},
            }
        },
    },
    "validation_set": 0.2,
    "test_set": 0.2,
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@EWALD
def test_from_options_to_ase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ewald: bool) -> None:
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path / "data.xyz")
    options = copy.deepcopy(OPTIONS)
    options["architecture"]["model"]["long_range"]["use_ewald"] = ewald
    options["training_set"]["targets"]["energy"]["allow_missing"] = True
    Path("options.yaml").write_text(yaml.safe_dump(options))
    result = api.train("options.yaml")
    assert result.errors["training"]["energy"]["rmse"] < 1.0
    predictor = restore(load_checkpoint("model.ckpt"), "export").predictor
    assert api.load("model.pt").capabilities().interaction_range == math.inf

    calculator = MetatomicCalculator("model.pt", device="cpu", check_consistency=True)
    frames = ase.io.read("data.xyz", ":4")
    for atoms in frames:
        graph = with_leaves(graph_of([atoms], cutoff=4.0))
        energies = predictor(graph, ["energy"])["energy"][0]
        forces, strain = forces_and_strain(energies, graph, strain=True, create_graph=False)
        atoms.calc = calculator
        assert atoms.get_potential_energy() == pytest.approx(
            float(energies.detach().sum()), rel=1e-10
        )
        np.testing.assert_allclose(atoms.get_forces(), forces, atol=1e-9)
        if atoms.pbc.all():
            stress = strain.detach().reshape(3, 3) / atoms.get_volume()
            np.testing.assert_allclose(atoms.get_stress(voigt=False), stress, atol=1e-10)

    # in a process that has neither atomtrain nor torch-pme
    script = (
        "import sys\n"
        "for name in ('atomtrain', 'atomtrain_soap_bpnn', 'atomtrain_density', 'torchpme', 'spex', 'sphericart'):\n"
        "    sys.modules[name] = None\n"
        "import ase.io\n"
        "from metatomic_ase import MetatomicCalculator\n"
        "atoms = ase.io.read('data.xyz', 1)\n"
        "atoms.calc = MetatomicCalculator('model.pt', device='cpu')\n"
        "print(repr(float(atoms.get_potential_energy())))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(frames[1].get_potential_energy(), rel=1e-12)


def test_missing_torch_pme(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchpme", None)
    monkeypatch.delitem(sys.modules, "atomtrain_soap_bpnn.long_range")
    with pytest.raises(OptionsError, match=r"pip install 'atomtrain-soap-bpnn\[long-range\]'"):
        SoapBpnn(ModelHypers(long_range={"enable": True}), info())


def test_hypers() -> None:
    with pytest.raises(ValidationError, match="less than or equal to 5"):
        ModelHypers(long_range={"interpolation_nodes": 6})
