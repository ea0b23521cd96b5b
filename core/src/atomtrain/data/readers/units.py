"""Units that readers convert from, in eV and angstrom (CODATA 2018, as metatomic has them)."""

HARTREE = 27.211386245981
RYDBERG = HARTREE / 2
BOHR = 0.529177210544
