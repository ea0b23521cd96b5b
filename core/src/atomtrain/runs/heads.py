"""Fine-tuning on other targets: which heads stay, which start anew, and which entries of weights are new at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from atomtrain.contract import BuildContext
from atomtrain.errors import OptionsError, did_you_mean
from atomtrain.model.base import Model
from atomtrain.model.heads import retarget, split_targets
from atomtrain.model.predictor import Predictor
from atomtrain.options import Finetune
from atomtrain.plugins.restore import Restored, build_model
from atomtrain.runs.plan import Plan
from atomtrain.sections.names import base_name
from atomtrain.targets import DatasetInfo, TargetInfo
from atomtrain.training.affine import copy_affine

SECTION = "architecture.training.finetune"


def kept_targets(
    finetune: Finetune, before: DatasetInfo, now: DatasetInfo
) -> dict[str, TargetInfo]:
    """Targets of the checkpoint (``before``) whose heads stay, though the data have no such target.

    Raises OptionsError where one is named that the checkpoint does not have.
    """
    if finetune.keep_heads is False:
        return {}
    wanted = list(before.targets) if finetune.keep_heads is True else finetune.keep_heads
    for name in wanted:
        if name not in before.targets:
            raise OptionsError(
                f"{SECTION}.keep_heads: the checkpoint has no target '{name}'"
                f"{did_you_mean(name, before.targets, 'it has')}"
            )
    return {name: before.targets[name] for name in wanted if name not in now.targets}


def for_targets(
    plan: Plan, restored: Restored, info: DatasetInfo, finetune: Finetune
) -> tuple[Model, set[str]]:
    """The restored model with heads for the targets of ``info``, trained, fresh or inherited.

    Also gives the names of the weights that were inherited.
    """
    model, architecture = restored.predictor.model, plan.architecture
    before = restored.predictor.dataset_info
    trained = {n: p.detach().clone() for n, p in model.state_dict().items()}
    if info.targets != before.targets or finetune.method == "encoder":
        model = _retargeted(restored, info)
    if finetune.method == "encoder":  # heads start anew
        context = BuildContext("train", plan.hypers, restored.checkpoint)
        hypers = architecture.model_hypers(restored.checkpoint)
        fresh = build_model(architecture, hypers, info, context).state_dict()
        own = model.state_dict()
        for n, p in fresh.items():
            if model.is_head(n):
                own[n].copy_(p)
    return model, _inherit_heads(model, trained, finetune.inherit_heads, info)


def one_head(restored: Restored, name: str) -> Restored:
    """The restored model with one of its targets alone, under the name without variant: what engines ask for.

    Raises OptionsError where it has no such target.
    """
    predictor = restored.predictor
    before = predictor.dataset_info
    if name not in before.targets:
        raise OptionsError(
            f"--head: the model has no target '{name}'{did_you_mean(name, before.targets, 'it has')}"
        )
    called = base_name(name)
    info = replace(before, targets={called: replace(before.targets[name], name=called)})
    trained = {n: p.detach().clone() for n, p in predictor.model.state_dict().items()}
    model = _retargeted(restored, info)
    # a model of one target may have no name in its weights: they are all it has
    if called != name and (len(before.targets) > 1 or any(name in n.split(".") for n in trained)):
        _inherit_heads(model, trained, {called: name}, info)
    alone = Predictor(model, info)
    copy_affine(alone, predictor, called, name)
    checkpoint = {**restored.checkpoint, "dataset_info": info.to_dict()}
    return Restored(restored.architecture, alone, checkpoint)


def _retargeted(restored: Restored, info: DatasetInfo) -> Model:
    """The model with heads for these targets: those it has stay."""
    about = restored.architecture.info
    fits = (about.target_kinds, about.name)
    own_before, _ = split_targets(restored.predictor.dataset_info, *fits)
    return retarget(restored.predictor.model, own_before, *split_targets(info, *fits))


def _inherit_heads(
    model: torch.nn.Module,
    trained: dict[str, Tensor],
    inherit: dict[str, str],
    info: DatasetInfo,
) -> set[str]:
    """Start the head of each new target from a trained one, by the targets' names in the weights."""
    own = model.state_dict()
    inherited: set[str] = set()
    for new, old in inherit.items():
        if new not in info.targets:
            raise OptionsError(f"{SECTION}.inherit_heads: there is no target '{new}'")
        copied = len(inherited)
        for name, value in trained.items():
            parts = name.split(".")
            if old not in parts:
                continue
            counterpart = ".".join(new if part == old else part for part in parts)
            # the encoder is inside where there are heads of the core, here or there
            for place in _places(counterpart):
                if place in own and own[place].shape == value.shape:
                    own[place].copy_(value)
                    inherited.add(place)
                    break
        if len(inherited) == copied:
            raise OptionsError(
                f"{SECTION}.inherit_heads: the checkpoint has no head '{old}' that fits '{new}'"
            )
    return inherited


def _places(name: str) -> tuple[str, str, str]:
    """What a weight may be called: the encoder is inside where there are heads of the core."""
    return name, f"encoder.{name}", name.removeprefix("encoder.")


def new_entries(
    model: Model, trained: Mapping[str, Tensor], grown: Mapping[str, Tensor], inherited: set[str]
) -> dict[str, Tensor]:
    """Masks of the entries of ``model``'s parameters that no training has seen.

    ``trained`` are the weights of the checkpoint's model, after it has ``grown`` (masks of what is new then).
    """
    found: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        if not parameter.numel() or name in inherited:
            continue
        known = next((place for place in _places(name) if place in trained), None)
        if known is None or trained[known].shape != parameter.shape:
            found[name] = torch.ones_like(parameter, dtype=torch.bool)
        elif known in grown:
            found[name] = grown[known]
    return found
