"""Predictions beside labels are what errors are counted of."""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
import yaml
from helpers.alloy import crystal, options

from atomtrain.runs import plan, prepare, workplace
from atomtrain.training.evaluate import compared, errors_on


def test_compared_is_what_errors_are_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    frames = [crystal(seed) for seed in range(10)]
    rng = np.random.default_rng(1)
    for k, atoms in enumerate(frames):
        atoms.info["phase"] = ["a", "b", "c"][k % 3]
        atoms.arrays["partial"] = rng.normal(size=len(atoms))
        if k % 4:
            atoms.info["dipole"] = rng.normal(size=3)
    ase.io.write("crystal.xyz", frames, format="extxyz")
    given = options(validation_set=0.0, test_set=0.0)
    given["architecture"]["training"]["batch_size"] = 3
    given["training_set"]["targets"] |= {
        "mtt::phase": {"key": "phase", "type": "classes"},
        "mtt::charge": {"key": "partial", "sample_kind": "atom"},
        "mtt::dipole": {"key": "dipole", "type": {"cartesian": {"rank": 1}}, "allow_missing": True},
        "mtt::noise": {"type": "denoising"},
    }
    Path("options.yaml").write_text(yaml.safe_dump(given))
    planned = plan("options.yaml")
    with workplace(planned, Path("outputs")) as place:
        run = prepare(planned, place).run
    run.predictor.to(run.dtype)
    errors = errors_on(run.predictor, run.train, run)[0].results()
    found = compared(run.predictor, run.train, run)
    assert set(found) == set(errors)
    for key, both in found.items():
        there = torch.isfinite(both.labels)
        if key == "mtt::phase":
            right = both.labels.argmax(1) == both.predictions.argmax(1)
            assert float(right.double().mean()) == pytest.approx(errors[key]["accuracy"])
            continue
        difference = (both.predictions - both.labels)[there]
        rmse = float(difference.square().mean().sqrt())
        assert rmse == pytest.approx(errors[key]["rmse"], rel=1e-6), key
    assert int(torch.isfinite(found["mtt::dipole"].labels).all(1).sum()) == 7
    energies = [atoms.get_potential_energy() / len(atoms) for atoms in frames]
    assert found["energy"].labels[:, 0].tolist() == pytest.approx(energies)
    stress = [atoms.get_stress(voigt=False).ravel() for atoms in frames]
    assert found["energy:strain"].labels.numpy() == pytest.approx(np.array(stress))
    assert float(found["mtt::noise"].labels.std()) == pytest.approx(0.1, rel=0.3)
