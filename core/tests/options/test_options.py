"""The options file: every spelling, every mistake, and back again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from atomtrain.errors import OptionsError
from atomtrain.options import (
    DatasetSection,
    IndicesSection,
    Options,
    Section,
    TrainerHypers,
    complete,
    dump_yaml,
    load_eval_options,
    load_options,
    target_info,
    validate,
)
from atomtrain.targets import TargetInfo

MINIMAL = """
architecture:
  name: soap_bpnn
training_set: data.xyz
validation_set: 0.1
"""


def load(tmp_path: Path, text: str, *overrides: str) -> Options:
    (tmp_path / "options.yaml").write_text(text)
    return load_options(tmp_path / "options.yaml", overrides)


def test_minimal(tmp_path: Path) -> None:
    options = load(tmp_path, MINIMAL)
    (section,) = options.training_set
    energy = section.targets["energy"]
    assert section.systems.read_from == energy.read_from == "data.xyz"
    assert energy.quantity == "energy" and energy.key == "energy"
    assert energy.forces is not None and not energy.forces.required
    assert energy.stress is not None and not energy.stress.required
    assert energy.virial is None
    assert options.validation_set == [0.1] and options.test_set == []


def test_a_file_of_the_peer(tmp_path: Path) -> None:
    text = """
device: cpu
base_precision: 32
seed: 0
architecture:
  name: soap_bpnn
  training: {batch_size: 2, num_epochs: 1, learning_rate: 1e-3, warmup_fraction: 0.1}
training_set:
  systems: {read_from: a.xyz, reader: ase, length_unit: Angstrom}
  targets:
    energy: {quantity: energy, key: U0, unit: hartree, forces: off, stress: {key: s}}
    mtt::dos:
      num_subtargets: 100
      per_atom: yes
      type: scalar
test_set:
  - {systems: b.xyz}
