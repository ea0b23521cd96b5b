"""``atomtrain md-check``. What it needs is imported when it runs, not for its help."""

from __future__ import annotations

import json as json_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, List, Optional  # typer reads them on Python 3.10

import typer

if TYPE_CHECKING:
    from atomtrain_dynamics.structures import Structure

app = typer.Typer(add_completion=False)


@app.command("md-check")
def md_check(  # noqa: PLR0913 (each is an option)
    model: Annotated[Path, typer.Argument(help="An exported model.", metavar="MODEL.pt")],
    files: Annotated[
        List[str],
        typer.Argument(
            help="Structures to start from and to compare with (wildcards too): the training data; or one options "
            "file, whose training set is compared with and whose test set is started from.",
            metavar="FILES",
        ),
    ],
    temperature: Annotated[Optional[float], typer.Option(help="In K. Default: 300.")] = None,
    time: Annotated[
        Optional[str], typer.Option(help="Of each run: '5 ps', '500 fs'. Default: 5 ps.")
    ] = None,
    starts: Annotated[Optional[int], typer.Option(help="How many runs. Default: 5.")] = None,
    timestep: Annotated[
        Optional[str],
        typer.Option(help="A step, in fs. Default: 0.5 with hydrogen, 1 up to neon, 2 beyond."),
    ] = None,
    ensemble: Annotated[
        Optional[str], typer.Option(help="nve (constant energy, the default) or langevin.")
    ] = None,
    settle: Annotated[
        Optional[str],
        typer.Option(help="With a thermostat, before each run: '0.5 ps', the default."),
    ] = None,
    repeat: Annotated[
        Optional[int], typer.Option(help="How often periodic cells are repeated. Default: 1.")
    ] = None,
    seed: Annotated[
        Optional[int], typer.Option(help="Of velocities and thermostat. Default: 0.")
    ] = None,
    variant: Annotated[
        Optional[str], typer.Option(help="Which energy, of a model that has several.")
    ] = None,
    length_unit: Annotated[
        str, typer.Option(help="Unit of positions in files of structures.")
    ] = "angstrom",
    output: Annotated[
        Optional[Path],
        typer.Option("-o", "--output", help="The picture. Default: <model>-dynamics.png."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 if a run did not hold.")
    ] = False,
    extensions: Annotated[
        Optional[Path],
        typer.Option("-e", "--extensions", help="Folder of libraries of the model."),
    ] = None,
) -> None:
    """Say whether a model holds in molecular dynamics: energy, bonds, distances, temperature."""
    from atomtrain.sections import Source, validate
    from atomtrain_dynamics.check import check, open_model, to_plain
    from atomtrain_dynamics.result import check_picture
    from atomtrain_dynamics.settings import Settings

    given = {
        "temperature": temperature, "time": _time(time), "starts": starts,
        "timestep": _time(timestep), "ensemble": ensemble, "settle": _time(settle),
        "repeat": repeat, "seed": seed, "variant": variant,
    }  # fmt: skip
    given = {key: value for key, value in given.items() if value is not None}
    settings = validate(Settings, given, (), Source(what="arguments"))
    output = Path(f"{model.stem}-dynamics.png") if output is None else output
    check_picture(output)
    opened, forces = open_model(model, settings.variant, extensions)
    data, chosen = _structures(files, length_unit)
    elements = opened.capabilities().atomic_types
    found = check(forces, settings, data, chosen, name=model.name, elements=elements)
    found.picture(output)
    if json:
        typer.echo(json_.dumps(to_plain(found.values()), indent=2, ensure_ascii=False))
    else:
        typer.echo("\n".join([*found.lines(), f"picture: {output}"]))
    if strict and len(found.held) < len(found.ran.runs):
        raise typer.Exit(code=1)


def _time(text: str | None) -> Any:
    """A time as the options would have it: numbers stay numbers."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


def _structures(files: list[str], length_unit: str) -> tuple[list[Structure], list[Structure]]:
    """The data, and what to start from."""
    from atomtrain.data import Files, Remarks, build_datasets, read_section
    from atomtrain.data.readers import paths_of
    from atomtrain.errors import OptionsError
    from atomtrain.options import DatasetSection, check_units
    from atomtrain.runs import plan
    from atomtrain_dynamics.structures import MOST_STRUCTURES, of_sets, structures_of

    options = [name for name in files if Path(name).suffix.lower() in (".yaml", ".yml")]
    if options:
        if len(files) > 1 or length_unit != "angstrom":
            raise OptionsError(
                f"'{options[0]}' is an options file, which names its data and their units: give it alone"
            )
        planned = plan(options[0])
        return of_sets(build_datasets(planned.options, planned.architecture.info.default_kind))[:2]
    opened, found = Files(), []
    paths = paths_of(files, None, "md-check")
    for path in paths:
        systems = {"read_from": path, "length_unit": length_unit}
        section = DatasetSection.model_validate({"systems": systems, "targets": {}})
        check_units([section])
        store = read_section(section, opened, Remarks()).store
        most = max(1, MOST_STRUCTURES // len(paths))
        found += structures_of(store, section.systems.length_unit, most)
    return found, found
