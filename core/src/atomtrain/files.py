"""Writing files so that they are whole or absent. Plain standard library.

Everything atomtrain leaves behind (checkpoints, models, predictions) goes through
:func:`replacing`: a kill, a full disk or an error leaves the previous file as it was.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pickletools
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from atomtrain.errors import OutputError


def file_stem(name: str) -> str:
    """A target's name in the name of a file: variants (``energy/pbe``) are no folders."""
    return name.replace("/", "_")


def archive_kind(path: Path) -> str:
    """What a torch archive holds: a ``model`` in TorchScript or ``data``; empty where it is none."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.split("/", 1)[-1] for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError):
        return ""
    if "constants.pkl" in names:
        return "model"
    return "data" if "data.pkl" in names else ""


def metatrain_checkpoint(path: Path | str) -> str | None:
    """What to do about a checkpoint that metatrain wrote; None where the file is anything else.

    Found by names in its pickle, which is read as a list of opcodes: nothing of it is loaded or run.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            pickled = next(n for n in archive.namelist() if n.split("/", 1)[-1] == "data.pkl")
            content = archive.read(pickled)
        texts = [arg for _, arg, _ in pickletools.genops(content) if isinstance(arg, str)]
    except (zipfile.BadZipFile, OSError, StopIteration, ValueError):
        return None
    if "architecture_name" not in texts[:-1] or not any(t.startswith("metatrain.") for t in texts):
        return None
    architecture = texts[texts.index("architecture_name") + 1]
    if architecture in ("composition", "scaler"):
        return (
            f"is the {architecture} of a model of metatrain. Here the checkpoint of a whole model says its composition "
            "and its scales: make ours of the model.ckpt beside it (atomtrain import-metatrain) and name that"
        )
    return (
        f"is a checkpoint of metatrain (architecture '{architecture}'), which only metatrain can read. If you "
        f"trust where it comes from (it can run code then), make one of ours of it: "
        f"atomtrain import-metatrain {path}"
    )


@contextlib.contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends without error.

    The temporary file keeps the suffix of ``path`` (some writers choose the format by it). Raises
    OutputError where the folder does not exist or cannot be written to.
    """
    path = Path(path)
    if path.is_dir():
        raise OutputError(f"cannot write '{path}': it is a folder; give the name of a file")
    with writing(path):
        handle, name = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.stem}.", suffix=f".tmp{path.suffix}"
        )
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes files private
            _flush(temporary)
            os.replace(temporary, path)
            _flush_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(path: Path | str) -> Iterator[Path]:
    """As :func:`replacing`, for a folder of files. One that exists must be empty."""
    path = Path(path)
    check_new_folder(path)
    with writing(path):
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"))
        try:
            yield temporary
            os.chmod(temporary, 0o777 & ~_umask())  # mkdtemp makes folders private
            for file in temporary.iterdir():
                _flush(file)
            if path.exists():
                path.rmdir()
            os.replace(temporary, path)
            _flush_folder(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def check_new_folder(path: Path) -> None:
    """Raise OutputError unless a folder can be made at ``path`` without touching another's files."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        what = "a folder with files in it" if path.is_dir() else "a file"
        raise OutputError(f"cannot write the folder '{path}': it is {what}; remove it first")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """OutputError for what the system refuses."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # not the system's: torch raises such for sources it cannot find
            raise
        raise OutputError(f"cannot write '{path}': {error.strerror}") from error


class Appending:
    """Text that grows at the end of a file. Lines that cannot be written wait until they can.

    No half of a line stays behind. What is written is there at once for whoever looks.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._waiting: list[str] = []

    @property
    def begins(self) -> bool:
        """Whether nothing was added yet (or what was is gone)."""
        try:
            return not self._waiting and self.path.stat().st_size == 0
        except OSError:
            return not self._waiting

    def add(self, text: str) -> str:
        """Write what waits and ``text``; gives why that was not possible, empty where it was."""
        self._waiting.append(text)
        data = memoryview("".join(self._waiting).encode())
        try:
            with open(self.path, "ab", buffering=0) as file:
                end = file.tell()
                try:
                    while data:
                        data = data[file.write(data) :]
                except OSError:
                    file.truncate(end)
                    raise
        except OSError as error:
            return error.strerror or str(error)
        self._waiting.clear()
        return ""


DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE)


def is_disk(error: BaseException) -> bool:
    """Whether an error, or one it came from, is that a disk is full, broken or away."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in DISK:
            return True
        if "PytorchStreamWriter failed writing" in str(seen):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _flush(file: Path) -> None:
    with open(file, "rb") as opened:
        os.fsync(opened.fileno())


def _flush_folder(path: Path) -> None:
    with contextlib.suppress(OSError):  # not every file system lets a folder be flushed
        folder = os.open(path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
