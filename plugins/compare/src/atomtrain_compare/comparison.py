"""A comparison from options to pictures: what is to be done, what is done already, one run after the other."""

from __future__ import annotations

import json
import logging
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.text import Text

from atomtrain.errors import AtomtrainError, OptionsError, OutputError, first_line
from atomtrain.files import replacing, writing
from atomtrain_compare import table
from atomtrain_compare.budget import Budget, fitting, timed
from atomtrain_compare.measures import measure
from atomtrain_compare.results import Comparison, Result, write_json
from atomtrain_compare.running import LOG, Logged, interrupted, logged, train
from atomtrain_compare.split import Split
from atomtrain_compare.split import draw as draw_split
from atomtrain_compare.variants import Variant, variants_of
from atomtrain_compare.written import machine, write

RUNS, SPLIT, EPOCH, TIMING = "runs", "split.json", "epoch.json", "timing"
ALL = "all"
"""instead of a number of structures"""


@dataclass(frozen=True)
class Run:
    """One training that is asked for, and its folder."""

    variant: Variant
    size: int
    seed: int
    folder: Path

    def __str__(self) -> str:
        return f"{self.variant.name}, {self.size:,} structures, seed {self.seed}"


def compare(
    files: Sequence[str | Path],
    changes: Sequence[str] = (),
    *,
    output: str | Path = "compare",
    seeds: int = 1,
    epochs: int | None = None,
    minutes: float | None = None,
    structures: Sequence[int | str] = (),
    console: Console | None = None,
) -> Comparison:
    """Train each variant of some options files on one split with one budget, and say how good and how expensive it is.

    ``changes`` are texts of ``a.b=value`` words, each a variant of each file; without any the files are. ``seeds``: how
    often each is trained. ``epochs`` or ``minutes`` of training; neither: as the options say. ``structures``: sizes of
    training sets (``all``: the whole), for learning curves. In the folder ``output`` each run has a folder of its own;
    those that are done there are not repeated. Ctrl-C ends the run at hand, and the comparison says that it was
    ``interrupted``; runs that fail have their ``error``. Raises an AtomtrainError before any training for what is wrong
    with options or data.
    """
    budget = _budget(epochs, minutes)
    if seeds < 1:
        raise OptionsError(f"--seeds {seeds}: train at least once")
    with _quiet(), _interruptible():
        console = console or Console(quiet=True)
        work = Work(files, changes, Path(output), budget, console)
        work.prepare(seeds, structures)
        work.go()
        return work.comparison


def _budget(epochs: int | None, minutes: float | None) -> Budget:
    if epochs is not None and minutes is not None:
        raise OptionsError("--epochs and --minutes are two budgets: give one of them")
    if epochs is not None and epochs < 1:
        raise OptionsError(f"--epochs {epochs}: train at least one")
    if minutes is not None and not minutes > 0:
        raise OptionsError(f"--minutes {minutes:g}: give more than 0")
    return Budget(epochs, minutes)


