"""The base class of all tasks, and of those that packages bring.

Here and in the other modules of this room torch is imported inside functions: options know tasks, and an options
file is read without torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from atomtrain.sections import Section
from atomtrain.targets import TargetInfo

if TYPE_CHECKING:
    from torch import Tensor, nn

    from atomtrain.frame import Frame
    from atomtrain.losses import Loss


class NoArguments(Section):
    """Arguments of kinds of targets that have none."""


class Task:
    """One kind of target, the word after ``type:``.

    Everything has a default that suits a regression; a task of a package overrides what differs::

        class Ordinal(Task):
            kind = "ordinal"
            ...

    and is registered by ``register_tasks`` with ``load`` returning the class.

    Attributes
    ----------
    kind: the word of the options file.
    arguments: pydantic class of what may follow the word.
    pooling: how values of atoms become one of a structure unless the options say otherwise.
    scaled: whether labels have a composition and a scale that are fitted, as regressions do.
    losses: the core's losses that make sense, the first being the default; ``("task",)`` where
        :meth:`loss` gives one of its own.
    shown: metrics for the lines of the log, in order.
    measure: the metric that stands for an error where the best model is chosen; small is good.
    classification: whether it tells the target's ``classes`` apart.
    """

    kind: str = ""
    arguments: type[Section] = NoArguments
    pooling: str = "sum"
    scaled: bool = False
    losses: tuple[str, ...] = ("mse", "mae", "huber", "masked_mse", "masked_mae", "masked_huber")
    shown: tuple[str, ...] = ("rmse",)
    measure: str = "rmse"
    classification: bool = False

    def complete(self, info: TargetInfo) -> TargetInfo:
        """Fill in what follows from the arguments (``info.extra``): sizes, names, layout.

        Raises TargetError for what cannot be.
        """
        return info

    # -- labels --------------------------------------------------------------------------------

    def computes_labels(self, info: TargetInfo, given: bool) -> bool:
        """Whether labels follow from structures. ``given``: the options say where to read them."""
        return False

    def classes_in(self, values: Iterable[Any]) -> tuple[str, ...]:
        """The names of the classes in ``values`` of the training set, where none were given."""
        return ()

    def row(self, value: Any, info: TargetInfo, structure: Frame) -> np.ndarray:
        """The label of one structure, ``[1 or n_atoms, info.width]`` float64.

        ``value`` is what the file has (None where the task computes its labels). Raises ValueError
        that says what is wrong with it.
        """
        rows = len(structure.numbers) if info.per_atom else 1
        array = np.asarray(value, dtype=np.float64)
        if array.size != rows * info.width:
            raise ValueError(f"it has shape {array.shape}, expected {rows} x {info.width}")
        return array.reshape(rows, info.width)

    def describe_labels(self, values: Tensor, mask: Tensor | None, info: TargetInfo) -> str:
        """The labels of a set in words, for the log; empty where there is nothing to say.

        ``values`` and ``mask [n_samples, width]``.
        """
        there = values if mask is None else values[mask]
        spread = float(there.std()) if there.numel() > 1 else 0.0
        unit = f" {info.unit}" if info.unit else ""
        return f"mean {float(there.mean()):.6g}, standard deviation {spread:.4g}{unit}"

    # -- training ------------------------------------------------------------------------------

    def input_noise(self, info: TargetInfo) -> float:
        """Standard deviation of noise in the positions the model sees, for which the noise is the label; 0: none.

        Labels are the noise over its standard deviation; :meth:`fixed_scale` gives them their size.
        """
        return 0.0

    def fixed_scale(self, info: TargetInfo) -> float:
        """What the model's output, and noise that is the label, is multiplied by if ``scaled`` is False."""
        return 1.0

    def loss(self, name: str, arguments: dict[str, Any], info: TargetInfo, label: Any) -> Loss:
        """The loss called ``name``, for outputs of the model before :meth:`finish`.

        ``label`` is the :class:`~atomtrain.data.Label` of the training set, to weight classes by.
        """
        from atomtrain.losses import core_loss

        return core_loss(name, arguments)

    def metric_size(self, info: TargetInfo) -> int:
        """How many sums :meth:`metric_sums` keeps; 0: RMSE and MAE of finished predictions."""
        return 0

    def metric_sums(
        self, prediction: Tensor, label: Tensor, mask: Tensor | None, info: TargetInfo
    ) -> Tensor:
        """Sums over the samples of a batch, ``[metric_size]`` float64: batches and processes add up.

        ``prediction`` and ``label [n_samples, width]`` are finished and in physical units.
        """
        raise NotImplementedError

    def metrics(self, sums: Tensor, info: TargetInfo) -> dict[str, float]:
        """The metrics of what was summed. ``count`` must be among them."""
        raise NotImplementedError

    def confusion(self, sums: Tensor, info: TargetInfo) -> np.ndarray | None:
        """The confusion matrix of a classification, ``[n_classes, n_classes]``: rows are labels.

        None for what is no classification.
        """
        return None

    def error_unit(self, info: TargetInfo, length: str) -> str:
        """Unit of the target's errors; ``length`` is that of lengths."""
        return info.unit

    def class_probabilities(self, values: Tensor, info: TargetInfo) -> Tensor | None:
        """Finished predictions, or labels, as probabilities ``[n_samples, n_classes]``.

        None for what is no classification, or one that has no such table.
        """
        return None

    # -- prediction ----------------------------------------------------------------------------

    def describe_output(self, info: TargetInfo) -> str:
        """What the exported model says of this output."""
        return info.description

    def written(self, values: np.ndarray, info: TargetInfo) -> dict[str, np.ndarray]:
        """What formats for people have beside predictions ``[n_samples, width]``, by name.

        Each leads with ``n_samples``. The numbers themselves are under the target's name, as in all formats,
        unless something is given under that name too.
        """
        return {}

    def finish(self, info: TargetInfo) -> nn.Module | None:
        """A scriptable module from the model's values to predictions, ``[n, width] -> [n, width]``.

        None where they are the same up to the scale.
        """
        return None
