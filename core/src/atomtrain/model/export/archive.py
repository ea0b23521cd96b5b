"""Writing, checking and opening the file of an exported model."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import re
import shutil
import tempfile
import tokenize
import warnings
import zipfile
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path, PurePosixPath

import torch
from metatomic.torch import AtomisticModel, ModelOutput, load_atomistic_model

from atomtrain.errors import CheckpointError, OutputError, PluginError, first_line
from atomtrain.files import archive_kind, metatrain_checkpoint, replacing

AVAILABLE = frozenset({"aten", "prim", "prims", "profiler", "quantized", "metatensor", "metatomic"})
"""Namespaces of TorchScript operators and classes that exist wherever metatomic-torch runs."""
OPERATOR = re.compile(r"(?:(?<!\S)(?<!\. )ops|(?<!\S)torch \. classes) \. (\w+) \. (\w+)")
"""in code whose tokens are separated by spaces"""


def save_model(
    model: AtomisticModel, path: Path | str, *, extensions: Path | str | None = None
) -> list[str]:
    """Write ``model`` to ``path``, whole or not at all.

    The file is refused (PluginError naming the operators) where it would need a library beside
    metatomic-torch, unless ``extensions`` names a folder to collect such libraries in: then those
    loaded in this process are copied there and recorded in the file. Returns the foreign
    operators found (empty for a file that needs nothing beside it). Raises OutputError where the
    file or the folder cannot be written.
    """
    path = Path(path)
    with replacing(path) as temporary, quiet_torchscript():
        with _no_recorded_libraries():
            _script_and_save(model, temporary)
        foreign = foreign_operators(temporary)
        if foreign and extensions is None:
            raise PluginError(
                "the exported model would need libraries that are not part of metatomic-torch, "
                f"for the operators {', '.join(foreign)}: the architecture must write them in "
                "plain torch for export, or name a folder to collect the libraries in (-e)"
            )
        if foreign and extensions is not None:
            _save_with_extensions(model, temporary, Path(extensions))
        load_model(temporary, extensions=extensions if foreign else None)
    return foreign


def load_model(path: Path | str, *, extensions: Path | str | None = None) -> AtomisticModel:
    """Open an exported model on the CPU. Raises CheckpointError with what to do about it.

    Libraries that it needs are loaded from the folder ``extensions``; else those of installed packages are.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"there is no model '{path}'")
    kind = archive_kind(path)
    if kind != "model":
        remedy = metatrain_checkpoint(path) or (
            "is a checkpoint, not an exported model; 'atomtrain export' makes one of it"
            if kind == "data"
            else "is not an exported model (or was cut off while it was copied): expected a file "
            "written by 'atomtrain train' or 'atomtrain export'"
        )
        raise CheckpointError(f"'{path}' {remedy}")
    lacking = _lacking_libraries(path) if extensions is None else ""
    if lacking:
        raise CheckpointError(lacking)
    try:
        with quiet_torchscript():
            return load_atomistic_model(path, extensions_directory=extensions)
    except (RuntimeError, ValueError, OSError) as error:
        reason = first_line(error.__cause__ or error)
        hint = ""
        if foreign_operators(path):
            hint = " (are the model's libraries in the folder of extensions, for this torch?)"
        raise CheckpointError(f"the model '{path}' cannot be opened: {reason}{hint}") from error


def requested_inputs(model: AtomisticModel) -> dict[str, ModelOutput]:
    """What a model asks engines for beside atoms, by name."""
    asked = getattr(model, "requested_inputs", None)  # files of early versions of metatomic lack it
    return {} if asked is None else dict(asked(use_new_names=True).items())


def _lacking_libraries(path: Path) -> str:
    """What to do about libraries the model needs that are not here; empty: all are.

    Packages that bring them are imported where they are installed: one that does so is somebody's choice.
    A folder beside the model came with it, and what is in there runs when it is loaded: it is only named.
    """
    libraries = _recorded(path)
    if not libraries:  # to look through the code takes longer than to open the file
        return ""
    missing = [name for name in foreign_operators(path) if not _registered(name)]
    for library in libraries if missing else ():
        _import_package(library["path"])
    missing = [name for name in missing if not _registered(name)]
    if not missing:
        return ""
    names = ", ".join(library["name"] for library in libraries)
    beside = path.parent / "extensions"
    folder = beside if beside.is_dir() else "FOLDER"
    return (
        f"the model '{path}' needs {names} beside metatomic-torch, for {', '.join(missing)}: give the folder of its "
        f"extensions, which was written with the model, by -e {folder}, or install the package that brings them"
    )


