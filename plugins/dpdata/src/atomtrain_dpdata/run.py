"""What dpdata has read, one structure after the other, and the files it is read from."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from atomtrain.data import Frame
from atomtrain.data.readers import Account


class Unreadable(Exception):
    """What is the matter with a file and what to do, as the rest of ``'file' ...``."""


@dataclass
class Run:
    """The ``path`` that the options name, the ``frames`` read of it, and the ``account`` of them.

    Remedies look at the files and correct frames and account in place.
    """

    path: Path
    frames: list[Frame] = field(default_factory=list)
    account: Account = field(default_factory=Account)

    @cached_property
    def text(self) -> str:
        """The file itself. Raises Unreadable if there is none."""
        return self.beside(self.path)

    def beside(self, path: Path) -> str:
        """The text of a file. Raises Unreadable if there is none."""
        try:
            return path.read_text(errors="replace")
        except OSError:
            raise Unreadable(f"needs the file '{path}', which cannot be read") from None

    def mark(self, failed: list[bool], what: str) -> None:
        """Note the structures whose electrons did not converge, by a flag for each in the files."""
        if not any(failed):
            return
        if len(failed) != len(self.frames):
            raise Unreadable(
                f"has {sum(failed)} {what} that did not converge, and it cannot be told which of the "
                f"{len(self.frames)} structures that dpdata reads they belong to; remove them from the "
                "files first"
            )
        self.account.unconverged += [k for k, wrong in enumerate(failed) if wrong]
