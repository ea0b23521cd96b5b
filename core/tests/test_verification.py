"""Exports that are wrong on purpose are found, sound ones are not."""

import sys
from typing import Any, List

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from helpers.installing import install
from helpers.models import PairsByElement
from helpers.processes import atomtrain
from helpers.training import write_data
from torch import Tensor

from atomtrain import api
from atomtrain.data import StructureStore
from atomtrain.data.store import offsets_of
from atomtrain.errors import VerificationError
from atomtrain.graph import AtomGraph
from atomtrain.model import Predictor
from atomtrain.model.export import (
    export_predictor,
    load_model,
    save_model,
    with_second_derivatives,
)
from atomtrain.targets import DatasetInfo, TargetInfo
from atomtrain.verification import save_verified, unverified, verify
from atomtrain.verification.calls import ExportedFile
from atomtrain.verification.curvature import curvature_off
from atomtrain.verification.structures import made_up

# torch's own announcement, whose text changes from version to version
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Pairs(PairsByElement):
    """With room for what an export spoils."""

    def __init__(self, dataset_info: DatasetInfo) -> None:
        super().__init__(dataset_info)
        self.exported = False
        self.seen: List[int] = [0]

    @torch.jit.ignore
    def before_export(self) -> None:
        self.exported = True

    def atomic_energies(self, graph: AtomGraph) -> Tensor:
        return self.spoiled(self.pairs(graph, graph.vectors), graph)

    def spoiled(self, energies: Tensor, graph: AtomGraph) -> Tensor:
        return energies


class Halved(Pairs):
    """Forces and stress."""

    def spoiled(self, energies: Tensor, graph: AtomGraph) -> Tensor:
        return 0.5 * (energies + energies.detach()) if self.exported else energies


class HalvedAlways(Pairs):
    """Also in training: only the slope of the energy tells."""

    def spoiled(self, energies: Tensor, graph: AtomGraph) -> Tensor:
        return 0.5 * (energies + energies.detach())


class RightAtFirst(Pairs):
    def spoiled(self, energies: Tensor, graph: AtomGraph) -> Tensor:
        if self.exported:
            self.seen[0] += 1
            if self.seen[0] > 1:
                return 1.01 * energies
        return energies


class HessianWrong(Pairs):
    """Half of the energy is not differentiated a second time."""

    def spoiled(self, energies: Tensor, graph: AtomGraph) -> Tensor:
        v = graph.vectors
        if not self.exported or not v.requires_grad:
            return energies
        slopes = torch.autograd.grad([energies.sum()], [v], retain_graph=True)[0]
        assert slopes is not None
        along = ((v - v.detach()) * slopes.detach()).sum(1)
        flat = energies.detach().index_add(0, graph.centers, along.to(energies.dtype))
        return 0.5 * (energies + flat)


class Off(Pairs):
    """By the same for every atom."""

    def spoiled(self, energies: Tensor, graph: AtomGraph) -> Tensor:
        return energies + 0.01 if self.exported else energies


class NumberBakedIn(Pairs):
    """Right for structures of five atoms."""

    def spoiled(self, energies: Tensor, graph: AtomGraph) -> Tensor:
        n = energies.shape[0]
        return energies * (n / 5.0) if self.exported and n > 5 else energies


class CellBakedIn(Pairs):
    """Right in the cell of the example, wrong in every other: the stress, and energies under strain."""

    def spoiled(self, energies: Tensor, graph: AtomGraph) -> Tensor:
        if self.exported:
            off = torch.linalg.det(graph.cells.detach()) - 64.0
            return energies * (1 + 1e-3 * off.index_select(0, graph.structure))
        return energies


class StressWrong(Pairs):
    """Vectors to images lose their derivative in the cell."""

    def spoiled(self, energies: Tensor, graph: AtomGraph) -> Tensor:
        if not self.exported:
            return energies
        fixed = (
            graph.shifts.unsqueeze(1)
            @ graph.cells.index_select(0, graph.structure.index_select(0, graph.centers))
        ).squeeze(1)
        near = graph.positions.index_select(0, graph.neighbors) - graph.positions.index_select(
            0, graph.centers
        )
        return self.pairs(graph, near + fixed.detach())


class AtomsWrong(Pairs):
    """The sum over each structure is right, and so are forces and stress."""

    def spoiled(self, energies: Tensor, graph: AtomGraph) -> Tensor:
        if not self.exported:
            return energies
        first = torch.ones_like(graph.structure, dtype=torch.bool)
        first[1:] = graph.structure[1:] != graph.structure[:-1]
        places = first.nonzero().squeeze(1)
        return energies.index_add(0, places, torch.ones_like(places).to(energies.dtype)).index_add(
            0, places + 1, -torch.ones_like(places).to(energies.dtype)
        )


