"""SOAP-BPNN and batches of awkward structures for it, made here: no data files are needed."""

from __future__ import annotations

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk, molecule

from atomtrain.targets import DatasetInfo, TargetInfo
from atomtrain_soap_bpnn.hypers import ModelHypers
from atomtrain_soap_bpnn.model import SoapBpnn


def structures() -> list[Atoms]:
    """Molecule, skewed cell smaller than the cutoff, slab, single atom, isolated atoms."""
    rng = np.random.default_rng(0)
    skewed = bulk("Cu", "fcc", a=3.6)  # one atom, a primitive cell far smaller than the cutoff
    crystal = bulk("NaCl", "rocksalt", a=5.6, cubic=True)
    crystal.numbers[:] = [6 if z == 11 else 8 for z in crystal.numbers]
    skewed.numbers[:] = 6
    slab = bulk("C", "diamond", a=3.57, cubic=True)
    slab.pbc = [True, True, False]
    ethanol = molecule("CH3CH2OH")
    single = Atoms("O")
    apart = Atoms("HH", positions=[[0, 0, 0], [0, 0, 20.0]])
    frames = [ethanol, skewed, crystal, slab, single, apart]
    for atoms in frames[:4]:
        atoms.positions += 0.05 * rng.normal(size=atoms.positions.shape)
    return frames


TYPES = (1, 6, 8)


def info(types: tuple[int, ...] = TYPES) -> DatasetInfo:
    target = TargetInfo("energy", quantity="energy", gradients=("forces", "strain"))
    return DatasetInfo("angstrom", types, {"energy": target})


def build(legacy: bool = True, **hypers: object) -> SoapBpnn:
    torch.manual_seed(0)
    return SoapBpnn(ModelHypers(legacy=legacy, **hypers), info()).to(torch.float64)
