"""The conformance kit: a sound architecture passes, and one fault fails the check meant for it."""

from __future__ import annotations

import re
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_arch
from helpers.installing import install

from atomtrain.errors import PluginError
from atomtrain.plugins import Architecture
from atomtrain_testing import (
    CHECKS,
    ArchitectureTests,
    Outcome,
    Subject,
    all_checks,
    run_all,
    run_check,
)
from atomtrain_testing.training import train

SOURCE = Path(tiny_arch.__file__).read_text()
TRAINING = ("life_cycle", "own_training")
"""themes of checks that train"""
OWN = {one.name for one in all_checks() if one.theme == "own_training"}
"""checks that are not needed where the core's engine trains"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.fixture
def plugin(site: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Subject]:
    """Installs the made-up architecture (its source changed if need be), quick to train."""
    import sys

    def made(fault: str = "", replace: tuple[str, str] = ("", ""), add: str = "") -> Subject:
        assert replace[0] in SOURCE
        install(site, "tiny", SOURCE.replace(*replace) + add)
        monkeypatch.delitem(sys.modules, "tiny", raising=False)
        return Subject("tiny", {"fault": fault}, {"learning_rate": 0.03}, fit_epochs=120)

    return made


def failures(subject: Subject, meant: str) -> dict[str, str]:
    """Names of the checks that fail, with their messages.

    Those that take long count as passed unless they are meant; all of them run on the sound plugin.
    """
    slow = ["description", "picklable", "fits", "two_processes"]
    slow += ["export", "ase_calculator", "selected_atoms", "second_derivatives"]
    if CHECKS[meant].theme not in TRAINING:  # what trains is not in question
        slow += [one.name for one in all_checks() if one.theme in TRAINING]
    for name in slow:
        if name != meant:
            subject.outcomes[name] = Outcome(CHECKS[name], "passed")
    return {o.check.name: o.message for o in run_all(subject) if o.verdict == "failed"}


def test_a_sound_architecture_passes(plugin: Callable[..., Subject]) -> None:
    subject = plugin()
    for name in ("picklable", "two_processes"):  # SOAP-BPNN's tests run them
        subject.outcomes[name] = Outcome(CHECKS[name], "passed")
    outcomes = {o.check.name: o for o in run_all(subject)}
    assert list(outcomes) == [one.name for one in all_checks()]
    assert not {n: o.message for n, o in outcomes.items() if o.verdict == "failed"}
    assert {n for n, o in outcomes.items() if o.verdict == "skipped"} == {
        "constants",
        "extra_inputs",
        "golden",
        "core_heads",
        "last_layers",
        *OWN,
    }
    assert outcomes["changes"].message == "not needed: the core's engine trains"


@pytest.mark.parametrize(
    ("fault", "meant", "message"),
    [
        ("Jumps", "smoothness", "the energy jumps by"),
        ("Kinks", "smoothness", "the forces jump by"),
        ("NotExtensive", "extensivity", "a periodic box repeated twice"),
        ("LooksUp", "rotation", "molecule, rotated: 'energy': differs by"),
        ("Handed", "inversion", "molecule, inverted: 'energy'"),
        ("CountsAtoms", "permutation", "atoms in another order: 'energy'"),
        ("KnowsItsPlace", "translation", "molecule, moved: 'energy'"),
        ("SeesTheBatch", "batch_independence", "among 6 structures"),
        ("DeafToTheCharge", "extra_inputs", "is the same for 0 and 1 of 'charge'"),
        ("TakesItForNeutral", "extra_inputs", "without 'charge' is no error"),
        ("WrongForces", "gradients", "detached from the pair vectors"),
        ("WrongTrainingGradients", "training_gradients", "autograd says"),
        ("ShortSighted", "interaction_range", "the stated interaction range 1 away"),
        ("NoImages", "small_cells", "one crystal in cells of"),
        ("Lonely", "lonely_atoms", "without neighbours is not finite"),
        ("WrongConstants", "constants", "with its constants"),
        ("SinglePrecision", "moves", "Double"),
        ("LeavesBehind", "moves", "'table' is a tensor but no parameter or buffer"),
        ("WrongShape", "builds", "a block has shape"),
        ("Unscriptable", "torchscript", "cannot be compiled by TorchScript"),
        ("Unpicklable", "picklable", "cannot be pickled"),
        ("Forgetful", "checkpoints", "neither in the state_dict nor in the hypers"),
        ("CannotLearn", "fits", "of the loss is left"),
        ("ForgetsHeads", "new_targets", "retarget must leave what is trained"),
        ("ForgetsWhatItLearnt", "new_elements", "Model.grow must leave what is learnt"),
        (
            "WrongLastLayer",
            "last_layers",
            "minus last_layer_weights times 'mtt::aux::energy_last_layer",
        ),
        ("CannotLearnElements", "new_elements", "depend on no weight that came with it"),
    ],
)
def test_a_faulty_model(
    plugin: Callable[..., Subject], fault: str, meant: str, message: str
) -> None:
    found = failures(plugin(fault), meant)
    assert set(found) == {meant}, found
    assert message in found[meant]
    assert found[meant].endswith(f"\n{CHECKS[meant].explanation}")


def test_second_derivatives(plugin: Callable[..., Subject]) -> None:
    """Where they are not asked for they may be refused, and not be wrong; a model that has none says why."""
    for fault, file in (("OnlyOnce", "is to have them"), ("Silent", "does not refuse them")):
        message = run_check(plugin(fault), "second_derivatives").message
        assert f"second derivatives of a file that {file}, times a direction" in message
    outcome = run_check(plugin("Refuses"), "second_derivatives")
    assert (outcome.verdict, outcome.message) == ("skipped", "its table is of straight lines")


def test_a_sound_model_that_takes_a_charge(plugin: Callable[..., Subject]) -> None:
    subject = plugin("Charged")
    assert not failures(subject, "extra_inputs")
    assert subject.outcomes["extra_inputs"].verdict == "passed"


TRAINER = """

