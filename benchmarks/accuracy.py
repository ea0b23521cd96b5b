"""Errors of several programs after the same processor time of training, on the same split.

``python benchmarks/accuracy.py --train train.xyz --validation val.xyz --test test.xyz --seconds 20 60``

Extended xyz files with ``energy`` (eV), ``forces`` and, with ``--stress``, ``stress`` (eV/A^3); ``--validation 0.1``
takes a tenth of the training file. Without files a part of the repository's ethanol is taken, which is enough to see
that everything runs. Programs (``--programs``):

- the name of an architecture of atomtrain (``ace``, ``soap-bpnn``), from the environment of this Python, and hypers of
  the model behind it, as in ``ace:num_layers=2,num_channels=64``; ``linear`` knows no epochs and takes the time it
  takes (the sum of its ``train.csv``), whatever the budget;
- ``metatrain:soap_bpnn``, ``metatrain:pet``: metatrain's architectures; ``--mtt`` is its command;
- ``mace:64x0e``: MACE with these hidden irreps; ``--mace`` is its ``mace_run_train``.

Each is trained by its own command line with its own defaults, save the epochs. What an epoch costs is learnt first,
from a short run and a longer one; then as many epochs are asked for as fit the budget, because schedules need to
know the end. Errors are those of the exported model on the test files (``errors_of_model.py``); metatrain's is
exported from its checkpoint by atomtrain. Set
``OMP_NUM_THREADS=1``: waiting threads would count as work. See ``README.md`` beside this file.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import random
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from compare_peer import EXAMPLES, HERE, BenchmarkError, machine, read_frames, run

PROGRAMS = (
    "ace", "ace:num_layers=2", "soap-bpnn", "metatrain:soap_bpnn", "metatrain:pet", "mace:64x0e", "mace:32x0e+32x1o",
)  # fmt: skip
COLUMNS = ("energy RMSE", "forces RMSE", "forces MAE")
FEWEST = 2  # epochs: one for each of MACE's stages
READABLE = 0.2  # the part of the budget over which an epoch has to be timed


@dataclass(frozen=True)
class Task:
    """What every program is given."""

    train: Path
    validation: Path
    batch_size: int
    stress: bool
    mace_options: tuple[str, ...]


@dataclass(frozen=True)
class Program:
    """One program: its command, the architecture (of MACE: the hidden irreps), and hypers of the model."""

    name: str
    command: Path
    architecture: str
    hypers: dict[str, object] = field(default_factory=dict)

    def line(self, task: Task, epochs: int, seed: int, folder: Path) -> list[str | Path]:
        """The command line of a training; writes the options into the folder."""
        if self.name.startswith("mace:"):
            return [self.command, *mace_options(task, self.architecture, epochs, seed)]
        options = yaml_options(task, self.architecture, self.hypers, epochs, seed)
        (folder / "options.yaml").write_text(json.dumps(options, indent=2))  # JSON is YAML
        return [self.command, "train", "options.yaml"]

    @property
    def folder(self) -> str:
        """Where its runs are, in the work folder."""
        return self.name.replace(":", "-").replace(",", "-")

    @property
    def in_closed_form(self) -> bool:
        """Whether it knows no epochs: it takes the time it takes, whatever the budget."""
        return self.name == "linear"

    @property
    def models(self) -> tuple[str, ...]:
        """The exported model, the best first where there are several."""
        mace = self.name.startswith("mace:")
        return ("m_stagetwo.model", "m.model") if mace else ("model.pt",)


@dataclass(frozen=True)
class Costs:
    """Processor seconds: of an epoch, validation included, and of all that a run does once."""

    epoch: float
    once: float


@dataclass
class Result:
    """A training, and its errors by test file."""

    program: str
    budget: float
    seed: int
    epochs: int
    training_seconds: float
    whole_seconds: float
    errors: dict[str, dict[str, float]] = field(default_factory=dict)


def yaml_options(
    task: Task, architecture: str, hypers: dict[str, object], epochs: int, seed: int
) -> dict[str, object]:
    """The options of atomtrain and metatrain, which understand the same."""

    def section(path: Path) -> dict[str, object]:
        target = {"key": "energy", "unit": "eV", "forces": {"key": "forces"}}
        stress = {"key": "stress"} if task.stress else False
        systems = {"read_from": str(path), "length_unit": "angstrom"}
        return {"systems": systems, "targets": {"energy": {**target, "stress": stress}}}

    training = {"num_epochs": epochs, "batch_size": task.batch_size} if epochs else {}
    return {
        "seed": seed,
        "device": "cpu",
        "base_precision": 32,
        "architecture": {"name": architecture, "model": hypers, "training": training},
        "training_set": section(task.train),
        "validation_set": section(task.validation),
    }


def mace_options(task: Task, irreps: str, epochs: int, seed: int) -> list[str]:
    """MACE as its own documentation trains it: averaged weights, and a second stage in the last quarter."""
    options: dict[str, object] = {
        "name": "m",
        "train_file": task.train,
        "valid_file": task.validation,
        "E0s": "average",
        "energy_key": "energy",
        "forces_key": "forces",
        "hidden_irreps": irreps,
        "default_dtype": "float32",
        "device": "cpu",
        "batch_size": task.batch_size,
        "valid_batch_size": task.batch_size,
        "max_num_epochs": epochs,
        "start_swa": epochs - max(1, epochs // 4),
        "seed": seed,
        "plot": False,
    }
    if task.stress:
        options |= {"loss": "stress", "stress_key": "stress", "compute_stress": True}
    words = [f"--{name}={value}" for name, value in options.items()]
    return [*words, "--ema", "--swa", *task.mace_options]


def train(program: Program, task: Task, epochs: int, seed: int, folder: Path) -> tuple[float, Path]:
    """Train once in an empty folder; the processor seconds of the command, and the model."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    usage = run(program.line(task, epochs, seed, folder), folder)
    found = [folder / name for name in program.models if (folder / name).exists()]
    if not found:
        raise BenchmarkError(f"{program.name} wrote no model into {folder}")
    return usage.cpu_seconds, found[0]


