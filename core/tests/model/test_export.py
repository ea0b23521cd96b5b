"""Exported models: the same numbers as the predictor, in any engine, with nothing beside them."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Dict, List

import ase
import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from metatensor.torch import Labels
from metatomic.torch import ModelOutput
from metatomic_ase import MetatomicCalculator
from torch import Tensor

from atomtrain.errors import CheckpointError, OptionsError, OutputError, PluginError, TargetError
from atomtrain.graph import AtomGraph, pair_vectors, sum_over_structures
from atomtrain.model import Model, PotentialModel, Predictor, forces_and_strain, with_leaves
from atomtrain.model.export import (
    archive,
    describe_checkpoint,
    export_predictor,
    load_model,
    merge_metadata,
    read_metadata,
    save_model,
    with_second_derivatives,
)
from atomtrain.targets import DatasetInfo, TargetInfo
from atomtrain.targets.layout import Irrep

TYPES = (1, 6, 8)
ENERGY = TargetInfo("energy", quantity="energy", unit="eV", description="total energy")


class Embedded(PotentialModel):
    """Square root of a density of neighbours, smooth at the cutoff: a many-body energy."""

    def __init__(self, dataset_info: DatasetInfo) -> None:
        super().__init__(dataset_info)
        self.cutoff = 3.5
        self.interaction_range = 3.5
        self.weight = torch.nn.Parameter(torch.linspace(0.5, 1.5, 9))

    def atomic_energies(self, graph: AtomGraph) -> Tensor:
        weight = self.weight.index_select(0, graph.types)
        distance = torch.linalg.vector_norm(graph.vectors, dim=1)
        near = weight.index_select(0, graph.neighbors) * (1 - distance / self.cutoff) ** 3
        density = torch.zeros_like(weight).index_add(0, graph.centers, near)
        return -weight * torch.sqrt(density + 0.1)


class Tensors(Model):
    """A vector per atom, given as cartesian and as spherical blocks, and a per-atom scalar."""

    def __init__(self) -> None:
        super().__init__()
        self.cutoff = 3.5
        self.interaction_range = 3.5

    def forward(self, graph: AtomGraph, outputs: List[str]) -> Dict[str, List[Tensor]]:
        distance = torch.linalg.vector_norm(graph.vectors, dim=1)
        near = (1 - distance / self.cutoff) ** 3
        zeros = torch.zeros_like(graph.positions)
        vector = zeros.index_add(0, graph.centers, graph.vectors * near.unsqueeze(1))
        count = zeros[:, 0].index_add(0, graph.centers, near)
        l1 = torch.stack([vector[:, 1], vector[:, 2], vector[:, 0]], 1)
        predictions: Dict[str, List[Tensor]] = {}
        predictions["test::dipole"] = [torch.stack([vector, 2 * vector], 2)]
        predictions["test::charge"] = [count.unsqueeze(1)]
        predictions["test::both"] = [count.reshape(-1, 1, 1), l1.unsqueeze(2)]
        return predictions


def potential(dtype: torch.dtype = torch.float64) -> Predictor:
    info = DatasetInfo("angstrom", TYPES, {"energy": ENERGY})
    predictor = Predictor(Embedded(info).to(dtype), info)
    affine = predictor.affine_of("energy")
    affine.shift += torch.tensor([[-13.5], [-1036.0], [-2041.0]])
    affine.scale *= 2.5
    return predictor.eval()


def graph_of(frames: list[ase.Atoms], cutoff: float = 3.5) -> AtomGraph:
    """Made by ASE's neighbour list, independently of metatomic's."""
    from ase.neighborlist import neighbor_list

    centers, neighbors, shifts, first = [], [], [], 0
    for atoms in frames:
        i, j, s = neighbor_list("ijS", atoms, cutoff)
        centers.append(torch.from_numpy(i) + first)
        neighbors.append(torch.from_numpy(j) + first)
        shifts.append(torch.from_numpy(s).double())
        first += len(atoms)
    positions = torch.cat([torch.from_numpy(a.positions) for a in frames])
    cells = torch.stack([torch.from_numpy(np.array(a.cell)) for a in frames])
    structure = torch.cat([torch.full((len(a),), k) for k, a in enumerate(frames)])
    pairs = torch.cat(centers), torch.cat(neighbors), torch.cat(shifts)
    return AtomGraph(
        positions=positions,
        types=torch.cat([torch.from_numpy(a.numbers) for a in frames]),
        cells=cells,
        pbc=torch.stack([torch.from_numpy(a.pbc) for a in frames]),
        structure=structure,
        centers=pairs[0],
        neighbors=pairs[1],
        shifts=pairs[2],
        vectors=pair_vectors(positions, cells, structure, *pairs),
        extras={},
    )


def frames() -> list[ase.Atoms]:
    crystal = bulk("C").repeat((2, 1, 1))
    crystal.set_cell(crystal.cell @ [[1.02, 0.1, 0], [0, 0.97, 0.05], [0, 0, 1]], scale_atoms=True)
    crystal.rattle(0.1, seed=1)
    ethanol = molecule("CH3CH2OH")
    ethanol.rattle(0.1, seed=2)
    return [ethanol, crystal, molecule("H2O"), ase.Atoms("O")]


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "model.pt"
    assert save_model(export_predictor(potential(), {"name": "toy"}), path) == []
    return path


@pytest.fixture(scope="module")
def calculator(model_file: Path) -> MetatomicCalculator:
    return MetatomicCalculator(str(model_file), device="cpu", check_consistency=True)


def test_ase_gives_the_predictors_energy_forces_and_stress(calculator):
    predictor = potential()
    for atoms in frames():
        graph = with_leaves(graph_of([atoms]))
        energies = predictor(graph, ["energy"])["energy"][0]
        forces, strain = forces_and_strain(energies, graph, strain=True, create_graph=False)
        atoms.calc = calculator
        assert atoms.get_potential_energy() == pytest.approx(energies.sum().item(), rel=1e-14)
        np.testing.assert_allclose(atoms.get_forces(), forces, atol=1e-12)
        np.testing.assert_allclose(
            atoms.get_potential_energies(), energies[:, 0].detach(), rtol=1e-14
        )
        if atoms.pbc.all():
            stress = strain.detach().reshape(3, 3) / atoms.get_volume()
            np.testing.assert_allclose(atoms.get_stress(voigt=False), stress, atol=1e-12)


def test_several_structures_at_once(calculator):
    structures = frames()
    graph = graph_of(structures)
    atomic = potential()(graph, ["energy"])["energy"][0]
    request = {"energy": ModelOutput(sample_kind="system")}
    block = calculator.run_model(structures, request)["energy"].block()
    expected = sum_over_structures(atomic, graph.structure, len(structures))
    torch.testing.assert_close(block.values.detach(), expected, rtol=1e-14, atol=0)

    request = {"energy": ModelOutput(sample_kind="atom")}
    block = calculator.run_model(structures, request)["energy"].block()
    torch.testing.assert_close(block.values.detach(), atomic, rtol=1e-14, atol=0)
    assert block.samples.values[-4:].tolist() == [[2, 0], [2, 1], [2, 2], [3, 0]]


def test_hessians_of_selected_atoms():
    """Of some atoms' energy, in the positions of all; atoms have none of their own."""
    exported = export_predictor(with_second_derivatives(potential(), hessian=True), {})
    calculator, atoms = MetatomicCalculator(exported, device="cpu"), frames()[2]
    name = "atomtrain::energy_hessian"
    output = {name: ModelOutput(unit="eV/A^2", sample_kind="system")}
    parts = []
    for chosen in ([0], [2, 1]):
        labels = Labels(["system", "atom"], torch.tensor([[0, k] for k in chosen]).int())
        block = calculator.run_model(atoms, output, labels)[name].block()
        assert block.samples.names == ["system", "first_atom", "second_atom"]
        assert block.values.shape == (9, 3, 3, 1)
        parts.append(block.values)
    assert parts[0].any()
    block = calculator.run_model([atoms, frames()[3], atoms], output)[name].block()
    torch.testing.assert_close(block.values[:9], parts[0] + parts[1])
    assert block.samples.values[9].tolist() == [1, 0, 0] and not block.values[9].any()
    torch.testing.assert_close(block.values[10:], block.values[:9])
    with pytest.raises(ValueError, match="belongs to structures, not to their atoms"):
        calculator.run_model(atoms, {name: ModelOutput(sample_kind="atom")})


