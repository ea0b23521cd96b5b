"""What a plugin declares about its architecture. Plain data: imports neither torch nor pydantic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from pydantic import BaseModel

Stage = Literal["experimental", "stable", "deprecated"]
Purpose = Literal["train", "restart", "finetune", "export"]


@dataclass(frozen=True)
class Person:
    """An author or maintainer, with a way to reach them."""

    name: str
    email: str = ""
    handle: str = ""

    def __str__(self) -> str:
        known = (self.name, self.email and f"<{self.email}>", self.handle and f"@{self.handle}")
        return " ".join(filter(None, known))


@dataclass(frozen=True)
class Deprecation:
    """Since which version an architecture is deprecated, until when it stays, what replaces it.

    Goes with the stage ``deprecated``, and only with it.
    """

    since: str
    until: str
    instead: str


@dataclass(frozen=True)
class ArchitectureInfo:
    """The identity card of an architecture.

    ``model_hypers`` and ``trainer_hypers`` are callables that import and return the pydantic
    classes (so that describing an architecture costs nothing); the trainer's class is
    :class:`atomtrain.options.TrainerHypers` unless another is named, a subclass of it.
    ``devices`` and ``dtypes`` are in order of preference. ``target_kinds`` are the words of the
    options file the architecture can fit, ``default_kind`` the one an untyped target gets.
    ``references`` has the keys ``implementation`` and ``architecture``.
    """

    name: str
    summary: str
    model_hypers: Callable[[], type[BaseModel]]
    trainer_hypers: Callable[[], type[BaseModel]] | None = None
    stage: Stage = "experimental"
    description: str = ""
    aliases: tuple[str, ...] = ()
    authors: tuple[Person, ...] = ()
    maintainers: tuple[Person, ...] = ()
    references: dict[str, tuple[str, ...]] = field(default_factory=dict)
    devices: tuple[str, ...] = ("cuda", "cpu")
    dtypes: tuple[str, ...] = ("float32", "float64")
    target_kinds: tuple[str, ...] = ("scalar",)
    default_kind: str = "scalar"
    model_version: int = 1
    trainer_version: int = 1
    deprecation: Deprecation | None = None


@dataclass(frozen=True)
class BuildContext:
    """Why a model is built, and from what.

    ``trainer_hypers`` is the validated training section (None on export), ``checkpoint`` the
    upgraded checkpoint being loaded (plain dict, see :mod:`atomtrain.training.checkpoint`) or None.
    ``restore`` builds the model of another checkpoint, for architectures that have one inside:
    :func:`atomtrain.training.backbone.open_backbone` calls it, which gets an
    :class:`atomtrain.plugins.restore.Restored`. ``open`` reads a checkpoint by its path, once however
    often it is asked for; None where a model is built outside of a training.
    """

    purpose: Purpose = "train"
    trainer_hypers: Any = None
    checkpoint: dict[str, Any] | None = None
    restore: Callable[[dict[str, Any], Purpose], Any] | None = None
    open: Callable[[str], dict[str, Any]] | None = None
