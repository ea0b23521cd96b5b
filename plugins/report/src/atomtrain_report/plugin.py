"""What the core asks: a look at every training that is over. Nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from atomtrain.contract import ComponentSpec, EvaluationSpec, hookimpl

if TYPE_CHECKING:
    from atomtrain.runs import Findings, Finished


@hookimpl
def register_evaluations() -> Iterator[ComponentSpec]:
    """The report of every training, unless ``final_eval: {report: false}``."""
    summary = "report.html in the run's folder: learning curves, errors by target, element and size, worst structures"
    yield EvaluationSpec("report", summary, lambda: evaluation, always=True)


def evaluation(structures: int = 20_000, by: str | Sequence[str] = ()) -> Any:
    """The report of a training; see :func:`atomtrain_report.report`."""
    if structures < 1:
        raise ValueError(f"structures must be at least 1, got {structures}")
    keys = [by] if isinstance(by, str) else list(by)

    def written(finished: Finished) -> Findings:
        from atomtrain.runs import Findings
        from atomtrain_report.page import write
        from atomtrain_report.subject import of_finished

        page = finished.run.directory / "report.html"
        write(of_finished(finished, structures, keys), page)
        return Findings(files=[page])

    return written