class OnlyOnce(Embedded):
    def keep_second_derivatives(self) -> None:
        raise TargetError("a table has no second derivatives")


def test_models_without_hessians_say_so():
    info = DatasetInfo("angstrom", TYPES, {"energy": ENERGY})
    with pytest.raises(TargetError, match="a table has no"):
        with_second_derivatives(Predictor(OnlyOnce(info), info))
    charge = TargetInfo("test::charge", per_atom=True)
    other = DatasetInfo("angstrom", TYPES, {"test::charge": charge})
    with pytest.raises(
        TargetError, match="of the energy of structures, and this model predicts test::charge"
    ):
        with_second_derivatives(Predictor(Tensors(), other), hessian=True)


@pytest.mark.parametrize("together", [False, True])
def test_selected_atoms(calculator, together):
    structures = frames()[:3] if together else frames()[:1]
    atomic = potential()(graph_of(structures), ["energy"])["energy"][0]
    rows = [[2, 1], [0, 3], [2, 0]] if together else [[0, 3], [0, 0]]
    indices = [9 + 4 + 1, 3, 9 + 4] if together else [3, 0]
    selected = Labels(["system", "atom"], torch.tensor(rows))

    request = {"energy": ModelOutput(sample_kind="atom")}
    block = calculator.run_model(structures, request, selected)["energy"].block()
    assert block.samples.values.tolist() == rows
    torch.testing.assert_close(block.values.detach(), atomic[indices])

    request = {"energy": ModelOutput(sample_kind="system")}
    block = calculator.run_model(structures, request, selected)["energy"].block()
    if together:  # the second structure has no selected atom
        expected = torch.stack([atomic[3], 0 * atomic[0], atomic[14] + atomic[13]])
    else:
        expected = atomic[[3, 0]].sum(0, keepdim=True)
    torch.testing.assert_close(block.values.detach(), expected)


