"""What ``torchrun`` or Slurm say of the processes they started: how many, and which we are."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from atomtrain.errors import OptionsError


@dataclass(frozen=True)
class Launch:
    """We are ``rank`` of ``size`` processes that ``launcher`` started, ``local_rank`` of those on this machine.

    ``host`` and ``port`` are where the main process is found. ``job`` tells this training from others on the machine.
    ``agent``: torchrun has a store of its own at that port, so that the main process needs another.
    """

    launcher: str
    rank: int
    size: int
    local_rank: int
    host: str
    port: int
    job: str
    agent: bool = False


def launched(port: int | None = None) -> Launch | None:
    """Our place among the processes of a launcher; None where there is one process.

    ``port`` is that for Slurm's tasks, None for one that follows from the number of the job. Raises OptionsError for
    variables of a launcher that are incomplete or contradict each other.
    """
    return _by_torchrun(os.environ) or _by_slurm(os.environ, port)


def _by_torchrun(env: Mapping[str, str]) -> Launch | None:
    if "WORLD_SIZE" not in env and not ("RANK" in env and "MASTER_ADDR" in env):
        return None
    given = _Variables(env, "torchrun", "torchrun --standalone --nproc-per-node N -m atomtrain ...")
    size = given.number("WORLD_SIZE", least=1)
    if size == 1:
        return None
    rank = given.number("RANK", below=size)
    local = given.number("LOCAL_RANK", below=size) if "LOCAL_RANK" in env else 0
    host, port = given.text("MASTER_ADDR"), given.number("MASTER_PORT", least=1, below=65536)
    run = env.get("TORCHELASTIC_RUN_ID", f"{host}:{port}")
    job = f"{run}/{env.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    agent = env.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return Launch("torchrun", rank, size, local, host, port, job, agent)


def _by_slurm(env: Mapping[str, str], port: int | None) -> Launch | None:
    # An interactive Slurm allocation has SLURM_NTASKS too; only tasks get a SLURM_STEP_ID.
    if "SLURM_STEP_ID" not in env:
        return None
    given = _Variables(env, "Slurm", "srun -n N atomtrain ...")
    count = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in env else "SLURM_NTASKS"
    if count not in env and env.get("SLURM_PROCID", "0") == "0":
        return None
    size = given.number(count, least=1)
    if size == 1:
        return None
    rank = given.number("SLURM_PROCID", below=size)
    local = given.number("SLURM_LOCALID", below=size) if "SLURM_LOCALID" in env else 0
    job = f"{env.get('SLURM_JOB_ID', '0')}.{env['SLURM_STEP_ID']}"
    if "MASTER_PORT" in env:
        port = given.number("MASTER_PORT", least=1, below=65536)
    if port is None:  # below those that systems give away
        port = 12000 + zlib.crc32(job.encode()) % 20000
    return Launch("Slurm", rank, size, local, _main_host(env, given), port, job)


def _main_host(env: Mapping[str, str], given: _Variables) -> str:
    """The first host of a list such as ``node[007-012,020],login1``: there task 0 is."""
    if "MASTER_ADDR" in env:
        return env["MASTER_ADDR"]
    nodes = env.get("SLURM_STEP_NODELIST") or env.get("SLURM_NODELIST", "")
    if not nodes:
        if env.get("SLURM_STEP_NUM_NODES", env.get("SLURM_NNODES", "1")) != "1":
            given.text("SLURM_STEP_NODELIST")
        return "127.0.0.1"
    found = re.match(r"(?:[^,\[]|\[[^\]]*\])+", nodes)
    first = re.sub(r"\[(\w+)[^\]]*\]", r"\1", found[0] if found else "")
    if not re.fullmatch(r"[\w.:-]+", first):
        raise given.wrong(f"SLURM_STEP_NODELIST ('{nodes}') does not begin with the name of a host")
    return first


class _Variables:
    """Variables of a launcher; what is wrong with one is an OptionsError that says how to start instead."""

    def __init__(self, env: Mapping[str, str], launcher: str, how: str) -> None:
        self._env, self._launcher, self._how = env, launcher, how

    def wrong(self, problem: str) -> OptionsError:
        return OptionsError(
            f"the environment says that {self._launcher} started several processes, but {problem}; start them with "
            f"'{self._how}', or unset these variables to train with one"
        )

    def text(self, name: str) -> str:
        value = self._env.get(name, "")
        if not value:
            raise self.wrong(f"{name} is not set")
        return value

    def number(self, name: str, least: int = 0, below: int | None = None) -> int:
        text = self.text(name)
        try:
            value = int(text)
        except ValueError:
            raise self.wrong(f"{name} is '{text}', which is no number") from None
        if value < least or (below is not None and value >= below):
            to = "" if below is None else f" to {below - 1}"
            raise self.wrong(f"{name} is {value}, which is not within {least}{to or ' and more'}")
        return value
