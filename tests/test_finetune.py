"""Fine-tuning that does not forget: additions of low rank, old structures seen again, heads side by side."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from torch import Tensor

from atomtrain import api
from atomtrain.errors import AtomtrainError
from atomtrain.model import Predictor
from atomtrain.plugins.restore import restore
from atomtrain.runs import plan, prepare, workplace
from atomtrain.training.checkpoint import load_checkpoint, save_checkpoint
from atomtrain.training.distributed import Processes
from atomtrain.training.run import TrainingOutcome
from atomtrain_testing.predictions import graph_of, predict

MODELS: dict[str, dict[str, Any]] = {
    "soap-bpnn": {
        "soap": {"max_angular": 2, "max_radial": 2, "cutoff": {"radius": 4.0}},
        "bpnn": {"num_neurons_per_layer": 8, "layernorm": False},
    },
    "ace": {
        "cutoff": 4.0, "num_radial": 4, "max_degree": 2, "num_channels": 6, "num_neurons": 8
    },
}  # fmt: skip
ENERGY = {"energy": {"key": "energy", "unit": "eV", "forces": True, "stress": True}}
OTHER = {"energy/emt": ENERGY["energy"]}


def crystal(seed: int, kinds: tuple[int, ...], a: float) -> Atoms:
    rng = np.random.default_rng(seed)
    atoms = bulk("Cu", "fcc", a=a, cubic=True)
    atoms.numbers[:] = rng.permutation([*kinds, *kinds])[:4]
    atoms.positions += 0.08 * rng.normal(size=atoms.positions.shape)
    atoms.calc = EMT()
    found = {
        "energy": atoms.get_potential_energy(),
        "forces": atoms.get_forces(),
        "stress": atoms.get_stress(),
    }
    atoms.calc = SinglePointCalculator(atoms, **found)
    return atoms


def section(name: str, targets: dict[str, Any] = ENERGY) -> dict[str, Any]:
    return {"systems": {"read_from": name, "length_unit": "angstrom"}, "targets": targets}


def options(architecture: str, sections: list[dict[str, Any]], **training: Any) -> dict[str, Any]:
    return {
        "seed": 1,
        "base_precision": 64,
        "architecture": {
            "name": architecture,
            "model": MODELS[architecture],
            "training": {"num_epochs": 2, "batch_size": 4, "log_interval": 1, **training},
        },
        "training_set": sections,
        "validation_set": 0.25,
        "final_eval": {"report": False},
    }


def train(given: dict[str, Any], restart: str | None = None) -> TrainingOutcome:
    """Up to the weights, without an export."""
    planned = plan(given)
    with workplace(planned, Path("outputs"), Processes()) as place:
        return prepare(planned, place, restart).train()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Old and new crystals, those with another element, and a trained model of each architecture."""
    folder = tmp_path_factory.mktemp("base")
    for name, kinds, a, n in (
        ("old", (29, 79), 3.8, 16),
        ("new", (29, 79), 3.82, 8),
        ("silver", (29, 47), 3.85, 8),
    ):
        frames = [crystal(100 * len(name) + k, kinds, a) for k in range(n)]
        ase.io.write(folder / f"{name}.xyz", frames)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in MODELS:
            done = train(options(name, [section("old.xyz")]))
            save_checkpoint(done.checkpoint, folder / f"{name}.ckpt")
    return folder


@pytest.fixture(autouse=True)
def _there(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(base)


def tune(
    architecture: str, sections: list[dict[str, Any]], training: dict[str, Any], **finetune: Any
) -> TrainingOutcome:
    given = {"read_from": f"{architecture}.ckpt", **finetune}
    return train(options(architecture, sections, **{**training, "finetune": given}))


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[n].numpy().tobytes() == b[n].numpy().tobytes() for n in a)


def predicted(checkpoint: dict[str, Any], target: str = "energy", file: str = "old.xyz") -> Tensor:
    predictor: Predictor = restore(checkpoint, "export").predictor
    frames = ase.io.read(file, index=":4")
    with torch.no_grad():
        return predictor(graph_of(predictor.model, frames), [target])[target][0]


@pytest.mark.parametrize(
    ("architecture", "method"),
    [*((("ace"), method) for method in ("full", "heads", "lora", "replay")), ("soap-bpnn", "lora")],
)
def test_no_epochs_are_the_identity(architecture: str, method: str) -> None:
    """Weights, composition and scale, to the last bit."""
    before = load_checkpoint(f"{architecture}.ckpt")
    sections = [section("new.xyz"), section("old.xyz")]
    after = tune(architecture, sections, {"num_epochs": 0, "ema_decay": 0.9}, method=method)
    assert same(after.checkpoint["model"]["last"], before["model"]["best"])
    assert same(after.checkpoint["core"]["affine"], before["core"]["affine"])
    assert torch.equal(predicted(after.checkpoint), predicted(before))


