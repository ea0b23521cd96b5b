"""The author's guide, followed to the letter: its files are installed, trained, restarted, run."""

from __future__ import annotations

import csv
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import ase.io
import pytest
import torch
from helpers.installing import install
from helpers.processes import atomtrain
from helpers.training import train

from atomtrain.training.checkpoint import load_checkpoint
from atomtrain_testing import run_check
from atomtrain_testing.checks import all_checks
from atomtrain_testing.subject import environment

ROOT = Path(__file__).parent.parent
PROJECT = ROOT / "examples" / "architecture"
GUIDE = (ROOT / "docs" / "authors.md").read_text(encoding="utf-8")
SHORT = "architecture.training.num_epochs"


def blocks() -> dict[str, str]:
    """The guide's code by the name of its file."""
    found = re.findall(r'^```\w+ title="([^"]+)"\n(.*?)^```', GUIDE, re.MULTILINE | re.DOTALL)
    return dict(found)


def commands() -> list[str]:
    """The guide's commands, in order."""
    found = re.findall(r"^```bash\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    return [line for block in found for line in block.splitlines()]


def test_the_guide_shows_the_files_as_they_are() -> None:
    shown = blocks()
    skipped = {"__init__.py", "run_ase.py"}
    files = {
        path.relative_to(PROJECT).as_posix()
        for path in PROJECT.rglob("*")
        if path.suffix in (".py", ".toml", ".yaml") and path.name not in skipped
    }
    assert files == set(shown) - skipped
    for name in files:
        assert (PROJECT / name).read_text(encoding="utf-8") == shown[name], name


def test_at_most_sixty_lines() -> None:
    lines = [
        line
        for path in (PROJECT / "src").rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.strip()
    ]
    assert 0 < len(lines) <= 60
    assert f"in {len(lines)} lines of Python" in GUIDE


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The guide's package, installed by pip into a folder of its own, from nothing but the guide."""
    project = tmp_path_factory.mktemp("project")
    for name, text in blocks().items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text, encoding="utf-8")
    (project / "src" / "atomtrain_moments" / "__init__.py").touch()
    target = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps",
         "--no-build-isolation", "--target", str(target), str(project)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture(scope="module")
def workplace(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the guide's files and a few of copper's cells."""
    folder = tmp_path_factory.mktemp("work")
    for name, text in blocks().items():
        if "/" not in name:
            (folder / name).write_text(text, encoding="utf-8")
    frames = ase.io.read(ROOT / "examples" / "copper" / "copper.xyz", "::10")
    ase.io.write(folder / "copper.xyz", frames)
    return folder


def guided(folder: Path, site: Path, command: str, *more: str) -> str:
    """Run a command of the guide, with the package on the path; returns what it prints."""
    assert command in commands(), f"the guide does not say '{command}'"
    done = atomtrain(folder, *command.split()[1:], *more, site=site)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_it_is_listed(workplace: Path, site: Path) -> None:
    shown = guided(workplace, site, "atomtrain architectures moments")
    assert "atomtrain-moments 0.1.0" in shown
    assert "How far an atom sees" in shown


def test_energies_restart_export_ase(workplace: Path, site: Path) -> None:
    train = "atomtrain train options.yaml"
    log = guided(workplace, site, train, "-r", f"{SHORT}=12", "-r", "seed=1")
    errors = [line for line in log.splitlines() if "final test errors" in line]
    assert re.search(r"energy RMSE .*forces RMSE .*stress RMSE", errors[0])
    first = float(re.findall(r"training loss ([0-9.]+)", log)[0])
    last = float(re.findall(r"training loss ([0-9.]+)", log)[-1])
    assert last < 0.7 * first

    log = guided(workplace, site, f"{train} --restart auto", "-r", f"{SHORT}=14", "-r", "seed=1")
    assert "restarting from 'outputs" in log

    guided(workplace, site, "atomtrain export model.ckpt -o again.pt")
    # with neither atomtrain nor the package
    script = blocks()["run_ase.py"]
    both = script + script.replace("model.pt", "again.pt")
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.modules['atomtrain'] = None\n{both}"],
        cwd=workplace, env=environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    printed = [float(x) for x in re.findall(r"-?\d+\.\d*(?:e-?\d+)?", done.stdout)]
    assert len(printed) == 14
    assert printed[:7] == pytest.approx(printed[7:])


def test_a_classification(workplace: Path, site: Path) -> None:
    assert "python label.py" in commands()
    subprocess.run([sys.executable, "label.py"], cwd=workplace, env=environment(), check=True)
    command = "atomtrain train classify.yaml -o lattice.pt"
    log = guided(workplace, site, command, "-r", f"{SHORT}=2")
    assert "final test errors of the best model: lattice accuracy" in log


def test_the_kit(workplace: Path, site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes are left to the session 'template' of nox: they take as long as all else."""
    monkeypatch.syspath_prepend(str(site))
    file = workplace / "test_conformance.py"
    file.write_text(blocks()["tests/test_conformance.py"], encoding="utf-8")
    spec = importlib.util.spec_from_file_location("guide_conformance", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    mine = module.TestMoments.subject()
    verdicts = [run_check(mine, one.name) for one in all_checks() if one.name != "two_processes"]
    assert [o.message for o in verdicts if o.verdict == "failed"] == []
    assert sum(o.verdict == "passed" for o in verdicts) >= 28


PAGE = ROOT / "docs" / "training.md"


def test_an_optimiser_over_everything_from_its_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The training of one's own in the docs: trained, stopped and restarted, in fewer than sixty lines."""
    text = PAGE.read_text(encoding="utf-8")
    files = re.findall(r'^```python title="([^"]+)"\n(.*?)^```', text, re.MULTILINE | re.DOTALL)
    assert len([line for _, code in files for line in code.splitlines() if line.strip()]) < 60
    site = tmp_path / "site"
    for name, code in files:
        install(site, "lbfgs-moments")
        (site / name).write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(str(PROJECT / "src"))
    training = {"num_stages": 4, "batch_size": 4, "checkpoint_interval": 2}
    section = {"name": "lbfgs-moments", "training": training}

    whole = train(tmp_path, monkeypatch, architecture=section)
    with open(whole.directory / "train.csv", encoding="utf-8") as file:
        losses = [float(row["training loss"]) for row in csv.DictReader(file)]
    assert losses == sorted(losses, reverse=True) and losses[-1] < 0.7 * losses[0]
    restarted = train(
        tmp_path,
        monkeypatch,
        architecture=section,
        restart=str(whole.directory / "model_2.ckpt"),
    )
    ends = [load_checkpoint(r.directory / "model.ckpt")["model"] for r in (whole, restarted)]
    for which in ("last", "best"):
        for name, value in ends[0][which].items():
            assert torch.equal(ends[1][which][name], value), name