@hookimpl
def train_model(model: Any, run: Any) -> Any:
    import torch

    from atomtrain.training.distributed import Processes
    from atomtrain.training.engine import train

    {change}
    return train(model, run)
"""
EXPORT = """

@hookimpl
def export_model(predictor: Any, metadata: Any) -> Any:
    import copy

    import tiny_model
    from atomtrain.model.export import export_predictor

    {change}
"""


@pytest.mark.parametrize(
    ("replace", "add", "meant", "message"),
    [
        (
            ("from typing import Any", "from typing import Any\n\nimport torch"),
            "",
            "description",
            "describing the plugin imports torch",
        ),
        (("summary=", 'default_kind="spherical", summary='), "", "description", "default_kind"),
        (('handle="somebody"', 'handle=""'), "", "stage", "needs a maintainer"),
        (("summary=", 'stage="stable", summary='), "", "stage", "needs a description"),
        (("summary=", 'stage="deprecated", summary='), "", "description", "no deprecation"),
        (
            ("tiny_hypers.Hypers", "tiny_hypers.Undocumented"),
            "",
            "hypers_documented",
            "architecture.model.width has no documentation",
        ),
        (
            ("tiny_hypers.Hypers", "tiny_hypers.WithoutDefault"),
            "",
            "hypers_documented",
            "architecture.model.fault has no default",
        ),
        (
            ("tiny_hypers.Hypers", "tiny_hypers.Lax"),
            "",
            "hypers_strict",
            "architecture.model accepts the unknown key",
        ),
        (
            ('("scalar", "cartesian")', '("scalar", "spherical")'),
            "",
            "target_kinds",
            "kind 'spherical', target 'mtt::tensor' is refused though it is declared",
        ),
        (
            ("", ""),
            TRAINER.format(change="run.checkpoint = None"),
            "restart",
            "the training did 4 more",
        ),
        (
            ("", ""),
            TRAINER.format(change="run.hypers.finetune = None"),
            "finetune",
            "was trained with 'method: heads'",
        ),
        (
            ("", ""),
            EXPORT.format(change="predictor = copy.deepcopy(predictor)\n    "
            "predictor.affine[0].scale *= 1.01\n    return export_predictor(predictor, {})"),
            "export",
            "exported against training",
        ),
        (
            ("", ""),
            EXPORT.format(change="return export_predictor(predictor, {}, devices=['cuda'])"),
            "ase_calculator",
            "cpu",
        ),
        (
            ("", ""),
            EXPORT.format(change="return tiny_model.deaf(export_predictor(predictor, {}))"),
            "selected_atoms",
            "the exported model returns 18 samples",
        ),
    ],
)  # fmt: skip
def test_a_faulty_plugin(
    plugin: Callable[..., Subject],
    replace: tuple[str, str],
    add: str,
    meant: str,
    message: str,
) -> None:
    found = failures(plugin("", replace, add), meant)
    also = {"new_elements"} if meant == "restart" else set()  # that check restarts, too
    assert set(found) == {meant} | also, found
    assert message in found[meant]


FIT = """

