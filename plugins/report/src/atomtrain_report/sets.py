"""Sets of structures with what was predicted for them: errors by structure, and of groups of atoms and structures."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch

from atomtrain.sections.names import symbols
from atomtrain.targets import DatasetInfo, TargetInfo, split_key
from atomtrain.tasks import task_of
from atomtrain.training.units import Quantity, quantities

if TYPE_CHECKING:
    from ase import Atoms

    from atomtrain.data import Structures, StructureStore
    from atomtrain.training.evaluate import Compared
    from atomtrain.training.observers import Errors

SIZES = 6
"""rows of a table of sizes"""
GROUPS = 30
"""rows of any other table, the largest groups first"""
NOTHING = "-"
"""in place of a number"""


@dataclass(frozen=True)
class Shown:
    """How the values of one label are shown: errors by ``quantity``, values themselves without its milli."""

    quantity: Quantity
    target: TargetInfo

    @property
    def key(self) -> str:
        return self.quantity.key

    @property
    def title(self) -> str:
        return self.quantity.name

    @property
    def classes(self) -> tuple[str, ...]:
        """Of a classification whose values are probabilities of classes; empty for anything else."""
        task, target = task_of(self.target.kind), self.target
        if split_key(self.key)[1] or not task.classification:
            return ()
        found = task.class_probabilities(torch.zeros(1, target.width), target)
        return () if found is None else target.classes or ("0", "1")

    @property
    def value_unit(self) -> str:
        unit = self.quantity.unit
        return unit.removeprefix("m") if self.quantity.factor == 1e3 else unit

    @property
    def metric(self) -> str:
        """What errors of groups are, in words."""
        unit = f" [{self.quantity.unit}]" if self.quantity.unit else ""
        return f"{self.title} accuracy" if self.classes else f"{self.title} RMSE{unit}"


def shown_of(info: DatasetInfo, totals: Collection[str]) -> list[Shown]:
    """All labels there can be, in order."""
    found = []
    for quantity in quantities(info, totals):
        target = info.targets.get(split_key(quantity.key)[0])
        if target is not None and quantity.key in target.label_rows:
            found.append(Shown(quantity, target))
    return found


@dataclass(eq=False)
class Part:
    """One set: the structures looked at, of ``total``, with ``errors`` of all of them.

    ``compared`` has predictions beside labels, ``seconds`` what they took, ``groups`` a value for each structure by
    the name of what they are grouped by.
    """

    name: str
    store: StructureStore
    total: int
    errors: Errors
    compared: dict[str, Compared]
    seconds: float
    groups: dict[str, list[str]] = field(default_factory=dict)
    _errors: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    def has(self, shown: Shown) -> bool:
        """Whether there are labels with predictions."""
        one = self.compared.get(shown.key)
        return one is not None and bool((one.labels.isfinite() & one.predictions.isfinite()).any())

    def failed(self, shown: Shown) -> list[int]:
        """Structures that have a label, and whose prediction is no number, ascending."""
        one = self.compared.get(shown.key)
        if one is None:
            return []
        rows = (one.labels.isfinite() & ~one.predictions.isfinite()).any(1)
        if self.per_atom(shown):
            rows = self.store.structure[rows].unique()
            return [int(k) for k in rows]
        return [int(k) for k in rows.nonzero()]

    def per_atom(self, shown: Shown) -> bool:
        return self.store.labels[shown.key].per_atom

    def values(self, shown: Shown) -> tuple[np.ndarray, np.ndarray]:
        """Labels and predictions where there are both, flat, in ``value_unit``."""
        one = self.compared[shown.key]
        labels, predictions = one.labels.numpy(), one.predictions.numpy()
        there = np.isfinite(labels) & np.isfinite(predictions)
        return labels[there], predictions[there]

    def errors_of(self, shown: Shown) -> np.ndarray:
        """``[n_samples, width]`` in the quantity's unit, NaN without a label or where the prediction is no number.

        Of classes ``[n_samples, 1]``, the probability that was not given to the label.
        """
        if shown.key not in self._errors:
            one = self.compared[shown.key]
            labels, predictions = one.labels.numpy(), one.predictions.numpy()
            if shown.classes:
                found = 1 - (labels * predictions).sum(1, keepdims=True)
            else:
                found = (predictions - labels) * shown.quantity.factor
            self._errors[shown.key] = found
        return self._errors[shown.key]

    def of_structures(self, shown: Shown) -> np.ndarray:
        """RMS error of each structure ``[n]``, NaN without a label."""
        if not self.has(shown):
            return np.full(len(self.store), np.nan)
        errors = self.errors_of(shown)
        there = np.isfinite(errors)
        squares, counts = np.where(there, errors**2, 0.0).sum(1), there.sum(1)
        if self.per_atom(shown):
            owner, n = self.store.structure.numpy(), len(self.store)
            squares, counts = np.bincount(owner, squares, n), np.bincount(owner, counts, n)
        with np.errstate(invalid="ignore", divide="ignore"):
            found: np.ndarray = np.sqrt(squares / counts)
        return found

    def measured(self, shown: Shown, rows: np.ndarray) -> float:
        """RMSE, or the accuracy of classes, of some samples (bool)."""
        if not self.has(shown):
            return float("nan")
        if shown.classes:
            one = self.compared[shown.key]
            there = rows & np.isfinite(one.labels.numpy()).all(1)
            right = one.labels.numpy().argmax(1) == one.predictions.numpy().argmax(1)
            return float(right[there].mean()) if there.any() else float("nan")
        errors = self.errors_of(shown)[rows]
        there = np.isfinite(errors)
        return float(np.sqrt((errors[there] ** 2).mean())) if there.any() else float("nan")


def some_of(structures: Structures, most: int) -> StructureStore:
    """The structures, or some that stand for all."""
    store = structures.sample
    return store.select(chosen(len(store), most)) if len(store) > most else store


def chosen(n: int, most: int) -> torch.Tensor:
    """``most`` of ``n``, evenly."""
    return torch.from_numpy(np.linspace(0, n - 1, most).astype(np.int64))


# -- groups ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """Errors of groups: a title, ``columns`` (quantity, set), and rows of a name, a count and values in words."""

    title: str
    note: str
    counted: str
    columns: list[tuple[Shown, list[Part]]]
    rows: list[tuple[str, int, list[str]]]


def tables(parts: Sequence[Part], shown: Sequence[Shown]) -> list[Table]:
    """Errors by element, size, file, and by what else structures are grouped by; where there is more than one."""
    found = [_by_element(parts, shown), _by_size(parts, shown)]
    files = [_files(part) for part in parts]
    found.append(_by_value("By file", files, parts, shown))
    for name in dict.fromkeys(name for part in parts for name in part.groups):
        values = [part.groups.get(name) or [""] * len(part.store) for part in parts]
        found.append(_by_value(f"By {name}", values, parts, shown))
    return [table for table in found if table is not None]


def _by_element(parts: Sequence[Part], shown: Sequence[Shown]) -> Table | None:
    numbers = sorted({z for part in parts for z in part.store.elements})
    if len(numbers) < 2:
        return None
    of_atoms = [s for s in shown if any(p.has(s) and p.per_atom(s) for p in parts)]
    having = {
        (part.name, z): np.bincount(
            part.store.structure.numpy(), part.store.types.numpy() == z, len(part.store)
        )
        > 0
        for part in parts
        for z in numbers
    }
    # where all structures have all elements nothing is to be told of them
    alike = all(found.all() for found in having.values())
    columns = _columns(parts, of_atoms if alike else shown)
    rows = []
    for z in numbers:
        atoms = [part.store.types.numpy() == z for part in parts]
        structures = [having[part.name, z] for part in parts]
        rows.append((symbols([z]), int(sum(a.sum() for a in atoms)), atoms, structures))
    note = "" if alike else "What belongs to structures is of those with atoms of the element."
    return _table("By element", note, "atoms", columns, parts, rows)


def _by_size(parts: Sequence[Part], shown: Sequence[Shown]) -> Table | None:
    sizes = np.concatenate([part.store.n_atoms.numpy() for part in parts])
    known = np.unique(sizes)
    if len(known) < 2:
        return None
    if len(known) <= SIZES:
        edges = [*known.tolist(), known[-1] + 1]
    else:
        quantiles = np.quantile(sizes, np.linspace(0, 1, SIZES + 1), method="nearest")
        edges = np.unique(quantiles).tolist()
        edges[-1] += 1
    values = []
    for part in parts:
        place = np.searchsorted(edges, part.store.n_atoms.numpy(), side="right") - 1
        values.append([_span(edges[k], edges[k + 1] - 1) for k in place.tolist()])
    order = [_span(a, b - 1) for a, b in pairwise(edges)]
    return _by_value("By size", values, parts, shown, order)


def _span(first: int, last: int) -> str:
    return f"{first} atoms" if first == last else f"{first} to {last} atoms"


def _files(part: Part) -> list[str]:
    if part.store.origins is None:
        return [""] * len(part.store)
    return [part.store.files[k] for k in part.store.origins[:, 0].tolist()]


def _by_value(
    title: str,
    values: Sequence[Sequence[str]],
    parts: Sequence[Part],
    shown: Sequence[Shown],
    order: Sequence[str] = (),
) -> Table | None:
    """Groups of structures by a value of each; the largest, unless an ``order`` is given."""
    arrays = [np.asarray(one, dtype=object) for one in values]
    names, counts = np.unique(np.concatenate(arrays).astype(str), return_counts=True)
    if len(names) < 2:
        return None
    sizes = dict(zip(names.tolist(), counts.tolist(), strict=True))
    ordered = [n for n in order if n in sizes] or sorted(sizes, key=lambda n: -sizes[n])
    rows = []
    for name in ordered[:GROUPS]:
        structures = [array == name for array in arrays]
        atoms = [
            np.repeat(mask, part.store.n_atoms.numpy())
            for part, mask in zip(parts, structures, strict=True)
        ]
        rows.append((name or "(none)", sizes[name], atoms, structures))
    left = len(ordered) - GROUPS
    note = f"The {GROUPS} largest groups; {left} smaller ones are left out." if left > 0 else ""
    return _table(title, note, "structures", _columns(parts, shown), parts, rows)


def _columns(parts: Sequence[Part], shown: Sequence[Shown]) -> list[tuple[Shown, list[Part]]]:
    having = [(s, [part for part in parts if part.has(s)]) for s in shown]
    return [(s, own) for s, own in having if own]


Rows = list[tuple[str, int, list[np.ndarray], list[np.ndarray]]]


def _table(
    title: str,
    note: str,
    counted: str,
    columns: list[tuple[Shown, list[Part]]],
    parts: Sequence[Part],
    rows: Rows,
) -> Table | None:
    if not columns:
        return None
    place = {part.name: k for k, part in enumerate(parts)}
    found = []
    for name, count, atoms, structures in rows:
        cells = []
        for one, own in columns:
            for part in own:
                masks = atoms if part.per_atom(one) else structures
                cells.append(number(part.measured(one, masks[place[part.name]])))
        found.append((name, count, cells))
    return Table(title, note, counted, columns, found)


def number(value: float) -> str:
    """Three significant digits; a dash where there is nothing."""
    return NOTHING if not np.isfinite(value) else f"{value:.3g}"


# -- the worst -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Worst:
    """A structure with large errors: where it is, what it is, its errors, and how many times the usual the largest is.

    ``atom`` is that with the largest error where something belongs to atoms, else -1.
    """

    part: Part
    index: int
    times: float
    errors: Mapping[str, float]
    atom: int

    @property
    def place(self) -> str:
        return self.part.store.origin(self.index)

    @property
    def formula(self) -> str:
        return str(self.atoms().get_chemical_formula(mode="hill"))

    def atoms(self, length_unit: str = "") -> Atoms:
        """The structure in angstrom, of a store in ``length_unit``."""
        return self.part.store.atoms(self.index, length_unit)


def worst(parts: Sequence[Part], shown: Sequence[Shown], most: int = 10) -> list[Worst]:
    """The structures whose errors are the most times the usual ones, whichever set and quantity they are of."""
    usual: dict[str, float] = {}
    every: list[tuple[float, int, int]] = []
    errors = {(s.key, part.name): part.of_structures(s) for s in shown for part in parts}
    for s in shown:
        together = np.concatenate([errors[s.key, part.name] for part in parts])
        there = together[np.isfinite(together)]
        usual[s.key] = float(np.sqrt((there**2).mean())) if len(there) else 0.0
    for k, part in enumerate(parts):
        ratios = [errors[s.key, part.name] / usual[s.key] for s in shown if usual[s.key] > 0]
        if ratios:
            times = np.nan_to_num(np.stack(ratios), nan=0.0).max(0)
            first = np.argsort(-times, kind="stable")[:most]
            every += [(float(times[i]), k, int(i)) for i in first]
    found = []
    for times, k, i in sorted(every, key=lambda one: -one[0])[:most]:
        part = parts[k]
        own = {s.key: float(errors[s.key, part.name][i]) for s in shown}
        found.append(Worst(part, i, times, own, _worst_atom(part, i, shown)))
    return found


def _worst_atom(part: Part, index: int, shown: Sequence[Shown]) -> int:
    start, stop = part.store.offsets[index : index + 2].tolist()
    for one in shown:
        if part.has(one) and part.per_atom(one):
            errors = np.nan_to_num(part.errors_of(one)[start:stop], nan=0.0)
            return int((errors**2).sum(1).argmax())
    return -1
