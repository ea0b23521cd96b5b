"""Models that give features alone: heads for scalars and tensors, new targets, symmetry."""

from __future__ import annotations

import pytest
import torch
from ase.build import molecule
from helpers.equivariant import Moments
from helpers.structures import graph_of
from torch import Tensor

from atomtrain.errors import TargetError
from atomtrain.graph import AtomGraph
from atomtrain.model.heads import WithHeads
from atomtrain.targets import DatasetInfo, Irrep, TargetInfo

ENERGY = TargetInfo("energy", quantity="energy", unit="eV")
DIPOLE = TargetInfo("mtt::dipole", kind="cartesian", rank=1, num_subtargets=2)
TENSOR = TargetInfo("mtt::tensor", kind="spherical", irreps=(Irrep(0, 1), Irrep(1, 1, 3)))


def info(*targets: TargetInfo) -> DatasetInfo:
    return DatasetInfo("angstrom", (1, 6, 8), {t.name: t for t in targets})


def graph(turn: Tensor | None = None) -> AtomGraph:
    atoms = molecule("CH3CH2OH")
    if turn is not None:
        atoms.positions = atoms.positions @ turn.numpy().T
    return graph_of([atoms], cutoff=4.0)


def model(*targets: TargetInfo) -> Moments:
    torch.manual_seed(0)
    return Moments(info(*targets)).double()


def test_blocks_of_every_target() -> None:
    mine = model(ENERGY, DIPOLE, TENSOR)
    found = mine(graph(), ["energy", "mtt::dipole", "mtt::tensor", "feature"])
    assert [b.shape for b in found["energy"]] == [(9, 1)]
    assert [b.shape for b in found["mtt::dipole"]] == [(9, 3, 2)]
    assert [b.shape for b in found["mtt::tensor"]] == [(9, 1, 1), (9, 3, 3)]
    assert [b.shape for b in found["feature"]] == [(9, mine.feature_outputs()["feature"])]
    assert set(mine(graph(), ["energy"])) == {"energy"}


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_vectors_turn_with_the_structure(sign: float) -> None:
    turn = sign * torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    turn = turn * torch.linalg.det(turn).sign() * sign
    mine = model(ENERGY, DIPOLE, TENSOR)
    names = list(mine.heads)
    before, after = mine(graph(), names), mine(graph(turn), names)
    torch.testing.assert_close(after["energy"][0], before["energy"][0])
    wanted = torch.einsum("ab,nbp->nap", turn, before["mtt::dipole"][0])
    torch.testing.assert_close(after["mtt::dipole"][0], wanted)
    assert not torch.allclose(after["mtt::dipole"][0], before["mtt::dipole"][0])
    order = torch.tensor([1, 2, 0])  # y, z, x
    wanted = torch.einsum("ab,nbp->nap", turn[order][:, order], before["mtt::tensor"][1])
    torch.testing.assert_close(after["mtt::tensor"][1], wanted)
    torch.testing.assert_close(after["mtt::tensor"][0], before["mtt::tensor"][0])


def test_it_scripts() -> None:
    mine = model(ENERGY, DIPOLE, TENSOR)
    names = list(mine.heads)
    scripted = torch.jit.script(mine)(graph(), names)
    for name, blocks in mine(graph(), names).items():
        torch.testing.assert_close(scripted[name], blocks)


def test_new_targets_keep_the_heads_that_stay() -> None:
    mine = model(ENERGY)
    before = mine(graph(), ["energy"])["energy"][0]
    mine.retarget(info(ENERGY, DIPOLE))
    assert torch.equal(mine(graph(), ["energy"])["energy"][0], before)
    assert mine(graph(), ["mtt::dipole"])["mtt::dipole"][0].dtype == torch.float64
    mine.retarget(info(DIPOLE))
    assert list(mine.heads) == ["mtt::dipole"]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (
            TargetInfo("mtt::m", kind="cartesian", rank=2),
            "has heads for scalars, cartesian vectors",
        ),
        (TargetInfo("mtt::p", kind="spherical", irreps=(Irrep(1, -1),)), "with o3_sigma 1"),
        (
            TargetInfo("mtt::q", kind="spherical", irreps=(Irrep(2, 1), Irrep(1, 1))),
            r"'mtt::q' is of degree 2, and Moments has equivariant features of degree 1$",
        ),
    ],
)
def test_what_no_head_makes(target: TargetInfo, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        model(target)


PER_ATOM = TargetInfo("mtt::charge", per_atom=True, num_subtargets=2)
CLASSES = TargetInfo("mtt::phase", kind="classes", classes=("a", "b"), pooling="mean")


def test_what_last_layers_take() -> None:
    """Of scalars that are sums or belong to atoms; heads of the core around another model give it alike."""
    mine = model(ENERGY, PER_ATOM, DIPOLE)
    names = {
        "energy": "mtt::aux::energy_last_layer_features",
        "mtt::charge": "mtt::aux::charge_last_layer_features",
    }
    assert mine.last_layer_outputs() == names
    # an energy of the model's own, and another one by a head of the core, of the same short name
    own, other = model(ENERGY), TargetInfo("mtt::energy", unit="eV", head={"hidden_dim": 5})
    around = WithHeads(own, {"mtt::energy": other, "mtt::phase": CLASSES}).double()
    assert around.last_layer_outputs() == {
        "energy": "mtt::aux::energy_last_layer_features",
        "mtt::energy": "mtt::aux::mtt_energy_last_layer_features",
    }
    assert around.feature_outputs()["mtt::aux::mtt_energy_last_layer_features"] == 5
    for one in (mine, around):
        wanted = one.last_layer_outputs()
        found = one(graph(), [*wanted, *wanted.values()])
        assert set(found) >= {*wanted, *wanted.values()}
        for name, output in wanted.items():
            features = found[output][0]
            assert features.shape == (9, one.feature_outputs()[output])
            rest = found[name][0] - features @ one.last_layer_weights(name).t()
            torch.testing.assert_close(rest, rest[:1].expand_as(rest))  # the bias
            alone = one(graph(), [output])
            assert set(alone) >= {output}
            torch.testing.assert_close(alone[output][0], features)


def test_last_layers_go_with_their_targets() -> None:
    mine = model(ENERGY)
    mine.retarget(info(PER_ATOM))
    assert mine.last_layer_outputs() == {"mtt::charge": "mtt::aux::charge_last_layer_features"}
    assert set(mine.feature_outputs()) == {"feature", "mtt::aux::charge_last_layer_features"}
