"""The dynamics: ASE's integrators on starts that run side by side, each watched.

A step of small structures is all overhead, so several are given to the model at once. To ASE they are one system of
atoms that do not feel each other, which is what Langevin dynamics with a free centre of mass and velocity Verlet
leave as it is: neither mixes atoms.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes
from ase.md.langevin import Langevin
from ase.md.verlet import VelocityVerlet

from atomtrain_dynamics.settings import Settings
from atomtrain_dynamics.structures import (
    Distribution,
    Kind,
    Seen,
    Structure,
    closest,
    kind_of,
    pairs_of,
)
from atomtrain_dynamics.watch import Watch

log = logging.getLogger("atomtrain")
FRICTION = 0.01
"""of the thermostat, 1/fs"""
LOOK_EVERY = 10
"""steps"""
ATOMS_AT_ONCE = 1000
HUGE = 1e6
"""eV/A: no force of atoms"""

Model = Callable[[Sequence[Atoms]], tuple[Sequence[float], Sequence[np.ndarray]]]
"""energies (eV) and forces (eV/A, [n_atoms, 3] each) of structures"""


def model_of(calculator: Any) -> Model:
    """The model of an ASE calculator; metatomic's takes many structures at once."""
    if hasattr(calculator, "compute_energy"):

        def together(structures: Sequence[Atoms]) -> tuple[Sequence[float], Sequence[np.ndarray]]:
            found = calculator.compute_energy(list(structures), True)
            return found["energy"], found["forces"]

        return together

    def singly(structures: Sequence[Atoms]) -> tuple[Sequence[float], Sequence[np.ndarray]]:
        energies, forces = [], []
        for one in structures:
            atoms = one.copy()
            atoms.calc = calculator
            energies.append(float(atoms.get_potential_energy()))
            forces.append(atoms.get_forces())
        return energies, forces

    return singly


@dataclass
class Run:
    """One start and what became of it.

    ``lasted``: ps from the start, what settled it included; ``ended``: why, empty if it held. ``energies`` (eV) and
    ``temperatures`` (K) are those of every step after it had settled, ``kinetic [n_atoms]`` the sum of kinetic
    energies of atoms over these, ``freedom [n_atoms]`` the degrees of freedom of each.
    """

    start: Structure
    atoms: Atoms
    lasted: float = 0.0
    ended: str = ""
    energies: list[float] = field(default_factory=list)
    temperatures: list[float] = field(default_factory=list)
    kinetic: np.ndarray = field(default_factory=lambda: np.zeros(0))
    freedom: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @property
    def kind(self) -> Kind:
        """The kind of the start."""
        return kind_of(self.start.atoms)


@dataclass
class Ran:
    """All runs with one ``step`` (fs): the shortest distances that occurred, and how distances were distributed."""

    settings: Settings
    step: float
    runs: list[Run]
    closest: np.ndarray
    distributions: dict[Kind, Distribution] = field(default_factory=dict)


def simulate(starts: Sequence[Structure], model: Model, settings: Settings, seen: Seen) -> Ran:
    """Dynamics from ``starts``, which must have atoms that can move."""
    runs = [Run(one, one.atoms.repeat(_repeats(one.atoms, settings.repeat))) for one in starts]
    step = settings.step(min(run.atoms.get_masses().min() for run in runs))
    ran = Ran(settings, step, runs, np.full_like(seen.closest, np.inf))
    groups: list[list[Run]] = [[]]
    for run in runs:
        if groups[-1] and sum(len(r.atoms) for r in [*groups[-1], run]) > ATOMS_AT_ONCE:
            groups.append([])
        groups[-1].append(run)
    settling = round(1000 * settings.settle / step)
    running = max(1, round(1000 * settings.time / step))
    log.info(
        f"dynamics: {len(runs)} runs of {settling} + {running} steps of {step:g} fs at {settings.temperature:g} K"
    )
    begin = time.monotonic()
    for n, members in enumerate(groups):
        group = _Group(members, model, ran, seen, np.random.default_rng([settings.seed or 0, n]))
        group.settle(settling)
        if not n and settling:
            left = (time.monotonic() - begin) * (len(groups) * (1 + running / settling) - 1)
            if left > 30:
                log.info(f"dynamics: settled; about {max(1, round(left / 60))} min to go")
        group.run(running)
    return ran


