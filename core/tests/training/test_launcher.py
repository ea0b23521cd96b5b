"""What launchers say in the environment: as it is, incomplete, contradictory."""

from __future__ import annotations

import pytest

from atomtrain.errors import OptionsError
from atomtrain.training import launcher
from atomtrain.training.launcher import launched

TORCHRUN = {
    "WORLD_SIZE": "2",
    "RANK": "1",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "node7",
    "MASTER_PORT": "29500",
}
SLURM = {
    "SLURM_STEP_ID": "0",
    "SLURM_JOB_ID": "77",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    found: dict[str, str] = {}
    monkeypatch.setattr(launcher.os, "environ", found)
    return found


def test_alone(environment: dict[str, str]) -> None:
    assert launched() is None
    environment.update(TORCHRUN | {"WORLD_SIZE": "1"})
    assert launched() is None
    environment.clear()
    environment.update(SLURM)
    del environment["SLURM_STEP_ID"]  # of an allocation, not of a task
    assert launched() is None
    environment.clear()
    environment["RANK"] = "3"  # may be anybody's
    assert launched() is None


def test_torchrun(environment: dict[str, str]) -> None:
    environment.update(TORCHRUN, TORCHELASTIC_USE_AGENT_STORE="True", TORCHELASTIC_RUN_ID="a")
    found = launched()
    assert found is not None
    assert (found.rank, found.size, found.local_rank, found.host, found.port) == (1, 2, 1, "node7", 29500)  # fmt: skip
    assert found.agent and found.job == "a/0"


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        ("node7,node8", "node7"),
        ("node[007-012,020],login1", "node007"),
        ("rack[2-3]n[04,06-08]", "rack2n04"),
        ("a-[3]-ib,b", "a-3-ib"),
        ("localhost", "localhost"),
    ],
)
def test_the_first_host_of_slurm_is_found_without_its_programs(
    environment: dict[str, str], nodes: str, host: str
) -> None:
    environment.update(SLURM, SLURM_NODELIST=nodes)
    found = launched()
    assert found is not None and found.host == host
    again = launched(40001)
    assert again is not None and again.port == 40001
    environment["SLURM_JOB_ID"] = "78"
    other = launched()
    assert other is not None and other.port != found.port and 12000 <= other.port < 32000


def test_a_step_with_fewer_tasks_than_the_job(environment: dict[str, str]) -> None:
    environment.update(SLURM, SLURM_STEP_NUM_TASKS="3", SLURM_PROCID="2")
    found = launched()
    assert found is not None and (found.rank, found.size) == (2, 3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (TORCHRUN | {"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two', which is no number"),
        (TORCHRUN | {"WORLD_SIZE": "0"}, "WORLD_SIZE is 0, which is not within 1 and more"),
        (TORCHRUN | {"RANK": "2"}, "RANK is 2, which is not within 0 to 1"),
        (TORCHRUN | {"RANK": ""}, "RANK is not set"),
        (TORCHRUN | {"LOCAL_RANK": "-1"}, "LOCAL_RANK is -1"),
        (TORCHRUN | {"MASTER_ADDR": ""}, "MASTER_ADDR is not set"),
        (TORCHRUN | {"MASTER_PORT": "99999"}, "MASTER_PORT is 99999, which is not within 1 to 65535"),
        ({"RANK": "1", "MASTER_ADDR": "node7"}, "WORLD_SIZE is not set"),
        (SLURM | {"SLURM_NTASKS": "2(x2)"}, r"SLURM_NTASKS is '2\(x2\)', which is no number"),
        (SLURM | {"SLURM_PROCID": "2"}, "SLURM_PROCID is 2"),
        (SLURM | {"SLURM_PROCID": ""}, "SLURM_PROCID is not set"),
        (SLURM | {"SLURM_NTASKS": ""}, "SLURM_NTASKS is not set"),
        (SLURM | {"SLURM_LOCALID": "x"}, "SLURM_LOCALID is 'x'"),
        (SLURM | {"SLURM_NNODES": "2"}, "SLURM_STEP_NODELIST is not set"),
        (SLURM | {"SLURM_NODELIST": "[1-2"}, r"SLURM_STEP_NODELIST \('\[1-2'\) does not begin"),
        (SLURM | {"MASTER_PORT": "p"}, "MASTER_PORT is 'p'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_the_remedy(
    environment: dict[str, str], given: dict[str, str], message: str
) -> None:
    environment.update(given)
    with pytest.raises(OptionsError, match=f"{message}.*(torchrun --standalone|srun -n N).*unset"):
        launched()
