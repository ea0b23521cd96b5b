"""The hypers of MACE, by the names that ``mace_run_train`` has for them; the docstrings are their documentation."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from atomtrain import options
from atomtrain.options import LossSpec, Section
from atomtrain.options.trainer import Losses

_IRREPS = re.compile(r"(\d+)x(\d+)([eo])")


def parse_irreps(text: str) -> list[tuple[int, int, str]]:
    """Multiplicity, degree and parity of each part of ``128x0e + 128x1o``; ValueError for anything else."""
    parts = [_IRREPS.fullmatch(part.strip()) for part in text.split("+")]
    if not all(parts):
        raise ValueError(f"'{text}' are no irreps: expected a text such as 128x0e + 128x1o")
    return [(int(p[1]), int(p[2]), p[3]) for p in parts if p]


def _irreps(text: str) -> str:
    return " + ".join(f"{n}x{degree}{parity}" for n, degree, parity in parse_irreps(text))


Irreps = Annotated[str, AfterValidator(_irreps)]
Interaction = Literal[
    "RealAgnosticResidualInteractionBlock",
    "RealAgnosticInteractionBlock",
    "RealAgnosticAttResidualInteractionBlock",
    "RealAgnosticDensityInteractionBlock",
    "RealAgnosticDensityResidualInteractionBlock",
    "RealAgnosticResidualNonLinearInteractionBlock",
]


class ModelHypers(Section):
    """What the model is."""

    r_max: Annotated[float, Field(gt=0)] = 5.0
    """Radius of the neighbourhood in each layer, in the data's length unit."""
    radial_type: Literal["bessel", "gaussian", "chebyshev"] = "bessel"
    """Radial functions."""
    num_radial_basis: Annotated[int, Field(ge=1)] = 8
    """Number of radial functions."""
    num_cutoff_basis: Annotated[int, Field(ge=2)] = 5
    """The power p of the polynomial that takes everything to zero at ``r_max``."""
    distance_transform: Literal["None", "Agnesi", "Soft"] = "None"
    """A change of the distance before the radial functions, by the covalent radii of both elements."""
    radial_MLP: list[Annotated[int, Field(ge=1)]] = [64, 64, 64]
    """Widths of the hidden layers of the networks that make weights of radial functions."""
    apply_cutoff: bool = True
    """Whether the cutoff multiplies the radial functions; ``false``: the weights made of them."""
    pair_repulsion: bool = False
    """Whether to add MACE's repulsion of nuclei at short distances (ZBL) and learn what is left. For energies
    in eV and lengths in angstrom."""
    max_ell: Annotated[int, Field(ge=0, le=11)] = 3
    """Largest degree of the spherical harmonics."""
    interaction: Interaction = "RealAgnosticResidualInteractionBlock"
    """The block that makes messages, in all layers but the first."""
    interaction_first: Interaction = "RealAgnosticResidualInteractionBlock"
    """The block of the first layer."""
    num_interactions: Annotated[int, Field(ge=1)] = 2
    """Layers."""
    correlation: Annotated[int, Field(ge=1, le=4)] = 3
    """How many neighbours a product looks at together."""
    hidden_irreps: Irreps = "128x0e + 128x1o"
    """Features of an atom between layers: number, degree and parity, as many of each."""
    num_channels: Annotated[int, Field(ge=1)] | None = None
    """With ``max_L`` another way to write ``hidden_irreps``: so many of each degree up to ``max_L``."""
    max_L: Annotated[int, Field(ge=0)] | None = None
    """See ``num_channels``."""
    edge_irreps: Irreps | None = None
    """Features of neighbours that enter messages. Absent: all of them."""
    use_edge_irreps_first: bool = False
    """Whether ``edge_irreps`` hold in the first layer as well."""
    keep_last_layer_irreps: bool = False
    """Whether the last layer has features that turn with the structure too: vectors and tensors are then made of
    all layers, instead of all but the last."""
    use_reduced_cg: bool = False
    """Whether coupling coefficients that depend on others are left out. What mace-torch 0.3.16 makes of it is the
    same without cuequivariance."""
    use_so3: bool = False
    """Whether parity is ignored in the spherical harmonics."""
    use_agnostic_product: bool = False
    """Whether the weights of products are the same for all elements."""
    use_last_readout_only: bool = False
    """Whether energies are read from the last layer alone."""
    MLP_irreps: Annotated[str, Field(pattern=r"^\d+x0e$")] = "16x0e"
    """Hidden neurons of the last layer's readout of energies."""
    gate: Literal["silu", "tanh", "abs", "None"] = "silu"
    """Their activation."""
    avg_num_neighbors: Annotated[float, Field(gt=0)] | None = None
    """What sums over neighbours are divided by. Absent: their mean number in the training set."""

    @model_validator(mode="before")
    @classmethod
    def _by_channels(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        n, largest = data.get("num_channels"), data.get("max_L")
        if n is None and largest is None:
            return data
        if "hidden_irreps" in data:
            raise ValueError(
                "num_channels and max_L are another way to write hidden_irreps: keep one"
            )
        if not isinstance(n, int) or not isinstance(largest, int):
            raise ValueError("num_channels and max_L belong together: give both, as numbers")
        parts = [f"{n}x{degree}{'eo'[degree % 2]}" for degree in range(largest + 1)]
        rest = {k: v for k, v in data.items() if k not in ("num_channels", "max_L")}
        return {**rest, "hidden_irreps": " + ".join(parts)}

    @model_validator(mode="after")
    def _fits(self) -> ModelHypers:
        parts = parse_irreps(self.hidden_irreps)
        if len({n for n, _, _ in parts}) > 1:
            raise ValueError(
                f"hidden_irreps '{self.hidden_irreps}' must have as many of each degree"
            )
        if parts[0][1:] != (0, "e"):
            raise ValueError(
                f"hidden_irreps '{self.hidden_irreps}' must begin with scalars: 128x0e + ..."
            )
        if max(degree for _, degree, _ in parts) > self.max_ell:
            raise ValueError("hidden_irreps has degrees above max_ell")
        if self.use_edge_irreps_first and self.edge_irreps is None:
            raise ValueError("use_edge_irreps_first needs edge_irreps")
        return self


class TrainerHypers(options.TrainerHypers):
    """How it is trained: by the core's engine, with the optimiser and the weights that MACE is trained with."""

    batch_size: Annotated[int, Field(ge=1)] = 10
    """Structures in a batch, shared out among the processes."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-2
    """Learning rate after the warmup."""
    amsgrad: bool = True
    """Whether Adam and AdamW divide by the largest size that gradients have had."""
    weight_decay: Annotated[float, Field(ge=0)] = 5e-7
    """Weight decay of the products' weights and of the messages' last linear layers."""
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = 0.99
    """Validate and export an exponential moving average of the weights with this decay. ``null``: the
    weights themselves."""
    grad_clip_norm: Annotated[float, Field(gt=0)] | None = 10.0
    """Clip the norm of all gradients together to this. ``null``: no clipping."""
    scale_targets: bool = False
    """Whether the loss divides targets by their size. Not by default: with energies in eV, weights of the loss,
    clipping and weight decay are what they are in mace-torch, and the model has MACE's scale inside. Do so where
    targets are of other units or far from 1."""
    loss: Losses = LossSpec(gradients={"forces": LossSpec(weight=100.0)})
    """The loss: one name or section for all targets and their gradients, or one for each target. By default
    forces count a hundred times."""
