"""Pictures of the site: those of tutorials, inside their pages, and that of the home page, kept as a file.

``python docs/_pages/pictures.py`` makes the latter anew: it trains the README's example, which takes minutes.
"""

from __future__ import annotations

import base64
import csv
import io
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOCS = Path(__file__).parent.parent
HOME = DOCS / "images" / "ethanol.png"


def shown(figure: Figure) -> str:
    """A figure as HTML that needs no file."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110)
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}">'


def home(folder: Path) -> Figure:
    """What the README's command gave in ``folder``: how it learnt, and forces it never saw."""
    import matplotlib.pyplot as plt
    import numpy as np
    from ase.io import read
    from metatomic_ase import MetatomicCalculator

    run = sorted(folder.glob("outputs/*/*"))[-1]
    with open(run / "train.csv", encoding="utf-8") as file:
        epochs = list(csv.DictReader(file))
    frames: Any = read(folder / "ethanol.xyz", index=":")
    test = [frames[k] for k in np.loadtxt(run / "indices" / "test_0.txt", dtype=int)]
    calculator = MetatomicCalculator(folder / "model.pt")
    reference = np.concatenate([atoms.get_forces() for atoms in test])
    predicted = np.concatenate([calculator.get_forces(atoms) for atoms in test])
    error = 1000 * np.sqrt(np.mean((predicted - reference) ** 2))

    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.3), layout="constrained")
    for quantity, unit in (("forces", "meV/A"), ("energy", "meV/atom")):
        values = [float(row[f"validation {quantity} RMSE [{unit}]"]) for row in epochs]
        left.plot(values, label=f"{quantity} ({unit})")
    left.set(xlabel="epoch", ylabel="RMSE on the validation set", yscale="log", title="train.csv")
    left.legend(frameon=False)
    right.plot(reference.ravel(), predicted.ravel(), ".", markersize=2.5)
    right.axline((0, 0), slope=1, color="grey", linewidth=0.8)
    title = f"{len(test)} unseen structures: RMSE {error:.0f} meV/A"
    right.set(xlabel="force, GFN2-xTB (eV/A)", ylabel="force, model.pt (eV/A)", title=title)
    return figure


def main() -> None:
    """Train in a folder that goes away again, or take one that was trained in, and write the picture."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(sys.argv[1] if len(sys.argv) > 1 else made)
        if len(sys.argv) == 1:
            for name in ("ethanol.xyz", "options.yaml"):
                shutil.copy(DOCS.parent / "examples" / "ethanol" / name, folder)
            command = [sys.executable, "-m", "atomtrain", "train", "options.yaml"]
            subprocess.run(command, cwd=folder, check=True, env=os.environ)
        HOME.parent.mkdir(exist_ok=True)
        home(folder).savefig(HOME, dpi=100)


if __name__ == "__main__":
    main()
