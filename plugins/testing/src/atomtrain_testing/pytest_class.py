"""The class an author subclasses: one test per check, and nothing else.

pytest itself is not imported: it takes ``unittest.SkipTest`` for a skipped test.
"""

from __future__ import annotations

import inspect
import unittest
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from atomtrain_testing import (  # noqa: F401 (their checks enter the list)
    contract,
    exported,
    life_cycle,
    own_training,
    physics,
    symmetries,
)
from atomtrain_testing.checks import Check, all_checks, run_check
from atomtrain_testing.examples import Example
from atomtrain_testing.subject import Subject


class ArchitectureTests:
    """Subclass it as ``TestMine``, say which ``architecture``, and give it small hypers.

    The attributes are those of :class:`Subject`. ``golden`` is the folder ``golden`` beside the
    test file unless it is set.
    """

    architecture: ClassVar[str] = ""
    model_hypers: ClassVar[Mapping[str, Any]] = {}
    training_hypers: ClassVar[Mapping[str, Any]] = {}
    atomic_types: ClassVar[tuple[int, ...]] = (1, 6, 8)
    energy_conservative: ClassVar[bool] = True
    equivariant: ClassVar[bool] = True
    tolerance: ClassVar[float] = 1e-8
    fit_epochs: ClassVar[int] = 300
    fit_ratio: ClassVar[float] = 0.02
    dtypes: ClassVar[tuple[str, ...]] = ()
    golden: ClassVar[str | Path | None] = None
    exempt: ClassVar[Mapping[str, str]] = {}
    examples: ClassVar[Mapping[str, Sequence[Example]]] = {}

    @classmethod
    def subject(cls) -> Subject:
        """What is tested, made once for the class. Override it to prepare hypers in code."""
        if "_subject" not in cls.__dict__:
            golden = cls.golden or Path(inspect.getfile(cls)).parent / "golden"
            made = Subject(
                cls.architecture,
                cls.model_hypers,
                cls.training_hypers,
                atomic_types=cls.atomic_types,
                energy_conservative=cls.energy_conservative,
                equivariant=cls.equivariant,
                tolerance=cls.tolerance,
                fit_epochs=cls.fit_epochs,
                fit_ratio=cls.fit_ratio,
                dtypes=cls.dtypes,
                golden=Path(golden),
                exempt=cls.exempt,
                examples=cls.examples,
            )
            cls._subject = made  # type: ignore[attr-defined]
        found: Subject = cls._subject  # type: ignore[attr-defined]
        return found


def _test(one: Check) -> Callable[[ArchitectureTests], None]:
    def test(self: ArchitectureTests) -> None:
        __tracebackhide__ = True  # the message says it all
        outcome = run_check(self.subject(), one.name)
        if outcome.verdict == "skipped":
            raise unittest.SkipTest(outcome.message)
        if outcome.error is not None:
            raise outcome.error

    test.__name__ = f"test_{one.name}"
    test.__doc__ = one.summary
    return test


for _one in all_checks():
    setattr(ArchitectureTests, f"test_{_one.name}", _test(_one))