def costs(cpu_seconds: Callable[[int], float], budget: float) -> Costs:
    """What an epoch costs, from a short run and a longer one.

    How many, the first guess decides: their time has to stand out from that of starting, which is not
    the same twice.
    """
    short, epochs = cpu_seconds(FEWEST), FEWEST + 1
    while True:
        difference = cpu_seconds(epochs) - short
        epoch = max(difference, 1e-3) / (epochs - FEWEST)
        needed = math.ceil(FEWEST + READABLE * budget / epoch)
        if needed <= 1.5 * epochs:
            return Costs(epoch, short - FEWEST * epoch)
        epochs = min(needed, 20 * epochs)


def logged_seconds(folder: Path) -> float:
    """What the passes and stages of a training took by its ``train.csv``; on one thread, of the processor."""
    (path,) = folder.glob("outputs/*/*/train.csv")
    with path.open(encoding="utf-8", newline="") as file:
        return sum(float(row["seconds"] or 0.0) for row in csv.DictReader(file))


def evaluate(program: Program, model: Path, tests: Sequence[Path]) -> dict[str, dict[str, float]]:
    """Errors on each test file, computed where the program is installed."""
    # absolute, not resolved: the Python of an environment is a link out of it
    python = program.command.parent / "python"
    if program.name == "metatrain:soap_bpnn":
        # With torch 2.13 its exported file (2026.4.1) has wrong forces; its checkpoint is right.
        python, model = Path(sys.executable), imported(model, python)
    run([python, HERE / "errors_of_model.py", model, *tests], model.parent)
    # the log may hold warnings of the libraries; the last line is the answer
    return json.loads((model.parent / "benchmark.log").read_text().splitlines()[-1])


def imported(model: Path, peer: Path) -> Path:
    """The model of metatrain's checkpoint beside this file, exported by atomtrain; ``peer``: metatrain's Python."""
    atomtrain, folder = Path(sys.executable).parent / "atomtrain", model.parent
    command = [atomtrain, "import-metatrain", "model.ckpt", "-o", "imported.ckpt"]
    run([*command, "--python", peer], folder)
    run([atomtrain, "export", "imported.ckpt", "-o", "imported.pt"], folder)
    return folder / "imported.pt"


def spread(values: Sequence[float]) -> str:
    """Median and range, three digits each."""

    def short(value: float) -> str:
        digits = 0 if value >= 100 else 1 if value >= 10 else 2
        return f"{value:.{digits}f}"

    if len(values) == 1:
        return short(values[0])
    return f"{short(median(values))} ({short(min(values))} to {short(max(values))})"


def table(results: Sequence[Result], tests: Sequence[Path], stress: bool) -> str:
    """A row for each test file, budget and program; medians and ranges over the seeds."""
    columns = [*COLUMNS, *(["stress RMSE"] if stress else [])]
    units = {"energy": "meV/atom", "forces": "meV/A", "stress": "meV/A^3"}
    heads = ["test", "program", "epochs", "training, CPU s", "whole command, CPU s"]
    heads += [f"{name}, {units[name.split()[0]]}" for name in columns]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    groups = dict.fromkeys((r.budget, r.program) for r in results)
    for test in tests:
        for group in sorted(groups, key=lambda group: group[0]):
            same = [r for r in results if (r.budget, r.program) == group]
            cells = [test.stem, group[1], str(same[0].epochs)]
            cells.append(spread([r.training_seconds for r in same]))
            cells.append(spread([r.whole_seconds for r in same]))
            for name in columns:
                values = [r.errors[str(test)].get(name, math.nan) for r in same]
                cells.append(spread(values))
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def split(path: Path, fraction: float, work: Path, names: tuple[str, str]) -> tuple[Path, Path]:
    """A file in two, the second with this part of it; after a shuffle that is always the same."""
    frames = list(read_frames(path))
    random.Random(0).shuffle(frames)
    count = max(1, round(fraction * len(frames)))
    files = work / f"{path.stem}_{names[0]}.xyz", work / f"{path.stem}_{names[1]}.xyz"
    for file, some in zip(files, (frames[count:], frames[:count]), strict=True):
        file.write_text("".join(some))
    return files