def test_tensor_targets_have_metatomics_labels(tmp_path):
    targets = [
        TargetInfo("test::dipole", kind="cartesian", rank=1, num_subtargets=2),
        TargetInfo("test::charge", per_atom=True),
        TargetInfo("test::both", kind="spherical", irreps=(Irrep(0, 1), Irrep(1, 1))),
    ]
    info = DatasetInfo("angstrom", TYPES, {t.name: t for t in targets})
    predictor = Predictor(Tensors(), info)
    save_model(export_predictor(predictor, {}, dtype="float64"), tmp_path / "m.pt")
    calculator = MetatomicCalculator(str(tmp_path / "m.pt"), device="cpu", check_consistency=True)
    water = molecule("H2O")
    outputs = calculator.run_model(
        [water, water],
        {
            "test::dipole": ModelOutput(sample_kind="system"),
            "test::charge": ModelOutput(sample_kind="atom"),
            "test::both": ModelOutput(sample_kind="system"),
        },
    )
    expected = predictor(graph_of([water]), ["test::dipole", "test::charge", "test::both"])
    dipole = outputs["test::dipole"].block()
    assert dipole.components[0].names == ["xyz"] and dipole.values.shape == (2, 3, 2)
    assert dipole.properties.names == ["dipole"]
    torch.testing.assert_close(dipole.values[1], expected["test::dipole"][0].sum(0))
    charge = outputs["test::charge"].block()
    assert charge.samples.names == ["system", "atom"]
    torch.testing.assert_close(charge.values[3:], expected["test::charge"][0])
    both = outputs["test::both"]
    assert both.keys.names == ["o3_lambda", "o3_sigma"]
    assert both.keys.values.tolist() == [[0, 1], [1, 1]]
    vector = both.block({"o3_lambda": 1})
    assert vector.components[0].names == ["o3_mu"]
    assert vector.components[0].values.tolist() == [[-1], [0], [1]]
    torch.testing.assert_close(vector.values[0], expected["test::both"][1].sum(0))


