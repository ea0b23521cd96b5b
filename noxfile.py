"""Sessions: ``tests`` (what CI runs), ``lint``, ``types``, ``docs``; each in its own environment."""

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
TESTING = ("pytest", "jsonschema", "mkdocs-material", "metatomic-ase")


@nox.session
def tests(session: nox.Session) -> None:
    """All tests, on the packages installed as users install them."""
    session.install(*CONSTRAINTS, *DISTRIBUTIONS, *TESTING)
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


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation site, in ``site/``; a warning is an error."""
    session.install(*CONSTRAINTS, *DISTRIBUTIONS, "mkdocs-material")
    # a notice of the theme's authors about other generators is no warning about these pages
    session.run("mkdocs", "build", *session.posargs, env={"NO_MKDOCS_2_WARNING": "1"})
