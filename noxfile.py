"""Sessions: ``tests`` (what CI runs), ``lint``, ``types``, ``docs``, ``template``; each in its own
environment.

``template`` takes many minutes and is not among the sessions CI runs: every level of the template, and
the architecture of the author's guide, as a stranger would have them: installed, tested, linted, typed,
trained.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import nox

nox.options.sessions = ["lint", "types", "tests"]
nox.options.error_on_missing_interpreters = False

CONSTRAINTS = ("-c", "constraints.txt")
DISTRIBUTIONS = (
    "./core[symmetry]",
    "./plugins/soap-bpnn[long-range]",
    "./plugins/classifier",
    "./plugins/wandb",
    "./plugins/tensorboard",
    "./plugins/template",
)
TESTING = (
    "pytest",
    "pytest-xdist",
    "jsonschema",
    "mkdocs-material",
    "metatomic-ase",
    "hatchling",
    "import-linter",
)


LEVELS = ("features", "potential", "predictions", "trainer", "wrapper")


@nox.session
def tests(session: nox.Session) -> None:
    """All tests, on the packages installed as users install them."""
    session.install(*CONSTRAINTS, *DISTRIBUTIONS, *TESTING)
    # most tests keep one core busy; worksteal, because a few of them take a minute
    shared = ("-n", "2", "--dist", "worksteal")
    session.run("pytest", *shared, *session.posargs, env={"OMP_WAIT_POLICY": "PASSIVE"})


@nox.session
def lint(session: nox.Session) -> None:
    """Style and common mistakes."""
    session.install("ruff==0.17.5")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Static types of the core and the plugins."""
    session.install(*CONSTRAINTS, *DISTRIBUTIONS, "mypy", "types-PyYAML", "nox")
    session.run("mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation site, in ``site/``; a warning is an error."""
    session.install(*CONSTRAINTS, *DISTRIBUTIONS, "mkdocs-material")
    # a notice of the theme's authors about other generators is no warning about these pages
    session.run("mkdocs", "build", *session.posargs, env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session
def template(session: nox.Session) -> None:
    """All levels of the template and the guide's architecture, with all their own tests."""
    session.install(*CONSTRAINTS, *DISTRIBUTIONS, "pytest", "metatomic-ase", "ruff==0.17.5", "mypy")
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
