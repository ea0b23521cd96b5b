"""``atomtrain import-metatrain``: a checkpoint trained by metatrain's ``soap_bpnn`` as one of ours."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from atomtrain.errors import CheckpointError, OutputError

app = typer.Typer(add_completion=False)
UNPACK = Path(__file__).with_name("_unpack.py")


@app.command("import-metatrain")
def import_metatrain(
    checkpoint: Annotated[
        str, typer.Argument(help="Checkpoint of metatrain's soap_bpnn: path or http(s) address.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Our checkpoint.")] = Path(
        "imported.ckpt"
    ),
    python: Annotated[
        str, typer.Option("--python", help="The Python that has metatrain installed.")
    ] = sys.executable,
) -> None:
    """Turn a checkpoint of metatrain's soap_bpnn into ours, and try whether it exports.

    Export it with 'atomtrain export', fine-tune it with architecture.training.finetune.read_from.
    """
    if output.suffix != ".ckpt":
        raise OutputError(f"'{output}' should end in '.ckpt': it will be a checkpoint")
    import atomtrain
    from atomtrain.training.checkpoint import save_checkpoint
    from atomtrain.training.fetch import fetched

    with fetched(checkpoint) as path:
        if output.exists() and output.resolve() == path.resolve():
            raise OutputError(f"'{output}' is the file to be read; name another with -o")
        if not path.is_file():
            raise CheckpointError(f"there is no file '{checkpoint}'")
        ours = convert(unpack(path, python))
    save_checkpoint(ours, output)
    atomtrain.verify(output)
    typer.echo(f"written: {output} (next: atomtrain export {output}; atomtrain show {output})")


def unpack(checkpoint: Path, python: str) -> dict[str, Any]:
    """The checkpoint's content as plain data, read by metatrain itself in another process.

    Raises CheckpointError where that Python has no metatrain, or metatrain cannot read the file.
    """
    import torch

    install = (
        "python -m venv metatrain-env && metatrain-env/bin/pip install "
        "'metatrain[soap-bpnn]==2026.4.1', then pass --python metatrain-env/bin/python"
    )
    try:
        probe = subprocess.run([python, "-c", "import metatrain"], capture_output=True, text=True)
    except OSError as error:
        raise CheckpointError(f"cannot run '{python}': {error.strerror}") from None
    if probe.returncode:
        raise CheckpointError(
            f"metatrain is not installed for '{python}', and only metatrain can read its "
            f"checkpoints: {install}"
        )
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain.pt"
        done = subprocess.run(
            [python, str(UNPACK), str(checkpoint.resolve()), str(plain)],
            capture_output=True,
            text=True,
            cwd=folder,
        )
        if done.returncode or not plain.is_file():
            lines = (done.stderr.strip() or "no message").splitlines()
            raise CheckpointError(f"metatrain cannot read '{checkpoint}': {lines[-1]}")
        content: dict[str, Any] = torch.load(plain, weights_only=True)
    return content


def convert(found: dict[str, Any]) -> dict[str, Any]:
    """Our checkpoint from what :func:`unpack` found."""
    from pydantic import ValidationError

    import atomtrain
    from atomtrain.contract import catalog
    from atomtrain.training.checkpoint import FORMAT, FORMAT_VERSION
    from atomtrain_soap_bpnn.hypers import ModelHypers
    from atomtrain_soap_bpnn.metatrain import weights
    from atomtrain_soap_bpnn.model import SoapBpnn
    from atomtrain_soap_bpnn.plugin import describe_architecture

    try:
        hypers = ModelHypers.model_validate(found["hypers"])
    except ValidationError as error:
        raise CheckpointError(
            f"the model cannot be taken over: {error.errors()[0]['msg']}"
        ) from None
    info = weights.dataset_info(found)
    model = SoapBpnn(hypers, info)
    installed = catalog.find_architecture("soap-bpnn")
    assert installed is not None, "this package brings it"
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "atomtrain_version": atomtrain.__version__,
        "architecture": installed.identity(describe_architecture()),
        "options": {},
        "hypers": {"model": hypers.model_dump(mode="json"), "trainer": {}},
        "dataset_info": info.to_dict(),
        "splits": {},
        "fingerprint": "",
        "model": {
            "last": weights.weights(model, found, found["last"]),
            "best": weights.weights(model, found, found["best"]),
        },
        "core": {"version": 1, "affine": weights.affine(found, info)},
        "trainer": None,
        "metrics": {},
        "metadata": {},
        "epoch": found["epoch"],
        "best_epoch": found["best_epoch"],
    }