def test_large_reference_energies(tmp_path):
    """45,000 eV an atom leave float32 a resolution of 4 meV: steps of 1 mA must still be seen."""
    predictor = potential(torch.float32)
    predictor.affine_of("energy").shift.fill_(-45_000.0)
    save_model(export_predictor(predictor, {}), tmp_path / "m.pt")
    model = load_model(tmp_path / "m.pt")
    assert model.capabilities().dtype == "float64"
    inside = {p.dtype for p in model.parameters()}
    assert inside == {torch.float32}
    atoms = frames()[0]
    atoms.calc = MetatomicCalculator(str(tmp_path / "m.pt"), device="cpu")
    graph = graph_of([atoms])
    exact = predictor(with_dtype(graph, torch.float32), ["energy"])["energy"][0].sum()
    assert exact.dtype == torch.float64
    assert atoms.get_potential_energy() == pytest.approx(exact.item(), abs=1e-6)
    force, before = atoms.get_forces()[0], atoms.get_potential_energy()
    step = 1e-3 * force / np.linalg.norm(force)
    atoms.positions[0] += step
    assert atoms.get_potential_energy() - before == pytest.approx(-force @ step, rel=0.05, abs=1e-6)


def test_two_atoms_in_one_place(tmp_path):
    """An error that names them, in a batch as well; a hair apart there is a finite energy."""
    save_model(export_predictor(potential(torch.float32), {}), tmp_path / "m.pt")
    calculator = MetatomicCalculator(str(tmp_path / "m.pt"), device="cpu")
    good = molecule("CH4")
    bad = molecule("CH4")
    bad.positions[4] = bad.positions[2]
    for batch, system in (([bad], 0), ([good, bad], 1)):
        with pytest.raises(
            torch.jit.Error, match=f"atoms [24] and [24] of system {system} are in the"
        ):
            calculator.run_model(batch, {"energy": ModelOutput(unit="eV", sample_kind="system")})
    bad.positions[4, 0] += 1e-4
    bad.calc = calculator
    assert np.isfinite(bad.get_potential_energy())


def with_dtype(graph: AtomGraph, dtype: torch.dtype) -> AtomGraph:
    return AtomGraph(
        *(t.to(dtype) if isinstance(t, Tensor) and t.is_floating_point() else t for t in graph)
    )


def test_half_precision_is_exported_as_float32_and_the_predictor_stays():
    predictor = potential(torch.bfloat16)
    inside = {p.dtype for p in export_predictor(predictor, {}).parameters()}
    assert inside == {torch.float32}
    assert predictor.model.weight.dtype == torch.bfloat16
    assert predictor.model.weight.requires_grad


BARE = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("atomtrain", "spex", "sphericart", "vesin", "ase"):
            raise ImportError(f"{name} must not be needed")
sys.meta_path.insert(0, Refuse())
import warnings
warnings.filterwarnings("error", message=".*extension.*")
import torch
from metatensor.torch import Labels, TensorBlock
from metatomic.torch import *

model = load_atomistic_model(sys.argv[1])
(request,) = model.requested_neighbor_lists()
options = ModelEvaluationOptions(length_unit="angstrom", outputs={"energy": ModelOutput()})

