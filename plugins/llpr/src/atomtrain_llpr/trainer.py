"""Finding uncertainties: the covariance over the training set, its ridge and their size on the validation set."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor

from atomtrain.data import Batch
from atomtrain.errors import OptionsError
from atomtrain.graph import n_structures, sum_over_structures
from atomtrain.model import Model, Predictor
from atomtrain.targets import uncertainty_name
from atomtrain.training.backbone import check_limits, export_around
from atomtrain.training.reliability import Reliability
from atomtrain.training.run import TrainingOutcome, TrainingRun
from atomtrain.training.session import Session
from atomtrain_llpr import posterior
from atomtrain_llpr.hypers import TrainerHypers
from atomtrain_llpr.model import Llpr, Posterior

log = logging.getLogger("atomtrain")
LABEL = "features"
OFFSET = 10.0
"""times the spread of errors: a mean error beyond it is another reference, not a bad model"""


class Fit:
    """One fit. ``state`` is what checkpoints have: of each target the sum of its features' outer products."""

    def __init__(self, model: Model, run: TrainingRun) -> None:
        assert isinstance(run.hypers, TrainerHypers) and isinstance(model, Llpr)
        self.model, self.run, self.hypers = model, run, run.hypers
        self.targets = run.dataset_info.targets
        self.sums: dict[str, Any] = {}
        for name, module in model.posteriors.items():
            width = len(module.members)  # type: ignore[arg-type]
            shape = (width, width)
            self.sums[name] = torch.zeros(shape, dtype=torch.float64, device=run.device)

    def train(self) -> TrainingOutcome:
        """A pass over the training set, then the only stage.

        Raises OptionsError without a validation set, DeviceError for what the model inside does not run on.
        """
        run, model = self.run, self.model
        check_limits(model.backbone, run.device, run.dtype)
        if len(run.validation) == 0:
            raise OptionsError(
                "validation_set: uncertainties get their size from errors on structures that the model was not trained "
                "on; give it some"
            )
        trained_on = model.backbone.checkpoint.get("fingerprint")
        if trained_on and trained_on != run.header.get("fingerprint"):
            log.info(
                "these are not exactly the structures that the model was trained on: what it is said to know is what "
                "these would have taught it"
            )
        with run.session(self.sums) as session:
            anew = run.data_changed or "per_structure_targets" in run.changed_hypers
            if anew:
                session.forget_pass(LABEL)
                for total in self.sums.values():
                    total.zero_()
            for batch in session.batches(label=LABEL, sums=list(self.sums)):
                for name in self.targets:
                    x = self._samples(batch, name)[0]
                    self.sums[name].addmm_(x.t(), x)
            for _ in session.stages(1, anew=anew or bool(run.changed_hypers)):
                said: dict[str, object] = {}
                for name in self.targets:
                    said |= self._calibrate(session, name)
                session.validated(label=said)
        return session.outcome()

    @torch.no_grad()
    def _samples(self, batch: Batch, name: str) -> tuple[Tensor, Tensor]:
        """Features ``[n, width]`` and errors ``[n, n_properties]``, NaN without a label, of samples with any label.

        As they enter a loss, so per atom, and errors as the network is to give them.
        """
        target, graph, feature = self.targets[name], batch.graph, self.model.features[name]
        found = self.model.backbone.model(graph, [name, feature])
        x, y = found[feature][0].double(), found[name][0].double()
        affine = self.run.predictor.affine_of(name)
        relative = affine.reference[:, None] / affine.scale
        label = batch.labels[name].double()
        if target.per_atom:
            label = label * relative[self.run.predictor.type_index[graph.types]]
        else:
            x, y = (sum_over_structures(v, graph.structure, n_structures(graph)) for v in (x, y))
            n_atoms = batch.n_atoms.double().unsqueeze(1)
            label = label * relative[:1]
            if name in self.hypers.per_structure_targets:
                label = label * n_atoms
            else:
                x, y = x / n_atoms, y / n_atoms
        errors = y - label
        mask = batch.masks.get(name)
        if mask is not None:
            errors = errors.masked_fill(~mask.bool(), torch.nan)
        there = ~errors.isnan().all(1)
        return x[there], errors[there]

    def _calibrate(self, session: Session, name: str) -> dict[str, object]:
        """Choose the ridge of a target, set its posterior, and say what was chosen."""
        run, given = self.run, self.hypers.regularizer
        found = posterior.spectrum(self.sums[name])
        candidates = posterior.ridges(found, run.dtype) if given is None else [given]
        basis = found.vectors
        floors = [basis.new_full((1,), 1.0 / r) for r in candidates]
        taken = [posterior.taken_off(found, r) for r in candidates]
        spreads, errors = [], []
        for batch in session.batches("validation"):
            x, error = self._samples(batch, name)
            each = [posterior.spread(x, basis, t, f) for t, f in zip(taken, floors, strict=True)]
            spreads.append(torch.stack(each, 1))
            errors.append(error)
        width = self.targets[name].width
        spread = self._gathered(spreads, len(candidates))
        error = self._gathered(errors, width)
        if len(error) == 0:
            raise OptionsError(f"validation_set: no structure in it has a label of '{name}'")
        alphas = [
            posterior.calibrated(error, spread[:, k], self.hypers.calibration_method)
            for k in range(len(candidates))
        ]
        if not all(bool((alpha > 0).all()) for alpha in alphas):
            raise OptionsError(
                f"validation_set: the model makes no error of '{name}' on it, by which uncertainties could be measured"
            )
        losses = [
            float(posterior.surprise(error, alpha * spread[:, k : k + 1]))
            for k, alpha in enumerate(alphas)
        ]
        best = min(range(len(candidates)), key=losses.__getitem__)
        ridge, alpha = candidates[best], alphas[best]
        module = self.model.posteriors[name]
        assert isinstance(module, Posterior)
        n = module.members.shape[1]
        drawn = posterior.deviations(self.sums[name], ridge, n, run.seed) if n else module.members
        module.set(found, ridge, alpha, drawn)
        for buffer in module.buffers():
            run.processes.broadcast_(buffer)
        unit = float(run.predictor.affine_of(name).scale[0, 0])
        of = Reliability.of(unit * error, unit * alpha * spread[:, best : best + 1])
        log.info(f"{uncertainty_name(name)} on the validation set: {of.line()}")
        _warn_of_an_offset(name, unit * error)
        if not self.targets[name].per_atom:
            self._say_of_atoms(session, name)
        prefix = "" if len(self.targets) == 1 else f"{name} "
        return {f"{prefix}regularizer": ridge, f"{prefix}alpha": float(alpha.mean())}

    @torch.no_grad()
    def _say_of_atoms(self, session: Session, name: str) -> None:
        """What single atoms' standard deviations are, by which engines warn."""
        output, found = self.model.of_atoms[name], []
        for batch in session.batches("validation"):
            found.append(self.model(batch.graph, [output])[output][0])
        sigma = self._gathered(found, self.targets[name].width)
        unit = f" {self.targets[name].unit}".rstrip()
        log.info(
            f"of single atoms' contributions: {float(sigma.mean()):.3g}{unit} in the mean, {float(sigma.max()):.3g}"
            f"{unit} at most; ASE's calculator warns above its uncertainty_threshold, 0.1 eV unless it is set"
        )

    def _gathered(self, parts: list[Tensor], width: int) -> Tensor:
        """The rows of all batches of all processes."""
        mine = torch.zeros(0, width, dtype=torch.float64, device=self.run.device)
        return torch.cat(self.run.processes.gather(torch.cat([mine, *parts])))


def _warn_of_an_offset(name: str, errors: Tensor) -> None:
    """Warn where errors ``[n, n_properties]`` are one number more than they differ: that is no uncertainty."""
    if len(errors) < 2:
        return
    offset, spread = errors.mean(0).abs(), errors.std(0)
    if bool(((offset > OFFSET * spread) & (spread > 0.0)).any()):
        times = float((offset / spread).max())
        log.warning(
            f"{name}: errors on the validation set are {times:.3g} times as large in the mean as they differ: the "
            "labels have another reference than the model (method, single atoms, unit), or it has not found theirs "
            "yet, and the uncertainty is as large as that. Take labels of the kind that it was trained on, or "
            "fine-tune it on these"
        )


def export(predictor: Predictor, metadata: dict[str, Any]) -> Any:
    """The metatomic model: the trained one is inside, and its references are named."""
    assert isinstance(predictor.model, Llpr)
    return export_around(predictor.model.backbone, predictor, metadata, ("cuda", "cpu"))
