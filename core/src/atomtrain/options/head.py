"""The ``head`` of a target: the small network the core puts on an architecture's features."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from atomtrain.sections import Section


class HeadSection(Section):
    """A head on the features of the architecture: embedding, blocks, output.

    Kinds an architecture does not fit itself, such as classes, always have one; a target that has a
    head of the architecture gets this one instead where a ``head`` is given. It makes scalars;
    vectors and tensors need an architecture that predicts them.
    """

    hidden_dim: Annotated[int, Field(ge=1)] = 128
    """Width of the hidden layers."""
    num_hidden: Annotated[int, Field(ge=0)] = 1
    """Blocks between the embedding and the output, each one layer."""
    activation: Literal["silu", "relu", "gelu", "tanh", "identity"] = "silu"
    """Nonlinearity after the embedding and in each block; the output has none."""
    norm: Literal["none", "layer", "batch"] = "none"
    """Normalisation in front of the layer of each block."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Part of the hidden values that is left out at random in training."""
    residual: bool = True
    """Whether the input of each block is added to its output."""
    bias: bool = True
    """Whether layers have a bias."""
