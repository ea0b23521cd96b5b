"""What is rendered is a project: complete, importable, and its model does what its level says.

Its own tests, lint and types are run in an environment of their own by ``nox -s template``.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import atomtrain
from atomtrain.contract import BuildContext
from atomtrain.errors import CheckpointError, DataError, OptionsError
from atomtrain.plugins import open_architecture
from atomtrain.plugins.restore import restore
from atomtrain_template.names import LEVELS
from atomtrain_template.render import TEMPLATE
from atomtrain_testing import Subject, run_check, write_golden

SMALL: dict[str, Any] = {"cutoff": 4.0, "n_radial": 4, "n_channels": 4}
DESCRIPTOR = {"descriptor.py"}
NOT_NEEDED = {
    "features": {"interruption"},
    "potential": {"interruption", "new_targets"},
    "predictions": {"interruption"},
    "trainer": set(),
    "fit": {"training_gradients", "finetune", "new_targets", "new_elements"},
    "wrapper": {"interruption", "new_elements"},
}
"""checks that have nothing to look at"""


@pytest.mark.parametrize("level", LEVELS)
def test_files(projects: dict[str, Path], level: str) -> None:
    project = projects[level]
    found = {p.relative_to(project).as_posix() for p in project.rglob("*") if p.is_file()}
    source = f"src/atomtrain_own_{level}"
    modules = {"__init__.py", "hypers.py", "model.py", "plugin.py", "py.typed", "upgrades.py"}
    modules |= {
        "trainer": DESCRIPTOR | {"trainer.py"},
        "fit": DESCRIPTOR | {"trainer.py"},
        "wrapper": set(),
    }.get(level, DESCRIPTOR)
    example = {"alloy.xyz", "make_alloy.py", "options.yaml"}
    assert found == {
        ".github/workflows/ci.yml",
        ".gitignore",
        "CHANGELOG.md",
        "LICENSE",
        "README.md",
        f"docs/own-{level}.md",
        "pyproject.toml",
        "tests/test_conformance.py",
        "tests/test_example.py",
        "tests/test_upgrades.py",
        *({"tests/test_trainer.py"} if level == "fit" else ()),
        *(f"{source}/{name}" for name in modules),
        *(f"example/{name}" for name in example | ({"backbone.yaml"} & _only(level, "wrapper"))),
    }
    for name in found - {"example/alloy.xyz"}:
        text = (project / name).read_text()
        assert "cookiecutter" not in text and "{%" not in text, name
        assert not re.search("moments?\\b", text, re.IGNORECASE), name  # the guide's example
        if name != ".github/workflows/ci.yml":  # GitHub has braces of its own
            assert "{{" not in text, name
        assert text == text.rstrip("\n") + "\n" * bool(text), f"{name} ends otherwise"
        if name.endswith(".py"):
            compile(text, name, "exec")
            assert max(map(len, text.splitlines()), default=0) <= 100, name
    assert (
        f'own-{level} = "atomtrain_own_{level}.plugin"' in (project / "pyproject.toml").read_text()
    )
    assert '"atomtrain-testing' in (project / "pyproject.toml").read_text()  # the kit of its tests
    assert "Ada Example" in (project / "LICENSE").read_text()


def _only(level: str, which: str) -> set[str]:
    return {"backbone.yaml"} if level == which else set()


def test_the_shipped_data_are_those_of_the_script(projects: dict[str, Path]) -> None:
    import ase.io

    names: dict[str, Any] = {"__name__": "make_alloy"}
    exec((projects["features"] / "example" / "make_alloy.py").read_text(), names)
    shipped = ase.io.read(projects["features"] / "example" / "alloy.xyz", 5)
    made = names["alloy"](5)
    assert str(shipped.symbols) == str(made.symbols)
    assert shipped.positions == pytest.approx(made.positions, abs=1e-6)
    assert shipped.get_potential_energy() == pytest.approx(made.get_potential_energy())


def subject(level: str, folder: Path) -> Subject:
    """What the kit is to test, small; the wrapper builds on the project of level ``features``."""
    name = f"own-{level}"
    if level != "wrapper":
        return Subject(name, SMALL)
    backbone = write_golden(Subject("own-features", SMALL), folder)
    return Subject(name, {"n_channels": 4}, {"backbone": str(backbone)})


@pytest.mark.parametrize("level", LEVELS)
def test_some_of_the_kit(installed: dict[str, Path], level: str, tmp_path: Path) -> None:
    """The whole of it takes a minute a level."""
    mine = subject(level, tmp_path)
    info = mine.architecture.info
    assert info.authors[0].email == "ada@example.org"
    for name in (
        "hypers_documented",
        "training_gradients",
        "rotation",
        "export",
        "checkpoints",
        "restart",
        "finetune",
        "new_targets",
        "new_elements",
        "interruption",
    ):
        outcome = run_check(mine, name)
        if name in NOT_NEEDED[level]:
            assert outcome.verdict == "skipped", outcome.message
        else:
            assert outcome.verdict == "passed", outcome.message


@pytest.mark.parametrize(
    ("level", "tensors"),
    [("features", {"dipole", "vectors"}), ("predictions", {"dipole", "vectors", "matrix"})],
)
def test_vectors_and_matrices(installed: dict[str, Path], level: str, tensors: set[str]) -> None:
    """What two levels show beyond scalars."""
    mine = Subject(f"own-{level}", SMALL)
    wanted = {"energy", "mtt::scalars", "mtt::charges", *(f"mtt::{name}" for name in tensors)}
    assert set(mine.predictors) == wanted
    for check in ("rotation", "target_kinds"):
        outcome = run_check(mine, check)
        assert outcome.verdict == "passed", outcome.message


def test_the_waiting_step(installed: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Version 2 needs no more than the number and the step's body."""
    from atomtrain_own_features import upgrades

    monkeypatch.setattr(upgrades, "MODEL_VERSION", 2)
    monkeypatch.setitem(
        upgrades.STEPS,
        ("model", 1),
        lambda c: upgrades.with_weights(c, lambda w: {f"new.{k}": v for k, v in w.items()}),
    )
    old = {
        "architecture": {"model_version": 1, "trainer_version": 1},
        "model": {"last": {"a": 1}, "best": None},
    }
    upgraded = open_architecture("own-features").upgrade_checkpoint(old)
    assert upgraded["model"] == {"last": {"new.a": 1}, "best": None}
    monkeypatch.setattr(upgrades, "TRAINER_VERSION", 2)
    with pytest.raises(CheckpointError, match="version 1 of the trainer cannot be upgraded"):
        open_architecture("own-features").upgrade_checkpoint(old)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_one_is_trained(
    installed: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrapper, on a model of level ``trainer`` that was trained just before."""
    for name in ("alloy.xyz", "options.yaml"):
        shutil.copy(installed["wrapper"] / "example" / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    short = ["architecture.training.num_epochs=3"]
    shutil.copy(installed["trainer"] / "example" / "options.yaml", "backbone.yaml")
    atomtrain.train("backbone.yaml", output="backbone.pt", overrides=short)
    result = atomtrain.train("options.yaml", overrides=short)
    assert set(result.errors["test"]) == {"energy", "energy:forces", "energy:strain"}

    from atomtrain.training.checkpoint import load_checkpoint

    checkpoint = load_checkpoint("model.ckpt")
    assert checkpoint["embedded"]["backbone"]["architecture"]["name"] == "own-trainer"
    assert not any(name.startswith("backbone") for name in checkpoint["model"]["last"])
    Path("backbone.ckpt").unlink()  # it is inside
    atomtrain.export("model.ckpt", output="again.pt")


def test_a_wrapper_without_its_model(installed: dict[str, Path], tmp_path: Path) -> None:
    """Every way the backbone can be wrong is said."""
    mine = subject("wrapper", tmp_path)
    info = mine.info(mine.main)

    def build(info: Any = info, checkpoint: Any = None, **hypers: Any) -> Any:
        context = BuildContext("train", mine.trainer_hypers(**hypers), checkpoint, restore)
        return mine.architecture.build_model(mine.hypers(), info, context)

    with pytest.raises(OptionsError, match=r"training.backbone: give the path of a trained model"):
        build(backbone=None)
    with pytest.raises(
        CheckpointError, match=r"training.backbone: there is no checkpoint 'x.ckpt'"
    ):
        build(backbone="x.ckpt")
    gold = type(info)(info.length_unit, (1, 79), info.targets)
    with pytest.raises(DataError, match=r"atomic numbers \[1, 6, 8\], the data also have \[79\]"):
        build(gold)
    nanometres = type(info)("nm", info.atomic_types, info.targets)
    with pytest.raises(DataError, match="was trained in 'angstrom', the data are in 'nm'"):
        build(nanometres)
    with pytest.raises(CheckpointError, match="has no model 'backbone' inside it"):
        build(checkpoint={})
    model = build()
    assert not any(p.requires_grad for p in model.backbone.parameters())
    assert not any(k.startswith("backbone") for k in model.state_dict())
    model.load_state_dict(model.state_dict())
    assert not model.train().backbone.model.training
    assert torch.is_tensor(next(iter(model.state_dict().values())))


def test_the_template_is_cookiecutters_too() -> None:
    """``cookiecutter <folder>`` offers the same levels and licences as the command."""
    import json

    from atomtrain_template.names import LICENSES

    offered = json.loads((TEMPLATE / "cookiecutter.json").read_text())
    assert offered["level"] == list(LEVELS)
    assert offered["license"] == list(LICENSES)
    assert {p.stem for p in (TEMPLATE / "templates" / "licenses").iterdir()} == set(LICENSES)
    assert {p.stem for p in (TEMPLATE / "templates" / "model").iterdir()} == set(LEVELS)
