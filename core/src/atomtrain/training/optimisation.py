"""Optimiser, learning rate and averaged weights."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from atomtrain.options import TrainerHypers


def build_optimizer(groups: list[dict[str, Any]], hypers: TrainerHypers) -> torch.optim.Optimizer:
    """Adam or AdamW, fused: one kernel for all parameters, and repeatable; or Muon."""
    if hypers.optimizer == "muon":
        return Muon(groups, lr=hypers.learning_rate, weight_decay=hypers.weight_decay)
    kind = torch.optim.AdamW if hypers.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=hypers.learning_rate, weight_decay=hypers.weight_decay, fused=True)


def settings_of(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """What options say of each group: not the rate, which follows from the step, nor a count of steps."""
    chosen = set(optimizer.defaults) - {"lr", "step"}
    return [{k: v for k, v in group.items() if k in chosen} for group in optimizer.param_groups]


def learning_rate_factor(
    step: int, total_steps: int, warmup_fraction: float, scheduler: str
) -> float:
    """Factor on the learning rate at ``step``: linear warmup, then cosine to zero or none.

    A pure function of the step, so that restarts need no state.
    """
    warmup = int(warmup_fraction * total_steps)
    if step < warmup:
        return step / warmup
    if scheduler != "cosine":
        return 1.0
    progress = (step - warmup) / max(1, total_steps - warmup)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))


class Muon(torch.optim.Optimizer):
    """Matrices go along their orthogonalised momentum, all other parameters are left to AdamW.

    A gradient's few large singular values would have a step all to themselves; orthogonalised, all
    directions of a matrix are learnt at one rate (K. Jordan et al., 2024,
    https://kellerjordan.github.io/posts/muon; steps as large as Adam's: arXiv:2502.16982). A parameter
    ``[..., m, n]`` is a stack of matrices, each on its own; one with m = 1 or n = 1 is none.

    Groups are as of any optimiser of torch's; each is split in two that share all it says.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        lr: float,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        split = [
            {**group, "params": chosen, "matrices": matrices}
            for group in groups
            for matrices in (True, False)
            if (chosen := [p for p in group["params"] if is_matrix(p) == matrices])
        ]
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "betas": betas,
            "eps": eps,
            "step": 0,
        }
        super().__init__(split, defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step; parameters without a gradient stay as they are."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            group["step"] += 1
            gradients: list[Tensor] = [p.grad for p in parameters]
            if group["weight_decay"]:
                torch._foreach_mul_(parameters, 1.0 - group["lr"] * group["weight_decay"])
            if group["matrices"]:
                self._step_matrices(group, parameters, gradients)
            else:
                self._step_others(group, parameters, gradients)

    def _step_matrices(
        self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor]
    ) -> None:
        momenta = self._state("momentum", parameters)
        torch._foreach_lerp_(momenta, gradients, 1.0 - group["momentum"])
        ahead = torch._foreach_lerp(gradients, momenta, group["momentum"])  # Nesterov's
        alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for k, p in enumerate(parameters):
            alike[tuple(sorted(p.shape[-2:]))].append(k)
        for (m, n), chosen in alike.items():  # one call for all matrices of a shape
            stacks = [_wide(ahead[k]).reshape(-1, m, n) for k in chosen]
            steps = orthogonalised(torch.cat(stacks)).split([len(stack) for stack in stacks])
            for k, step in zip(chosen, steps, strict=True):
                wide = _wide(parameters[k])
                size = self.step_size(*parameters[k].shape[-2:])
                wide.sub_(step.reshape(wide.shape), alpha=group["lr"] * size)

    def step_size(self, m: int, n: int) -> float:
        """The singular values of a step of a matrix ``[m, n]``, for a learning rate of 1: as large as Adam's steps."""
        return 0.2 * math.sqrt(max(m, n))

    def _step_others(
        self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor]
    ) -> None:
        first, second = group["betas"]
        means, squares = self._state("mean", parameters), self._state("square", parameters)
        torch._foreach_lerp_(means, gradients, 1.0 - first)
        torch._foreach_mul_(squares, second)
        torch._foreach_addcmul_(squares, gradients, gradients, 1.0 - second)
        deviations = torch._foreach_sqrt(squares)
        torch._foreach_div_(deviations, math.sqrt(1.0 - second ** group["step"]))
        torch._foreach_add_(deviations, group["eps"])
        rate = group["lr"] / (1.0 - first ** group["step"])
        torch._foreach_addcdiv_(parameters, means, deviations, -rate)

    def _state(self, name: str, parameters: list[Tensor]) -> list[Tensor]:
        """One tensor of the state for each parameter, zero at first."""
        for p in parameters:
            if name not in self.state[p]:
                self.state[p][name] = torch.zeros_like(p)
        return [self.state[p][name] for p in parameters]


def is_matrix(parameter: Tensor) -> bool:
    """Whether Muon takes it for a matrix or a stack of matrices."""
    return parameter.dim() >= 2 and min(parameter.shape[-2:]) > 1


def _wide(stack: Tensor) -> Tensor:
    """Matrices ``[..., m, n]`` as they are, or transposed where they are higher than wide (a view)."""
    return stack.mT if stack.shape[-2] > stack.shape[-1] else stack


def orthogonalised(stack: Tensor) -> Tensor:
    """Matrices ``[n, a, b]``, a <= b, with all singular values brought near 1 (0.7 to 1.2).

    Five steps of a Newton-Schulz iteration, whose quintic polynomial is as of Jordan et al.
    """
    x = stack / (torch.linalg.matrix_norm(stack, keepdim=True) + 1e-12)
    for _ in range(5):
        gram = torch.bmm(x, x.mT)
        mixed = torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315)
        x = torch.baddbmm(x, mixed, x, beta=3.4445)
    return x


class AveragedWeights:
    """Exponential moving average of the parameters: ``average = decay average + (1 - decay) w``."""

    def __init__(self, parameters: Iterable[Tensor], decay: float) -> None:
        self.parameters = list(parameters)
        self.decay = decay
        self.average = [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the current weights."""
        torch._foreach_lerp_(self.average, self.parameters, 1.0 - self.decay)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """The model has the averages while the block runs."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for p, average in zip(self.parameters, self.average, strict=True):
            current = p.clone()
            p.copy_(average)
            average.copy_(current)

    def state_dict(self) -> list[Tensor]:
        """The averages."""
        return self.average

    def load_state_dict(self, state: list[Tensor]) -> None:
        """Go on from :meth:`state_dict`."""
        for mine, saved in zip(self.average, state, strict=True):
            mine.copy_(saved)
