"""The text of an options file, with its comments."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from atomtrain import __version__
from atomtrain_inspect.choices import Choice, Draft, Part
from atomtrain_inspect.draft import of_checks
from atomtrain_inspect.finding import Finding
from atomtrain_inspect.values import Value

WIDTH = 110
SCHEMA = Path(".vscode") / "atomtrain.schema.json"
"""where ``atomtrain schema --vscode`` writes it"""


def written(draft: Draft, output: Path) -> str:
    """The options file that is to stand at ``output``."""
    return "\n".join(_lines(draft, output)) + "\n"


def _lines(draft: Draft, output: Path) -> Iterator[str]:
    schema = output.parent / SCHEMA
    if schema.is_file():
        yield f"# yaml-language-server: $schema={SCHEMA.as_posix()}"
    yield from _comment(
        f"Made by 'atomtrain init' (atomtrain {__version__}) from what the files show. Look first: atomtrain inspect "
        f"{output.name}; atomtrain train {output.name} --dry-run. Then: atomtrain train {output.name}. Paths are from "
        "the folder that these run in."
    )
    if not schema.is_file():
        yield from _comment(
            "Completion and checks while you edit: pip install atomtrain-schema, atomtrain schema --vscode"
        )
    for note in draft.notes:
        yield from _comment(f"Note: {note}.")
    placed = _Placed(draft)
    yield from _findings(placed.rest)
    yield ""
    yield "seed: 0"
    yield ""
    yield "architecture:"
    yield from _comment(draft.architecture.why, 2)
    yield f"  name: {_scalar(draft.architecture.value)}"
    if draft.training:
        yield "  training:"
        for key, choice in draft.training.items():
            yield from _pair(key, choice, 4)
    yield ""
    own = [part for part in draft.parts if part.role == "training"]
    yield "training_set:"
    for k, part in enumerate(own):
        yield from _section(draft, part, len(own) > 1, placed if k == 0 else None)
    for name in ("validation_set", "test_set"):
        yield ""
        if name == "validation_set":
            yield from _findings(placed.sets)
        parts = [part for part in draft.parts if f"{part.role}_set" == name]
        drawn = draft.sets.get(name)
        if parts:
            yield f"{name}:"
            for part in parts:
                yield from _section(draft, part, len(parts) > 1, None)
        elif drawn is not None:
            yield from _comment(drawn.why)
            yield f"{name}: {_scalar(drawn.value)}"


class _Placed:
    """Where each finding belongs."""

    def __init__(self, draft: Draft) -> None:
        found = draft.report.findings
        self.forces = of_checks(found, "forces", "force-", "net-force", "torque")
        self.stress = of_checks(found, "stress")
        self.stress += [f for f in of_checks(found, "reading") if "stress" in f.text]
        self.energy = of_checks(found, "energy", "labels", "isolated", "composition")
        self.sets = of_checks(found, "leak", "near-leak", "duplicates", "trajectory")
        placed = [*self.forces, *self.stress, *self.energy, *self.sets]
        self.rest = [f for f in of_checks(found, "") if f not in placed]


def _section(draft: Draft, part: Part, several: bool, placed: _Placed | None) -> Iterator[str]:
    lead = "  - " if several else "  "
    pad = " " * len(lead)
    yield f"{lead}systems:"
    paths = part.paths[0] if len(part.paths) == 1 else part.paths
    yield f"{pad}  read_from: {_scalar(paths)}"
    if draft.reader:
        yield f"{pad}  reader: {_scalar(draft.reader)}"
    if draft.reading.format:
        yield f"{pad}  format: {_scalar(draft.reading.format)}"
    if draft.reading.types:
        yield f"{pad}  types: {_scalar(_symbols(draft.reading.types))}"
    if draft.reading.unconverged != "refuse":
        yield f"{pad}  unconverged: {draft.reading.unconverged}"
    first = placed is not None
    yield from _pair("length_unit", _plain(draft.length_unit, first), len(pad) + 2)
    yield f"{pad}targets:"
    if "energy" in part.keys:
        yield from _energy(draft, part, len(pad) + 2, placed)
    if draft.target is not None:
        yield from _other(draft.target, len(pad) + 2, first)
    if first and draft.others:
        yield from _comment(
            "There are more values in the file. To learn one as well, remove its '#':", len(pad) + 2
        )
        for value in draft.others:
            for line in _other(value, 0, True):
                yield f"{pad}  # {line}"
    if draft.target is not None and draft.target.per_atom and draft.masks:
        yield f"{pad}extra_data:"
        yield from _comment("atoms where this is 0 are left out", len(pad) + 2 if first else None)
        yield f"{pad}  {_scalar(_named(draft.target) + '_mask')}:"
        yield f"{pad}    key: {_scalar(draft.masks[0])}"
        yield f"{pad}    sample_kind: atom"


def _energy(draft: Draft, part: Part, indent: int, placed: _Placed | None) -> Iterator[str]:
    pad, first = " " * indent, placed is not None
    yield f"{pad}energy:"
    if placed is not None:
        yield from _findings(placed.energy, indent + 2)
    yield f"{pad}  key: {_scalar(part.keys['energy'])}"
    if draft.unit.value:
        yield from _pair("unit", _plain(draft.unit, first), indent + 2)
    elif first:
        yield from _comment(f"TO DO: {draft.unit.why}.", indent + 2)
        yield f"{pad}  # unit: eV"
    yield from _allowed(part, "energy", indent + 2)
    for what in ("forces", "stress", "virial"):
        if what not in part.keys:
            continue
        if placed is not None:
            yield from _findings(placed.forces if what == "forces" else placed.stress, indent + 2)
        yield f"{pad}  {what}:"
        yield f"{pad}    key: {_scalar(part.keys[what])}"
        yield from _allowed(part, what, indent + 4)
    if "virial" in part.keys:
        yield f"{pad}  stress: false # it is the virial that is read"
    if "forces" not in part.keys and first:
        yield from _comment(
            "The file has no forces: a potential needs many more energies without them.", indent + 2
        )


def _allowed(part: Part, what: str, indent: int) -> Iterator[str]:
    lacking = part.missing.get(what, 0)
    if lacking:
        yield f"{' ' * indent}allow_missing: true # {lacking} structures have none, and are masked"


def _other(value: Value, indent: int, said: bool) -> Iterator[str]:
    pad = " " * indent
    comment = f" # {value.said}" if said else ""
    yield f"{pad}{_scalar(_named(value))}:{comment}"
    yield f"{pad}  key: {_scalar(value.key)}"
    if value.per_atom:
        yield f"{pad}  sample_kind: atom"
    if value.type:
        yield f"{pad}  type: {value.type}"
    elif not value.per_atom and value.number == 1:
        yield f"{pad}  pooling: mean # for what does not grow with the structure; sum (the default) for what does"
    if value.number > 1:
        yield f"{pad}  num_subtargets: {value.number}"
    if value.missing:
        yield f"{pad}  allow_missing: true # some structures have none, and are masked"


def _named(value: Value) -> str:
    """The name of a target: those that are no standard ones begin with a prefix."""
    return "mtt::" + "".join(c if c.isalnum() or c == "_" else "_" for c in value.key)


def _plain(choice: Choice, with_reason: bool) -> Choice:
    return choice if with_reason else Choice(choice.value)


def _pair(key: str, choice: Choice, indent: int) -> Iterator[str]:
    """A key with its value, the reason behind it, or above if it is long."""
    line = f"{' ' * indent}{key}: {_scalar(choice.value)}"
    if choice.why and len(line) + len(choice.why) + 3 > WIDTH:
        yield from _comment(choice.why, indent)
    elif choice.why:
        line += f" # {choice.why}"
    yield line


def _findings(findings: Sequence[Finding], indent: int = 0) -> Iterator[str]:
    for finding in findings:
        yield from _comment(f"{finding.severity.upper()}: {finding.text}", indent)


def _comment(text: str, indent: int | None = 0) -> Iterator[str]:
    if text and indent is not None:
        lead = " " * indent + "# "
        lines = text.replace("\n", " ")
        yield from textwrap.wrap(
            lines, WIDTH, initial_indent=lead, subsequent_indent=lead, break_long_words=False
        )


def _scalar(value: Any) -> str:
    """In one line, quoted where YAML asks for it."""
    text = yaml.safe_dump(
        value, default_flow_style=True, width=10_000, allow_unicode=True, sort_keys=False
    )
    return text.removesuffix("\n").removesuffix("\n...")


def _symbols(types: Sequence[tuple[int, int]]) -> dict[int, str]:
    from atomtrain.sections.names import symbols

    return {kind: symbols([number]) for kind, number in types}
