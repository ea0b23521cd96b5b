"""Fine-tuning by additions of low rank: few numbers are trained, and what is known is left beside them.

E. J. Hu et al., arXiv:2106.09685. A matrix ``W [m, n]`` becomes ``W0 + alpha / rank U V`` with ``U [m, rank]`` and
``V [rank, n]``. The model never hears of it: its weight is the sum at all times, and ``dL/dU``, ``dL/dV`` follow from
``dL/dW``. So derivatives that are written out by hand, the export and checkpoints see ordinary weights, and any
architecture will do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from atomtrain.errors import OptionsError
from atomtrain.options import LowRankSection

WHERE = "architecture.training.finetune.lora"


@dataclass
class _Addition:
    """What is trained of one weight: factors, and entries that are free (those of new elements)."""

    weight: Parameter
    base: Tensor
    factors: tuple[Parameter, Parameter] | None
    new: Tensor | None
    free: Parameter | None

    def trained(self) -> list[Parameter]:
        return [p for p in (*(self.factors or ()), self.free) if p is not None]

    def pull(self, scale: float) -> None:
        """From the gradient of the weight to those of what is trained."""
        gradient = self.weight.grad
        self.weight.grad = None
        if gradient is None:
            return
        if self.new is not None and self.free is not None:
            self.free.grad = gradient[self.new]
            gradient = gradient.masked_fill(self.new, 0.0)
        if self.factors is not None:
            up, down = self.factors
            up.grad = scale * (gradient @ down.mT)
            down.grad = scale * (up.mT @ gradient)

    def merge(self, scale: float) -> None:
        value = self.base
        if self.factors is not None:
            up, down = self.factors
            added = scale * (up @ down)
            value = torch.where(added == 0.0, value, value + added)  # else -0 would become 0
        if self.new is not None and self.free is not None:
            value = value.clone()
            value[self.new] = self.base[self.new] + self.free
        self.weight.copy_(value)


class LowRank:
    """Additions to the weights of a model, which are trained in their place.

    ``groups`` are those of an optimiser with the model's own parameters; :attr:`groups` are the same with what is
    trained instead. Of ``new`` entries (by name of a parameter a mask as large as it), which no training has seen, all
    are trained: heads that start anew, weights of new elements. ``U`` starts as zero, so that the model begins as
    it was; ``V`` by the ``seed``, with entries as large as those of ``W``.

    Raises OptionsError where no weight is meant, or none has such a rank.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: list[dict[str, Any]],
        options: LowRankSection,
        new: Mapping[str, Tensor],
        seed: int,
    ) -> None:
        self.scale = options.alpha / options.rank
        names = {id(p): name for name, p in model.named_parameters()}
        given = {names[id(p)]: p for group in groups for p in group["params"]}
        whole = {name for name in given if name in new and bool(new[name].all())}
        chosen = _chosen({n: p for n, p in given.items() if n not in whole}, options)
        self._additions: dict[str, _Addition] = {}
        generator = torch.Generator().manual_seed(seed)
        self.groups: list[dict[str, Any]] = []
        for group in groups:
            trained: list[Tensor] = []
            for parameter in group["params"]:
                name = names[id(parameter)]
                if name in whole:
                    trained.append(parameter)
                    continue
                mask = new.get(name)
                if name not in chosen and mask is None:
                    parameter.requires_grad_(False)
                    continue
                rank = min(options.rank, *parameter.shape[-2:]) if name in chosen else 0
                one = _begun(parameter, rank, mask, generator)
                self._additions[name] = one
                trained += one.trained()
            if trained:
                self.groups.append({**group, "params": trained})
        self.weights: list[Tensor] = [one.weight for one in self._additions.values()]
        """what the loss is differentiated in, in place of what is trained"""

    def pull(self) -> None:
        """Give what is trained its gradients, by those of the weights, which are used up."""
        for one in self._additions.values():
            one.pull(self.scale)

    @torch.no_grad()
    def merge(self) -> None:
        """Put the sums into the model's weights."""
        for one in self._additions.values():
            one.merge(self.scale)

    def shown(
        self, inner: Callable[[], AbstractContextManager[None]]
    ) -> Callable[[], AbstractContextManager[None]]:
        """A context in which the weights are made of what is trained as ``inner`` shows it."""

        @contextmanager
        def around() -> Iterator[None]:
            try:
                with inner():
                    self.merge()
                    yield
            finally:
                self.merge()

        return around

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """The weights it began with and what is trained, by name."""
        return {
            name: {
                "base": one.base,
                **{f"trained.{k}": p.detach() for k, p in enumerate(one.trained())},
            }
            for name, one in self._additions.items()
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Go on from :meth:`state_dict`. Raises ValueError where other weights, or another rank, were trained."""
        own = self.state_dict()
        for name in {*own, *state}:
            ours, theirs = (
                {k: tuple(v.shape) for k, v in one.get(name, {}).items()} for one in (own, state)
            )
            if ours != theirs:
                raise ValueError(
                    f"what was added to '{name}' is not what finetune.lora asks for now (rank, weights)"
                )
            for key, value in own[name].items():
                value.copy_(state[name][key])
        self.merge()


def _begun(
    parameter: Parameter, rank: int, mask: Tensor | None, generator: torch.Generator
) -> _Addition:
    base = parameter.detach().clone()
    factors = None
    if rank:
        *stack, m, n = base.shape
        size = float(base.square().mean().sqrt()) or 1.0 / math.sqrt(n)
        drawn = size * torch.randn([*stack, rank, n], generator=generator, dtype=torch.float64)
        factors = Parameter(base.new_zeros([*stack, m, rank])), Parameter(drawn.to(base))
    if mask is None or not bool(mask.any()):
        return _Addition(parameter, base, factors, None, None)
    free = Parameter(base.new_zeros(int(mask.sum())))
    return _Addition(parameter, base, factors, mask.to(base.device), free)


def _chosen(parameters: Mapping[str, Parameter], options: LowRankSection) -> set[str]:
    """The names of the matrices that the options mean."""
    matrices = {n: p for n, p in parameters.items() if p.dim() >= 2 and p.numel()}
    if not matrices:
        raise OptionsError(
            f"{WHERE}: none of the weights that were trained before is a matrix, so nothing of low rank can be added; "
            "take another finetune.method"
        )
    shown = ", ".join(list(matrices)[:8]) + (", ..." if len(matrices) > 8 else "")
    for pattern in options.weights:
        if not any(fnmatchcase(name, pattern) for name in matrices):
            raise OptionsError(
                f"{WHERE}.weights: '{pattern}' is the name of no matrix of the model (it has {shown})"
            )
    chosen = {n for n in matrices if any(fnmatchcase(n, p) for p in options.weights)}
    largest = max(min(matrices[n].shape[-2:]) for n in chosen)
    if options.rank > largest:
        raise OptionsError(
            f"{WHERE}.rank: {options.rank} is more than any of the matrices has ({largest}); choose a smaller one"
        )
    return chosen