validation_set: [{systems: c.xyz}]
wandb: {project: mine}
"""
    options = load(tmp_path, text)
    targets = options.training_set[0].targets
    assert targets["energy"].forces is None
    assert targets["energy"].stress is not None and targets["energy"].stress.required
    assert targets["mtt::dos"].sample_kind == "atom"
    assert target_info("mtt::dos", targets["mtt::dos"]).width == 100
    assert options.architecture.training["learning_rate"] == 0.001
    assert isinstance(options.test_set[0], DatasetSection)


def test_virial_replaces_stress_and_both_are_refused(tmp_path: Path) -> None:
    text = MINIMAL.replace("data.xyz", "{systems: a.xyz, targets: {energy: {virial: true}}}")
    energy = load(tmp_path, text).training_set[0].targets["energy"]
    assert energy.stress is None and energy.virial is not None
    with pytest.raises(OptionsError, match="stress and virial are the same quantity"):
        load(tmp_path, text.replace("virial: true", "virial: true, stress: true"))


def test_interpolation_and_overrides(tmp_path: Path) -> None:
    text = MINIMAL + "seed: ${base_precision}\nbase_precision: 64\n"
    assert load(tmp_path, text).seed == 64
    options = load(
        tmp_path,
        MINIMAL,
        "seed=5",
        "architecture.training.loss.weight=2",
        "test_set={indices: [1]}",
    )
    assert options.seed == 5
    assert options.architecture.training == {"loss": {"weight": 2}}
    assert isinstance(options.test_set[0], IndicesSection)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (MINIMAL + "sed: 1\n", r"options.yaml:6: sed: unknown key; did you mean 'seed'"),
        (MINIMAL + "seed: one\n", r"options.yaml:6: seed: expected a whole number, got 'one'"),
        (MINIMAL + "seed: 1\nseed: 2\n", r"options.yaml:7: key 'seed' is given twice"),
        (MINIMAL + "  : bad\n :", r"not valid YAML"),
        ("training_set: *.xyz", r":1: not valid YAML: .*; put quotes around what begins with \*"),
        (MINIMAL + "base_precision: 33\n", r"expected 16, 32 or 64, got 33"),
        ("- 1\n", r"is a list; an options file has the keys"),
        ("", r"is empty"),
        ("training_set: a.xyz\nvalidation_set: 0.1\n", r"architecture: is missing"),
        (MINIMAL.replace("0.1", "-1"), r"a count cannot be negative"),
        (MINIMAL.replace("0.1", "1.5"), r"a fraction must be at least 0 and below 1"),
        (
            MINIMAL.replace("data.xyz", "{systems: a.xyz, targets: {energi: {}}}"),
            r"training_set.targets.energi: 'energi' is not a standard name of metatomic; did you",
        ),
        (
            MINIMAL.replace(
                "data.xyz", "{systems: a.xyz, targets: {mtt::x: {sample_kind: atom, forces: true}}}"
            ),
            r"only an energy .* has forces, stress or virial",
        ),
    ],
)
def test_mistakes(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(OptionsError, match=message):
        load(tmp_path, text)


@pytest.mark.parametrize("place", ["validation_set", "test_set"])
def test_targets_that_nobody_trains_on(tmp_path: Path, place: str) -> None:
    more = "{systems: b.xyz, targets: {energy: {}, mtt::gap: {}}}"
    text = MINIMAL.replace("validation_set: 0.1\n", "") + f"{place}: {more}\n"
    if place == "test_set":
        text += "validation_set: 0.1\n"
    problem = rf"{place}.targets.mtt::gap: is no target of the training set \(its targets: energy\)"
    with pytest.raises(OptionsError, match=problem):
        load(tmp_path, text)


def test_a_wrong_loss_is_told_once(tmp_path: Path) -> None:
    for loss, message in (
        ({"energy": {"wieght": 2}}, "loss.energy.wieght: unknown key; did you mean 'weight'?"),
        ({"wieght": 2}, "loss.wieght: unknown key; did you mean 'weight'?"),
        ({"t": {"positive_weight": 0}}, "loss.t.positive_weight: must be greater than 0, got 0"),
        ("rmse", "loss.type: there is no loss 'rmse'; did you mean 'mse'?"),
    ):
        with pytest.raises(OptionsError) as raised:
            trainer({"loss": loss}, tmp_path)
        assert str(raised.value).endswith(f"architecture.training.{message}"), raised.value
        assert "problems" not in str(raised.value)
    assert trainer({"loss": {"class_weights": "balanced"}}, tmp_path).loss.type == "cross_entropy"
    assert trainer({"loss": {"energy": None}}, tmp_path).loss.type == "mse"


def test_gradients_make_an_energy(tmp_path: Path) -> None:
    text = MINIMAL.replace("data.xyz", "{systems: a.xyz, targets: {mtt::x: {forces: true}}}")
    target = load(tmp_path, text).training_set[0].targets["mtt::x"]
    assert target.is_energy and target.energy_by_gradients
    assert target.forces is not None and target.forces.required
    for other in ("{forces: false}", "{quantity: energy, forces: true}"):
        target = (
            load(tmp_path, text.replace("{forces: true}", other)).training_set[0].targets["mtt::x"]
        )
        assert not target.energy_by_gradients and target.is_energy == ("quantity" in other)


OF_METATRAIN = """
training_set:
- systems: {read_from: a.xyz, reader: null, length_unit: angstrom}
  targets:
    energy:
      {quantity: energy, read_from: a.xyz, reader: null, key: U0, unit: eV, sample_kind: system,
       type: scalar, num_subtargets: 1, description: '', virial: false,
       forces: {read_from: a.xyz, reader: null, key: forces},
       stress: {read_from: a.xyz, reader: null, key: stress}}
