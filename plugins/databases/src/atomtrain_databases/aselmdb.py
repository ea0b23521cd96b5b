"""fairchem's ``.aselmdb``: a file of LMDB with a row of ASE's database in each record.

Looked up in ``fairchem.core.datasets.lmdb_database`` of fairchem 1.1 and in ``ase_db_backends.aselmdb``
0.11, which later versions use. Keys are the rows' numbers as text, counted from 1, beside ``nextid``,
``deleted_ids`` and ``metadata``; values are JSON packed by zlib. Arrays are ``__ndarray__`` as ASE writes
them, or, by the older version, plain lists in which a NaN is ``null``. Results of the calculator stand
in the row itself; ``data`` has what was in ``atoms.info`` (charge, spin, ...).
"""

from __future__ import annotations

import json
import os
import pickletools
import zlib
from collections.abc import Mapping
from functools import partial
from threading import Lock
from typing import Any
from weakref import WeakValueDictionary

import lmdb
import numpy as np
from ase.calculators.calculator import all_properties
from ase.db.row import AtomsRow
from ase.io.jsonio import object_hook

from atomtrain.data import Frame
from atomtrain.data.readers import Account, LazyFrames, fixed_components, is_lmdb
from atomtrain.errors import DataError
from atomtrain_databases.start import check_start

_RESERVED = ("nextid", "deleted_ids", "metadata")
_ARRAYS = ("initial_magmoms", "initial_charges", "tags", "masses", "momenta")
_OF_STRUCTURE = ("stress", "dipole")
"""results that are never per atom, however many atoms there are"""
_COPY = "copy or download it again"

_open: WeakValueDictionary[tuple[int, int], Any] = WeakValueDictionary()
"""environments by device and inode: LMDB cannot open a file twice in one process"""
_opening = Lock()


def read(path: str, where: str) -> LazyFrames:
    """The rows of a file, read when they are asked for. Raises DataError."""
    file = _File(path, f"{where}: '{path}' (aselmdb)")
    account = Account("aselmdb", f"lmdb {lmdb.__version__}")
    numbers = file.numbers(account)
    return LazyFrames(partial(_frame, file, numbers), range(len(numbers)), account)


class _File:
    """A file of LMDB, opened when it is needed, without its lock file: folders may be read-only."""

    def __init__(self, path: str, here: str) -> None:
        self.path, self.here = path, here
        self._environment: Any = None
        self._size = 0

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_environment": None}

    @property
    def environment(self) -> Any:
        if self._environment is None:
            self._environment = self._opened()
        return self._environment

    def _opened(self) -> Any:
        check_start(self.path, self.here, is_lmdb, "LMDB")
        try:
            status = os.stat(self.path)
            place = (status.st_dev, status.st_ino)
            with _opening:
                found = _open.get(place)
                if found is None:
                    found = lmdb.open(self.path, subdir=False, readonly=True, lock=False)
                    _open[place] = found
        except OSError as error:
            raise DataError(f"{self.here} cannot be read: {error.strerror or error}") from error
        except lmdb.Error as error:
            raise DataError(f"{self.here} is cut off or damaged ({error}); {_COPY}") from error
        self._size = (found.info()["last_pgno"] + 1) * found.stat()["psize"]
        return found

    def _check_whole(self) -> None:
        """Reading from memory what is not in the file would end the process with a signal."""
        try:
            there = os.stat(self.path).st_size
        except OSError as error:
            raise DataError(f"{self.here} cannot be read: {error.strerror or error}") from error
        if there < self._size:
            raise DataError(
                f"{self.here} is cut off: {there} of {self._size} bytes are there; {_COPY} (if it is whole, "
                "mdb_copy -c writes it anew)"
            )

    def value(self, key: str) -> bytes | None:
        """The bytes under a key, if there are any."""
        try:
            environment = self.environment
            self._check_whole()
            with environment.begin() as transaction:
                found: bytes | None = transaction.get(key.encode())
        except lmdb.Error as error:
            raise DataError(f"{self.here} is damaged ({error}); {_COPY}") from error
        return found

    def json(self, key: str) -> Any:
        """The value under a key, decoded; None: there is none."""
        content = self.value(key)
        if content is None:
            return None
        try:
            return json.loads(zlib.decompress(content), object_hook=object_hook)
        except (zlib.error, ValueError) as error:
            raise self.no_rows(key, content) from error

    def no_rows(self, key: str, content: bytes) -> DataError:
        """What a record is that is not JSON packed by zlib."""
        if _pickled(content):
            return DataError(
                f"{self.here} holds Python pickles, as the LMDB files of OC20 and OC22 do: these are not "
                "read, as a pickle can run any code; fairchem offers the data sets as .aselmdb, or write its "
                "structures with ASE's database"
            )
        return DataError(
            f"{self.here}: its record '{key}' is no row of ASE's database (JSON packed by zlib): the file is "
            f"damaged, or of another program; {_COPY}, or write its structures with ASE's database"
        )

    def numbers(self, account: Account) -> range | list[int]:
        """The numbers of the rows there are, in order; what is odd about them goes to the account."""
        entries = self.environment.stat()["entries"]
        next_ = self.json("nextid")
        if not isinstance(next_, int):
            return self._counted()
        gone = set(self.json("deleted_ids") or ())
        told = range(1, next_)
        left = [k for k in told if k not in gone] if gone else told
        if len(left) + sum(self.value(key) is not None for key in _RESERVED) == entries:
            return left
        there = self._counted()
        account.warnings.append(
            f"its index tells of {len(left)} rows, but {len(there)} are there, which are read: it may not have "
            "been written to its end"
        )
        return there

    def _counted(self) -> list[int]:
        """As :meth:`numbers`, from the keys that are there."""
        self._check_whole()
        try:
            with self.environment.begin() as transaction, transaction.cursor() as cursor:
                keys = [bytes(key) for key in cursor.iternext(keys=True, values=False)]
        except lmdb.Error as error:
            raise DataError(f"{self.here} is damaged ({error}); {_COPY}") from error
        rows = sorted(int(key) for key in keys if key.isdigit())
        if (keys and not rows) or b"length" in keys:
            content = self.value(keys[0].decode(errors="replace")) or b""
            if _pickled(content):
                raise self.no_rows("", content)
            shown = ", ".join(ascii(key)[1:] for key in keys[:5])
            raise DataError(
                f"{self.here} is not a database of ASE: rows have numbers for keys, but its {len(keys)} keys are "
                f"{shown}{', ...' if len(keys) > 5 else ''}; write its structures with ASE's database"
            )
        return rows


