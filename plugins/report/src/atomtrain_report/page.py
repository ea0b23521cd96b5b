"""From a subject to ``report.html`` and the pictures beside it."""

from __future__ import annotations

import base64
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import jinja2
import torch
import yaml

from atomtrain.errors import OutputError
from atomtrain.files import replacing, writing
from atomtrain.report.durations import duration
from atomtrain.runs.directory import check_writable
from atomtrain.tasks import task_of
from atomtrain.training.units import ERRORS, quantities
from atomtrain.training.units import title as metric_title
from atomtrain_report import figures
from atomtrain_report.curves import History, history
from atomtrain_report.figures import Picture
from atomtrain_report.sets import NOTHING, Shown, Worst, number, shown_of, tables, worst
from atomtrain_report.subject import Subject

MOST_LABELS, MOST_SETS = 8, 6
"""of which there are pictures: a page stays one that can be read, and sent"""
MOST_BYTES = 1_500_000
"""of pictures that others made"""
MOST_ATOMS = 1000
"""of a structure that can be turned on the page"""
MOST_TEXT = 60_000
"""letters of the options"""
MIME = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".svg": "image/svg+xml"}
PREFERRED = ("test", "validation", "training")
PACKAGES = ("torch", "numpy", "metatomic-torch", "metatensor-torch", "ase", "vesin", "matplotlib")


@dataclass(frozen=True)
class Image:
    """A picture as a page holds it."""

    name: str
    uri: str
    alt: str


def check_page(page: Path) -> None:
    """Raise OutputError unless a page can be written there: long before there is one."""
    if page.suffix.lower() not in (".html", ".htm"):
        raise OutputError(f"'{page}' should end in '.html': it will be a page for a browser")
    check_writable(page)
    if page.with_suffix("").is_file():
        raise OutputError(
            f"figures of '{page}' go into the folder '{page.with_suffix('')}', which is a file: name another page"
        )


def write(subject: Subject, page: Path) -> None:
    """Write the page, and its pictures into the folder of its name. Raises OutputError."""
    folder = page.with_suffix("")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    text = rendered(subject, folder)
    with replacing(page) as path:
        path.write_text(text, encoding="utf-8")


