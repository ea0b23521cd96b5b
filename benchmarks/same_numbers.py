"""Say whether two runs gave the same numbers: ``python same_numbers.py OLD/train.csv NEW/train.csv``.

Compares what is written, to the last digit, in all columns but times. Ends with 1 and the first row and
column that differ, or with 0. CONTRIBUTING.md says how to make the two runs.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

TIMES = ("seconds", "time")


def difference(old: Path, new: Path) -> str | None:
    """What differs first, in words; None where nothing does."""
    (old_columns, old_rows), (new_columns, new_rows) = _read(old), _read(new)
    for columns, others, file in ((old_columns, new_columns, new), (new_columns, old_columns, old)):
        for column in columns:
            if column not in others:
                return f"the column '{column}' is missing in {file}"
    for number, (before, after) in enumerate(zip(old_rows, new_rows, strict=False)):
        for column in old_columns:
            if column not in TIMES and before[column] != after[column]:
                return f"row {number}, column '{column}': {before[column]} became {after[column]}"
    if len(old_rows) != len(new_rows):
        return f"{len(old_rows)} rows became {len(new_rows)}"
    return None


def _read(file: Path) -> tuple[list[str], list[dict[str, str]]]:
    with file.open(encoding="utf-8", newline="") as lines:
        table = csv.DictReader(lines)
        return list(table.fieldnames or ()), list(table)


def main() -> None:
    """Print the outcome."""
    if len(sys.argv) != 3:
        sys.exit("usage: python same_numbers.py OLD.csv NEW.csv")
    old, new = map(Path, sys.argv[1:])
    for file in (old, new):
        if not file.is_file():
            sys.exit(f"there is no file '{file}'")
    if found := difference(old, new):
        sys.exit(f"not the same numbers: {found}")
    print(f"the same numbers in {len(_read(old)[1])} rows")


if __name__ == "__main__":
    main()
