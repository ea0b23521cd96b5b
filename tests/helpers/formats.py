"""Structures with targets of every layout, and files of every format that hold them."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import ase.io
import metatensor.torch as mts
import numpy as np
import torch
from ase import Atoms
from metatensor.torch import Labels, TensorBlock, TensorMap

from atomtrain.data import Label, StructureStore
from atomtrain.data.writers import Predictions, choose_output
from atomtrain.options import DatasetSection, target_info
from helpers.frames import build, labelled

SPHERICAL = {
    "spherical": {"irreps": [{"o3_lambda": 2, "o3_sigma": 1, "num": 2}, {"o3_lambda": 0, "o3_sigma": 1}]}
}  # fmt: skip
TARGETS: dict[str, dict[str, Any]] = {
    "energy": {"unit": "eV"},
    "mtt::dipole": {"key": "dipole", "type": {"cartesian": {"rank": 1}}},
    "mtt::born": {"key": "born", "sample_kind": "atom", "type": {"cartesian": {"rank": 2}}},
    "mtt::dos": {"key": "dos", "num_subtargets": 4},
    "mtt::q": {"key": "q", "sample_kind": "atom", "type": SPHERICAL},
}


def frames(n: int = 4, **changes: Any) -> list[Atoms]:
    """``n`` structures of 2, 3, ... atoms with values for TARGETS."""
    made = []
    for k in range(n):
        atoms = labelled(k, n=2 + k, **changes)
        rng = np.random.default_rng(100 + k)
        atoms.info["dipole"] = rng.normal(size=3)
        atoms.info["dos"] = rng.normal(size=4)
        atoms.arrays["born"] = rng.normal(size=(len(atoms), 9))
        atoms.arrays["q"] = rng.normal(size=(len(atoms), 11))
        made.append(atoms)
    return made


def write_xyz(made: list[Atoms], name: str = "a.xyz") -> None:
    ase.io.write(name, made, format="extxyz")


def read(systems: str = "a.xyz", **targets: Any) -> StructureStore:
    """All of a data set that is read from ``systems``."""
    section = {"systems": systems, "targets": targets}
    return build(section, [section]).train


def write_store(store: StructureStore, output: str) -> None:
    """``store`` and its labels as if they had been predicted, keys as in TARGETS."""
    section = DatasetSection.model_validate({"systems": "-", "targets": TARGETS})
    values = {}
    infos = {}
    volume = torch.linalg.det(store.cells).abs()[:, None]
    for name, target in section.targets.items():
        info = target_info(target.key, target)
        infos[target.key] = info
        for key, label in store.labels.items():
            if key.startswith(name):
                values[key.replace(name, target.key)] = label.values
    values["energy:stress"] = values["energy:strain"] / volume
    choose_output(output).write(Predictions(store, store.cells.numpy(), infos, values))


def same(a: Label, b: Label, digits: float = 1e-12) -> None:
    """The same values and mask."""
    assert a.per_atom == b.per_atom
    torch.testing.assert_close(a.values, b.values, rtol=digits, atol=digits)
    assert (a.mask is None) == (b.mask is None)
    if a.mask is not None and b.mask is not None:
        assert torch.equal(a.mask, b.mask)


def simple_map(
    systems: Any,
    values: Any,
    *,
    atoms: Any = None,
    components: list[Labels] | None = None,
    keys: Labels | None = None,
) -> TensorMap:
    """A map of one block, made without any code of ours."""
    systems = torch.as_tensor(systems, dtype=torch.int32)
    if atoms is None:
        samples = Labels("system", systems[:, None])
    else:
        atoms = torch.as_tensor(atoms, dtype=torch.int32)
        samples = Labels(["system", "atom"], torch.stack([systems, atoms], dim=1))
    values = torch.as_tensor(values, dtype=torch.float64)
    block = TensorBlock(values, samples, components or [], Labels.range("p", values.shape[-1]))
    return TensorMap(keys or Labels("_", torch.tensor([[0]])), [block])


def repack(source: str, target: str, drop: tuple[str, ...] = (), compress: bool = False) -> None:
    """A zip archive without some members."""
    how = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", how) as new:
        for name in old.namelist():
            if name not in drop:
                new.writestr(name, old.read(name))


def save_map(path: str | Path, found: TensorMap) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    mts.save(str(path), found)
