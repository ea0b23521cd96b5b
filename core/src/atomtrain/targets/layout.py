"""What a target looks like: its kind, its blocks, its unit. Plain data, no tensors.

A *target* is one named quantity. Its *layout* is a list of blocks (one for scalars and cartesian
tensors, one per irrep for spherical ones), each of shape ``[n_samples, *components, n_properties]``
where a sample is an atom or a structure. A model predicts blocks; labels are stored as one flat row
per sample, the blocks flattened and concatenated in order (``width`` numbers).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from atomtrain.errors import TargetError

SampleKind = Literal["system", "atom"]
Layout = Literal["scalar", "cartesian", "spherical"]
LAYOUTS = ("scalar", "cartesian", "spherical")
GRADIENT_NAMES = {"forces": "forces", "strain": "stress"}
"""what people call the gradients of an energy, by the name their labels have here"""
GRADIENTS = tuple(GRADIENT_NAMES)


def uncertainty_name(target: str) -> str:
    """The output with a target's standard deviation: ``energy_uncertainty`` and its variants, as metatomic has them."""
    base, _, variant = target.partition("/")
    if base == "energy":
        return "energy_uncertainty" + (f"/{variant}" if variant else "")
    return f"mtt::aux::{target.split('::')[-1]}_uncertainty"


def ensemble_name(target: str) -> str:
    """The output with a target as each member of an ensemble has it: ``energy_ensemble`` and its variants."""
    return uncertainty_name(target).replace("_uncertainty", "_ensemble")


def forces_uncertainty_name(target: str) -> str:
    """What the standard deviation of an energy's forces is called."""
    return uncertainty_name(target).replace("_uncertainty", "_forces_uncertainty")


def hessian_name(target: str) -> str:
    """The output with the second derivatives of an energy: ``atomtrain::energy_hessian`` and its variants."""
    base, _, variant = target.partition("/")
    return f"atomtrain::{base.split('::')[-1]}_hessian" + (f"/{variant}" if variant else "")


def last_layer_names(targets: Iterable[str], taken: Collection[str] = ()) -> dict[str, str]:
    """Names of the outputs with what targets' last layers take, by target; none is among those ``taken``.

    The ``domain::`` of a target is dropped, but where two targets would then be alike.
    """
    short = {name: name.split("::")[-1] for name in targets}
    times = Counter(short.values())

    def called(name: str) -> str:
        output = f"mtt::aux::{short[name]}_last_layer_features"
        if times[short[name]] == 1 and output not in taken:
            return output
        return f"mtt::aux::{name.replace('::', '_')}_last_layer_features"

    return {name: called(name) for name in short}


def split_key(key: str) -> tuple[str, str]:
    """Target and gradient (or "") of a label's key: ``energy:forces``, but also ``mtt::dipole``."""
    for gradient in GRADIENTS:
        name = key.removesuffix(f":{gradient}")
        if name != key and not name.endswith(":"):  # "mtt::forces" is a target
            return name, gradient
    return key, ""


