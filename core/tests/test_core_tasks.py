"""Tasks: labels read, losses and metrics against plain formulas, symmetry, noise, heads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from core_structures import Pairwise, energy_info, store_of

from atomtrain.data import BatchSource, Frame, Label, Noise
from atomtrain.errors import DataError, OptionsError, TargetError
from atomtrain.graph import AtomGraph
from atomtrain.model.heads import Head, WithHeads, pool, split_targets
from atomtrain.options import TrainerHypers, validate_hypers
from atomtrain.options.dataset import DatasetSection
from atomtrain.options.options import target_info
from atomtrain.sections.document import Source
from atomtrain.targets import DatasetInfo, TargetInfo
from atomtrain.tasks import task_of
from atomtrain.tasks.symmetry import LAST_OF_POINT_GROUP, LAST_OF_SYSTEM, space_group
from atomtrain.training.metrics import ErrorSums


def frame(atoms: Atoms) -> Frame:
    return Frame(
        atoms.numbers.astype(np.int64), atoms.positions, atoms.cell.array, atoms.pbc.copy()
    )


def info(kind: str, **changes: Any) -> TargetInfo:
    task = task_of(kind)
    return task.complete(TargetInfo("t", kind=kind, pooling=task.pooling, **changes))


WATER = frame(molecule("H2O"))
NAMES = {"names": ["solid", "liquid", "gas"]}


@pytest.mark.parametrize(
    ("value", "row"),
    [
        ("liquid", [0, 1, 0]),
        (2, [0, 0, 1]),
        (np.int64(0), [1, 0, 0]),
        (1.0, [0, 1, 0]),
        ([0.7, 0.2, 0.1], [0.7, 0.2, 0.1]),
        (np.array([0, 0, 1]), [0, 0, 1]),
    ],
)
def test_labels_of_classes(value: Any, row: list[float]) -> None:
    found = task_of("classes").row(value, info("classes", extra=NAMES), WATER)
    np.testing.assert_allclose(found, [row])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("plasma", "there is no class 'plasma' .*solid, liquid, gas"),
        (3, "there is no class '3'"),
        ([0.7, 0.2, 0.2], r"sum to 1.1 instead of 1"),
        ([1.2, -0.2, 0.0], "a probability is negative"),
        ([0.5, 0.5], "expected a class .* or 3 probabilities"),
    ],
)
def test_wrong_labels_of_classes(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        task_of("classes").row(value, info("classes", extra=NAMES), WATER)


def test_classes_of_atoms() -> None:
    target = info("classes", extra={"names": ["H", "O"]}, per_atom=True)
    found = task_of("classes").row(np.array(["O", "H", "H"]), target, WATER)
    np.testing.assert_array_equal(found, [[0, 1], [1, 0], [1, 0]])
    missing = task_of("classes").row(np.array([1.0, np.nan, 0.0]), target, WATER)
    assert np.isnan(missing[1]).all() and not np.isnan(missing[[0, 2]]).any()


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        (["b", "a", "b"], ("a", "b")),
        ([10, 9, 10, 2], ("2", "9", "10")),
        ([np.array([0.0, 1.0, 0.0]), np.array([1.0, 0.0, 0.0])], ("0", "1", "2")),
        ([np.array([0.3, 0.7])], ("0", "1")),
        ([True, False], ("false", "true")),
        ([np.array([3, 1, 1, 7])], ("1", "3", "7")),  # classes of atoms
    ],
)
def test_classes_found_in_data(values: list[Any], classes: tuple[str, ...]) -> None:
    assert task_of("classes").classes_in(values) == classes


def test_binary_labels() -> None:
    task, plain = task_of("binary"), info("binary", classes=("0", "1"))
    for value, label in ((True, 1), (0, 0), (np.float64(1.0), 1), (0.25, 0.25)):
        assert task.row(value, plain, WATER) == [[label]]
    named = info("binary", extra={"names": ["insulator", "metal"]})
    assert task.row("metal", named, WATER) == [[1.0]]
    with pytest.raises(ValueError, match="'semimetal' is neither 0 nor 1 nor insulator or metal"):
        task.row("semimetal", named, WATER)
    with pytest.raises(ValueError, match="below 0 or above 1"):
        task.row(2, plain, WATER)
    with pytest.raises(ValueError, match="has two classes, the training set has 3: a, b, c"):
        task.classes_in(["a", "b", "c"])


def test_cross_entropy_is_torchs() -> None:
    target = info("classes", extra={"number": 3})
    task = task_of("classes")
    torch.manual_seed(0)
    logits = torch.randn(6, 3, dtype=torch.float64)
    truth = torch.tensor([0, 1, 2, 0, 0, 1])
    label = Label(torch.nn.functional.one_hot(truth, 3).double(), False)
    weights = torch.tensor([6 / 9, 1.0, 2.0], dtype=torch.float64)  # N / (C N_c)
    for arguments, expected in (
        ({}, torch.nn.functional.cross_entropy(logits, truth)),
        (
            {"class_weights": "balanced"},
            torch.nn.functional.cross_entropy(logits, truth, weight=weights),
        ),
        (
            {"class_weights": {"2": 4.0}, "label_smoothing": 0.2},
            torch.nn.functional.cross_entropy(
                logits, truth, weight=torch.tensor([1.0, 1.0, 4.0]).double(), label_smoothing=0.2
            ),
        ),
    ):
        loss = task.loss("cross_entropy", arguments, target, label)
        numerator, count = loss(logits, label.values, None)
        assert float(numerator / count) == pytest.approx(float(expected))
    loss = task.loss("cross_entropy", {}, target, label)
    mask = torch.tensor([[True] * 3] * 4 + [[False] * 3] * 2)
    numerator, count = loss(logits, label.values, mask)
    expected = torch.nn.functional.cross_entropy(logits[:4], truth[:4])
    assert float(numerator / count) == pytest.approx(float(expected))


def test_a_class_that_never_occurs() -> None:
    target = info("classes", extra=NAMES)
    label = Label(torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]), False)
    with pytest.raises(DataError, match="the class 'liquid' never occurs in the training set"):
        task_of("classes").loss("cross_entropy", {}, target, label)
    with pytest.raises(TargetError, match="class_weights names 'ice', which is no class"):
        full = Label(torch.eye(3), False)
        task_of("classes").loss("cross_entropy", {"class_weights": {"ice": 2.0}}, target, full)


@pytest.mark.parametrize(
    "given",
    [{"extra": {"number": 3}}, {"classes": ("0", "1", "2")}, {"num_subtargets": 3}],
    ids=["number", "found in the data", "num_subtargets"],
)
def test_a_class_that_never_occurs_and_has_no_name(
    given: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    target = info("classes", **given)
    label = Label(torch.tensor([[0.7, 0.3, 0.0], [0.0, 1.0, 0.0], [0.2, 0.8, 0.0]]).double(), False)
    loss = task_of("classes").loss("cross_entropy", {"class_weights": "balanced"}, target, label)
    assert "target 't': the class '2' never occurs in the training set" in caplog.text
    numerator, count = loss(torch.zeros(3, 3, dtype=torch.float64), label.values, None)
    assert float(numerator / count) == pytest.approx(np.log(3))  # all logits alike: finite


def test_symmetries_need_not_all_occur(caplog: pytest.LogCaptureFixture) -> None:
    target = info("crystal_system")
    label = Label(torch.eye(len(target.classes))[:2], False)
    task_of("crystal_system").loss("cross_entropy", {}, target, label)
    assert not caplog.records


def test_metrics_of_classes() -> None:
    target = info("classes", extra=NAMES)
    torch.manual_seed(1)
    p = torch.softmax(torch.randn(50, 3, dtype=torch.float64), 1)
    truth = torch.randint(0, 3, (50,))
    y = torch.nn.functional.one_hot(truth, 3).double()
    mask = (torch.arange(50) < 40)[:, None].expand(50, 3)
    sums = ErrorSums(["t"], torch.device("cpu"), {}, DatasetInfo("angstrom", (1,), {"t": target}))
    for part in (slice(0, 20), slice(20, 50)):  # sums of batches add up
        sums.add_samples("t", p[part], y[part], mask[part])
    found = sums.results()["t"]
    said, true = p[:40].argmax(1).numpy(), truth[:40].numpy()
    recalls = [(said[true == c] == c).mean() for c in range(3)]
    precisions = [(true[said == c] == c).mean() for c in range(3)]
    f1 = [2 * r * q / (r + q) for r, q in zip(recalls, precisions, strict=True)]
    assert found["count"] == 40
    assert found["accuracy"] == pytest.approx((said == true).mean())
    assert found["balanced accuracy"] == pytest.approx(np.mean(recalls))
    assert found["F1"] == pytest.approx(np.mean(f1))
    entropy = -np.log(p[:40].numpy()[np.arange(40), true]).mean()
    assert found["cross entropy"] == pytest.approx(entropy)
    matrix = np.array(sums.confusions()["t"])
    assert matrix[0, 1] == ((true == 0) & (said == 1)).sum() and matrix.sum() == 40


def test_metrics_of_binary_targets() -> None:
    target, task = info("binary", classes=("0", "1")), task_of("binary")
    torch.manual_seed(2)
    y = (torch.rand(300, 1) < 0.3).double()
    p = torch.sigmoid(torch.randn(300, 1, dtype=torch.float64) + 1.5 * y - 1.0)
    found = task.metrics(task.metric_sums(p, y, None, target), target)
    ones, zeros = p[y == 1].numpy(), p[y == 0].numpy()
    auc = (ones[:, None] > zeros[None, :]).mean()
    assert found["ROC AUC"] == pytest.approx(auc, abs=2e-3)
    called, true = (p > 0.5).numpy(), (y > 0.5).numpy()
    precision, recall = (true[called]).mean(), (called[true]).mean()
    assert found["accuracy"] == pytest.approx((called == true).mean())
    assert found["F1"] == pytest.approx(2 * precision * recall / (precision + recall))
    entropy = torch.nn.functional.binary_cross_entropy(p, y)
    assert found["cross entropy"] == pytest.approx(float(entropy))
    loss = task.loss("binary_cross_entropy", {"positive_weight": "balanced"}, target,
                     Label(y, False))  # fmt: skip
    weight = (300 - y.sum()) / y.sum()
    logits = torch.logit(p)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, y, pos_weight=weight)
    numerator, count = loss(logits, y, None)
    assert float(numerator) / float(count) == pytest.approx(float(expected))


def test_symmetry() -> None:
    pytest.importorskip("spglib")
    for atoms, number, point_group, system in (
        (bulk("C", "diamond", a=3.57), 227, "m-3m", "cubic"),
        (bulk("Mg", "hcp", a=3.2, c=5.2), 194, "6/mmm", "hexagonal"),
        (bulk("ZnS", "zincblende", a=5.4), 216, "-43m", "cubic"),
        (bulk("In", "bct", a=3.25, c=4.95), 139, "4/mmm", "tetragonal"),
    ):
        structure = frame(atoms)
        assert space_group(structure, 0.01) == number
        for kind, name in (
            ("spacegroup", str(number)),
            ("pointgroup", point_group),
            ("crystal_system", system),
        ):
            target = info(kind)
            row = task_of(kind).row(None, target, structure)
            assert target.classes[int(row.argmax())] == name
            given = task_of(kind).row(name, target, structure)
            np.testing.assert_array_equal(given, row)
    shaken = bulk("C", "diamond", a=3.57, cubic=True)
    shaken.rattle(0.05, seed=0)
    assert space_group(frame(shaken), 0.01) == 1
    assert space_group(frame(shaken), 0.5) == 227  # the tolerance counts
    with pytest.raises(ValueError, match="not periodic in all directions"):
        space_group(WATER, 0.01)


@pytest.mark.filterwarnings("ignore:Set OLD_ERROR_HANDLING")
def test_tables_of_symmetry_are_spglibs() -> None:
    spglib = pytest.importorskip("spglib")
    seen = set()
    for hall in range(1, 531):
        found = spglib.get_spacegroup_type(hall)
        group = next(n for n, last in LAST_OF_POINT_GROUP.items() if found.number <= last)
        assert group == found.pointgroup_international
        seen.add(found.number)
    assert seen == set(range(1, 231))
    ends = list(LAST_OF_POINT_GROUP.values())
    assert set(LAST_OF_SYSTEM.values()) <= set(ends) and len(ends) == 32


def denoising(scale: float = 0.2, normalize: bool = False) -> TargetInfo:
    return info("denoising", extra={"scale": scale, "normalize": normalize})


def noisy_source(store: Any, fixed: bool, seed: int = 3) -> BatchSource:
    target = denoising()
    n = len(store.types)
    store.labels["t"] = Label(torch.zeros(n, 3, dtype=torch.float64), True)
    store.labels["energy"] = Label(torch.zeros(len(store), 1, dtype=torch.float64), False)
    return BatchSource(
        store,
        cutoff=3.0,
        dtype=torch.float64,
        constants=None,
        device=torch.device("cpu"),
        memory_budget=10**8,
        num_workers=0,
        noise=Noise.of(DatasetInfo("angstrom", (1, 8, 29), {"t": target}), seed, fixed),
    )


def test_noise_of_denoising() -> None:
    store = store_of([molecule("H2O"), bulk("Cu", cubic=True), molecule("H2O"), Atoms("Cu")])
    source = noisy_source(store, fixed=False)
    (whole,) = source.epoch([torch.arange(4)], 5)
    halves = list(noisy_source(store, fixed=False).epoch([torch.tensor([2, 3]),
                                                          torch.tensor([0, 1])], 5))  # fmt: skip
    noise = whole.labels["t"]
    # whatever the batches are, a structure has the same noise in an epoch
    torch.testing.assert_close(torch.cat([halves[1].labels["t"], halves[0].labels["t"]]), noise)
    (other,) = source.epoch([torch.arange(4)], 6)
    assert not torch.allclose(other.labels["t"], noise)
    moved = whole.noisy["noise 0.2"]
    torch.testing.assert_close(moved.positions - whole.graph.positions, 0.2 * noise)
    # no model can see a structure move as a whole
    assert float(noise[:3].mean(0).abs().max()) < 1e-12 and float(noise[-1].abs().max()) == 0.0
    # the pairs are those of the noisy positions
    distances = torch.linalg.vector_norm(moved.vectors, dim=1)
    assert float(distances.max()) < 3.0
    between = moved.positions[moved.neighbors] - moved.positions[moved.centers]
    cells = moved.cells[moved.structure[moved.centers]]
    images = torch.einsum("pa,pab->pb", moved.shifts, cells)
    torch.testing.assert_close(moved.vectors, between + images)
    clean = torch.linalg.vector_norm(whole.graph.vectors, dim=1)
    assert len(clean) != len(distances)  # some pairs came or went


def test_noise_of_validation_stays() -> None:
    store = store_of([molecule("H2O"), bulk("Cu", cubic=True)])
    source = noisy_source(store, fixed=True)
    drawn = [next(iter(source.epoch([torch.arange(2)], e))).labels["t"] for e in (0, 7)]
    assert torch.equal(*drawn)
    (training,) = noisy_source(store, fixed=False).epoch([torch.arange(2)], 0)
    assert not torch.equal(training.labels["t"], drawn[0])


def graph_of(frames: list[Atoms]) -> AtomGraph:
    source = BatchSource(store_of(frames), cutoff=3.0, dtype=torch.float64, constants=None,
                         device=torch.device("cpu"), memory_budget=0, num_workers=0)  # fmt: skip
    return source.batch(torch.arange(len(frames))).graph


def test_pooling() -> None:
    graph = graph_of([molecule("H2O"), molecule("CH4")])
    x = torch.randn(8, 2, dtype=torch.float64)
    for how, one in (("sum", torch.sum), ("mean", torch.mean), ("max", torch.amax)):
        expected = torch.stack([one(x[:3], 0), one(x[3:], 0)])
        torch.testing.assert_close(pool(x, graph, how), expected)
    selected = torch.zeros(8, dtype=torch.bool)
    selected[[0, 2]] = True
    graph.extras["atomtrain::selected"] = selected
    torch.testing.assert_close(pool(x, graph, "mean")[0], x[[0, 2]].mean(0))
    assert pool(x, graph, "max")[1].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("norm", ["none", "layer", "batch"])
def test_heads_have_the_sizes_asked_for(norm: str) -> None:
    options = {"hidden_dim": 5, "num_hidden": 2, "norm": norm, "activation": "gelu",
               "residual": norm != "layer", "bias": False, "dropout": 0.1}  # fmt: skip
    target = TargetInfo("t", num_subtargets=4, head=options)
    head = Head(target, 7).double().eval()
    graph = graph_of([molecule("H2O")])
    x = torch.randn(3, 7, dtype=torch.float64)
    assert head(x, graph).shape == (3, 4)
    scripted = torch.jit.script(head)
    torch.testing.assert_close(scripted(x, graph), head(x, graph))
    linear = [m for m in head.modules() if isinstance(m, torch.nn.Linear)]
    assert [tuple(m.weight.shape) for m in linear] == [(5, 7), (5, 5), (5, 5), (4, 5)]
    assert all(m.bias is None for m in linear)
    assert any(isinstance(m, torch.nn.LayerNorm) for m in head.modules()) == (norm == "layer")


def test_who_predicts_what() -> None:
    def split(kinds: tuple[str, ...], **targets: TargetInfo) -> tuple[dict[str, Any], set[str]]:
        own, headed = split_targets(DatasetInfo("angstrom", (1,), targets), kinds, "arch")
        return {n: t.kind for n, t in own.targets.items()}, set(headed)

    energy = TargetInfo("e", quantity="energy")
    classes = info("classes", extra=NAMES)
    assert split(("scalar",), e=energy, c=classes) == ({"e": "scalar"}, {"c"})
    assert split(("scalar", "classes"), c=classes) == ({"c": "classes"}, set())
    # a vector for each atom is what an architecture that knows vectors predicts
    assert split(("scalar", "cartesian"), d=denoising()) == ({"d": "cartesian"}, set())
    # a head where one is asked for, and where the sum is not what is wanted
    headed = TargetInfo("e", quantity="energy", head={"hidden_dim": 8})
    gap = TargetInfo("gap", pooling="mean")
    assert split(("scalar",), e=headed, gap=gap) == ({}, {"e", "gap"})
    with pytest.raises(TargetError, match=r"cannot fit type 'denoising' .*made of vectors, which"):
        split(("scalar",), d=denoising())
    with pytest.raises(TargetError, match="neither 'head' nor 'pooling' can be given for tensors"):
        split(("scalar", "cartesian"), v=TargetInfo("v", "cartesian", rank=1, pooling="mean"))


def test_features_are_needed() -> None:
    model = Pairwise(energy_info())
    with pytest.raises(TargetError, match="Pairwise gives no output 'feature'"):
        WithHeads(model, {"c": info("classes", extra=NAMES)})


def section(**target: Any) -> DatasetSection:
    return DatasetSection.model_validate({"systems": "a.xyz", "targets": {"mtt::t": target}})


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"type": "clases"}, "did you mean 'classes'"),
        ({"type": {"classes": {"names": ["a", "a"]}}}, "a name is given twice"),
        ({"type": {"classes": {"names": ["a", "b"], "number": 2}}}, "give names or number"),
        ({"type": {"classes": {"numbers": 2}}}, "did you mean 'number'"),
        ({"type": {"denoising": {"scale": -1}}}, "greater than 0"),
        ({"type": {"binary": {"names": ["a"]}}}, "at least 2"),
        ({"type": "binary", "head": {"hiden_dim": 3}}, "Extra inputs|did you mean 'hidden_dim'"),
    ],
)
def test_mistakes_in_types(target: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        section(**target)


def test_losses_follow_the_kind() -> None:
    classes = target_info("mtt::t", section(type={"classes": NAMES}).targets["mtt::t"])
    source = Source("options.yaml", {}, {})

    def hypers(data: dict[str, Any]) -> TrainerHypers:
        return validate_hypers(TrainerHypers, data, ("architecture", "training"), source)

    assert hypers({}).loss_for(classes).type == "cross_entropy"
    # one loss for all is meant for those it suits
    assert hypers({"loss": "mae"}).loss_for(classes).type == "cross_entropy"
    assert hypers({"loss": "mae"}).loss_for(TargetInfo("x")).type == "mae"
    weighted = hypers({"loss": {"mtt::t": {"weight": 3.0}}}).loss_for(classes)
    assert (weighted.type, weighted.weight) == ("cross_entropy", 3.0)
    balanced = hypers({"loss": {"mtt::t": {"class_weights": "balanced"}}}).loss_for(classes)
    assert balanced.arguments["class_weights"] == "balanced"
    problems = hypers({"loss": {"mtt::t": "mae"}}).check_targets({"mtt::t": classes}, ())
    assert "'mae' makes no sense for a target of type 'classes'" in problems[0][1]
    with pytest.raises(OptionsError, match="class_weights"):
        hypers({"loss": {"mtt::t": {"type": "cross_entropy", "class_weights": "equal"}}})
