"""Every form of options file that metatrain's documentation knows for SOAP-BPNN is understood.

The files are our own, with the same keys. What they say of data is not read here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.schema import refusals

from atomtrain.options import (
    Options,
    TrainerHypers,
    load_eval_options,
    load_options,
    target_info,
    validate,
)
from atomtrain.plugins import open_architecture
from atomtrain.targets import Irrep, TargetInfo


def load(folder: Path, text: str) -> tuple[Options, TrainerHypers, dict[str, TargetInfo]]:
    """Options, trainer hypers and targets of a file for which nothing is wrong."""
    (folder / "options.yaml").write_text(text)
    options = load_options(folder / "options.yaml")
    assert refusals(folder / "options.yaml") == []
    architecture = open_architecture(options.architecture.name)
    path = ("architecture", "training")
    hypers = validate(
        architecture.trainer_hypers_class(), options.architecture.training, path, options.source
    )
    assert isinstance(hypers, TrainerHypers)
    targets = {
        name: target_info(name, target)
        for section in options.training_set
        for name, target in section.targets.items()
    }
    extra_data = {name for section in options.training_set for name in section.extra_data}
    assert hypers.check_targets(targets, extra_data) == []
    return options, hypers, targets


def training(text: str) -> str:
    """A file with this under ``architecture.training``, on energies and forces."""
    lines = "\n".join(f"    {line}" for line in text.strip().splitlines())
    return f"""
architecture:
  name: soap_bpnn
  training:
{lines}
training_set:
  systems: {{read_from: water.xyz, length_unit: angstrom}}
  targets:
    energy: {{key: e, unit: eV, forces: on}}
    mtt::gap: {{key: gap, unit: eV}}
    mtt::charge: {{key: q, sample_kind: atom}}
validation_set: 0.2
test_set: 0.0
"""


def test_the_shortest_files(tmp_path: Path) -> None:
    options, _, targets = load(
        tmp_path,
        """
architecture:
  name: "soap_bpnn"
training_set: "water.xyz"
test_set: 0.1
validation_set: 0.1
""",
    )
    assert targets["energy"].is_energy and options.test_set == [0.1]
    load(
        tmp_path,
        """
architecture:
  name: soap_bpnn
  training: {num_epochs: 5}
training_set:
  systems: "water.xyz"
  targets:
    energy:
      key: "U0"
      unit: "eV"
test_set: 0.0
validation_set: 0.5
""",
    )


def test_everything_spelt_out(tmp_path: Path) -> None:
    options, _, targets = load(
        tmp_path,
        """
device: gpu
base_precision: 32
seed: 0
print_stats: auto
final_eval: false
wandb:
  project: water
  name: first
  tags: [a, b]
architecture:
  name: soap_bpnn
  atomic_types: [1, 8]
training_set:
  systems:
    read_from: water.xyz
    reader: ase
    length_unit: null
  targets:
    energy:
      quantity: energy
      read_from: water.xyz
      reader: null
      key: e
      unit: null
      per_atom: False
      type: scalar
      num_subtargets: 1
      description: "PBE0"
      forces: {read_from: water.xyz, reader: ase, key: f}
      stress: stress.xyz
      virial: off
    non_conservative_forces:
      quantity: force
      key: f
      unit: eV/A
      per_atom: True
      type:
        cartesian:
          rank: 1
    non_conservative_stress:
      quantity: pressure
      key: s
      unit: eV/A^3
      sample_kind: system
      type: {cartesian: {rank: 2}}
    energy/scan: {quantity: energy, key: e_scan, unit: hartree, forces: {key: f_scan}}
  extra_data:
    charge_of_all: {quantity: null, key: q, unit: null, per_atom: False, type: scalar}
    polarization_quantum: quantum.mts
validation_set:
  systems: other.xyz
  targets:
    energy: {key: e, unit: null}
test_set:
  systems: {read_from: third.xyz, length_unit: null}
""",
    )
    energy = options.training_set[0].targets["energy"]
    assert energy.stress is not None and energy.stress.read_from == "stress.xyz"
    assert energy.virial is None and energy.unit == ""
    assert targets["non_conservative_force"].blocks[0].shape == (3, 1)
    assert targets["non_conservative_stress"].blocks[0].shape == (3, 3, 1)
    assert targets["energy/scan"].is_energy


def test_several_files_and_indices(tmp_path: Path) -> None:
    options, _, _ = load(
        tmp_path,
        """
