"""Whether a file is there, and begins as it should, before a library opens it."""

from __future__ import annotations

from collections.abc import Callable

from atomtrain.data.readers import packed
from atomtrain.errors import DataError


def check_start(path: str, here: str, is_one: Callable[[bytes], bool], what: str) -> None:
    """Raise DataError, beginning with ``here``, unless ``is_one`` says so of the first bytes."""
    try:
        with open(path, "rb") as file:
            head = file.read(20)
    except OSError as error:
        raise DataError(f"{here} cannot be read: {error.strerror or error}") from error
    if packed(head):
        raise DataError(f"{here} is packed; unpack it first (gunzip, bunzip2, unxz)")
    if not is_one(head):
        raise DataError(f"{here} is not a file of {what}; leave the reader out, or name another")