@pytest.mark.parametrize("architecture", MODELS)
def test_additions_of_low_rank(architecture: str) -> None:
    """What changes is of the rank that was asked for, vectors stay, and a restart goes on to the last bit."""
    weights = (
        ["*first*", "network.layers.?.weight"]
        if architecture == "soap-bpnn"
        else ["first", "third"]
    )
    lora = {"rank": 2, "weights": weights}
    training = {"num_epochs": 3, "ema_decay": 0.5, "checkpoint_interval": 1, "learning_rate": 0.01}
    done = tune(architecture, [section("new.xyz")], training, method="lora", lora=lora)
    before = load_checkpoint(f"{architecture}.ckpt")["model"]["best"]
    after = done.checkpoint["model"]["last"]
    moved = {n for n in before if not torch.equal(before[n], after[n])}
    assert len(moved) == 2
    for name in moved:
        change = (after[name] - before[name]).double()
        values = torch.linalg.svdvals(change.reshape(-1, *change.shape[-2:]))
        assert bool((values[..., 2:] < 1e-5 * values[..., :1].max()).all()), name
        assert bool((values[..., 0] > 0).any())

    interrupted = sorted(Path("outputs").glob("*/*/model_1.ckpt"), key=lambda p: p.stat().st_mtime)
    given = {"read_from": f"{architecture}.ckpt", "method": "lora", "lora": lora}
    again = train(
        options(architecture, [section("new.xyz")], **{**training, "finetune": given}),
        str(interrupted[-1]),
    )
    assert same(again.checkpoint["model"]["last"], after)
    assert same(again.best_weights, done.best_weights)


@pytest.mark.parametrize("architecture", MODELS)
def test_new_elements_are_trained_beside_additions(architecture: str) -> None:
    """Weights of the new element are free; those of old elements change by matrices of rank 1."""
    done = tune(
        architecture, [section("silver.xyz"), section("old.xyz")], {"learning_rate": 0.01},
        method="lora", lora={"rank": 1}, replay={"share": 0.5, "weight": 0.5},
    )  # fmt: skip
    new = done.checkpoint["began"]["new"]
    before = load_checkpoint(f"{architecture}.ckpt")
    start = tune(
        architecture, [section("silver.xyz"), section("old.xyz")], {"num_epochs": 0}, method="lora"
    )
    assert torch.equal(predicted(start.checkpoint)[:1].isfinite(), predicted(before)[:1].isfinite())
    name = "network.layers.0.weight" if architecture == "soap-bpnn" else "pair"
    change = (
        done.checkpoint["model"]["last"][name] - start.checkpoint["model"]["last"][name]
    ).double()
    free = new[name]
    assert bool(free.any()) and not bool(free.all())
    assert bool((change[free] != 0).any())
    if architecture == "soap-bpnn":  # one matrix for each element, of which silver's is the second
        ranks = torch.linalg.matrix_rank(change, rtol=1e-4).tolist()
        assert ranks[0] <= 1 and ranks[2] <= 1 < ranks[1]


def test_old_heads_stay_and_one_is_exported() -> None:
    """A new target that starts from the old one's head, which is kept, not trained, and exported by choice."""
    before = load_checkpoint("ace.ckpt")
    given = {"keep_heads": True, "inherit_heads": {"energy/emt": "energy"}}
    start = tune("ace", [section("new.xyz", OTHER)], {"num_epochs": 0}, **given)
    assert torch.equal(predicted(start.checkpoint, "energy/emt"), predicted(before))
    done = tune("ace", [section("new.xyz", OTHER)], {}, method="heads", **given)
    assert torch.equal(predicted(done.checkpoint), predicted(before))
    wanted = predicted(done.checkpoint, "energy/emt")
    assert not torch.equal(wanted, predicted(before))
    save_checkpoint(done.checkpoint, Path("two.ckpt"))
    api.export("two.ckpt", output="one.pt", head="energy/emt")
    model = api.load("one.pt")
    assert [name for name in model.capabilities().outputs if name.startswith("energy")] == [
        "energy"
    ]
    from metatomic_ase import MetatomicCalculator

    frame = ase.io.read("old.xyz", index=0)
    frame.calc = MetatomicCalculator("one.pt")
    n = len(frame)
    assert frame.get_potential_energy() == pytest.approx(float(wanted[:n].sum()), abs=1e-5)
    with pytest.raises(AtomtrainError, match="--head: the model has no target 'energy/x'"):
        api.export("two.ckpt", output="other.pt", head="energy/x")
    again = options("ace", [section("new.xyz", OTHER)], num_epochs=3)
    again["architecture"]["training"]["finetune"] = {
        "read_from": "ace.ckpt", "method": "heads", **given
    }  # fmt: skip
    assert torch.equal(predicted(train(again, "two.ckpt").checkpoint), predicted(before))


