"""The ``type`` of a target: one word, or one word with its arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from atomtrain.errors import did_you_mean
from atomtrain.options.atomic_types import AtomicType, by_number
from atomtrain.sections import Problems, Section, shown, translate
from atomtrain.targets.layout import Irrep
from atomtrain.tasks import CORE_KINDS, IN_EXTRAS, find_task, known_kinds

Counts = Mapping[tuple[int, ...], int]
"""Number of properties of each block that a file has, by ``(o3_lambda, o3_sigma)``, or by ``()``."""


class CartesianSection(Section):
    """A cartesian tensor: 3, 3 x 3, ... components."""

    rank: Annotated[int, Field(ge=1, le=2)]
    """Number of axes: 1 for vectors, 2 for matrices."""
    remove_mean: bool = False
    """Whether the mean over each structure is taken off what is predicted for its atoms, so that
    forces without a gradient leave no net force."""


class IrrepSection(Section):
    """Spherical tensors of one degree and parity."""

    o3_lambda: Annotated[int, Field(ge=0)]
    """Degree: 0 scalars, 1 vectors, and so on; there are ``2 o3_lambda + 1`` components."""
    o3_sigma: Literal[1, -1]
    """1 for proper tensors (a vector changes sign under inversion), -1 for pseudotensors."""
    num: Annotated[int, Field(ge=1)] | None = None
    """How many of them (multiplied by ``num_subtargets``). Absent: as many as the file has where its
    format tells (``.mts``, ``.zip``), else 1."""


Irreps = Annotated[list[IrrepSection], Field(min_length=1)]
IrrepsByType = Annotated[
    dict[AtomicType, list[IrrepSection]], Field(min_length=1), BeforeValidator(by_number)
]


class SphericalSection(Section):
    """A list of irreducible spherical tensors."""

    irreps: Irreps | IrrepsByType
    """The irreducible tensors; also ``{type: list}``, with a list for every type of atom."""
    product: Literal["coupled"] | None = None
    """``coupled``: the target is the product of the irreps with themselves (as in the blocks of a
    density matrix), coupled to irreducible tensors. ``cartesian``, the uncoupled product, is
    refused. Absent: the target is the irreps themselves."""

    @field_validator("product", mode="before")
    @classmethod
    def _irreducible(cls, value: Any) -> Any:
        if value == "cartesian":
            raise ValueError(
                "uncoupled products are not supported: they are not irreducible; "
                "'coupled' describes the same numbers as irreducible tensors"
            )
        return value

    def layout(self, num_subtargets: int | None, counts: Counts) -> tuple[Irrep, ...]:
        """The irreps of the target, products carried out. Empty for irreps per type of atom.

        ``counts`` tells how many there are of those of which nothing is said; of a product all or none.
        """
        if isinstance(self.irreps, dict):
            return ()
        base = tuple(
            Irrep(i.o3_lambda, i.o3_sigma, (i.num or 1) * (num_subtargets or 1))
            for i in self.irreps
        )
        open_ = [num_subtargets is None and i.num is None for i in self.irreps]
        if self.product == "coupled":
            base = couple(base)
            open_ = [all(open_)] * len(base)
        return tuple(
            replace(i, num=counts.get((i.o3_lambda, i.o3_sigma), i.num)) if free else i
            for i, free in zip(base, open_, strict=True)
        )


class TypeSection(Section):
    """``scalar``, ``cartesian: {rank: 1}``, ``spherical: {...}``, or the word of another task."""

    model_config = ConfigDict(extra="allow")

    scalar: dict[str, Any] | None = None
    """One number, or ``num_subtargets`` of them."""
    cartesian: CartesianSection | None = None
    """A vector or matrix in x, y, z."""
    spherical: SphericalSection | None = None
    """Irreducible spherical tensors."""

    @property
    def kind(self) -> str:
        """The word."""
        return next(name for name, value in self._all().items() if value is not None)

    @property
    def args(self) -> dict[str, Any]:
        """What a task, or the core, has to know of the type beyond the layout."""
        if self.cartesian is not None:
            return {"remove_mean": True} if self.cartesian.remove_mean else {}
        return dict((self.model_extra or {}).get(self.kind) or {})

    def _all(self) -> dict[str, Any]:
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return {**fields, **(self.model_extra or {})}

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, data: Any) -> Any:
        if isinstance(data, str):
            data = {data: {}}
        if not isinstance(data, dict):
            return data
        if len(data) != 1:
            raise ValueError(f"expected one kind of target, got {', '.join(map(str, data))}")
        ((kind, args),) = data.items()
        # packages are asked only for what the core does not know: that imports their modules
        known = list(CORE_KINDS) if kind in CORE_KINDS else known_kinds()
        if kind not in known:
            hint = did_you_mean(kind, known, "there are")
            if kind in IN_EXTRAS:
                hint = f"; it needs a package: pip install 'atomtrain[{IN_EXTRAS[kind]}]'"
            raise ValueError(f"unknown kind of target {shown(kind)}{hint}")
        args = {} if args is None else args
        if kind not in cls.model_fields:
            if not isinstance(args, dict):
                raise Problems.at(kind, f"expected a section, got {shown(args)}")
            task = find_task(kind)
            assert task is not None
            try:
                task.arguments.model_validate(args)
            except ValidationError as error:
                found = translate(error, task.arguments)
                raise Problems(*(((kind, *path), text) for path, text in found)) from None
        return {kind: args}

    @model_serializer
    def _short(self) -> Any:
        value = self._all()[self.kind]
        args = value.model_dump(exclude_none=True) if isinstance(value, Section) else value
        return {self.kind: args} if args else self.kind


def couple(irreps: tuple[Irrep, ...]) -> tuple[Irrep, ...]:
    """Irreps of all products of ``irreps`` with themselves, in order of first appearance.

    A product of degrees l1, l2 has the degrees ``|l1 - l2|`` to ``l1 + l2``, with sigma
    ``sigma1 sigma2 (-1)^(l1 + l2 + l)``. Parts with sigma -1 are left out: they vanish, because the
    product of a basis with itself on one center is symmetric.
    """
    counts: dict[tuple[int, int], int] = {}
    for a in irreps:
        for b in irreps:
            for degree in range(abs(a.o3_lambda - b.o3_lambda), a.o3_lambda + b.o3_lambda + 1):
                odd = (a.o3_lambda + b.o3_lambda + degree) % 2
                sigma = a.o3_sigma * b.o3_sigma * (-1 if odd else 1)
                if sigma == 1:
                    counts[degree, sigma] = counts.get((degree, sigma), 0) + a.num * b.num
    return tuple(Irrep(degree, sigma, num) for (degree, sigma), num in counts.items())
