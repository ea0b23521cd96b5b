"""Sessions: ``tests`` (what CI runs), ``lint``, ``types``; each in an environment of its own."""

from __future__ import annotations

import nox

nox.options.sessions = ["lint", "types", "tests"]
nox.options.error_on_missing_interpreters = False

CONSTRAINTS = ("-c", "constraints.txt")
DISTRIBUTIONS = (
    "./core[symmetry]",
    "./plugins/soap-bpnn[long-range]",
    "./plugins/wandb",
    "./plugins/tensorboard",
)


@nox.session
def tests(session: nox.Session) -> None:
    """All tests, on the packages installed as users install them."""
    session.install(*CONSTRAINTS, *DISTRIBUTIONS, "pytest", "jsonschema", "metatomic-ase")
    session.run("pytest", *session.posargs, env={"OMP_WAIT_POLICY": "PASSIVE"})


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
