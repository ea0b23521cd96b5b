"""Architectures of different distributions, really installed side by side, and one taken away."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from atomtrain_template.render import render
from atomtrain_testing.subject import environment

TRAIN = """
import sys, atomtrain
for name in sys.argv[1:]:
    atomtrain.train("options.yaml", output=f"{name}.pt", overrides=[
        f"architecture.name={name}", "architecture.training.num_epochs=2",
        "architecture.model.n_channels=4", "final_eval.report=false"])
"""
RESTART = """
import atomtrain
from pathlib import Path
from atomtrain.errors import PluginError

def said(function, *args, **kwargs):
    try:
        function(*args, **kwargs)
    except PluginError as error:
        return str(error)

print("gone:", said(atomtrain.export, "goes-away.ckpt", output="again.pt"))
print("load:", said(atomtrain.load, "goes-away.ckpt"))
print("show:", atomtrain.show("goes-away.ckpt")["architecture"]["name"])
Path("eval.yaml").write_text("systems: alloy.xyz\\ntargets: {energy: {key: energy, unit: eV}}\\n")
print("eval:", len(atomtrain.evaluate("goes-away.pt", "eval.yaml", output=None)))

atomtrain.export("stays.ckpt", output="again.pt")
more = ["architecture.name=stays", "architecture.training.num_epochs=3",
        "architecture.model.n_channels=4", "final_eval.report=false"]
done = atomtrain.train("options.yaml", output="more.pt", overrides=more, restart="stays.ckpt")
print("restarted:", done.checkpoint)
"""

# what is on the path here must not stand in for what is installed there
ALONE = environment(PYTHONPATH=os.environ.get("PYTHONPATH", ""))


class Environment:
    """A virtual environment that also finds what is installed here."""

    def __init__(self, folder: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
        self.python = folder / "bin" / "python"
        own = self.run("-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
        # addsitedir, not the bare path: what is installed in place has .pth files of its own
        (Path(own) / "here.pth").write_text(
            f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
        )

    def run(self, *arguments: str, cwd: Path | None = None) -> str:
        """What a command of this Python prints."""
        done = subprocess.run(
            [str(self.python), *arguments],
            cwd=cwd, env=ALONE, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def pip(self, *arguments: str) -> None:
        """Run the pip from here on it."""
        done = subprocess.run(
            [sys.executable, "-m", "pip", "--python", str(self.python), *arguments,
             "-q", "--disable-pip-version-check"],
            capture_output=True, text=True, env=ALONE,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


@pytest.mark.skipif(os.name == "nt", reason="the folders of an environment are called otherwise")
def test_two_distributions_and_one_uninstalled(tmp_path: Path) -> None:
    here = Environment(tmp_path / "venv")
    projects = [render("stays", output=tmp_path), render("goes-away", output=tmp_path)]
    here.pip("install", "--no-deps", "--no-build-isolation", *map(str, projects))
    work = projects[0] / "example"
    here.run("-c", TRAIN, "stays", "goes-away", cwd=work)
    listed = here.run("-m", "atomtrain", "architectures")
    assert "stays" in listed and "goes-away" in listed

    here.pip("uninstall", "-y", "atomtrain-goes-away")
    listed = here.run("-m", "atomtrain", "architectures")
    assert "stays" in listed and "goes-away" not in listed
    printed = here.run("-c", RESTART, cwd=work)
    said = dict(line.split(": ", 1) for line in printed.splitlines() if line[:1].islower())
    for what in ("gone", "load"):
        assert "architecture 'goes-away' is not installed" in said[what]
        assert "'pip install atomtrain-goes-away'" in said[what]
    assert said["show"] == "goes-away"  # what it is can be read without it
    assert said["eval"] == "1"  # and the exported model runs
    assert said["restarted"] == "more.ckpt"
