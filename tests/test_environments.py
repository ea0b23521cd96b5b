"""Architectures that live in an environment of their own: one command line for all, and how it ends."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.installing import install
from helpers.processes import atomtrain
from typer.testing import CliRunner

from atomtrain import __version__
from atomtrain.cli.app import app
from atomtrain.contract import environments
from atomtrain.contract.environments import OtherEnvironment
from atomtrain.errors import AtomtrainError, PluginError
from atomtrain.runs import plan
from atomtrain.training.checkpoint import Checkpoints
from atomtrain_testing.subject import environment

pytestmark = pytest.mark.skipif(os.name == "nt", reason="environments here are shell scripts")
FAR = {"name": "far", "distribution": "atomtrain-far", "version": "3.1", "stage": "experimental",
       "summary": "what is far away", "aliases": ["farther"]}  # fmt: skip
OFFER = {"atomtrain": __version__, "architectures": [FAR], "commands": ["go-far"]}
OPTIONS = {
    "architecture": {"name": "far"},
    "training_set": {
        "systems": {"read_from": "h2.xyz", "length_unit": "angstrom"},
        "targets": {"energy": {"key": "energy", "unit": "eV"}},
    },
    "validation_set": 2,
}
HERE = os.pathsep.join(path for path in sys.path if path)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, and a folder to work in."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("ATOMTRAIN_ENVIRONMENT", raising=False)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def script(folder: Path, text: str) -> Path:
    """An environment whose Python is this shell script."""
    (folder / "bin").mkdir(parents=True)
    python = folder / "bin" / "python"
    python.write_text(f"#!/bin/sh\n{text}\n")
    python.chmod(0o755)
    return folder


def offering(folder: Path, then: str = "exit 0", offer: object = OFFER) -> Path:
    """One that says what it offers, and does ``then`` for any other command."""
    listing = f'case "$*" in *--json*) echo {shlex.quote(json.dumps(offer))}; exit 0;; esac'
    return script(folder, f"{listing}\n{then}")


def write_options(**architecture: str) -> None:
    Path("options.yaml").write_text(json.dumps({"architecture": {"name": "far", **architecture}}))


def started(*arguments: str) -> subprocess.Popen[str]:
    """The command line as users start it, in a process of its own; it imports no torch to find an environment."""
    return subprocess.Popen(
        [sys.executable, "-m", "atomtrain", *arguments], env=environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def eventually(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not true():
        assert time.monotonic() < until
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether a process runs; one that is over and that nobody has asked for is none."""
    status = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return bool(status.stdout.strip()) and "Z" not in status.stdout


def test_registered_environments_are_listed(home: Path) -> None:
    there = offering(home / "there")
    run = CliRunner().invoke
    assert "far" not in run(app, ["architectures"]).output
    done = run(app, ["architectures", "--add-environment", str(there)])
    assert done.exit_code == 0 and f"registered: {there} (far)" in done.output
    run(app, ["architectures", "--add-environment", str(there)])
    assert environments.registered() == [there]
    listed = run(app, ["architectures"], env={"COLUMNS": "300"}).output
    own, _, others = listed.partition(f"in the environment {there}")
    assert "soap-bpnn" in own and "far" not in own
    assert "atomtrain-far" in others and "what is far away" in others
    told = json.loads(run(app, ["architectures", "--json"]).output)  # of this environment alone
    assert "soap-bpnn" in [one["name"] for one in told["architectures"]]
    assert "far" not in [one["name"] for one in told["architectures"]]
    assert told["atomtrain"] == __version__ and "schema" in told["commands"]
    done = run(app, ["architectures", "--remove-environment", str(there)])
    assert done.exit_code == 0 and environments.registered() == []
    with pytest.raises(PluginError, match="not registered"):
        environments.forget(there)


def test_an_environment_that_broke_is_a_row_and_no_obstacle(home: Path) -> None:
    environments.register(offering(home / "there"))
    (home / "there" / "bin" / "python").unlink()
    done = CliRunner().invoke(app, ["architectures"], env={"COLUMNS": "300"})
    assert done.exit_code == 0 and "broken" in done.output and "no bin/python" in done.output
    with pytest.raises(PluginError, match="not installed"):
        plan(OPTIONS)


