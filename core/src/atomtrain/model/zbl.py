"""The repulsion of nuclei at short distances, as a baseline any architecture can use.

No ``from __future__ import annotations`` here: TorchScript compiles this module.
"""

import logging
from typing import Dict, List, Tuple

import torch
from ase.data import covalent_radii
from metatomic.torch import unit_conversion_factor
from torch import Tensor

from atomtrain.errors import TargetError
from atomtrain.graph import AtomGraph, type_table
from atomtrain.model.base import Baseline
from atomtrain.sections.names import symbols
from atomtrain.targets import DatasetInfo, TargetInfo

log = logging.getLogger("atomtrain")

COULOMB = 14.3996454784
"""e^2 / (4 pi epsilon_0) in eV angstrom (CODATA 2018)"""
SCREENING_LENGTH = 0.46850
"""in angstrom, 0.88534 Bohr radii; over Z_i^0.23 + Z_j^0.23"""
SCREENING = (
    (0.18175, 3.19980),
    (0.50986, 0.94229),
    (0.28022, 0.40290),
    (0.02817, 0.20162),
)
"""amplitudes and exponents of the universal screening function"""
NO_RADIUS = 0.2
"""what ASE gives as the covalent radius of elements that have none, in angstrom"""


class ZBL(Baseline):
    """Screened repulsion of nuclei, switched off where two atoms are at a covalent distance.

    The universal potential of Ziegler, Biersack and Littmark (The Stopping and Range of Ions in
    Matter, Pergamon 1985)::

        E_ij(r) = k Z_i Z_j / r  sum_n c_n exp(-d_n r / a_ij)  +  A/3 r^3 + B/4 r^4 + C

    for r below the sum of the covalent radii (ASE's, doi 10.1039/b801115j), where A, B and C make the
    energy and its first and second derivatives vanish: LAMMPS's ``pair_style zbl`` with the inner
    cutoff 0. Half of it goes to each atom. It is added to every target that is one energy in eV.

    Raises TargetError where lengths are not in angstrom or no target is an energy in eV.
    """

    index: Tensor
    outer: Tensor
    rates: Tensor
    amplitudes: Tensor
    table: Tensor

    def __init__(self, dataset_info: DatasetInfo) -> None:
        super().__init__()
        unit = dataset_info.length_unit
        if not _same_unit(unit, "angstrom"):
            raise TargetError(
                f"ZBL needs lengths in angstrom, but the data are in '{unit}': convert them and set "
                "systems.length_unit: angstrom, or switch ZBL off"
            )
        targets = dataset_info.targets
        self.targets: List[str] = [n for n, target in targets.items() if _is_energy_in_ev(target)]
        if not self.targets:
            given = ", ".join(
                f"'{name}' ({target.quantity or 'no quantity'}, "
                f"{'unit ' + target.unit if target.unit else 'no unit'})"
                for name, target in targets.items()
            )
            raise TargetError(
                f"ZBL needs a target that is an energy in eV; there is {given}: set quantity: "
                "energy and unit: eV of the target if it is one, or switch ZBL off"
            )
        for number in dataset_info.atomic_types:
            if covalent_radii[number] == NO_RADIUS:
                log.warning(
                    "ZBL: %s has no covalent radius; %g angstrom is used",
                    symbols([number]),
                    NO_RADIUS,
                )
        self.n_types = len(dataset_info.atomic_types)
        tables = {
            "index": type_table(dataset_info.atomic_types),
            **_tables(dataset_info.atomic_types),
        }
        for name, values in tables.items():
            self.register_buffer(name, values, persistent=False)
        self.cutoff = float(self.outer.max())

    def forward(self, graph: AtomGraph, outputs: List[str]) -> Dict[str, Tensor]:
        """See :meth:`Baseline.forward`."""
        found: Dict[str, Tensor] = {}
        energies = torch.empty(0)
        for name in self.targets:
            if name in outputs:
                if len(found) == 0:
                    energies = self.energies(graph)
                found[name] = energies
        return found

    def energies(self, graph: AtomGraph) -> Tensor:
        """Energies ``[n_atoms]`` of the atoms in eV, float64."""
        kinds = self.index.index_select(0, graph.types)
        centers = graph.centers
        pairs = kinds.index_select(0, centers) * self.n_types
        pairs = pairs + kinds.index_select(0, graph.neighbors)
        distances = torch.linalg.vector_norm(graph.vectors.detach(), dim=1)
        near = torch.nonzero(distances < self.outer.index_select(0, pairs)).squeeze(1)  # few

        pairs = pairs.index_select(0, near)
        vectors = graph.vectors.index_select(0, near).to(torch.float64)
        r = torch.linalg.vector_norm(vectors, dim=1)
        screening = torch.exp(-self.rates.index_select(0, pairs) * r.unsqueeze(1)) @ self.amplitudes
        charge, cubic, quartic, constant = self.table.index_select(0, pairs).unbind(1)
        energy = charge * screening / r + r**3 * (cubic + quartic * r) + constant
        of_atoms = torch.zeros(graph.types.shape[0], dtype=torch.float64, device=r.device)
        return of_atoms.index_add(0, centers.index_select(0, near), 0.5 * energy)


def _tables(types: Tuple[int, ...]) -> Dict[str, Tensor]:
    """What :meth:`ZBL.energies` needs of each pair of types, ``[n_types^2, ...]``."""
    radii = torch.tensor([float(covalent_radii[z]) for z in types], dtype=torch.float64)
    outer = (radii.unsqueeze(1) + radii).flatten()
    z = torch.tensor(types, dtype=torch.float64)
    charges = (COULOMB * z.unsqueeze(1) * z).flatten()
    length = (SCREENING_LENGTH / (z.pow(0.23).unsqueeze(1) + z.pow(0.23))).flatten()
    amplitudes, exponents = torch.tensor(SCREENING, dtype=torch.float64).unbind(1)
    rates = exponents / length.unsqueeze(1)  # [n_types^2, 4]

    # energy and derivatives at the outer cutoff
    terms = amplitudes * torch.exp(-rates * outer.unsqueeze(1))
    phi, slope, curvature = terms.sum(1), -(rates * terms).sum(1), (rates**2 * terms).sum(1)
    e0 = charges * phi / outer
    e1 = charges / outer * (slope - phi / outer)
    e2 = charges / outer * (curvature - 2 * slope / outer + 2 * phi / outer**2)
    a = (-3 * e1 + outer * e2) / outer**2
    b = (2 * e1 - outer * e2) / outer**3
    c = -e0 + outer * e1 / 2 - outer**2 * e2 / 12
    table = torch.stack([charges, a / 3, b / 4, c], dim=1)
    return {"outer": outer, "rates": rates, "amplitudes": amplitudes, "table": table}


def _is_energy_in_ev(target: TargetInfo) -> bool:
    """Whether the target is one energy, of a structure or of each atom, in eV."""
    return (
        target.quantity == "energy"
        and target.is_scalar
        and target.num_subtargets == 1
        and _same_unit(target.unit, "eV")
    )


def _same_unit(unit: str, wanted: str) -> bool:
    """Whether ``unit`` is a way to write ``wanted``; no unit at all is not."""
    try:
        return bool(unit) and unit_conversion_factor(unit, wanted) == 1.0
    except (RuntimeError, ValueError):  # of another quantity
        return False
