"""The hypers of ACE; the docstrings are their documentation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from atomtrain import options
from atomtrain.options import Section


class ModelHypers(Section):
    """What the model is."""

    cutoff: Annotated[float, Field(gt=0)] = 5.0
    """Radius of the neighbourhood, in the data's length unit."""
    num_radial: Annotated[int, Field(ge=1, le=32)] = 8
    """Radial functions for each element of the neighbours."""
    max_degree: Annotated[int, Field(ge=1, le=6)] = 3
    """Largest degree of the spherical harmonics (included)."""
    num_channels: Annotated[int, Field(ge=1)] = 32
    """Learnt combinations of these functions, by degree and element, that are multiplied with one another."""
    correlation: Annotated[int, Field(ge=2, le=4)] = 4
    """How many neighbours a product looks at together, beside the atom itself."""
    num_neurons: Annotated[int, Field(ge=1)] = 64
    """Neurons of the readout, which has a linear part beside them."""
    num_layers: Literal[1, 2] = 1
    """Layers. In the second, atoms get what their neighbours within the cutoff saw in the first: a quarter less
    error after the same epochs, at two and a half times the time of a step."""
    num_messages: Annotated[int, Field(ge=1)] = 4
    """Numbers, and tensors of each degree, that an atom sends to its neighbours between two layers."""
    zbl: bool = False
    """Whether to add the screened repulsion of nuclei at short distances (ZBL, as LAMMPS's pair_style
    zbl from 0 to the sum of the covalent radii) and learn what is left. It is added to every target
    that is an energy in eV; without any, or with lengths not in angstrom, it is refused."""
    extra_inputs: list[Literal["charge", "spin_multiplicity"]] = []
    """What is known of structures beside their atoms, from ``extra_data`` of these names: total ``charge``
    and ``spin_multiplicity`` (1 for a singlet). The network sees them beside the products; an exported model
    asks engines for them."""

    @model_validator(mode="after")
    def _inputs_are_named_once(self) -> ModelHypers:
        if len(set(self.extra_inputs)) < len(self.extra_inputs):
            raise ValueError("extra_inputs has the same input twice")
        return self


class TrainerHypers(options.TrainerHypers):
    """How it is trained: the core's hypers, with the defaults that this architecture is quickest with."""

    optimizer: Literal["adam", "adamw", "muon"] = "muon"
    """Which optimiser. ``muon``: matrices by their orthogonalised momentum, all else by AdamW."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-2
    """Learning rate after the warmup."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.03
    """Weights shrink by this part of the learning rate in every step, beside it: small sets are overfitted less."""
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = 0.99
    """Validate and export an exponential moving average of the weights with this decay. ``null``: the
    weights themselves."""
    grad_clip_norm: Annotated[float, Field(gt=0)] | None = 10.0
    """Clip the norm of all gradients together to this. ``null``: no clipping."""