WRONG = {
    "absent": (None, "is no Python environment: there is no bin/python"),
    "no atomtrain": (
        "echo 'No module named atomtrain' >&2; exit 1",
        f"pip install atomtrain=={__version__}",
    ),
    "older": ("echo 'No such option: --json' >&2; exit 2", r"No such option: --json.*see what"),
    "other version": (
        f"echo {shlex.quote(json.dumps({**OFFER, 'atomtrain': '7.0'}))}",
        f"has atomtrain 7.0, and this is {__version__}; install the same: .*bin/python -m pip",
    ),
    "without it": (
        f"echo {shlex.quote(json.dumps({**OFFER, 'architectures': [{**FAR, 'name': 'near', 'aliases': []}]}))}",
        r"no architecture 'far' \(it has: near\).*pip install atomtrain-far",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_an_environment_is_said_before_any_work(home: Path, case: str) -> None:
    text, message = WRONG[case]
    if text is not None:
        script(home / "there", text)
    wanted = {"name": "far", "environment": str(home / "there")}
    with pytest.raises(PluginError, match=message) as caught:
        plan({**OPTIONS, "architecture": wanted})
    assert "architecture.environment" in str(caught.value)
    assert not isinstance(caught.value, OtherEnvironment)


def test_python_is_told_where_an_architecture_is(home: Path) -> None:
    there = offering(home / "there")
    with pytest.raises(
        OtherEnvironment, match=r"from Python, use that environment's: .*bin/python"
    ):
        plan({**OPTIONS, "architecture": {"name": "far", "environment": str(there)}})
    with pytest.raises(PluginError, match="'far' is not installed"):
        plan(OPTIONS)
    environments.register(there)
    for name in ("far", "farther"):
        with pytest.raises(OtherEnvironment):
            plan({**OPTIONS, "architecture": {"name": name}})
    same = {"name": "soap-bpnn", "environment": sys.prefix}
    assert plan({**OPTIONS, "architecture": same}).options.architecture.environment == sys.prefix


def test_a_model_inside_another_is_looked_for_too(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A classifier, or uncertainties, of a model whose architecture is elsewhere: before data are read."""
    monkeypatch.setattr(Checkpoints, "open", lambda self, path: {"architecture": FAR})
    around = {"name": "llpr", "training": {"model_checkpoint": "far.ckpt"}}
    planned = plan({**OPTIONS, "architecture": around})
    with pytest.raises(PluginError, match=r"model_checkpoint.*'far' is not installed"):
        planned.open_checkpoints()
    there = offering(home / "there")
    environments.register(there)
    with pytest.raises(OtherEnvironment, match=r"model_checkpoint.*is in the environment") as met:
        planned.open_checkpoints()
    assert met.value.environment == there


def test_what_is_missing_there_is_said_to_be_missing_there(home: Path) -> None:
    there = offering(home / "there", "echo 'error: no such thing' >&2; exit 1")
    write_options(environment=str(there))
    output, _ = started("train", "options.yaml").communicate(timeout=60)
    first, second = output.strip().splitlines()
    assert first == "error: no such thing"
    assert f"this ran in the environment '{there}', which has architecture 'far'" in second


def test_a_command_runs_there_as_it_was_given(home: Path) -> None:
    said = 'echo "$*; $PYTHONPATH; $PYTHONSAFEPATH; $ATOMTRAIN_ENVIRONMENT"; exit 7'
    there = offering(home / "there", said)
    environments.register(there)
    write_options()
    for arguments in (["train", "options.yaml", "-r", "seed=1"], ["go-far", "--fast"]):
        child = started(*arguments)
        output, _ = child.communicate(timeout=60)
        assert child.returncode == 7
        assert output.strip() == f"-m atomtrain {' '.join(arguments)}; ; 1; {there}"


@pytest.mark.parametrize("name", ["KILL", "SEGV"])
def test_a_command_that_is_killed_says_so(home: Path, name: str) -> None:
    there = offering(
        home / "there", f"mkdir -p outputs/a/b; echo > outputs/a/b/train.log; kill -{name} $$"
    )
    write_options(environment=str(there))
    child = started("train", "options.yaml")
    output, _ = child.communicate(timeout=60)
    number = signal.Signals[f"SIG{name}"]
    assert child.returncode == 128 + number
    assert f"ended in the environment '{there}' by SIG{name}" in output
    assert ("memory ran out" in output) == (name == "KILL")
    assert "Its log until then: outputs/a/b/train.log. To go on, add --restart auto" in output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_both_and_comes_once(home: Path, number: signal.Signals) -> None:
    waits = "while true; do sleep 0.05; done"
    trap = 'trap "echo INT; sleep 0.2; exit 130" INT; trap "echo TERM; sleep 0.2; exit 130" TERM'
    there = offering(home / "there", f"{trap}; echo $$ > pid; {waits}")
    write_options(environment=str(there))
    parent = started("train", "options.yaml")
    eventually(lambda: Path("pid").exists() and Path("pid").read_text().strip() != "")
    parent.send_signal(number)
    output, _ = parent.communicate(timeout=60)
    assert parent.returncode == 130 and output.split() == [number.name.removeprefix("SIG")]
    assert not alive(int(Path("pid").read_text()))


def test_a_child_stops_when_its_parent_is_killed(home: Path) -> None:
    code = (
        "import os, pathlib, time; from atomtrain.contract import environments as e; e.stop_with_parent(); "
        "pathlib.Path('made').write_text(str(os.getpid())); os.rename('made', 'pid'); time.sleep(60)"
    )
    python = (
        f"PYTHONPATH={shlex.quote(HERE)} exec {shlex.quote(sys.executable)} -c {shlex.quote(code)}"
    )
    write_options(environment=str(offering(home / "there", python)))
    parent = started("train", "options.yaml")
    eventually(lambda: Path("pid").exists())
    pid = int(Path("pid").read_text())
    assert alive(pid)
    parent.kill()
    parent.communicate(timeout=60)
    eventually(lambda: not alive(pid))


def test_training_and_export_of_another_environment(home: Path) -> None:
    """An architecture that only the other environment has: trained, restarted and exported from here."""
    site = home / "site"
    made_up = Path(__file__).parent / "made_up"
    install(site, "tiny", target="tiny_arch", version="1.2")
    path = os.pathsep.join([str(site), str(made_up), HERE])
    python = f'PYTHONPATH={shlex.quote(path)} exec {shlex.quote(sys.executable)} "$@"'
    there = script(home / "there", python)
    lines = [
        f'2\nProperties=species:S:1:pos:R:3 energy={k} pbc="F F F"\nH 0 0 0\nH 0 0 {0.7 + 0.1 * k}'
        for k in range(8)
    ]
    Path("h2.xyz").write_text("\n".join(lines) + "\n")
    quick = {"num_epochs": 1, "batch_size": 4}
    options = {**OPTIONS, "architecture": {"name": "tiny", "training": quick}, "final_eval": False}
    Path("options.yaml").write_text(json.dumps(options))
    before = atomtrain(Path.cwd(), "train", "options.yaml")
    assert before.returncode == 1 and "architecture 'tiny' is not installed" in before.stderr
    environments.register(there)
    done = atomtrain(Path.cwd(), "train", "options.yaml")
    assert done.returncode == 0, done.stderr
    assert all(Path(name).is_file() for name in ("model.pt", "model.ckpt"))
    assert len(list(Path("outputs").glob("*/*/train.log"))) == 1
    Path("model.pt").unlink()
    done = atomtrain(
        Path.cwd(), "export", "model.ckpt"
    )  # it is the checkpoint that names the architecture
    assert done.returncode == 0 and Path("model.pt").is_file(), done.stderr
    with pytest.raises(AtomtrainError, match="architecture 'tiny' is in the environment"):
        import atomtrain as package

        package.load("model.ckpt")
