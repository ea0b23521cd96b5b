"""The conformance kit: what an architecture must be able to do, as tests its author runs.

An author subclasses one class; pytest finds the tests in it::

    from atomtrain_testing import ArchitectureTests

    class TestMyArch(ArchitectureTests):
        architecture = "my-arch"
        model_hypers = {"width": 8}

``atomtrain check my-arch`` runs the same checks without pytest. A check is a plain function of a
:class:`Subject`; they are grouped by theme in ``contract`` (what the plugin declares, and the bare
model), ``physics``, ``symmetries``, ``exported``, ``life_cycle`` and ``own_training``. Structures and labels are made
here. What a failing check says ends with its section of ``docs/conformance.md``. No architecture is named here.
"""

from atomtrain_testing import contract, exported, life_cycle, own_training, physics, symmetries
from atomtrain_testing.checks import (
    CHECKS,
    Check,
    ConformanceError,
    NotApplicable,
    Outcome,
    all_checks,
    run_all,
    run_check,
)
from atomtrain_testing.examples import Example
from atomtrain_testing.from_files import known, subject_from
from atomtrain_testing.golden import write_golden
from atomtrain_testing.pytest_class import ArchitectureTests
from atomtrain_testing.subject import Subject

__version__ = "0.1.0"

__all__ = [
    "CHECKS",
    "ArchitectureTests",
    "Check",
    "ConformanceError",
    "Example",
    "NotApplicable",
    "Outcome",
    "Subject",
    "all_checks",
    "contract",
    "exported",
    "known",
    "life_cycle",
    "own_training",
    "physics",
    "run_all",
    "run_check",
    "subject_from",
    "symmetries",
    "write_golden",
]