class Fails(Pairs):
    def spoiled(self, energies: Tensor, graph: AtomGraph) -> Tensor:
        if self.exported and graph.cells.shape[0] > 1:
            return energies.reshape(5, 7, 3)
        return energies


def predictor_of(
    kind: type, dtype: torch.dtype = torch.float32, unit: str = "angstrom"
) -> Predictor:
    energy = TargetInfo("energy", quantity="energy", unit="eV", gradients=("forces", "strain"))
    info = DatasetInfo(unit, (1, 6, 8), {"energy": energy})
    predictor = Predictor(kind(info).to(dtype), info)
    predictor.affine_of("energy").shift.fill_(-45000.0)
    return predictor


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Halved, "'energy:forces' differs from the trained"),
        (HalvedAlways, "forces not the derivative of 'energy'.*stress not the derivative"),
        (RightAtFirst, "'energy' differs from the trained"),
        (Off, "'energy' differs from the trained"),
        (NumberBakedIn, "'energy' differs from the trained"),
        (CellBakedIn, "'energy' differs from the trained"),
        (StressWrong, "'energy:strain' differs.*stress not the derivative"),
        (AtomsWrong, "'energy of atoms' differs from the trained model's by 1"),
        (Fails, "a call fails"),
    ],
)
def test_wrong_exports_are_found(kind, message, tmp_path):
    predictor, path = predictor_of(kind), tmp_path / "model.pt"
    path.write_text("an older one")
    with pytest.raises(VerificationError, match=message):
        save_verified(export_predictor(predictor, {}), path, predictor)
    assert unverified(path).is_file() and path.read_text() == "an older one"


@pytest.mark.parametrize("kind", [Halved, RightAtFirst, HalvedAlways])
def test_files_are_held_against_themselves(kind, tmp_path):
    """Of a file from elsewhere nothing is known but that its forces are derivatives, and that calls agree."""
    predictor, path = predictor_of(kind, torch.float64), tmp_path / "model.pt"
    save_model(export_predictor(predictor, {}), path)
    assert verify(load_model(path)).wrong


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sound_exports_pass(dtype, tmp_path, caplog):
    predictor, path = predictor_of(Pairs, dtype), tmp_path / "model.pt"
    with caplog.at_level("INFO", "atomtrain"):
        save_verified(export_predictor(predictor, {}), path, predictor)
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]
    assert [r.levelname for r in caplog.records] == ["INFO"]
    assert "gives what was trained in repeated calls and forces and stress" in caplog.text


def test_hessians_are_held_against_forces(tmp_path):
    predictor, path = predictor_of(HessianWrong), tmp_path / "model.pt"
    model = export_predictor(with_second_derivatives(predictor, hessian=True), {})
    wrong = "trained: the Hessian of 'energy' not the der"
    with torch.jit.optimized_execution(False), pytest.raises(VerificationError, match=wrong):
        save_verified(model, path, predictor)


def test_sound_hessians_pass(tmp_path):
    predictor, path = predictor_of(Pairs, torch.float64), tmp_path / "model.pt"
    save_model(export_predictor(with_second_derivatives(predictor, hessian=True), {}), path)
    file = ExportedFile(load_model(path), "cpu", None)
    with torch.jit.optimized_execution(False):
        assert curvature_off(file, made_up([1, 6, 8], 1.0), "energy", 1e-8) == 0.0
        alone = store_of([Atoms("O"), Atoms("H")])
        assert curvature_off(file, alone, "energy", 1e-8) is None


def store_of(structures: list[Atoms]) -> StructureStore:
    return StructureStore(
        torch.from_numpy(np.concatenate([s.positions for s in structures])),
        torch.from_numpy(np.concatenate([s.numbers for s in structures]).astype(np.int64)),
        torch.from_numpy(np.stack([s.cell.array for s in structures])),
        torch.from_numpy(np.stack([s.pbc for s in structures])),
        offsets_of(torch.tensor([len(s) for s in structures])),
    )


def cubic(n: int, a: float = 1.6, **more: Any) -> Atoms:
    places = a * np.array(list(np.ndindex(n, n, n)))
    cell = [n * a] * 3 if more else None
    return Atoms(np.resize([1, 6, 8], len(places)), places, cell=cell, **more)


SLAB = cubic(3, pbc=[True, True, False])
SLAB.cell[2] = 0


@pytest.mark.parametrize(("dtype", "known"), [(torch.float32, True), (torch.float64, False)])
def test_odd_structures_give_no_alarm(dtype, known, tmp_path):
    """Isolated atoms, an atom in a cell, forces that are zero by symmetry, a slab, more atoms than are tried."""
    predictor, path = predictor_of(Pairs, dtype), tmp_path / "model.pt"
    save_model(export_predictor(predictor, {}), path)
    isolated, one = Atoms("C"), Atoms("C", cell=[1.5] * 3, pbc=True)
    far = Atoms("CO", [[0, 0, 0], [0, 0, 3.499]])
    sets = ([isolated], [isolated, far], [one], [cubic(2, pbc=True), isolated], [SLAB, cubic(6)])
    for structures in sets:
        found = verify(load_model(path), store_of(structures), predictor if known else None)
        assert not found.wrong and not found.untried, structures


