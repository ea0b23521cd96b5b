"""How much longer a call through ASE takes with the standard deviation of the energy.

Usage: ``python uncertainty.py structure.xyz model.pt model-with-uncertainty.pt``. Energy and forces of the first
structure of the file, its atoms moved a little every time; the second model has the output ``energy_uncertainty``,
which ASE's calculator then asks for. The models take turns, some tens of calls at a time.
"""

from __future__ import annotations

import sys
from statistics import median

import numpy as np
from ase.io import iread
from metatomic_ase import MetatomicCalculator
from time_model import turn

TURNS = 8
WARM_UP = 15  # calls at the beginning of a turn that do not count
CALLS = 30


def main() -> None:
    """Print medians in ms, and their ratio."""
    structure, *models = sys.argv[1:]
    first = next(iread(structure))
    rng = np.random.default_rng(0)
    times: dict[str, list[float]] = {model: [] for model in models}
    ready = {}
    for model in models:
        ready[model] = first.copy()
        ready[model].calc = MetatomicCalculator(model, uncertainty_threshold=1e6)
    for k in range(TURNS):
        for model in models if k % 2 else reversed(models):
            found = turn(ready[model], first.positions.copy(), rng, WARM_UP, CALLS)
            times[model] += found if k > 0 else []  # TorchScript compiles in the first
    without, with_it = (1000 * median(times[model]) for model in models)
    print(f"without {without:.3f} ms, with {with_it:.3f} ms, ratio {with_it / without:.3f}")


if __name__ == "__main__":
    main()
