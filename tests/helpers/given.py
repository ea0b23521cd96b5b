"""What the tests give to the code: options by the section they stand in, hooks of made-up plugins.

Read from their source, so that it does not depend on which tests run.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

OVERRIDE = re.compile(r"[a-z_]+(\.[\w:-]+)*=")


@dataclass(frozen=True)
class Mapping:
    """The keys of a mapping, and those it is found under (as far as the test says them)."""

    path: tuple[str, ...]
    keys: frozenset[str]


def options_in(files: Iterable[Path]) -> set[Mapping]:
    """Mappings in these tests: dictionaries, YAML, overrides, keywords that become options.

    Keywords do where they are given to a function of the tests that takes any (``train(folder,
    num_epochs=3)``), or to the class of a section.
    """
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in files]
    reader = _Reader({name for tree in trees for name in _takers(tree)})
    for tree in trees:
        reader.visit(tree)
    return reader.found


def hooks_in(files: Iterable[Path]) -> set[str]:
    """Hooks that these tests implement, in modules and in sources they install."""
    implemented = re.compile(r"^@hookimpl.*\ndef (\w+)\(", re.MULTILINE)
    return {name for file in files for name in implemented.findall(file.read_text("utf-8"))}


def _takers(tree: ast.AST) -> Iterator[str]:
    """Functions with ``**keywords`` and imported classes of sections."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.args.kwarg is not None:
            yield node.name
        elif isinstance(node, ast.ImportFrom) and re.search("options|hypers", node.module or ""):
            yield from (name.name for name in node.names if name.name[0].isupper())


class _Reader(ast.NodeVisitor):
    """Collects the outermost mappings with all that is inside them."""

    def __init__(self, takers: set[str]) -> None:
        self.takers = takers
        self.found: set[Mapping] = set()

    def visit_Dict(self, node: ast.Dict) -> None:
        self.add(self.plain(node))

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str):
            self.add(_read(node.value))

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        if name in self.takers:
            for keyword in node.keywords:  # one by one: the function may have some of its own
                self.add({str(keyword.arg): self.plain(keyword.value)})
            for argument in node.args:
                self.visit(argument)
        else:
            self.generic_visit(node)

    def plain(self, node: ast.expr) -> Any:
        """The value of a literal; None, and a visit of its own, for anything else."""
        if isinstance(node, ast.Dict):
            return {
                key.value: self.plain(value)
                for key, value in zip(node.keys, node.values, strict=True)
                if isinstance(key, ast.Constant) or self.visit(value)
            }
        if isinstance(node, (ast.List, ast.Tuple)):
            return [self.plain(one) for one in node.elts]
        if isinstance(node, ast.Constant):
            return node.value
        self.visit(node)
        return None

    def add(self, value: Any, path: tuple[str, ...] = ()) -> None:
        if isinstance(value, dict):
            self.found.add(Mapping(path, frozenset(map(str, value))))
            for key, inner in value.items():
                self.add(inner, (*path, str(key)))
        elif isinstance(value, list):
            for one in value:
                self.add(one, path)


def _read(text: str) -> Any:
    """What a text is, if it is a mapping in YAML or an override: ``a.b=c``."""
    override = OVERRIDE.match(text)
    if override is None and not re.search(r"^\s*[{\w].*:", text):
        return None
    try:
        value = yaml.safe_load(text[override.end() :] if override else text)
    except yaml.YAMLError:
        return None
    if override is not None:
        for key in reversed(override[0].rstrip("=").split(".")):
            value = {key: value}
    return value
