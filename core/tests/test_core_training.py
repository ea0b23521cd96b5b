"""Checkpoints, losses, schedules, devices: the parts of the engine one by one."""

from __future__ import annotations

import math
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from core_structures import energy_info

from atomtrain.errors import CheckpointError, DeviceError, OutputError
from atomtrain.files import replacing
from atomtrain.options import TrainerHypers
from atomtrain.runs.directory import check_writable, newest_checkpoint
from atomtrain.training.checkpoint import (
    FORMAT,
    FORMAT_VERSION,
    load_checkpoint,
    save_checkpoint,
)
from atomtrain.training.device import choose_device, choose_dtype
from atomtrain.training.metrics import ErrorSums, score
from atomtrain.training.observers import Observer, Observers
from atomtrain.training.optimisation import AveragedWeights, learning_rate_factor
from atomtrain.training.terms import loss_terms

BASE = {"format": FORMAT, "format_version": FORMAT_VERSION}


def test_round_trip_copies_views(tmp_path: Path) -> None:
    large = torch.arange(1_000_000.0)
    save_checkpoint({**BASE, "w": large[:3], "t": (1, None, "x")}, tmp_path / "a.ckpt")
    assert (tmp_path / "a.ckpt").stat().st_size < 10_000
    loaded = load_checkpoint(tmp_path / "a.ckpt")
    assert torch.equal(loaded["w"], large[:3]) and loaded["t"] == [1, None, "x"]


def test_what_cannot_be_loaded_is_not_saved(tmp_path: Path) -> None:
    save_checkpoint({**BASE, "n": 1}, tmp_path / "a.ckpt")
    with pytest.raises(TypeError, match="tensors and plain data only, not pathlib"):
        save_checkpoint({**BASE, "p": tmp_path}, tmp_path / "a.ckpt")
    assert load_checkpoint(tmp_path / "a.ckpt")["n"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.ckpt"]


def test_a_failed_write_leaves_the_previous_file(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("old")
    with pytest.raises(RuntimeError, match="no"), replacing(file) as temporary:
        temporary.write_text("half")
        raise RuntimeError("no")
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]
    with pytest.raises(OutputError, match="cannot write"), replacing(tmp_path / "no" / "a"):
        pass


@pytest.mark.parametrize("cut", [0, 100, 0.5, 0.99])
def test_cut_off_files(tmp_path: Path, cut: float) -> None:
    path = tmp_path / "a.ckpt"
    save_checkpoint({**BASE, "w": torch.ones(1000)}, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(cut if cut > 1 else cut * len(data))])
    with pytest.raises(CheckpointError, match=r"is not a checkpoint|is damaged"):
        load_checkpoint(path)


def test_newest_checkpoint_must_match(tmp_path: Path) -> None:
    for k, seed in enumerate((1, 1, 2)):
        folder = tmp_path / "day" / str(k)
        folder.mkdir(parents=True)
        options = {"seed": seed, "architecture": {"training": {"num_epochs": k}}, "wandb": None}
        save_checkpoint({**BASE, "options": options, "k": k}, folder / "a.ckpt")
        os.utime(folder / "a.ckpt", (k, k))
    wanted = {
        "seed": 1,
        "architecture": {"training": {"num_epochs": 9}},
        "observers": {"wandb": {}},
    }
    found = newest_checkpoint(tmp_path, wanted, lambda one: one)
    assert found is not None and found[1]["k"] == 1
    assert newest_checkpoint(tmp_path, {**wanted, "seed": 3}, lambda one: one) is None


def test_losses_are_sums_over_counts() -> None:
    hypers = TrainerHypers(loss={"energy": {"weight": 2.0, "forces": {"type": "mae"}}})
    energy, forces, strain = loss_terms(energy_info(), hypers)
    assert [t.key for t in (energy, forces, strain)] == ["energy", "energy:forces", "energy:strain"]
    n_atoms = torch.tensor([3.0, 5.0])
    prediction, label = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [5.0]])
    numerator, count = energy(prediction, label, None, n_atoms)
    assert (float(numerator), count) == (2 * (1 + 9), 2)
    mask = torch.tensor([[True], [False]])
    numerator, count = energy(prediction, label, mask, n_atoms)
    assert (float(numerator), int(count)) == (2.0, 1)
    numerator, _ = forces(torch.tensor([[1.0, -2.0, 0.0]]), torch.zeros(1, 3), None, n_atoms)
    assert float(numerator) == 3.0
    whole = loss_terms(energy_info(), TrainerHypers(per_structure_targets=["energy"]))[0]
    numerator, _ = whole(prediction, label, None, n_atoms)
    assert float(numerator) == 9 * 1 + 25 * 9


def test_errors_and_scores() -> None:
    sums = ErrorSums(["a", "b"], torch.device("cpu"))
    sums.add("a", torch.tensor([[3.0], [4.0]]), None)
    sums.add("a", torch.tensor([[100.0], [5.0]]), torch.tensor([[False], [True]]))
    results = sums.results()
    assert results["a"] == {"rmse": math.sqrt(50 / 3), "mae": 4.0, "count": 3.0}
    assert results["b"]["count"] == 0 and math.isnan(results["b"]["rmse"])
    assert score("mae_prod", 0.0, results) == 4.0
    assert score("loss", 7.0, results) == 7.0


def test_schedule() -> None:
    rates = [learning_rate_factor(k, 100, 0.1, "cosine") for k in range(100)]
    assert rates[0] == 0.0 and rates[5] == 0.5 and rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5) and rates[99] < 0.001
    assert learning_rate_factor(90, 100, 0.1, "constant") == 1.0


def test_averaged_weights() -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    average = AveragedWeights([weight], 0.9)
    weight.data.fill_(1.0)
    average.update()
    average.swap()
    assert float(weight.detach()) == pytest.approx(0.1)
    average.swap()
    assert float(weight.detach()) == 1.0


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_device(None, ("cuda", "cpu")).type in ("cuda", "cpu")
    assert choose_dtype(64, ("float32", "float64")) == torch.float64
    with pytest.raises(DeviceError, match="does not run on 'mps'"):
        choose_device("mps", ("cuda", "cpu"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="'gpu' is not available on this machine"):
        choose_device("gpu", ("cuda", "cpu"))


def test_a_failing_observer_is_dropped_once(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Observer):
        pass

    heard: list[str] = []
    observers = Observers([Broken(), Observer()])

    def event(observer: Observer) -> None:
        heard.append(type(observer).__name__)
        if isinstance(observer, Broken):
            raise ValueError("out of paper")

    observers.tell(event)
    observers.tell(event)
    assert heard == ["Broken", "Observer", "Observer"]
    assert (
        "Broken failed and hears no more of this training: ValueError: out of paper" in caplog.text
    )


def test_processes_look_whether_they_can_write_at_once(tmp_path: Path) -> None:
    """All processes of a run do, in the same moment; none may trip over another's trial."""
    path = tmp_path / "model.pt"
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(check_writable, path) for _ in range(2000)]:
            done.result()
    assert not list(tmp_path.iterdir())
