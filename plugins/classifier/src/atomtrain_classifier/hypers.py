"""The hypers of the classifier; the docstrings are their documentation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from atomtrain import options
from atomtrain.options import Section


class ModelHypers(Section):
    """What the model is."""

    hidden_sizes: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)] = [64, 64]
    """Widths of the hidden layers. A layer of 1 or 2 gives coordinates to look at, or to be used as
    collective variables: see ``feature_layer_index``."""
    feature_layer_index: int = -1
    """Which hidden layer's output, after its activation, is the model's output ``feature``, one row
    for each structure. 0 is the first, -1 the last; the probabilities are not counted."""
    pooling: Literal["mean", "sum", "max", "mean_std"] = "mean"
    """How the features of atoms become those of a structure: their mean, sum or maximum, or mean and
    standard deviation side by side."""

    @model_validator(mode="after")
    def _layer_exists(self) -> ModelHypers:
        n = len(self.hidden_sizes)
        if not -n <= self.feature_layer_index < n:
            raise ValueError(
                f"feature_layer_index {self.feature_layer_index} is out of range: hidden_sizes has "
                f"{n} layer{'s' if n > 1 else ''}, from 0 to {n - 1} or from -{n} to -1"
            )
        return self


class TrainerHypers(options.TrainerHypers):
    """How it is trained: the core's hypers, with defaults that suit a small network."""

    model_checkpoint: str | None = None
    """Path of the checkpoint of the trained model whose features are used. Needed, except to go on
    with a classifier's checkpoint, which has it inside."""
    unfreeze_after: Annotated[int, Field(ge=0)] | None = None
    """Epochs after which that model is trained along. Absent: it stays as it is, its features are
    computed once and an epoch costs next to nothing."""
    backbone_learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Learning rate of that model once it is trained along. Absent: a tenth of ``learning_rate``."""
    feature_cache: str | None = None
    """Folder in which features are kept for later runs on the same structures with the same model.
    Absent: they are in memory, and beyond ``memory_budget`` in a file that goes with the run."""
    batch_size: Annotated[int, Field(ge=1)] = 32
    """Structures in a batch, shared out among the processes."""
    warmup_fraction: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Part of all steps in which the learning rate rises from 0."""
    log_interval: Annotated[int, Field(ge=1)] = 1
    """Epochs between lines of the log."""
    checkpoint_interval: Annotated[int, Field(ge=0)] = 100
    """Epochs between checkpoints; 0 for none but the last."""
    best_model_metric: Literal["rmse_prod", "mae_prod", "loss"] = "loss"
    """What the best model has the least of on the validation set: the loss, or the product of the
    cross entropies of all targets (both others)."""

    def named_checkpoints(self) -> dict[tuple[str, ...], str]:
        """With that of the trained model."""
        named = super().named_checkpoints()
        if self.model_checkpoint:
            named["model_checkpoint",] = self.model_checkpoint
        return named
