"""Tensor targets from the options file to predictions of the exported model, on an exact model.

The labels are covariant functions of the neighbours that a network cannot miss by symmetry: a sum of
neighbours' vectors and of their outer products, with weights by element.
"""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
import yaml
from ase import Atoms
from ase.neighborlist import neighbor_list
from helpers.alloy import crystal

from atomtrain import api

pytestmark = pytest.mark.filterwarnings("ignore")


def labelled(seed: int) -> Atoms:
    atoms = crystal(seed)
    energy = atoms.get_potential_energy()
    stress = atoms.get_stress(voigt=False)
    atoms.calc = None
    i, j, vectors, d = neighbor_list("ijDd", atoms, 3.6)
    weight = np.where(atoms.numbers[j] == 79, 1.5, 1.0) * np.exp(-d) * (3.6 - d) ** 2
    per_atom = np.zeros((len(atoms), 3))
    matrix = np.zeros((len(atoms), 3, 3))
    np.add.at(per_atom, i, weight[:, None] * vectors)
    np.add.at(matrix, i, weight[:, None, None] * vectors[:, :, None] * vectors[:, None, :])
    atoms.arrays["pull"] = per_atom
    traceless = matrix.sum(0) - np.eye(3) * np.trace(matrix.sum(0)) / 3
    x, y, z = 0, 1, 2
    root = np.sqrt(3.0)
    atoms.info["quadrupole"] = np.array(
        [root * traceless[x, y], root * traceless[y, z], 1.5 * traceless[z, z],
         root * traceless[z, x], root * (traceless[x, x] - traceless[y, y]) / 2]
    )  # fmt: skip
    atoms.info["matrix"] = matrix.sum(0).reshape(9)
    atoms.info["stress"] = stress.reshape(9)
    atoms.info["energy"] = energy
    return atoms


OPTIONS = """
seed: 1
base_precision: 64
architecture:
  name: soap_bpnn
  model:
    legacy: LEGACY
    soap: {max_angular: 3, max_radial: 3, cutoff: {radius: 4.0}}
    bpnn: {num_neurons_per_layer: 8}
  training: {num_epochs: 40, batch_size: 4, learning_rate: 0.01, best_model_metric: loss}
training_set:
  systems: data.xyz
  targets:
    energy: {unit: eV, forces: false, stress: false}
    mtt::pull: {sample_kind: atom, type: {cartesian: {rank: 1}}, key: pull}
    mtt::quadrupole: {key: quadrupole, type: {spherical: {irreps: [{o3_lambda: 2, o3_sigma: 1}]}}}
    mtt::matrix: {key: matrix, type: {cartesian: {rank: 2}}}
    non_conservative_stress: {key: stress, unit: eV/A^3, type: {cartesian: {rank: 2}}}
validation_set: 0.2
test_set: 0.2
"""


@pytest.mark.parametrize("legacy", ["true", "false"])
def test_tensors_are_learnt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, legacy: str) -> None:
    monkeypatch.chdir(tmp_path)
    frames = [labelled(seed) for seed in range(40)]
    ase.io.write("data.xyz", frames, format="extxyz")
    Path("options.yaml").write_text(OPTIONS.replace("LEGACY", legacy))
    result = api.train("options.yaml")
    errors = result.errors["test"]
    volume = np.mean([a.get_volume() for a in frames])
    n = len(frames[0])
    for name, spread in {
        "mtt::pull": np.std([a.arrays["pull"] for a in frames]),
        "mtt::quadrupole": np.std([a.info["quadrupole"] for a in frames]) / n,
        "mtt::matrix": np.std([a.info["matrix"] for a in frames]) / n,
        "non_conservative_stress": np.std([a.info["stress"] for a in frames]),
    }.items():
        assert errors[name]["rmse"] < 0.5 * spread, (name, errors[name]["rmse"] / spread)
    assert volume > 0

    # the exported model says the same of a turned copy, turned
    q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    q *= np.sign(np.linalg.det(q))
    turned = frames[0].copy()
    turned.set_cell(turned.cell.array @ q.T, scale_atoms=True)
    ase.io.write("two.xyz", [frames[0], turned], format="extxyz")
    options = yaml.safe_load(OPTIONS.replace("LEGACY", legacy))["training_set"]
    Path("eval.yaml").write_text(yaml.safe_dump({"systems": "two.xyz"}))
    (found,) = api.evaluate("model.pt", "eval.yaml", output=None)
    assert set(found.info.targets) == set(options["targets"])
    r = torch.from_numpy(q)
    stress = found.predictions["non_conservative_stress"].reshape(2, 3, 3)
    torch.testing.assert_close(stress[1], r @ stress[0] @ r.T, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(stress[0], stress[0].T)
    pull = found.predictions["mtt::pull"]
    torch.testing.assert_close(pull[n:], pull[:n] @ r.T, rtol=1e-6, atol=1e-8)
