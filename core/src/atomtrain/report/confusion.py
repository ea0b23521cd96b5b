"""Confusion matrices as files."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path


def write_confusion(path: Path, matrix: Sequence[Sequence[float]], classes: Sequence[str]) -> None:
    """CSV with a row per class of the labels, a column per predicted class, and names of both."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["label / predicted", *classes])
        for name, row in zip(classes, matrix, strict=True):
            writer.writerow([name, *(int(value) for value in row)])