def rendered(subject: Subject, folder: Path) -> str:
    """The page as text; pictures are written into ``folder`` as well."""
    shown = shown_of(subject.info, subject.totals)
    failed = list(_failed(subject, shown))
    shown = [one for one in shown if any(part.has(one) for part in subject.parts)]
    past = None
    if subject.directory is not None:
        past = history(subject.directory / "train.csv", shown_of(subject.info, subject.totals))
    bad = worst(subject.parts, shown)
    made = [*subject.pictures, *subject.draw_classes(folder)]
    classes = [p for p in made if p.stem.split("_")[0] in ("confusion", "reliability", "map")]
    others = [p for p in made if p not in classes]
    files, too_large = _embedded([*classes, *others])
    viewed = [_view(one, subject.info.length_unit) for one in bad]
    context = {
        "subject": subject,
        "date": datetime.now().strftime("%Y-%m-%d %H:%M"),
        "tiles": _tiles(subject, shown, past),
        "errors": _errors(subject),
        "remarks": [*failed, *subject.remarks, *_remarks(subject, shown)],
        "curves": _kept(_curves(subject, past), folder),
        "quantities": [
            (one.title, _kept(_of_quantity(subject, one), folder)) for one in shown[:MOST_LABELS]
        ],
        "tables": tables(subject.parts, shown[:MOST_LABELS]),
        "worst": bad,
        "shown": shown[:MOST_LABELS],
        "viewed": viewed,
        "number": number,
        "classes": [files[p] for p in classes if p in files],
        "pictures": [files[p] for p in others if p in files],
        "too_large": too_large,
        "found": {name: list(_flat(values)) for name, values in subject.found.items()},
        "timings": [*_past(past), *subject.timings],
        "versions": _versions(),
        "options": _options(subject.options),
        "viewer": _viewer() if any(viewed) else None,
    }
    source = jinja2.PackageLoader("atomtrain_report", ".")
    environment = jinja2.Environment(
        loader=source, autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    return environment.get_template("page.html").render(context)


# -- numbers -------------------------------------------------------------------------------------


def _tiles(subject: Subject, shown: Sequence[Shown], past: History | None) -> list[tuple[str, str]]:
    """What people ask first: a title and a number each."""
    found = []
    named = {part.name: part for part in subject.parts}
    first = next((named[n] for n in PREFERRED if n in named), None)
    first = first or (subject.parts[0] if subject.parts else None)
    for one in shown[:4]:
        errors = {} if first is None else first.errors.get(one.key, {})
        own = task_of(one.target.kind).shown[0] if one.key == one.target.name else "rmse"
        if first is not None and errors.get("count", 0) > 0 and own in errors:
            title = f"{one.title} {metric_title(own)}, {first.name}"
            told = one.quantity.show(own, errors)
            found.append((title, f"{told.number} {told.unit}".strip()))
    total = sum(part.total for part in subject.parts)
    found.append(("structures", f"{total:,}"))
    if past is not None and past.seconds:
        found.append(("training", duration(past.seconds)))
    if subject.best is not None and subject.best >= 0 and past is not None and len(past.epochs):
        names = dict(zip(past.epochs.tolist(), past.stages, strict=False))
        if names:
            found.append(("best stage", names.get(subject.best, str(subject.best))))
        else:
            found.append(("best epoch", f"{subject.best} of {past.epochs[-1]:.0f}"))
    return found


def _errors(subject: Subject) -> list[tuple[str, list[tuple[str, list[str]]]]]:
    """For each quantity its metrics, each with a value in words for each set."""
    found = []
    for quantity in quantities(subject.info, subject.totals):
        of_sets = [part.errors.get(quantity.key) or {} for part in subject.parts]
        metrics = dict.fromkeys(m for errors in of_sets for m in errors if m != "count")
        rows = []
        for metric in list(metrics)[:8]:
            error = metric in ERRORS
            cells = [
                f"{errors[metric] * (quantity.factor if error else 1.0):.4g}"
                if errors.get("count", 0) > 0 and metric in errors
                else NOTHING
                for errors in of_sets
            ]
            unit = f" [{quantity.unit}]" if error and quantity.unit else ""
            rows.append((f"{metric_title(metric)}{unit}", cells))
        if any(cell != NOTHING for _, cells in rows for cell in cells):
            found.append((quantity.name, rows))
    return found


def _remarks(subject: Subject, shown: Sequence[Shown]) -> list[str]:
    """What a reader has to know of the page itself."""
    found = []
    for part in subject.parts:
        if len(part.store) < part.total:
            found.append(
                f"Of the {part.name} set {len(part.store)} of {part.total} structures, from all over it, are in the "
                "figures and tables by group; the errors on top are of all."
            )
    if len(shown) > MOST_LABELS:
        left = ", ".join(one.title for one in shown[MOST_LABELS:])
        found.append(f"There are no figures of {left}: the page has those of {MOST_LABELS}.")
    if len(subject.parts) > MOST_SETS:
        found.append(f"Figures are of the first {MOST_SETS} sets.")
    return found


def _failed(subject: Subject, shown: Sequence[Shown]) -> Iterator[str]:
    """What was predicted that is no number: tables and figures cannot show it."""
    for part in subject.parts:
        for one in shown:
            rows = part.failed(one)
            if rows:
                yield (
                    f"{one.title} of {len(rows)} of {len(part.store)} structures of the {part.name} set is predicted "
                    f"as no finite number (the first is {part.store.origin(rows[0])}): figures, groups and the worst "
                    "structures leave these out."
                )


def _past(past: History | None) -> Iterator[tuple[str, str]]:
    if past is None:
        return
    n = len(past.epochs)
    if n and past.seconds:
        what = "stages" if past.stages else "epochs"
        yield "training", f"{duration(past.seconds)} in {n} {what}, {past.seconds / n:.3g} s each"
    for name, seconds in past.passes:
        yield name, duration(seconds)


def _flat(values: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Nested values as rows of a name and a text."""
    if isinstance(values, Mapping) and values:
        for key, value in values.items():
            yield from _flat(value, f"{path}, {key}" if path else str(key))
    elif isinstance(values, (list, tuple)):
        said = ", ".join(_text(value) for value in values[:8])
        yield path, said + (f", ... ({len(values)} in all)" if len(values) > 8 else "")
    else:
        yield path, _text(values)


def _text(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _versions() -> list[tuple[str, str]]:
    """Of what made the page."""
    names = sorted(
        {d.metadata["Name"] for d in metadata.distributions() if d.metadata["Name"]}, key=str.lower
    )
    ours = [name for name in names if name.lower().split("-")[0] == "atomtrain"]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    machine = (
        f"{platform.system()} {platform.machine()}, {device}, {torch.get_num_threads()} threads"
    )
    return [
        ("machine", machine),
        ("atomtrain", _said(ours)),
        ("below it", f"Python {platform.python_version()}, {_said(PACKAGES)}"),
    ]


def _said(packages: Sequence[str]) -> str:
    """Packages that are installed with their versions."""
    found = []
    for name in packages:
        with suppress(metadata.PackageNotFoundError):
            found.append(f"{name} {metadata.version(name)}")
    return ", ".join(found)


def _options(options: Mapping[str, Any] | None) -> str:
    if options is None:
        return ""
    text = yaml.safe_dump(dict(options), sort_keys=False, allow_unicode=True)
    if len(text) <= MOST_TEXT:
        return text
    return f"{text[:MOST_TEXT]}\n# the rest is in options.yaml\n"


# -- pictures ------------------------------------------------------------------------------------


def _curves(subject: Subject, past: History | None) -> Iterator[Picture]:
    if past is not None and len(past.epochs) > 1:
        for curve in past.curves[: MOST_LABELS + 1]:
            yield figures.learning_curve(curve, past, subject.best)


def _of_quantity(subject: Subject, shown: Shown) -> Iterator[Picture]:
    parts = [part for part in subject.parts if part.has(shown)][:MOST_SETS]
    names = [part.name for part in parts]
    if not shown.classes:
        for part in parts:
            yield figures.parity(part, shown, names)
        yield figures.histogram(parts, shown, names)


def _kept(pictures: Iterator[Picture], folder: Path) -> list[Image]:
    """The pictures for the page, each written as a file as well."""
    found = []
    for picture in pictures:
        with writing(folder / picture.name):
            (folder / picture.name).write_bytes(picture.png)
        found.append(Image(picture.name, _uri(picture.png, ".png"), picture.alt))
    return found


def _embedded(files: Sequence[Path]) -> tuple[dict[Path, Image], list[str]]:
    """Pictures in files, as many as there is room for, and the names of the others."""
    found: dict[Path, Image] = {}
    left, room = [], MOST_BYTES
    for file in files:
        size = file.stat().st_size
        if size > room:
            left.append(file.name)
            continue
        room -= size
        said = file.stem.replace("_", " ")
        found[file] = Image(file.name, _uri(file.read_bytes(), file.suffix), said)
    return found, left


def _uri(data: bytes, suffix: str) -> str:
    return f"data:{MIME[suffix]};base64,{base64.b64encode(data).decode()}"


# -- the viewer ----------------------------------------------------------------------------------


def _viewer() -> dict[str, str]:
    """3Dmol.js and its licence, whole: a page needs no network."""
    vendor = resources.files("atomtrain_report") / "vendor"
    return {
        "code": (vendor / "3Dmol-min.js").read_text(encoding="utf-8"),
        "licence": (vendor / "3Dmol-LICENSE.txt").read_text(encoding="utf-8"),
    }


def _view(one: Worst, length_unit: str) -> dict[str, Any] | None:
    """A structure as the page's script takes it: atoms in angstrom, cell vectors where it is periodic."""
    atoms = one.atoms(length_unit)
    if len(atoms) > MOST_ATOMS:
        return None
    lines = [
        f"{symbol} {x:.3f} {y:.3f} {z:.3f}"
        for symbol, (x, y, z) in zip(atoms.symbols, atoms.positions.tolist(), strict=True)
    ]
    cell = [[round(v, 3) for v in row] for row in atoms.cell.tolist()]
    return {
        "xyz": "\n".join([str(len(lines)), "", *lines, ""]),
        "cell": [row for row in cell if any(row)],
        "atom": one.atom,
        "name": f"{one.formula}, {one.place} ({one.part.name} set)",
    }
