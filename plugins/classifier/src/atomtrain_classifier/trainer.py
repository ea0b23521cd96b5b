"""Training and export: the core's, with a backbone that may be unfrozen and sets the limits."""

from __future__ import annotations

import logging
from typing import Any

import torch

from atomtrain.data import Kept
from atomtrain.model import Model, Predictor
from atomtrain.training.backbone import check_limits, export_around
from atomtrain.training.engine import Engine
from atomtrain.training.engine import train as train_with
from atomtrain.training.run import TrainingOutcome, TrainingRun
from atomtrain_classifier.hypers import TrainerHypers
from atomtrain_classifier.model import Classifier

log = logging.getLogger("atomtrain")


def train(model: Model, run: TrainingRun) -> TrainingOutcome:
    """Train on the features of the backbone. Raises DeviceError for what it does not run on."""
    assert isinstance(model, Classifier)
    check_limits(model.backbone, run.device, run.dtype)
    hypers = run.hypers
    assert isinstance(hypers, TrainerHypers)
    run.kept = Kept(hypers.memory_budget_bytes, folder=hypers.feature_cache, scratch=run.directory)
    return train_with(model, run, ClassifierEngine)


class ClassifierEngine(Engine):
    """The core's engine; after ``unfreeze_after`` epochs the backbone is trained along."""

    def begin_epoch(self) -> None:
        """Unfreeze the backbone when it is time."""
        hypers, model = self.hypers, self.model
        assert isinstance(hypers, TrainerHypers) and isinstance(model, Classifier)
        due = hypers.unfreeze_after is not None and self.epoch >= hypers.unfreeze_after
        if due and model.backbone.frozen:
            log.info("epoch %d: the backbone is trained along from here on", self.epoch)
            model.backbone.unfreeze()
            self.make_sources()

    def build_optimizer(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """As the core's, with a learning rate of its own for the backbone."""
        hypers = self.hypers
        assert isinstance(hypers, TrainerHypers)
        said = hypers.finetune is not None and hypers.finetune.encoder_learning_rate is not None
        for group in groups:
            if group["name"] == "encoder" and not said:
                group["lr"] = hypers.backbone_learning_rate or 0.1 * hypers.learning_rate
        return super().build_optimizer(groups)


def export(predictor: Predictor, metadata: dict[str, Any]) -> Any:
    """The metatomic model: the backbone is inside, and its references are named."""
    assert isinstance(predictor.model, Classifier)
    return export_around(predictor.model.backbone, predictor, metadata, ("cuda", "cpu", "mps"))
