"""Classes: labels read, losses and metrics against plain formulas, options and mistakes in them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ase.build import molecule
from helpers.tasks import frame, info, section
from torch.nn import functional

from atomtrain.data import Label
from atomtrain.errors import DataError, OptionsError, TargetError
from atomtrain.options import TrainerHypers, validate
from atomtrain.options.options import target_info
from atomtrain.sections.document import Source
from atomtrain.targets import DatasetInfo, TargetInfo
from atomtrain.tasks import task_of
from atomtrain.training.metrics import ErrorSums

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


@pytest.mark.parametrize(
    ("classes", "value", "row"),
    [
        (["2", "4", "6"], 4, [0, 1, 0]),
        (["2", "4", "6"], 2.0, [1, 0, 0]),
        (["1", "0"], 1, [1, 0]),  # a name, not a position
        (["T", "M"], True, [1, 0]),  # extended xyz: phase=T
        (["M", "F"], np.bool_(False), [0, 1]),
        (["T", "M"], "T", [1, 0]),
        ([True, False], "yes", [1, 0]),  # names: [yes, no] in YAML
        (["007", "008"], 8, [0, 1]),  # extended xyz: agent=008
        (["1e2", "2e2"], 200.0, [0, 1]),
    ],
)
def test_labels_are_names(classes: list[Any], value: Any, row: list[float]) -> None:
    target = info("classes", extra={"names": classes})
    np.testing.assert_array_equal(task_of("classes").row(value, target, WATER), [row])


@pytest.mark.parametrize(
    ("kind", "classes", "value"),
    [
        ("classes", ("2", "4", "6"), 1),  # not the second
        ("classes", ("2", "4", "6"), 8),
        ("classes", ("4", "m"), 1),
        ("classes", ("solid", "liquid"), True),
        ("binary", ("2", "4"), 1),
        ("binary", ("2", "4"), 0.0),
        ("binary", ("2", "4"), 3),
        ("binary", ("no", "yes"), 2),
    ],
)
def test_numbers_that_are_no_class(kind: str, classes: tuple[str, ...], value: Any) -> None:
    with pytest.raises(ValueError, match=f"'{str(value).lower().removesuffix('.0')}'"):
        task_of(kind).row(value, info(kind, classes=classes), WATER)


def test_the_model_says_what_a_label_is() -> None:
    for kind in ("classes", "binary"):
        words, numbers = (info(kind, classes=c) for c in (("hot", "cold"), ("2", "4")))
        assert "its position from 0" in task_of(kind).describe_output(words)
        assert task_of(kind).describe_output(numbers).endswith("a class is its name")


def test_words_that_are_booleans_too() -> None:
    task = task_of("classes")
    assert task.classes_in([True, "M", False]) == ("F", "M", "T")
    assert task.classes_in([True, False]) == ("false", "true")


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
    with pytest.raises(ValueError, match="'semimetal' is neither insulator nor metal nor 0 nor 1"):
        task.row("semimetal", named, WATER)
    with pytest.raises(ValueError, match="'2' is neither 0 nor 1, and no probability"):
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
        return validate(TrainerHypers, data, ("architecture", "training"), source)

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


def loss(kind: str, name: str, info: TargetInfo, labels: torch.Tensor, **arguments: Any) -> Any:
    return task_of(kind).loss(name, arguments, info, Label(labels, per_atom=False))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, {"b": 3.0}, "balanced"])
def test_cross_entropy(weights: Any, smoothing: float) -> None:
    index = torch.tensor([0, 0, 0, 1, 2, 2])
    labels = functional.one_hot(index, 3).double()
    logits = torch.randn(6, 3, dtype=torch.float64)
    info = TargetInfo("mtt::x", kind="classes", classes=("a", "b", "c"), num_subtargets=3)
    made = loss("classes", "cross_entropy", info, labels, class_weights=weights,
                label_smoothing=smoothing)  # fmt: skip
    expected = {None: [1, 1, 1], "balanced": [6 / 9, 2, 1]}.get(
        weights if not isinstance(weights, dict) else "", [1, 3, 1]
    )
    numerator, count = made(logits, labels, None)
    by_torch = functional.cross_entropy(
        logits, index, torch.tensor(expected, dtype=torch.float64), label_smoothing=smoothing
    )
    assert float(numerator / count) == pytest.approx(float(by_torch))


@pytest.mark.parametrize(("weight", "expected"), [(1.0, 1.0), (2.5, 2.5), ("balanced", 3.0)])
def test_binary_cross_entropy(weight: Any, expected: float) -> None:
    labels = torch.tensor([[0.0], [1.0], [0.0], [0.0]], dtype=torch.float64)
    logits = torch.randn(4, 1, dtype=torch.float64)
    info = TargetInfo("mtt::x", kind="binary", classes=("0", "1"))
    made = loss("binary", "binary_cross_entropy", info, labels, positive_weight=weight)
    numerator, count = made(logits, labels, None)
    by_torch = functional.binary_cross_entropy_with_logits(
        logits, labels, pos_weight=torch.tensor([expected], dtype=torch.float64)
    )
    assert float(numerator) / float(count) == pytest.approx(float(by_torch))