def _pickled(content: bytes) -> bool:
    """Whether a record is a Python pickle, told without running it."""
    if not content.startswith(b"\x80") or not content.endswith(b"."):
        return False
    try:
        return next(pickletools.genops(content))[0].name == "PROTO"
    except ValueError:
        return False


def _frame(file: _File, numbers: range | list[int], k: int) -> Frame:
    number = numbers[k]
    row = file.json(str(number))
    here = f"{file.here}: row {number}"
    if row is None:
        raise DataError(f"{here} is not there; the file was changed, or is damaged: {_COPY}")
    if not isinstance(row, dict) or not {"numbers", "positions"} <= row.keys():
        keys = f" (it has {', '.join(list(row)[:8])})" if isinstance(row, dict) else ""
        raise DataError(f"{here} has no numbers and positions{keys}; it is not of ASE's database")
    try:
        return _structure(row)
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{here} cannot be read: {error}; {_COPY}, or remove the row") from error


def _structure(row: dict[str, Any]) -> Frame:
    """A row as core's reader of ASE's databases would have it. Raises ValueError, TypeError, KeyError."""
    numbers = np.asarray(row["numbers"], dtype=np.int64)
    count = len(numbers)
    values: dict[str, Any] = {}
    for more in (row.get("data"), row.get("key_value_pairs")):
        if isinstance(more, Mapping):
            values.update(more)
    for inner in [value for value in values.values() if isinstance(value, Mapping)]:
        values = {**{key: one for key, one in inner.items() if key.isidentifier()}, **values}
    values.update({key: row[key] for key in (*_ARRAYS, *all_properties) if key in row})
    per_structure: dict[str, Any] = {}
    per_atom: dict[str, np.ndarray] = {}
    for key, given in values.items():
        value = _plain(given)
        if value is None:
            continue
        by_atom = isinstance(value, np.ndarray) and value.shape[:1] == (count,)
        if by_atom and key not in _OF_STRUCTURE:
            per_atom[key] = value
        else:
            per_structure[key] = value
    fixed = None
    if row.get("constraints"):
        fixed = fixed_components(AtomsRow(row).constraints, count)
    return Frame(
        numbers,
        np.asarray(row["positions"], dtype=np.float64).reshape(count, 3),
        _cell(row.get("cell")),
        np.broadcast_to(np.asarray(row.get("pbc", False), dtype=bool), (3,)).copy(),
        per_structure,
        per_atom,
        fixed,
    )


def _cell(value: Any) -> np.ndarray:
    if value is None:
        return np.zeros((3, 3))
    return np.asarray(getattr(value, "array", value), dtype=np.float64).reshape(3, 3)


def _plain(value: Any) -> Any:
    """A list of numbers as an array: the older version writes arrays so, and NaN as null."""
    if not isinstance(value, list) or not value:
        return value
    try:
        array = np.array(value)
        if array.dtype == object:
            array = np.array(value, dtype=np.float64)
    except (ValueError, TypeError):
        return value
    return array if array.dtype.kind in "biuf" else value