def _repeats(atoms: Atoms, number: int) -> list[int]:
    return [number if periodic else 1 for periodic in atoms.pbc]


class _Group:
    """Some runs side by side. One that ends is taken out, lest it disturb the others."""

    def __init__(
        self, runs: Sequence[Run], model: Model, ran: Ran, seen: Seen, rng: np.random.Generator
    ) -> None:
        self.model, self.ran, self.rng = model, ran, rng
        self.running = list(runs)
        self.watches = {id(run): Watch(run.atoms, seen) for run in runs}

    def settle(self, steps: int) -> None:
        """Bring the starts to their temperature: random velocities, then the thermostat."""
        for run in self.running:
            masses = run.atoms.get_masses()[:, None]
            spread = np.sqrt(masses * units.kB * self.ran.settings.temperature)
            run.atoms.set_momenta(spread * self.rng.standard_normal((len(masses), 3)))
        self._advance(steps, thermostat=True, recorded=False)

    def run(self, steps: int) -> None:
        """What is looked at. At constant energy nothing drifts or turns as a whole."""
        thermostat = self.ran.settings.ensemble == "langevin"
        for run in self.running:
            if not thermostat:
                hold(run.atoms)
            run.kinetic = np.zeros(len(run.atoms))
            run.freedom = np.full(len(run.atoms), 3.0) if thermostat else freedom(run.atoms)
        self._advance(steps, thermostat=thermostat, recorded=True)

    def _advance(self, steps: int, *, thermostat: bool, recorded: bool) -> None:
        done = 0
        while self.running and done < steps:
            atoms = self.running[0].atoms.copy()
            for run in self.running[1:]:
                atoms += run.atoms
            atoms.set_cell(None)
            atoms.pbc = False
            calculator = _SideBySide(self.model, [run.atoms for run in self.running])
            atoms.calc = calculator
            dynamics = self._integrator(atoms, thermostat)
            if recorded:
                dynamics.attach(lambda d=dynamics, c=calculator: self._record(d, c), interval=1)
            while done < steps and not any(run.ended for run in self.running):
                some = min(LOOK_EVERY, steps - done)
                dynamics.run(some)
                done += some
                for run, part in zip(self.running, calculator.parts, strict=True):
                    run.lasted += some * self.ran.step / 1000
                    run.atoms.set_momenta(atoms.get_momenta()[part])
                    self._look(run, calculator, recorded)
            self.running = [run for run in self.running if not run.ended]

    def _integrator(self, atoms: Atoms, thermostat: bool) -> Any:
        step = self.ran.step * units.fs
        if not thermostat:
            return VelocityVerlet(atoms, step)
        # fixcm=True does not keep the temperature of small molecules, and breaks them
        return Langevin(
            atoms,
            step,
            temperature_K=self.ran.settings.temperature,
            friction=FRICTION / units.fs,
            fixcm=False,
            rng=self.rng,
        )

    def _record(self, dynamics: Any, calculator: _SideBySide) -> None:
        """Energy and temperature of every run, after each step."""
        if not dynamics.nsteps:
            return
        momenta, masses = dynamics.atoms.get_momenta(), dynamics.atoms.get_masses()
        kinetic = 0.5 * (momenta**2).sum(1) / masses
        for run, part, energy in zip(
            self.running, calculator.parts, calculator.energies, strict=True
        ):
            total = float(kinetic[part].sum())
            run.energies.append(energy + total)
            run.temperatures.append(2 * total / (units.kB * run.freedom.sum()))
            run.kinetic += kinetic[part]

    def _look(self, run: Run, calculator: _SideBySide, recorded: bool) -> None:
        """Whether a run has ended, and its distances."""
        run.ended = calculator.failures.get(id(run.atoms), "")
        if run.ended:
            return
        pairs = pairs_of(run.atoms)
        run.ended = self.watches[id(run)].problem(run.atoms, pairs)
        if not run.ended and len(pairs.d):
            np.minimum(self.ran.closest, closest(run.atoms.numbers, pairs), out=self.ran.closest)
        if recorded and not run.ended:
            self.ran.distributions.setdefault(run.kind, Distribution()).add(run.atoms, pairs)