@hookimpl
def train_model(model: Any, run: Any) -> Any:
    import tiny_fit

    return tiny_fit.train(model, run)
"""


@pytest.fixture
def fitted(
    plugin: Callable[..., Subject], site: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Subject]:
    """Installs the architecture that is fitted in closed form, its trainer with a fault."""
    import sys

    def made(fault: str = "", **hypers: Any) -> Subject:
        source = SOURCE
        for old, new in (
            ("from atomtrain.options import TrainerHypers\n\n    return TrainerHypers",
             "import tiny_hypers\n\n    return tiny_hypers.Fit"),
            ("import tiny_model\n\n    return getattr(tiny_model, hypers.fault or \"Tiny\")(",
             "import tiny_fit\n\n    return tiny_fit.Fitted("),
            ('("scalar", "cartesian")', '("scalar",)'),
        ):  # fmt: skip
            assert old in source
            source = source.replace(old, new)
        install(site, "tiny", source + FIT)
        monkeypatch.delitem(sys.modules, "tiny", raising=False)
        return Subject("tiny", {}, {"fault": fault, **hypers})

    return made


def trained_checks(subject: Subject, *also: str) -> dict[str, Outcome]:
    """The outcomes of the checks that train in this process, and of others; the rest counts as passed."""
    for one in all_checks():
        here = one.theme in TRAINING and one.name != "two_processes"
        if not here and one.name not in also:
            subject.outcomes[one.name] = Outcome(one, "passed")
    return {outcome.check.name: outcome for outcome in run_all(subject)}


def test_a_sound_training_of_ones_own(fitted: Callable[..., Subject]) -> None:
    outcomes = trained_checks(fitted(), "training_gradients", "two_processes")
    assert not {n: o.message for n, o in outcomes.items() if o.verdict == "failed"}
    skipped = {n: o.message for n, o in outcomes.items() if o.verdict == "skipped"}
    assert set(skipped) == {"training_gradients", "core_heads", "finetune", "new_targets",
                            "new_elements", "golden"}  # fmt: skip
    assert "no hyper 'finetune'" in skipped["finetune"] and "finetune" in skipped["new_elements"]
    assert "trained along gradients" in skipped["training_gradients"]


def test_a_training_of_one_stage(fitted: Callable[..., Subject]) -> None:
    """What it has not is not asked for, and the pass is interrupted all the same."""
    outcomes = trained_checks(fitted(ridge=[1e-6]))
    assert outcomes["restart"].verdict == "skipped" and "one stage" in outcomes["restart"].message
    assert not {n: o.message for n, o in outcomes.items() if o.verdict == "failed"}
    assert outcomes["interruption"].verdict == "passed"


def test_other_hypers_may_find_the_same(fitted: Callable[..., Subject]) -> None:
    """Whether they were honoured is told by what was done, not by weights that happen to differ."""
    before, after = fitted(ridge=[1e-6]), fitted(ridge=[1e-6, 1e4])
    first = train(before, [before.main])
    again = train(after, [after.main], restart=first.checkpoint)
    assert len(again.losses) == 2
    for name, weight in first.outcome.best_weights.items():
        assert again.outcome.best_weights[name].equal(weight)
    old = Subject("tiny", {}, {"fault": "keeps old results", "ridge": [1e-7, 1e-5, 1e4]})
    first = train(old, [old.main])  # the best is not the last
    other = Subject("tiny", {}, {"fault": "keeps old results", "ridge": [1e-3, 1e-2, 1e5]})
    with pytest.raises(PluginError, match=r"other hypers \(ridge\) and left the result as it was"):
        train(other, [other.main], restart=first.checkpoint)


@pytest.mark.parametrize(
    ("fault", "meant", "message"),
    [
        ("returns nothing", "trains", "train_model returned nothing; return session.outcome()"),
        ("never validates", "trains", "train_model never looked at the validation set"),
        ("tells nobody", "trains", "no observer heard of what train_model does"),
        ("ends in NaN", "trains", "train_model ends with last weights that are not finite: weights"),
        ("chooses the last", "trains", "the best weights of train_model have a validation loss"),
        ("forgets its sums", "restart", "'weights' ends elsewhere after a restart"),
        ("sums late", "interruption", "stopped after 1 of 2 batches of 'sums' and restarted"),
        ("deaf", "interruption", "train_model went on after SIGTERM after stage 0"),
        ("keeps old results", "changes", "with another ridge ("),
        ("keeps old data", "changes", "restarted on other structures, train_model ends with the old"),
        ("rounds", "precision", "weights that are all numbers of float32"),
    ],
)  # fmt: skip
def test_a_faulty_training_of_ones_own(
    fitted: Callable[..., Subject], fault: str, meant: str, message: str
) -> None:
    outcomes = trained_checks(fitted(fault))
    found = {n: o.message for n, o in outcomes.items() if o.verdict == "failed"}
    assert set(found) == {meant}, found
    assert message in found[meant]


def test_a_fit_that_explains_nothing(fitted: Callable[..., Subject]) -> None:
    """Gradients are not blamed where there are none."""
    message = run_check(fitted(ridge=[1e4]), "fits").message
    assert "of the loss is left" in message and "of a model that says nothing" in message
    found = message.split("brings the loss down")[0]  # what follows explains the check
    assert "gradients" not in found and "a weaker ridge" in found


KINDS = "scalar cartesian spherical binary classes spacegroup pointgroup crystal_system denoising"


@pytest.mark.parametrize(
    ("kinds", "skipped"),
    [
        (tuple(KINDS.split()), {"core_heads"}),
        (("classes",), {"last_layers", "gradients", "training_gradients", "smoothness", "extensivity",
                        "interaction_range", "ase_calculator", "selected_atoms",
                        "second_derivatives"}),
    ],
)  # fmt: skip
def test_every_kind_of_target(
    plugin: Callable[..., Subject], kinds: tuple[str, ...], skipped: set[str]
) -> None:
    """An architecture that describes atoms and declares every kind, or classes alone."""
    declared = ('("scalar", "cartesian")', f'{kinds}, default_kind="{kinds[0]}"')
    # degree 1 is all it has: of spherical tensors the kit's vector is what it takes
    subject = plugin("Level1" if "spherical" in kinds else "Level1Scalars", declared)
    for name in ("picklable", "fits", "two_processes"):
        subject.outcomes[name] = Outcome(CHECKS[name], "passed")
    outcomes = {o.check.name: o for o in run_all(subject)}
    assert not {n: o.message for n, o in outcomes.items() if o.verdict == "failed"}
    found = {n for n, o in outcomes.items() if o.verdict == "skipped"}
    assert found == skipped | OWN | {
        "constants",
        "extra_inputs",
        "golden",
        "new_elements",
    }  # it does not grow


def test_processes_that_do_not_share_their_gradients(plugin: Callable[..., Subject]) -> None:
    # all else stays as it is: both would write the same files if they were alone
    alone = 'object.__setattr__(run.processes, "sum_gradients", lambda parameters: None)'
    subject = plugin("", ("", ""), TRAINER.format(change=alone))
    assert "after training by two processes" in run_check(subject, "two_processes").message


def test_a_core_that_loads_checkpoints_from_the_future(
    plugin: Callable[..., Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No plugin can do that; the check is tested on a core that does."""
    subject = plugin()
    monkeypatch.setattr(Architecture, "upgrade_checkpoint", lambda self, checkpoint: checkpoint)
    message = run_check(subject, "future_versions").message
    assert "a checkpoint of version 2 of the model was loaded" in message


