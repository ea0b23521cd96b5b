"""What the values beside structures may be: targets, groups, masks. By their names, shapes and numbers alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from atomtrain.frame import Frame


MOST_CLASSES = 30
NO_LABEL = re.compile(
    r"^(\w*_)?(index|idx|ids?|frame|step|time_?step|time|seed|type|serial|number|n_?atoms|natoms|comment|date|file|path|source|split|"
    r"spacegroup|spacegroup_\d+|unique_id|name|title|charge|multiplicity|spin|tags?|pbc|cell|lattice|volume|density|"
    r"temperature|pressure|masses|momenta|velocit\w*|positions?|numbers|species|initial_\w+|move_mask|"
    r"weight|config_weight|energy_weight|force_weight|virials?|stress\w*|dipole_weight|\w+_?units?)$",
    re.IGNORECASE,
)
ENERGY = re.compile(r"energy|energies|^e$|^u0?$|^h$|^g$", re.IGNORECASE)
FORCES = re.compile(r"force|grad|^f[xyz]$", re.IGNORECASE)
GROUP = re.compile(
    r"group|config_?type|traj|(^|_)run|(^|_)path|mol(ecule|_?id|$)|smiles|inchi|cluster|conformer|source|parent|origin|"
    r"family|prototype|system|material|structure_?id|(^|_)mp_?id",
    re.IGNORECASE,
)
LIKELY = re.compile(
    r"label|class|phase|target|bonding|stable|state|is_|kind|category", re.IGNORECASE
)


@dataclass(frozen=True)
class Value:
    """A value of structures or atoms that a model may learn.

    ``type``: as in the options; empty for a scalar. ``said``: what its values are, in words; ``rank``: how likely it is
    meant as a label, the smaller the likelier.
    """

    key: str
    per_atom: bool
    type: str
    said: str
    rank: int
    missing: bool = False
    number: int = 1

    @property
    def classes(self) -> bool:
        """Whether it is a class."""
        return self.type.startswith(("classes", "binary", "{classes"))


@dataclass
class Values:
    """What was found.

    ``labels`` that a model may learn, the likeliest first; ``groups``: names of values that say what belongs together,
    with how many values they have, and the part of the commonest; ``masks`` of atoms.
    """

    labels: list[Value] = field(default_factory=list)
    groups: dict[str, tuple[int, float]] = field(default_factory=dict)
    masks: list[str] = field(default_factory=list)


def values_of(frames: Sequence[Frame], taken: Iterable[str]) -> Values:
    """Of all values but those that are ``taken``, as energy or forces for instance."""
    found, taken = Values(), set(taken)
    for per_atom in (False, True):
        keys = dict.fromkeys(
            k for f in frames for k in (f.per_atom if per_atom else f.per_structure)
        )
        for key in keys:
            if not isinstance(key, str) or key in taken or not key.strip():
                continue
            values = [(f.per_atom if per_atom else f.per_structure).get(key) for f in frames]
            there = [value for value in values if value is not None]
            if not per_atom and GROUP.search(key):
                _group(found, key, there, len(frames))
            if per_atom and "mask" in key.lower() and not NO_LABEL.match(key):
                found.masks.append(key)
                continue
            if NO_LABEL.match(key) or ENERGY.search(key) or FORCES.search(key):
                continue
            label = (_of_atoms if per_atom else _of_structures)(
                key, there, len(there) < len(values)
            )
            if label is not None:
                found.labels.append(label)
    found.labels.sort(key=lambda label: label.rank)
    return found


def _group(found: Values, key: str, there: list[Any], n: int) -> None:
    """Note a name of what belongs together, if every structure has one."""
    if len(there) < n or not all(isinstance(v, (str, int, np.integer)) for v in there):
        return
    counts = Counter(map(str, there))
    if len(counts) > 1 and max(counts.values()) > 1:
        found.groups[key] = (len(counts), max(counts.values()) / n)


def _of_structures(key: str, there: list[Any], missing: bool) -> Value | None:
    likely = 0 if LIKELY.search(key) else 10
    flat = [np.asarray(value) for value in there]
    if all(a.ndim == 0 and a.dtype.kind in "USOb" for a in flat):
        # a word alone in a comment line is read as True
        words = Counter(str(value) for value in there)
        if not 2 <= len(words) <= min(MOST_CLASSES, max(2, len(there) // 3)):
            return None
        return Value(key, False, "classes", _counted(words), likely, missing)
    if not flat or any(a.dtype.kind not in "iuf" for a in flat) or len({a.shape for a in flat}) > 1:
        return None
    rows = np.stack([a.astype(float).ravel() for a in flat])
    if not np.isfinite(rows).all() or np.ptp(rows, axis=0).max() == 0:
        return None
    width, whole = rows.shape[1], all(a.dtype.kind in "iu" for a in flat)
    if width == 1:
        counts = Counter(rows[:, 0].tolist())
        if set(counts) == {0.0, 1.0}:
            said = f"1 for {counts[1.0]} of {len(rows)}"
            return Value(key, False, "binary", said, likely + 1, missing)
        if whole and len(counts) <= min(MOST_CLASSES, len(rows) // 5):
            said = f"{len(counts)} whole numbers, {min(counts):g} to {max(counts):g}"
            return Value(key, False, "classes", said, likely + 5, missing)
        said = f"{rows.min():.4g} to {rows.max():.4g}"
        return Value(key, False, "", said, likely + 4, missing)
    if (rows >= 0).all() and np.allclose(rows.sum(1), 1, atol=1e-3):
        said = f"probabilities of {width} classes"
        return Value(key, False, f"{{classes: {{number: {width}}}}}", said, likely + 3, missing)
    return _tensor(key, width, likely + 3, missing, per_atom=False)


def _of_atoms(key: str, there: list[np.ndarray], missing: bool) -> Value | None:
    likely = 2 if LIKELY.search(key) else 12
    if any(array.dtype.kind not in "iuf" for array in there):
        words = Counter(str(word) for array in there for word in array.ravel().tolist())
        if not 2 <= len(words) <= MOST_CLASSES:
            return None
        return Value(key, True, "classes", _counted(words), likely, missing)
    if len({array.shape[1:] for array in there}) > 1:
        return None
    whole = np.concatenate([array.reshape(len(array), -1) for array in there]).astype(float)
    if not np.isfinite(whole).all() or np.ptp(whole, axis=0).max() == 0:
        return None
    if whole.shape[1] == 1:
        return Value(key, True, "", f"{whole.min():.4g} to {whole.max():.4g}", likely + 2, missing)
    return _tensor(key, whole.shape[1], likely, missing, per_atom=True)


def _tensor(key: str, width: int, rank: int, missing: bool, per_atom: bool) -> Value | None:
    of = "of each atom" if per_atom else "of each structure"
    if width == 3:
        return Value(key, per_atom, "{cartesian: {rank: 1}}", f"a vector {of}", rank, missing)
    if width == 9:
        return Value(key, per_atom, "{cartesian: {rank: 2}}", f"a matrix {of}", rank, missing)
    return Value(key, per_atom, "", f"{width} numbers {of}", rank + 3, missing, width)


def _counted(words: Counter[str]) -> str:
    shown = ", ".join(f"{word} ({n})" for word, n in words.most_common(5))
    return shown + (f", ... ({len(words)} in all)" if len(words) > 5 else "")
