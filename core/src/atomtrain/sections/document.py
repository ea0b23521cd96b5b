"""Reading a YAML file with the place of every key, and ``-r a.b.c=value`` overrides on top of it.

YAML as metatrain's users know it (OmegaConf's dialect): ``on/off/yes/no`` are booleans, ``1e-3`` is
a number, dates are text, a key given twice is an error, ``${...}`` refers to other values.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike, fspath
from typing import Any

import yaml

from atomtrain.errors import OptionsError
from atomtrain.sections.names import is_symbol_of

Path = tuple[str | int, ...]

_MAX_NODES = 200_000  # a file of aliases to aliases could describe more keys than memory holds


@dataclass
class Source:
    """Where options came from: answers 'which line is this key on' for messages.

    Two sources compare equal always, so that options from different files can be compared.
    """

    name: str = ""
    """the file as the user named it"""
    values: Any = None
    """what the file and the overrides said, before completion"""
    positions: dict[Path, tuple[int, int]] = field(default_factory=dict)
    """line and column (from 1) of every key"""
    overrides: dict[Path, str] = field(default_factory=dict)
    """the override that set a key, as typed"""
    what: str = "options"
    """what such a file holds, for messages"""
    today: Callable[[str], str] = str
    """the name that completed options have for a key of the file"""
    moved: Mapping[Path, Path] = field(default_factory=dict)
    """where the file has a section that is elsewhere in completed options"""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Source)

    def where(self, path: Sequence[str | int]) -> str:
        """``options.yaml:12: training_set.targets.energy.key`` (or the override that set it)."""
        real, shown = self._resolve(path)
        keys = ".".join(str(part) for part in shown)
        for length in range(len(real), 0, -1):
            if real[:length] in self.overrides:
                return f"override '{self.overrides[real[:length]]}': {keys}"
            if real[:length] in self.positions:
                break
        place = f"{self.name}:{self.line(path)}" if self.name and self.positions else self.name
        return ": ".join(part for part in (place, keys) if part)

    def line(self, path: Sequence[str | int]) -> int:
        """Line of a key, or of the nearest section around it that is in the file."""
        real, _ = self._resolve(path)
        for length in range(len(real), 0, -1):
            if real[:length] in self.positions:
                return self.positions[real[:length]][0]
        return 1

    def error(self, path: Sequence[str | int], message: str) -> OptionsError:
        """An error about the key at ``path``."""
        return OptionsError(f"{self.where(path)}: {message}")

    def _resolve(self, path: Sequence[str | int]) -> tuple[Path, Path]:
        """The path as far as the file has it, and the path to show.

        Completed options are longer than the file: a single section became a list of one, a path
        became a section, an old name today's.
        """
        for today, here in self.moved.items():
            if tuple(path[: len(today)]) == today:
                path = (*here, *path[len(today) :])
        node = self.values
        real: list[str | int] = []
        for k, part in enumerate(path):
            if isinstance(node, dict):
                key = self.key_of(node, part)
                if key is not None:
                    node = node[key]
                    real.append(key)
                    continue
                if isinstance(part, int):
                    continue
            elif isinstance(node, list) and isinstance(part, int) and part < len(node):
                node = node[part]
                real.append(part)
                continue
            rest = list(path[k:])
            if not isinstance(node, list):
                rest = rest[1:] if rest and rest[0] == 0 else rest
            return tuple(real), (*real, *rest)
        return tuple(real), tuple(real)

    def key_of(self, node: dict[Any, Any], part: str | int) -> Any:
        """The key of a section of the file that is ``part`` in completed options, or None."""
        if part in node:
            return part
        for key in node:
            if str(key) == str(part) or (isinstance(key, str) and self.today(key) == part):
                return key
            if isinstance(part, int) and is_symbol_of(key, part):
                return key
        return None


class _Loader(yaml.SafeLoader):
    pass


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if not tag.endswith(("float", "timestamp"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"""^[-+]?(?: [0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?
                    | [0-9][0-9_]*[eE][-+]?[0-9]+
                    | \.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?
                    | \.(?:inf|Inf|INF) )$
            | ^\.(?:nan|NaN|NAN)$""",
        re.VERBOSE,
    ),
    list("-+0123456789."),
)


def read_document(
    document: str | PathLike[str] | Mapping[str, Any] | list[Any],
    overrides: Sequence[str] = (),
    today: Callable[[str], str] = str,
) -> Source:
    """Read a YAML file whose top level is a mapping or a list; apply overrides and ``${...}``.

    Instead of a path, what such a file holds. ``today`` gives the name that a key has by now. Raises
    :class:`~atomtrain.errors.OptionsError` with file and line for anything unreadable.
    """
    if isinstance(document, (str, PathLike)):
        source = read_file(document)
        if source.values is None:
            raise OptionsError(
                f"'{source.name}' is empty; an options file holds 'key: value' lines"
            )
    else:
        source = Source(values=_plain(document))
    source.today = today
    for override in overrides:
        _apply(override, source)
    source.values = _interpolate(source)
    return source


def _plain(value: Any) -> Any:
    """A copy as YAML would have given it: a program may hand over paths and tuples."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return fspath(value) if isinstance(value, PathLike) else value


def read_file(path: str | PathLike[str], what: str = "options") -> Source:
    """What a YAML file of ``what`` says as it stands, and where; None where it says nothing.

    Raises OptionsError with file and line for one that cannot be read.
    """
    name, kind = fspath(path), f"{what} file"
    try:
        with open(name, "rb") as file:
            text = file.read().decode("utf-8-sig")
    except FileNotFoundError:
        raise OptionsError(f"{kind} '{name}' does not exist") from None
    except IsADirectoryError:
        raise OptionsError(f"{kind} '{name}' is a directory") from None
    except UnicodeDecodeError:
        raise OptionsError(f"{kind} '{name}' is not a text file; it is YAML") from None
    except OSError as error:
        raise OptionsError(f"cannot read {kind} '{name}': {error.strerror}") from None
    return _parse(text, Source(name, what=what))


def _parse(text: str, source: Source) -> Source:
    """``source`` with the values and key positions of its YAML text."""
    name = source.name
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return source
        _refuse_duplicates(node, name)
        source.values = loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        hint = " (indent with spaces)" if "\\t" in str(error.problem) else ""
        if error.context == "while scanning an alias":  # data of the files '*.xyz', say
            hint = "; put quotes around what begins with *"
        raise OptionsError(f"{name}{line}: not valid YAML: {error.problem}{hint}") from None
    except yaml.YAMLError:
        raise OptionsError(f"{source.what} file '{name}' is not a text file; it is YAML") from None
    except (ValueError, RecursionError) as error:
        raise OptionsError(f"'{name}' is not valid YAML: {error}") from None
    _locate(node, (), source.positions, (), loader, name)
    return source


def parse_value(text: str) -> Any:
    """A single value as YAML reads it. Raises yaml.YAMLError or ValueError."""
    return yaml.load(text, Loader=_Loader)


def _refuse_duplicates(node: yaml.Node, name: str, seen: set[int] | None = None) -> None:
    seen = set() if seen is None else seen
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_duplicates(item, name, seen)
    elif isinstance(node, yaml.MappingNode):
        lines: dict[tuple[str, str], int] = {}
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                line, what = key.start_mark.line + 1, (key.tag, key.value)
                if what in lines:
                    raise OptionsError(
                        f"{name}:{line}: key '{key.value}' is given twice "
                        f"(first on line {lines[what]})"
                    )
                lines[what] = line
            _refuse_duplicates(value, name, seen)


def _locate(
    node: yaml.Node,
    path: Path,
    positions: dict[Path, tuple[int, int]],
    above: tuple[int, ...],
    loader: _Loader,
    name: str,
) -> None:
    if id(node) in above or len(positions) > _MAX_NODES:
        raise OptionsError(
            f"{name}:{node.start_mark.line + 1}: these YAML aliases refer to themselves or describe "
            "too many keys"
        )
    above = (*above, id(node))
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inside = (*path, loader.construct_object(key, deep=True))
            positions[inside] = (key.start_mark.line + 1, key.start_mark.column + 1)
            _locate(value, inside, positions, above, loader, name)
    elif isinstance(node, yaml.SequenceNode):
        for k, item in enumerate(node.value):
            positions[(*path, k)] = (item.start_mark.line + 1, item.start_mark.column + 1)
            _locate(item, (*path, k), positions, above, loader, name)


# ---- overrides ---------------------------------------------------------------------------------


def _apply(override: str, source: Source) -> None:
    """Set ``a.b.0.c=value`` in the values; sections are merged, everything else is replaced."""
    keys, equals, text = override.partition("=")
    parts = re.sub(r"\[(\d+)\]", r".\1", keys.strip()).split(".")
    try:
        if not equals or "" in parts:
            raise ValueError("expected key=value, for instance architecture.training.num_epochs=10")
        if not isinstance(source.values, dict):
            raise ValueError("the options file has no keys to override")
        _set(source, parts, _override_value(text), override)
    except ValueError as error:
        raise OptionsError(f"override '{override}': {error}") from None


def _override_value(text: str) -> Any:
    try:
        return parse_value(text)
    except (yaml.YAMLError, ValueError):
        raise ValueError(f"'{text}' is not a YAML value") from None


def _set(source: Source, parts: list[str], value: Any, override: str) -> None:
    """Put a value where ``parts`` lead to, making sections on the way. Raises ValueError."""
    node: Any = source.values
    path: list[str | int] = []
    for k, part in enumerate(parts):
        of_set = len(path) == 1 and str(path[0]).endswith("_set")
        if part == "0" and of_set and isinstance(node, dict):
            continue  # a single section is a list of one
        key = _key_for(node, part, path, source)
        path.append(key)
        if k < len(parts) - 1:
            if node[key] is None:
                node[key] = {}
                source.overrides[tuple(path)] = override
            node = node[key]
        elif isinstance(value, dict) and isinstance(node[key], dict):
            _merge(node[key], value)
        else:
            node[key] = value
    _mark(tuple(path), value, override, source)


def _key_for(node: Any, part: str, path: list[str | int], source: Source) -> Any:
    """The key or index of ``node`` that an override calls ``part``; a new key is made."""
    where = ".".join(map(str, path))
    if isinstance(node, list):
        if not part.isdigit() or int(part) >= len(node):
            raise ValueError(
                f"{where} is a list of {len(node)}; '{part}' is not one of its indices (0 to "
                f"{len(node) - 1})"
            )
        return int(part)
    if not isinstance(node, dict):
        raise ValueError(f"{where} is {node!r}, which has no key '{part}'")
    key = source.key_of(node, part)
    key = parse_key(part) if key is None else key
    node.setdefault(key, None)
    return key


def parse_key(text: str) -> Any:
    """A mapping key from an override: text, or the number of an atomic type."""
    return int(text) if text.isdigit() else text


def _merge(old: dict[Any, Any], new: dict[Any, Any]) -> None:
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(old.get(key), dict):
            _merge(old[key], value)
        else:
            old[key] = value


def _mark(path: Path, value: Any, override: str, source: Source) -> None:
    source.overrides[path] = override
    source.positions.pop(path, None)
    if isinstance(value, dict):
        for key, inside in value.items():
            _mark((*path, key), inside, override, source)


# ---- interpolation -----------------------------------------------------------------------------


def _interpolate(source: Source) -> Any:
    """Resolve ``${...}`` with OmegaConf (imported only if there is one)."""
    used = [path for path, value in _strings(source.values) if "${" in value]
    if not used:
        return source.values
    try:
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException
    except ImportError:
        raise source.error(
            used[0], "'${...}' needs the package omegaconf: pip install omegaconf"
        ) from None
    defaults = {"base_precision": 32, "seed": 0}
    wrapped = source.values
    if isinstance(wrapped, dict):
        wrapped = {**{k: v for k, v in defaults.items() if k not in wrapped}, **wrapped}
    config = OmegaConf.create(wrapped)
    problems = []
    for path in used:
        node = config
        try:
            for part in path:
                node = node[part]
        except OmegaConfBaseException as error:
            text = str(error).splitlines()[0].rstrip(".")
            problems.append(f"{source.where(path)}: {text}")
    if problems:
        raise OptionsError("\n".join(problems))
    values: Any = OmegaConf.to_container(config, resolve=True)
    if isinstance(source.values, dict):
        values = {key: values[key] for key in source.values}
    return values


def _strings(node: Any, path: Path = ()) -> list[tuple[Path, str]]:
    if isinstance(node, str):
        return [(path, node)]
    if isinstance(node, dict):
        return [found for key, value in node.items() for found in _strings(value, (*path, key))]
    if isinstance(node, list):
        return [found for k, value in enumerate(node) for found in _strings(value, (*path, k))]
    return []
