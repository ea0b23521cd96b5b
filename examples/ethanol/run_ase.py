"""Run the trained ethanol model in ASE: one picosecond of dynamics at constant energy.

Needs ``model.pt`` (from ``atomtrain train options.yaml``) and the package ``metatomic-ase``.
"""

from pathlib import Path

import numpy as np
from ase import units
from ase.io import read
from ase.md.velocitydistribution import force_temperature
from ase.md.verlet import VelocityVerlet
from metatomic_ase import MetatomicCalculator

HERE = Path(__file__).parent

atoms = read(HERE / "ethanol.xyz", index=0)
reference_energy, reference_forces = atoms.get_potential_energy(), atoms.get_forces()

atoms.calc = MetatomicCalculator(HERE / "model.pt")
energy, forces = atoms.get_potential_energy(), atoms.get_forces()
print(f"energy         model {energy:.4f} eV, GFN2-xTB {reference_energy:.4f} eV")
print(f"largest force  model {np.abs(forces).max():.3f} eV/A, ", end="")
print(f"GFN2-xTB {np.abs(reference_forces).max():.3f} eV/A")

masses = atoms.get_masses()[:, None]
atoms.set_momenta(np.random.default_rng(0).normal(size=(len(atoms), 3)) * np.sqrt(masses))
force_temperature(atoms, 500)
dynamics = VelocityVerlet(atoms, timestep=0.5 * units.fs)
start = atoms.get_total_energy()
print("\ntime/fs  temperature/K  potential/eV  drift/(meV/atom)")
for step in range(0, 2001, 400):
    drift = 1000 * (atoms.get_total_energy() - start) / len(atoms)
    time, temperature = step * 0.5, atoms.get_temperature()
    print(f"{time:7.0f}  {temperature:13.0f}  {atoms.get_potential_energy():12.4f}  {drift:16.3f}")
    dynamics.run(400)
