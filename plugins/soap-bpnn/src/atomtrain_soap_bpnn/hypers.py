"""The hypers of SOAP-BPNN; the docstrings are their documentation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from atomtrain.options import Section


class Cutoff(Section):
    """Where a neighbourhood ends."""

    radius: Annotated[float, Field(gt=0)] = 5.0
    """Radius of the neighbourhood, in the data's length unit."""
    width: Annotated[float, Field(gt=0)] = 0.5
    """Over this length before the radius neighbours fade out (shifted cosine)."""

    @model_validator(mode="after")
    def _width_fits(self) -> Cutoff:
        if self.width > self.radius:
            raise ValueError("the cutoff's width cannot be larger than its radius")
        return self


class Soap(Section):
    """The expansion of a neighbourhood."""

    max_angular: Annotated[int, Field(ge=0, le=12)] = 6
    """Largest degree of the spherical harmonics (included)."""
    max_radial: Annotated[int, Field(ge=0, le=30)] = 7
    """Largest radial index at degree 0 (included); higher degrees have fewer radial functions, up
    to the same eigenvalue of the Laplacian."""
    cutoff: Cutoff = Cutoff()
    """Where the neighbourhood ends."""


class Bpnn(Section):
    """The networks behind the features."""

    num_hidden_layers: Annotated[int, Field(ge=0)] = 2
    """Hidden layers of each network."""
    num_neurons_per_layer: Annotated[int, Field(ge=1)] = 32
    """Neurons in each hidden layer."""
    layernorm: bool = True
    """Whether the features are normalised before the network."""


class LongRange(Section):
    """Long-range interactions through learnt charges, needs ``atomtrain-soap-bpnn[long-range]``."""

    enable: bool = False
    """Whether to use them."""
    use_ewald: bool = False
    """Whether periodic structures are summed by Ewald instead of P3M, in training and in the exported
    model alike. Ewald is quicker for small cells, its time grows with the square of their size."""
    smearing: Annotated[float, Field(gt=0)] = 1.4
    """Width of the smeared charges, in the data's length unit."""
    kspace_resolution: Annotated[float, Field(gt=0)] = 1.33
    """In the data's length unit: the mesh of P3M is at least twice as fine; Ewald keeps the waves that
    are longer than twice this."""
    interpolation_nodes: Annotated[int, Field(ge=1, le=5)] = 5
    """Nodes of the mesh along each axis over which P3M spreads a charge."""


class ModelHypers(Section):
    """What the model is."""

    soap: Soap = Soap()
    """The expansion of a neighbourhood."""
    legacy: bool = True
    """Whether elements are kept apart (one density and one network per element). If false, elements
    are mixed into 4 learnt pseudo-elements and share one network."""
    bpnn: Bpnn = Bpnn()
    """The networks."""
    add_lambda_basis: bool = True
    """For tensor targets: whether to add a contraction of the density of the same degree."""
    heads: dict[str, Literal["linear", "mlp"]] = {}
    """Head of each target: ``linear`` (default) or ``mlp`` (one more hidden layer, scalars only)."""
    zbl: bool = False
    """Whether to add the screened repulsion of nuclei at short distances (ZBL, as LAMMPS's pair_style
    zbl from 0 to the sum of the covalent radii) and learn what is left. It is added to every target
    that is an energy in eV; without any, or with lengths not in angstrom, it is refused."""
    long_range: LongRange = LongRange()
    """Long-range interactions."""
    extra_inputs: list[Literal["charge", "spin_multiplicity"]] = []
    """What is known of structures beside their atoms, from ``extra_data`` of these names: total ``charge``
    and ``spin_multiplicity`` (1 for a singlet). The networks see them beside the features; an exported model
    asks engines for them."""

    @model_validator(mode="after")
    def _inputs_are_seen(self) -> ModelHypers:
        if self.extra_inputs and self.bpnn.num_hidden_layers == 0:
            raise ValueError("extra_inputs needs a hidden layer (bpnn.num_hidden_layers from 1)")
        if len(set(self.extra_inputs)) < len(self.extra_inputs):
            raise ValueError("extra_inputs has the same input twice")
        return self
