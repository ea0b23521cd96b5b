"""Values as an options file has them."""

from __future__ import annotations

import json
from typing import Any

import yaml

WIDTH = 60


def on_one_line(value: Any) -> str:
    """``{cutoff: 5.0, layers: [64, 64]}``: a value, sections too, as YAML without a line break."""
    text = yaml.safe_dump(
        _plain(value), default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6
    )
    return text.removesuffix("\n").removesuffix("\n...")


def in_lines(value: Any) -> str:
    """A value as YAML with a line for each key; lists of numbers and words stay on one."""
    text = yaml.dump(_plain(value), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=80)
    return text.removesuffix("\n").removesuffix("\n...")


def written(value: Any) -> str:
    """A value on one line, or in lines where that one would be long."""
    line = on_one_line(value)
    return line if len(line) <= WIDTH else in_lines(value)


class _Dumper(yaml.SafeDumper):
    """Safe, and with lists of plain values on one line."""


def _list(dumper: _Dumper, values: list[Any]) -> yaml.Node:
    flat = not any(isinstance(item, (dict, list)) for item in values)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=flat)


_Dumper.add_representer(list, _list)


def _plain(value: Any) -> Any:
    def plain(inner: Any) -> Any:
        return inner.model_dump(mode="json") if hasattr(inner, "model_dump") else str(inner)

    return json.loads(json.dumps(value, default=plain))