@dataclass(frozen=True)
class Block:
    """One block of a target.

    ``key`` are the metatensor key names and values (``{"_": 0}``, or ``o3_lambda`` and ``o3_sigma``),
    ``components`` the names and sizes of the component axes (``(("xyz", 3),)``),
    ``n_properties`` the size of the last axis.
    """

    key: tuple[tuple[str, int], ...]
    components: tuple[tuple[str, int], ...]
    n_properties: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample: ``(*components, n_properties)``."""
        return (*(size for _, size in self.components), self.n_properties)

    @property
    def width(self) -> int:
        """Numbers per sample."""
        return math.prod(self.shape)

    @property
    def title(self) -> str:
        """Its key for people: ``l=1, s=1``; empty where a target has just this one."""
        short = {"o3_lambda": "l", "o3_sigma": "s", "_": ""}
        return ", ".join(f"{short.get(n, n)}={v}" for n, v in self.key if short.get(n, n))

    @property
    def name(self) -> tuple[int, ...]:
        """``(o3_lambda, o3_sigma)``; empty where a target has just this one."""
        return tuple(value for name, value in self.key if name != "_")

    @property
    def invariant(self) -> bool:
        """Whether rotations and inversion leave it unchanged (only then has it a composition)."""
        return not self.components or dict(self.key) == {"o3_lambda": 0, "o3_sigma": 1}


@dataclass(frozen=True)
class Irrep:
    """``num`` copies of the spherical tensor of degree ``o3_lambda`` and parity sign ``o3_sigma``."""

    o3_lambda: int
    o3_sigma: int
    num: int = 1


@dataclass(frozen=True)
class TargetInfo:
    """Everything the rest of the code needs to know of a target.

    ``kind`` is the word of the options file (``scalar``, ``classes``, ...) and ``layout`` what its
    numbers are (a :data:`Layout`; the kind itself for those three, else scalars unless a task says
    so), ``per_atom`` tells the sample kind, ``gradients`` which of :data:`GRADIENTS` are trained,
    ``unit`` any unit expression metatomic understands, empty if not given. ``classes`` are the names
    of a classification, ``pooling`` says how atoms make up a structure, ``head`` holds the options of
    a head of the core (empty: the architecture's own where it has one).
    """

    name: str
    kind: str = "scalar"
    quantity: str = ""
    unit: str = ""
    per_atom: bool = False
    num_subtargets: int = 1
    rank: int = 0
    irreps: tuple[Irrep, ...] = ()
    gradients: tuple[str, ...] = ()
    description: str = ""
    extra: dict[str, Any] = field(default_factory=dict)
    layout: str = ""
    classes: tuple[str, ...] = ()
    pooling: str = "sum"
    head: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.layout:
            plain = self.kind if self.kind in LAYOUTS else "scalar"
            object.__setattr__(self, "layout", plain)
        if self.num_subtargets < 1:
            raise TargetError(f"target '{self.name}': num_subtargets must be at least 1")
        if self.zero_mean and not self.per_atom:
            raise TargetError(
                f"target '{self.name}': remove_mean is for targets of atoms (sample_kind: atom)"
            )
        if self.gradients and not self.is_energy:
            raise TargetError(
                f"target '{self.name}': forces, stress and virial exist only for a target that is "
                "an energy (quantity: energy, one scalar per system)"
            )

    @property
    def plain(self) -> bool:
        """Whether its numbers mean what its layout says, and no task makes something else of them."""
        return self.kind == self.layout

    @property
    def is_scalar(self) -> bool:
        """Whether it is a plain number, or several."""
        return self.plain and self.layout == "scalar"

    @property
    def is_energy(self) -> bool:
        """One scalar per structure whose quantity is an energy."""
        return (
            self.quantity == "energy"
            and self.is_scalar
            and not self.per_atom
            and self.num_subtargets == 1
            and self.pooling == "sum"
        )

    @property
    def pooled(self) -> bool:
        """Whether the model gives one row per structure rather than contributions of atoms.

        So it is for means and maxima, and for classes, whose probabilities are no sums.
        """
        return not self.per_atom and (self.pooling != "sum" or not self.plain)

    @property
    def zero_mean(self) -> bool:
        """Whether the mean over each structure is taken off what is predicted for its atoms."""
        return bool(self.extra.get("remove_mean", False))

    @property
    def per_volume(self) -> bool:
        """Whether the target is a sum over atoms divided by the structure's volume.

        So is metatomic's ``non_conservative_stress``: a model predicts contributions of atoms to
        volume times stress, which is what its labels are trained as.
        """
        standard = self.name.split("/")[0] == "non_conservative_stress"
        tensor = self.plain and self.layout == "cartesian" and self.rank == 2
        return standard and tensor and not self.per_atom

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The blocks, in order."""
        if self.layout == "spherical":
            return tuple(
                Block(
                    (("o3_lambda", i.o3_lambda), ("o3_sigma", i.o3_sigma)),
                    (("o3_mu", 2 * i.o3_lambda + 1),),
                    i.num,
                )
                for i in self.irreps
            )
        if self.layout == "cartesian":
            names = ("xyz",) if self.rank == 1 else tuple(f"xyz_{k + 1}" for k in range(self.rank))
            return (Block((("_", 0),), tuple((n, 3) for n in names), self.num_subtargets),)
        return (Block((("_", 0),), (), self.num_subtargets),)

    @property
    def width(self) -> int:
        """Numbers per sample over all blocks."""
        return sum(block.width for block in self.blocks)

    @property
    def parts(self) -> list[tuple[Block, slice, slice]]:
        """The blocks, where each is in a flat row, and where among the properties of all blocks."""
        found = []
        column = prop = 0
        for block in self.blocks:
            columns = slice(column, column + block.width)
            properties = slice(prop, prop + block.n_properties)
            found.append((block, columns, properties))
            column, prop = columns.stop, properties.stop
        return found

    def error_per(self, gradient: str = "", totals: Collection[str] = ()) -> str:
        """What errors of its values, or of a gradient, are divided by: ``atom``, ``volume`` or nothing.

        Nothing for those of ``totals``, which otherwise count per atom. It is so wherever errors are
        summed and shown.
        """
        if gradient == "strain" or self.per_volume:
            return "volume"
        whole = gradient or self.per_atom or self.pooled or self.name in totals
        return "" if whole else "atom"

    @property
    def label_rows(self) -> dict[str, tuple[bool, int]]:
        """By label key, values first: whether its rows are atoms, and how wide they are."""
        gradients = {"forces": (True, 3), "strain": (False, 9)}
        found = {f"{self.name}:{name}": gradients[name] for name in self.gradients}
        return {self.name: (self.per_atom, self.width), **found}

    @property
    def property_name(self) -> str:
        """Name of the last axis in exported TensorMaps (metatomic's rule for its own outputs)."""
        if self.quantity == "energy":
            return "energy"
        if self.classes:
            return "class"
        return self.name.split("::")[-1].split("/")[0].replace("-", "_")

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a checkpoint (numbers, strings, lists, dicts only)."""
        return {
            **vars(self),
            "irreps": [[i.o3_lambda, i.o3_sigma, i.num] for i in self.irreps],
            "gradients": list(self.gradients),
            "extra": dict(self.extra),
            "classes": list(self.classes),
            "head": dict(self.head),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> TargetInfo:
        """Inverse of :meth:`to_dict`."""
        return cls(
            **{
                **data,
                "irreps": tuple(Irrep(*i) for i in data["irreps"]),
                "gradients": tuple(data["gradients"]),
                "classes": tuple(data.get("classes", ())),  # absent in early files
            }
        )


@dataclass(frozen=True)
class DatasetInfo:
    """What a model is built for: length unit, sorted atomic numbers, targets by name."""

    length_unit: str
    atomic_types: tuple[int, ...]
    targets: dict[str, TargetInfo]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        return {
            "length_unit": self.length_unit,
            "atomic_types": list(self.atomic_types),
            "targets": {name: info.to_dict() for name, info in self.targets.items()},
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> DatasetInfo:
        """Inverse of :meth:`to_dict`."""
        return cls(
            length_unit=data["length_unit"],
            atomic_types=tuple(data["atomic_types"]),
            targets={k: TargetInfo.from_dict(v) for k, v in data["targets"].items()},
        )
