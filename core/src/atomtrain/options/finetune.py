"""Going on from another training's weights: what is trained then, what is seen again, what is kept."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from atomtrain.options import peer
from atomtrain.options.dataset import Dataset
from atomtrain.sections import Problems, Section

Index = Annotated[int, Field(ge=0)]


class LowRankSection(Section):
    """Additions of low rank (LoRA, E. J. Hu et al., arXiv:2106.09685)."""

    rank: Annotated[int, Field(ge=1)] = 8
    """Rank of what is added to each matrix; of smaller matrices their own."""
    alpha: Annotated[float, Field(gt=0)] = 8.0
    """What is added counts ``alpha / rank``."""
    weights: Annotated[list[str], Field(min_length=1)] = ["*"]
    """Which matrices, by the names of weights with ``*`` and ``?``. A weight of more than two dimensions is a stack of
    matrices."""


class ReplaySection(Section):
    """Structures of other training sections, seen again beside the new ones."""

    share: Annotated[float, Field(gt=0, lt=1)] = 0.25
    """Part of each batch that is old: of its structures, or of its atoms where batches are by atoms. The rest goes
    through the new ones once an epoch."""
    sections: Annotated[list[Index], Field(min_length=1)] | None = None
    """The training sections that are old, counted from 0. Absent: all but the first."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """How much an old structure counts in the loss, a new one counting 1."""


class Finetune(Section):
    """Start from the best weights of another training."""

    model_config = ConfigDict(json_schema_extra=peer.allow_finetuning)

    read_from: str
    """Path of the checkpoint. Elements of the data that it lacks are taken in where the architecture can."""
    method: Literal["full", "heads", "encoder", "lora", "replay"] = "full"
    """``full``: take over everything and train everything; ``heads``: take over everything, train
    only the output heads; ``encoder``: take over all but the heads, which start anew; ``lora``: take over everything,
    train additions of low rank; ``replay``: ``full``, with old structures in each batch."""
    lora: LowRankSection | None = None
    """What ``method: lora`` adds."""
    replay: ReplaySection | None = None
    """See old structures again, with any method."""
    old_data: Dataset | None = None
    """Structures that are looked at only: errors on them, before and after, are in the log. Absent: the replayed
    ones."""
    keep_heads: bool | list[str] = False
    """Keep heads of the checkpoint that the data have no target for: all (``true``), or those of these targets. The
    exported model has them all; ``atomtrain export --head`` takes one."""
    inherit_heads: dict[str, str] = {}
    """For a new target the known target whose head it starts from."""
    freeze_epochs: Annotated[int, Field(ge=0)] = 0
    """Leave the encoder as it is during this many epochs."""
    encoder_learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Learning rate of the encoder. Absent: that of the heads."""

    @model_validator(mode="before")
    @classmethod
    def _ours(cls, data: Any) -> Any:
        return peer.finetuning(data)

    @model_validator(mode="after")
    def _complete(self) -> Finetune:
        if self.lora is not None and self.method != "lora":
            raise Problems.at(
                "lora", f"is there for method 'lora', and the method is '{self.method}'"
            )
        if self.method == "encoder" and self.keep_heads:
            raise Problems.at("keep_heads", "with method 'encoder' all heads start anew")
        if self.method == "lora" and self.lora is None:
            self.lora = LowRankSection()
        if self.method == "replay" and self.replay is None:
            self.replay = ReplaySection()
        return self


MaybeFinetune = Annotated[Finetune | None, BeforeValidator(peer.no_finetuning)]
"""metatrain's files carry an empty section where nothing is fine-tuned"""
