"""The nuclear repulsion, and baselines of models in general: what is subtracted, what is added."""

import math

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.data import covalent_radii
from helpers.models import Pairwise, energy_info
from helpers.structures import graph_of

from atomtrain.data import Label, StructureStore
from atomtrain.errors import PluginError, TargetError
from atomtrain.graph import AtomGraph
from atomtrain.model import ZBL, Predictor, forces_and_strain, with_leaves
from atomtrain.options import TrainerHypers
from atomtrain.targets import DatasetInfo, TargetInfo
from atomtrain.training.affine import fit_affines
from atomtrain.training.checkpoint import Checkpoints
from atomtrain.training.physics import without_baseline
from atomtrain_testing.predictions import store_of

INFO = energy_info((1, 6, 8, 55))


def graph_of_one(atoms: Atoms) -> AtomGraph:
    return graph_of([atoms], cutoff=6.0)


def dimer(z1: int, z2: int, r: float) -> Atoms:
    return Atoms(numbers=[z1, z2], positions=[[0, 0, 0], [0.6 * r, 0, 0.8 * r]])


def energy(atoms: Atoms) -> float:
    return float(ZBL(INFO).energies(graph_of_one(atoms)).sum())


def bare(z1: int, z2: int, r: float) -> float:
    """k Z1 Z2 / r times the universal screening function, from the constants of nature."""
    k = 1.602176634e-19 / (4 * math.pi * 8.8541878128e-12) * 1e10  # eV angstrom
    x = r / (0.46850 / (z1**0.23 + z2**0.23))
    phi = (
        0.18175 * math.exp(-3.1998 * x) + 0.50986 * math.exp(-0.94229 * x)
        + 0.28022 * math.exp(-0.4029 * x) + 0.02817 * math.exp(-0.20162 * x)
    )  # fmt: skip
    return k * z1 * z2 / r * phi


def reference(z1: int, z2: int, r: float) -> float:
    """The bare energy, plus the only a r^3 + b r^4 + c that makes it vanish as it should."""
    end, h = covalent_radii[z1] + covalent_radii[z2], 1e-3
    if r >= end:
        return 0.0
    at = [bare(z1, z2, end + k * h) for k in (-2, -1, 0, 1, 2)]
    slope = (at[0] - 8 * at[1] + 8 * at[3] - at[4]) / (12 * h)
    curvature = (-at[0] + 16 * at[1] - 30 * at[2] + 16 * at[3] - at[4]) / (12 * h * h)
    rows = np.array([[end**3, end**4, 1], [3 * end**2, 4 * end**3, 0], [6 * end, 12 * end**2, 0]])
    a, b, c = np.linalg.solve(rows, [-at[2], -slope, -curvature])
    return bare(z1, z2, r) + a * r**3 + b * r**4 + c


@pytest.mark.parametrize("pair", [(1, 1), (1, 8), (6, 8), (8, 55), (55, 55)])
def test_is_the_universal_potential(pair: tuple[int, int]) -> None:
    end = covalent_radii[list(pair)].sum()
    for r in (0.02, 0.1, 0.3 * end, 0.7 * end):
        assert energy(dimer(*pair, r)) == pytest.approx(reference(*pair, r), rel=1e-7)
    # closer than any bond, almost all of it is the screened Coulomb repulsion
    assert energy(dimer(*pair, 0.02)) == pytest.approx(bare(*pair, 0.02), rel=0.02)


def test_smooth_at_the_outer_cutoff() -> None:
    end = covalent_radii[6] + covalent_radii[8]
    h = 1e-3
    energies = [energy(dimer(6, 8, end + k * h)) for k in range(-4, 3)]
    assert energies[4:] == [0, 0, 0]
    slopes = np.diff(energies) / h
    curvatures = np.diff(slopes) / h
    assert abs(slopes[3]) < 1e-3 and abs(curvatures[2]) < 1
    assert energies[3] == pytest.approx(energies[0] / 4**3, rel=0.1)  # cubic in the distance


def test_half_on_each_atom_and_extensive() -> None:
    graph = graph_of_one(dimer(6, 8, 0.9))
    atomic = ZBL(INFO).energies(graph)
    assert atomic.dtype == torch.float64 and atomic[0] == atomic[1]
    crystal = bulk("C", "diamond", a=3.0)
    crystal.rattle(0.05, seed=0)
    assert energy(crystal) > 0.1
    assert energy(crystal.repeat((2, 3, 1))) == pytest.approx(6 * energy(crystal), rel=1e-12)


def test_forces_and_stress_are_derivatives() -> None:
    crystal = bulk("C", "diamond", a=3.1)
    crystal.set_cell(crystal.cell @ [[1, 0.1, 0], [0, 0.98, 0.03], [0, 0, 1]], scale_atoms=True)
    crystal.rattle(0.1, seed=0)
    graph = with_leaves(graph_of_one(crystal))
    atomic = ZBL(INFO).energies(graph)
    forces, strain = forces_and_strain(atomic, graph, strain=True, create_graph=False)
    assert strain is not None
    strain = strain.detach()
    h = 1e-5
    for axis in range(3):
        moved = [crystal.copy(), crystal.copy()]
        for sign, other in zip((1, -1), moved, strict=True):
            other.positions[1, axis] += sign * h
        slope = (energy(moved[0]) - energy(moved[1])) / (2 * h)
        assert -slope == pytest.approx(float(forces[1, axis]), rel=1e-7, abs=1e-8)
        for other_axis in range(3):
            energies = []
            for sign in (1, -1):
                deformation = np.eye(3)
                deformation[axis, other_axis] += sign * h
                other = crystal.copy()
                other.set_cell(crystal.cell.array @ deformation, scale_atoms=True)
                energies.append(energy(other))
            slope = (energies[0] - energies[1]) / (2 * h)
            assert slope == pytest.approx(float(strain[0, 3 * axis + other_axis]), rel=1e-6)