def test_what_is_not_promised_is_not_checked(plugin: Callable[..., Subject]) -> None:
    subject = plugin("LooksUp")
    subject.equivariant = False
    subject.exempt = {"permutation": "known, to be mended in 0.2"}
    for name, reason in (
        ("rotation", "is not promised to be equivariant"),
        ("permutation", "exempt: known, to be mended in 0.2"),
    ):
        outcome = run_check(subject, name)
        assert outcome.verdict == "skipped" and reason in outcome.message


def test_what_needs_a_failed_check_is_skipped(plugin: Callable[..., Subject]) -> None:
    subject = plugin("WrongShape")
    assert run_check(subject, "ase_calculator").message == "needs 'builds', which failed"
    plugin_outcome = run_check(Subject("no-such-architecture"), "rotation")
    assert plugin_outcome.message == "needs 'description', which failed"


@pytest.mark.parametrize("kinds", [("cartesian",), ("spherical",), ("scalar", "spherical")])
def test_a_model_of_degree_1_declares_what_it_can(
    plugin: Callable[..., Subject], kinds: tuple[str, ...]
) -> None:
    default = f'{kinds}, default_kind="{kinds[0]}"'
    subject = plugin("Level1", ('("scalar", "cartesian")', default))
    first = {"cartesian": "mtt::dipole", "spherical": "mtt::vector", "scalar": "energy"}
    assert subject.main.name == first[kinds[0]]
    outcome = run_check(subject, "target_kinds")
    assert outcome.verdict == "passed", outcome.message


