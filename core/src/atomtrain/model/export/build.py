"""Wraps a predictor as a metatomic model and says what it can do."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from metatomic.torch import AtomisticModel, ModelCapabilities, ModelMetadata, ModelOutput

from atomtrain.errors import TargetError, first_line
from atomtrain.model.base import Model
from atomtrain.model.export.metadata import complete_metadata
from atomtrain.model.export.wrapper import ExportedModel, related_target
from atomtrain.model.predictor import Predictor
from atomtrain.targets import TargetInfo, hessian_name, uncertainty_name
from atomtrain.tasks import task_of


def export_predictor(
    predictor: Predictor,
    metadata: Mapping[str, Any],
    *,
    dtype: str | None = None,
    devices: Sequence[str] = ("cuda", "cpu"),
) -> AtomisticModel:
    """The metatomic model of a trained ``predictor``, which is copied and not changed.

    ``metadata`` has the keys ``name``, ``description``, ``authors``, ``references`` (``implementation``,
    ``architecture``, ``model``) and ``extra`` (any of them may be missing), ``devices`` are in order of preference.
    ``dtype`` is what the network computes in, ``float32`` or ``float64``; by default that of the
    model's weights, float32 for models trained in half precision. What goes in and comes out is
    float64 in any case: float32 would resolve an energy of 45,000 eV to 4 meV. Every target is offered
    per atom too: its atomic contributions.

    Raises TargetError where metatomic refuses a target's name or unit, OptionsError for metadata of
    the wrong form.
    """
    predictor = copy.deepcopy(predictor).cpu().eval()
    torch_dtype = _dtype(dtype, predictor.model)
    predictor.model.to(torch_dtype)
    for module in predictor.modules():
        if isinstance(module, Model):
            module.before_export()
    info = predictor.dataset_info

    outputs = {name: _output(target) for name, target in info.targets.items()}
    of_structures, of_atoms = predictor.model.structure_outputs(), predictor.model.atom_outputs()
    for name in (*predictor.model.feature_outputs(), *of_structures):
        alone = name in of_structures and name not in of_atoms
        unit = ""
        about = "features of structures" if name in of_structures else "features inside the model"
        of = related_target(name, info)
        if of is not None:
            what = "standard deviation" if name == uncertainty_name(of.name) else "ensemble"
            unit, about = of.unit, f"{what} of '{of.name}'"
        outputs[name] = ModelOutput(
            unit=unit, sample_kind="system" if alone else "atom", description=about
        )
    for name in predictor.hessians:
        outputs[hessian_name(name)] = _hessian(info.targets[name], info.length_unit)
    try:
        capabilities = ModelCapabilities(
            outputs=outputs,
            atomic_types=list(info.atomic_types),
            interaction_range=float(predictor.model.interaction_range),
            length_unit=info.length_unit,
            supported_devices=list(devices),
            dtype="float64",
        )
    except (ValueError, RuntimeError) as error:
        raise TargetError(f"the model cannot be exported: {first_line(error)}") from error
    return AtomisticModel(
        ExportedModel(predictor, torch_dtype).eval(),
        ModelMetadata(**complete_metadata(metadata, info)),
        capabilities,
    )


def with_second_derivatives(predictor: Predictor, *, hessian: bool = False) -> Predictor:
    """A copy of a ``predictor`` which, once exported, autograd can differentiate twice, for the same numbers.

    Exported energies of many architectures bring their first derivatives themselves, and refuse others; here all are
    made of plain operations, which takes longer. With ``hessian`` the exported model offers the Hessian of each
    energy (:func:`atomtrain.targets.hessian_name`) as well. Raises TargetError where the model cannot do it, and
    where no target is the energy of a structure.
    """
    predictor = copy.deepcopy(predictor)
    for module in predictor.modules():
        if isinstance(module, Model):
            module.keep_second_derivatives()
    if hessian:
        targets = predictor.dataset_info.targets
        predictor.hessians = [
            name for name, t in targets.items() if t.is_energy and not (t.per_atom or t.pooled)
        ]
        if not predictor.hessians:
            raise TargetError(
                f"a Hessian is of the energy of structures, and this model predicts {', '.join(targets)}"
            )
    return predictor


def _hessian(target: TargetInfo, length_unit: str) -> ModelOutput:
    unit = f"{target.unit}/{length_unit}^2" if target.unit and length_unit else ""
    about = f"second derivatives of '{target.name}' in the positions of two atoms and their images"
    try:
        # of systems, and not of pairs: metatomic 0.1.19 refuses all calls with those that it checks
        return ModelOutput(unit=unit, sample_kind="system", description=about)
    except (ValueError, RuntimeError) as error:
        raise TargetError(f"no Hessian of '{target.name}': {first_line(error)}") from error


def _output(target: TargetInfo) -> ModelOutput:
    try:
        kind = "system" if target.pooled else "atom"
        described = task_of(target.kind).describe_output(target)
        return ModelOutput(unit=target.unit, sample_kind=kind, description=described)
    except (ValueError, RuntimeError) as error:
        raise TargetError(f"target '{target.name}': {first_line(error)}") from error


def _dtype(name: str | None, model: torch.nn.Module) -> torch.dtype:
    """That of this name, or what suits the model's weights."""
    dtypes = {"float32": torch.float32, "float64": torch.float64}
    if name:
        if name not in dtypes:
            raise TargetError(f"a model can be exported as float32 or float64, not as '{name}'")
        return dtypes[name]
    weights = (*model.parameters(), *model.buffers())
    first = next((t.dtype for t in weights if t.is_floating_point()), torch.float32)
    return torch.float64 if first == torch.float64 else torch.float32