def test_other_units_of_length(tmp_path):
    """Of the model, and of the structures that a model is tried on."""
    predictor, path = predictor_of(Pairs, unit="nm"), tmp_path / "model.pt"
    predictor.model.cutoff = 0.35
    save_model(export_predictor(predictor, {}), path)
    for structures in (None, store_of([cubic(2, a=0.16, pbc=True)])):
        found = verify(load_model(path), structures, predictor)
        assert not found.wrong and len(found.right) == 2
    found = verify(load_model(path), store_of([cubic(2, pbc=True)]), length_unit="angstrom")
    assert not found.wrong and len(found.right) == 2


def test_devices_that_are_not_here_are_said(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    predictor, path = predictor_of(Pairs), tmp_path / "model.pt"
    save_verified(export_predictor(predictor, {}, devices=["cuda"]), path, predictor)
    assert path.is_file() and f"not verified: {path}: it runs on cuda only" in caplog.text


def test_a_trained_model_that_fails_as_well_is_no_fault_of_the_file(tmp_path, caplog):
    """Made-up structures need not be what an architecture is for."""
    predictor, path = predictor_of(Pairs), tmp_path / "model.pt"
    exported = export_predictor(predictor, {})
    predictor.model.pairs = lambda *_: {}["no such thing"]
    save_verified(exported, path, predictor)
    assert path.is_file() and "the trained model fails: KeyError" in caplog.text


@pytest.mark.parametrize("error", [KeyError("x"), NotImplementedError(), MemoryError("none left")])
def test_errors_of_any_type_keep_the_file_apart(error, tmp_path, monkeypatch):
    def fails(*_: Any) -> None:
        raise error

    monkeypatch.setattr(sys.modules[verify.__module__], "repeated_calls", fails)
    predictor, path = predictor_of(Pairs), tmp_path / "model.pt"
    with pytest.raises(VerificationError, match=f"a call fails: {type(error).__name__}"):
        save_verified(export_predictor(predictor, {}), path, predictor)
    assert unverified(path).is_file() and not path.exists()


def test_any_file_on_request(tmp_path, caplog):
    data = tmp_path / "data.xyz"
    ase.io.write(data, [cubic(2, pbc=True), SLAB])
    for kind in (Pairs, HalvedAlways):
        save_model(export_predictor(predictor_of(kind), {}), tmp_path / f"{kind.__name__}.pt")
    with caplog.at_level("INFO", "atomtrain"):
        api.verify(tmp_path / "Pairs.pt", data)
    assert "gives the same in repeated calls and forces and stress as derivatives" in caplog.text
    with pytest.raises(VerificationError, match=r"HalvedAlways.pt' is wrong: forces"):
        api.verify(tmp_path / "HalvedAlways.pt", {"systems": str(data)})


SCALED = """
import tables_arch
from dataclasses import replace
from atomtrain.contract import hookimpl

@hookimpl
def describe_architecture():
    return replace(tables_arch.describe_architecture(), name="scaled")

@hookimpl
def build_model(dataset_info):
    return tables_arch.build_model(dataset_info)

@hookimpl
def export_model(predictor, metadata):
    from atomtrain.model.export import export_predictor
    predictor.affine_of("energy").scale.mul_(1.01)  # of what the file is compared with, too, if that is the same
    return export_predictor(predictor, metadata)
"""


def test_train_and_export_end_with_an_error_and_keep_the_file_apart(tmp_path, monkeypatch):
    install(tmp_path / "site", "scaled", SCALED)
    write_data(tmp_path / "data.xyz")
    (tmp_path / "model.pt").write_text("an older one")
    (tmp_path / "options.yaml").write_text(
        "architecture: {name: scaled, training: {num_epochs: 1}}\n"
        "training_set: {systems: data.xyz, targets: {energy: {unit: eV, forces: false, stress: false}}}\n"
        "validation_set: 0.25\n"
    )
    done = atomtrain(tmp_path, "train", "options.yaml", site=tmp_path / "site")
    assert done.returncode == 1
    assert "error: the exported model does not do what was trained: 'energy' differs" in done.stderr
    assert "It is written as 'model.unverified.pt'" in done.stderr
    assert (tmp_path / "model.ckpt").is_file()
    (tmp_path / "model.unverified.pt").unlink()

    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setattr(api, "save_verified", save_verified)  # see conftest.py
    with pytest.raises(VerificationError, match=r"as 'model\.unverified\.pt'"):
        api.export(tmp_path / "model.ckpt")
    assert (tmp_path / "model.unverified.pt").is_file()
    assert (tmp_path / "model.pt").read_text() == "an older one"
