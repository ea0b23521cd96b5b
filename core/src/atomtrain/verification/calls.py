"""Calling the file of an exported model as engines do."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from metatensor.torch import Labels
from metatomic.torch import (
    AtomisticModel,
    ModelEvaluationOptions,
    ModelOutput,
    unit_conversion_factor,
)
from torch import Tensor

from atomtrain.data import StructureStore
from atomtrain.evaluation import gradients_of, systems_of, told
from atomtrain.graph import sum_over_structures
from atomtrain.model import STANDARD, ExtraInput
from atomtrain.model.export import requested_inputs
from atomtrain.model.export.archive import quiet_torchscript
from atomtrain.targets import hessian_name

GRADIENTS = ("forces", "strain")


class ExportedFile:
    """An exported model, called as an engine does."""

    def __init__(self, model: AtomisticModel, device: str, length_unit: str | None) -> None:
        capabilities = model.capabilities()
        self.model, self.device = model.to(device), device
        self.dtype: torch.dtype = getattr(torch, capabilities.dtype)
        floats = {t.dtype for t in (*model.parameters(), *model.buffers())} & {
            torch.float32,
            torch.float64,
        }
        self.precision = (
            torch.float32 if torch.float32 in (floats or {self.dtype}) else torch.float64
        )
        self.types: list[int] = capabilities.atomic_types
        self.length_unit: str = length_unit or capabilities.length_unit or "angstrom"
        self.angstrom: float = unit_conversion_factor("angstrom", self.length_unit)
        self.lists, self.inputs = model.requested_neighbor_lists(), requested_inputs(model)
        self.extra_inputs = {
            name: STANDARD.get(name) or ExtraInput(one.sample_kind == "atom", one.unit)
            for name, one in self.inputs.items()
        }
        offered, targets = dict(capabilities.outputs.items()), told(model)
        hessians = {hessian_name(name) for name in offered}
        self.only_energies = bool(targets) and all(t.is_energy for t in targets.values())
        self.outputs: dict[str, ModelOutput] = {}
        self.energies: dict[str, ModelOutput] = {}
        self.hessians: dict[str, ModelOutput] = {}  # by energy
        self.of_atoms: dict[str, ModelOutput] = {}  # sums, which are offered atom by atom too
        # metatomic adds older names of what a model offers
        for name in getattr(model, "_model_capabilities_outputs_names", offered):
            if name in hessians:
                continue
            unit, kind = offered[name].unit, offered[name].sample_kind
            target = targets.get(name)
            is_energy = target.is_energy if target else name.split("/")[0] == "energy"
            if kind == "atom" and (is_energy or (target and not target.per_atom)):
                self.of_atoms[name] = ModelOutput(unit=unit, sample_kind="atom")
                kind = "system"
            self.outputs[name] = ModelOutput(unit=unit, sample_kind=kind)
            if is_energy:
                self.energies[name] = self.outputs[name]
                called = hessian_name(name)
                if called in offered:
                    self.hessians[name] = offered[called]

    def call(
        self,
        store: StructureStore,
        part: Tensor,
        outputs: dict[str, ModelOutput],
        *,
        gradients: bool = False,
        selected: Labels | None = None,
    ) -> dict[str, Tensor]:
        """Each output ``[n_samples, n]``; with ``gradients`` those of energies too, by label key."""
        systems, leaves = systems_of(
            store,
            part,
            self.lists,
            self.length_unit,
            self.dtype,
            self.device,
            gradients,
            self.inputs,
        )
        options = ModelEvaluationOptions(self.length_unit, outputs, selected)
        with quiet_torchscript():
            maps = self.model(systems, options, check_consistency=True)
        found = {
            name: torch.cat([block.values.flatten(1) for block in maps[name].blocks()], dim=1)
            for name in outputs
        }
        for name in self.energies if gradients else ():
            energy = found[name]
            if not energy.requires_grad:  # of atoms without neighbours
                energy = energy + 0.0 * leaves[0].sum()
            by_kind = gradients_of(energy, systems, leaves, True)
            found |= {f"{name}:{kind}": by_kind[kind] for kind in GRADIENTS}
        return {key: v.detach().to("cpu", torch.float64) for key, v in found.items()}


@dataclass(frozen=True)
class Given:
    """What a call gave for some ``rows`` of all samples; ``key`` as of a call, or ``<name> of atoms``."""

    key: str
    rows: Tensor
    values: Tensor


def repeated_calls(file: ExportedFile, store: StructureStore) -> list[Given]:
    """All outputs at once, and energies as engines ask for them, until TorchScript has rewritten the model."""
    everyone = torch.arange(len(store))
    first, last = everyone[:1], everyone[-1:]
    calls = [(file.outputs, everyone)]
    if not file.only_energies:
        calls += [(file.outputs, last), (file.outputs, everyone)]
    if file.energies:
        parts = (first, first, first, everyone, everyone, last, first)
        calls += [(file.energies, part) for part in parts]
    given = []
    for outputs, part in calls:
        values = file.call(store, part, outputs, gradients=outputs is file.energies)
        atoms = store.atom_indices(part)
        for key, v in values.items():
            kind = outputs[key].sample_kind if key in outputs else key.split(":")[-1]
            given.append(Given(key, atoms if kind in ("atom", "forces") else part, v))
    return given


def atom_by_atom(file: ExportedFile, store: StructureStore) -> list[Given]:
    """Sums atom by atom, of all atoms but the first: engines that share structures ask for a selection."""
    if not file.of_atoms:
        return []
    rows = torch.arange(len(store.types))[-max(len(store.types) - 1, 1) :]
    structure, whole = store.structure[rows], torch.arange(1, len(store))
    labels = torch.stack([structure, rows - store.offsets[structure]], 1)
    selected = Labels(["system", "atom"], labels.to(file.device, torch.int32))
    given = []
    values = file.call(store, torch.arange(len(store)), file.of_atoms, selected=selected)
    for name, v in values.items():
        sums = sum_over_structures(v, structure, len(store))
        given += [Given(f"{name} of atoms", rows, v), Given(name, whole, sums[whole])]
    return given
