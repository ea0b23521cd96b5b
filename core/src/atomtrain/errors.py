"""One family of errors for users.

Every error a user can cause is an :class:`AtomtrainError` whose message says what is wrong, where,
and what to do about it. The command line prints the message without a traceback and exits with 1.
Anything else that escapes is a bug of ours (or of a plugin) and keeps its traceback. Whoever meets a
name it does not know says which one was probably meant, with :func:`did_you_mean`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self


class AtomtrainError(Exception):
    """Base of all errors that are shown to a user as one message."""

    def saying(self, message: str) -> Self:
        """This error with another message, to say where it was met; what else it knows, it still does."""
        kind = type(self)
        other = kind.__new__(kind, message)
        other.__dict__.update(self.__dict__)
        return other


class OptionsError(AtomtrainError):
    """The options file (or an override) is wrong: file, line, key path, remedy."""


class PluginError(AtomtrainError):
    """An installed plugin is broken, missing, or answers its hooks wrongly."""


class DataError(AtomtrainError):
    """A data file cannot be read, or what it holds is not what the options promise."""


class TargetError(AtomtrainError):
    """A target is described inconsistently or an architecture cannot fit it."""


class CheckpointError(AtomtrainError):
    """A checkpoint or model file is missing, damaged, unsafe, or of another version."""


class DeviceError(AtomtrainError):
    """The requested device or precision is not available."""


class OutputError(AtomtrainError):
    """Something cannot be written where the user asked for it."""


class ProcessesError(AtomtrainError):
    """Processes that train together cannot find each other, differ, or one of them failed or is gone."""


class VerificationError(AtomtrainError):
    """The file of an exported model does not do what it should."""


def nearest(word: object, known: Iterable[str]) -> str | None:
    """The known name that ``word`` most likely means, or None. Case and ``-``/``_`` are ignored."""
    plain = {name.lower().replace("-", "_"): name for name in known}
    close = difflib.get_close_matches(str(word).lower().replace("-", "_"), plain, 1, 0.6)
    return plain[close[0]] if close else None


def did_you_mean(word: object, known: Iterable[str], what: str = "known") -> str:
    """``; did you mean 'x'?``, or `` (what: a, b, ...)`` where no name is near (and they are few)."""
    known = list(known)
    close = nearest(word, known)
    if close is not None:
        return f"; did you mean '{close}'?"
    return f" ({what}: {', '.join(known)})" if 0 < len(known) <= 15 else ""


def first_line(error: BaseException, *, typed: bool = False) -> str:
    """What an error says first (``typed``: after its type); its type where it says nothing."""
    kind, lines = type(error).__name__, str(error).strip().splitlines()
    if not lines:
        return kind
    return f"{kind}: {lines[0]}" if typed else lines[0]


def out_of_memory(error: BaseException) -> bool:
    """Whether an error, or one it came from, is that memory ran out, of the machine or of a GPU."""
    seen: BaseException | None = error
    while seen is not None:
        name, text = type(seen).__name__, str(seen)
        if (
            isinstance(seen, MemoryError)
            or name == "OutOfMemoryError"
            or "not enough memory" in text
        ):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