"""


def test_a_file_that_metatrain_wrote_need_not_have_the_gradients_it_names(tmp_path: Path) -> None:
    text = MINIMAL.replace("training_set: data.xyz", OF_METATRAIN)
    (section,) = load(tmp_path, text).training_set
    energy = section.targets["energy"]
    assert energy.spelt_out
    assert energy.forces is not None and not energy.forces.required
    assert energy.stress is not None and not energy.stress.required
    for mine in ("forces: true", "forces: {read_from: a.xyz, reader: null, key: f}"):
        said = text.replace("forces: {read_from: a.xyz, reader: null, key: forces}", mine)
        energy = load(tmp_path, said).training_set[0].targets["energy"]
        assert energy.forces is not None and energy.forces.required


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            "{systems: a, targets: {energy: a}, extra_data: {energy: a}}",
            "training_set.extra_data.energy: is called like the target 'energy'",
        ),
        (
            "[{systems: a, targets: {energy: a}}, {systems: b, extra_data: {energy: a}}]",
            "training_set.1.extra_data.energy: is called like the target 'energy'",
        ),
        (
            "[{systems: a, extra_data: {x: {unit: eV}}}, {systems: a, extra_data: {x: {unit: A}}}]",
            "training_set.1.extra_data.x.unit: is 'A', but 'eV' in training_set.0.extra_data.x",
        ),
        (
            "{systems: a, targets: {mtt::a/b: a, mtt::a_b: a}}",
            "training_set.targets.mtt::a_b: is 'mtt_a_b' in the names of files, and so is 'mtt::a/b'",
        ),
        (
            "{systems: a, targets: {mtt::a: {forces: true}, mtt::a_forces: a}}",
            "is 'mtt_a_forces' in the names of files, and so is 'mtt::a'",
        ),
    ],
)
def test_one_name_means_one_thing(tmp_path: Path, sections: str, message: str) -> None:
    with pytest.raises(OptionsError) as raised:
        load(tmp_path, MINIMAL, f"training_set={sections}")
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_extra_data_agree_with_what_validation_has(tmp_path: Path) -> None:
    training = "training_set={systems: a, extra_data: {x: {quantity: foo}}}"
    load(tmp_path, MINIMAL, training, "validation_set={systems: b, extra_data: {x: b}}")
    validation = "validation_set={systems: b, extra_data: {x: {quantity: bar}}}"
    with pytest.raises(OptionsError, match=r"quantity: is 'bar', but 'foo' in training_set.0"):
        load(tmp_path, MINIMAL, training, validation)


IRREP = "{o3_lamda: 1, o3_sigma: 1}"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("validation_set={indces: [1]}", "indces: unknown key; did you mean 'indices'?"),
        ("validation_set={indices: [a]}", "indices.0: expected a whole number, got 'a'"),
        ("validation_set={sytems: a}", "sytems: unknown key; did you mean 'systems'?"),
        ("validation_set={systems: 3}", "systems: expected a section of 'key: value' lines, got 3"),
        ("validation_set={systems: a, targets: {energy: {kye: a}}}", "kye: unknown key; did you "),
        (
            "validation_set={systems: a, targets: {energy: {kye: 3, fources: 1, uint: 3}}}",
            "3 problems",
        ),
        ("validation_set={}", "validation_set: 'indices', 'fraction' or 'systems' is missing"),
        ("test_set=[{systems: {read_form: a}}]", "read_form: unknown key; did you mean 'read_from"),
        ("training_set={sytems: a}", "sytems: unknown key; did you mean 'systems'?"),
        (
            f"training_set={{systems: a, targets: {{mtt::t: {{type: {{spherical: {{irreps: "
            f"{{H: [{IRREP}]}}}}}}}}}}}}",
            "irreps.H.0.o3_lamda: unknown key; did you mean 'o3_lambda'?",
        ),
        ("print_stats=atuo", "expected true or false or auto, got 'atuo'; did you mean 'auto'?"),
    ],
)
def test_one_mistake_is_told_once(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(OptionsError) as raised:
        load(tmp_path, MINIMAL, override)
    several = "problems" in message
    assert message in str(raised.value) and ("\n" in str(raised.value)) == several, raised.value


def test_an_alternative_of_a_union_is_hinted_at(tmp_path: Path) -> None:
    for section, message in (
        ("{scheduler: cosin}", "lines, got 'cosin'; did you mean 'cosine'?"),
        ("{loss: {class_weights: balance}}", "got 'balance'; did you mean 'balanced'?"),
        ("{atomic_baseline: {energy: {H: x}}}", "energy.H: expected a number, got 'x'"),
    ):
        options = load(tmp_path, MINIMAL, f"architecture.training={section}")
        with pytest.raises(OptionsError) as raised:
            path = ("architecture", "training")
            validate(TrainerHypers, options.architecture.training, path, options.source)
        assert str(raised.value).endswith(message), raised.value


def test_wandb_is_an_observer(tmp_path: Path) -> None:
    text = MINIMAL + "observers: tensorboard\nwandb: {project: mine}\n"
    options = load(tmp_path, text)
    both = {"tensorboard": {}, "wandb": {"project": "mine"}}
    assert options.observers == both
    assert options.source.where(("observers", "wandb")).endswith("options.yaml:7: wandb")
    assert options.source.where(("observers", "tensorboard")).endswith(":6: observers.tensorboard")
    done = complete(options, Section(), trainer({}, tmp_path))
    assert "wandb" not in done and done["observers"] == both
    dump_yaml(done, tmp_path / "again.yaml")
    again = load_options(tmp_path / "again.yaml")
    assert again.observers == both
    assert again.source.where(("observers", "wandb")).endswith("observers.wandb")
    with pytest.raises(OptionsError, match=r"yaml:7: wandb: expected a section .* got 3"):
        load(tmp_path, text.replace("{project: mine}", "3"))


def test_all_problems_at_once(tmp_path: Path) -> None:
    with pytest.raises(OptionsError) as raised:
        load(tmp_path, MINIMAL + "sed: 1\ndevic: cpu\n")
    assert "2 problems" in str(raised.value) and "devic" in str(raised.value)


def trainer(section: dict[str, Any], tmp_path: Path) -> TrainerHypers:
    options = load(tmp_path, MINIMAL)
    path = ("architecture", "training")
    return validate(TrainerHypers, section, path, options.source)


def test_round_trip(tmp_path: Path) -> None:
    options = load(tmp_path, MINIMAL + "test_set: 3\n", "training_set={systems: a.xyz, targets: "
                   "{energy: {forces: false}, 'mtt::t': {type: {cartesian: {rank: 2}}}}}")  # fmt: skip
    hypers = trainer({"loss": {"energy": {"weight": 0.5, "forces": "huber"}},
                      "atomic_baseline": {"energy": {"H": -0.5, 8: -2}}}, tmp_path)  # fmt: skip
    first = complete(options, Section(), hypers)
    dump_yaml(first, tmp_path / "again.yaml")
    again = load_options(tmp_path / "again.yaml")
    second = complete(again, Section(), trainer(again.architecture.training, tmp_path))
    assert second == first == yaml.safe_load((tmp_path / "again.yaml").read_text())


def test_losses(tmp_path: Path) -> None:
    energy = TargetInfo("energy", quantity="energy", gradients=("forces", "strain"))
    plain = trainer({"loss": "mae"}, tmp_path).loss_for(energy)
    assert plain.type == plain.gradients["forces"].type == plain.gradients["strain"].type == "mae"
    each = trainer(
        {"loss": {"energy": {"type": "huber", "weight": 3, "virial": {"weight": 0}}}}, tmp_path
    ).loss_for(energy)
    assert (each.type, each.weight) == ("huber", 3)
    assert each.gradients["strain"].weight == 0 and each.gradients["forces"].weight == 1
    assert trainer({"loss": {"other": "mae"}}, tmp_path).loss_for(energy).type == "mse"


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"batch_size": 0}, "must be at least 1, got 0"),
        ({"bach_size": 1}, "did you mean 'batch_size'"),
        ({"memory_budget": "much"}, "a size such as '4 GB', got 'much'"),
        ({"batch_atom_bounds": [9, 3]}, "the minimum 9 is larger"),
        ({"loss": {"energy": {"forcs": 1}}}, "unknown key"),
        ({"fixed_scaling_weights": "a.ckpt"}, "atomic_baseline must be one too"),
        ({"fixed_composition_weights": {}}, "weights: is called 'atomic_baseline' today"),
        (
            {"loss": {"energy": {"stress": "mae", "virial": "mse"}}},
            "loss.energy.virial: is the loss of what 'stress' is the loss of; give one of them",
        ),
        (
            {"loss": {"forces": {"weight": 1}, "gradients": {"positions": {"weight": 2}}}},
            "loss.forces: is the loss of what 'gradients.positions' is the loss of",
        ),
    ],
)
def test_wrong_hypers(tmp_path: Path, section: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionsError, match=message):
        trainer(section, tmp_path)


def test_memory_budget(tmp_path: Path) -> None:
    assert trainer({"memory_budget": "1.5 MB"}, tmp_path).memory_budget_bytes == 1_500_000
    assert trainer({"memory_budget": 7}, tmp_path).memory_budget_bytes == 7


def test_eval_file(tmp_path: Path) -> None:
    (tmp_path / "eval.yaml").write_text("- systems: a.xyz\n- {systems: b.xyz, targets: {}}\n")
    first, second = load_eval_options(tmp_path / "eval.yaml")
    assert first.systems.read_from == "a.xyz" and second.targets == {}


def test_every_option_is_documented() -> None:
    def sections(cls: type[Section]) -> list[type[Section]]:
        return [cls, *(inner for sub in cls.__subclasses__() for inner in sections(sub))]

    for cls in sections(Section):
        if cls.__module__.startswith("atomtrain.options"):
            assert cls.__doc__, cls
            for name, field in cls.model_fields.items():
                assert field.description, f"{cls.__name__}.{name}"
