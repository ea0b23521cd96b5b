"""The hypers of LLPR; the docstrings are their documentation."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from atomtrain import options
from atomtrain.options import Section, peer

_OF_ENSEMBLE_TRAINING = (
    "train_all_parameters",
    "warmup_fraction",
    "learning_rate",
    "weight_decay",
    "log_interval",
    "grad_clip_norm",
    "min_atoms_per_batch",
)
"""keys of metatrain's that say how an ensemble is trained further, which is not done here"""
_ENSEMBLE_LOSSES = ("gaussian_nll_ensemble", "gaussian_crps_ensemble", "empirical_crps_ensemble")

Members = Annotated[int, Field(ge=2)]


class ModelHypers(Section):
    """What the model gives beside its predictions."""

    num_ensemble_members: Members | dict[str, Members] = {}
    """Members of an ensemble of last layers, drawn from the same distribution that the uncertainty is the width of: a
    number for all targets, or one by target. They are the output ``energy_ensemble``, and the width of their forces
    is the uncertainty of forces. Absent: no ensemble."""
    differentiable: bool = False
    """Whether uncertainties of the exported model can be differentiated in the positions, as dynamics biased towards
    what is unknown would. Calls that ask for one then take about half as long again. Ensembles always can."""


class TrainerHypers(options.BaseTrainerHypers):
    """How the uncertainty is found. Nothing is trained, so most hypers of trainings mean nothing here."""

    model_checkpoint: str | None = None
    """Path of the checkpoint of the trained model. Needed, except to go on with a checkpoint of this architecture,
    which has it inside. Its compositions and scales are taken too."""
    regularizer: Annotated[Annotated[float, Field(gt=0)] | None, BeforeValidator(peer.nothing)] = (
        None
    )
    """What is added to the diagonal of the features' covariance. Absent: that of several with which errors on the
    validation set are most likely."""
    calibration_method: Literal["squared_residuals", "absolute_residuals", "crps"] = (
        "squared_residuals"
    )
    """How uncertainties get their size from errors on the validation set: most likely errors
    (``squared_residuals``), the mean of their absolute values, which outliers change less, or the least continuous
    ranked probability score."""
    batch_size: Annotated[int, Field(ge=1)] = 32
    """Structures whose features are made at a time: a matter of memory and time alone."""
    checkpoint_interval: Annotated[int, Field(ge=0)] = 0
    """There is one stage: 0 for no checkpoint but the last."""

    @model_validator(mode="before")
    @classmethod
    def _as_metatrain(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        data = dict(data)
        if peer.nothing(data.pop("num_epochs", None)) is not None:
            raise ValueError(
                "num_epochs: ensembles are drawn here and not trained further; leave it out (or null)"
            )
        for key in _OF_ENSEMBLE_TRAINING:
            data.pop(key, None)
        losses = data.get("loss")
        for loss in losses.values() if isinstance(losses, dict) else [losses]:
            name = loss.get("type") if isinstance(loss, dict) else loss
            if name in _ENSEMBLE_LOSSES:
                data.pop("loss", None)
        if data.get("scale_targets") is False:
            raise ValueError(
                "scale_targets: scales are those of the model in model_checkpoint; leave it out"
            )
        path = data.get("model_checkpoint")
        if path:
            for key in ("atomic_baseline", "fixed_scaling_weights"):
                if data.get(key, path) not in (path, {}):
                    raise ValueError(
                        f"{key}: compositions and scales are those of the model in model_checkpoint; leave it out"
                    )
                data[key] = path
        return data

    def named_checkpoints(self) -> dict[tuple[str, ...], str]:
        """With that of the trained model."""
        named = super().named_checkpoints()
        if self.model_checkpoint:
            named = {("model_checkpoint",): self.model_checkpoint, **named}
        return named