class _SideBySide(Calculator):
    """Energies and forces of several structures that are one system to ASE; ``structures`` follow its positions.

    A structure whose energy or forces are not finite, or that the model refuses, feels nothing from then on;
    ``failures`` says why, by the id of the structure.
    """

    implemented_properties = ["energy", "forces"]

    def __init__(self, model: Model, structures: Sequence[Atoms]) -> None:
        super().__init__()
        self.model, self.structures = model, list(structures)
        ends = np.cumsum([0] + [len(one) for one in structures])
        self.parts = [slice(a, b) for a, b in pairwise(ends.tolist())]
        self.energies = [0.0] * len(self.structures)
        self.failures: dict[int, str] = {}

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """See ASE."""
        super().calculate(atoms, properties, system_changes)
        assert self.atoms is not None
        for structure, part in zip(self.structures, self.parts, strict=True):
            structure.positions[:] = self.atoms.positions[part]
        forces = np.zeros((len(self.atoms), 3))
        well = [k for k, one in enumerate(self.structures) if id(one) not in self.failures]
        for k, energy, force in self._of(well):
            if not np.isfinite(energy) or not (np.abs(force) < HUGE).all():
                why = f"the energy is {energy:.4g} eV, the largest force {np.abs(force).max():.4g} eV/A"
                self.failures[id(self.structures[k])] = why
                continue
            self.energies[k] = float(energy)
            forces[self.parts[k]] = force
        self.results = {"energy": sum(self.energies), "forces": forces}

    def _of(self, which: list[int]) -> list[tuple[int, float, np.ndarray]]:
        """Energy and forces of some structures; one by one where the model refuses them."""
        if not which:
            return []
        try:
            energies, forces = self.model([self.structures[k] for k in which])
        except (RuntimeError, ValueError) as error:
            if len(which) > 1:
                return [found for k in which for found in self._of([k])]
            reason = str(error).strip().splitlines()[-1] if str(error).strip() else ""
            self.failures[id(self.structures[which[0]])] = (
                f"the model stopped with {type(error).__name__}: {reason[:200]}"
            )
            return []
        return list(zip(which, energies, forces, strict=True))


def freedom(atoms: Atoms) -> np.ndarray:
    """The degrees of freedom of each atom, [n_atoms], where nothing moves (or, of a molecule, turns) as a whole."""
    return 3.0 - (_rigid(atoms) ** 2).sum(1).reshape(-1, 3).sum(1)


def hold(atoms: Atoms) -> None:
    """Take from the momenta what moves (or, of a molecule, turns) the whole."""
    modes, root = _rigid(atoms), np.sqrt(atoms.get_masses())[:, None]
    momenta = (atoms.get_momenta() / root).ravel()
    atoms.set_momenta(root * (momenta - modes @ (modes.T @ momenta)).reshape(-1, 3))


def _rigid(atoms: Atoms) -> np.ndarray:
    """Motions of the whole, orthonormal where weighted with the roots of masses, [3 n_atoms, up to 6]."""
    root = np.sqrt(atoms.get_masses())[:, None]
    rigid = [root * np.eye(3)[k] for k in range(3)]
    if not atoms.pbc.any():
        around = atoms.positions - atoms.get_center_of_mass()
        rigid += [root * np.cross(np.eye(3)[k], around) for k in range(3)]
    modes = np.stack([mode.ravel() for mode in rigid], axis=1)
    basis, sizes, _ = np.linalg.svd(modes, full_matrices=False)
    found: np.ndarray = basis[:, sizes > 1e-6 * sizes.max()]  # a linear molecule turns two ways
    return found