@pytest.mark.parametrize(
    ("fault", "name"), [("NewElementsStartAtZero", "new_elements"), ("ZerosInFloat32", "moves")]
)
def test_zeros_are_no_fault(plugin: Callable[..., Subject], fault: str, name: str) -> None:
    outcome = run_check(plugin(fault), name)
    assert outcome.verdict == "passed", outcome.message


def test_vectors_that_no_kind_declares(plugin: Callable[..., Subject]) -> None:
    subject = plugin("Level1", ('("scalar", "cartesian")', '("scalar", "classes")'))
    message = run_check(subject, "builds").message
    assert "gives equivariant features (degrees={1: 4}), but describe_architecture" in message
    assert "add 'cartesian' or 'spherical' to target_kinds, or leave out degrees" in message


def test_kinds_the_kit_does_not_know(plugin: Callable[..., Subject]) -> None:
    subject = plugin("", ('("scalar", "cartesian")', '("scalar", "odour")'))
    assert "knows no target of kind 'odour'" in run_check(subject, "target_kinds").message


def test_the_class_that_authors_subclass(plugin: Callable[..., Subject]) -> None:
    plugin()

    class Mine(ArchitectureTests):
        architecture = "tiny"
        model_hypers = {"fault": "Handed"}
        exempt = {"rotation": "tested elsewhere"}

    tests = [name for name in dir(Mine) if name.startswith("test_")]
    assert sorted(tests) == sorted(f"test_{name}" for name in CHECKS)
    mine = Mine()
    mine.test_translation()  # type: ignore[attr-defined]
    with pytest.raises(AssertionError, match=r"tiny fails 'inversion' .*\nInverting a structure"):
        mine.test_inversion()  # type: ignore[attr-defined]
    with pytest.raises(unittest.SkipTest, match="tested elsewhere"):
        mine.test_rotation()  # type: ignore[attr-defined]
    assert mine.subject() is mine.subject()
    assert mine.subject().golden == Path(__file__).parent / "golden"


