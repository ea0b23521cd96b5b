"""Measure training and exported models on a GPU, beside the CPU of the machine and beside metatrain.

``python benchmarks/gpu.py [--only PART ...] [--mtt-python PYTHON]``, or ``nox -s gpu``. Each part is a process of
its own, and one that fails is a line of the report, not the end of it:

- training: an epoch of SOAP-BPNN and ACE, small batches and large ones; peak memory; how often a step waits for
  the GPU (``torch.cuda.set_sync_debug_mode``), how many kernels it launches and how long these run (torch's profiler)
- peer: the same options files with metatrain's ``soap_bpnn``, where it is installed
- cpu: the same trainings on the CPU of the machine
- model: energy and forces of the exported models, silicon of 1,000 to 100,000 atoms: a call of the model with all
  on the GPU, and a step in ASE with its neighbour list
- agreement: energies and forces on the GPU against those on the CPU, float32 and float64
- restart: begun on the GPU and gone on with on the CPU, and the reverse
- shared: two processes on one GPU

Structures are those of the examples (``--ethanol``, ``--crystal``), repeated with small displacements until there are
enough; labels stay, for what they are makes no difference to the time.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import traceback
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parent / "examples"
OURS = ("soap-bpnn", "ace")
SIZES = (1_000, 10_000, 100_000)
PARTS = ("training", "peer", "cpu", "model", "agreement", "restart", "shared")
LIMIT = {"peer": 400, "cpu": 300}
"""seconds a part may take; else :data:`DEFAULT_LIMIT`"""
DEFAULT_LIMIT = 240

Row = dict[str, Any]


@dataclass(frozen=True)
class Workload:
    """A training to be timed: so many structures in batches of so many."""

    data: str
    n_structures: int
    batch_size: int
    labels: tuple[str, ...]

    @property
    def title(self) -> str:
        """What it is called in the report."""
        return f"{self.data}, batch {self.batch_size}"


def workloads(quick: bool) -> list[Workload]:
    """What is trained."""
    if quick:
        return [
            Workload("molecules", 32, 8, ("forces",)),
            Workload("crystal", 8, 4, ("forces", "stress")),
        ]
    return [
        Workload("molecules", 2048, 64, ("forces",)),
        Workload("molecules", 2048, 512, ("forces",)),
        Workload("crystal", 256, 8, ("forces", "stress")),
        Workload("crystal", 256, 64, ("forces", "stress")),
    ]


# -- inputs ---------------------------------------------------------------------------------------


def write_data(source: Path, path: Path, n: int) -> None:
    """``n`` structures of ``source``, each moved a little, with the labels they had."""
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.io import read, write

    frames = read(source, ":")
    first = zlib.crc32(path.name.encode())  # no structure of validation is one of training
    made = []
    for k in range(n):
        frame = frames[k % len(frames)]
        moved = frame.copy()
        moved.rattle(0.01, seed=(first + k) % 2**32)
        moved.calc = SinglePointCalculator(moved, **frame.calc.results)
        made.append(moved)
    write(path, made, format="extxyz")


def options_of(
    name: str, workload: Workload, data: Path, device: str, epochs: int, **more: Any
) -> dict[str, Any]:
    """Options that both programs read."""
    target: dict[str, Any] = {"key": "energy", "unit": "eV"}
    target |= {label: {"key": label} for label in workload.labels}

    def section(part: str) -> dict[str, Any]:
        systems = {
            "read_from": str(data / f"{workload.data}-{part}.xyz"),
            "length_unit": "angstrom",
        }
        return {"systems": systems, "targets": {"energy": target}}

    training = {
        "batch_size": workload.batch_size,
        "num_epochs": epochs,
        "log_interval": 1,
        "checkpoint_interval": 10_000,
        **more,
    }
    return {
        "seed": 0,
        "device": device,
        "base_precision": 32,
        "architecture": {"name": name, "training": training},
        "training_set": section("training"),
        "validation_set": section("validation"),
    }


# -- training -------------------------------------------------------------------------------------


class Watch:
    """An observer of a training: times of epochs, and what the two epochs behind them ask of the GPU."""

    def __init__(self, epochs: int, details: bool) -> None:
        self.epochs, self.details = epochs, details
        self.started = 0.0
        self.seconds: list[float] = []
        self.losses: list[float] = []
        self.waits: Counter[str] = Counter()
        self.n_waits = self.n_kernels = self.busy = 0.0
        self._watched = 0
        self._stack = contextlib.ExitStack()
        self._caught: list[Any] = []
        self._profile: Any = None

    def on_start(self, run: Any, info: Any) -> None:
        """Everything is ready."""
        self.started = time.perf_counter()

    def on_epoch(self, record: Any) -> None:
        """Note how long it took."""
        self.losses.append(record.train_loss)
        if record.epoch < self.epochs:  # those behind are slowed down by being watched
            self.seconds.append(record.seconds)

    def on_step(self, epoch: int, step: int, n_steps: int) -> None:
        """Watch the last steps of an epoch: first how often they wait, then which kernels they launch."""
        import torch

        if not self.details or epoch < self.epochs or n_steps < 2:
            return
        counting = epoch == self.epochs
        if step == max(1, n_steps - 8):
            self._watched = n_steps - step
            torch.cuda.synchronize()
            if counting:
                self._caught = self._stack.enter_context(warnings.catch_warnings(record=True))
                warnings.simplefilter("always")
                torch.cuda.set_sync_debug_mode("warn")
            else:
                kinds = [torch.profiler.ProfilerActivity.CUDA]
                self._profile = self._stack.enter_context(torch.profiler.profile(activities=kinds))
        elif step == n_steps and counting:
            torch.cuda.set_sync_debug_mode("default")
            found = [w for w in self._caught if "called a synchronizing" in str(w.message)]
            self._stack.close()
            self.n_waits = len(found) / self._watched
            self.waits.update(f"{Path(w.filename).name}:{w.lineno}" for w in found)
        elif step == n_steps:
            torch.cuda.synchronize()
            self._stack.close()
            on_gpu = torch.autograd.DeviceType.CUDA
            events = [e for e in self._profile.events() if e.device_type == on_gpu]
            kernels = [e for e in events if not e.name.startswith(("Memcpy", "Memset"))]
            self.n_kernels = len(kernels) / self._watched
            self.busy = sum(e.time_range.elapsed_us() for e in events) / self._watched / 1000

    def __getattr__(self, name: str) -> Any:
        """Whatever else an observer is told."""
        if name.startswith("on_"):
            return lambda *_: None
        raise AttributeError(name)


def train(
    options: dict[str, Any],
    folder: Path,
    watch: Watch | None = None,
    output: str = "",
    restart: Path | None = None,
) -> Any:
    """Train in this process, watched; with an ``output`` the model is exported and evaluated."""
    from atomtrain.runs import finish, plan, prepare, workplace

    planned = plan(options)
    with workplace(planned, folder / "outputs") as place:
        prepared = prepare(planned, place, restart)
        if watch is not None:
            prepared.run.observers.append(watch)  # type: ignore[arg-type]
        outcome = prepared.train()
        return finish(prepared, outcome, folder / output) if output else outcome


def time_training(context: Context, device: str) -> Iterator[Row]:
    """Epochs of our architectures."""
    import torch

    on_gpu = device == "cuda"
    for workload in workloads(context.quick):
        for name in OURS:
            n_steps = workload.n_structures // workload.batch_size
            epochs = 3 if context.quick else (24 if n_steps < 8 else 8) if on_gpu else 3
            options = options_of(
                name, workload, context.data, device, epochs + (2 if on_gpu else 0)
            )
            watch = Watch(epochs, details=on_gpu)
            if on_gpu:
                torch.cuda.reset_peak_memory_stats()
            folder = context.folder(f"{device}-{workload.title}-{name}")
            begun = time.perf_counter()
            train(options, folder, watch)
            epoch = median(watch.seconds[1:])
            row = {
                "training": workload.title,
                "architecture": name,
                "ms a step": 1000 * epoch / n_steps,
                "structures/s": n_steps * workload.batch_size / epoch,
                "start, s": watch.started - begun,
            }
            if on_gpu:
                row |= {
                    "waits a step": watch.n_waits,
                    "kernels a step": watch.n_kernels,
                    "GPU busy, ms a step": watch.busy,
                    "peak memory, MB": torch.cuda.max_memory_allocated() / 1e6,
                }
                context.say(f"{workload.title}, {name}: {dict(watch.waits.most_common(12))}")
            yield row


def training(context: Context) -> Iterator[Row]:
    """On the GPU."""
    yield from time_training(context, context.device)


def cpu(context: Context) -> Iterator[Row]:
    """On the CPU, with as many threads as torch chooses."""
    import torch

    for row in time_training(context, "cpu"):
        yield {**row, "threads": torch.get_num_threads()}


def peer(context: Context) -> Iterator[Row]:
    """metatrain: the time between the lines it prints for each epoch."""
    for workload in workloads(context.quick):
        n_steps = workload.n_structures // workload.batch_size
        epochs = 3 if context.quick else 8 if n_steps < 8 else 4
        folder = context.folder(f"peer-{workload.title}")
        options = options_of("soap_bpnn", workload, context.data, context.device, epochs)
        (folder / "options.yaml").write_text(json.dumps(options))
        process = subprocess.Popen(
            [context.peer, "-m", "metatrain", "train", "options.yaml"],
            cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        assert process.stdout is not None
        begun, times, lines = time.perf_counter(), [], []
        for line in process.stdout:
            lines.append(line)
            if re.search(r"Epoch:?\s+\d+", line):
                times.append(time.perf_counter())
        status = process.wait()
        if status != 0:
            context.say("".join(lines[-15:]))
        if len(times) < 3:
            raise RuntimeError(f"metatrain: exit status {status}, {len(times)} epochs")
        epoch = median(b - a for a, b in itertools.pairwise(times[1:]))
        yield {
            "training": workload.title,
            "architecture": "metatrain soap_bpnn",
            "ms a step": 1000 * epoch / n_steps,
            "structures/s": n_steps * workload.batch_size / epoch,
            "start and one epoch, s": times[0] - begun,
        }


# -- exported models ------------------------------------------------------------------------------


def exported(context: Context) -> Iterator[tuple[str, Path]]:
    """Models of silicon, ours and, if it trained one, metatrain's; weights do not change the time."""
    for name in OURS:
        yield name, context.model(name, "crystal")
    for path in sorted(context.work.glob("peer-crystal*/model.pt"))[:1]:
        yield "metatrain soap_bpnn", path


