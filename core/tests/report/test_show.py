"""What ``atomtrain show`` says of exported models, ours and others'."""

import io
import json

import torch
from metatomic.torch import AtomisticModel, ModelCapabilities, ModelMetadata, ModelOutput
from rich.console import Console

from atomtrain.report.show import describe_model, differing, table
from atomtrain.targets import DatasetInfo, TargetInfo


def shown(model: AtomisticModel) -> str:
    return printed(describe_model(model))


def printed(described, path="m.pt") -> str:
    out = io.StringIO()
    Console(file=out, width=120).print(table(described, path))
    return out.getvalue()


class Nothing(torch.nn.Module):
    def forward(self, systems, outputs, selected_atoms):  # annotated below
        return {}


def model(name: str, **metadata) -> AtomisticModel:
    from typing import Dict, List, Optional

    from metatensor.torch import Labels, TensorMap
    from metatomic.torch import System

    Nothing.forward.__annotations__ = {
        "systems": List[System],
        "outputs": Dict[str, ModelOutput],
        "selected_atoms": Optional[Labels],
        "return": Dict[str, TensorMap],
    }
    capabilities = ModelCapabilities(
        outputs={"energy": ModelOutput(unit="kJ/mol")},
        atomic_types=[1, 8],
        interaction_range=12.5,
        length_unit="nm",
        supported_devices=["cpu"],
        dtype="float64",
    )
    return AtomisticModel(Nothing().eval(), ModelMetadata(name=name, **metadata), capabilities)


def test_a_model_of_another_program():
    text = shown(model("theirs", authors=["Somebody"], extra={"note": "plain text"}))
    for words in (
        "elements    H O",
        "output energy  in kJ/mol",
        "interaction range 12.5 nm",
        "float64",
        "Somebody",
        "plain text",
    ):
        assert " ".join(words.split()) in " ".join(text.split()), (words, text)


def test_one_of_ours():
    target = TargetInfo("energy", quantity="energy", unit="eV", gradients=("forces",))
    info = DatasetInfo("angstrom", (1, 8), {"energy": target})
    errors = {
        "energy": {"rmse": 0.001, "mae": 0.001, "count": 1.0},
        "energy:forces": {"rmse": 0.0369, "mae": 0.02, "count": 9.0},
    }
    extra = {
        "atomtrain_version": "9.9",
        "architecture": json.dumps({"name": "toy", "version": "1"}),
        "dataset_info": json.dumps(info.to_dict()),
        "metrics": json.dumps({"best_errors": errors}),
        "hypers": json.dumps({"model": {"cutoff": 5.0}}),
        "epoch": "7",
        "best_epoch": "5",
    }
    text = " ".join(shown(model("", extra=extra)).split())
    for words in (
        "atomtrain 9.9",
        "target energy scalar, per structure, forces, in eV",
        "energy RMSE 1 meV/atom, forces RMSE 36.9 meV/A",
        "epochs 7, best 5",
        "cutoff: 5.0",
    ):
        assert words in text, (words, text)
    assert "metadata" not in text


def test_texts_of_users_are_no_markup():
    told = {
        "what": "checkpoint",
        "hypers": {"trainer": {"batch_atom_bounds": [None, None], "note": "[bold]x[/bold] [/]"}},
        "metadata": {"description": "per [/atom] of [Cu]"},
        "architecture": {"name": "a[/x]", "distribution": "d", "version": ":key:"},
    }
    target = TargetInfo("mtt::[/t]", unit="[/eV]", description="[red] :fire:")
    told["dataset_info"] = DatasetInfo("angstrom", (1,), {target.name: target}).to_dict()
    text = printed(told, "[/x].pt")
    for words in (
        "batch_atom_bounds: [null, null]", "[bold]x[/bold] [/]", "per [/atom] of [Cu]", "[/x].pt (checkpoint)",
        "a[/x] (d :key:", "target mtt::[/t]", "in [/eV], [red] :fire:",
    ):  # fmt: skip
        assert words in text


def test_only_hypers_that_are_not_the_defaults():
    hypers = {"soap": {"max_angular": 3, "max_radial": 7}, "zbl": False}
    defaults = {"soap": {"max_angular": 6, "max_radial": 7}, "zbl": False}
    assert differing(hypers, defaults) == {"soap": {"max_angular": 3}}
    assert "the defaults" in printed({"what": "checkpoint", "changed_hypers": {"model": {}}})
