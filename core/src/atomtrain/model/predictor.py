"""Predictor: a model together with what turns its outputs into physical quantities.

Networks are trained on dimensionless targets: the baseline of the model, if it has one, and the
composition are subtracted and the rest divided by a scale. The predictor puts all of them back.
It is what is evaluated and exported.
"""

from __future__ import annotations

from typing import Dict, List

import torch
from torch import Tensor, nn

from atomtrain.errors import PluginError
from atomtrain.graph import AtomGraph, type_table, volumes, without_mean
from atomtrain.model.affine import Affine
from atomtrain.model.base import Model
from atomtrain.targets import DatasetInfo
from atomtrain.tasks import task_of


class Predictor(nn.Module):
    """``model`` plus an :class:`Affine` per target. TorchScript can compile it."""

    def __init__(self, model: Model, dataset_info: DatasetInfo) -> None:
        super().__init__()
        if model.baseline is not None and model.baseline.cutoff > model.cutoff:
            raise PluginError(
                f"the baseline of {type(model).__name__} needs pairs up to "
                f"{model.baseline.cutoff:.6g}, beyond the model's cutoff {model.cutoff:.6g}"
            )
        model.expect(dataset_info)
        self.model = model
        self.dataset_info = dataset_info
        self.target_names: List[str] = list(dataset_info.targets)
        targets = dataset_info.targets.values()
        self.pooled: List[bool] = [t.pooled for t in targets]
        finish = [task_of(t.kind).finish(t) for t in targets]
        self.finish = nn.ModuleList(nn.Identity() if f is None else f for f in finish)
        self.zero_mean: List[bool] = [t.zero_mean for t in targets]
        self.per_volume: List[bool] = [t.per_volume for t in targets]
        self.affine = nn.ModuleList(Affine(t, len(dataset_info.atomic_types)) for t in targets)
        self.register_buffer("type_index", type_table(dataset_info.atomic_types))
        self.type_index: Tensor
        # energies whose Hessians the exported model is to offer (see export.with_second_derivatives)
        self.hessians: List[str] = []

    @torch.jit.unused
    def affine_of(self, target: str) -> Affine:
        """The scale and shift of a target."""
        module = self.affine[self.target_names.index(target)]
        assert isinstance(module, Affine)
        return module

    @torch.jit.unused
    def finished(self, target: str, values: Tensor) -> Tensor:
        """What a task makes of the model's values of a target: probabilities of logits."""
        result: Tensor = self.finish[self.target_names.index(target)](values)
        return result

    def forward(self, graph: AtomGraph, outputs: List[str]) -> Dict[str, List[Tensor]]:
        """Per-atom blocks of each wanted output, in physical units and float64.

        Targets that belong to structures are to be summed over atoms, but for pooled ones, which
        come as ``[n_structures, n]``. Outputs that are no targets (``feature``) pass through
        unchanged.
        """
        predictions = self.model(graph, outputs)
        type_index = self.type_index.index_select(0, graph.types)
        for k, (affine, finish) in enumerate(zip(self.affine, self.finish)):  # noqa: B905
            name = self.target_names[k]
            if name in predictions:
                index = type_index
                if self.pooled[k]:  # there is one scale, whatever the elements
                    index = torch.zeros_like(graph.cells[:, 0, 0], dtype=torch.int64)
                blocks: List[Tensor] = affine(predictions[name], index)
                finished: List[Tensor] = []
                for block in blocks:
                    done = finish(block)
                    finished.append(without_mean(done, graph) if self.zero_mean[k] else done)
                predictions[name] = finished
                if self.per_volume[k]:
                    predictions[name] = [_stress(predictions[name][0], graph)]
        if self.model.baseline is not None:
            for name, energies in self.model.baseline(graph, outputs).items():
                predictions[name] = [predictions[name][0] + energies.unsqueeze(1)]
        return predictions


def _stress(virial: Tensor, graph: AtomGraph) -> Tensor:
    """``[n_atoms, 3, 3, n]``: the symmetric part over the structure's volume; 0 without a volume."""
    volume = volumes(graph.cells)
    inverse = torch.where(volume > 0, 1.0 / volume, torch.zeros_like(volume))
    per_atom = inverse.index_select(0, graph.structure).reshape(-1, 1, 1, 1)
    return 0.5 * (virial + virial.transpose(1, 2)) * per_atom
