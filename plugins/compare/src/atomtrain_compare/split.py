"""The split that all variants share: drawn once, written down as indices, put into the options of every run."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from atomtrain.data import StructureStore, build_datasets
from atomtrain.errors import OptionsError
from atomtrain.files import replacing
from atomtrain.runs.plan import Plan
from atomtrain.targets import DatasetInfo

INDICES = "indices"
"""the folder of the files of indices, in that of the comparison"""


@dataclass
class Split:
    """Which structures everybody trains, validates and tests on.

    ``sections``: the training sections of the completed options; ``frames``: by set, for each of them, the frames that
    went there, or None where a set has sections of its own. ``fingerprints`` are hashes of the sets, ``sizes`` their
    numbers of structures, ``example`` is one of the structures errors are taken on. ``subsets``: the frames of
    smaller training sets, by their size.
    """

    completed: Mapping[str, Any]
    info: DatasetInfo
    frames: dict[str, list[list[int] | None]]
    fingerprints: dict[str, str]
    sizes: dict[str, int]
    example: Atoms
    warnings: list[str]
    subsets: dict[int, list[list[int]]] = field(default_factory=dict)

    @property
    def judged_on(self) -> str:
        """The set errors are taken on: ``test``, or ``validation`` where nothing is left to test on."""
        return "test" if "test" in self.sizes else "validation"

    @property
    def training(self) -> int:
        """Structures in the training set."""
        return self.sizes["training"]

    # -- subsets -------------------------------------------------------------------------------

    def add_subsets(self, sizes: Sequence[int]) -> None:
        """Draw nested subsets of the training set, by the seed of the options; from each section its share.

        Raises OptionsError for a size that cannot be.
        """
        parts = [frames or [] for frames in self.frames["train"]]
        generator = np.random.default_rng([self.completed["seed"], len(parts)])
        shuffled = [generator.permutation(frames).tolist() for frames in parts]
        places = sorted((j / len(p), k, j) for k, p in enumerate(shuffled) for j in range(len(p)))
        for size in sizes:
            if not len(parts) <= size <= self.training:
                least = f"{len(parts)} (one of each training section)" if len(parts) > 1 else "1"
                raise OptionsError(
                    f"--structures {size}: the training set has {self.training} structures; give numbers from {least} "
                    f"to {self.training}"
                )
            if size < self.training:
                taken = places[:size]
                self.subsets[size] = [
                    sorted(shuffled[k][j] for _, section, j in taken if section == k)
                    for k in range(len(parts))
                ]

    # -- what is written -----------------------------------------------------------------------

    def write(self, folder: Path) -> None:
        """All indices, as files below ``folder``."""
        (folder / INDICES).mkdir(parents=True, exist_ok=True)
        for name, sections in self.frames.items():
            for k, frames in enumerate(sections):
                if frames is not None:
                    _write(folder / INDICES / f"{name}_{k}.txt", frames)
        for size, parts in self.subsets.items():
            for k, frames in enumerate(parts):
                _write(folder / INDICES / f"train_{k}_{size}.txt", frames)

    def options(
        self, planned: Plan, folder: Path, run: Path, *, size: int, seed: int, epochs: int | None
    ) -> dict[str, Any]:
        """Complete options of a run in the folder ``run``, on ``size`` structures of this split in ``folder``.

        Paths in them are from the folder of the run. ``epochs``: None leaves what the options say.
        """
        made = copy.deepcopy(planned.completed)
        made["seed"] = seed
        training = made["architecture"]["training"]
        if epochs is not None:
            training["num_epochs"] = epochs
        home = os.path.relpath(Path.cwd(), run)
        for path, file in planned.hypers.named_checkpoints().items():
            section = training
            for key in path[:-1]:
                section = section[key]
            section[path[-1]] = _from(home, file)
        for name in ("training_set", "validation_set", "test_set"):
            made[name] = _moved(made[name], home)
        indices = os.path.relpath(folder / INDICES, run)
        smaller = f"_{size}" if size in self.subsets else ""
        for k, section in enumerate(made["training_set"]):
            section["indices"] = f"{indices}/train_{k}{smaller}.txt"
        for name in ("validation", "test"):
            for k, frames in enumerate(self.frames[name]):
                if frames is not None:
                    made[f"{name}_set"][k] = {"indices": f"{indices}/{name}_{k}.txt"}
        if smaller:  # not each element need be in each subset, and all models are to be as large
            made["architecture"]["atomic_types"] = list(self.info.atomic_types)
        return made

    def judged_sections(self, folder: Path) -> list[dict[str, Any]]:
        """The structures errors are taken on, as sections of an eval file."""
        name = self.judged_on
        if all(frames is None for frames in self.frames[name]):
            return list(self.completed[f"{name}_set"])
        return [
            {**section, "indices": str(folder / INDICES / f"{name}_{k}.txt")}
            for k, section in enumerate(self.completed["training_set"])
            if self.frames[name][k]
        ]


def draw(planned: Plan) -> Split:
    """Read the data that options name and split them as a training would. Raises what a training would raise."""
    kind, budget = planned.architecture.info.default_kind, planned.hypers.memory_budget_bytes
    data = build_datasets(planned.options, kind, budget)
    there = {name: store for name, store in data.sets.items() if store is not None and len(store)}
    judged = there.get("test") or there.get("validation")
    if judged is None:
        raise OptionsError(
            f"{planned.options.source.where(('test_set',))}: there is neither a test set nor a validation set, so "
            "nothing to compare on; give the options a test_set, for instance 0.1"
        )
    return Split(
        completed=planned.completed,
        info=data.info,
        frames=data.splits,
        fingerprints={name: store.fingerprint for name, store in there.items()},
        sizes={name: len(store) for name, store in there.items()},
        example=judged.sample.atoms(_middle(judged.sample), data.info.length_unit),
        warnings=data.warnings,
    )


def _middle(store: StructureStore) -> int:
    """The first structure of median size."""
    sizes = store.n_atoms.numpy()
    return int(np.flatnonzero(sizes == np.sort(sizes)[len(sizes) // 2])[0])


def _write(path: Path, frames: Sequence[int]) -> None:
    text = "".join(f"{frame}\n" for frame in frames)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _moved(value: Any, home: str) -> Any:
    """Sections with all paths as from elsewhere; ``home``: the way from there to the working directory."""
    if isinstance(value, list):
        return [_moved(one, home) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        key: _from(home, one) if key in ("read_from", "indices") else _moved(one, home)
        for key, one in value.items()
    }


def _from(home: str, path: Any) -> Any:
    """A path, or a list of them; whatever else stays, as the numbers that ``indices`` may be."""
    if isinstance(path, list):
        return [_from(home, one) for one in path]
    # not Path: a slash at the end says that it is a folder
    return os.path.join(home, path) if isinstance(path, str) and path else path
