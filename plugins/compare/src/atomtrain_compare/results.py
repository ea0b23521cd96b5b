"""What a comparison gives: results of runs, and what is said of several with other seeds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from atomtrain.files import replacing

FILE = "result.json"
"""in the folder of each run"""


@dataclass
class Result:
    """One run. What is not known (yet) is None; ``error`` says in a line why there is no more.

    ``training_seconds`` are those of epochs, or of what a training in closed form goes through, by its ``train.csv``;
    ``command_seconds`` and ``cpu_seconds`` are of the whole command. ``peak_mb``: the most memory it had.
    ``resumed``: it was interrupted on the way; training seconds are sums of the parts, the others are of the last.
    The rest is of the exported model: ``errors`` by names with units, those that tables show by name in
    ``shown``; ``step_us`` microseconds per atom of a step of dynamics.
    """

    variant: str
    seed: int
    structures: int
    folder: str
    error: str = ""
    epochs: int | None = None
    training_seconds: float | None = None
    command_seconds: float | None = None
    cpu_seconds: float | None = None
    peak_mb: float | None = None
    resumed: bool = False
    errors: dict[str, float] = field(default_factory=dict)
    shown: list[str] = field(default_factory=list)
    step_us: float | None = None
    step_atoms: int = 0
    step_by: str = ""
    model_mb: float | None = None
    parameters: int | None = None

    @property
    def trained(self) -> bool:
        """Whether there is a model."""
        return self.training_seconds is not None

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return self.parameters is not None and not self.error

    def write(self, folder: Path) -> None:
        """Into the folder of the run."""
        write_json(asdict(self), folder / FILE)

    def read(self, folder: Path) -> None:
        """Take over what an earlier comparison found of the same run."""
        try:
            found = json.loads((folder / FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return
        for key in set(asdict(self)) & set(found) - {"variant", "folder", "error"}:
            setattr(self, key, found[key])


@dataclass(frozen=True)
class Group:
    """The results of one variant on so many structures, by their seeds."""

    variant: str
    structures: int
    results: Sequence[Result]

    @property
    def done(self) -> list[Result]:
        """Those that ended well."""
        return [result for result in self.results if result.done]

    @property
    def error(self) -> str:
        """What went wrong in some of them, in a line."""
        failed = [result for result in self.results if result.error]
        if not failed:
            return ""
        seeds = ", ".join(str(result.seed) for result in failed)
        several = f"seed{'s' * (len(failed) > 1)} {seeds}: " if len(self.results) > 1 else ""
        return several + failed[0].error

    def values(self, name: str) -> list[float]:
        """A number of each run that has it: a field of :class:`Result`, or one of the ``errors``."""
        found = [
            result.errors.get(name) if name in result.errors else getattr(result, name, None)
            for result in self.done
        ]
        return [float(value) for value in found if value is not None]

    def middle(self, name: str) -> float | None:
        """The median of a number, None where no run has it."""
        values = self.values(name)
        return median(values) if values else None


@dataclass
class Comparison:
    """Everything there is to show: what was asked for, on what machine, and the results.

    ``about`` and ``machine`` are plain data; ``judged_on`` is the set errors are of.
    """

    about: dict[str, Any]
    machine: dict[str, Any]
    results: list[Result]
    interrupted: bool = False

    @property
    def failed(self) -> list[Result]:
        """Runs that ended with an error."""
        return [result for result in self.results if result.error]

    @property
    def groups(self) -> list[Group]:
        """Results that differ in their seeds alone, in the order of the variants and sizes."""
        found: dict[tuple[str, int], list[Result]] = {}
        for result in self.results:
            found.setdefault((result.variant, result.structures), []).append(result)
        order = {variant: k for k, variant in enumerate(self.about["variants"])}
        keys = sorted(found, key=lambda key: (key[1], order[key[0]]))
        return [Group(*key, found[key]) for key in keys]

    @property
    def sizes(self) -> list[int]:
        """Sizes of training sets, ascending."""
        return sorted({result.structures for result in self.results})

    @property
    def partial(self) -> bool:
        """Whether some were trained on less than the whole training set."""
        return self.sizes != [self.about["structures"]["training"]]

    @property
    def quantities(self) -> list[str]:
        """Names of the errors that are shown, one of each quantity."""
        return list(dict.fromkeys(name for result in self.results for name in result.shown))

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        runs = [asdict(result) for result in self.results]
        return {"comparison": self.about, "machine": self.machine, "runs": runs}


def write_json(data: Any, path: Path) -> None:
    """Write plain data whole or not at all."""
    with replacing(path) as temporary:
        text = json.dumps(data, indent=2, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")
