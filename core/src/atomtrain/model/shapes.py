"""Whether what an architecture's own methods return has the shapes that they promise.

A wrong one would fail inside a head of the core or inside the loss, or not at all where torch broadcasts. It is
looked at in every call in Python, which costs microseconds; TorchScript leaves it out. All functions here raise
PluginError with class, method, what came and what was expected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from atomtrain.errors import PluginError
from atomtrain.graph import AtomGraph, n_structures

if TYPE_CHECKING:
    from atomtrain.model.base import Model
    from atomtrain.targets import DatasetInfo


class Layout(NamedTuple):
    """Of an output: whether it has a row for each structure or for each atom, and the shapes of a row."""

    of_structures: bool
    blocks: list[tuple[int, ...]]


def layouts(model: Model, dataset_info: DatasetInfo) -> dict[str, Layout]:
    """What ``model.forward`` has to return for each of its targets and further outputs."""
    of_structures = model.structure_outputs()
    return {
        **{n: Layout(False, [(width,)]) for n, width in model.feature_outputs().items()},
        **{n: Layout(True, [(width,)]) for n, width in of_structures.items()},
        **{n: Layout(False, [(of_structures[of],)]) for of, n in model.atom_outputs().items()},
        **{n: Layout(t.pooled, [b.shape for b in t.blocks]) for n, t in dataset_info.targets.items()},
    }  # fmt: skip


def check_predictions(
    model: Model,
    graph: AtomGraph,
    outputs: Sequence[str],
    found: Any,
    wanted: Mapping[str, Layout],
) -> None:
    """What ``Model.forward`` returned for ``outputs``; those that are not in ``wanted`` may be anything."""
    if not isinstance(found, dict):
        raise _error(model, "forward", "the predictions", _what(found), "a dictionary of blocks")
    for name in outputs:
        if name not in wanted:
            continue
        if name not in found:
            returned = ", ".join(f"'{n}'" for n in found) or "nothing"
            raise _error(model, "forward", f"asked for '{name}', the model", returned, f"'{name}'")
        layout, blocks = wanted[name], found[name]
        rows, row = len(graph.types), "n_atoms"
        if layout.of_structures:
            rows, row = n_structures(graph), "n_structures"
        if not isinstance(blocks, (list, tuple)) or len(blocks) != len(layout.blocks):
            n = len(layout.blocks)
            expected = f"a list of {n} tensor{'s' if n > 1 else ''}, the blocks of the target,"
            raise _error(model, "forward", f"output '{name}'", _what(blocks), expected)
        for k, (block, shape) in enumerate(zip(blocks, layout.blocks, strict=True)):
            if not _has(block, (rows, *shape)):
                what = (
                    f"block {k} of '{name}'" if len(layout.blocks) > 1 else f"the block of '{name}'"
                )
                axes = [row, *(("components",) if len(shape) > 1 else ()), "properties"]
                expected = f"{[rows, *shape]} ({', '.join(axes)})"
                raise _error(model, "forward", what, _what(block), expected)


def check_energies(model: Model, graph: AtomGraph, found: Any) -> None:
    """What ``PotentialModel.atomic_energies`` returned."""
    n = len(graph.types)
    if not _has(found, (n,)):
        raise _error(model, "atomic_energies", "the energies", _what(found), f"[{n}] (n_atoms)")


def check_encoded(
    model: Model, graph: AtomGraph, found: Any, n_features: int, degrees: Mapping[int, int]
) -> None:
    """What ``FeatureModel.encode`` returned, or ``features``, where ``encode`` is the core's."""
    method = "features" if _is_the_cores(model, "encode") else "encode"
    if not (isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], dict)):
        expected = "a pair (features, {degree: equivariant features})"
        raise _error(model, method, "the result", _what(found), expected)
    features, equivariant = found
    n = len(graph.types)
    if not _has(features, (n, n_features)):
        expected = f"[{n}, {n_features}] (n_atoms, n_features)"
        remedy = f"super().__init__ was given n_features={n_features}"
        raise _error(model, method, "the features", _what(features), expected, remedy)
    remedy = f"super().__init__ was given degrees={dict(degrees)}"
    if set(equivariant) != set(degrees):
        came = ", ".join(map(str, sorted(equivariant, key=str))) or "none"
        expected = f"degrees {', '.join(map(str, sorted(degrees))) or 'none'}"
        raise _error(model, method, "equivariant features", f"degrees {came}", expected, remedy)
    for degree, width in degrees.items():
        if not _has(equivariant[degree], (n, 2 * degree + 1, width)):
            expected = f"[{n}, {2 * degree + 1}, {width}] (n_atoms, 2 l + 1, n)"
            what = f"equivariant features of degree {degree}"
            raise _error(model, method, what, _what(equivariant[degree]), expected, remedy)


def _is_the_cores(model: Model, method: str) -> bool:
    return bool(getattr(type(model), method).__module__.startswith("atomtrain.model."))


def _has(found: Any, shape: tuple[int, ...]) -> bool:
    return isinstance(found, Tensor) and found.shape == shape


def _what(found: Any) -> str:
    """What came, in a few words."""
    if isinstance(found, Tensor):
        return f"a tensor {list(found.shape)}"
    if isinstance(found, (list, tuple)):
        return f"a {type(found).__name__} of {len(found)}"
    return "None" if found is None else f"a {type(found).__name__}"


def _error(
    model: torch.nn.Module, method: str, what: str, came: str, expected: str, remedy: str = ""
) -> PluginError:
    cls = type(model)
    return PluginError(
        f"{cls.__module__}.{cls.__qualname__}.{method}: {what}: {came} came where {expected} was expected"
        + (f"; {remedy}" if remedy else "")
    )
