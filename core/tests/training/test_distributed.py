"""Processes that a launcher started."""

from __future__ import annotations

import pytest
import torch

from atomtrain.options import TrainerHypers
from atomtrain.training import distributed


def test_distributed_port(monkeypatch: pytest.MonkeyPatch) -> None:
    slurm = {
        "NTASKS": "2",
        "PROCID": "1",
        "LOCALID": "1",
        "STEP_ID": "0",
        "NODELIST": "node7,node8",
    }
    environment = {f"SLURM_{name}": value for name, value in slurm.items()}
    monkeypatch.setattr(distributed.os, "environ", environment)  # what is set there is gone after
    started = []
    monkeypatch.setattr(
        distributed.dist, "init_process_group", lambda backend, **_: started.append(backend)
    )
    hypers = TrainerHypers(distributed_port=40001)
    processes = distributed.start(hypers.distributed, hypers.distributed_port, torch.device("cpu"))
    assert (processes.rank, processes.size, started) == (1, 2, ["gloo"])
    assert environment["MASTER_ADDR"] == "node7" and environment["MASTER_PORT"] == "40001"