def energy(types, positions, cell, shifts):
    system = System(types, positions, cell, (cell != 0).any(1))
    vectors = positions[None, :, None] - positions[:, None, None] + (shifts @ cell)
    distance = vectors.detach().norm(dim=-1)
    i, j, k = torch.nonzero((distance < request.cutoff) & (distance > 1e-9), as_tuple=True)
    samples = torch.cat([torch.stack([i, j], 1), shifts[k]], 1).to(torch.int32)
    block = TensorBlock(
        vectors[i, j, k].detach().unsqueeze(-1),
        Labels(["first_atom", "second_atom", "cell_shift_a", "cell_shift_b", "cell_shift_c"], samples),
        [Labels.range("xyz", 3)],
        Labels.range("distance", 1),
    )
    register_autograd_neighbors(system, block, True)
    system.add_neighbor_list(request, block)
    return model([system], options, True)["energy"].block().values.sum()

torch.manual_seed(0)
periodic = torch.cartesian_prod(*[torch.arange(-1.0, 2.0, dtype=torch.float64)] * 3)
none = torch.zeros((1, 3), dtype=torch.float64)
worst = 0.0
for call in range(20):
    n = 2 + call % 7
    types = torch.tensor([1, 6, 8] * 3)[:n]
    lengths = torch.tensor([4.0, 4.5, 5.0], dtype=torch.float64)
    positions = torch.rand(n, 3, dtype=torch.float64) * lengths
    cell = torch.diag(lengths) + 0.3 * torch.rand(3, 3, dtype=torch.float64)
    shifts = periodic
    if call % 2:
        cell, shifts = torch.zeros_like(cell), none
    positions.requires_grad_(True)
    (gradient,) = torch.autograd.grad(energy(types, positions, cell, shifts), positions)
    direction = torch.randn_like(gradient)
    h = 1e-4
    with torch.no_grad():
        ends = [energy(types, positions + s * h * direction, cell, shifts) for s in (1, -1, 2, -2)]
    slope = (8 * (ends[0] - ends[1]) - (ends[2] - ends[3])) / (12 * h)
    worst = max(worst, abs(float((gradient * direction).sum() - slope)) / max(abs(float(slope)), 1))
assert not torch.ops.loaded_libraries or all("meta" in l for l in torch.ops.loaded_libraries)
print(worst)
"""


def test_bare_process_forces_are_the_energys_slope(model_file):
    """Only metatomic-torch there; 20 calls of changing sizes, since TorchScript re-optimises."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", BARE, str(model_file)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert float(done.stdout) < 1e-6


def test_file_records_no_library(model_file):
    import sphericart.torch  # noqa: F401  (loads a library that the model does not need)

    exported = export_predictor(potential(), {})
    path = model_file.with_name("again.pt")
    loaded = set(torch.ops.loaded_libraries)
    save_model(exported, path)
    assert torch.ops.loaded_libraries == loaded
    with zipfile.ZipFile(path) as archive:
        (recorded,) = [n for n in archive.namelist() if n.endswith("/extra/extensions")]
        assert archive.read(recorded) == b"[]"


class Foreign(Embedded):
    def __init__(self, dataset_info: DatasetInfo) -> None:
        super().__init__(dataset_info)
        import sphericart.torch

        self.harmonics = sphericart.torch.SphericalHarmonics(1)

    def atomic_energies(self, graph: AtomGraph) -> Tensor:
        return self.harmonics(graph.positions)[:, 0]


def test_foreign_operators_are_refused_or_collected(tmp_path):
    info = DatasetInfo("angstrom", TYPES, {"energy": ENERGY})
    exported = export_predictor(Predictor(Foreign(info), info), {})
    with pytest.raises(PluginError, match=r"operators sphericart_torch::.*plain torch for export"):
        save_model(exported, tmp_path / "m.pt")
    assert list(tmp_path.iterdir()) == []

    kept = tmp_path / "extensions" / "mine.txt"
    kept.parent.mkdir()
    kept.write_text("not to be deleted")
    foreign = save_model(exported, tmp_path / "m.pt", extensions=kept.parent)
    assert foreign == ["sphericart_torch::spherical_harmonics"]
    assert kept.exists() and list(kept.parent.rglob("libsphericart_torch.so"))
    load_model(tmp_path / "m.pt", extensions=kept.parent)


