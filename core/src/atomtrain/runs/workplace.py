"""Where a training runs: its folder, device, precision, and the processes that share it."""

from __future__ import annotations

import logging
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from atomtrain._version import __version__
from atomtrain.errors import AtomtrainError, OptionsError
from atomtrain.options import BaseTrainerHypers, load_options
from atomtrain.report.console import logging_to
from atomtrain.runs.directory import check_outputs, new_run_directory, remove_if_empty
from atomtrain.runs.plan import Plan
from atomtrain.training import distributed
from atomtrain.training.device import choose_device, choose_dtype
from atomtrain.training.launcher import launched

log = logging.getLogger("atomtrain")


@dataclass(frozen=True)
class Workplace:
    """The ``directory`` of the run, device and dtype of the model, and our place among the processes.

    ``outputs`` has the folders of earlier runs, which checkpoints to go on from are looked for in; None: the run's own
    folder is two below it.
    """

    directory: Path
    device: torch.device
    dtype: torch.dtype
    processes: distributed.Processes = field(default_factory=distributed.Processes)
    console: Console = field(default_factory=lambda: Console(quiet=True))
    outputs: Path | None = None


@contextmanager
def together(
    options: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()
) -> Iterator[distributed.Processes]:
    """Our place among the processes a launcher started, if it did, while the block runs.

    To be entered before options are checked: an error in the block, or the end of a process, ends all of them. Raises
    OptionsError or ProcessesError.
    """
    asked = _asked(options, overrides)
    launch = launched(asked.distributed_port)
    if launch is None or asked.distributed is False:
        yield distributed.Processes()
        return
    with distributed.joined(launch, asked.distributed_timeout) as processes:
        yield processes


def _asked(options: str | Path | Mapping[str, Any], overrides: Sequence[str]) -> BaseTrainerHypers:
    """What the options say of processes, or the defaults where they are wrong: :func:`plan` will say it."""
    keys = ("distributed", "distributed_port", "distributed_timeout")
    try:
        training = load_options(options, overrides).architecture.training
        return BaseTrainerHypers(**{key: training[key] for key in keys if key in training})
    except (AtomtrainError, ValueError):
        return BaseTrainerHypers()


@contextmanager
def workplace(
    plan: Plan,
    outputs: Path,
    processes: distributed.Processes | None = None,
    *,
    passing: bool = False,
) -> Iterator[Workplace]:
    """Make a folder below ``outputs`` and log there while the block runs, with other ``processes`` if there are any.

    A folder with nothing in it but a log goes away again if the block fails. ``passing``: nothing is to be left
    behind; the folder is a temporary one of each process, and there is no log in it. Raises DeviceError, OptionsError,
    OutputError or ProcessesError.
    """
    options, info = plan.options, plan.architecture.info
    processes = processes or distributed.Processes()
    _check_distributed(plan, processes)
    processes.compare("versions", _versions(plan), "Install the same everywhere")
    processes.compare("options", _flat(plan.completed), "Give all the same options file")
    device = choose_device(options.device, info.devices, processes.local_rank)
    dtype = choose_dtype(options.base_precision, info.dtypes)
    if options.device == "multi-gpu":
        log.warning(
            "device: multi-gpu uses one GPU per process; start several with 'torchrun "
            "--standalone --nproc-per-node N -m atomtrain train ...'"
        )
    processes = distributed.start_group(processes, device)
    main = processes.is_main
    console = Console(quiet=not main)
    if passing:
        check_outputs(outputs)
        with (
            _unwinding(),
            tempfile.TemporaryDirectory(prefix="atomtrain-") as folder,
            logging_to(None, console, quiet=not main),
        ):
            yield Workplace(Path(folder), device, dtype, processes, console, outputs)
        return
    made = processes.broadcast(str(new_run_directory(outputs)) if main else "")
    directory = Path(made)
    with logging_to(directory / "train.log" if main else None, console, quiet=not main):
        if processes.by_cpu:
            log.warning(
                "several processes share a GPU, and what they sum goes through the CPU: one process for each "
                "GPU is quicker"
            )
        try:
            yield Workplace(directory, device, dtype, processes, console)
        except BaseException as error:
            log.debug(f"ended by {type(error).__name__}: {error}", exc_info=True)  # for the file
            if main:
                remove_if_empty(directory)
            raise


@contextmanager
def _unwinding() -> Iterator[None]:
    """SIGTERM ends the block as an error does, so that what it made goes away."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: object) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _check_distributed(plan: Plan, processes: distributed.Processes) -> None:
    """Raise OptionsError where tasks would train copies, or one was started where several are asked for."""
    asked = plan.hypers.distributed
    launch = launched(plan.hypers.distributed_port) if asked is False else None
    if launch is not None:
        raise OptionsError(
            f"{launch.launcher} started {launch.size} tasks but architecture.training.distributed is "
            "false: each would train a copy of the same model; start one task or leave the "
            "option out"
        )
    if asked and processes.size == 1:
        raise OptionsError(
            "architecture.training.distributed is true but only one process was started; start several with "
            "'torchrun --standalone --nproc-per-node N -m atomtrain train ...' or as "
            "Slurm tasks ('srun -n N atomtrain train ...'), or leave the option out"
        )


def _versions(plan: Plan) -> dict[str, str]:
    """What the processes are to have the same versions of."""
    architecture = plan.architecture.identity()
    return {
        "atomtrain": __version__,
        "torch": torch.__version__,
        **{f"{architecture['name']}: {k}": str(v) for k, v in architecture.items() if k != "name"},
    }


def _flat(section: Any, path: str = "") -> dict[str, str]:
    """Every value of nested data by its path, as text."""
    if isinstance(section, (dict, list, tuple)) and section:
        items = section.items() if isinstance(section, dict) else enumerate(section)
        inner = (_flat(value, f"{path}.{key}" if path else str(key)) for key, value in items)
        return {k: v for part in inner for k, v in part.items()}
    return {path: repr(section)}