class Work:
    """The runs of a comparison, and the folder they are in."""

    def __init__(
        self,
        files: Sequence[str | Path],
        changes: Sequence[str],
        folder: Path,
        budget: Budget,
        console: Console,
    ) -> None:
        self.folder, self.budget, self.console = folder, budget, console
        self.variants = variants_of([str(file) for file in files], changes)
        self.split: Split = draw_split(self.variants[0].plan)
        self.runs: list[Run] = []
        self.untimed: dict[Path, str] = {}
        self.comparison = Comparison({}, machine(), [])

    def say(self, text: str, style: str | None = None) -> None:
        """A line for people; nothing in it is markup."""
        self.console.print(
            text, style=style, markup=False, highlight=False, emoji=False, soft_wrap=True
        )

    # -- before any training -------------------------------------------------------------------

    def prepare(self, seeds: int, structures: Sequence[int | str]) -> None:
        """List the runs, and write down what they share. Raises AtomtrainError where the folder has something else."""
        whole = self.split.training
        sizes = sorted({whole if size == ALL else int(size) for size in structures}) or [whole]
        self.split.add_subsets(sizes)
        first = self.variants[0].plan.options.seed
        self.runs = [
            Run(variant, size, seed, self._group(variant, size) / f"seed{seed}")
            for seed in range(first, first + seeds)
            for size in sizes
            for variant in self.variants
        ]
        self.comparison.about = self._about(first, seeds, sizes)
        self._claim()
        for run in self.runs:
            if (run.folder / "options.yaml").exists():
                self._write_options(run, self._known_epochs(run))
        self._say_what()

    def _group(self, variant: Variant, size: int) -> Path:
        """The folder of all runs of a variant on so many structures."""
        return self.folder / RUNS / variant.folder / f"{size}"

    def _about(self, first: int, seeds: int, sizes: Sequence[int]) -> dict[str, Any]:
        return {
            "variants": {
                variant.name: {
                    "file": variant.file,
                    "changes": list(variant.changes),
                    "left_out": list(variant.left_out),
                    "architecture": variant.plan.architecture.identity(),
                }
                for variant in self.variants
            },
            "budget": str(self.budget),
            **asdict(self.budget),
            "seeds": list(range(first, first + seeds)),
            "structures": self.split.sizes,
            "training_sizes": list(sizes),
            "judged_on": self.split.judged_on,
        }

    def _claim(self) -> None:
        """Make the folder this comparison's. Raises OutputError where it is another's."""
        path, folder = self.folder / SPLIT, self.folder
        ours = {"sizes": self.split.sizes, "fingerprints": self.split.fingerprints}
        if path.is_file():
            try:
                theirs = json.loads(path.read_text(encoding="utf-8"))
            except ValueError:
                theirs = None
            if theirs != ours:
                raise OutputError(
                    f"'{folder}' has a comparison on other data or another split; name another folder with --output, "
                    "or remove it"
                )
        elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise OutputError(
                f"'{folder}' is there, and no comparison; name another folder with --output"
            )
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self.split.write(folder)
        write_json(ours, path)

    def _say_what(self) -> None:
        split, about = self.split, self.comparison.about
        said = ", ".join(f"{count:,} {name}" for name, count in split.sizes.items())
        self.say(f"structures: {said}; the same for all")
        if split.judged_on != "test":
            self.say(
                "there is no test set: errors are those on the validation set, by which the best epoch is chosen too",
                "yellow",
            )
        for warning in split.warnings:
            self.say(warning, "yellow")
        for variant in self.variants:
            if variant.plan.architecture.notice:
                self.say(f"{variant.name}: {variant.plan.architecture.notice}", "yellow")
            if variant.left_out:
                self.say(
                    f"{variant.name}: without {', '.join(variant.left_out)}, which '{variant.file}' says of another "
                    "architecture"
                )
            if not variant.has_epochs and self.budget != Budget():
                self.say(f"{variant.name}: knows no epochs, and takes the time it takes")
        n, minutes = len(self.runs), self.budget.minutes
        told = sum(run.variant.has_epochs for run in self.runs) * (minutes or 0)
        about_all = f", {told:g} min of training in all" if told else ""
        self.say(f"{n} run{'s' * (n > 1)} ({about['budget']}{about_all}), one after the other")

    # -- the runs ------------------------------------------------------------------------------

    def go(self) -> None:
        """All runs that are left, each followed by what is known by then. KeyboardInterrupt is noted, and ends them."""
        left: list[tuple[Run, Result]] = []
        for run in self.runs:
            result = Result(run.variant.name, run.seed, run.size, str(run.folder))
            result.read(run.folder)
            if result.done:
                self.comparison.results.append(result)
            else:
                left.append((run, result))
        done = len(self.comparison.results)
        if done:
            self.say(f"{done} done before, {len(left)} left")
        order = {str(run.folder): k for k, run in enumerate(self.runs)}
        try:
            for k, (run, result) in enumerate(left, done + 1):
                self._do(run, result, f"{k}/{len(self.runs)}")
                self.comparison.results.append(result)
                self.comparison.results.sort(key=lambda one: order[one.folder])
                write(self.comparison, self.folder)
        except KeyboardInterrupt:
            self.comparison.interrupted = True
        if self.comparison.results:
            write(self.comparison, self.folder)

    def _do(self, run: Run, result: Result, count: str) -> None:
        self.say(f"[{count}] {run} ...")
        try:
            if not (result.trained and (run.folder / "model.pt").is_file()):
                self._train(run, result)
            if not result.error:
                with self.console.status(Text(f"{run}: errors and dynamics")):
                    self._measure(run, result)
        except AtomtrainError as error:
            result.error = str(error)
        except Exception as error:  # whatever a plugin's model may raise: the others go on
            result.error = first_line(error, typed=True)
        if result.error:
            self.say(f"[{count}] failed: {result.error}", "red")
            for log in (run.folder / LOG, run.folder.parent / TIMING / LOG):
                if log.is_file():
                    self.say(f"        see {log}")
            return
        result.write(run.folder)
        said = [
            " ".join([title, table.number(result.errors[name]), unit]).strip()
            for name in result.shown
            for title, unit in [table.split_unit(name)]
        ]
        epochs = f"{_epochs(result.epochs)}, " if result.epochs else ""
        self.say(f"        {epochs}{result.training_seconds:.1f} s of training; {', '.join(said)}")

    def _train(self, run: Run, result: Result) -> None:
        """Train, and note what it took."""
        epochs = self._epochs(run)
        self._write_options(run, epochs)
        again = interrupted(run.folder)
        with self._watched(f"{run}") as watch:
            ended = train(run.folder, watch)
        result.error = ended.error
        if ended.error:
            return
        found = logged(run.folder)
        result.resumed = again
        result.epochs = found.epochs if run.variant.has_epochs else None
        result.training_seconds = sum(found.seconds)
        result.command_seconds, result.cpu_seconds = ended.seconds, ended.cpu_seconds
        result.peak_mb = ended.peak_mb
        result.write(run.folder)

    def _measure(self, run: Run, result: Result) -> None:
        sections = self.split.judged_sections(self.folder)
        measured = measure(run.folder, sections, self.split.example, run.variant.plan.hypers)
        for name, value in asdict(measured).items():
            setattr(result, name, value)

    @contextmanager
    def _watched(self, what: str) -> Iterator[Any]:
        """Show on a terminal how far a training is."""
        with self.console.status(Text(what)) as status:

            def watch(found: Logged) -> bool:
                if found.epochs:
                    status.update(
                        Text(f"{what}: {found.epochs} epochs, {sum(found.seconds):.0f} s")
                    )
                return False

            yield watch

    # -- epochs --------------------------------------------------------------------------------

    def _known_epochs(self, run: Run) -> int | None:
        """How many epochs a run is told to train; None where the options say. OutputError where it has to be found."""
        if not run.variant.has_epochs or self.budget == Budget():
            return None
        if self.budget.minutes is None:
            return self.budget.epochs
        path = run.folder.parent / EPOCH
        try:
            seconds = json.loads(path.read_text(encoding="utf-8"))["seconds"]
        except (OSError, ValueError, KeyError):
            raise self._of_another_budget(run.folder) from None
        return fitting(seconds, 60 * self.budget.minutes)

    def _epochs(self, run: Run) -> int | None:
        """The same, after finding out what an epoch costs if that is not known."""
        path, minutes = run.folder.parent / EPOCH, self.budget.minutes
        if minutes is None or not run.variant.has_epochs or path.is_file():
            return self._known_epochs(run)
        if path in self.untimed:
            raise OptionsError(self.untimed[path])
        with self.console.status(Text(f"{run}: timing an epoch")):
            ended, seconds = timed(
                path.parent / TIMING,
                60 * minutes,
                lambda folder, epochs: self._options(run, folder, epochs),
            )
        if ended.error or not seconds:
            self.untimed[path] = ended.error or "ended before its first epoch did"
            raise OptionsError(self.untimed[path])
        epochs = fitting(seconds, 60 * minutes)
        write_json({"seconds": seconds}, path)
        each = (sum(seconds[1:]) / len(seconds[1:])) if len(seconds) > 1 else seconds[0]
        self.say(f"        an epoch takes {each:.3g} s: {_epochs(epochs)}")
        return epochs

    def _write_options(self, run: Run, epochs: int | None) -> None:
        """``options.yaml`` of a run. Raises OutputError where the folder has a run of other options."""
        path, asked = run.folder / "options.yaml", self._options(run, run.folder, epochs)
        if path.is_file():
            if path.read_text(encoding="utf-8") != asked:
                raise self._of_another_budget(run.folder)
            return
        run.folder.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(asked, encoding="utf-8")

    def _options(self, run: Run, folder: Path, epochs: int | None) -> str:
        made = self.split.options(
            run.variant.plan, self.folder, folder, size=run.size, seed=run.seed, epochs=epochs
        )
        return yaml.safe_dump(made, sort_keys=False, allow_unicode=True)

    def _of_another_budget(self, folder: Path) -> OutputError:
        return OutputError(
            f"'{folder}' has a run of other options or another budget; remove it, or name another folder with --output"
        )


def _epochs(count: int) -> str:
    return f"{count:,} epoch{'s' * (count != 1)}"


@contextmanager
def _quiet() -> Iterator[None]:
    """What reading and evaluating the same data says again and again is not shown."""
    log, nobody = logging.getLogger("atomtrain"), logging.NullHandler()
    log.addHandler(nobody)
    try:
        yield
    finally:
        log.removeHandler(nobody)


@contextmanager
def _interruptible() -> Iterator[None]:
    """The end of a job and of a terminal are as good as Ctrl-C."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    names = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    heard = [
        name for name in names if signal.getsignal(name) is not signal.SIG_IGN
    ]  # but for nohup
    before = {name: signal.signal(name, stop) for name in heard}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
