"""What a file holds by its first bytes, and opening it: packed or not, with a byte order mark or not.

Names lie: a file called ``.xyz`` may be packed, a web page, or what git-lfs left in its place.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from typing import IO, Any, BinaryIO, cast

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
DAMAGED = (EOFError, gzip.BadGzipFile, lzma.LZMAError, zlib.error)
"""what unpacking raises where a file is cut off or damaged"""
_HEAD = 50_000
"""bytes that ASE wants to see to tell a format"""
PACKING: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
"""how to open packed files, by the extensions that they should have"""
_PACKED: dict[bytes, Callable[[str], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
_CONVERT = "write its structures as extended xyz with the program that made it"
_FOREIGN: tuple[tuple[tuple[bytes, ...], str, str], ...] = (
    (
        (b"version https://git-lfs",),
        "is what git-lfs keeps in the place of the file, not the file itself",
        "run 'git lfs pull' in its repository",
    ),
    (
        (b"<!doctype html", b"<html"),
        "is a web page",
        "download the file itself (on GitHub by the button 'Raw')",
    ),
    (
        (b"\xff\xfe", b"\xfe\xff"),
        "is text in UTF-16",
        "convert it: iconv -f UTF-16 -t UTF-8 OLD > NEW",
    ),
    ((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"), "is a Python pickle", _CONVERT),
    ((b"\x93numpy",), "is an array of numpy", _CONVERT),
    ((b"pk\x03\x04",), "is a zip archive (.npz and .pt files are such too)", _CONVERT),
    (
        (b"\x89hdf\r\n\x1a\n",),
        "is an HDF5 file",
        "those of MACE are read by atomtrain-databases: install it; those of DeePMD-kit with reader: dpdata "
        "(of atomtrain-dpdata); of another " + _CONVERT,
    ),
    ((b"par1",), "is a parquet table", _CONVERT),
)
"""what a file begins with (in lower case), what it is then, and what to do"""


_LMDB = b"\xde\xc0\xef\xbe"
"""in the 17th byte of a file of LMDB"""


def is_hdf5(head: bytes) -> bool:
    """Whether a file that begins with ``head`` is HDF5."""
    return head.startswith(b"\x89HDF\r\n\x1a\n")


def is_lmdb(head: bytes) -> bool:
    """Whether a file that begins with ``head`` is a database of LMDB."""
    return head[16:20] == _LMDB


def packed(head: bytes) -> bool:
    """Whether a file that begins with ``head`` is packed by gzip, bzip2 or xz."""
    return head.startswith(tuple(_PACKED))


def opened(path: str, *, text: bool = False) -> IO[Any]:
    """A file to be read, unpacked and without a byte order mark; ``text``: decoded from UTF-8.

    Raises OSError, or, then or later, one of DAMAGED.
    """
    with open(path, "rb") as file:
        start = file.read(8)
    unpack = next((unpack for magic, unpack in _PACKED.items() if start.startswith(magic)), None)
    binary: BinaryIO = (unpack or _plain)(path)
    if text:
        return io.TextIOWrapper(binary, encoding="utf-8-sig")
    if binary.read(3) != BYTE_ORDER_MARK:
        binary.seek(0)
    return cast(IO[Any], binary)


def _plain(path: str) -> BinaryIO:
    return open(path, "rb")


def beginning(path: str) -> bytes:
    """The first bytes of a file as :func:`opened` has them. Raises as that."""
    with opened(path) as file:
        start: bytes = file.read(_HEAD)
    return start


def not_structures(head: bytes) -> str:
    """Why a file that begins with ``head`` cannot be one of structures, and what to do; empty: it may."""
    plain = head[:200].lstrip().lower()
    if not plain:
        return "is empty; write or copy it again" if len(head) < 200 else ""
    if is_lmdb(head):
        return "is an LMDB file; those of fairchem (.aselmdb) are read by atomtrain-databases: install it"
    for starts, what, remedy in _FOREIGN:
        if plain.startswith(starts):
            return f"{what}; {remedy}"
    return ""
