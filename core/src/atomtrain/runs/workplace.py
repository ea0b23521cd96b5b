"""Where a training runs: its folder, device, precision, and the processes that share it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.console import Console

from atomtrain.report.console import logging_to
from atomtrain.runs.directory import new_run_directory, remove_if_empty
from atomtrain.runs.plan import Plan
from atomtrain.training import distributed
from atomtrain.training.device import choose_device, choose_dtype

log = logging.getLogger("atomtrain")


@dataclass(frozen=True)
class Workplace:
    """The ``directory`` of the run, device and dtype of the model, and our place among the processes."""

    directory: Path
    device: torch.device
    dtype: torch.dtype
    processes: distributed.Processes = field(default_factory=distributed.Processes)
    console: Console = field(default_factory=lambda: Console(quiet=True))


@contextmanager
def workplace(plan: Plan, outputs: Path) -> Iterator[Workplace]:
    """Make a folder below ``outputs``, join the other processes, and log there while the block runs.

    A folder with nothing in it but a log goes away again if the block fails. Raises DeviceError,
    OptionsError or OutputError.
    """
    options, info = plan.options, plan.architecture.info
    alone = distributed.tasks_in_environment()
    device = choose_device(options.device, info.devices, alone[1].local_rank if alone else 0)
    dtype = choose_dtype(options.base_precision, info.dtypes)
    if options.device == "multi-gpu":
        log.warning(
            "device: multi-gpu uses one GPU per process; start several with 'torchrun "
            "--nproc-per-node N -m atomtrain train ...'"
        )
    hypers = plan.hypers
    processes = distributed.start(hypers.distributed, hypers.distributed_port, device)
    main = processes.is_main
    console = Console(quiet=not main)
    try:
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
            except BaseException:
                if main:
                    remove_if_empty(directory)
                raise
    finally:
        distributed.stop(processes)
