"""The fit: sums over the training set, then coefficients for several ridges."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterator
from hashlib import blake2b
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from atomtrain.data import Batch
from atomtrain.training.run import TrainingOutcome, TrainingRun
from atomtrain.training.session import Session
from atomtrain_density.short_range import kinds_of_pairs
from atomtrain_linear.fit import NormalEquations, Solution, Weighted
from atomtrain_linear.hypers import TrainerHypers
from atomtrain_linear.model import Linear

log = logging.getLogger("atomtrain")
LABEL = "rows"
CLOSEST = 0.9
"""of the shortest distance of two elements: where features stop to believe in distances"""
RIDGES = tuple(10.0**-k for k in range(5, 13))


def train(model: Linear, run: TrainingRun) -> TrainingOutcome:
    """Fit ``model``; a restart adds structures, or solves anew where only ridge or weights changed."""
    return Fit(model, run).train()


class Fit:
    """One fit. ``state`` is what checkpoints have: sums over structures, and which structures they are of."""

    def __init__(self, model: Linear, run: TrainingRun) -> None:
        assert isinstance(run.hypers, TrainerHypers)
        self.model, self.run, self.hypers = model, run, run.hypers
        self.name = model.energy_name
        self.target = run.dataset_info.targets[self.name]
        self.totals = self.name in run.hypers.per_structure_targets
        self.design = model.design()
        self.kinds = ["values", *self.target.gradients]
        self.equations = NormalEquations(model.n_coefficients, self.kinds, run.device)
        self.state: dict[str, Any] = {
            **self.equations.sums,
            "shortest": torch.full_like(model.inner, torch.inf),
            "added": [],
            "adding": [],
        }

    def train(self) -> TrainingOutcome:
        """Sums, then a stage for each ridge."""
        run = self.run
        with run.session(self.state) as session:
            changed = self._add_structures(session)
            self.model.inner.copy_(self._inner())
            self.seen = list(self._validation(session))
            equations = self.equations.weighted(self._weights())
            ridges = self._ridges(session, equations)
            anew = changed or bool(run.changed_hypers)
            for stage in session.stages(len(ridges), anew=anew):
                solution = equations.solve(ridges[stage], self.model.n_species)
                self._take(solution)
                session.validated(solution.loss, {"ridge": solution.ridge})
                session.stopped_early = stage > session.judge.best_stage + 1
        return session.outcome()

    # -- sums ----------------------------------------------------------------------------------

    def _add_structures(self, session: Session) -> bool:
        """Add the structures that the sums do not have yet; whether any were."""
        run, state = self.run, self.state
        names = self._names()
        today, added = Counter(names), Counter(state["added"])
        if added - today or (state["adding"] and state["adding"] != list((today - added).elements())):
            log.info("the checkpoint has structures, labels or scales that are not today's: all are added anew")
            for tensor in self.equations.sums.values():
                tensor.zero_()
            state["shortest"].fill_(torch.inf)
            state["added"], state["adding"], added = [], [], Counter()
            session.forget_pass(LABEL)
        new = []
        for k, name in enumerate(names):
            if added[name] > 0:
                added[name] -= 1
            else:
                new.append(k)
        if not new:
            return False
        if not state["adding"]:
            session.forget_pass(LABEL)
            state["adding"] = list(Counter(names[k] for k in new).elements())
            if state["added"]:
                log.info(f"{len(new)} structures are added to {len(names) - len(new)} of the checkpoint")
        for batch in session.batches(
            label=LABEL, sums=list(self.equations.sums), structures=torch.tensor(new)
        ):
            self._add(batch)
        state["shortest"] = torch.stack(run.processes.gather(state["shortest"][None])).amin((0, 1))
        state["added"], state["adding"] = names, []
        return True

    def _names(self) -> list[str]:
        """A hash of each structure, its labels and what these are measured by."""
        run = self.run
        store = run.train
        affine = run.predictor.affine_of(self.name)
        common = repr([affine.scale.tolist(), affine.shift.tolist(), self.totals]).encode()
        parts = list(store.fingerprints)
        for kind in self.kinds:
            label = store.labels[self._key(kind)]
            owner = store.offsets if label.per_atom else torch.arange(len(store) + 1)
            for k, (first, last) in enumerate(pairwise(owner.tolist())):
                parts[k] += label.values[first:last].numpy().tobytes()
                if label.mask is not None:
                    parts[k] += label.mask[first:last].numpy().tobytes()
        return [blake2b(part + common, digest_size=12).hexdigest() for part in parts]

    def _key(self, kind: str) -> str:
        return self.name if kind == "values" else f"{self.name}:{kind}"

    @torch.no_grad()
    def _add(self, batch: Batch) -> None:
        species = self.model.species_of(batch.graph)
        gradients = self.kinds[1:]
        rows = self.design.of(batch.graph, species, gradients=bool(gradients), strain="strain" in gradients)
        for kind in self.kinds:
            x, label = rows[kind].flatten(0, -2), batch.labels[self._key(kind)].flatten()
            if kind != "forces":
                x, label = self._per_atom(x, label, batch)
            mask = batch.masks.get(self._key(kind))
            if mask is not None:
                x, label = x[mask.flatten()], label[mask.flatten()]
            self.equations.add(kind, x, label)
        kinds = kinds_of_pairs(batch.graph, species, self.model.n_species)
        r = torch.linalg.vector_norm(batch.graph.vectors, dim=1)
        self.state["shortest"].view(-1).scatter_reduce_(0, kinds, r, "amin")

    def _per_atom(self, x: Tensor, label: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Rows of sums, and their labels, as they enter the loss: per atom, or as totals."""
        n = batch.n_atoms.repeat_interleave(len(label) // len(batch.n_atoms))
        return (x, label * n) if self.totals else (x / n.unsqueeze(1), label)

    def _inner(self) -> Tensor:
        """Where the features stop to believe in distances; 0 of pairs that are not there."""
        shortest: Tensor = self.state["shortest"]
        return torch.where(shortest < torch.inf, CLOSEST * shortest, 0.0)

    # -- coefficients --------------------------------------------------------------------------

    def _weights(self) -> dict[str, float]:
        loss = self.hypers.loss_for(self.target)
        return {"values": loss.weight, **{kind: s.weight for kind, s in loss.gradients.items()}}

    def _ridges(self, session: Session, equations: Weighted) -> list[float]:
        """Those to be tried, from the largest on."""
        ridge = self.hypers.ridge
        if isinstance(ridge, float):
            return [ridge]
        if ridge == "validation" and session.judge.validates:
            return list(RIDGES)
        best, most = RIDGES[0], -math.inf
        for k, tried in enumerate(RIDGES):
            evidence = equations.solve(tried, self.model.n_species).evidence
            session.progress("evidence", k + 1, len(RIDGES), "ridges")
            if evidence > most:
                best, most = tried, evidence
        return [best]

    def _validation(self, session: Session) -> Iterator[tuple[Tensor, Tensor]]:
        """Energies of the validation set, as rows and labels of whole structures (float64)."""
        for batch in session.batches("validation"):
            species = self.model.species_of(batch.graph)
            rows = self.design.of(batch.graph, species, gradients=False)["values"]
            label = batch.labels[self.name].flatten() * (1.0 if self.totals else batch.n_atoms)
            mask = batch.masks.get(self.name)
            there = torch.ones_like(label, dtype=torch.bool) if mask is None else mask.flatten()
            yield rows[there].to(torch.float64), label[there].to(torch.float64)

    def _take(self, solution: Solution) -> None:
        """Give the model a solution, whose errors on the validation set are what uncertainties are measured by."""
        spread = solution.spread
        if self.seen and self.model.uncertainty_name:
            x, y = (torch.cat(part) for part in zip(*self.seen, strict=True))
            known = torch.linalg.solve_triangular(solution.factor, x.t(), upper=False)
            errors = (x @ solution.coefficients - y) / torch.linalg.vector_norm(known, dim=0)
            spread = float(errors.square().mean().sqrt())
        scale = float(self.run.predictor.affine_of(self.name).scale[0, 0])
        self.model.set(solution.coefficients, solution.factor, spread * scale)
