"""What the log says of the data before a training."""

from __future__ import annotations

from atomtrain.data.store import StructureStore
from atomtrain.sections.names import symbols
from atomtrain.targets import GRADIENT_NAMES, DatasetInfo
from atomtrain.tasks import task_of


def statistics(sets: dict[str, StructureStore | None], info: DatasetInfo) -> list[str]:
    """How many structures there are, their elements, and the labels of each target in training."""
    sizes = ", ".join(f"{len(s)} {name}" for name, s in sets.items() if s is not None)
    lines = [f"structures: {sizes}; elements: {symbols(info.atomic_types, ' ')}"]
    train = sets["training"]
    assert train is not None
    for name, target in info.targets.items():
        label = train.labels[name]
        said = task_of(target.kind).describe_labels(label.values, label.mask, target)
        also = ", ".join(GRADIENT_NAMES[g] for g in target.gradients)
        if said:
            lines.append(f"target '{name}'{f' with {also}' if also else ''}: {said}")
    return lines
