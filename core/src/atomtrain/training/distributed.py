"""Several processes that train one model: who am I, and sums over all of us.

Started by ``torchrun`` or as Slurm tasks. Every batch is shared out among the processes and loss
and gradients are summed with the counts of the whole batch, so that any number of processes gives
what one gives, up to rounding.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from atomtrain.errors import OptionsError


@dataclass(frozen=True)
class Processes:
    """``rank`` of ``size`` processes; ``local_rank`` numbers those of one machine.

    ``by_cpu``: what is summed goes through the CPU, since two of them have the same GPU, which NCCL refuses.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    by_cpu: bool = False

    @property
    def is_main(self) -> bool:
        """The one process that writes files and prints."""
        return self.rank == 0

    def sum_(self, tensor: Tensor) -> Tensor:
        """Sum over all processes, in place; of truth values, whether any is true."""
        if self.size > 1:
            whole = tensor.to(torch.int64) if tensor.dtype == torch.bool else tensor.contiguous()
            whole = self._there(whole)
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
        dist.all_gather(lengths, length)
        longest = int(max(lengths))
        padded = tensor.new_zeros((longest, *tensor.shape[1:]))
        padded[: len(tensor)] = tensor
        # bytes: not every backend knows every type
        mine = padded.contiguous().view(-1).view(torch.uint8)
        found = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(found, mine)
        return [
            one.view(tensor.dtype).view(padded.shape)[: int(n)].to(device)
            for one, n in zip(found, lengths, strict=True)
        ]

    def broadcast_(self, tensor: Tensor) -> Tensor:
        """Make it the main process's, in place; shape and type are the same everywhere."""
        if self.size > 1:
            mine = self._there(tensor.detach().contiguous()).view(-1).view(torch.uint8)
            dist.broadcast(mine, src=0)
            tensor.copy_(mine.view(tensor.dtype).view(tensor.shape))
        return tensor

    def broadcast(self, value: str) -> str:
        """The main process's string, in every process."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def barrier(self) -> None:
        """Wait for all."""
        if self.size > 1:
            dist.barrier()

    def _there(self, tensor: Tensor) -> Tensor:
        """Where collectives can take it from."""
        return tensor.cpu() if self.by_cpu else tensor


def tasks_in_environment() -> tuple[str, Processes] | None:
    """The launcher (``torchrun`` or ``Slurm``) and our place in it; None if started alone."""
    for launcher, size, rank, local in (
        ("torchrun", "WORLD_SIZE", "RANK", "LOCAL_RANK"),
        ("Slurm", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID"),
    ):
        # An interactive Slurm allocation sets SLURM_NTASKS too; only tasks get a SLURM_STEP_ID.
        if launcher == "Slurm" and "SLURM_STEP_ID" not in os.environ:
            continue
        if int(os.environ.get(size, "1")) > 1 and rank in os.environ:
            return launcher, Processes(
                int(os.environ[rank]), int(os.environ[size]), int(os.environ.get(local, "0"))
            )
    return None


def start(distributed: bool | None, port: int, device: torch.device) -> Processes:
    """Join the other processes, if there are any; ``device`` is what this one computes on.

    ``distributed`` None means: if several were started. Raises OptionsError where several tasks
    were started but told not to work together (each would train its own copy), or the reverse.
    """
    found = tasks_in_environment()
    if found is None:
        if distributed:
            raise OptionsError(
                "architecture.training.distributed is true but only one process was started; "
                "start several with 'torchrun --nproc-per-node N -m atomtrain train ...' or as "
                "Slurm tasks ('srun -n N atomtrain train ...'), or leave the option out"
            )
        return Processes()
    launcher, processes = found
    if distributed is False:
        raise OptionsError(
            f"{launcher} started {processes.size} tasks but architecture.training.distributed is "
            "false: each would train a copy of the same model; start one task or leave the "
            "option out"
        )
    if launcher == "Slurm":
        os.environ.setdefault("MASTER_ADDR", _slurm_main_host())
        os.environ.setdefault("MASTER_PORT", str(port))
        os.environ["RANK"], os.environ["WORLD_SIZE"] = str(processes.rank), str(processes.size)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # numbers of the CPU are summed without a GPU's knowing of it
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, timeout=timedelta(minutes=30))
    return replace(processes, by_cpu=_share_a_gpu(device, processes))


def _share_a_gpu(device: torch.device, processes: Processes) -> bool:
    """Whether two of the processes compute on the same GPU."""
    if device.type != "cuda":
        return False
    mine = f"{socket.gethostname()} {torch.cuda.get_device_properties(device).uuid}"
    all_: list[str] = [""] * processes.size
    dist.all_gather_object(all_, mine)
    return len(set(all_)) < processes.size


def stop(processes: Processes) -> None:
    """Leave the group."""
    if processes.size > 1 and dist.is_initialized():
        dist.destroy_process_group()


def _slurm_main_host() -> str:
    nodes = os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_NODELIST", "")
    if not nodes or nodes in ("localhost", "127.0.0.1"):
        return "127.0.0.1"
    if "[" not in nodes:
        return nodes.split(",")[0]
    names = subprocess.run(
        ["scontrol", "show", "hostnames", nodes], capture_output=True, text=True, check=True
    )
    return names.stdout.split()[0]
