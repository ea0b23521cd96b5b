"""``atomtrain schema``: the schema accepts what the options accept, and refuses what they refuse."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from helpers.installing import good, install
from helpers.processes import atomtrain
from helpers.schema import refusals, validator

from atomtrain.errors import AtomtrainError
from atomtrain.options import load_options, validate
from atomtrain.plugins import open_architecture

ROOT = Path(__file__).parents[3]
START = """
architecture:
  name: soap-bpnn
  model: {}
  training: {}
training_set: {systems: water.xyz, targets: {energy: {key: e}}}
validation_set: 0.1
"""


def accepted_by_options(file: Path, overrides: list[str]) -> bool:
    try:
        options = load_options(file, overrides)
        architecture = open_architecture(options.architecture.name)
        named = options.architecture
        for part, cls, section in (
            ("model", architecture.model_hypers_class(), named.model),
            ("training", architecture.trainer_hypers_class(), named.training),
        ):
            validate(cls, section, ("architecture", part), options.source)
    except AtomtrainError:
        return False
    return True


@pytest.mark.parametrize(
    "file", sorted(ROOT.glob("examples/*/*.yaml")), ids=lambda f: f"{f.parent.name}/{f.name}"
)
def test_examples(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = file.parent / "pyproject.toml"
    if project.exists():  # an example that is an architecture: as installed
        text = project.read_text()
        name = re.search(r'^name = "(.*?)"', text, re.MULTILINE)
        points = re.search(r'architectures"\]\n(\S+) = "(\S+)"', text)
        assert name and points
        install(tmp_path, name[1], entry=points[1], target=points[2])
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.syspath_prepend(str(file.parent / "src"))
    assert refusals(file, fresh=project.exists()) == []


SHORT_FORMS = [
    "seed=null",
    "seed=${base_precision}",
    "architecture.name=experimental.SOAP_BPNN",
    "architecture.atomic_types=[H, 8, '6']",
    "architecture.model={soap: {cutoff: {radius: 4}}, heads: {energy: mlp}, legacy: null}",
    "architecture.model.soap.cutoff.radius=${base_precision}",
    "architecture.training={loss: mae}",
    "architecture.training={loss: {energy: huber, mtt::gap: {type: mae, weight: 2}}}",
    "architecture.training={loss: {type: huber, delta: 0.5, forces: mae}}",
    "architecture.training={loss: {energy: {gradients: {positions: {weight: 2}, strain: mse}}}}",
    "architecture.training={loss: {t: {type: shift_agnostic_mse, grad_penalty_weight: 1e-4,"
    " int_weight: 2}}}",
    "architecture.training={loss: {t: {class_weights: balanced}, u: {positive_weight: 2}}}",
    "architecture.training={loss: {t: {type: cross_entropy, class_weights: {a: 2}}}}",
    "architecture.training={scheduler: {StepLR: {step_size: 30}}}",
    "architecture.training={atomic_baseline: {energy: {H: -1.0, 8: -2}, mtt::gap: 0}}",
    "architecture.training={atomic_baseline: a.ckpt}",
    "architecture.training={memory_budget: 1.5 GB, batch_atom_bounds: [1, None]}",
    "architecture.training={memory_budget: 1000, finetune: {method: full}}",
    "architecture.training={finetune: {read_from: a.ckpt, inherit_heads: {b: a}, keep_heads: true}}",
    "architecture.training={finetune: {read_from: a.ckpt, method: lora, lora: {rank: 4}, replay: {}}}",
    "architecture.training={finetune: {read_from: a.ckpt, method: lora, config: {rank: 4, alpha: 0.5}}}",
    "architecture.training={finetune: {read_from: a.ckpt, keep_heads: [a], old_data: old.xyz}}",
    "training_set=data.xyz",
    "training_set=[data.xyz, {systems: b.xyz, targets: {energy: b.xyz}, indices: [0, 2]}]",
    "training_set.indices=some.txt",
    "training_set.systems={read_from: a.xyz, length_unit: null}",
    "training_set.extra_data={mask: mask.mts}",
    "training_set.targets={energy/pbe: e.xyz, mtt::dos: {num_subtargets: 4}, charges: {key: q}}",
    "training_set.targets.energy={forces: true, stress: off, virial: auto}",
    "training_set.targets.energy={forces: f.xyz, stress: {key: s, allow_missing: true}}",
    "training_set.targets.energy={per_atom: no, unit: null, type: scalar}",
    "training_set.targets={mtt::t: {type: {cartesian: {rank: 2}}, sample_kind: atom}}",
    "training_set.targets={mtt::t: {type: {spherical: {irreps: [{o3_lambda: 1, o3_sigma: -1}]}}}}",
    "training_set.targets={mtt::t: {type: {spherical: {irreps:"
    " {H: [{o3_lambda: 1, o3_sigma: 1}], 8: [{o3_lambda: 0, o3_sigma: 1}]}, product: coupled}}}}",
    "training_set.targets={mtt::t: {type: {scalar: null}}}",
    "training_set.targets={mtt::t: {type: binary}, mtt::u: {type: {classes: {names: [a, 1, b]}}}}",
    "training_set.targets={mtt::t: {type: spacegroup}, mtt::u: {type: {pointgroup: null}}}",
    "training_set.targets={mtt::t: {type: {spacegroup: {symprec: 0.1}}}}",
    "training_set.targets={mtt::t: {type: {denoising: {scale: 0.2, normalize: yes}}}}",
    "training_set.targets={mtt::t: {pooling: mean, head: {hidden_dim: 8}}}",
    "validation_set=100",
    "validation_set=100.0",
    "validation_set={indices: [1, 2]}",
    "validation_set=other.xyz",
    "validation_set=[{systems: b.xyz}]",
    "test_set=[]",
    "test_set=null",
    "wandb={project: water, mode: offline}",
    "observers=tensorboard",
    "observers=[tensorboard]",
    "observers={tensorboard: null}",
]

MISTAKES = [
    "sed=1",
    "seed=one",
    "seed=-1",
    "seed=true",
    "device=tpu",
    "base_precision=33",
    "final_eval=maybe",
    "wandb=mine",
    "observers=3",
    "architecture.nam=a",
    "architecture.name=soap-bpn",
    "architecture.atomic_types=[Xx]",
    "architecture.model.soap={cutof: 4}",
    "architecture.model.soap={max_angular: 99}",
    "architecture.model.soap={cutoff: 4.0}",
    "architecture.model.heads={energy: tanh}",
    "architecture.model.soap.cutoff.radius=far",
    "architecture.training.bach_size=4",
    "architecture.training.batch_size=0",
    "architecture.training.batch_size='8'",
    "architecture.training.learning_rate=fast",
    "architecture.training.scheduler=linear",
    "architecture.training.memory_budget=much",
    "architecture.training.batch_atom_bounds=[1]",
    "architecture.training.loss=rmse",
    "architecture.training.loss={energy: {wieght: 2}}",
    "architecture.training.loss={wieght: 2}",
    "architecture.training.loss={energy: {type: mse, delta: 2}}",
    "architecture.training.loss={energy: {type: huber, delta: 0}}",
    "architecture.training.loss={t: {class_weights: balanced, delta: 1}}",
    "architecture.training.loss={t: {delta: 1}}",
    "architecture.training.loss={energy: shift_agnostic_mse}",
    "architecture.training.loss={energy: {gradients: {cell: mse}}}",
    "architecture.training.atomic_baseline={energy: {Xx: 1.0}}",
    "architecture.training.finetune={read_from: a.ckpt, method: some}",
    "architecture.training.finetune={read_from: a.ckpt, method: lora, lora: {rank: 0}}",
    "architecture.training.finetune={read_from: a.ckpt, replay: {share: 1.5}}",
    "training_set=[]",
    "training_set=3",
    "training_set.system=a.xyz",
    "training_set.systems={length_unit: nm}",
    "training_set.systems={read_from: 3}",
    "training_set.indices=[-1]",
    "training_set.targets={energi: {}}",
    "training_set.targets={mtt::: {}}",
    "training_set.targets={energy: 3}",
    "training_set.targets.energy.units=eV",
    "training_set.targets.energy.forces=3",
    "training_set.targets.energy.forces={file: a}",
    "training_set.targets.energy.per_atom=3",
    "training_set.targets.energy.sample_kind=atom_pair",
    "training_set.targets.energy.num_subtargets=0",
    "training_set.targets.energy.type=cartesian",
    "training_set.targets.energy.type=vector",
    "training_set.targets.energy.type={cartesian: {rank: 3}}",
    "training_set.targets.energy.type={classes: {number: 1}}",
    "training_set.targets.energy.type={denoising: {scal: 1}}",
    "training_set.targets.energy.head={hiden_dim: 8}",
    "training_set.targets.energy.pooling=median",
    "training_set.targets.energy.type={cartesian: {rank: 1}, scalar: {}}",
    "training_set.targets.energy.type={spherical: {irreps: []}}",
    "training_set.targets.energy.type={spherical: {irreps: [{o3_lambda: 1, o3_sigma: 2}]}}",
    "validation_set=1.5",
    "validation_set=-1",
    "validation_set=true",
    "validation_set=null",
    "validation_set=[]",
    "validation_set={indices: []  , of: 3}",
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "options.yaml").write_text(START)
    return tmp_path / "options.yaml"


@pytest.mark.parametrize("override", SHORT_FORMS)
def test_short_forms(file: Path, override: str) -> None:
    assert accepted_by_options(file, [override])
    assert refusals(file, [override]) == []


@pytest.mark.parametrize("override", MISTAKES)
def test_mistakes(file: Path, override: str) -> None:
    assert not accepted_by_options(file, [override])
    assert refusals(file, [override])


def test_what_an_editor_shows() -> None:
    schema = validator().schema
    seed = schema["properties"]["seed"]
    assert seed["description"].startswith("Fixes the run") and seed["default"] == 0
    (condition,) = (
        c for c in schema["$defs"]["ArchitectureSection"]["allOf"]
        if "[Ss][Oo][Aa][Pp]" in c["if"]["properties"]["name"]["pattern"]
    )  # fmt: skip
    model = condition["then"]["properties"]["model"]["anyOf"][0]["$ref"].rpartition("/")[2]
    legacy = schema["$defs"][model]["properties"]["legacy"]
    assert legacy["default"] is True and "elements" in legacy["description"]


def command(folder: Path, *arguments: str, site: Path | None = None) -> str:
    done = atomtrain(folder, "schema", *arguments, site=site)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_the_command_leaves_out_what_is_broken(tmp_path: Path) -> None:
    site = tmp_path / "site"
    install(site, "schema-good", good("schema-good"))
    install(site, "schema-broken", "import no_such_module")
    text = command(tmp_path, site=site)
    assert "warning: 'schema-broken' is left out: " in text and "no_such_module" in text
    schema = json.loads(text[: text.rindex("}") + 1])
    names = schema["$defs"]["ArchitectureSection"]["properties"]["name"]["anyOf"][0]["enum"]
    assert {"schema-good", "soap-bpnn"} <= set(names) and "schema-broken" not in names


def test_vscode_settings_are_merged(tmp_path: Path) -> None:
    folder = tmp_path / ".vscode"
    settings = folder / "settings.json"
    command(tmp_path, "--vscode")
    assert json.loads((folder / "atomtrain.schema.json").read_text())["$defs"]
    made = json.loads(settings.read_text())
    assert ".vscode/atomtrain.schema.json" in made["yaml.schemas"]
    mine = {"editor.tabSize": 2, "yaml.yamlVersion": "1.2",
            "yaml.schemas": {"a.json": "a.yaml", ".vscode/atomtrain.schema.json": ["my.yaml"]}}  # fmt: skip
    settings.write_text(json.dumps(mine))
    command(tmp_path, "--vscode")
    assert json.loads(settings.read_text()) == mine
    settings.write_text('{\n  // what I like\n  "editor.tabSize": 2,\n}\n')
    done = atomtrain(tmp_path, "schema", "--vscode")
    assert done.returncode == 1 and "comments would be lost" in done.stderr
    assert "what I like" in settings.read_text()
