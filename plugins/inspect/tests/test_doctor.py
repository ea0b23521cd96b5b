"""``atomtrain doctor``: what is broken is found and named, with what to do."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from helpers.installing import install
from typer.testing import CliRunner

from atomtrain_inspect import machine
from atomtrain_inspect.doctor import app
from atomtrain_inspect.machine import Check, examined


def of(checks: list[Check], status: str, topic: str = "") -> list[str]:
    return [c.text for c in checks if c.status == status and topic in ("", c.topic)]


def test_a_sound_machine(tmp_path: Path) -> None:
    checks = list(examined(tmp_path / "outputs", measure=False))
    assert {c.topic for c in checks} == {
        "versions",
        "plugins",
        "devices",
        "threads",
        "disk",
        "engines",
    }
    assert not of(checks, "broken")
    assert not (tmp_path / "outputs").exists() and not list(tmp_path.iterdir())


def test_plugins_that_do_not_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "falls-over", "import nothing_of_this_name")
    install(tmp_path, "first", "", "atomtrain.commands", entry="greet", target="json:dumps")
    install(tmp_path, "second", "", "atomtrain.commands", entry="greet", target="json:loads")
    monkeypatch.syspath_prepend(str(tmp_path))
    done = CliRunner().invoke(app, ["--quick", "--json", "--outputs", str(tmp_path)])
    assert done.exit_code == 1
    found = json.loads(done.output)
    said = [c["text"] for c in found["checks"] if c["status"] == "broken"]
    assert found["broken"] == len(said) == 2
    assert (
        "'falls-over' of falls-over 1.0 cannot be loaded" in said[0] and "reinstall it" in said[0]
    )
    assert "'greet' is offered by first 1.0 and by second 1.0: uninstall all but one" in said[1]


def test_requirements_that_are_not_met(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = "\nRequires-Dist: ".join(["numpy<1.0", "not-there>=2", "either ; extra == 'more'"])
    install(tmp_path, "wants-more", "app = None", "atomtrain.commands", requires=wanted)
    monkeypatch.syspath_prepend(str(tmp_path))
    said = " ".join(text for status, text in machine.versions() if status == "broken")
    assert "wants-more needs numpy <1.0, and" in said and "needs not-there, which is not" in said
    assert "either" not in said


def test_threads_and_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert machine._quota(tmp_path) == 1.5
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert machine._quota(tmp_path) == 0.0 == machine._quota(tmp_path / "none")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    assert machine.cores()[0] == 1.0

    monkeypatch.setattr(machine, "cores", lambda: (0.4, "a container has"))
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    took = {"": 0.1, "OMP_WAIT_POLICY": 0.05, "OMP_NUM_THREADS": 0.01}
    monkeypatch.setattr(machine, "_step", lambda more: took[next(iter(more), "")])
    (first, text), (second, advice) = machine.threads(True)
    assert first == second == "warning" and "set OMP_NUM_THREADS=1" in text
    assert "100 ms as it is, 50 ms with" in advice and "set OMP_NUM_THREADS=1 here" in advice
    took |= {"OMP_WAIT_POLICY": 0.09, "OMP_NUM_THREADS": 0.09}
    assert "leave it" in list(machine.threads(True))[1][1]
    took |= {"": None}
    status, advice = list(machine.threads(True))[1]
    assert status == "warning" and "could not be timed as it is" in advice
    assert "with OMP_NUM_THREADS=1 it takes 90 ms" in advice and "e+04" not in advice


def test_a_disk_that_takes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> float:
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(machine, "_speed", refused)
    checks = list(examined(tmp_path / "outputs", measure=False))
    assert all("cannot be written to" in text for text in of(checks, "broken", "disk"))
    monkeypatch.setattr(machine, "devices", lambda: iter([1 / 0]))
    assert "could not be looked at" in of(list(examined(tmp_path, measure=False)), "broken")[0]