def test_errors_on_old_and_new_data(caplog: pytest.LogCaptureFixture) -> None:
    """In the log, before and after; old data may also be looked at only."""
    given = options("ace", [section("new.xyz")], learning_rate=0.02)
    old = {"read_from": "ace.ckpt", "old_data": section("old.xyz")}
    given["architecture"]["training"]["finetune"] = old
    with caplog.at_level(logging.INFO, "atomtrain"):
        api.train(given, output="tuned.pt")
    lines = [record.message for record in caplog.records]
    at = lines.index("errors of the best model beside those before the fine-tuning:")
    table = [line.split() for line in lines[at + 1 : at + 8]]
    assert table[0] == ["before", "after"]
    assert table[1][:4] == ["old", "data", "(16", "structures)"]
    before = load_checkpoint("tuned.ckpt")["began"]["errors"]["old"]["energy:forces"]["rmse"]
    found = predict(restore(load_checkpoint("ace.ckpt"), "export").predictor, graph_of(
        restore(load_checkpoint("ace.ckpt"), "export").predictor.model, ase.io.read("old.xyz", index=":")
    )).forces  # fmt: skip
    labels = np.concatenate([f.get_forces() for f in ase.io.read("old.xyz", index=":")])
    assert found is not None
    assert before == pytest.approx(float(np.sqrt(((found.numpy() - labels) ** 2).mean())), rel=1e-3)
    assert table[2][-2] == f"{1000 * before:.4g}" != table[2][-1]
    assert table[4][0] == "new"


MISTAKES = [
    ({"lora": {"rank": 4}}, "lora: is there for method 'lora', and the method is 'full'"),
    ({"method": "lora", "lora": {"rank": 0}}, "lora.rank: "),
    ({"method": "lora", "lora": {"rank": 50}}, "lora.rank: 50 is more than any of the matrices has (8)"),
    ({"method": "lora", "lora": {"weights": ["linear*"]}}, "'linear*' is the name of no matrix of the model (it has "),
    ({"method": "lora", "config": {"rank": 4, "target_modules": ["qkv"]}}, "'*qkv*' is the name of no matrix"),
    ({"method": "heads", "config": {"head_modules": ["a"]}}, "config: with method 'heads' nothing is configured"),
    ({"replay": {"share": 1.0}}, "replay.share: "),
    ({"replay": {"share": 0.1}}, "replay.share: is 0 of the 4 structures of a batch"),
    ({"replay": {"sections": [0, 1]}}, "name in 'sections'"),
    ({"replay": {"sections": [5]}}, "name in 'sections'"),
    ({"keep_heads": ["enrgy"]}, "keep_heads: the checkpoint has no target 'enrgy'; did you mean 'energy'?"),
    ({"old_data": section("old.xyz", {"energy/pbe": ENERGY["energy"]})}, "'energy/pbe' is no target of the fine-tuned"),
    ({"old_data": section("silver.xyz")}, "the old data contain Ag, which the model was not trained for"),
    ({"method": "encoder", "keep_heads": True}, "keep_heads: with method 'encoder' all heads start anew"),
]  # fmt: skip


@pytest.mark.parametrize(("finetune", "message"), MISTAKES)
def test_mistakes(finetune: dict[str, Any], message: str) -> None:
    with pytest.raises(AtomtrainError) as error:
        tune("ace", [section("new.xyz"), section("old.xyz")], {}, **finetune)
    assert message in str(error.value)


def test_a_replayed_section_has_a_head() -> None:
    sections = [section("new.xyz"), section("old.xyz", OTHER)]
    with pytest.raises(AtomtrainError, match=r"has no head for any of its targets .energy/emt."):
        tune("ace", sections, {}, method="replay")
    with pytest.raises(AtomtrainError, match="training_set has 1 section;"):
        tune("ace", sections[:1], {}, method="replay")
