"""What structures are grouped by beside element, size and file: values that their files have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from atomtrain.data import Files
from atomtrain.data.labels import SectionFiles
from atomtrain.data.readers.base import Wanted
from atomtrain.errors import OptionsError, nearest
from atomtrain.options import DatasetSection, Options, SplitSection
from atomtrain.targets import TargetInfo

if TYPE_CHECKING:
    from atomtrain.data import StructureStore


def grouping_of(options: Options, by: Sequence[str]) -> Grouping:
    """By what is asked for, and by what splits keep together."""
    given = [*options.training_set, *options.validation_set, *options.test_set]
    sections = [section for section in given if isinstance(section, DatasetSection)]
    splits = [part for part in given if isinstance(part, SplitSection) and part.by == "group"]
    return Grouping(sections, [split.key for split in splits], by)


class Grouping:
    """What structures are grouped by besides: values of ``keys`` that the files of sections have.

    A key that is ``asked`` for must be in one of them; raises OptionsError.
    """

    def __init__(
        self, sections: Sequence[DatasetSection], keys: Sequence[str], asked: Sequence[str] = ()
    ) -> None:
        wanted, files = list(dict.fromkeys([*keys, *asked])), Files()
        self._opened = [SectionFiles(section, files) for section in sections if wanted]
        known = {name for one in self._opened for name in one.file.keys}
        for key in asked:
            if key not in known:
                near = nearest(key, sorted(known))
                hint = f"; did you mean '{near}'?" if near else ""
                have = ", ".join(sorted(known))
                raise OptionsError(
                    f"no structure has a value '{key}' to group by{hint} (the files have: {have})"
                )
        self._keys = [key for key in wanted if key in known]

    def of(self, store: StructureStore) -> dict[str, list[str]]:
        """By key the value of each structure as text, empty where there is none."""
        if store.origins is None:
            return {}
        places: dict[tuple[str, int], list[int]] = {}
        for row, (file, frame) in enumerate(store.origins.tolist()):
            places.setdefault((store.files[file], frame), []).append(row)
        return {key: self._values(key, len(store), places) for key in self._keys}

    def _values(self, key: str, n: int, places: dict[tuple[str, int], list[int]]) -> list[str]:
        values = [""] * n
        for one in self._opened:
            if key not in one.file.keys:
                continue
            rows: list[int] = []
            frames: list[int] = []
            for k in range(len(one.structures)):
                file, frame = one.file.origin(k)
                here = places.get((one.file.files[file], frame), ())
                rows += here
                frames += [k] * len(here)
            wanted = Wanted(one.structures, frames, one.where)
            found = one.file.raw(key, TargetInfo(key), wanted)
            for row, value in zip(rows, found, strict=True):
                values[row] = "" if value is None else str(value)
        return values
