"""Print the time in ms of one energy-and-forces call of an exported model through ASE.

Usage: ``python time_model.py model.pt structure.xyz`` (the first structure of the file), in a
folder that holds ``extensions/`` where the model needs it.
"""

import contextlib
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np
from ase import Atoms
from ase.io import iread
from metatomic_ase import MetatomicCalculator

# The peer's model uses an operator of sphericart. Loaded from its extensions folder alone, the
# operator's derivative is lost (quicker, and wrong): what is timed is the model that is right.
with contextlib.suppress(ImportError):
    import sphericart.torch  # noqa: F401

WARM_UP = 20  # TorchScript optimises during the first calls
CALLS = 60


def turn(
    atoms: Atoms, start: np.ndarray, rng: np.random.Generator, warm_up: int, calls: int
) -> list[float]:
    """Times of some calls, s, after some that do not count."""
    times = []
    for _ in range(warm_up + calls):
        atoms.positions = start + rng.normal(scale=0.01, size=start.shape)
        begin = time.perf_counter()
        atoms.get_potential_energy()
        atoms.get_forces()
        times.append(time.perf_counter() - begin)
    return times[warm_up:]


def main() -> None:
    """Call the model as dynamics would: positions that move a little every time."""
    model, structure = sys.argv[1:]
    atoms = next(iread(structure))
    extensions = "extensions" if Path("extensions").is_dir() else None
    atoms.calc = MetatomicCalculator(model, extensions_directory=extensions)
    times = turn(atoms, atoms.positions.copy(), np.random.default_rng(0), WARM_UP, CALLS)
    print(f"{1000 * median(times):.3f}")


if __name__ == "__main__":
    main()