def test_the_command(
    plugin: Callable[..., Subject], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    from atomtrain.cli.app import app

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(app, ["check", "tiny", *arguments])

    plugin()
    hypers = tmp_path / "hypers.yaml"
    hypers.write_text("model: {fault: Handed}\ntraining: {batch_size: 2}\n")
    done = run("--only", "translation", "--hypers", str(hypers))
    assert done.exit_code == 0 and "0 failed, 1 passed, 0 skipped\n" in done.stdout, done.output
    done = run("--only", "inversion", "--only", "rotation", "--hypers", str(hypers))
    assert done.exit_code == 1
    listed, failed, counts = done.stdout.split("\n\n")  # failures come when all is done
    assert "failed   inversion" in listed and "passed   rotation" in listed
    assert failed.startswith("failed   tiny fails 'inversion' (Inverting") and "docs/" not in failed
    assert "A model that uses triple products of neighbours' vectors is the usual" in failed
    assert counts == "1 failed, 1 passed, 0 skipped\n"

    hypers.write_text("model: {fault: WrongShape}\n")
    done = run(
        "--only", "rotation", "--only", "export", "--only", "inversion", "--hypers", str(hypers)
    )
    assert done.exit_code == 1 and "tiny fails 'builds'" in done.stdout
    last = "1 failed, 0 passed, 3 skipped:\n  3 need 'builds': rotation, export, inversion\n"
    assert done.stdout.endswith(last)

    hypers.write_text("architecture: {name: tiny, model: {}, training: {learning_rate: 0.02}}\n")
    golden = str(tmp_path / "golden")
    done = run("--write-golden", golden, "--hypers", str(hypers))
    assert done.exit_code == 0 and f"v1-1.ckpt; checked by --golden {golden}" in done.stdout
    done = run("--golden", golden, "--only", "golden", "--hypers", str(hypers))
    assert "1 passed" in done.stdout, done.output
    assert run("--golden", str(tmp_path / "gloden"), "--only", "golden").exit_code == 2
    done = run("--only", "golden")
    assert "no folder of golden checkpoints was given (--golden FOLDER); write" in done.stdout

    assert "did you mean 'rotation'?" in str(run("--only", "rotatoin").exception)
    hypers.write_text("equivariant: false\nexempt: {small-cells: issue 7}\n")
    done = run("--only", "inversion", "--only", "small_cells", "--hypers", str(hypers))
    assert done.exit_code == 0 and "2 skipped" in done.stdout and "issue 7" in done.stdout
    hypers.write_text("model: {}\ntolerence: 1.0\n")
    message = str(run("--hypers", str(hypers)).exception)
    assert "hypers.yaml:2: tolerence: unknown key; did you mean 'tolerance'?" in message
    missing = str(tmp_path / "none.yaml")
    assert "none.yaml' does not exist" in str(run("--hypers", missing).exception)


def test_every_check_is_explained() -> None:
    page = Path(__file__).parents[3] / "docs" / "conformance.md"
    headings = [line[3:] for line in page.read_text().splitlines() if line.startswith("## ")]
    wanted: list[Any] = [name.replace("_", "-") for name in CHECKS]
    assert sorted(h for h in headings if h in wanted) == sorted(wanted)
    sections = dict(
        re.findall(r"^## ([a-z-]+)\n\n(.*?)(?=\n#|\n```|\Z)", page.read_text(), re.M | re.S)
    )
    for one in all_checks():
        assert one.summary.endswith("."), one.name
        assert one.explanation == " ".join(sections[one.name.replace("_", "-")].split()), one.name
        assert set(one.needs) <= set(CHECKS)
    for attribute in ArchitectureTests.__annotations__:
        assert f"`{attribute}`" in page.read_text(), attribute
