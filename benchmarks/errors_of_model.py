"""Print the errors of an exported model on files of labelled structures, as one line of JSON.

Usage: ``python errors_of_model.py MODEL FILE [FILE ...]``, with the Python of the program that made the model:
what ends with ``.pt`` goes through metatomic (atomtrain, metatrain), what ends with ``.model`` is MACE's. The
files are what ASE reads, with energies, forces and perhaps stress. ``accuracy.py`` calls it.

Energies in meV an atom, forces in meV/A, stress in meV/A^3; over all structures, atoms and components of a file.
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from ase.io import read


def calculator(model: Path, dtype: str = "float64") -> Any:
    """ASE's calculator for a model, whoever exported it; MACE's computes in ``dtype``."""
    if model.suffix == ".model":
        from mace.calculators import MACECalculator

        return MACECalculator(model_paths=str(model), device="cpu", default_dtype=dtype)
    # Before the model: the operators that metatrain puts beside it have lost their derivatives.
    with contextlib.suppress(ImportError):
        import sphericart.torch  # noqa: F401
    from metatomic_ase import MetatomicCalculator

    beside = model.parent / "extensions"
    return MetatomicCalculator(
        str(model), extensions_directory=str(beside) if beside.is_dir() else None
    )


def errors(model: Any, path: Path) -> dict[str, float]:
    """Errors on one file."""
    found: dict[str, list[np.ndarray]] = {"energy": [], "forces": [], "stress": []}
    for frame in read(path, ":"):
        labels = frame.calc.results
        frame.calc = model
        energy = frame.get_potential_energy() - labels["energy"]
        found["energy"].append(np.array([energy / len(frame)]))
        found["forces"].append((frame.get_forces() - labels["forces"]).ravel())
        if "stress" in labels:
            found["stress"].append(frame.get_stress() - labels["stress"])
    result = {}
    for name, parts in found.items():
        if parts:
            all_of_them = 1000 * np.concatenate(parts)
            result[f"{name} RMSE"] = float(np.sqrt(np.mean(all_of_them**2)))
            result[f"{name} MAE"] = float(np.mean(np.abs(all_of_them)))
    return result


def main() -> None:
    """Evaluate and print."""
    model = calculator(Path(sys.argv[1]))
    print(json.dumps({name: errors(model, Path(name)) for name in sys.argv[2:]}))


if __name__ == "__main__":
    main()
