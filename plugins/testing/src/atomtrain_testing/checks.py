"""What a check is, the list of all, and how one is run.

A check is a function of a :class:`~atomtrain_testing.subject.Subject` that returns nothing, raises
:class:`ConformanceError` with what is wrong, or :class:`NotApplicable` where it has nothing to look
at. It names the checks that must pass for it to mean anything: where one of those fails it is
skipped, so that one mistake is one failure.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

if TYPE_CHECKING:
    from atomtrain_testing.subject import Subject

Function = Callable[["Subject"], None]


class ConformanceError(AssertionError):
    """An architecture does not do what every architecture must; the message says what."""


class NotApplicable(Exception):
    """A check has nothing to look at in this architecture; the message says why."""


@dataclass(frozen=True)
class Check:
    """One check: its name, function and prerequisites.

    The function's docstring says what is asked, in a line, and below what usually stands in the way and what to
    do. The latter is its section in ``docs/conformance.md``, word for word.
    """

    name: str
    function: Function
    needs: tuple[str, ...]

    @property
    def theme(self) -> str:
        """The module it is in."""
        return self.function.__module__.rpartition(".")[2]

    @property
    def summary(self) -> str:
        """What it asks, in a line."""
        return (self.function.__doc__ or "").strip().splitlines()[0]

    @property
    def explanation(self) -> str:
        """What it asks in full, with the usual reasons for failing."""
        rest = inspect.getdoc(self.function) or ""
        return " ".join(rest.partition("\n\n")[2].replace("``", "`").split())


@dataclass(frozen=True)
class Outcome:
    """How a check ended: ``message`` says why it failed or was skipped.

    ``needs`` is the failed check that it was skipped for, if that is why.
    """

    check: Check
    verdict: Literal["passed", "failed", "skipped"]
    message: str = ""
    error: ConformanceError | None = None
    seconds: float = 0.0
    needs: str = ""


CHECKS: dict[str, Check] = {}
"""All checks by name."""
THEMES = ("contract", "physics", "symmetries", "exported", "life_cycle", "own_training")
"""The modules of checks, in the order in which they are run."""


def all_checks() -> list[Check]:
    """All checks in the order in which they are run."""
    return sorted(CHECKS.values(), key=lambda one: THEMES.index(one.theme))


def check(*needs: str) -> Callable[[Function], Function]:
    """Enter a function into the list; ``needs`` are the checks that must pass before it."""

    def enter(function: Function) -> Function:
        CHECKS[function.__name__] = Check(function.__name__, function, needs)
        return function

    return enter


def run_check(subject: Subject, name: str) -> Outcome:
    """Run a check, and before it those it needs; what was run before is not run again."""
    if name not in subject.outcomes:
        subject.outcomes[name] = _run(subject, CHECKS[name])
    return subject.outcomes[name]


def run_all(subject: Subject, names: list[str] | None = None) -> Iterator[Outcome]:
    """Run all checks (or these) one after the other; where one needs what failed, that is told first."""
    told: set[str] = set()
    for name in names or [one.name for one in all_checks()]:
        outcome = run_check(subject, name)
        for one in (subject.outcomes.get(outcome.needs), outcome):
            if one is not None and one.check.name not in told:
                told.add(one.check.name)
                yield one


def _run(subject: Subject, one: Check) -> Outcome:
    for needed in one.needs:
        before = run_check(subject, needed)
        blamed = needed if before.verdict == "failed" else before.needs
        if blamed:
            return Outcome(one, "skipped", f"needs '{blamed}', which failed", needs=blamed)
    if one.name in subject.exempt:
        return Outcome(one, "skipped", f"exempt: {subject.exempt[one.name]}")
    start = time.perf_counter()
    try:
        with torch.random.fork_rng(devices=[]):
            one.function(subject)
    except NotApplicable as reason:
        return Outcome(one, "skipped", str(reason), None, time.perf_counter() - start)
    except Exception as error:  # whatever a plugin raises is the answer to "does this work?"
        ours = isinstance(error, ConformanceError)
        wrong = str(error) if ours else f"{type(error).__name__}: {error}"
        message = f"{subject.name} fails '{one.name}' ({one.summary.rstrip('.')}): {wrong}\n{one.explanation}"
        failure = ConformanceError(message)
        failure.__cause__ = error.__cause__ if ours else error
        return Outcome(one, "failed", message, failure, time.perf_counter() - start)
    return Outcome(one, "passed", "", None, time.perf_counter() - start)


def require(condition: bool, message: str) -> None:
    """Fail with ``message`` unless ``condition`` holds."""
    if not condition:
        raise ConformanceError(message)


def expect_equal(found: Tensor, wanted: Tensor, tolerance: float, what: str) -> None:
    """Fail unless two tensors agree to ``tolerance`` times the largest entry (at least 1)."""
    require(
        found.shape == wanted.shape,
        f"{what}: the shape is {tuple(found.shape)} instead of {tuple(wanted.shape)}",
    )
    found, wanted = found.detach().double().cpu(), wanted.detach().double().cpu()
    require(bool(torch.isfinite(found).all()), f"{what}: not finite")
    if wanted.numel() == 0:
        return
    size = max(1.0, float(wanted.abs().max()))
    error = float((found - wanted).abs().max())
    require(
        error <= tolerance * size,
        f"{what}: differs by {error:.3g} where values are up to {float(wanted.abs().max()):.3g} "
        f"(allowed: {tolerance * size:.1g})",
    )
