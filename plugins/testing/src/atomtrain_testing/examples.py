"""A target of every kind the core has a word for: how the options ask for it, and labels.

An architecture that declares further kinds gives the kit examples of them (``Subject.examples``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms


@dataclass(frozen=True)
class Example:
    """A target: its name, its section of the options, and what to write into the data.

    ``label(atoms)`` is the label of a structure, or of its atoms where the section says
    ``sample_kind: atom``; None where the kind needs none, or where ASE's calculator holds it.
    """

    name: str
    section: Mapping[str, Any] = field(default_factory=dict)
    label: Callable[[Atoms], Any] | None = None

    @property
    def per_atom(self) -> bool:
        """Whether there is a label for every atom."""
        return bool(self.section.get("sample_kind") == "atom")

    @property
    def key(self) -> str:
        """Name of the label in the file."""
        return str(self.section.get("key", self.name))

    def write(self, atoms: Atoms) -> None:
        """Put the label into the structure."""
        if self.label is None:
            return
        value = self.label(atoms)
        if self.per_atom:
            atoms.set_array(self.key, np.asarray(value))
        else:
            atoms.info[self.key] = value


def _middle(atoms: Atoms) -> np.ndarray:
    """Positions around their mean: what labels below are made of."""
    return np.asarray(atoms.positions - atoms.positions.mean(axis=0))


def _weights(atoms: Atoms) -> np.ndarray:
    return np.cos(np.arange(len(atoms)) + atoms.numbers)


def _dipole(atoms: Atoms) -> np.ndarray:
    return _weights(atoms) @ _middle(atoms)


def _quadrupole(atoms: Atoms) -> np.ndarray:
    r = _middle(atoms)
    return np.einsum("i,ia,ib->ab", _weights(atoms), r, r)


def _one_of(*classes: Any) -> Callable[[Atoms], Any]:
    """A class for every structure in turn."""
    return lambda atoms: classes[atoms.info["number"] % len(classes)]


ENERGY = Example(
    "energy",
    {"key": "energy", "unit": "eV", "quantity": "energy", "forces": True, "stress": True},
)
ENERGY_ALONE = Example(
    "energy",
    {"key": "energy", "unit": "eV", "quantity": "energy", "forces": False, "stress": False},
)

EXAMPLES: dict[str, tuple[Example, ...]] = {
    "scalar": (
        ENERGY,
        Example(
            "mtt::scalars",
            {"key": "scalars", "type": "scalar", "num_subtargets": 3},
            lambda a: np.abs(_dipole(a)),
        ),
        Example(
            "mtt::charges",
            {"key": "charges", "type": "scalar", "sample_kind": "atom"},
            _weights,
        ),
    ),
    "cartesian": (
        Example("mtt::dipole", {"key": "dipole", "type": {"cartesian": {"rank": 1}}}, _dipole),
        Example(
            "mtt::vectors",
            {"key": "vectors", "type": {"cartesian": {"rank": 1}}, "sample_kind": "atom"},
            _middle,
        ),
        Example(
            "mtt::matrix",
            {"key": "matrix", "type": {"cartesian": {"rank": 2}}},
            _quadrupole,
        ),
    ),
    "spherical": (
        Example(
            "mtt::tensor",
            {
                "key": "tensor",
                "type": {
                    "spherical": {
                        "irreps": [
                            {"o3_lambda": 0, "o3_sigma": 1},
                            {"o3_lambda": 2, "o3_sigma": 1},
                        ]
                    }
                },
            },
            lambda a: np.concatenate([np.diag(_quadrupole(a)), _dipole(a)]),
        ),
        Example(
            "mtt::vector",
            {
                "key": "vector",
                "type": {"spherical": {"irreps": [{"o3_lambda": 1, "o3_sigma": 1}]}},
            },
            _dipole,
        ),
    ),
    "binary": (Example("mtt::odd", {"key": "odd", "type": "binary"}, _one_of(0, 1)),),
    "classes": (
        Example(
            "mtt::class",
            {"key": "class", "type": {"classes": {"number": 3}}},
            _one_of(0, 1, 2),
        ),
    ),
    "spacegroup": (
        Example(
            "mtt::spacegroup",
            {"key": "spacegroup", "type": "spacegroup"},
            _one_of(225, 2, 62),
        ),
    ),
    "pointgroup": (
        Example(
            "mtt::pointgroup",
            {"key": "pointgroup", "type": "pointgroup"},
            _one_of("mmm", "m-3m", "mm2"),
        ),
    ),
    "crystal_system": (
        Example(
            "mtt::system",
            {"key": "system", "type": "crystal_system"},
            _one_of("cubic", "triclinic", "hexagonal"),
        ),
    ),
    "denoising": (Example("mtt::noise", {"type": {"denoising": {"scale": 0.1}}}),),
}
"""By kind; one of each kind must be taken by whoever declares it, the others may be refused."""
