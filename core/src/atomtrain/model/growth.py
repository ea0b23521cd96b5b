"""New elements for a trained model: where its weights go in one that was built for more elements."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from atomtrain.errors import DataError

if TYPE_CHECKING:
    from atomtrain.data import Batch


def _no_batches() -> Iterator[Batch]:
    return iter(())


@dataclass(frozen=True)
class Growth:
    """From the elements ``before`` to the elements ``after``, all of those and more; both sorted numbers.

    ``batches()`` is an iterator of training structures with new elements, as of
    :meth:`atomtrain.model.Model.calibrate` but without labels.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]
    batches: Callable[[], Iterator[Batch]] = _no_batches

    @cached_property
    def places(self) -> Tensor:
        """``[n_before]`` int64: the index of each old element among the new ones. They ascend."""
        return torch.tensor([self.after.index(number) for number in self.before])

    @cached_property
    def added(self) -> list[int]:
        """The indices of the elements that are new."""
        return [k for k, number in enumerate(self.after) if number not in self.before]

    @torch.no_grad()
    def take_over(
        self,
        grown: nn.Module,
        trained: nn.Module,
        axes: Mapping[tuple[int, int], Tensor] | None = None,
    ) -> None:
        """Copy parameters and buffers of ``trained`` into the same module built for the elements ``after``.

        Where a tensor is longer in ``grown``, the axis must be one of elements, ``element * n + k`` for any ``n``,
        or of pairs of elements, ``(first * n_elements + second) * n + k``. Axes of another kind are in ``axes``, by
        their lengths in ``trained`` and ``grown``: the place of each old entry, int64. Entries that have to do with
        new elements stay as they are. Raises DataError for a tensor that does not fit.
        """
        own = grown.state_dict()
        for name, value in trained.state_dict().items():
            mine = own.get(name)
            if mine is None or mine.dim() != value.dim():
                raise DataError(f"'{name}' is another tensor in a model for more elements")
            if mine.shape == value.shape:
                mine.copy_(value)
            if mine.shape == value.shape or value.numel() == 0:
                continue
            places = [
                self._places(name, *lengths, axes or {})
                for lengths in zip(value.shape, mine.shape, strict=True)
            ]
            mine[torch.meshgrid(*places, indexing="ij")] = value.to(mine.dtype)

    def _places(
        self, name: str, old: int, new: int, axes: Mapping[tuple[int, int], Tensor]
    ) -> Tensor:
        """Where the entries of an axis go, ``[old]``."""
        if old == new:
            return torch.arange(old)
        if (old, new) in axes:
            return axes[old, new]
        few, many = len(self.before), len(self.after)
        pairs = (self.places.unsqueeze(1) * many + self.places).flatten()
        for rows, n_old, n_new in ((self.places, few, many), (pairs, few**2, many**2)):
            n = old // n_old
            if n * n_old == old and n * n_new == new:
                return (rows.unsqueeze(1) * n + torch.arange(n)).flatten()
        raise DataError(
            f"'{name}' has an axis of length {old} for {few} elements and of length {new} for {many}, which is "
            "neither one of elements nor one of pairs of them"
        )
