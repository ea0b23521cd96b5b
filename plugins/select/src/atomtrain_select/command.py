"""``atomtrain select``. What it needs is imported when it runs, not for its help."""

from __future__ import annotations

import json as json_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, List, Optional  # typer reads them on Python 3.10

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from atomtrain.data import StructureStore
    from atomtrain_select.choose import Choice

app = typer.Typer(add_completion=False)
WAYS = ("uncertainty", "distance", "both")


@app.command("select")
def select(  # noqa: PLR0913 (each is an option)
    files: Annotated[
        List[str],
        typer.Argument(help="Structures to choose from (wildcards too).", metavar="POOL"),
    ],
    model: Annotated[
        Path, typer.Option("-m", "--model", help="An exported model.", metavar="MODEL.pt")
    ],
    number: Annotated[
        Optional[int], typer.Option("-n", "--number", min=1, help="How many structures.")
    ] = None,
    budget: Annotated[
        Optional[int], typer.Option(min=1, help="How many atoms they may have together.")
    ] = None,
    by: Annotated[
        Optional[str],
        typer.Option(
            help="uncertainty, distance (farthest points in feature space) or both (their product). "
            "Default: both where the model gives uncertainties, else distance."
        ),
    ] = None,
    known: Annotated[
        Optional[List[str]],
        typer.Option(help="What is labelled already (again for more files): the training data."),
    ] = None,
    target: Annotated[
        Optional[str], typer.Option(help="Whose uncertainty. Default: the energy's.")
    ] = None,
    length_unit: Annotated[str, typer.Option(help="Unit of positions in the files.")] = "angstrom",
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The chosen structures, extended xyz.")
    ] = Path("selected.xyz"),
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    extensions: Annotated[
        Optional[Path],
        typer.Option("-e", "--extensions", help="Folder of libraries of the model."),
    ] = None,
) -> None:
    """Choose structures of a pool to label next, by what a model knows of them."""
    from atomtrain.data.readers import paths_of
    from atomtrain.errors import OptionsError
    from atomtrain.model.export import load_model, requested_inputs
    from atomtrain_select.choose import Pool, choose
    from atomtrain_select.seen import features_output, look, uncertainty_output

    if number is None and budget is None:
        raise OptionsError("say how many structures (-n) or how many atoms (--budget) to choose")
    if by is not None and by not in WAYS:
        raise OptionsError(f"--by is '{by}', but can be {', '.join(WAYS)}")
    pool_files = paths_of(files, None, "select")
    known_files = paths_of(known, None, "--known") if known else []
    _check_output(output, [*pool_files, *known_files])
    opened = load_model(model, extensions=extensions)
    uncertainty = None if by == "distance" else uncertainty_output(opened, target)
    if by in ("uncertainty", "both") and uncertainty is None:
        raise OptionsError(
            f"'{model}' gives no uncertainty; 'architecture: {{name: llpr}}' adds one to a trained model "
            "(atomtrain-llpr), and --by distance needs none"
        )
    way = by or ("both" if uncertainty else "distance")
    features = None if way == "uncertainty" else features_output(opened)
    if way != "uncertainty" and features is None:
        raise OptionsError(
            f"'{model}' gives no features ('features') to measure distances in; choose --by uncertainty"
        )
    inputs = requested_inputs(opened)
    pool = _read(pool_files, length_unit, inputs)
    labelled = _read(known_files, length_unit, inputs) if known_files and features else None
    uncertainties, of_pool = look(
        opened, pool, length_unit, uncertainty=uncertainty, features=features
    )
    seen = None
    if labelled is not None:
        seen = look(opened, labelled, length_unit, uncertainty=None, features=features)[1]
    sizes = (pool.offsets[1:] - pool.offsets[:-1]).numpy()
    chosen = choose(Pool(sizes, uncertainties, of_pool), way, number, budget, seen)  # type: ignore[arg-type]
    if not chosen:
        raise OptionsError(
            f"none of the {len(pool)} structures can be chosen: each has more atoms than --budget, or they "
            "do not differ from what is known"
        )
    unit = opened.capabilities().outputs[uncertainty].unit if uncertainty else ""
    _write(output, pool, chosen, length_unit, way)
    if json:
        rows = [{**one._asdict(), "origin": pool.origin(one.structure)} for one in chosen]
        typer.echo(json_.dumps({"by": way, "unit": unit, "chosen": rows}, indent=2))
        return
    for line in _lines(pool, chosen, unit):
        typer.echo(line)
    atoms = int(sizes[[one.structure for one in chosen]].sum())
    typer.echo(
        f"{len(chosen)} of {len(pool)} structures by {way if way != 'both' else 'uncertainty and distance'}, "
        f"{atoms} atoms: {output}"
    )
    if number is not None and len(chosen) < number:
        typer.echo("fewer than asked for: no other fits the budget, or differs from those chosen")


