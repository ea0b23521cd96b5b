"""``report.html``: how good a model is and where it is bad, in one file that needs nothing beside it.

``plugin`` makes one at the end of every training, ``command`` is ``atomtrain report``. ``subject`` finds out what a
page is about (a run, a checkpoint, an exported model on data), ``sets`` counts errors, ``curves`` reads ``train.csv``,
``figures`` draws, ``page`` puts it all into the template ``page.html``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

__version__ = "0.1.0"
__all__ = ["__version__", "report"]


def report(
    what: str | Path,
    data: str | Path | None = None,
    *,
    output: str | Path | None = None,
    structures: int = 20_000,
    by: Sequence[str] = (),
    batch_size: int = 8,
    extensions: str | Path | None = None,
) -> Path:
    """Write the report of ``what``: the folder of a run, a checkpoint, or an exported model of anybody's.

    ``data`` are a file of structures or an eval file; without them a run or checkpoint is looked at on the sets
    that its options make. ``output`` is ``report.html`` in the run's folder or here, figures go into a folder of its
    name. At most so many ``structures`` of a set are looked at one by one; ``by``: keys of values whose groups get
    errors of their own. ``batch_size`` and ``extensions`` are those of ``atomtrain eval``, for exported models. Raises
    CheckpointError, DataError, OptionsError or OutputError.
    """
    from atomtrain_report.page import check_page, write
    from atomtrain_report.subject import subject_of

    place = Path(what) if Path(what).is_dir() else Path()
    page = Path(output) if output is not None else place / "report.html"
    check_page(page)
    found = subject_of(
        Path(what), data, structures, by, batch_size=batch_size, extensions=extensions
    )
    write(found, page)
    return page
