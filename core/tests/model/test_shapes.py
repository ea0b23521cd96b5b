"""What an architecture returns in a wrong shape is said in words of its author, at the first call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from ase.build import molecule
from helpers.structures import graph_of
from torch import Tensor

from atomtrain.errors import PluginError
from atomtrain.graph import AtomGraph
from atomtrain.model import FeatureModel, Model, PotentialModel, Predictor
from atomtrain.model.heads import WithHeads
from atomtrain.targets import DatasetInfo, TargetInfo

ENERGY = TargetInfo("energy", quantity="energy", unit="eV")
DIPOLE = TargetInfo("mtt::dipole", kind="cartesian", rank=1)
CLASSES = TargetInfo("mtt::phase", kind="classes", classes=("a", "b"), num_subtargets=2)
GRAPH = graph_of([molecule("H2O"), molecule("NH3")], cutoff=4.0)
N = 7
X = torch.zeros


def info(*targets: TargetInfo) -> DatasetInfo:
    return DatasetInfo("angstrom", (1, 6, 7, 8), {t.name: t for t in targets})


class Mine(FeatureModel):
    """Returns what it is told to."""

    cutoff = interaction_range = 4.0

    def __init__(self, found: Any) -> None:
        super().__init__(info(ENERGY, DIPOLE), 4, {1: 2})
        self.found = found

    def encode(self, graph: AtomGraph) -> Any:
        return self.found


class Scalars(FeatureModel):
    cutoff = interaction_range = 4.0

    def __init__(self, found: Any) -> None:
        super().__init__(info(ENERGY), 4)
        self.found = found

    def features(self, graph: AtomGraph) -> Any:
        return self.found


class Potential(PotentialModel):
    cutoff = interaction_range = 4.0

    def __init__(self, found: Any) -> None:
        super().__init__(info(ENERGY))
        self.found = found

    def atomic_energies(self, graph: AtomGraph) -> Any:
        return self.found


class Blocks(Model):
    """Predicts a vector and a classification itself."""

    cutoff = interaction_range = 4.0

    def __init__(self, found: Any) -> None:
        super().__init__()
        self.found = found
        self.weight = torch.nn.Parameter(X(1))

    def forward(self, graph: AtomGraph, outputs: list[str]) -> Any:
        return self.found

    def feature_outputs(self) -> dict[str, int]:
        return {"feature": 3}


def message(make: Callable[[Any], Model], found: Any, *targets: TargetInfo) -> str:
    dataset = info(*targets)
    predictor = Predictor(make(found).double(), dataset)
    with pytest.raises(PluginError) as caught:
        predictor.model(GRAPH, list(dataset.targets))  # as training asks
    return str(caught.value).removeprefix(f"{__name__}.")


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (X(N, 3), "Scalars.features: the features: a tensor [7, 3] came where [7, 4] (n_atoms, n_features) "
                  "was expected; super().__init__ was given n_features=4"),
        (X(N, 1, 4), "Scalars.features: the features: a tensor [7, 1, 4] came"),
        (X(1, 4), "Scalars.features: the features: a tensor [1, 4] came"),
        (None, "Scalars.features: the features: None came"),
        ((X(N, 4), {}), "Scalars.features: the features: a tuple of 2 came"),
    ],
)  # fmt: skip
def test_features(found: Any, said: str) -> None:
    assert message(Scalars, found, ENERGY).startswith(said)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (X(N, 4), "Mine.encode: the result: a tensor [7, 4] came where a pair (features, {degree: "),
        ((X(N, 5), {1: X(N, 3, 2)}), "Mine.encode: the features: a tensor [7, 5] came"),
        ((X(N, 4), {}), "Mine.encode: equivariant features: degrees none came where degrees 1 was expected; "
                        "super().__init__ was given degrees={1: 2}"),
        ((X(N, 4), {1: X(N, 3, 2), 2: X(N, 5, 2)}), "Mine.encode: equivariant features: degrees 1, 2 came"),
        ((X(N, 4), {1: X(N, 2, 3)}), "Mine.encode: equivariant features of degree 1: a tensor [7, 2, 3] came "
                                     "where [7, 3, 2] (n_atoms, 2 l + 1, n) was expected"),
        ((X(N, 4), {1: X(N, 3)}), "Mine.encode: equivariant features of degree 1: a tensor [7, 3] came"),
    ],
)  # fmt: skip
def test_equivariant_features(found: Any, said: str) -> None:
    assert message(Mine, found, ENERGY, DIPOLE).startswith(said)


@pytest.mark.parametrize("found", [X(N, 1), X(2), X(()), None])
def test_atomic_energies(found: Tensor | None) -> None:
    said = message(Potential, found, ENERGY)
    assert said.startswith("Potential.atomic_energies: the energies: ")
    assert said.endswith(" came where [7] (n_atoms) was expected")


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (X(N, 1), "the predictions: a tensor [7, 1] came where a dictionary of blocks"),
        ({}, "asked for 'mtt::dipole', the model: nothing came where 'mtt::dipole' was expected"),
        ({"mtt::dipole": X(N, 3, 1)}, "output 'mtt::dipole': a tensor [7, 3, 1] came where a list of 1 tensor"),
        ({"mtt::dipole": [X(N, 3)]}, "the block of 'mtt::dipole': a tensor [7, 3] came where [7, 3, 1] "
                                     "(n_atoms, components, properties) was expected"),
        # a total of structures, which torch would sum and broadcast without a word
        ({"mtt::dipole": [X(2, 3, 1)]}, "the block of 'mtt::dipole': a tensor [2, 3, 1] came"),
        ({"mtt::dipole": [X(N, 3, 1)], "mtt::phase": [X(N, 2)]}, "the block of 'mtt::phase': a tensor [7, 2] "
         "came where [2, 2] (n_structures, properties)"),
    ],
)  # fmt: skip
def test_blocks(found: Any, said: str) -> None:
    assert message(Blocks, found, DIPOLE, CLASSES).startswith(f"Blocks.forward: {said}")


def test_features_for_a_head_of_the_core() -> None:
    def behind(found: Any) -> Model:
        return WithHeads(Blocks(found), {"mtt::phase": CLASSES})

    found = {"mtt::dipole": [X(N, 3, 1)], "feature": [X(N, 4)]}
    said = message(behind, found, DIPOLE, CLASSES)
    assert said.startswith(
        "Blocks.forward: the block of 'feature': a tensor [7, 4] came where [7, 3] "
    )


def test_what_is_right_passes() -> None:
    x = X(N, 4, dtype=torch.float64)
    vectors = {1: X(N, 3, 2, dtype=torch.float64)}
    for model, targets in (
        (Mine((x, vectors)), (ENERGY, DIPOLE)),
        (Potential(x[:, 0]), (ENERGY,)),
    ):
        dataset = info(*targets)
        found = Predictor(model.double(), dataset)(GRAPH, list(dataset.targets))
        assert list(found) == list(dataset.targets)
