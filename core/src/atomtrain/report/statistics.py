"""What the log says of the data before a training."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch
from ase.data import chemical_symbols

if TYPE_CHECKING:
    from atomtrain.data import Datasets

log = logging.getLogger("atomtrain")


def say_statistics(data: Datasets) -> None:
    """Log how many structures there are, their elements, and the spread of each target."""
    elements = " ".join(chemical_symbols[z] for z in data.info.atomic_types)
    sets = {"training": data.train, "validation": data.validation, "test": data.test}
    sizes = ", ".join(f"{len(s)} {n}" for n, s in sets.items() if s is not None)
    log.info("structures: %s; elements: %s", sizes, elements)
    for name, target in data.info.targets.items():
        label = data.train.labels[name]
        if target.input:
            continue
        if target.classes:
            counts = (
                label.values.sum(0) if label.mask is None else (label.values * label.mask).sum(0)
            )
            if target.kind == "binary":
                rows = len(label.values) if label.mask is None else label.mask.sum(0)
                said = f"{counts.sum():.6g} of {torch.as_tensor(rows).sum():.6g} are {target.classes[1]}"
            else:
                parts = zip(target.classes, counts.tolist(), strict=True)
                said = ", ".join(f"{c} {n:.6g}" for c, n in parts if n)
            log.info("target '%s': %s", name, said)
            continue
        values = label.values if label.mask is None else label.values[label.mask]
        spread = float(values.std()) if values.numel() > 1 else 0.0
        also = {"forces": "forces", "strain": "stress"}
        with_ = ", ".join(also[g] for g in target.gradients)
        log.info(
            "target '%s'%s: mean %.6g, standard deviation %.4g%s",
            name,
            f" with {with_}" if with_ else "",
            float(values.mean()),
            spread,
            f" {target.unit}" if target.unit else "",
        )