def _recorded(path: Path) -> list[dict[str, str]]:
    """The libraries a model was exported with: ``name``, and ``path`` in the folder of packages it came from."""
    with zipfile.ZipFile(path) as archive:
        names = [n for n in archive.namelist() if n.endswith("/extra/extensions")]
        found = json.loads(archive.read(names[0])) if names else []
    return list(found)


def _registered(name: str) -> bool:
    """Whether this process has an operator or class, ``namespace::name``."""
    namespace, own = name.split("::")
    if hasattr(getattr(torch.ops, namespace), own):
        return True
    try:
        return getattr(getattr(torch.classes, namespace), own) is not None
    except RuntimeError:  # torch's way to say that there is none
        return False


def _import_package(library: str) -> None:
    """Import the innermost installed package that a library lies in: that loads it, for the torch in use."""
    names = list(takewhile(str.isidentifier, PurePosixPath(library).parts))
    for n in range(len(names), 0, -1):
        with contextlib.suppress(ImportError, OSError, RuntimeError, ValueError):
            importlib.import_module(".".join(names[:n]))
            return


def foreign_operators(path: Path) -> list[str]:
    """Operators and classes in a TorchScript archive that torch and metatomic do not bring.

    Reads the archive's code, which is all that can run: methods, functions and classes alike.
    """
    found: set[str] = set()
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if "/code/" in name and name.endswith(".py"):
                found |= _operators(archive.read(name))
    return sorted(name for name in found if name.split("::")[0] not in AVAILABLE)


def _operators(source: bytes) -> set[str]:
    """``namespace::name`` of each ``ops.namespace.name`` and ``torch.classes.namespace.Name``.

    Tokenised first, since texts in the code (error messages) may say anything.
    """
    tokens = tokenize.tokenize(io.BytesIO(source).readline)
    code = " ".join(t.string for t in tokens if t.type in (tokenize.NAME, tokenize.OP))
    return {f"{namespace}::{name}" for namespace, name in OPERATOR.findall(code)}


@contextlib.contextmanager
def quiet_torchscript() -> Iterator[None]:
    """Hide torch's announcements that TorchScript is deprecated: users cannot act on them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*torch\.jit\..* is (deprecated|not supported)")
        yield


@contextlib.contextmanager
def _no_recorded_libraries() -> Iterator[None]:
    """metatomic records every library loaded in this process as needed by the model."""
    loaded = torch.ops.loaded_libraries
    torch.ops.loaded_libraries = set()
    try:
        yield
    finally:
        torch.ops.loaded_libraries = loaded


def _script_and_save(model: AtomisticModel, path: Path, collect: Path | None = None) -> None:
    try:
        model.save(str(path), collect_extensions=None if collect is None else str(collect))
    except OSError as error:
        if error.errno is not None:
            raise
        raise _not_compiled(error) from error
    except Exception as error:  # torch.jit raises what it stumbles over: TypeError, AttributeError
        if "PytorchStreamWriter" in str(error):  # a full disk, for instance
            raise OutputError(f"cannot write '{path}': {first_line(error)}") from error
        raise _not_compiled(error) from error


def _not_compiled(error: Exception) -> PluginError:
    return PluginError(
        "the model cannot be compiled by TorchScript, which exported models are made of:\n"
        f"{error.__cause__ or error}"
    )


def _save_with_extensions(model: AtomisticModel, path: Path, folder: Path) -> None:
    """Save again, recording libraries; they are merged into ``folder``.

    metatomic would delete an existing folder first, whatever it holds: hence a folder of its own.
    """
    with tempfile.TemporaryDirectory() as scratch:
        collected = Path(scratch) / folder.name
        _script_and_save(model, path, collected)
        try:
            shutil.copytree(collected, folder, dirs_exist_ok=True)
        except (OSError, shutil.Error) as error:
            raise OutputError(f"cannot collect libraries in '{folder}': {error}") from error
