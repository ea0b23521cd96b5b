"""Use the trained copper model in ASE, against the potential it learnt from (EMT).

The lattice constant needs the stress, the bulk modulus and the vacancy small differences of
energy. Needs ``model.pt`` (from ``atomtrain train options.yaml``) and ``metatomic-ase``.
"""

from pathlib import Path

import numpy as np
from ase import units
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS
from metatomic_ase import MetatomicCalculator


def properties(calculator: Calculator) -> tuple[float, float, float]:
    """Return the lattice constant (A), the bulk modulus (GPa) and the vacancy energy (eV)."""
    crystal = bulk("Cu", "fcc", a=3.65, cubic=True).repeat(2)
    crystal.calc = calculator
    BFGS(FrechetCellFilter(crystal), logfile=None).run(fmax=0.005, steps=100)
    energy = crystal.get_potential_energy()

    pressures = []
    for scale in (0.995, 1.005):
        strained = crystal.copy()
        strained.set_cell(crystal.cell * scale, scale_atoms=True)
        strained.calc = calculator
        pressures.append(-strained.get_stress()[:3].mean())
    modulus = (pressures[0] - pressures[1]) / (1.005**3 - 0.995**3) / units.GPa

    defective = crystal.copy()
    del defective[0]
    defective.calc = calculator
    BFGS(defective, logfile=None).run(fmax=0.01, steps=100)
    vacancy = defective.get_potential_energy() - energy * len(defective) / len(crystal)
    return float(np.cbrt(crystal.get_volume()) / 2), modulus, vacancy


print("       lattice constant/A  bulk modulus/GPa  vacancy/eV")
for name, calculator in (
    ("model", MetatomicCalculator(Path(__file__).with_name("model.pt"))),
    ("EMT", EMT()),
):
    constant, modulus, vacancy = properties(calculator)
    print(f"{name:5}  {constant:18.3f}  {modulus:16.0f}  {vacancy:10.2f}")
