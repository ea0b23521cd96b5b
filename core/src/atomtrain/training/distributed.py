"""Several processes that train one model: who am I, and sums over all of us.

Started by ``torchrun`` or as Slurm tasks. Every batch is shared out among the processes and loss
and gradients are summed with the counts of the whole batch, so that any number of processes gives
what one gives, up to rounding. Whatever ends one of them ends all, with a message of who it was (:mod:`.lines`).
"""

from __future__ import annotations

import atexit
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from atomtrain.errors import ProcessesError, first_line
from atomtrain.training.launcher import Launch
from atomtrain.training.lines import ANSWER, GRACE, TOGETHER, Hub, Line


def how_to_go_on(checkpoint: Path) -> str:
    """A sentence for the end of an error."""
    return f"The last checkpoint is '{checkpoint}'; go on with: atomtrain train ... --restart {checkpoint}"


@dataclass(frozen=True)
class Processes:
    """``rank`` of ``size`` processes; ``local_rank`` numbers those of one machine.

    Where one of the others failed, died or does not come in time, whatever waits for it raises ProcessesError.
    ``by_cpu``: what is summed goes through the CPU, since two of them have the same GPU, which NCCL refuses.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    line: Line | None = None
    """to the main process; None where we are alone"""
    by_cpu: bool = False

    @property
    def is_main(self) -> bool:
        """The one process that writes files and prints."""
        return self.rank == 0

    def compare(self, what: str, values: Mapping[str, str], remedy: str) -> None:
        """Raise ProcessesError, saying what differs where, unless all have the same ``values``."""
        if self.line is not None:
            self.line.compare(what, values, remedy)

    def remember(self, checkpoint: Path) -> None:
        """Say that this checkpoint is the last where one of us ends the training of all."""
        if self.line is not None:
            self.line.hint = how_to_go_on(checkpoint)

    @contextmanager
    def _meeting(self) -> Iterator[None]:
        """Around a message among all."""
        if self.line is not None:
            self.line.met += 1
        try:
            yield
        except RuntimeError as error:  # of torch.distributed, and of gloo and nccl below it
            if self.line is None:
                raise
            raise self.line.lost(error) from error

    def sum_(self, tensor: Tensor) -> Tensor:
        """Sum over all processes, in place; of truth values, whether any is true."""
        if self.size > 1:
            whole = tensor.to(torch.int64) if tensor.dtype == torch.bool else tensor.contiguous()
            whole = self._there(whole)
            with self._meeting():
                dist.all_reduce(whole)
            if whole is not tensor:
                tensor.copy_(whole)
        return tensor

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Sum the gradients of all processes in one message; a missing one counts as zero."""
        if self.size == 1:
            return
        parameters = list(parameters)
        for p in parameters:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
        flat = torch.cat([p.grad.reshape(-1) for p in parameters if p.grad is not None])
        self.sum_(flat)
        start = 0
        for p in parameters:
            p.grad = flat[start : start + p.numel()].view_as(p)
            start += p.numel()

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """The tensors of all processes, in the order of their ranks; sizes of the first axis may differ."""
        if self.size == 1:
            return [tensor]
        device, tensor = tensor.device, self._there(tensor)
        length = torch.tensor(len(tensor), device=tensor.device)
        lengths = [torch.zeros_like(length) for _ in range(self.size)]
        with self._meeting():
            dist.all_gather(lengths, length)
        longest = int(max(lengths))
        padded = tensor.new_zeros((longest, *tensor.shape[1:]))
        padded[: len(tensor)] = tensor
        # bytes: not every backend knows every type
        mine = padded.contiguous().view(-1).view(torch.uint8)
        found = [torch.empty_like(mine) for _ in range(self.size)]
        with self._meeting():
            dist.all_gather(found, mine)
        return [
            one.view(tensor.dtype).view(padded.shape)[: int(n)].to(device)
            for one, n in zip(found, lengths, strict=True)
        ]

    def broadcast_(self, tensor: Tensor) -> Tensor:
        """Make it the main process's, in place; shape and type are the same everywhere."""
        if self.size > 1:
            mine = self._there(tensor.detach().contiguous()).view(-1).view(torch.uint8)
            with self._meeting():
                dist.broadcast(mine, src=0)
            tensor.copy_(mine.view(tensor.dtype).view(tensor.shape))
        return tensor

    def broadcast(self, value: str) -> str:
        """The main process's string, in every process."""
        if self.size == 1:
            return value
        box = [value]
        with self._meeting():
            dist.broadcast_object_list(box, src=0)
        return box[0]

    def barrier(self) -> None:
        """Wait for all."""
        if self.size > 1:
            with self._meeting():
                dist.barrier()

    def _there(self, tensor: Tensor) -> Tensor:
        """Where collectives can take it from."""
        return tensor.cpu() if self.by_cpu else tensor