def data(arguments: argparse.Namespace, work: Path) -> tuple[Path, Path, list[Path]]:
    """The files to train, to validate and to test."""
    training, validation, tests = arguments.train, arguments.validation, arguments.test
    if not training:
        example = EXAMPLES / "ethanol" / "ethanol.xyz"
        training, test = split(example, 0.2, work, ("rest", "test"))
        validation, tests = "0.2", [test]
    try:
        fraction = float(validation)
    except ValueError:
        validation = Path(validation)
    else:
        training, validation = split(training, fraction, work, ("training", "validation"))
    return training.resolve(), validation.resolve(), [test.resolve() for test in tests]


def program(name: str, arguments: argparse.Namespace) -> Program:
    """The program of a name."""
    who, _, what = name.partition(":")
    architecture, hypers = what, dict[str, object]()
    if who == "mace":
        command, option = arguments.mace, "--mace"
    elif who == "metatrain":
        command, option = arguments.mtt, "--mtt"
    else:
        command, option, architecture = arguments.atomtrain, "--atomtrain", who
        try:
            pairs = [word.split("=") for word in what.split(",") if word]
            hypers = {key: json.loads(value) for key, value in pairs}
        except ValueError:
            raise BenchmarkError(
                f"{name}: after the colon come hypers, as in ace:num_layers=2"
            ) from None
    if not architecture:
        raise BenchmarkError(f"{name}: say which, as in metatrain:pet or mace:64x0e")
    found = shutil.which(command)
    if found is None:
        raise BenchmarkError(f"no command {command} for {name}; say where it is with {option}")
    return Program(name, Path(found).absolute(), architecture, hypers)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", type=Path, metavar="FILE")
    parser.add_argument("--validation", metavar="FILE", help="or a part, like 0.1")
    parser.add_argument("--test", type=Path, nargs="+", metavar="FILE")
    parser.add_argument(
        "--seconds", type=float, nargs="+", default=[60.0],
        help="the budgets: processor seconds of training (default: 60)",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, default=3, help="how many trainings of each")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--stress", action="store_true", help="train on stress, too")
    parser.add_argument("--programs", nargs="+", default=PROGRAMS, metavar="PROGRAM")
    parser.add_argument("--atomtrain", default=str(Path(sys.executable).parent / "atomtrain"))
    parser.add_argument("--mtt", default="mtt")
    parser.add_argument("--mace", default="mace_run_train")
    parser.add_argument(
        "--mace-options", default="", metavar="WORDS",
        help='more options of mace_run_train, as one word: --mace-options="--lr=0.005"',
    )  # fmt: skip
    parser.add_argument(
        "--work", type=Path, default=HERE.parent / "build" / "benchmarks" / "accuracy",
        help="where the runs are made; the models stay there",
    )  # fmt: skip
    parser.add_argument("--output", type=Path, help="JSON (default: accuracy.json in --work)")
    arguments = parser.parse_args()
    given = [arguments.train, arguments.validation, arguments.test]
    if any(given) and not all(given):
        parser.error("--train, --validation and --test go together")
    return arguments


def main() -> None:
    """Train, evaluate, print the table."""
    arguments = parse_arguments()
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    training, validation, tests = data(arguments, work)
    extra = tuple(shlex.split(arguments.mace_options))
    task = Task(training, validation, arguments.batch_size, arguments.stress, extra)
    programs = [program(name, arguments) for name in arguments.programs]
    output = arguments.output or work / "accuracy.json"
    described = machine()

    known: dict[str, Costs] = {}
    for one in programs:
        if one.in_closed_form:
            continue
        folder = work / one.folder / "costs"
        known[one.name] = costs(
            lambda epochs: train(one, task, epochs, 0, folder)[0],  # noqa: B023
            min(arguments.seconds),
        )
        print(f"{one.name}: an epoch takes {known[one.name].epoch:.2f} CPU s", flush=True)

    results: list[Result] = []
    for seed in range(arguments.seeds):
        for budget in arguments.seconds:
            for one in programs:
                cost = known.get(one.name)
                epochs = max(FEWEST, int(budget / cost.epoch)) if cost else 0
                folder = work / one.folder / f"{budget:g}s-seed{seed}"
                whole, model = train(one, task, epochs, seed, folder)
                seconds = whole - cost.once if cost else logged_seconds(folder)
                result = Result(one.name, budget, seed, epochs, seconds, whole)
                result.errors = evaluate(one, model, tests)
                results.append(result)
                # after every training, so that nothing is lost of a long measurement
                output.write_text(json.dumps([asdict(r) for r in results], indent=2))
                print(json.dumps(asdict(result)), flush=True)

    print(f"\nMachine: {described}. {len(list(read_frames(training)))} structures to train,"
          f" batch {task.batch_size}. Medians of {arguments.seeds} seeds (range).\n")  # fmt: skip
    print(table(results, tests, task.stress))


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as error:
        sys.exit(f"error: {error}")