def test_which_targets() -> None:
    targets = {
        "energy": TargetInfo("energy", quantity="energy", unit="eV"),
        "energy/kcal": TargetInfo("energy/kcal", quantity="energy", unit="kcal/mol"),
        "energy/none": TargetInfo("energy/none", quantity="energy"),
        "mtt::atomic": TargetInfo("mtt::atomic", quantity="energy", unit="ev", per_atom=True),
        "mtt::gap": TargetInfo("mtt::gap", unit="eV"),
    }
    zbl = ZBL(DatasetInfo("Angstrom", (1, 8), targets))
    assert zbl.targets == ["energy", "mtt::atomic"]
    assert list(zbl(graph_of_one(molecule("H2O")), ["mtt::gap", "energy"])) == ["energy"]
    others = {k: targets[k] for k in ("energy/kcal", "energy/none", "mtt::gap")}
    with pytest.raises(
        TargetError,
        match=r"energy in eV; there is 'energy/kcal' \(energy, unit kcal/mol\), 'energy/none' "
        r"\(energy, no unit\), 'mtt::gap' \(no quantity, unit eV\): set quantity",
    ):
        ZBL(DatasetInfo("angstrom", (1, 8), others))
    with pytest.raises(TargetError, match="lengths in angstrom, but the data are in 'nm'"):
        ZBL(DatasetInfo("nm", (1, 8), targets))


class Repulsive(Pairwise):
    def __init__(self, dataset_info: DatasetInfo) -> None:
        super().__init__(dataset_info, cutoff=5.0)
        self.baseline = ZBL(dataset_info)


def test_predictor_adds_it_in_float64() -> None:
    water = molecule("H2O")
    water.positions *= 0.9
    predictor = Predictor(Repulsive(INFO), INFO)
    alone = Predictor(Pairwise(INFO, 5.0), INFO)
    predictor.to(torch.float32)
    assert predictor.model.baseline is not None
    assert {b.dtype for b in predictor.model.baseline.buffers()} == {torch.float64, torch.int64}
    assert not [k for k in predictor.state_dict() if "baseline" in k]  # nothing to be stored
    graph = graph_of_one(water)
    added = predictor(graph, ["energy"])["energy"][0] - alone(graph, ["energy"])["energy"][0]
    torch.testing.assert_close(added[:, 0], ZBL(INFO).energies(graph), atol=1e-13, rtol=0)
    scripted = torch.jit.script(predictor)
    torch.testing.assert_close(
        scripted(graph, ["energy"])["energy"][0], predictor(graph, ["energy"])["energy"][0]
    )


def test_must_fit_the_pair_list() -> None:
    model = Repulsive(INFO)
    model.cutoff = 4.0
    with pytest.raises(PluginError, match=r"Repulsive needs pairs up to 4\.88, beyond .* 4"):
        Predictor(model, INFO)


def labelled() -> tuple[StructureStore, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Structures labelled with nothing but ZBL and energies of atoms, some labels missing."""
    frames = [molecule("H2O"), molecule("CH3CH2OH"), bulk("C", "diamond", a=3.2), Atoms("O")]
    for k, atoms in enumerate(frames):
        atoms.positions *= 0.93
        atoms.rattle(0.02, seed=k)
    store = store_of(frames)
    of_element = {1: -13.0, 6: -1000.0, 8: -2000.0}
    energies, forces, strains = [], [], []
    for atoms in frames:
        graph = with_leaves(graph_of_one(atoms))
        atomic = ZBL(INFO).energies(graph)
        f, s = forces_and_strain(atomic, graph, strain=True, create_graph=False)
        assert s is not None
        energies.append(float(atomic.detach().sum()) + sum(of_element[z] for z in atoms.numbers))
        forces.append(f)
        strains.append(s.detach())
    missing = torch.tensor([[True], [True], [True], [False]])
    store.labels = {
        "energy": Label(torch.tensor(energies, dtype=torch.float64)[:, None] * missing, False,
                        missing),
        "energy:forces": Label(torch.cat(forces), True),
        "energy:strain": Label(torch.cat(strains), False),
    }  # fmt: skip
    return store, torch.cat(forces), torch.cat(strains), missing


def test_subtracted_before_anything_is_fitted() -> None:
    store, forces, strains, missing = labelled()
    before = store.labels["energy"].values.clone()
    predictor = Predictor(Repulsive(INFO), INFO)
    left = without_baseline(store, predictor)
    assert torch.equal(store.labels["energy"].values, before)
    assert forces.abs().max() > 1 and strains.abs().max() > 1
    assert left.labels["energy:forces"].values.abs().max() < 1e-12
    assert left.labels["energy:strain"].values.abs().max() < 1e-12
    assert left.labels["energy"].values[3] == 0  # it has no label, and is still zero
    assert left.labels["energy"].mask is missing

    fit_affines(predictor, store, TrainerHypers(), ["energy"], Checkpoints())
    counts = torch.tensor([[2.0, 0, 1, 0], [6, 2, 1, 0], [0, 2, 0, 0]], dtype=torch.float64)
    fitted = counts @ predictor.affine_of("energy").shift
    torch.testing.assert_close(fitted, left.labels["energy"].values[:3], atol=1e-8, rtol=0)

    plain = Predictor(Pairwise(INFO), INFO)
    assert without_baseline(store, plain) is store
