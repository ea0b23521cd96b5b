"""From docstrings and values to Markdown."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence
from typing import Any

import yaml

from atomtrain.sections import on_one_line


def markdown(docstring: str | None) -> str:
    """A docstring as Markdown: roles become code, a block after ``::`` is fenced."""
    text = inspect.cleandoc(docstring or "")
    text = re.sub(r":[a-z]+:`[~.]*([^`]+)`", r"`\1`", text)
    return re.sub(r"::\n\n((?:    .*(?:\n|$)|\n)+)", _fence, text).strip()


def _fence(found: re.Match[str]) -> str:
    code = inspect.cleandoc(found[1])
    language = "toml" if code.startswith("[") else "python"
    return f":\n\n```{language}\n{code}\n```\n\n"


def line(text: str | None) -> str:
    """Text for the cell of a table: bars outside of code are escaped."""
    parts = re.split(r"(`+[^`]*`+)", " ".join(markdown(text).split()))
    return "".join(p if p.startswith("`") else p.replace("|", "\\|") for p in parts)


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; every cell is Markdown."""
    head = [f"| {' | '.join(titles)} |", f"|{'---|' * len(titles)}"]
    return "\n".join([*head, *(f"| {' | '.join(row)} |" for row in rows)])


def code(value: Any) -> str:
    """A value as YAML writes it on one line, as code that a table can hold."""
    return f"`{on_one_line(value)}`"


def as_yaml(values: Any) -> str:
    """A fenced block of YAML."""
    return f"```yaml\n{yaml.safe_dump(values, sort_keys=False)}```"
