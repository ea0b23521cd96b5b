"""What ``atomtrain show`` says of a checkpoint, an exported model or a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from atomtrain.model.export import requested_inputs
from atomtrain.sections import in_lines
from atomtrain.sections.names import symbols
from atomtrain.targets import GRADIENT_NAMES, DatasetInfo
from atomtrain.training.units import errors_line

if TYPE_CHECKING:
    from metatomic.torch import AtomisticModel

TOLD = ("architecture", "atomtrain_version", "hypers", "metrics", "dataset_info")
"""what is taken over as it is; an exported file of ours has it under ``extra``, with the epochs"""
EPOCHS = ("epoch", "best_epoch")
SHOWN = 8
"""values of a list of findings"""


def describe(told: Mapping[str, Any], what: str) -> dict[str, Any]:
    """The parts of a checkpoint (or of a model's metadata) a person asks for. Plain data."""
    described: dict[str, Any] = {"what": what}
    for key in (*TOLD, "metadata"):
        if told.get(key):
            described[key] = told[key]
    trainer = told.get("trainer") or {}
    for key in EPOCHS:
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
        "extra": {k: value for k, value in told.items() if k not in (*TOLD, *EPOCHS)},
    }
    described = describe(
        {**told, "metadata": {key: value for key, value in own.items() if value}},
        "exported model",
    )
    described["capabilities"] = {
        "outputs": {name: output.unit for name, output in capabilities.outputs.items()},
        "inputs": {name: one.sample_kind for name, one in requested_inputs(model).items()},
        "atomic_types": list(capabilities.atomic_types),
        "cutoffs": [options.cutoff for options in model.requested_neighbor_lists()],
        "interaction_range": capabilities.interaction_range,
        "length_unit": capabilities.length_unit,
        "dtype": capabilities.dtype,
        "devices": list(capabilities.supported_devices),
    }
    return described


def table(described: Mapping[str, Any], path: str) -> Table:
    """The description as a two-column table. Texts of users are shown as they are, not as markup."""
    grid = Table(show_header=False, box=None, pad_edge=False)
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    for title, text in [("file", f"{path} ({described['what']})"), *rows_of(described)]:
        grid.add_row(Text(title), Text(text))
    return grid


Rows = list[tuple[str, str]]


def rows_of(described: Mapping[str, Any]) -> Rows:
    """The description in titles and texts, but for the file it is of."""
    parts = (_origin, _data_set, _capabilities, _training, _findings)
    return [row for part in parts for row in part(described)]


def _origin(described: Mapping[str, Any]) -> Rows:
    rows: Rows = []
    architecture = described.get("architecture") or {}
    if architecture:
        known = architecture.get
        said = (
            f"{known('name')} ({known('distribution')} {known('version')}, model version "
            f"{known('model_version')}, trainer version {known('trainer_version')})"
        )
        rows.append(("architecture", said))
    installed = described.get("installed") or {}
    if "problem" in installed:
        rows.append(("installed", installed["problem"]))
    elif installed:
        rows.append(("installed", f"version {installed['version']}, {installed['stage']}"))
        if "notice" in installed:
            rows.append(("", installed["notice"]))
    if "atomtrain_version" in described:
        rows.append(("written by", f"atomtrain {described['atomtrain_version']}"))
    return rows


def _data_set(described: Mapping[str, Any]) -> Rows:
    if "dataset_info" not in described:
        return []
    info = DatasetInfo.from_dict(described["dataset_info"])
    rows = [("elements", symbols(info.atomic_types, " ")), ("length unit", info.length_unit)]
    for name, target in info.targets.items():
        parts = [target.kind, "per atom" if target.per_atom else "per structure"]
        parts += [GRADIENT_NAMES[g] for g in target.gradients]
        if target.unit:
            parts.append(f"in {target.unit}")
        if target.description:
            parts.append(target.description)
        rows.append((f"target {name}", ", ".join(parts)))
    trained = (described.get("hypers") or {}).get("trainer") or {}
    totals = trained.get("per_structure_targets") or ()
    errors = (described.get("metrics") or {}).get("best_errors")
    if errors:
        rows.append(("best validation", errors_line(info, errors, totals=totals)))
    for name, found in (described.get("errors") or {}).items():
        rows.append((f"final {name}", errors_line(info, found, ("rmse", "mae"), totals)))
    return rows


def _capabilities(described: Mapping[str, Any]) -> Rows:
    capabilities = described.get("capabilities")
    if not capabilities:
        return []
    rows: Rows = []
    unit = capabilities["length_unit"]
    if "dataset_info" not in described:  # a file of another program
        rows.append(("elements", symbols(capabilities["atomic_types"], " ")))
        for name, output_unit in capabilities["outputs"].items():
            rows.append((f"output {name}", f"in {output_unit}" if output_unit else ""))
    for name, kind in capabilities["inputs"].items():
        rows.append((f"input {name}", f"of every {kind}"))
    cutoffs = ", ".join(f"{cutoff:g}" for cutoff in capabilities["cutoffs"]) or "none"
    reach = f"{capabilities['interaction_range']:g}"
    return [
        *rows,
        ("cutoff", f"{cutoffs} {unit} (interaction range {reach} {unit})"),
        ("precision", capabilities["dtype"]),
        ("devices", ", ".join(capabilities["devices"])),
    ]


def _training(described: Mapping[str, Any]) -> Rows:
    rows: Rows = []
    if "structures" in described:
        sizes = ", ".join(f"{n} {name}" for name, n in described["structures"].items())
        rows.append(("structures", sizes))
    if "epoch" in described:
        rows.append(("epochs", f"{described['epoch']}, best {described.get('best_epoch', '?')}"))
    changed = described.get("changed_hypers") or described.get("hypers") or {}
    for part, hypers in changed.items():
        rows.append((f"{part} hypers", in_lines(hypers) if hypers else "the defaults"))
    if "metadata" in described:
        rows.append(("metadata", in_lines(described["metadata"])))
    return rows


def _findings(described: Mapping[str, Any]) -> Rows:
    """What evaluations found, without long lists: those are for programs."""
    return [(name, in_lines(_short(v))) for name, v in (described.get("findings") or {}).items()]


def _short(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _short(one) for key, one in value.items()}
    if isinstance(value, list) and (len(value) > SHOWN or any(isinstance(v, dict) for v in value)):
        return f"{len(value)} in evaluation.json"
    return float(f"{value:.4g}") if isinstance(value, float) else value


def differing(hypers: Any, defaults: Any) -> Any:
    """What of ``hypers`` is not as in ``defaults``, section by section: plain data."""
    if not isinstance(hypers, Mapping) or not isinstance(defaults, Mapping):
        return hypers
    return {
        key: differing(value, defaults.get(key))
        for key, value in hypers.items()
        if key not in defaults or value != defaults[key]
    }