@contextmanager
def joined(launch: Launch, patience: float) -> Iterator[Processes]:
    """Join the other processes while the block runs; an error in it, or the end of a process, ends all of them.

    ``patience`` is how many seconds processes wait for one another. Raises ProcessesError where others do not come,
    fail, die, or differ.
    """
    hub: Hub | None = None
    if launch.rank == 0:
        own = _store("127.0.0.1", 0, True)  # is there as long as this function
        hub = Hub(launch, patience, own.port)
    line: Line | None = None
    failed = True
    try:
        line = Line(launch, _address(launch, hub, patience), patience)
        with _terminated_by(line):
            yield Processes(launch.rank, launch.size, launch.local_rank, line)
            failed = False
            line.leave(None)
    except BaseException as error:
        raised = error if line is None else line.leave(error)
        if raised is None or raised is error:
            raise
        raise raised from error
    finally:
        _leave_group(failed)
        if hub is not None:
            hub.close(failed)


@contextmanager
def _terminated_by(line: Line) -> Iterator[None]:
    """Have a SIGTERM outside the steps of a training, which handle it themselves, end in an error as others do."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    until = math.inf

    def handle(number: int, frame: FrameType | None) -> None:
        if time.monotonic() < until:
            line.terminated()
        else:
            signal.signal(signal.SIGTERM, before)
            signal.raise_signal(signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    except BaseException:
        until = time.monotonic() + GRACE  # until the error was said
        raise
    signal.signal(signal.SIGTERM, before)


def start_group(processes: Processes, device: torch.device) -> Processes:
    """Let torch send tensors among the processes, where there are several; ``device`` is what this one computes on."""
    line = processes.line
    if line is None:
        return processes
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # numbers of the CPU are summed without a GPU's knowing of it
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    # later than the hub, which can say who it was that did not come
    timeout = timedelta(seconds=line.patience + 3 * ANSWER)
    try:
        store = dist.PrefixStore("group", _store(*line.store, False))  # type: ignore[attr-defined]
        dist.init_process_group(
            backend, store=store, rank=processes.rank, world_size=processes.size, timeout=timeout
        )
        return replace(processes, by_cpu=_share_a_gpu(device, processes))
    except RuntimeError as error:
        raise line.lost(error) from error


def _share_a_gpu(device: torch.device, processes: Processes) -> bool:
    """Whether two of the processes compute on the same GPU."""
    if device.type != "cuda":
        return False
    mine = f"{socket.gethostname()} {torch.cuda.get_device_properties(device).uuid}"
    all_: list[str] = [""] * processes.size
    dist.all_gather_object(all_, mine)
    return len(set(all_)) < processes.size


def _leave_group(failed: bool) -> None:
    if not dist.is_initialized():
        return
    if not failed:
        dist.destroy_process_group()
        return
    leaving = threading.Thread(target=_abandon_group, daemon=True)
    leaving.start()
    leaving.join(ANSWER)
    if leaving.is_alive():  # it waits for who is gone, and so would the interpreter's end
        atexit.register(os._exit, 1)


def _abandon_group() -> None:
    with suppress(Exception):
        dist.destroy_process_group()


def _store(host: str, port: int, is_main: bool) -> Any:
    """A store of torch's: one of our own, or the one that is there."""
    return dist.TCPStore(host, port, None, is_main, timedelta(seconds=TOGETHER), False)  # type: ignore[attr-defined]


def _address(launch: Launch, hub: Hub | None, patience: float) -> tuple[str, int]:
    """Where the hub is: at the port of the launch, or, where torchrun's store is there, as that says."""
    if not launch.agent:
        return (launch.host, launch.port) if hub is None else ("127.0.0.1", hub.port)
    try:
        store = _store(launch.host, launch.port, False)
        if hub is not None:
            store.set(f"atomtrain/{launch.job}", f"{_own_host(launch)} {hub.port}")
            return "127.0.0.1", hub.port
        store.set_timeout(timedelta(seconds=min(TOGETHER, patience)))
        host, port = store.get(f"atomtrain/{launch.job}").decode().split()
    except RuntimeError as error:
        raise ProcessesError(
            f"rank 0 of {launch.size} did not come, or the store of torchrun at {launch.host}:{launch.port} is gone: "
            f"{first_line(error)}"
        ) from error
    return host, int(port)


def _own_host(launch: Launch) -> str:
    """How other hosts call this one: by the address from which it reaches torchrun's store."""
    with socket.create_connection((launch.host, launch.port), timeout=ANSWER) as one:
        own: str = one.getsockname()[0]
    return launch.host if own.startswith("127.") or own == "::1" else own