def silicon(n: int, seed: int = 0) -> Any:
    """Diamond of so many atoms (a multiple of 8), rattled."""
    from ase.build import bulk

    cells = n // 8
    a = next(k for k in range(round(cells ** (1 / 3)), 0, -1) if cells % k == 0)
    b = next(k for k in range(round((cells // a) ** 0.5), 0, -1) if cells // a % k == 0)
    atoms = bulk("Si", "diamond", a=5.431, cubic=True).repeat((a, b, cells // a // b))
    atoms.rattle(0.1, seed=seed)
    return atoms


def loaded(path: Path) -> Any:
    """A model, with the operators it needs."""
    from metatomic.torch import load_atomistic_model

    with contextlib.suppress(ImportError):
        import sphericart.torch  # noqa: F401  (of metatrain's models: see time_model.py)
    beside = path.parent / "extensions"
    return load_atomistic_model(str(path), str(beside) if beside.is_dir() else None)


def caller(model: Any, atoms: Any, device: str) -> Callable[[], tuple[Any, Any]]:
    """A function that calls the model: energy and forces, everything on the device before."""
    import torch
    from metatomic.torch import ModelEvaluationOptions, ModelOutput, systems_to_torch
    from vesin.metatomic import compute_requested_neighbors

    dtype = getattr(torch, model.capabilities().dtype)
    model = model.to(device)
    fixed = systems_to_torch(atoms, dtype=dtype)
    compute_requested_neighbors(fixed, system_length_unit="angstrom", model=model)
    (options,) = model.requested_neighbor_lists()
    block = fixed.get_neighbor_list(options).to(device)
    outputs = {"energy": ModelOutput(unit="eV", sample_kind="system")}
    asked = ModelEvaluationOptions(length_unit="angstrom", outputs=outputs)
    from metatomic.torch import System, register_autograd_neighbors

    positions = fixed.positions.to(device)
    rest = {
        "types": fixed.types.to(device),
        "cell": fixed.cell.to(device),
        "pbc": fixed.pbc.to(device),
    }

    def call() -> tuple[Any, Any]:
        leaf = positions.detach().requires_grad_(True)
        system = System(positions=leaf, **rest)
        pairs = copy_of(block)
        register_autograd_neighbors(system, pairs)
        system.add_neighbor_list(options, pairs)
        energy = model([system], asked, check_consistency=False)["energy"].block().values
        (gradient,) = torch.autograd.grad(energy.sum(), leaf)
        return energy.detach(), -gradient

    def copy_of(block: Any) -> Any:
        from metatensor.torch import TensorBlock

        values = block.values.detach()
        return TensorBlock(values, block.samples, block.components, block.properties)

    return call


def model(context: Context) -> Iterator[Row]:
    """Time an atom takes."""
    import torch
    from metatomic_ase import MetatomicCalculator

    device, on_gpu = context.device, context.device == "cuda"

    def wait() -> None:
        if on_gpu:
            torch.cuda.synchronize()

    for name, path in exported(context):
        for n in SIZES[:1] if context.quick else SIZES:
            atoms = silicon(n)
            row: Row = {"model": name, "atoms": len(atoms)}
            calls = 3 if context.quick else 10
            try:
                if on_gpu:
                    torch.cuda.empty_cache()
                    torch.cuda.reset_peak_memory_stats()
                call = caller(loaded(path), atoms, device)
                times = []
                for _ in range(4 + calls):
                    begun = time.perf_counter()
                    call()
                    wait()
                    times.append(time.perf_counter() - begun)
                row["model alone, us an atom"] = 1e6 * median(times[4:]) / len(atoms)
                if on_gpu:
                    row["peak memory, MB"] = torch.cuda.max_memory_allocated() / 1e6
                beside = path.parent / "extensions"
                atoms.calc = MetatomicCalculator(
                    str(path), device=device,
                    extensions_directory=str(beside) if beside.is_dir() else None,
                )  # fmt: skip
                times = []
                for k in range(4 + calls):
                    atoms.rattle(0.005, seed=k)
                    begun = time.perf_counter()
                    atoms.get_potential_energy()
                    atoms.get_forces()
                    times.append(time.perf_counter() - begun)
                row["step in ASE, us an atom"] = 1e6 * median(times[4:]) / len(atoms)
            except (RuntimeError, ValueError) as error:
                said = [line.strip() for line in str(error).splitlines() if "rror" in line]
                row["failed"] = (said or str(error).strip().splitlines())[-1][:200]
            atoms.calc = call = None  # type: ignore[assignment]
            yield row


def agreement(context: Context) -> Iterator[Row]:
    """Largest differences between the two devices."""
    from ase.io import read

    crystal = silicon(64)
    molecule = read(context.data / "molecules-validation.xyz", "0")
    for name in OURS:
        for data, atoms in (("crystal", crystal), ("molecules", molecule)):
            for precision in (32, 64):
                path = context.model(name, data, precision)
                found = []
                for device in ("cpu", context.device):
                    call = caller(loaded(path), atoms, device)
                    for _ in range(3):
                        energy, forces = call()
                    found.append((float(energy), forces.cpu()))
                (e0, f0), (e1, f1) = found
                yield {
                    "model": name,
                    "structure": data,
                    "precision": precision,
                    "energy, relative": abs(e1 - e0) / abs(e0),
                    "energy, meV an atom": 1000 * abs(e1 - e0) / len(atoms),
                    "forces, relative": float((f1 - f0).abs().max() / f0.abs().max()),
                }


# -- restarts and processes -----------------------------------------------------------------------


def run(command: list[Any], folder: Path, **environment: str) -> tuple[int, str]:
    """Exit status and output of a command."""
    done = subprocess.run(
        [str(word) for word in command], cwd=folder, capture_output=True, text=True, timeout=200,
        env={**os.environ, **environment},
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def last_loss(folder: Path) -> float:
    """Training loss of the last epoch of the last run in a folder."""
    import csv

    path = max(folder.glob("outputs/*/*/train.csv"), key=lambda p: p.stat().st_mtime)
    rows = list(csv.DictReader(path.open()))
    column = next(c for c in rows[-1] if "training" in c and "loss" in c)
    return float(rows[-1][column])


def small(context: Context, name: str, device: str, epochs: int, **more: Any) -> dict[str, Any]:
    """A short training."""
    workload = Workload("small", 0, 16, ("forces",))
    options = options_of(name, workload, context.data, device, epochs, **more)
    options["final_eval"] = False
    return options


def restart(context: Context) -> Iterator[Row]:
    """Two epochs here and two there, against four here."""
    gpu = context.device
    for name in OURS:
        for first, second in ((gpu, "cpu"), ("cpu", gpu), (gpu, gpu)):
            losses = []
            for title, devices in (("parts", (first, second)), ("whole", (first,))):
                folder = context.folder(f"restart-{name}-{first}-{second}-{title}")
                checkpoint = None
                for k, device in enumerate(devices):
                    options = small(context, name, device, 4 if k == len(devices) - 1 else 2)
                    options["architecture"]["training"] |= {
                        "scheduler": "constant", "warmup_fraction": 0.0, "checkpoint_interval": 2,
                    }  # fmt: skip
                    watch = Watch(4, details=False)
                    train(options, folder, watch, restart=checkpoint)
                    checkpoint = next(folder.glob("outputs/*/*/model_2.ckpt"))
                losses.append(watch.losses[-1])
            yield {
                "architecture": name,
                "begun on": first,
                "gone on with on": second,
                "loss": losses[0],
                "loss in one go": losses[1],
                "relative": abs(losses[0] / losses[1] - 1),
            }


def shared(context: Context) -> Iterator[Row]:
    """What two processes on one GPU say, and whether they learn what one does."""
    losses: dict[int, float] = {}
    for n in (1, 2):
        folder = context.folder(f"shared-{n}")
        options = small(context, "soap-bpnn", context.device, 2)
        (folder / "options.yaml").write_text(json.dumps(options))
        command: list[Any] = [sys.executable, "-m", "atomtrain", "train", "options.yaml"]
        if n > 1:
            command[1:1] = ["-m", "torch.distributed.run", "--nproc-per-node", n]
        begun = time.perf_counter()
        status, said = run(command, folder, OMP_NUM_THREADS="1")
        context.keep(f"shared-{n}.log", said)
        row: Row = {"processes": n, "exit status": status, "s": time.perf_counter() - begun}
        if status == 0:
            losses[n] = row["loss"] = last_loss(folder)
            if n > 1:
                row["relative"] = abs(losses[n] / losses[1] - 1)
        else:
            row["said"] = next(
                (line for line in said.splitlines()[::-1] if "rror" in line), said[-200:]
            )
        yield row


# -- the report -----------------------------------------------------------------------------------


@dataclass
class Context:
    """Where everything is."""

    work: Path
    device: str
    quick: bool
    peer: str
    kept: Path

    @property
    def data(self) -> Path:
        """Structures."""
        return self.work / "data"

    def folder(self, name: str) -> Path:
        """An empty folder."""
        path = self.work / re.sub(r"[^a-zA-Z0-9.]+", "-", name)
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        return path

    def model(self, name: str, data: str, precision: int = 32) -> Path:
        """An exported model; trained for an epoch where there is none yet."""
        folder = self.work / f"model-{name}-{data}-{precision}"
        path = folder / "model.pt"
        if not path.exists():
            workload = Workload(data, 0, 8, ("forces",))
            options = options_of(name, workload, self.data, self.device, 1)
            for part in ("training_set", "validation_set"):
                options[part]["systems"]["read_from"] = str(self.data / f"{data}-validation.xyz")
            options["validation_set"] = 2
            options["base_precision"] = precision
            folder.mkdir(parents=True, exist_ok=True)
            train(options, folder, output="model.pt")
        return path

    def say(self, text: str) -> None:
        """For whoever looks on."""
        print(text, file=sys.stderr, flush=True)

    def keep(self, name: str, text: str) -> None:
        """For a look later."""
        if text:
            (self.kept / re.sub(r"[^a-zA-Z0-9.]+", "-", name)).write_text(text)


def prepare_data(context: Context, ethanol: Path, crystal: Path) -> None:
    """Write what is not there."""
    context.data.mkdir(parents=True, exist_ok=True)
    most = Counter[str]()
    for workload in workloads(context.quick):
        most[workload.data] = max(most[workload.data], workload.n_structures)
    for name, source in (("molecules", ethanol), ("crystal", crystal)):
        wanted = {f"{name}-training": most[name], f"{name}-validation": 16}
        if name == "molecules":
            wanted |= {"small-training": 64, "small-validation": 16}
        for title, n in wanted.items():
            path = context.data / f"{title}.xyz"
            if not path.exists():
                write_data(source, path, n)


def described() -> str:
    """The machine."""
    import torch

    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":", 1)[1] for line in info.open() if line.startswith("model name")]
        cpu = f"{names[0].strip()}, {len(names)} cores" if names else cpu
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{gpu}; {cpu}; Python {platform.python_version()}, torch {torch.__version__}"


def table(rows: list[Row]) -> str:
    """Rows with the same keys, more or less, as markdown."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    lines = ["| " + " | ".join(keys) + " |", "|" + "---|" * len(keys)]
    for row in rows:
        lines.append("| " + " | ".join(_shown(row.get(key, "")) for key in keys) + " |")
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=", ".join(PARTS)
    )
    parser.add_argument(
        "--device", default="cuda", help="cpu tries the script where there is no GPU"
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the script")
    parser.add_argument(
        "--ethanol", type=Path, default=EXAMPLES / "ethanol" / "ethanol.xyz", metavar="XYZ"
    )
    parser.add_argument(
        "--crystal", type=Path, default=EXAMPLES / "copper" / "copper.xyz", metavar="XYZ"
    )
    parser.add_argument("--work", type=Path, default=HERE.parent / "build" / "gpu")
    parser.add_argument("--mtt-python", default=sys.executable, help="a Python that has metatrain")
    parser.add_argument(
        "--output", type=Path, default=None, help="default: report.md in the work folder"
    )
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)  # in a process of its own
    parser.add_argument("--limit", type=float, default=None, help="seconds a part may take")
    return parser.parse_args()


def main() -> None:
    """Each part in a process of its own, then the report."""
    arguments = parse_arguments()
    work = arguments.work.resolve()
    output = (arguments.output or work / "report.md").resolve()
    output.parent.mkdir(parents=True, exist_ok=True)
    context = Context(work, arguments.device, arguments.quick, arguments.mtt_python, output.parent)
    if arguments.part:
        try:
            for row in globals()[arguments.part](context):
                print("ROW " + json.dumps(row), flush=True)
        except Exception:
            traceback.print_exc()
            sys.exit(1)
        return
    prepare_data(context, arguments.ethanol, arguments.crystal)
    report = ["# On a GPU", described()]
    for part in arguments.only:
        begun = time.perf_counter()
        command = [sys.executable, __file__, *sys.argv[1:], "--part", part]
        limit = arguments.limit or LIMIT.get(part, DEFAULT_LIMIT)
        log = output.parent / f"{part}.log"
        with log.open("w") as stream:
            try:
                status = subprocess.run(
                    command, stdout=stream, stderr=subprocess.STDOUT, timeout=limit, check=False
                ).returncode
                ended = "" if status == 0 else f"ended with exit status {status}"
            except subprocess.TimeoutExpired:
                ended = f"stopped after {limit:.0f} s"
        lines = log.read_text().splitlines()
        rows = [json.loads(line[4:]) for line in lines if line.startswith("ROW ")]
        report += [f"## {part}", table(rows)] if rows else [f"## {part}"]
        if ended:
            report.append(f"{ended}: {' / '.join(lines[-4:])[-600:]}")
        print(f"{part}: {time.perf_counter() - begun:.0f} s {ended}", flush=True)
        output.write_text("\n\n".join(report) + "\n")
    print("\n\n".join(report))


if __name__ == "__main__":
    main()
