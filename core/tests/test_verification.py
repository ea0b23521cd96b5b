"""Exports that are wrong on purpose are found, sound ones are not."""

from typing import List

import pytest
import torch
from torch import Tensor

from atomtrain.errors import VerificationError
from atomtrain.graph import AtomGraph
from atomtrain.model import PotentialModel, Predictor
from atomtrain.model.export import export_predictor
from atomtrain.targets import DatasetInfo, TargetInfo
from atomtrain.verification import save_verified, unverified


class Pairs(PotentialModel):
    def __init__(self, dataset_info: DatasetInfo) -> None:
        super().__init__(dataset_info)
        self.cutoff = 3.5
        self.interaction_range = 3.5
        self.strength = torch.nn.Parameter(torch.linspace(0.5, 1.5, 9))
        self.exported = False
        self.seen: List[int] = [0]

    @torch.jit.ignore
    def before_export(self) -> None:
        self.exported = True

    def atomic_energies(self, graph: AtomGraph) -> Tensor:
        return self.spoiled(self.pairs(graph, graph.vectors), graph)

    def pairs(self, graph: AtomGraph, vectors: Tensor) -> Tensor:
        strength = self.strength.index_select(0, graph.types)
        distance = torch.linalg.vector_norm(vectors, dim=1)
        pairs = strength.index_select(0, graph.neighbors) * (1 - distance / self.cutoff) ** 3
        return strength * torch.zeros_like(strength).index_add(0, graph.centers, pairs)

    def spoiled(self, energies: Tensor, graph: AtomGraph) -> Tensor:
        return energies


class Halved(Pairs):
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


class BakedIn(Pairs):
    def spoiled(self, energies: Tensor, graph: AtomGraph) -> Tensor:
        return energies + 0.01 if self.exported else energies


def saved(kind: type, dtype: torch.dtype, path) -> None:
    energy = TargetInfo("energy", quantity="energy", unit="eV", gradients=("forces", "strain"))
    info = DatasetInfo("angstrom", (1, 6, 8), {"energy": energy})
    predictor = Predictor(kind(info).to(dtype), info)
    predictor.affine_of("energy").shift.fill_(-3000.0)
    save_verified(export_predictor(predictor, {}), path, predictor)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Halved, "'energy:forces' differs from the trained"),
        (HalvedAlways, "forces not the derivative of 'energy'"),
        (RightAtFirst, "'energy' differs from the trained"),
        (BakedIn, "'energy' differs from the trained"),
    ],
)
def test_wrong_exports_are_found(kind, message, dtype, tmp_path):
    path = tmp_path / "model.pt"
    with pytest.raises(VerificationError, match=message):
        saved(kind, dtype, path)
    assert unverified(path).is_file() and not path.exists()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sound_exports_pass(dtype, tmp_path):
    saved(Pairs, dtype, tmp_path / "model.pt")
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]
