"""Units that readers convert from, in eV and angstrom (CODATA 2018, as metatomic has them)."""

HARTREE = 27.211386245981
RYDBERG = HARTREE / 2
BOHR = 0.529177210544
KJ_PER_MOL = 1 / 96.48533212331
KCAL_PER_MOL = 4.184 * KJ_PER_MOL
BAR = 1e-25 / 1.602176634e-19
"""in eV/A^3"""
GPA = 1e4 * BAR
"""in eV/A^3"""
