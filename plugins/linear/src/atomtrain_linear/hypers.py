"""The hypers of the linear potential; the docstrings are their documentation."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from atomtrain import options
from atomtrain.options import LossSpec, Section

if TYPE_CHECKING:
    from atomtrain.targets import TargetInfo

FITTED = ("mse", "masked_mse")
"""losses that have a solution in closed form"""


class ModelHypers(Section):
    """What the model is."""

    cutoff: Annotated[float, Field(gt=0)] = 5.0
    """Radius of the neighbourhood, in the data's length unit."""
    num_radial: Annotated[int, Field(ge=1, le=32)] = 6
    """Radial functions for each element of the neighbours."""
    max_degree: Annotated[int, Field(ge=1, le=6)] = 3
    """Largest degree of the spherical harmonics (included)."""
    num_pairs: Annotated[int, Field(ge=1)] = 80
    """Products of two channels, for each degree and element of the atom."""
    num_products: Annotated[int, Field(ge=1)] = 120
    """Products of three channels, and as many of four, for each degree and element of the atom."""
    smoothness: Annotated[float, Field(ge=0)] = 0.4
    """How much less, as the logarithm of a ratio, each radial function counts than the one before, which
    oscillates less. The larger, the smoother the energy is between the structures of the training set and
    beyond; 0: all count alike."""
    uncertainty: bool = True
    """Whether the model knows the covariance of its coefficients and gives ``energy_uncertainty``. It is large: half
    a gigabyte for 10,000 of them in single precision. Without it files are small."""
    zbl: bool = False
    """Whether to add the screened repulsion of nuclei at short distances (ZBL, as LAMMPS's pair_style
    zbl from 0 to the sum of the covalent radii) and learn what is left. Without an energy in eV, or with
    lengths not in angstrom, it is refused."""


class TrainerHypers(options.BaseTrainerHypers):
    """How it is fitted: least squares of all labels at once, weighted by ``loss``."""

    ridge: Annotated[float, Field(gt=0)] | Literal["validation", "evidence"] = "validation"
    """Penalty on the squares of the coefficients, in units of the loss. ``validation``: that of several with the
    smallest errors on the validation set; ``evidence``: that with which the training set alone is most likely,
    also taken where there is no validation set."""
    loss: options.trainer.Losses = LossSpec(
        weight=30.0, gradients={"forces": LossSpec(), "strain": LossSpec()}
    )
    """The weights of energies, forces and stress, as the ``weight`` of each one's ``mse``: what is minimised is the
    sum of the means of all squares times these, over the whole training set."""
    batch_size: Annotated[int, Field(ge=1)] = 16
    """Structures whose rows are made at a time: a matter of memory and time alone."""
    checkpoint_interval: Annotated[int, Field(ge=0)] = 0
    """Ridges between checkpoints; 0 for none but the last. They hold the sums over all structures."""

    def check_targets(
        self, targets: Mapping[str, TargetInfo], extra_data: Collection[str]
    ) -> list[tuple[tuple[str, ...], str]]:
        """With losses that are no squares, which have no solution in closed form."""
        found = super().check_targets(targets, extra_data)
        for target in targets.values():
            loss = self.loss_for(target)
            for spec in (loss, *loss.gradients.values()):
                if spec.type not in FITTED or spec.reduction != "mean":
                    said = f"{spec.type}, reduction {spec.reduction}"
                    found.append(
                        (("loss",), f"least squares are of means of squares (mse), not '{said}'")
                    )
        return found
