"""What heads are made for targets, and what is refused; their predictions are tested with the architectures."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from atomtrain.errors import TargetError
from atomtrain.targets import DatasetInfo, TargetInfo, last_layer_names
from atomtrain.targets.layout import Irrep
from atomtrain_density.elements import by_species
from atomtrain_density.targets import (
    HeadInputs,
    add_heads,
    irreps_of,
    largest_degree,
)

TARGETS = {
    "energy": TargetInfo("energy", quantity="energy", unit="eV"),
    "mtt::vector": TargetInfo("mtt::vector", kind="cartesian", rank=1, num_subtargets=2),
    "mtt::matrix": TargetInfo("mtt::matrix", kind="cartesian", rank=2),
    "mtt::pseudo": TargetInfo("mtt::pseudo", kind="spherical", irreps=(Irrep(2, -1, 3),)),
}
DATA = DatasetInfo("angstrom", (1, 8), TARGETS)
INPUTS = HeadInputs(n_groups=2, n_in=5, n_species=2, n_per_l=[3] * 3, apart=True, with_density=True)


def test_heads_for_every_target() -> None:
    heads = nn.ModuleDict()
    add_heads(heads, DATA, INPUTS, {"energy": "mlp"}, "ACME")
    first = heads["energy"]
    add_heads(heads, DATA, INPUTS, {"energy": "mlp"}, "ACME")
    assert list(heads) == list(TARGETS) and heads["energy"] is first
    assert first.single and not first.needs_density
    species = torch.tensor([1, 0, 1, 1])
    layout = by_species(species, 2)
    densities = [torch.randn(4, 2 * degree + 1, 6) for degree in range(3)]
    hidden = torch.randn(2, layout.width, 5)
    heads.float()
    shapes = {"energy": (4, 1), "mtt::vector": (4, 3, 2), "mtt::matrix": (4, 3, 3, 1),
              "mtt::pseudo": (4, 5, 3)}  # fmt: skip
    for name, head in heads.items():
        (block,) = head(head.features(hidden), densities, species, layout)
        assert block.shape == shapes[name]


def test_degrees() -> None:
    assert largest_degree(DATA, 0, "ACME") == 2
    assert largest_degree(DATA, 4, "ACME") == 4
    only = {"energy": TARGETS["energy"]}
    assert largest_degree(DatasetInfo("angstrom", (1,), only), 0, "ACME") == 0


def test_refused_in_the_name_of_the_architecture() -> None:
    with pytest.raises(TargetError, match="ACME predicts the same irreps for every type"):
        irreps_of(TargetInfo("mtt::ragged", kind="spherical"), "ACME")
    third = TargetInfo("mtt::third", kind="cartesian", rank=3)
    with pytest.raises(TargetError, match="ACME predicts scalars, cartesian tensors of rank 1"):
        irreps_of(third, "ACME")
    with pytest.raises(TargetError, match="names other, which is no target"):
        add_heads(nn.ModuleDict(), DATA, INPUTS, {"other": "mlp"}, "ACME")
    with pytest.raises(TargetError, match="is no scalar, and only scalars"):
        add_heads(nn.ModuleDict(), DATA, INPUTS, {"mtt::vector": "mlp"}, "ACME")


def test_names_of_last_layers() -> None:
    names = last_layer_names(["mtt::dipole", "energy", "mtt::energy"])
    assert names == {
        "mtt::dipole": "mtt::aux::dipole_last_layer_features",
        "energy": "mtt::aux::energy_last_layer_features",
        "mtt::energy": "mtt::aux::mtt_energy_last_layer_features",
    }