architecture: {name: soap_bpnn, training: {batch_size: 2, num_epochs: 1}}
training_set:
  - systems: {read_from: a.xyz, length_unit: angstrom}
    targets:
      energy: {quantity: energy, key: e0, unit: eV}
    indices: [0, 1, 5]
  - systems: {read_from: b.zip, length_unit: angstrom}
    targets:
      mtt::free_energy: {quantity: energy, key: e1, unit: hartree, virial: true}
    indices: chosen.txt
validation_set:
  - systems: {read_from: c.xyz, length_unit: angstrom}
  - systems: {read_from: d.xyz, length_unit: angstrom}
test_set: 0.1
""",
    )
    assert options.training_set[1].targets["mtt::free_energy"].stress is None
    assert options.test_set == [0.1, 0.1]
    options, _, _ = load(
        tmp_path,
        """
architecture: {name: soap_bpnn}
training_set: {systems: a.xyz, targets: {energy: {key: e}}}
validation_set: {indices: validation.txt}
test_set: {indices: [3, 4]}
""",
    )


def test_tensors(tmp_path: Path) -> None:
    _, hypers, targets = load(
        tmp_path,
        """
architecture:
  name: soap_bpnn
  model:
    add_lambda_basis: true
    heads: {mtt::shielding: mlp}
  training: {log_mae: true, log_separate_blocks: true}
training_set:
  systems: {read_from: water.xyz, length_unit: angstrom}
  targets:
    mtt::polarizability:
      quantity: polarizability
      read_from: polarizability.mts
      per_atom: False
      type:
        spherical:
          irreps:
            - {o3_lambda: 0, o3_sigma: 1}
            - {"o3_lambda": 2, "o3_sigma": 1, num: 2}
      num_subtargets: 10
    mtt::density:
      sample_kind: atom
      type:
        spherical:
          irreps:
            1: [{o3_lambda: 0, o3_sigma: 1, num: 3}, {o3_lambda: 1, o3_sigma: 1}]
            8: [{o3_lambda: 2, o3_sigma: -1}]
    mtt::matrix:
      sample_kind: atom
      type: {spherical: {irreps: [{o3_lambda: 1, o3_sigma: 1}], product: coupled}}
    mtt::dipoles:
      per_atom: yes
      type:
        cartesian: {rank: 1}
      num_subtargets: 10
    mtt::shielding:
      per_atom: True
      quantity: ""
      unit: ""
      type:
        scalar
validation_set: 0.1
test_set: 0.1
""",
    )
    assert hypers.log_separate_blocks
    assert targets["mtt::polarizability"].irreps == (Irrep(0, 1, 10), Irrep(2, 1, 20))
    assert targets["mtt::matrix"].irreps == (Irrep(0, 1), Irrep(2, 1))
    assert targets["mtt::dipoles"].width == 30


def test_density_of_states(tmp_path: Path) -> None:
    _, hypers, targets = load(
        tmp_path,
        """
device: cpu
base_precision: 64
seed: 42
architecture:
  name: soap_bpnn
  training:
    batch_size: 4
    learning_rate: 0.01
    scale_targets: false
    atomic_baseline: {"mtt::dos": 0.0}
    loss:
      mtt::dos:
        type: shift_agnostic_mse
        grad_penalty_weight: 1e-4
        int_weight: 2
        weight: 1.0
        reduction: mean
training_set:
  systems: dos.xyz
  targets:
    mtt::dos: {key: dos, per_atom: false, type: scalar, num_subtargets: 400}
  extra_data:
    mtt::dos_mask: {key: dos_mask, per_atom: false, type: scalar, num_subtargets: 400}
validation_set:
  systems: dos.xyz
  targets:
    mtt::dos: {key: dos, per_atom: false, type: scalar, num_subtargets: 400}
  extra_data:
    mtt::dos_mask: {key: dos_mask, per_atom: false, type: scalar, num_subtargets: 400}
test_set: 0.0
""",
    )
    loss = hypers.loss_for(targets["mtt::dos"])
    assert loss.arguments == {"grad_penalty_weight": 1e-4, "int_weight": 2.0, "grid_step": 0.05}


def test_masked_losses(tmp_path: Path) -> None:
    text = training(
        """
loss:
  mtt::gap: {type: masked_mse, weight: 1.0, reduction: sum}
  mtt::charge: {type: masked_huber, delta: 0.1}
  energy: {type: mse, forces: {type: mae, weight: 0.1, reduction: sum}}
