"""How the model is trained: by least squares, in one pass over the data.

What the model predicts with one weight at 1 and all others at 0 is a column of the design matrix,
which holds for every target of a model that is linear in its weights. Sums over all structures of
products of columns are all that a solution needs; they are in the checkpoints.
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
    terms = session.objective.terms  # energies, forces, stress: each with its weight
    # of each term: products of all columns, the labels being the last one, and how many rows
    n = weights.numel() + 1
    sums = torch.zeros(len(terms), n, n, dtype=torch.float64, device=run.device)
    session.state.update(products=sums, rows=sums.new_zeros(len(terms)))
    with session:
        if run.data_changed:  # what was summed before is of other data
            session.forget_pass(PASS)
            for value in session.state.values():
                value.zero_()
        for batch in session.batches("train", PASS, sums=list(session.state)):
            matrices = design_matrix(run, batch, terms, weights)
            for k, term in enumerate(terms):
                if term.key in matrices:
                    rows = matrices[term.key]
                    session.state["products"][k] += rows.T @ rows
                    session.state["rows"][k] += len(rows)
        products = total(session.state["products"], session.state["rows"], terms)
        anew = run.data_changed or bool(run.changed_hypers)
        for stage in session.stages(len(ridges), anew=anew):
            solution, loss = solve(products, ridges[stage])
            weights.copy_(solution.view_as(weights))
            session.validated(loss, {"ridge": ridges[stage]})
    return session.outcome()


def design_matrix(
    run: TrainingRun, batch: Batch, terms: list[Term], weights: Tensor
) -> dict[str, Tensor]:
    """Columns of the labels of a batch, the labels themselves the last, ``[n_rows, n_columns]``."""
    columns: dict[str, list[Tensor]] = {}
    for k in range(weights.numel()):
        weights.zero_().view(-1)[k] = 1.0
        predictions = predict(run.predictor, batch, create_graph=False)
        for key, values in predictions.items():
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
            found[term.key] = values.flatten(1).T
    return found


def total(products: Tensor, n_rows: Tensor, terms: list[Term]) -> Tensor:
    """One matrix of all terms, which makes the loss a quadratic form of the weights."""
    parts = torch.zeros_like(products[0])
    for term, n, each in zip(terms, n_rows.clamp(min=1), products, strict=True):
        parts += term.weight * each / (n if term.mean else 1)
    return parts


def solve(products: Tensor, ridge: float) -> tuple[Tensor, float]:
    """The weights with the smallest loss and ``ridge`` times their squares; and that loss.

    The ridge is relative to the size of each column.
    """
    size = products.diagonal()[:-1].sqrt()
    size = torch.where(size > 0, size, 1.0)  # an element that the data do not have
    matrix = products[:-1, :-1] / size / size[:, None]
    matrix = matrix + ridge * torch.eye(len(matrix)).to(matrix)
    solution = torch.linalg.solve(matrix, products[:-1, -1] / size) / size
    error = torch.cat([solution, -solution.new_ones(1)])
    return solution, float(error @ products @ error)
