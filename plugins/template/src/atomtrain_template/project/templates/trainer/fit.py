"""How the model is trained: by least squares, in one pass over the data.

What the model predicts with one weight at 1 and all others at 0 is a column of the design matrix.
That holds for energies, forces and stress of any model that is linear in its weights. All that a
solution needs are products of columns, summed over structures; they are in the checkpoints.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from atomtrain.training.predict import predict
from torch import Tensor

from {{ cookiecutter.package }}.hypers import TrainerHypers

if TYPE_CHECKING:
    from atomtrain.data import Batch
    from atomtrain.model import Model
    from atomtrain.training.run import TrainingOutcome, TrainingRun
    from atomtrain.training.terms import Term

PASS = "design matrix"


def train(model: Model, run: TrainingRun) -> TrainingOutcome:
    """Fit the weights of ``model``, the one inside ``run.predictor``, once for each ridge."""
    assert isinstance(run.hypers, TrainerHypers)
    weights, ridges = model.get_parameter("weights"), run.hypers.ridge
    session = run.session()
    terms = session.objective.terms  # of the loss: energies, forces, stress
    n = weights.numel() + 2
    for term in terms:
        sums = torch.zeros(n, n, dtype=torch.float64, device=run.device)
        session.state[f"products of {term.key}"] = sums
    with session:
        if run.data_changed or run.changed_hypers.keys() - {"ridge"}:
            session.forget_pass(PASS)  # sums of something else
            for sums in session.state.values():
                sums.zero_()
        for batch in session.batches("train", PASS, sums=list(session.state)):
            for key, rows in design_matrix(run, batch, terms, weights).items():
                session.state[f"products of {key}"] += rows.T @ rows
        products = torch.zeros_like(sums)
        for term in terms:
            each = session.state[f"products of {term.key}"]
            n_rows = each[-1, -1].clamp(min=1.0)
            products += term.weight * each / (n_rows if term.mean else 1.0)
        anew = run.data_changed or bool(run.changed_hypers)
        for stage in session.stages(len(ridges), anew=anew):
            solution, loss = solve(products[:-1, :-1], ridges[stage])
            weights.copy_(solution.view_as(weights))
            session.validated(loss, {"ridge": ridges[stage]})
    return session.outcome()


def design_matrix(
    run: TrainingRun, batch: Batch, terms: list[Term], weights: Tensor
) -> dict[str, Tensor]:
    """By kind of label ``[n_labels, n_weights + 2]``; the labels and ones are the last columns."""
    columns: dict[str, list[Tensor]] = {}
    for k in range(weights.numel()):
        weights.zero_().view(-1)[k] = 1.0
        for key, values in predict(run.predictor, batch, create_graph=False).items():
            columns.setdefault(key, []).append(values.detach())
    found: dict[str, Tensor] = {}
    for term in terms:
        if term.key in columns:
            values = torch.stack([*columns[term.key], batch.labels[term.key]]).double()
            if term.per_structure:
                values *= batch.n_atoms[:, None]
            mask = batch.masks.get(term.key)
            if mask is not None:  # some labels are missing
                values = values[:, mask]
            values = values.flatten(1)
            found[term.key] = torch.cat([values, torch.ones_like(values[:1])]).T
    return found


def solve(products: Tensor, ridge: float) -> tuple[Tensor, float]:
    """The weights with the smallest loss plus ``ridge`` times their squares, and that loss.

    ``products`` are those of all columns and the labels. Squares count by the size of the columns.
    """
    size = products.diagonal()[:-1].sqrt()
    size = torch.where(size > 0, size, 1.0)  # of an element that the data do not have
    matrix = products[:-1, :-1] / size / size[:, None]
    matrix += ridge * torch.eye(len(matrix)).to(matrix)
    solution = torch.linalg.solve(matrix, products[:-1, -1] / size) / size
    error = torch.cat([solution, -torch.ones_like(solution[:1])])
    return solution, float(error @ products @ error)
