"""What is looked at in data before they are used; one function for each question.

:data:`OF_A_FRAME` are reasons why no model can take a structure, which end the reading;
:data:`OF_A_SET` are signs that data are not what was meant, which become warnings. A new check is a
function in one of the lists. All that warn look at packed structures, without a loop over atoms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from atomtrain.data.distances import close_pairs
from atomtrain.data.store import Label, StructureStore
from atomtrain.errors import DataError
from atomtrain.frame import Frame
from atomtrain.graph import volumes
from atomtrain.targets import GRADIENTS
from atomtrain.targets.units import conversion

SAME_PLACE = 1e-3
"""Two atoms closer than this (angstrom) are in one place."""
FAR, LARGE = 100.0, 10.0
"""A label is an outlier if it is FAR times farther from the median than nine in ten are, and LARGE times larger."""
FEW = 0.02
"""What more than this part of the structures have is not an outlier but another kind of structure."""
SHOWN = 3
"""structures that a sentence names"""

# Reasons why no model can take a structure, with {} for its name; "" where there is none


def _no_atoms(frame: Frame) -> str:
    return "" if len(frame.numbers) else "{} has no atoms"


def _positions_not_finite(frame: Frame) -> str:
    return "" if np.isfinite(frame.positions).all() else "positions in {} are not finite"


def _unknown_element(frame: Frame) -> str:
    return "" if frame.numbers.min() >= 1 else "{} has atoms of unknown element ('X')"


def _no_cell(frame: Frame) -> str:
    vectors = frame.cell[frame.pbc]
    # square of the length, area or volume that the periodic vectors span; not NaN either
    if not frame.pbc.any() or np.linalg.det(vectors @ vectors.T) > 1e-12:
        return ""
    return (
        "{} is periodic but has no cell along a periodic direction (or a flat one); give it a "
        "cell or set its pbc to false"
    )


OF_A_FRAME: Sequence[Callable[[Frame], str]] = (
    _no_atoms,
    _positions_not_finite,
    _unknown_element,
    _no_cell,
)
"""Asked one after the other: the later ones may rely on what the earlier ones refuse."""


def problem(frame: Frame) -> str:
    """Why no model can take a structure, with ``{}`` for its name; empty where one can."""
    return next((text for check in OF_A_FRAME if (text := check(frame))), "")


# Signs that data are not what was meant: for some structures, a sentence on them


@dataclass(frozen=True)
class Finding:
    """Structures of a store, what is the matter with them, and what may be done.

    ``details`` are on the first of the structures.
    """

    structures: Sequence[int]
    what: str
    advice: str
    details: Sequence[str] = ()

    def sentence(self, store: StructureStore) -> str:
        """``2 of 60 structures <what> (structure 3 of 'a.xyz': <detail>, ...); <advice>``."""
        shown = []
        for n, k in enumerate(self.structures[:SHOWN]):
            detail = f": {self.details[n]}" if n < len(self.details) else ""
            shown.append(store.origin(int(k)) + detail)
        more = ", ..." if len(self.structures) > SHOWN else ""
        return (
            f"{len(self.structures)} of {len(store)} structures {self.what} ({'; '.join(shown)}{more}); "
            f"{self.advice}"
        )


def _outliers(store: StructureStore, training: StructureStore) -> Iterator[Finding]:
    """Labels far beyond those of the training set."""
    for key, label in store.labels.items():
        if key not in training.labels:
            continue
        size, known = _size(store, label), _size(training, training.labels[key])
        known = known[~torch.isnan(known)]
        if len(known) < 10:
            continue
        median = float(known.median())
        deviation = (size - median).abs()
        usual = float((known - median).abs().sort().values[int(0.9 * len(known))])
        limit = max(FAR * max(usual, 1e-6 * abs(median)), LARGE * abs(median))
        far = (deviation > limit).nonzero().squeeze(1)
        if limit == 0 or not 0 < len(far) <= max(1, FEW * len(store)):
            continue
        far = far[deviation[far].argsort(descending=True)]
        name = key.replace(":strain", " (virial)").replace(":forces", " (forces)")
        of = "largest of its atoms" if label.per_atom else "per atom"
        yield Finding(
            far.tolist(),
            f"have '{name}' far beyond the others, of which half are below {median:.4g} ({of})",
            "one such label spoils a training: remove these structures, or repair the label",
            [f"{float(size[k]):.4g}" for k in far[:SHOWN]],
        )


def _size(store: StructureStore, label: Label) -> torch.Tensor:
    """One number for each structure: of its label, per atom, or of its largest; NaN where there is none."""
    values = torch.where(label.there, label.values, torch.nan)
    if label.per_atom:
        largest = values.abs().nan_to_num(nan=-1.0).amax(1)
        found = torch.full((len(store),), -1.0, dtype=torch.float64)
        found = found.scatter_reduce(0, store.structure, largest, "amax")
        return torch.where(found < 0, torch.nan, found)
    per_atom = values / store.n_atoms[:, None]
    if per_atom.shape[1] == 1:
        return per_atom[:, 0]
    return per_atom.abs().amax(1)


def _duplicates(store: StructureStore, training: StructureStore) -> Iterator[Finding]:
    """Structures that are there more than once, and whether their labels agree."""
    first = _first_of_each(store)
    again = {k: first[key] for k, key in enumerate(store.fingerprints) if first[key] != k}
    if not again:
        return
    same = torch.tensor(list(again)), torch.tensor(list(again.values()))
    differ = torch.zeros(len(again), dtype=torch.bool)
    for label in store.labels.values():
        if not label.per_atom:
            one, other = label.values[same[0]], label.values[same[1]]
            scale = torch.maximum(one.abs(), other.abs())
            both = label.there[same[0]] & label.there[same[1]]
            differ |= (((one - other).abs() > 1e-6 * scale) & both).any(1)
    details = [f"the same as {store.origin(again[k])}" for k in list(again)[:SHOWN]]
    contradictory = int(differ.sum())
    also = f", {contradictory} of them with other labels" if contradictory else ""
    yield Finding(
        list(again),
        f"are there before, atom by atom{also}",
        "copies count as often as they are there, and a random split puts them on both sides",
        details,
    )


def _first_of_each(store: StructureStore) -> dict[bytes, int]:
    """By its hash, the first structure of those that are the same."""
    first: dict[bytes, int] = {}
    for k, key in enumerate(store.fingerprints):
        first.setdefault(key, k)
    return first


def _trained_on(store: StructureStore, training: StructureStore) -> Iterator[Finding]:
    """Structures that are in the training set, too."""
    if store is training:
        return
    known = _first_of_each(training)
    both = [(k, known[key]) for k, key in enumerate(store.fingerprints) if key in known]
    if both:
        yield Finding(
            [k for k, _ in both],
            "are in the training set too, atom by atom",
            "errors on them are not those on new structures",
            [training.origin(other) for _, other in both[:SHOWN]],
        )


OF_A_SET: Sequence[Callable[[StructureStore, StructureStore], Iterator[Finding]]] = (
    _trained_on,
    _outliers,
    _duplicates,
)
"""Asked of the training set, of validation and test sets beside it, and of a file that is evaluated."""


def set_warnings(store: StructureStore, training: StructureStore | None = None) -> list[str]:
    """What is strange in one set, seen beside the training set if there is one, as sentences."""
    beside = store if training is None else training
    return [finding.sentence(store) for check in OF_A_SET for finding in check(store, beside)]


# When a section is read


def check_read(
    where: str, frames: Sequence[Frame], store: StructureStore, length_unit: str
) -> list[str]:
    """What is strange in structures that were just read, as sentences; ``frames`` are those of the store.

    Raises DataError, beginning with ``where``, where two atoms are in one place.
    """
    found = []
    partly = [k for k, frame in enumerate(frames) if partly_occupied(frame)]
    if partly:
        what = "have sites that are shared by elements, or empty at times (occupancy below 1)"
        advice = "no model knows such: give structures in which every site has one element"
        raise DataError(f"{where}: {Finding(partly, what, advice).sentence(store)}")
    close = close_pairs(store, length_unit)
    same = np.flatnonzero(close.distances < SAME_PLACE)
    if len(same):
        finding = Finding(
            close.structures[same].tolist(),
            "have two atoms in one place",
            "no model has an energy for that: remove one of the atoms, or the structures",
            [close.named(int(k), store) for k in same[:SHOWN]],
        )
        raise DataError(f"{where}: {finding.sentence(store)}")
    if len(close.structures):
        advice = "make sure that they are meant, and that length_unit is that of the file"
        what = "have atoms closer than half the sum of their covalent radii"
        named = [close.named(k, store) for k in range(len(close.structures))[:SHOWN]]
        found.append(Finding(close.structures.tolist(), what, advice, named))
    return [f"{where}: {finding.sentence(store)}" for finding in found]


LARGEST_STRESS, LARGEST_FORCE = 1.0, 1000.0
"""eV/A^3 and eV/A, beyond which no label of a structure at rest or at any temperature is"""
_STRESSES = ("GPa", "kbar", "bar")
_FORCES = ("meV/angstrom", "kcal/mol/angstrom", "kJ/mol/nm")


def gradient_warnings(
    store: StructureStore, name: str, unit: str, length_unit: str
) -> Iterator[str]:
    """Forces and stresses of an energy in ``unit`` that no physics has, with the unit they may have."""
    unit = unit or "eV"
    kinds = (
        ("forces", f"{unit}/{length_unit}", "eV/angstrom", LARGEST_FORCE, _FORCES),
        ("strain", f"{unit}/{length_unit}^3", "eV/angstrom^3", LARGEST_STRESS, _STRESSES),
    )
    for gradient, own, common, limit, others in kinds:
        label = store.labels.get(f"{name}:{gradient}")
        if label is None:
            continue
        size = _largest(store, label)
        if gradient == "strain":
            size = size / volumes(store.cells).clamp(min=1e-30)
        size = size * conversion(own, common)
        beyond = (size > limit).nonzero().squeeze(1)
        if not len(beyond):
            continue
        beyond = beyond[size[beyond].argsort(descending=True)]
        largest = float(size[beyond[0]])
        kind = "forces" if gradient == "forces" else "stress"
        advice = (
            f"make sure that {kind} are in {own}"
            if kind == "forces"
            else f"make sure that it is in {own}"
        )
        for other in others:
            if (
                meant := largest / conversion(own, common) * conversion(other, common)
            ) <= limit / 3:
                advice += (
                    f"; read as {other} it would be {meant:.3g} {common}: {kind}: {{unit: {other}}}"
                )
                if kind == "stress":
                    advice += " (with positive: compression where pressure counts as positive)"
                break
        yield Finding(
            beyond.tolist(),
            f"have a {'force' if kind == 'forces' else kind} above {limit:g} {common}, beyond any physics",
            advice,
            [f"{float(size[k]):.4g}" for k in beyond[:SHOWN]],
        ).sentence(store)


def label_warnings(store: StructureStore, name: str) -> Iterator[str]:
    """An energy or its gradients that are the same number everywhere, as placeholders are."""
    for key in (name, *(f"{name}:{gradient}" for gradient in GRADIENTS)):
        label = store.labels.get(key)
        if label is None or len(store) < 3:
            continue
        values = label.values[label.there.all(1)]
        if len(values) < 3 or not bool((values == values[0]).all()):
            continue
        if len(_first_of_each(store)) < 3:
            continue  # a structure and its copies
        what = key.replace(":strain", " (stress)").replace(":forces", " (forces)")
        number = "0" if not values.any() else f"{float(values[0, 0]):.6g}"
        yield (
            f"'{what}' is {number} in all of {len(store)} structures ({store.origin(0)}, ...); make sure that "
            "these are results, not placeholders"
        )


def _largest(store: StructureStore, label: Label) -> torch.Tensor:
    """The largest entry of a label in each structure, [n_structures]; 0 where there is none."""
    size = torch.where(label.there, label.values.abs(), 0.0).amax(1)
    if not label.per_atom:
        return size
    found = torch.zeros(len(store), dtype=size.dtype)
    return found.scatter_reduce(0, store.structure, size, "amax")


def partly_occupied(frame: Frame) -> bool:
    """Whether a site is shared by elements or empty at times, which no model knows."""
    occupancy = frame.find("occupancy")
    if isinstance(occupancy, Mapping):
        return any(
            float(part) < 1 - 1e-3
            for site in occupancy.values()
            for part in (site.values() if isinstance(site, Mapping) else [site])
        )
    array = np.asarray(occupancy if occupancy is not None else 1.0)
    return array.dtype.kind in "iuf" and bool((array < 1 - 1e-3).any())