"""
    ).replace(
        "validation_set",
        "  extra_data: {mtt::gap_mask: mask.mts, mtt::charge_mask: {sample_kind: atom}}\n"
        "validation_set",
    )
    _, hypers, targets = load(tmp_path, text)
    assert hypers.loss_for(targets["mtt::charge"]).arguments == {"delta": 0.1}


@pytest.mark.parametrize(
    "text",
    [
        "loss: mse",
        "loss: huber",
        "loss: {energy: huber, mtt::gap: mae}",
        "loss: {energy: {type: mse, weight: 1, reduction: mean, forces: mae, stress: huber}}",
        "loss: {energy: {type: huber, delta: 0.5, virial: {type: huber, weight: 1e-2, delta: 2}}}",
        "loss: {energy: {gradients: {positions: {type: mse, weight: 1.0, reduction: mean},"
        " strain: mae}}}",
        "atomic_baseline: {energy: {1: -0.5, 8: -10.0}, mtt::gap: 0.0}",
        "atomic_baseline: {energy: -5.0}",
        "atomic_baseline: baseline.ckpt",
        "fixed_scaling_weights: {energy: 1.0, mtt::charge: {1: 0.1, 8: 0.2}}",
        "atomic_baseline: a.ckpt\nfixed_scaling_weights: a.ckpt",
        "scale_targets: off",
        "per_structure_targets: [mtt::gap]",
        "batch_size: 5\nbatch_atom_bounds: [10, 100]",
        "batch_atom_bounds: [10, None]",
        "batch_atom_bounds: [null, 100]",
        "max_atoms_per_batch: 500\nmin_atoms_per_batch: 100",
        "max_atoms_per_batch: null",
        "best_model_metric: rmse_prod\nlog_interval: 1\ncheckpoint_interval: 10",
        "best_model_metric: mae_prod\nlog_mae: yes",
        "distributed: true\ndistributed_port: 39591\nnum_workers: 0",
        "num_workers: null\nwarmup_fraction: 0.1\nlearning_rate: 1e-3",
    ],
)
def test_trainer_hypers(tmp_path: Path, text: str) -> None:
    load(tmp_path, training(text))


def test_gradients_of_a_named_loss_are_squared(tmp_path: Path) -> None:
    energy = TargetInfo("energy", quantity="energy", gradients=("forces", "strain"))
    for text, expected in (
        ("loss: mae", "mae"),
        ("loss: {energy: mae}", "mse"),
        ("loss: {energy: {type: mae, forces: mae, stress: mae}}", "mae"),
    ):
        found = load(tmp_path, training(text))[1].loss_for(energy)
        assert {g.type for g in found.gradients.values()} == {expected}
        assert found.type == "mae"


@pytest.mark.parametrize(
    "model",
    [
        "{soap: {cutoff: {radius: 4.0, width: 0.3}, max_angular: 4, max_radial: 5}}",
        "{bpnn: {layernorm: false, num_hidden_layers: 3, num_neurons_per_layer: 64}, legacy: false}",
        "{heads: {energy: linear, mtt::gap: mlp}}",
        "{zbl: true}",
        "{long_range: {enable: true, use_ewald: false, smearing: 1.4, kspace_resolution: 1.33,"
        " interpolation_nodes: 5}}",
    ],
)
def test_model_sections(tmp_path: Path, model: str) -> None:
    options, _, _ = load(
        tmp_path, training("num_epochs: 1").replace("  training:", f"  model: {model}\n  training:")
    )
    known: Any = open_architecture("soap_bpnn").model_hypers_class().model_fields
    assert set(options.architecture.model) <= set(known)


def test_interpolation(tmp_path: Path) -> None:
    text = training("num_epochs: ${batch_of_none}").replace("${batch_of_none}", "${seed}")
    assert load(tmp_path, text + "seed: 7\n")[1].num_epochs == 7


def test_files_for_evaluation(tmp_path: Path) -> None:
    (tmp_path / "eval.yaml").write_text(
        """
systems:
  read_from: water.xyz
  length_unit: angstrom
targets:
  energy/scan: {key: e_scan, unit: eV, forces: {key: f}, stress: off}
  mtt::dos: {key: dos, num_subtargets: 400}
extra_data:
  mtt::dos_mask: {key: dos_mask, num_subtargets: 400}
indices: [0, 2]
"""
    )
    (section,) = load_eval_options(tmp_path / "eval.yaml")
    assert section.targets["energy/scan"].is_energy
    (tmp_path / "eval.yaml").write_text("- systems: a.xyz\n- {systems: b.zip, targets: {}}\n")
    assert len(load_eval_options(tmp_path / "eval.yaml")) == 2
