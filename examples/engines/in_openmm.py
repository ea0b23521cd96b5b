"""OpenMM: the model as a force written in Python. ``python in_openmm.py model.pt``."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import openmm
from ase import units
from metatomic_ase import MetatomicCalculator
from openmm import unit
from reference import agrees, copper, in_ase

KJ_PER_MOL = units.kJ / units.mol


def main() -> None:
    """Compare, and run dynamics with a thermostat and a barostat."""
    atoms = copper()
    current = atoms.copy()
    current.calc = MetatomicCalculator(sys.argv[1], device="cpu")

    def compute(state: Any) -> tuple[float, np.ndarray]:
        """Energy in kJ/mol, forces in kJ/mol/nm."""
        current.set_cell(
            10 * state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.nanometer)
        )
        current.positions = 10 * state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        energy = current.get_potential_energy() / KJ_PER_MOL
        return energy, 10 * current.get_forces() / KJ_PER_MOL

    system = openmm.System()
    for mass in atoms.get_masses():
        system.addParticle(mass)
    system.setDefaultPeriodicBoxVectors(*(0.1 * atoms.cell.array))
    force = openmm.PythonForce(compute)
    force.setUsesPeriodicBoundaryConditions(True)
    system.addForce(force)
    system.addForce(openmm.MonteCarloBarostat(1 * unit.bar, 300 * unit.kelvin))
    integrator = openmm.LangevinMiddleIntegrator(300, 10 / unit.picosecond, 2 * unit.femtosecond)
    integrator.setRandomNumberSeed(1)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(0.1 * atoms.positions)
    state = context.getState(getEnergy=True, getForces=True)
    energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole) * KJ_PER_MOL
    forces = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
    # OpenMM asks for no stress: its barostat tries volumes
    agrees("OpenMM", in_ase(sys.argv[1], atoms), energy, np.array(forces) * KJ_PER_MOL / 10)

    context.setVelocitiesToTemperature(300, 1)
    integrator.step(100)
    state = context.getState(getEnergy=True)
    volume = 1000 * state.getPeriodicBoxVolume().value_in_unit(unit.nanometer**3) / len(atoms)
    print(f"OpenMM: 100 steps of Langevin dynamics at 300 K and 1 bar; {volume:.2f} A^3/atom")


if __name__ == "__main__":
    main()