def test_libraries_of_a_model_are_imported_or_asked_for(tmp_path, monkeypatch):
    info = DatasetInfo("angstrom", TYPES, {"energy": ENERGY})
    exported = export_predictor(Predictor(Foreign(info), info), {})
    path = tmp_path / "m.pt"
    save_model(exported, path, extensions=tmp_path / "extensions")
    installed, imported = [True], []

    def import_module(name):
        if not installed[0] or name != "sphericart.torch":
            raise ImportError(name)
        imported.append(name)

    monkeypatch.setattr(archive, "_registered", lambda name: bool(imported))
    monkeypatch.setattr(archive.importlib, "import_module", import_module)
    load_model(path)
    assert imported == ["sphericart.torch"]
    installed[0] = False
    imported.clear()
    with pytest.raises(CheckpointError, match=r"needs sphericart_torch .* by -e .*extensions, or"):
        load_model(path)
    load_model(path, extensions=tmp_path / "extensions")  # nobody is asked


class Unscriptable(Embedded):
    def atomic_energies(self, graph: AtomGraph) -> Tensor:
        return torch.tensor([undefined_name for _ in range(3)])  # noqa: F821


class WithNumpy(Embedded):
    def atomic_energies(self, graph: AtomGraph) -> Tensor:
        return graph.positions[:, 0] * float(np.cos(0.0))  # TorchScript raises a TypeError here


@pytest.mark.parametrize(
    ("model", "named"), [(Unscriptable, "undefined_name"), (WithNumpy, "numpy")]
)
def test_a_failed_export_leaves_the_earlier_file(tmp_path, model, named):
    path = tmp_path / "m.pt"
    path.write_text("earlier")
    info = DatasetInfo("angstrom", TYPES, {"energy": ENERGY})
    exported = export_predictor(Predictor(model(info), info), {})
    with pytest.raises(PluginError, match=rf"(?s)cannot be compiled by TorchScript.*{named}"):
        save_model(exported, path)
    assert path.read_text() == "earlier" and len(list(tmp_path.iterdir())) == 1


def test_paths_that_cannot_be_written(tmp_path, model_file):
    model = load_model(model_file)
    with pytest.raises(OutputError, match=r"cannot write '.*none/m.pt': No such file or directory"):
        save_model(model, tmp_path / "none" / "m.pt")
    with pytest.raises(OutputError, match="it is a folder; give the name of a file"):
        save_model(model, tmp_path)


def test_files_that_are_no_models(tmp_path, model_file):
    with pytest.raises(CheckpointError, match=r"there is no model '.*nothing.pt'"):
        load_model(tmp_path / "nothing.pt")
    torch.save({"a": 1}, tmp_path / "m.ckpt")
    with pytest.raises(CheckpointError, match="is a checkpoint, not an exported model"):
        load_model(tmp_path / "m.ckpt")
    cut = tmp_path / "cut.pt"
    cut.write_bytes(model_file.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=r"not an exported model .or was cut off"):
        load_model(cut)
    plain = tmp_path / "plain.pt"
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), str(plain))
    with pytest.raises(CheckpointError, match=r"plain.pt' cannot be opened: "):
        load_model(plain)


