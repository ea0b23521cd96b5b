"""The modules an architecture subclasses: one base class per level of ambition.

TorchScript cannot branch on types, so every level ends in the same ``forward``:
an :class:`~atomtrain.graph.AtomGraph` and the names of the wanted outputs go in, per-atom blocks
come out. Nothing here computes gradients, compositions or scales: the engine and the
:class:`~atomtrain.model.predictor.Predictor` do that around any model.

No ``from __future__ import annotations`` here: TorchScript reads the attribute annotations of the
classes it compiles and does not understand strings.
"""

from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Tuple

import torch
from torch import Tensor, nn

from atomtrain.errors import DataError, TargetError
from atomtrain.graph import AtomGraph
from atomtrain.model.growth import Growth
from atomtrain.model.shapes import check_energies, check_predictions, layouts
from atomtrain.targets import DatasetInfo


class InFloat64(nn.Module):
    """A module whose tensors follow the model's device but stay in float64.

    Physical energies are thousands of eV, of which float32 loses meV.
    """

    def _apply(self, fn, recurse: bool = True):  # type: ignore[no-untyped-def]
        def keep_precision(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(keep_precision, recurse)


class Baseline(InFloat64):
    """Physics a model brings along and that is not trained, such as a nuclear repulsion.

    A model that has one sets ``self.baseline`` in its ``__init__`` (and anew in ``retarget``). The
    core subtracts it from the labels, energies, forces and stress alike, before anything is fitted
    to them, and adds it to every prediction. It must not depend on weights.

    ``cutoff`` is the length of the longest pairs it needs, at most that of the model.
    """

    cutoff: float

    def forward(self, graph: AtomGraph, outputs: List[str]) -> Dict[str, Tensor]:
        """What to add to each of the ``outputs`` it knows, in the target's unit.

        ``[n_atoms]`` in float64, to be summed where the target belongs to structures.
        """
        raise NotImplementedError


@dataclass
class Constants:
    """What a model can compute of a batch once because no weight enters it.

    ``per_atom`` tensors lead with ``n_atoms``, ``per_pair`` ones with ``n_pairs``, so the core can
    store them structure by structure and hand any batch its part back in ``graph.extras``.

    ``per_structure`` tensors lead with ``n_structures`` and are for models of which nothing before a
    sum over atoms is trained (:meth:`Model.keeps_structures`). ``key`` says what computed them
    (another key where other weights were): results are looked up under it, in a run and, where asked
    for, on disk.
    """

    per_atom: Dict[str, Tensor] = field(default_factory=dict)
    per_pair: Dict[str, Tensor] = field(default_factory=dict)
    per_structure: Dict[str, Tensor] = field(default_factory=dict)
    key: str = ""


@dataclass(frozen=True)
class ExtraInput:
    """An input beside the atoms: ``[n_structures, width]``, or ``[n_atoms, width]`` if it is ``per_atom``.

    ``unit`` is what the model wants it in, where it has one. ``examples`` are values it may have, at least two, for
    checks; the first is also what a structure gets of which nothing is known. Raises ValueError for fewer.
    """

    per_atom: bool = False
    unit: str = ""
    width: int = 1
    examples: Tuple[float, ...] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if len(set(self.examples)) < 2 or self.width < 1:
            raise ValueError("an ExtraInput needs two examples that differ, and a width from 1")


class Model(nn.Module):
    """Level 2: a module that predicts its targets itself.

    Attributes
    ----------
    cutoff: radius of the pair list the model wants, in the length unit of the data set.
    interaction_range: distance beyond which atoms cannot influence each other (``inf`` for
        long-ranged models); what the exported model reports.
    baseline: physics that is not trained (a :class:`Baseline`), or None.
    """

    cutoff: float
    interaction_range: float

    def __init__(self) -> None:
        super().__init__()
        # annotated here and not in the class, where TorchScript would read it
        self.baseline: Optional[Baseline] = None
        self._layouts: Any = None

    def __call__(self, graph: AtomGraph, outputs: List[str]) -> Dict[str, List[Tensor]]:
        """:meth:`forward`, and whether what it returns has the shapes of the targets (PluginError if not).

        TorchScript compiles ``forward`` alone.
        """
        predictions: Dict[str, List[Tensor]] = super().__call__(graph, outputs)
        if self._layouts is not None:
            check_predictions(self, graph, outputs, predictions, self._layouts)
        return predictions

    @torch.jit.ignore
    def expect(self, dataset_info: DatasetInfo) -> None:
        """From now on ``forward`` has to return the blocks of these targets."""
        self._layouts = layouts(self, dataset_info)

    def forward(self, graph: AtomGraph, outputs: List[str]) -> Dict[str, List[Tensor]]:
        """Predict the wanted ``outputs``.

        Returns for each name the blocks of its layout, in order, each
        ``[n_atoms, *components, n_properties]``: per-structure targets are sums of these.
        """
        raise NotImplementedError

    @torch.jit.ignore
    def feature_outputs(self) -> Dict[str, int]:
        """Outputs that are no targets, and their widths: ``feature`` and the like.

        ``forward`` gives ``[n_atoms, width]`` for each when asked; the exported model offers them
        per atom and, as sums, per structure.
        """
        return {}

    @torch.jit.ignore
    def structure_outputs(self) -> Dict[str, int]:
        """Like :meth:`feature_outputs`, for what belongs to structures and not to atoms.

        ``forward`` gives ``[n_structures, width]`` for each when asked. ``energy_uncertainty``
        (``mtt::aux::NAME_uncertainty`` of another target) is the standard deviation of the target, in its unit.
        """
        return {}

    @torch.jit.ignore
    def atom_outputs(self) -> Dict[str, str]:
        """Which of :meth:`structure_outputs` atoms have too, though a structure's is no sum over its atoms.

        By output the name under which ``forward`` gives it of atoms, ``[n_atoms, width]``; the exported model
        offers both under the name of the output.
        """
        return {}

    @torch.jit.ignore
    def extra_inputs(self) -> Dict[str, ExtraInput]:
        """What the model takes beside atoms, by name; ``forward`` finds it in ``graph.extras``.

        Names are metatomic's (``charge``, ``spin_multiplicity``: :data:`atomtrain.model.inputs.STANDARD`), or
        ``<domain>::<name>``. The core has them come with every batch, from ``extra_data`` of the options, and with
        every call of the exported model, from the engine; where one is missing, that is an error. Models inside
        others are asked as well.
        """
        return {}

    @torch.jit.ignore
    def last_layer_outputs(self) -> Dict[str, str]:
        """For each scalar that ends in a linear layer the output with what that layer takes of each atom.

        With this word a model says where it is linear in weights, and gets in return what needs no training
        (uncertainties, ensembles: the architecture ``llpr``). The outputs are among :meth:`feature_outputs`. A
        target's block is :meth:`last_layer_weights` times them, plus what depends on the atom's element alone.
        Where ``graph.extras`` have ``atomtrain.graph.DETACHED`` nobody differentiates them, and ``forward`` may
        give them without derivatives.
        """
        return {}

    @torch.jit.ignore
    def last_layer_weights(self, target: str) -> Tensor:
        """The weights ``[n_properties, width]`` of the last layer of one of :meth:`last_layer_outputs`."""
        raise NotImplementedError

    @torch.jit.ignore
    def last_layer_groups(self, target: str) -> int:
        """In how many equal groups the columns of that output fall, of which an atom fills its own alone.

        1, or the number of elements where each has weights of its own: one group after the other, in the order of
        atomic numbers. Products with columns that are zero need not be made.
        """
        return 1

    @torch.jit.ignore
    def constants(self, graph: AtomGraph) -> Constants:
        """What does not depend on weights; kept between epochs as far as memory allows.

        Where it is not enough for all, those that come first are kept. Must be all that ``forward``
        finds in ``graph.extras`` under the same names; ``forward`` computes what it does not find
        there, whichever that is.
        """
        return Constants()

    @torch.jit.ignore
    def layout(self, graph: AtomGraph) -> Dict[str, Tensor]:
        """What follows from the indices of a batch alone, for a GPU that would wait for it: how many, and where.

        Asked of batches on the CPU that go to another device, and found by ``forward`` in ``graph.extras``; names
        that begin with ``atomtrain.graph.HOST`` stay on the CPU. ``forward`` computes what it does not find.
        """
        return {}

    @torch.jit.ignore
    def keeps_structures(self) -> bool:
        """Whether ``constants`` are ``per_structure``.

        They must then be all that ``forward`` needs: no pair is kept, and batches come without atoms.
        """
        return False

    @torch.jit.ignore
    def is_head(self, parameter: str) -> bool:
        """Whether the parameter of this name belongs to a target rather than to the encoder.

        Fine-tuning may freeze the encoder or leave heads behind; override it where the modules
        that belong to targets are not called ``heads``, ``head`` or ``last_layers``.
        """
        return parameter.split(".")[0] in ("head", "heads", "last_layers")

    @torch.jit.ignore
    def calibrate(self, batches):  # type: ignore[no-untyped-def]
        """Called once, before a training from scratch: look at data and set what is not trained.

        For numbers such as a mean count of neighbours, or the size of features. Keep them in buffers,
        which checkpoints have: later starts (restart, fine-tuning) find them there. ``batches`` is an
        iterator of :class:`atomtrain.data.Batch` in float64, a few thousand atoms of the training set
        drawn by the seed, with labels as the network is to give them; what is not taken is never made.
        """

    @torch.jit.ignore
    def before_export(self) -> None:
        """Called on the copy that is exported, before it is compiled.

        To be overridden where something can be computed once and for all now that weights are final.
        """

    @torch.jit.ignore
    def keep_second_derivatives(self) -> None:
        """Called on the copy that is exported, before ``before_export``, where second derivatives are asked for.

        To be overridden where ``forward``, compiled, brings first derivatives of its own, which autograd cannot
        differentiate again: from then on it has to be made of torch's operations alone, and give the same numbers.
        Models that are need nothing. Raise a TargetError that says why where it cannot be done.
        """

    @torch.jit.ignore
    def retarget(self, dataset_info: DatasetInfo) -> None:
        """Prepare for another data set: new targets get new, freshly initialised last layers.

        Called when a checkpoint is fine-tuned on other targets, of the elements that the model was built for
        (more of them are the business of :meth:`grow`). Refuse what the model cannot take with a clear error.
        """
        raise TargetError(
            f"{type(self).__name__} cannot be given other targets or elements than it was built for"
        )

    @torch.jit.ignore
    def grow(self, trained: "Model", growth: Growth) -> None:
        """Take over what ``trained`` learnt, a model of the same hypers and targets for fewer elements.

        Called on a model as it leaves ``build_model``, in the precision of ``trained``, when a checkpoint is
        fine-tuned on data with new elements. Structures of the old ones must be predicted as ``trained`` predicts
        them; what belongs to new ones keeps what it was built with, or is set by ``growth.batches()`` if it is
        not trained. Where elements are axes of weights, and where weights do not know of them at all, that is
        one line: ``growth.take_over(self, trained)``. Columns of the output ``feature`` that come with elements
        must be the features of one element after those of another.

        Refuse what cannot be done with a DataError that says why and what to do instead; this one refuses
        all.
        """
        raise DataError(
            f"{type(self).__name__} cannot take in new elements; fine-tune it on data of its own elements, or "
            "train anew on data of all elements"
        )


class PotentialModel(Model):
    """An interatomic potential and nothing else: write :meth:`atomic_energies`, get the rest."""

    def __init__(self, dataset_info: DatasetInfo) -> None:
        super().__init__()
        self.energy_name: str = _only_energy(self, dataset_info)

    @torch.jit.ignore
    def retarget(self, dataset_info: DatasetInfo) -> None:
        """Another energy of the same elements keeps all weights."""
        self.energy_name = _only_energy(self, dataset_info)

    def atomic_energies(self, graph: AtomGraph) -> Tensor:
        """Energies ``[n_atoms]`` of the atoms, in units of the (scaled) target."""
        raise NotImplementedError

    def forward(self, graph: AtomGraph, outputs: List[str]) -> Dict[str, List[Tensor]]:
        """See :meth:`Model.forward`."""
        predictions: Dict[str, List[Tensor]] = {}
        if self.energy_name in outputs:
            energies = self.atomic_energies(graph)
            if not torch.jit.is_scripting():  # type: ignore[attr-defined]
                check_energies(self, graph, energies)
            predictions[self.energy_name] = [energies.unsqueeze(-1)]
        return predictions


def _only_energy(model: PotentialModel, dataset_info: DatasetInfo) -> str:
    """Name of the one target there is; TargetError unless it is an energy."""
    unfit = [t.name for t in dataset_info.targets.values() if not t.is_energy]
    if unfit or len(dataset_info.targets) != 1:
        raise TargetError(
            f"{type(model).__name__} predicts one energy per structure (with forces and "
            f"stress) and cannot fit: {', '.join(unfit or dataset_info.targets)}"
        )
    return next(iter(dataset_info.targets))
