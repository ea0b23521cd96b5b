"""``atomtrain init``. What it needs is imported when it runs, not for its help."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, List, Optional  # typer reads them on Python 3.10

import typer

from atomtrain_inspect.arguments import Format, Keys, Reader, keys_given

if TYPE_CHECKING:
    from atomtrain_inspect.choices import Draft

app = typer.Typer(add_completion=False)


@app.command("init")
def init(  # noqa: PLR0913
    files: Annotated[
        List[str],
        typer.Argument(
            help="Files of structures (wildcards too). Several: 'test' or 'valid' in a name says what it is for.",
            metavar="FILES",
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The options file to be written.")
    ] = Path("options.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    no_input: Annotated[
        bool,
        typer.Option(
            "--no-input", help="Ask nothing. (Nothing is asked either where there is no terminal.)"
        ),
    ] = False,
    test: Annotated[
        Optional[List[str]], typer.Option(help="File of the test set. Repeatable.")
    ] = None,
    validation: Annotated[
        Optional[List[str]], typer.Option(help="File of the validation set. Repeatable.")
    ] = None,
    architecture: Annotated[
        str, typer.Option("-a", "--architecture", help="Which architecture. Absent: what suits.")
    ] = "",
    key: Keys = None,
    unit: Annotated[str, typer.Option(help="Unit of energies. Absent: guessed.")] = "",
    length_unit: Annotated[str, typer.Option(help="Unit of positions. Absent: guessed.")] = "",
    reader: Reader = None,
    format: Format = "",
    types: Annotated[
        Optional[List[str]],
        typer.Option(
            "-t", "--type", help="Element of a type of atom: 1=Cu.", metavar="TYPE=ELEMENT"
        ),
    ] = None,
    unconverged: Annotated[
        str,
        typer.Option(help="Structures whose electrons did not converge: refuse, drop or keep."),
    ] = "refuse",
) -> None:
    """Write a first options file for data, with comments that say why and how sure."""
    _check_output(output, force)
    from atomtrain.data.convert import reading_of
    from atomtrain.errors import AtomtrainError, DataError
    from atomtrain.files import replacing
    from atomtrain.runs.plan import plan
    from atomtrain_inspect.choices import Given
    from atomtrain_inspect.draft import drafted
    from atomtrain_inspect.options_text import written

    _check_files(files)
    asked = not no_input and sys.stdin.isatty() and sys.stdout.isatty()
    given = Given(
        files,
        validation or (),
        test or (),
        reader,
        reading_of(format, types or (), unconverged),
        keys_given(key or ()),
        unit,
        length_unit,
        architecture,
    )
    try:
        draft = drafted(given, _ask if asked else lambda question, default, answers: default)
    except DataError as error:
        raise DataError(f"{error}{_here(str(error))}") from error
    with replacing(output) as temporary:
        temporary.write_text(written(draft, output), encoding="utf-8")
        try:
            plan(temporary)  # what cannot be trained is not left behind
        except AtomtrainError as error:
            raise error.saying(str(error).replace(str(temporary), str(output))) from error
    _say(draft, output)


def _check_output(output: Path, force: bool) -> None:
    from atomtrain.errors import OutputError

    if output.suffix.lower() not in (".yaml", ".yml"):
        raise OutputError(f"'{output}' should end in '.yaml': it will be an options file")
    if output.exists() and not force:
        raise OutputError(
            f"'{output}' is there already: give --force to replace it, or -o another name"
        )


def _check_files(files: Sequence[str]) -> None:
    from atomtrain.errors import OptionsError

    for name in files:
        suffix = Path(name).suffix.lower()
        if suffix in (".yaml", ".yml"):
            raise OptionsError(
                f"'{name}' is an options file; init makes one from files of structures"
            )
        if suffix in (".ckpt", ".pt"):
            raise OptionsError(f"'{name}' is a model; init makes options from files of structures")


def _here(message: str) -> str:
    """How to say to init what a message says to write into options."""
    said = {
        "types: {": "--type 1=Cu",
        "unconverged: drop": "--unconverged drop",
        "reader: ": "--reader",
    }
    found = [option for words, option in said.items() if words in message]
    return f" (to init: {', '.join(found)})" if found else ""


def _ask(question: str, default: str, answers: Sequence[str]) -> str:
    """An answer from the terminal; one of the ``answers``, if there are any."""
    said = f"{question} [{', '.join(answers)}]" if answers else question
    while True:
        answer = str(typer.prompt(said, default=default)).strip()
        if not answers or answer in answers:
            return answer
        typer.echo(f"'{answer}' is none of {', '.join(answers)}")


def _say(draft: Draft, output: Path) -> None:
    """What is serious, and what to do next."""
    serious = [f for f in draft.report.findings if f.severity == "serious"]
    for finding in serious:
        typer.secho(f"serious: {finding.text}", fg="red")
    others = draft.report.count("warning")
    if others:
        typer.echo(f"{others} warnings stand as comments in the file")
    typer.echo(f"written: {output}")
    first = "see to what is serious, then " if serious else ""
    typer.echo(
        f"next: {first}read it; atomtrain train {output} --dry-run; atomtrain train {output}"
    )
