"""Where the weights of few elements go among those of more."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from atomtrain.errors import DataError
from atomtrain.graph import AtomGraph
from atomtrain.model import Growth, Model, PotentialModel
from atomtrain.model.heads import WithHeads
from atomtrain.targets import DatasetInfo, TargetInfo

GROWTH = Growth((6, 8), (1, 6, 7, 8))


class Tables(nn.Module):
    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.arange(float(torch.Size(shape).numel())).reshape(shape) + 1)
        self.register_buffer("one", torch.ones(()))


def taken_over(old: tuple[int, ...], new: tuple[int, ...], **axes: object) -> tuple[Tensor, Tensor]:
    """The table of the trained module, and that of the one for more elements, which was all zeros."""
    trained, grown = Tables(*old), Tables(*new)
    with torch.no_grad():
        grown.table.zero_()
        grown.one.zero_()
    GROWTH.take_over(grown, trained, **axes)  # type: ignore[arg-type]
    assert grown.one == 1.0
    return trained.table.detach(), grown.table.detach()


def test_elements_and_their_places() -> None:
    assert GROWTH.places.tolist() == [1, 3]
    assert GROWTH.added == [0, 2]
    assert list(GROWTH.batches()) == []


def test_an_axis_of_elements() -> None:
    old, new = taken_over((3, 2), (3, 4))
    assert torch.equal(new[:, [1, 3]], old)
    assert not new[:, [0, 2]].any()


def test_axes_of_elements_and_what_each_has() -> None:
    """Weights ``[element, out, element of the neighbour * 3]``."""
    old, new = taken_over((2, 5, 6), (4, 5, 12))
    by_neighbour = new.reshape(4, 5, 4, 3)
    assert torch.equal(by_neighbour[[1, 3]][:, :, [1, 3]].flatten(2), old)
    assert int((new != 0).sum()) == old.numel()


def test_an_axis_of_pairs() -> None:
    old, new = taken_over((4, 3), (16, 3))
    assert torch.equal(new.reshape(4, 4, 3)[[1, 3]][:, [1, 3]].flatten(0, 1), old)


def test_an_axis_that_is_neither() -> None:
    with pytest.raises(
        DataError, match="'table' has an axis of length 5 for 2 elements and of length 7 for 4"
    ):
        taken_over((5,), (7,))
    old, new = taken_over((5,), (7,), axes={(5, 7): torch.tensor([6, 1, 2, 3, 4])})
    assert new[[6, 1, 2, 3, 4]].tolist() == old.tolist()


def test_other_tensors_are_refused() -> None:
    trained, grown = nn.Linear(2, 2), nn.Linear(2, 2, bias=False)
    with pytest.raises(DataError, match="'bias' is another tensor"):
        GROWTH.take_over(grown, trained)


def test_weights_keep_the_precision_of_the_model() -> None:
    trained, grown = Tables(2).double(), Tables(4)
    with torch.no_grad():
        trained.table.add_(1e-12)
    GROWTH.take_over(grown, trained)
    assert grown.table.dtype == torch.float32
    assert grown.table[[1, 3]].tolist() == [1.0, 2.0]


class Columns(Model):
    """The features of atoms are one-hot by element, two columns each."""

    def __init__(self, types: tuple[int, ...]) -> None:
        super().__init__()
        self.cutoff = self.interaction_range = 3.0
        self.weight = nn.Parameter(torch.randn(len(types), 2))
        self.register_buffer("types", torch.tensor(types))

    def forward(self, graph: AtomGraph, outputs: list[str]) -> dict[str, list[Tensor]]:
        own = (graph.types.unsqueeze(1) == self.types).float()
        return {"feature": [(own.unsqueeze(2) * self.weight).flatten(1)]}

    def feature_outputs(self) -> dict[str, int]:
        return {"feature": self.weight.numel()}

    def grow(self, trained: Model, growth: Growth) -> None:
        assert isinstance(trained, Columns)
        growth.take_over(nn.ParameterList([self.weight]), nn.ParameterList([trained.weight]))


def graph(*types: int) -> AtomGraph:
    n = len(types)
    none = torch.zeros(0, dtype=torch.int64)
    return AtomGraph(
        torch.zeros(n, 3), torch.tensor(types), torch.zeros(1, 3, 3), torch.zeros(1, 3, dtype=torch.bool),
        torch.zeros(n, dtype=torch.int64), none, none, torch.zeros(0, 3, dtype=torch.int64), torch.zeros(0, 3), {},
    )  # fmt: skip


@pytest.mark.parametrize("norm", ["none", "layer", "batch"])
def test_heads_of_the_core_grow_with_the_features(norm: str) -> None:
    head = {"num_hidden": 1, "hidden_dim": 4, "norm": norm}
    target = {"mtt::kind": TargetInfo("mtt::kind", head=head, per_atom=True)}
    trained, grown = (WithHeads(Columns(types), target) for types in ((6, 8), (1, 6, 7, 8)))
    seen = graph(8, 6, 6, 8)
    if norm == "batch":
        trained.train()(seen, ["mtt::kind"])  # so that it has statistics
    trained.eval()
    grown.eval()
    grown.grow(trained, GROWTH)
    wanted, found = (model(seen, ["mtt::kind"])["mtt::kind"][0] for model in (trained, grown))
    assert torch.equal(found, wanted)
    assert grown(graph(7), ["mtt::kind"])["mtt::kind"][0].isfinite().all()


def test_what_does_not_say_that_it_grows_refuses() -> None:
    info = DatasetInfo("angstrom", (6,), {"energy": TargetInfo("energy", quantity="energy")})
    with pytest.raises(
        DataError, match="PotentialModel cannot take in new elements; fine-tune it on data of its"
    ):
        PotentialModel(info).grow(PotentialModel(info), GROWTH)
