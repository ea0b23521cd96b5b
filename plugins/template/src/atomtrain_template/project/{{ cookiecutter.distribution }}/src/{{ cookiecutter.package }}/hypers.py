"""What a user can set; the docstrings are the documentation."""

from __future__ import annotations

{% if cookiecutter.level == "fit" -%}
from collections.abc import Collection, Mapping
{% endif -%}
from typing import Annotated

from atomtrain import options
{%- if cookiecutter.level == "fit" %}
from atomtrain.targets import TargetInfo
{%- endif %}
from pydantic import Field


class ModelHypers(options.Section):
    """``architecture.model``"""
{% if cookiecutter.level == "wrapper" %}
    n_channels: Annotated[int, Field(ge=1)] = 64
    """Number of features made of the backbone's."""
{%- else %}
    cutoff: Annotated[float, Field(gt=0)] = 5.0
    """How far an atom sees, in the data's length unit."""
    n_radial: Annotated[int, Field(ge=2)] = 8
    """Number of radial functions."""
    n_channels: Annotated[int, Field(ge=1)] = 16
    """Number of learnt functions of distance and element."""
{%- if cookiecutter.level == "potential" %}
    n_hidden: Annotated[int, Field(ge=1)] = 64
    """Width of the network that makes energies of the features."""
{%- endif %}
{%- endif %}


{% if cookiecutter.level == "fit" -%}
class TrainerHypers(options.BaseTrainerHypers):
    """``architecture.training``: what every training has, and the ridges."""

    batch_size: Annotated[int, Field(ge=1)] = 16
    """Structures that are taken into the sums at a time."""
    ridge: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)] = [1e-9, 1e-7, 1e-5]
    """What squares of weights are multiplied by; validation chooses one of these."""

    def check_targets(
        self, targets: Mapping[str, TargetInfo], extra_data: Collection[str]
    ) -> list[tuple[tuple[str, ...], str]]:
        """Least squares are the only loss."""
        problems = super().check_targets(targets, extra_data)
        for loss in map(self.loss_for, targets.values()):
            for one in (loss, *loss.gradients.values()):
                if one.type != "mse":
                    problems.append((("loss",), f"'{one.type}' cannot be fitted: there is 'mse'"))
        return problems
{%- else -%}
class TrainerHypers(options.TrainerHypers):
    """``architecture.training``: the core's, with defaults that suit this model."""

    learning_rate: float = 3e-3
{%- endif %}
{%- if cookiecutter.level == "wrapper" %}
    backbone: str | None = None
    """Path of the checkpoint of the trained model to build on. Needed, except to go on with a
    checkpoint, which has it inside."""

    def named_checkpoints(self) -> dict[tuple[str, ...], str]:
        """With that of the backbone, so that it is opened before data are read."""
        named = super().named_checkpoints()
        if self.backbone:
            named["backbone",] = self.backbone
        return named
{%- elif cookiecutter.level == "trainer" %}
    clip_ratio: Annotated[float, Field(gt=0)] = 0.1
    """Largest norm of the gradient of a weight tensor, relative to the norm of the tensor."""
{%- endif %}
