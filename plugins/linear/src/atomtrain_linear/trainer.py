"""The fit: sums over the training set, then coefficients for several ridges."""

from __future__ import annotations

import logging
import math
from collections import Counter
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor

from atomtrain.data import Batch, fingerprint
from atomtrain.training.run import TrainingOutcome, TrainingRun
from atomtrain.training.session import Session
from atomtrain_density.short_range import note_shortest
from atomtrain_linear.fit import NormalEquations, Solution
from atomtrain_linear.hypers import TrainerHypers
from atomtrain_linear.model import Linear
from atomtrain_linear.rows import DesignMatrix

log = logging.getLogger("atomtrain")
LABEL = "rows"
CLOSEST = 0.9
"""of the shortest distance of two elements: where features stop to believe in distances"""
RIDGES = (1e-4, 1e-6, 1e-8, 1e-10)


class Fit:
    """One fit. ``state`` is what checkpoints have: sums over structures, and which structures they are of."""

    def __init__(self, model: Linear, run: TrainingRun) -> None:
        assert isinstance(run.hypers, TrainerHypers)
        self.model, self.run, self.hypers = model, run, run.hypers
        target = run.dataset_info.targets[model.energy_name]
        loss = run.hypers.loss_for(target)
        self.weights = {"values": loss.weight, **{g: x.weight for g, x in loss.gradients.items()}}
        self.totals = target.name in run.hypers.per_structure_targets
        self.affine = run.predictor.affine_of(target.name)
        self.keys = {"values": target.name, **{g: f"{target.name}:{g}" for g in target.gradients}}
        self.design = DesignMatrix(model.features, model.density.radial, model.n_species)
        self.equations = NormalEquations(model.n_coefficients, list(self.keys), run.device)
        self.state: dict[str, Any] = {**self.equations.sums, "added": [], "adding": []}

    def train(self) -> TrainingOutcome:
        """Sums, then a stage for each ridge."""
        with self.run.session(self.state) as session:
            anew = self._add_structures(session) or bool(self.run.changed_hypers)
            self.model.inner.copy_(CLOSEST * self._shortest(session))
            seen = [self._energies(batch) for batch in session.batches("validation")]
            self.equations.weigh(self.weights)
            ridges = self._ridges(session)
            for stage in session.stages(len(ridges), anew=anew):
                solution = self.equations.solve(ridges[stage], self.model.n_species)
                self.model.set(solution, self._spread(solution, seen))
                session.validated(solution.loss, {"ridge": solution.ridge})
                session.stopped_early = stage > session.judge.best_stage + 1
        return session.outcome()

    # -- sums ----------------------------------------------------------------------------------

    def _add_structures(self, session: Session) -> bool:
        """Add the structures that the sums do not have yet; whether any were."""
        state, names = self.state, self._names()
        known = set(state["added"])
        new = [k for k, name in enumerate(names) if name not in known]
        adding = [names[k] for k in new]
        if not known <= set(names) or state["adding"] not in ([], adding):
            log.info("the checkpoint has other structures, labels or scales: all are added anew")
            for tensor in self.equations.sums.values():
                tensor.zero_()
            state.update(added=[], adding=[])
            new, adding = list(range(len(names))), names
        elif known and new:
            log.info(f"{len(new)} structures are added to the checkpoint's {len(known)}")
        if not new:
            return False
        if not state["adding"]:
            session.forget_pass(LABEL)
            state["adding"] = adding
        sums = list(self.equations.sums)
        for batch in session.batches(label=LABEL, sums=sums, structures=torch.tensor(new)):
            self._add(batch)
        state.update(added=names, adding=[])
        return True

    def _names(self) -> list[str]:
        """A name for each structure with its labels, and what these are measured by."""
        store, times = self.run.train, Counter[str]()
        units = [self.affine.scale.tolist(), self.affine.shift.tolist(), self.totals]
        names = []
        for k in range(len(store)):
            one = fingerprint(store.select(torch.tensor([k])))
            times[one] += 1  # of one that is there twice each is another
            names.append(sha256(f"{one} {times[one]} {units}".encode()).hexdigest()[:24])
        return names

    @torch.no_grad()
    def _add(self, batch: Batch) -> None:
        graph, species = batch.graph, self._species(batch)
        rows = self.design.of(graph, species, list(self.keys)[1:])
        rows["values"] = self.model.rows(graph, species)
        for kind, key in self.keys.items():
            x, label, mask = (
                rows[kind].flatten(0, -2),
                batch.labels[key].flatten(),
                batch.masks.get(key),
            )
            if kind != "forces":  # as they enter the loss: per atom, or as totals
                n = batch.n_atoms.repeat_interleave(len(label) // len(batch.n_atoms))
                x, label = (x, label * n) if self.totals else (x / n.unsqueeze(1), label)
            there = slice(None) if mask is None else mask.flatten()
            self.equations.add(kind, x[there], label[there])

    def _species(self, batch: Batch) -> Tensor:
        return self.model.species_index[batch.graph.types]

    def _shortest(self, session: Session) -> Tensor:
        """The shortest distance of each two elements, ``[S, S]``; 0 where there is none."""
        found = torch.full_like(self.model.inner, torch.inf)
        for batch in session.batches():
            note_shortest(found, batch.graph, self._species(batch))
        found = torch.cat(self.run.processes.gather(found[None])).amin(0)
        return torch.where(found < torch.inf, found, 0.0)

    # -- coefficients --------------------------------------------------------------------------

    def _ridges(self, session: Session) -> list[float]:
        """Those to be tried, from the largest on."""
        if isinstance(self.hypers.ridge, float):
            return [self.hypers.ridge]
        if self.hypers.ridge == "validation" and session.judge.validates:
            return list(RIDGES)
        found = {r: self.equations.solve(r, self.model.n_species).evidence for r in RIDGES}
        return [max(found, key=found.__getitem__)]

    def _energies(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Rows and labels of whole structures, float64; zero where there is no label."""
        rows = self.model.rows(batch.graph, self._species(batch))
        mask = batch.masks.get(self.keys["values"])
        label = batch.labels[self.keys["values"]] * (1.0 if self.totals else batch.n_atoms[:, None])
        there = torch.ones_like(label) if mask is None else mask.to(label)
        return (rows * there).to(torch.float64), (label * there).to(torch.float64)

    def _spread(self, solution: Solution, seen: list[tuple[Tensor, Tensor]]) -> float:
        """What the factor's 1 is, in the target's unit: as errors on the validation set say, if there is one."""
        total = solution.coefficients.new_zeros(2)
        for x, y in seen:
            error = (x @ solution.coefficients - y.squeeze(1)).square()
            known = torch.linalg.solve_triangular(solution.factor, x.t(), upper=False)
            ratio = error / known.square().sum(0).clamp(min=1e-300)
            total += torch.stack([ratio.sum(), (x.any(1)).sum()])
        errors, number = self.run.processes.sum_(total).tolist()
        spread = math.sqrt(errors / number) if number else solution.spread
        return spread * float(self.affine.scale[0, 0])