def _check_output(output: Path, inputs: list[str]) -> None:
    """OutputError for a file that is not to be written: one that is read, a folder, another kind of file."""
    from atomtrain.errors import OutputError

    if output.suffix not in (".xyz", ".extxyz"):
        raise OutputError(
            f"-o {output}: the chosen structures are written as extended xyz, '*.xyz'"
        )
    if output.is_dir() or not output.absolute().parent.is_dir():
        raise OutputError(f"-o {output}: is a folder, or in a folder that does not exist")
    if any(Path(name).resolve() == output.resolve() for name in inputs):
        raise OutputError(f"-o {output}: is one of the files that are read; give another name")


def _read(paths: list[str], length_unit: str, inputs: Iterable[str]) -> StructureStore:
    """The structures, with what else the model needs to know of them."""
    import torch

    from atomtrain.data import Files, Remarks, read_section
    from atomtrain.options import DatasetSection, check_units

    given = {
        "systems": {"read_from": paths, "length_unit": length_unit},
        "targets": {},
        "extra_data": {name: {"key": name} for name in inputs},
    }
    section = DatasetSection.model_validate(given)
    check_units([section])
    store = read_section(section, Files(), Remarks()).store
    return store.select(torch.arange(len(store)))


def _write(
    output: Path, pool: StructureStore, chosen: list[Choice], length_unit: str, way: str
) -> None:
    """The chosen structures in angstrom, each with why and where it was."""
    import ase.io

    from atomtrain.files import replacing

    frames = []
    for rank, one in enumerate(chosen):
        atoms = pool.atoms(one.structure, length_unit)
        atoms.info |= {"select_rank": rank, "select_by": way}
        if pool.origins is not None:
            file, frame = pool.origins[one.structure].tolist()
            atoms.info |= {"select_file": pool.files[file], "select_frame": frame}
        if one.uncertainty is not None:
            atoms.info["select_uncertainty_per_atom"] = one.uncertainty
        if one.distance is not None:
            atoms.info["select_distance"] = one.distance
        frames.append(atoms)
    with replacing(output) as place:
        ase.io.write(place, frames, format="extxyz")


def _lines(pool: StructureStore, chosen: list[Choice], unit: str, most: int = 10) -> list[str]:
    """The first choices and why."""
    lines = []
    for one in chosen[:most]:
        why = []
        if one.uncertainty is not None:
            milli = unit == "eV"
            value = f"{one.uncertainty * 1e3:.3g} meV" if milli else f"{one.uncertainty:.3g} {unit}"
            why.append(f"uncertainty {value.strip()} per atom")
        if one.distance is not None:
            why.append(f"distance {one.distance:.3g}")
        lines.append(
            f"{pool.origin(one.structure)}: {', '.join(why) or 'the first, the most usual'}"
        )
    if len(chosen) > most:
        lines.append(f"... and {len(chosen) - most} more")
    return lines
