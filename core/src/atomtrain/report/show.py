"""What ``atomtrain show`` says of a checkpoint or an exported model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.table import Table

from atomtrain.sections.names import symbols
from atomtrain.targets import DatasetInfo
from atomtrain.training.units import errors_line

if TYPE_CHECKING:
    from metatomic.torch import AtomisticModel

OUR_KEYS = (
    "architecture",
    "atomtrain_version",
    "hypers",
    "metrics",
    "dataset_info",
    "epoch",
    "best_epoch",
)
"""what an exported file of ours tells under ``extra``"""


def describe(told: Mapping[str, Any], what: str) -> dict[str, Any]:
    """The parts of a checkpoint (or of a model's metadata) a person asks for. Plain data."""
    described: dict[str, Any] = {"what": what}
    for key in ("architecture", "atomtrain_version", "hypers", "metrics", "metadata"):
        if told.get(key):
            described[key] = told[key]
    if told.get("dataset_info"):
        described["dataset_info"] = told["dataset_info"]
    trainer = told.get("trainer") or {}
    for key in ("epoch", "best_epoch"):
        value = told.get(key, trainer.get(key))
        if value is not None:
            described[key] = value
    splits = told.get("splits")
    if splits:
        described["structures"] = {
            name: sum(len(frames) for frames in sections if frames)
            for name, sections in splits.items()
        }
    return described


def describe_model(model: AtomisticModel) -> dict[str, Any]:
    """The same of an exported model, of ours or of anybody's: metadata and capabilities."""
    metadata, capabilities = model.metadata(), model.capabilities()
    told: dict[str, Any] = {}
    for key, value in metadata.extra.items():
        try:
            told[key] = json.loads(value)
        except ValueError:
            told[key] = value
    own = {
        "name": metadata.name,
        "description": metadata.description,
        "authors": list(metadata.authors),
        "references": {key: list(value) for key, value in metadata.references.items()},
        "extra": {key: value for key, value in told.items() if key not in OUR_KEYS},
    }
    described = describe(
        {**told, "metadata": {key: value for key, value in own.items() if value}},
        "exported model",
    )
    described["capabilities"] = {
        "outputs": {name: output.unit for name, output in capabilities.outputs.items()},
        "atomic_types": list(capabilities.atomic_types),
        "cutoffs": [options.cutoff for options in model.requested_neighbor_lists()],
        "interaction_range": capabilities.interaction_range,
        "length_unit": capabilities.length_unit,
        "dtype": capabilities.dtype,
        "devices": list(capabilities.supported_devices),
    }
    return described


def table(described: Mapping[str, Any], path: str) -> Table:
    """The description as a two-column table."""
    grid = Table(show_header=False, box=None, pad_edge=False)
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    grid.add_row("file", f"{path} ({described['what']})")
    architecture = described.get("architecture") or {}
    if architecture:
        grid.add_row(
            "architecture",
            f"{architecture.get('name')} ({architecture.get('distribution')} "
            f"{architecture.get('version')}, model version {architecture.get('model_version')}, "
            f"trainer version {architecture.get('trainer_version')})",
        )
    installed = described.get("installed") or {}
    if "problem" in installed:
        grid.add_row("installed", installed["problem"])
    elif installed:
        grid.add_row("installed", f"version {installed['version']}, {installed['stage']}")
        if "notice" in installed:
            grid.add_row("", installed["notice"])
    if "atomtrain_version" in described:
        grid.add_row("written by", f"atomtrain {described['atomtrain_version']}")
    if "dataset_info" in described:
        info = DatasetInfo.from_dict(described["dataset_info"])
        grid.add_row("elements", symbols(info.atomic_types, " "))
        grid.add_row("length unit", info.length_unit)
        for name, target in info.targets.items():
            also = {"forces": "forces", "strain": "stress"}
            parts = [target.kind, "per atom" if target.per_atom else "per structure"]
            parts += [also[g] for g in target.gradients]
            if target.unit:
                parts.append(f"in {target.unit}")
            if target.description:
                parts.append(target.description)
            grid.add_row(f"target {name}", ", ".join(parts))
        errors = (described.get("metrics") or {}).get("best_errors")
        if errors:
            trained = (described.get("hypers") or {}).get("trainer") or {}
            totals = trained.get("per_structure_targets") or ()
            grid.add_row("best validation", errors_line(info, errors, totals=totals))
    capabilities = described.get("capabilities")
    if capabilities:
        unit = capabilities["length_unit"]
        if "dataset_info" not in described:  # a file of another program
            grid.add_row("elements", symbols(capabilities["atomic_types"], " "))
            for name, output_unit in capabilities["outputs"].items():
                grid.add_row(f"output {name}", f"in {output_unit}" if output_unit else "")
        cutoffs = ", ".join(f"{cutoff:g}" for cutoff in capabilities["cutoffs"])
        reach = f"{capabilities['interaction_range']:g}"
        grid.add_row("cutoff", f"{cutoffs or 'none'} {unit} (interaction range {reach} {unit})")
        grid.add_row("precision", capabilities["dtype"])
        grid.add_row("devices", ", ".join(capabilities["devices"]))
    if "structures" in described:
        sizes = ", ".join(f"{n} {name}" for name, n in described["structures"].items())
        grid.add_row("structures", sizes)
    if "epoch" in described:
        grid.add_row("epochs", f"{described['epoch']}, best {described.get('best_epoch', '?')}")
    for part, hypers in (described.get("hypers") or {}).items():
        grid.add_row(f"{part} hypers", json.dumps(hypers))
    if "metadata" in described:
        grid.add_row("metadata", json.dumps(described["metadata"]))
    return grid
