"""``atomtrain import-mace``: a model trained by mace-torch as a checkpoint of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from atomtrain.errors import CheckpointError, OutputError

app = typer.Typer(add_completion=False)
ALIKE = 1e-5
"""how well the imported model must give what the original gives, of the largest force"""


@app.command("import-mace")
def import_mace(
    model: Annotated[
        str,
        typer.Argument(
            help="A model of mace-torch (.model): path or http(s) address. It can run code when it is read: take "
            "files whose origin you trust."
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Our checkpoint.")] = Path(
        "imported.ckpt"
    ),
    head: Annotated[
        Optional[str], typer.Option(help="Which head, where the model has several.")
    ] = None,
    target: Annotated[str, typer.Option(help="What the energy is to be called.")] = "energy",
) -> None:
    """Turn a model of mace-torch (trained, or a foundation model) into our checkpoint, and try whether it exports.

    Export it with 'atomtrain export', fine-tune it with architecture.training.finetune.read_from.
    """
    if output.suffix != ".ckpt":
        raise OutputError(f"'{output}' should end in '.ckpt': it will be a checkpoint")
    import atomtrain
    from atomtrain.training.checkpoint import save_checkpoint
    from atomtrain.training.fetch import fetched
    from atomtrain_mace import imported

    with fetched(model) as path:
        if output.exists() and output.resolve() == path.resolve():
            raise OutputError(f"'{output}' is the file to be read; name another with -o")
        if not path.is_file():
            raise CheckpointError(f"there is no file '{model}'")
        theirs = imported.read(path)
    predictor, hypers = imported.convert(theirs, head, target)
    off = imported.difference(predictor, theirs, head)
    if not off <= ALIKE:
        raise CheckpointError(
            f"the imported model differs from the original by {off:.1e} of the largest force on a made-up structure; "
            "nothing was written. Please report it, with the version of mace-torch that wrote the file"
        )
    save_checkpoint(imported.checkpoint(predictor, hypers), output)
    atomtrain.verify(output)
    typer.echo(
        f"written: {output}, which gives what the original gives ({off:.1e} of the largest force). Next: "
        f"atomtrain export {output}; atomtrain show {output}"
    )