def test_capabilities_and_metadata(model_file, tmp_path):
    capabilities = load_model(model_file).capabilities()
    assert capabilities.atomic_types == [1, 6, 8]
    assert capabilities.interaction_range == 3.5
    assert capabilities.length_unit == "angstrom"
    assert capabilities.supported_devices == ["cuda", "cpu"]
    assert capabilities.outputs["energy"].unit == "eV"
    assert capabilities.outputs["energy"].description == "total energy"

    user = tmp_path / "metadata.yaml"
    user.write_text(
        "name: my model\nauthors: Me\nreferences: {model: [doi:3], architecture: doi:2}\n"
        "extra: {level: PBE, grid: [1, 2]}\n"
    )
    checkpoint = {
        "architecture": {"name": "toy", "version": "1.0"},
        "hypers": {"model": {"cutoff": 3.5}},
        "metrics": {"energy": {"rmse": 0.1}},
        "trainer": {"epoch": 7},
        "metadata": {"description": "from the checkpoint", "references": {"architecture": "doi:1"}},
    }
    metadata = describe_checkpoint(checkpoint, user=read_metadata(user))
    told = export_predictor(potential(), metadata).metadata()
    assert told.name == "my model" and told.authors == ["Me"]
    assert told.description == "from the checkpoint"
    assert told.references == {"architecture": ["doi:1", "doi:2"], "model": ["doi:3"]}
    assert told.extra["level"] == "PBE" and told.extra["grid"] == "[1, 2]"
    assert json.loads(told.extra["hypers"]) == {"model": {"cutoff": 3.5}}
    assert json.loads(told.extra["epoch"]) == 7
    assert list(json.loads(told.extra["dataset_info"])["targets"]) == ["energy"]


def test_metadata_a_user_does_not_give_stays(tmp_path):
    (tmp_path / "metadata.yaml").write_text("description: new\n")
    merged = merge_metadata({"name": "kept"}, read_metadata(tmp_path / "metadata.yaml"))
    assert merged["name"] == "kept" and merged["description"] == "new"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nme: x", "metadata.yaml:1: nme: unknown key; did you mean 'name'"),
        (
            "name: x\nreferences: {paper: x}",
            r"metadata.yaml:2: references.paper: unknown key \(known: implementation, architecture,",
        ),
        ("references: [x]", "references: expected a section of 'key: value' lines, got"),
        ("authors: [1]", "metadata.yaml:1: authors.0: expected text, got 1"),
        ("authors: {a: b}", "authors: expected a list, got a section"),
        ("authors: ['']", "authors.0: expected text, got ''"),
        ("name: [a]", "metadata.yaml:1: name: expected text, got"),
        ("- a", r"metadata.yaml:1: must hold keys and values \(name, .*\), got \[\"a\"\]"),
        ("a: [", "metadata.yaml:1: not valid YAML"),
        ("nme: x\nname: 3", "2 problems in the metadata:"),
    ],
)
def test_bad_metadata(tmp_path, text, message):
    (tmp_path / "metadata.yaml").write_text(text)
    with pytest.raises(OptionsError, match=message):
        read_metadata(tmp_path / "metadata.yaml")


def test_metadata_files_at_the_edges(tmp_path):
    with pytest.raises(OptionsError, match=r"metadata file '.*none.yaml' does not exist"):
        read_metadata(tmp_path / "none.yaml")
    (tmp_path / "empty.yaml").write_text("# nothing yet\n")
    assert read_metadata(tmp_path / "empty.yaml") == merge_metadata({}, {})
    (tmp_path / "some.yaml").write_text("description: ${}^1S$\nauthors: null\nextra: {1: 2}\n")
    told = read_metadata(tmp_path / "some.yaml")
    assert told["description"] == "${}^1S$" and told["authors"] == []
    assert told["extra"] == {"1": "2"} and told["references"] == {}
    with pytest.raises(OptionsError, match="checkpoint metadata: autors: unknown key; did you"):
        describe_checkpoint({"metadata": {"autors": ["Me"]}})


@pytest.mark.parametrize(
    ("name", "unit", "message"),
    [
        ("energy", "eVV", "target 'energy': unknown unit 'eVV'"),
        ("energy", "A", "unit 'A' has dimension"),
        ("gap", "", "invalid model output name 'gap'"),
    ],
)
def test_names_and_units_metatomic_refuses(name, unit, message):
    target = TargetInfo(name, quantity="energy", unit=unit)
    info = DatasetInfo("angstrom", TYPES, {name: target})
    with pytest.raises(TargetError, match=message):
        export_predictor(Predictor(Embedded(info), info), {})
