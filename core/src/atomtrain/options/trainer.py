"""The hypers of trainings: what all have, and what the core's engine has beside.

Architectures use the engine's as they are or with other defaults.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from atomtrain.errors import did_you_mean, nearest
from atomtrain.options import peer
from atomtrain.options.atomic_types import ByType
from atomtrain.options.finetune import Finetune, MaybeFinetune
from atomtrain.options.loss import KEYS, LOSSES, LossSpec
from atomtrain.sections import Problems, Section
from atomtrain.targets.layout import TargetInfo
from atomtrain.tasks import task_of

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
          "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}  # fmt: skip
_SIZE = r"\s*([0-9]+(?:\.[0-9]*)?)\s*([KMGTkmgt]?[iI]?[bB]|)\s*"

Located = tuple[tuple[str, ...], str]
"""a problem: the key it is at, and what it is"""
Scale = Annotated[float, Field(gt=0)]
_Atoms = Annotated[int, Field(ge=1)] | None
Bound = Annotated[
    _Atoms, BeforeValidator(peer.nothing, json_schema_input_type=_Atoms | Literal["None", "none"])
]


def _bytes(value: int | str) -> int:
    found = re.fullmatch(_SIZE, str(value))
    if isinstance(value, bool) or not found or found[2].upper() not in _UNITS:
        raise ValueError(f"expected bytes or a size such as '4 GB', got '{value}'")
    return int(float(found[1]) * _UNITS[found[2].upper()])


def _a_size(value: int | str) -> int | str:
    _bytes(value)
    return value


Size = Annotated[
    int | Annotated[str, Field(json_schema_extra={"pattern": f"^{_SIZE}$"})],
    AfterValidator(_a_size),
]


def _one_or_each(value: Any) -> str:
    """Whether a section is a loss itself or has one per target (no target is called like a key)."""
    if not isinstance(value, dict) or not value:
        return "LossSpec"
    # a number where a loss should be belongs to a key of one, with a slip in it
    odd = [key for key, given in value.items() if not isinstance(given, (str, dict, LossSpec))]
    own = not set(KEYS).isdisjoint(value) or any(nearest(key, KEYS) for key in odd)
    return "LossSpec" if own else "dict"


def _spoken_of(value: Any) -> Any:
    """A target's loss that is null is as good as none."""
    return {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value


_Target = Annotated[str, Field(json_schema_extra={"not": {"enum": [*KEYS]}})]
Losses = Annotated[
    Annotated[LossSpec, Tag("LossSpec")] | Annotated[dict[_Target, LossSpec], Tag("dict")],
    Discriminator(_one_or_each),
    BeforeValidator(_spoken_of),
]
"""one loss for all targets, or one for each"""


class BaseTrainerHypers(Section):
    """What every training has, whichever way it finds its weights (``architecture.training``).

    For trainings of one's own: a subclass adds what it has, and nothing else is accepted.
    """

    distributed: bool | None = None
    """Train with several processes (torchrun or Slurm tasks). Absent: if several were started."""
    distributed_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Port on which Slurm tasks find each other. Absent: one that follows from the number of the job."""
    distributed_timeout: Annotated[float, Field(ge=1)] = 1800.0
    """Seconds that processes wait for one that does not come to where they meet: then the training ends with an error
    that says which. One that gives no sign of life is waited for five minutes at most."""
    batch_size: Annotated[int, Field(ge=1)] = 8
    """Structures in a batch, shared out among the processes. A last batch of an epoch that would be smaller is left
    out of it."""
    max_atoms_per_batch: Annotated[int, Field(ge=1)] | None = None
    """Pack structures greedily into batches of up to this many atoms (``batch_size`` then does not
    count). Larger structures are not trained on; where all are gone through, they are batches of their own."""
    checkpoint_interval: Annotated[int, Field(ge=0)] = 25
    """Epochs, or other stages of a training, between checkpoints; 0 for none but the last."""
    atomic_baseline: dict[str, float | ByType[float]] | str = {}
    """The composition: what each atom contributes to a target whatever its surroundings. By target a
    number (0: none) or ``{type: number}``, types as numbers or symbols; types that are not named are
    fitted to the training set. Tensors have one only in their invariant parts. Or the path of a
    checkpoint to take all compositions from. It is subtracted in training and added in prediction."""
    scale_targets: bool = True
    """Whether targets are divided by the size of what the composition leaves: the root mean square,
    per atom for targets of structures (but see ``per_structure_targets``), by type of atom for
    targets of atoms. Where a target has several properties or blocks, the model's output for each
    is scaled to that one's own size as well."""
    fixed_scaling_weights: dict[str, Scale | ByType[Scale]] | str = {}
    """Scales of targets that are given instead of fitted, by target a number or, for targets of
    atoms, ``{type: number}``; types that are not named are fitted. Or the path of a checkpoint to
    take all scales from (then ``atomic_baseline`` is the path of one too, in general the same)."""
    per_structure_targets: list[str] = []
    """Targets of whole structures that enter loss, scale and errors as totals, not per atom."""
    num_workers: Annotated[int, Field(ge=0)] | None = None
    """Processes that make batches ahead of their use. Absent: a thread, unless all that could be computed ahead is
    kept. 0: nobody."""
    memory_budget: Size = "4 GB"
    """Memory for data: bytes, or text such as ``500 MB``. What is computed once (pair lists, descriptors) is kept
    between epochs as far as it fits; data sets on disk (``atomtrain convert``) that need more than half of it are read
    as batches need them."""
    log_mae: bool = False
    """Whether mean absolute errors are logged beside root mean square ones."""
    log_separate_blocks: bool = False
    """Whether errors of targets with several blocks (spherical tensors) are also logged block by
    block, ``dipole (l=1, s=1)``. The best model is chosen by those of whole targets all the same."""
    log_per_element: bool = False
    """Whether the final evaluation also gives errors of forces and of targets of atoms by element."""
    log_per_dataset: bool = False
    """Whether the final evaluation also gives errors by file of structures."""
    best_model_metric: Literal["rmse_prod", "mae_prod", "loss"] = "rmse_prod"
    """What the best model has the least of on the validation set: the product of the RMSEs of all
    targets and gradients, that of their MAEs, or the loss (the one to take with
    ``shift_agnostic_mse``). For classes the cross entropy stands for the error. Labels that are the
    same everywhere do not count."""
    loss: Losses = LossSpec()
    """The loss: one name or section for all targets and their gradients, or one for each target."""

    @model_validator(mode="after")
    def _agree(self) -> BaseTrainerHypers:
        fixed, baseline = self.fixed_scaling_weights, self.atomic_baseline
        if isinstance(fixed, str) and not isinstance(baseline, str):
            problem = (
                "is the path of a checkpoint: atomic_baseline must be one too (the same, in general), because "
                "scales are those of what a composition leaves"
            )
            raise Problems.at("fixed_scaling_weights", problem)
        return self

    @property
    def memory_budget_bytes(self) -> int:
        """``memory_budget`` as a number."""
        return _bytes(self.memory_budget)

    def named_checkpoints(self) -> dict[tuple[str, ...], str]:
        """The checkpoints a training begins with, by the keys that name them.

        They are opened before data are read. A subclass with a hyper that is the path of one adds it.
        """
        named: dict[tuple[str, ...], str] = {}
        if isinstance(self.atomic_baseline, str):
            named["atomic_baseline",] = self.atomic_baseline
        if isinstance(self.fixed_scaling_weights, str):
            named["fixed_scaling_weights",] = self.fixed_scaling_weights
        return named

    def loss_for(self, target: TargetInfo) -> LossSpec:
        """The loss of a target, with one for each gradient it has.

        One loss for all is that of the gradients too; under a loss per target they have ``mse``
        unless something else is said, as in metatrain.
        """
        task = task_of(target.kind)
        if isinstance(self.loss, LossSpec):
            spec = self.loss
            default = spec.model_copy(update={"gradients": {}})
            if spec.type in LOSSES and spec.type not in task.losses:  # meant for the others
                spec = LossSpec(type=task.losses[0], weight=spec.weight, reduction=spec.reduction)
        else:
            spec = self.loss.get(target.name) or LossSpec(type=task.losses[0])
            default = LossSpec()
            if "type" not in spec.model_fields_set:
                given = {name: getattr(spec, name) for name in spec.model_fields_set}
                spec = LossSpec.model_validate({**given, "type": task.losses[0]})
        gradients = {g: spec.gradients.get(g, default) for g in target.gradients}
        return spec.model_copy(update={"gradients": gradients})

    def check_targets(
        self, targets: Mapping[str, TargetInfo], extra_data: Collection[str]
    ) -> list[Located]:
        """Located problems where hypers do not suit the targets, or name some that do not exist.

        ``extra_data`` are the names of what the training sections have of it.
        """
        return list(self._misfits(targets, extra_data))

    def _misfits(
        self, targets: Mapping[str, TargetInfo], extra_data: Collection[str]
    ) -> Iterator[Located]:
        names = list(targets)
        for field in ("loss", "atomic_baseline", "fixed_scaling_weights"):
            value = getattr(self, field)
            for name in value if isinstance(value, dict) else ():
                if name not in names:
                    yield (field, name), f"there is no such target{did_you_mean(name, names)}"
        for name in self.per_structure_targets:
            if name not in names:
                hint = did_you_mean(name, names)
                yield ("per_structure_targets",), f"there is no target '{name}'{hint}"
        for target in targets.values():
            yield from self._check_affine(target)
            yield from self._check_loss(target, extra_data)

    def _check_loss(self, target: TargetInfo, extra_data: Collection[str]) -> Iterator[Located]:
        name, loss = target.name, self.loss_for(target)
        where = ("loss",) if isinstance(self.loss, LossSpec) else ("loss", name)
        if loss.type.startswith("masked_") and f"{name}_mask" not in extra_data:
            yield where, f"'{loss.type}' of '{name}' needs extra_data called '{name}_mask'"
        fitting = task_of(target.kind).losses
        if loss.type in LOSSES and loss.type not in fitting:
            there = f"there {'is' if len(fitting) == 1 else 'are'}: {', '.join(fitting)}"
            yield (
                where,
                f"'{loss.type}' makes no sense for a target of type '{target.kind}'; {there}",
            )
            return
        if loss.type == "shift_agnostic_mse" and (not target.is_scalar or target.width < 5):
            grid = "scalars on a grid of at least 5 points (say how many: num_subtargets)"
            yield where, f"shift_agnostic_mse is for {grid}, which '{name}' is not"
        for key, gradient in loss.gradients.items():
            if gradient.type == "shift_agnostic_mse":
                yield (*where, key), "is for values on a grid, not for gradients"

    def _check_affine(self, target: TargetInfo) -> Iterator[Located]:
        """What is wrong with the given composition and scale of a target."""
        name = target.name
        if isinstance(self.atomic_baseline, dict) and target.blocks:
            given = self.atomic_baseline.get(name, 0.0)
            if task_of(target.kind).scaled is False and name in self.atomic_baseline:
                problem = f"a target of type '{target.kind}' has no composition"
                yield ("atomic_baseline", name), problem
                return
            if target.pooled and isinstance(given, dict):
                problem = (
                    f"a {target.pooling} over atoms has one constant for all types: give a number"
                )
                yield ("atomic_baseline", name), problem
                return
            some = any(given.values()) if isinstance(given, dict) else given != 0.0
            if some and not any(block.invariant for block in target.blocks):
                problem = "changes under rotations: there is nothing of atoms alone to take off"
                yield ("atomic_baseline", name), problem
        if isinstance(self.fixed_scaling_weights, dict):
            weights = self.fixed_scaling_weights.get(name)
            if isinstance(weights, dict) and (not target.per_atom or target.zero_mean):
                what = "of atoms with remove_mean" if target.per_atom else "of structures"
                problem = f"a target {what} has one scale for all types: give a number"
                yield ("fixed_scaling_weights", name), problem


class TrainerHypers(BaseTrainerHypers):
    """How the core's engine trains: epochs of steps along gradients."""

    num_epochs: Annotated[int, Field(ge=0)] = 100
    """How often every structure is seen."""
    warmup_fraction: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Part of all steps in which the learning rate rises from 0."""
    accumulate: Annotated[int, Field(ge=1)] = 1
    """Batches that make one step of the optimiser. ``batch_size: 32`` with ``accumulate: 2`` trains as ``batch_size:
    64`` does, up to rounding, in half the memory; where batches have unequal numbers of labels, each still counts
    alike. Batches at the end of an epoch that do not make a step are left out of it."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Learning rate after the warmup."""
    optimizer: Literal["adam", "adamw", "muon"] = "adam"
    """Which optimiser. ``muon``: matrices by their orthogonalised momentum, all else by AdamW, in
    steps of the same size; often half the error of Adam after the same number of epochs."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Weight decay of the optimiser."""
    scheduler: Literal["cosine", "constant"] | dict[str, dict[str, Any]] = "cosine"
    """How the learning rate goes on after the warmup: down to 0 on a cosine, as it is, or by one of
    torch's schedulers, stepped every epoch, with its arguments: ``{StepLR: {step_size: 30}}``."""
    grad_clip_norm: Annotated[float, Field(gt=0)] | None = None
    """Clip the norm of all gradients together to this. Absent: no clipping."""
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Validate and export an exponential moving average of the weights with this decay (0.999, for
    instance). Absent: the weights themselves."""
    early_stopping_patience: Annotated[int, Field(ge=1)] | None = None
    """Stop after this many epochs without a better model, which takes a validation set. Absent: never."""
    batch_atom_bounds: Annotated[
        list[Bound], Field(json_schema_extra={"minItems": 2, "maxItems": 2})
    ] = [None, None]
    """Least and most atoms of a training batch of ``batch_size`` structures, each a number or
    ``null``; batches outside are skipped. ``max_atoms_per_batch`` wastes fewer structures."""
    min_atoms_per_batch: Annotated[int, Field(ge=0)] = 0
    """Packed training batches of fewer atoms are skipped (with ``max_atoms_per_batch`` only)."""
    log_interval: Annotated[int, Field(ge=1)] = 5
    """Epochs between lines of the log."""
    finetune: MaybeFinetune = None
    """Start from another training's weights."""

    @field_validator("batch_atom_bounds")
    @classmethod
    def _two_bounds(cls, value: list[int | None]) -> list[int | None]:
        if len(value) != 2:
            raise ValueError("expected two bounds, [minimum, maximum], each a number or null")
        low, high = value
        if low is not None and high is not None and low > high:
            raise ValueError(f"the minimum {low} is larger than the maximum {high}")
        return value

    @field_validator("scheduler")
    @classmethod
    def _one_scheduler(cls, value: Any) -> Any:
        if isinstance(value, dict):
            if len(value) != 1:
                raise ValueError("expected one scheduler with its arguments")
            from atomtrain.schedules import check_scheduler  # torch

            check_scheduler(*next(iter(value.items())))
        return value

    @model_validator(mode="before")
    @classmethod
    def _of_today(cls, data: Any) -> Any:
        for old, today in peer.OLDER_HYPERS.items():
            if isinstance(data, dict) and old in data:
                raise Problems.at(old, f"is called '{today}' today")
        return data

    @model_validator(mode="after")
    def _batches_agree(self) -> TrainerHypers:
        largest = self.max_atoms_per_batch
        self._check_replay()
        if largest is not None and self.batch_atom_bounds != [None, None]:
            problem = "is the older way to say max_atoms_per_batch, min_atoms_per_batch: keep one"
            raise Problems.at("batch_atom_bounds", problem)
        if largest is not None and self.min_atoms_per_batch > largest:
            problem = f"must be at most max_atoms_per_batch ({largest})"
            raise Problems.at("min_atoms_per_batch", problem)
        return self

    def _check_replay(self) -> None:
        """A part of each batch must be old, and a part new."""
        replay = None if self.finetune is None else self.finetune.replay
        if replay is None:
            return
        if self.batch_atom_bounds != [None, None] or self.min_atoms_per_batch:
            problem = "batches with bounds cannot be replayed into: use max_atoms_per_batch alone"
            raise Problems.at(("finetune", "replay"), problem)
        n, size = round(replay.share * self.batch_size), self.batch_size
        if self.max_atoms_per_batch is None and not 0 < n < size:
            problem = (
                f"is {n} of the {size} structures of a batch, and both old and new ones must be in it: give it another "
                "share, or batch_size more structures"
            )
            raise Problems.at(("finetune", "replay", "share"), problem)

    def named_checkpoints(self) -> dict[tuple[str, ...], str]:
        """See :meth:`BaseTrainerHypers.named_checkpoints`."""
        named = super().named_checkpoints()
        if self.finetune is not None:
            named["finetune", "read_from"] = self.finetune.read_from
        return named


def finetuning(hypers: BaseTrainerHypers) -> Finetune | None:
    """The weights a training begins with; None for one from scratch, and where a trainer knows no such thing."""
    return hypers.finetune if isinstance(hypers, TrainerHypers) else None
