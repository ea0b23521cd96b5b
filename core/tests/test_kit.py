"""The conformance kit: a sound architecture passes, and one fault fails the check meant for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_arch
from core_structures import install

from atomtrain.testing import CHECKS, Outcome, Subject, all_checks, run_all

SLOW = ("description", "picklable", "two_processes")
"""Those that start interpreters: run for the sound plugin, and where they are what is meant."""
SOURCE = Path(tiny_arch.__file__).read_text()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def tiny(fault: str = "", **changes: Any) -> Subject:
    """The made-up architecture, quick to train."""
    training = {"learning_rate": 0.03}
    return Subject("tiny", {"fault": fault}, training, fit_epochs=120, **changes)


def failures(subject: Subject, *also: str) -> dict[str, str]:
    """Names of the checks that fail, with their messages."""
    for name in SLOW:
        if name not in also:
            subject.outcomes[name] = _passed(name)
    return {o.check.name: o.message for o in run_all(subject) if o.verdict == "failed"}


def _passed(name: str) -> Outcome:
    return Outcome(CHECKS[name], "passed")


def test_a_sound_architecture_passes(site: Path) -> None:
    install(site, "tiny", SOURCE)
    outcomes = {o.check.name: o for o in run_all(tiny())}
    assert list(outcomes) == [one.name for one in all_checks()]
    assert not {n: o.message for n, o in outcomes.items() if o.verdict == "failed"}
    assert {n for n, o in outcomes.items() if o.verdict == "skipped"} == {"constants", "golden"}


@pytest.mark.parametrize(
    ("fault", "check", "message"),
    [
        ("Jumps", "smoothness", "the energy jumps by"),
        ("Kinks", "smoothness", "the forces jump by"),
        ("NotExtensive", "extensivity", "a periodic box repeated twice"),
        ("LooksUp", "rotation", "molecule, rotated: 'energy': differs by"),
        ("Handed", "inversion", "molecule, inverted: 'energy'"),
        ("CountsAtoms", "permutation", "atoms in another order: 'energy'"),
        ("KnowsItsPlace", "translation", "molecule, moved: 'energy'"),
        ("SeesTheBatch", "batch_independence", "among 6 structures"),
        ("WrongForces", "gradients", "detached from the pair vectors"),
        ("WrongTrainingGradients", "training_gradients", "autograd says"),
        ("ShortSighted", "interaction_range", "the stated interaction range 1 away"),
        ("NoImages", "small_cells", "one crystal in cells of"),
        ("Lonely", "lonely_atoms", "without neighbours is not finite"),
        ("WrongConstants", "constants", "with its constants"),
        ("SinglePrecision", "moves", "scalar type"),
        ("LeavesBehind", "moves", "'table' is a tensor but no parameter or buffer"),
        ("WrongShape", "builds", "a block has shape"),
        ("Unscriptable", "torchscript", "cannot be compiled by TorchScript"),
        ("Unpicklable", "picklable", "cannot be pickled"),
        ("Forgetful", "checkpoints", "neither in the state_dict nor in the hypers"),
        ("CannotLearn", "fits", "of the loss is left"),
        ("ForgetsHeads", "new_targets", "retarget must leave what is trained"),
    ],
)
def test_one_fault_fails_one_check(site: Path, fault: str, check: str, message: str) -> None:
    install(site, "tiny", SOURCE)
    found = failures(tiny(fault), check)
    assert set(found) == {check}, found
    assert message in found[check]
    assert f"Explained in docs/conformance.md#{check.replace('_', '-')}" in found[check]
