"""Files of structures that ASE reads, whole or not at all, with all the values they have."""

from __future__ import annotations

import io
import re
import sqlite3
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import __version__ as ase_version

from atomtrain.data.readers.account import Account, Frames
from atomtrain.data.readers.base import existing
from atomtrain.data.readers.content import (
    DAMAGED,
    PACKING,
    beginning,
    not_structures,
    opened,
    packed,
)
from atomtrain.data.readers.flaws import KNOWN, account_for
from atomtrain.data.readers.recognise import folder_remedy, remedy, written_by
from atomtrain.data.readers.whole import (
    COUNTED,
    Incomplete,
    XyzText,
    check_all_read,
    xyz_pieces,
)
from atomtrain.errors import DataError, did_you_mean
from atomtrain.frame import Frame
from atomtrain.targets.units import conversion

_DATABASES = ("db", "json")
_FOR_DEVELOPERS = (DeprecationWarning, PendingDeprecationWarning, FutureWarning)
_OF_SET_UP = re.compile("CASTEP (keywords|binary|input)")
"""remarks on programs that are not installed, which have nothing to do with the file"""
_DAMAGED = "is packed, and cut off or damaged; copy or download it again"


def read_ase(path: str, where: str, format: str = "") -> Frames:
    """Frames of any file ASE reads; without ``format`` (a name of ASE's) it is told by name and content.

    Raises DataError where the file, or the last of it, cannot be read.
    """
    if Path(path).is_dir():
        advice = folder_remedy(Path(path)) or (
            f"name the files in it, for instance {Path(path, '*.xyz')}"
        )
        raise DataError(
            f"{where}: '{path}' is a directory, but neither a folder of arrays (ns.npy) nor of maps "
            f"(0.mts, 1.mts, ...); {advice}"
        )
    existing(path, where)
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            frames = _read(path, format, said)
    except Incomplete as error:
        cause = error.__cause__
        raise DataError(f"{where}: '{path}' {error}") from cause
    except OSError as error:
        raise DataError(f"{where}: '{path}' cannot be read: {error.strerror or error}") from error
    return frames


def read_in_pieces(
    path: str, where: str, format: str, size: int
) -> Iterator[tuple[Frames, int]] | None:
    """What :func:`read_ase` gives, about ``size`` bytes of text at a time, with their number; None: all at once.

    Extended xyz can be read so. What is wrong with a piece raises DataError, whose message counts frames and lines
    from the piece's first.
    """
    try:
        if Path(path).is_dir() or Path(path).stat().st_size < size:
            return None
        head = beginning(path)
        if not_structures(head) or (_known(format) if format else _format(path, head)) != "extxyz":
            return None
    except (Incomplete, OSError, *DAMAGED):
        return None  # reading it says what is the matter
    return _pieces(path, where, size)


def _pieces(path: str, where: str, size: int) -> Iterator[tuple[Frames, int]]:
    try:
        with opened(path) as file:
            for text in xyz_pieces(file, size):
                with warnings.catch_warnings(record=True) as said:
                    warnings.simplefilter("always")
                    yield _as("extxyz", path, said, text), len(text)
    except Incomplete as error:
        raise DataError(f"{where}: '{path}' {error}") from error.__cause__
    except DAMAGED as error:
        raise DataError(f"{where}: '{path}' {_DAMAGED}") from error


def _read(path: str, format: str, said: list[warnings.WarningMessage]) -> Frames:
    """The frames; ``said`` are the warnings so far. Raises Incomplete, or OSError."""
    try:
        head = beginning(path)
    except DAMAGED as error:
        raise Incomplete(_DAMAGED) from error
    problem = not_structures(head)
    if problem:
        raise Incomplete(problem)
    format = _known(format) if format else _format(path, head)
    try:
        return _as(format, path, said)
    except Incomplete as error:
        if f"'{format}'" in str(error):
            raise
        text = f"{error} (read as '{format}'; write format: if it is another)"
        raise Incomplete(text) from error.__cause__


def _as(
    format: str, path: str, said: list[warnings.WarningMessage], piece: bytes | None = None
) -> Frames:
    """The frames of a file of a known format, or of a ``piece`` of its text. Raises Incomplete, or OSError."""
    account = Account(format=format, reader=f"ASE {ase_version}")
    if format != "extxyz":
        return _told(_File(path, format, account), said)
    xyz = XyzText(_in_utf8(_content(path) if piece is None else piece, account))
    try:
        frames = _told(_File(path, format, account, xyz), said)
    except Incomplete:
        if not xyz.plain_species():
            raise
        frames = _told(_File(path, format, account, xyz), said)
    account.notes[:0] = xyz.comments.notes
    account.quantities.update(xyz.comments.quantities)
    account.types = xyz.types
    return frames


@dataclass(frozen=True)
class _File:
    """A file to be read by ASE; ``xyz``: its text, where that was prepared for ASE."""

    path: str
    format: str
    account: Account
    xyz: XyzText | None = None


def _told(file: _File, said: list[warnings.WarningMessage]) -> Frames:
    """The frames of a file, with all that is known of it. Raises Incomplete, or OSError."""
    path, format = file.path, file.format
    with open(path, "rb") as raw:
        is_packed = packed(raw.read(8))
    frames = Frames(account=file.account)
    told = len(said)
    try:
        for frame in _frames(file):
            frames.append(frame)
            if len(said) > told:
                told = _tell(said, told, len(frames) - 1, frames.account)
        if format in COUNTED:
            check_all_read(format, _content(path), [len(frame.numbers) for frame in frames])
    except (Incomplete, MemoryError):
        raise
    except ImportError as error:
        raise Incomplete(
            f"needs a package to be read that is not installed; install '{error.name}'"
        ) from error
    except Exception as error:  # every format fails in its own way
        if is_packed and isinstance(error, DAMAGED):
            raise Incomplete(_DAMAGED) from error
        frames = _instead(file, _stopped(format, len(frames), file.xyz), error)
    if not frames or not any(len(frame.numbers) for frame in frames):
        raise Incomplete(
            f"holds no structures that ASE can read as '{format}', which its name or content says it is; if it "
            "is another format, name it (format: in the options); else it is cut off or of another version"
        )
    account_for(frames, format, lambda: _content(path), path)
    return frames


def _instead(file: _File, stopped: str, cause: Exception) -> Frames:
    """Frames of a file that ASE cannot read. Raises Incomplete where nothing else can."""
    known = KNOWN.get(file.format)
    if known is None or known.instead is None:
        raise Incomplete(stopped) from cause
    try:
        frames = Frames(known.instead(_content(file.path)), file.account)
    except ValueError as error:
        raise Incomplete(f"{stopped} ({error})") from cause
    file.account.reader = "atomtrain"
    file.account.notes.append(f"ASE {ase_version} cannot read it")
    return frames


def _content(path: str) -> bytes:
    with opened(path) as file:
        content: bytes = file.read()
    return content


def _frames(file: _File) -> Iterator[Frame]:
    """What ASE reads of a file, frame by frame."""
    import ase.io
    from ase.io.formats import ioformats

    path, format = file.path, file.format
    if format in _DATABASES:
        yield from _rows(path, format, file.account)
        return
    source: Any = path
    if file.xyz is not None:
        source = io.TextIOWrapper(io.BytesIO(file.xyz.content), encoding="utf-8")
    elif ioformats[format].acceptsfd and ioformats[format].isbinary:
        source = opened(path)
    elif ioformats[format].acceptsfd:
        source = _text(path, file.account)
    more = KNOWN[format].keywords() if format in KNOWN else {}
    try:
        for atoms in ase.io.iread(source, ":", format, do_not_split_by_at_sign=True, **more):
            yield _frame(atoms)
    finally:
        if source is not path:
            source.close()


def _text(path: str, account: Account) -> io.TextIOWrapper:
    text = _in_utf8(_content(path), account)
    known = KNOWN.get(account.format)
    content = io.BytesIO(known.prepared(text) if known and known.prepared else text)
    content.name = path  # type: ignore[attr-defined]  # readers look for files beside it
    return io.TextIOWrapper(content, encoding="utf-8")


def _in_utf8(content: bytes, account: Account) -> bytes:
    """The text of a file in UTF-8; what is not is taken for Latin-1, in which every byte is a letter."""
    try:
        content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        account.notes.append(f"is not text in UTF-8 (line {line}): read as Latin-1")
        return content.decode("latin-1").encode()
    return content


def _rows(path: str, format: str, account: Account) -> Iterator[Frame]:
    """The rows of a database, with their key-value pairs and ``data``, and the units that it states."""
    import ase.db

    if format == "db":
        _check_database(path)
    source: Any = path if format == "db" else opened(path, text=True)
    try:
        database = ase.db.connect(source, type=format, use_lock_file=False, serial=True)
        units = _units_of_schnetpack(database.metadata, account)
        for row in database.select():
            yield _frame(row.toatoms(), {**units, **row.data, **row.key_value_pairs})
    finally:
        if source is not path:
            source.close()


def _units_of_schnetpack(metadata: Mapping[str, Any], account: Account) -> dict[str, str]:
    """The units that SchNetPack keeps beside its rows, as a frame would state them: ``energy_unit``."""
    stated = metadata.get("_property_unit_dict") or {}
    units = {}
    for key, unit in stated.items():
        written = _in_our_words(str(unit))
        with suppress(ValueError):  # of other quantities the options say it
            conversion(written, written)
            units[f"{key}_unit"] = written
    length = _in_our_words(str(metadata.get("_distance_unit") or ""))
    if length:
        with suppress(ValueError):
            conversion(length, "angstrom")
            account.length_unit = length
    if stated:
        said = ", ".join(f"{key} in {unit}" for key, unit in stated.items())
        account.notes.append(f"SchNetPack's metadata say: {said}")
    if any(np.any(values) for values in (metadata.get("atomrefs") or {}).values()):
        account.notes.append(
            "energies of single atoms in SchNetPack's metadata (atomrefs) are not taken"
        )
    return units


def _in_our_words(unit: str) -> str:
    """A unit as SchNetPack writes it (``kcal/mol/Ang``), as it is written here."""
    words = {"Ang": "angstrom", "Ha": "Hartree", "a0": "Bohr"}
    return re.sub(r"[A-Za-z0-9]+", lambda found: words.get(found[0], found[0]), unit)


def _check_database(path: str) -> None:
    """Of others ASE would read nothing, and make its own tables in them."""
    with open(path, "rb") as file:
        start = file.read(16)
    if packed(start):
        raise Incomplete("is packed; unpack it first (gunzip, bunzip2, unxz)")
    if start != b"SQLite format 3\0":
        raise Incomplete("is not a database of ASE, or is damaged; copy or download it again")
    address = f"{Path(path).resolve().as_uri()}?mode=ro"
    with closing(sqlite3.connect(address, uri=True)) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master")]
    if "systems" not in tables:
        raise Incomplete(
            f"is a database, but none of ASE (it has: {', '.join(tables[:5]) or 'no tables'}); write "
            "the structures with ASE, or as extended xyz"
        )


def _frame(atoms: Any, more: Mapping[str, Any] | None = None) -> Frame:
    """A structure with all its values; where names meet, results go before ``info`` before ``more``."""
    count = len(atoms)
    results = {} if atoms.calc is None else atoms.calc.results
    info = {**(more or {}), **atoms.info}
    for inner in [value for value in info.values() if isinstance(value, Mapping)]:
        # a row's 'data', a calculator's 'results': what is in them counts as beside them
        info = {
            **{k: v for k, v in inner.items() if isinstance(k, str) and k.isidentifier()},
            **info,
        }
    info.update(results)
    per_atom = {k: v for k, v in atoms.arrays.items() if k not in ("numbers", "positions")}
    per_structure = {}
    for key, value in info.items():
        given = isinstance(value, np.ndarray) and (key in results or key in (more or {}))
        if given and value.shape[:1] == (count,) and key != "stress":  # six numbers for six atoms
            per_atom[key] = value
        else:
            per_structure[key] = value
    return Frame(
        atoms.numbers.astype(np.int64),
        atoms.positions.astype(np.float64),
        np.asarray(atoms.cell.array, dtype=np.float64),
        np.asarray(atoms.pbc, dtype=bool),
        per_structure,
        per_atom,
        fixed_components(atoms.constraints, count),
    )


def fixed_components(constraints: Iterable[Any], n_atoms: int) -> np.ndarray | None:
    """Components of positions that ASE's constraints hold, [n, 3] bool; None: none."""
    from ase.constraints import FixAtoms, FixCartesian, FixScaled

    fixed = np.zeros((n_atoms, 3), dtype=bool)
    for constraint in constraints:
        if isinstance(constraint, FixAtoms):
            fixed[constraint.index] = True
        elif isinstance(constraint, FixCartesian):
            fixed[constraint.index] |= constraint.mask
        elif isinstance(constraint, FixScaled) and np.all(constraint.mask):
            fixed[constraint.index] = True
    return fixed if fixed.any() else None


def _tell(said: list[warnings.WarningMessage], told: int, frame: int, account: Account) -> int:
    """Note warnings of ASE's on a frame, each text once; gives how many there were."""
    for one in said[told:]:
        text = " ".join(str(one.message).split())
        text = text if len(text) < 200 else f"{text[:200]}..."
        known = any(note.startswith(f"ASE says: {text}") for note in account.notes)
        if (
            not known
            and not issubclass(one.category, _FOR_DEVELOPERS)
            and not _OF_SET_UP.search(text)
        ):
            account.notes.append(f"ASE says: {text} (frame {frame})")
    return len(said)


def _known(format: str) -> str:
    """A format that the options name. Raises Incomplete if ASE does not read it."""
    from ase.io.formats import ioformats

    if format in ioformats and ioformats[format].can_read:
        return format
    readable = [name for name, one in ioformats.items() if one.can_read]
    raise Incomplete(
        f"cannot be read as format '{format}', which ASE does not know{did_you_mean(format, readable)}"
    )


def _format(path: str, head: bytes) -> str:
    """ASE's name of the format. Raises Incomplete if there is none."""
    guess = _guessed(path, head)
    if guess == "extxyz":
        return guess  # whatever its comments say of the code
    code = written_by(head)
    if code is not None and code.format:
        return code.format
    if code is not None:
        raise Incomplete(f"is an output of {code.name}, which ASE does not read; {remedy(code)}")
    if guess:
        return guess
    place = Path(path)
    ending = f"the extension '{place.suffix}'" if place.suffix else "no extension"
    raise Incomplete(
        f"is of no format that ASE knows: it has {ending}, and its content tells nothing; give it the "
        "extension of its format (.xyz, .cif, .db, .traj, ...), name its format in the options (format: "
        "vasp-xml), or convert it to extended xyz"
    )


def _guessed(path: str, head: bytes) -> str:
    """ASE's name of the format, as it guesses it; empty if it does not know one that it can read."""
    from ase.io.formats import UnknownFileTypeError, filetype, ioformats

    place = Path(path).absolute()  # ASE takes 'mysql/a.xyz' for the address of a database
    if place.suffix.lower() in PACKING:
        place = place.with_suffix("")
    for guess in (True, False):  # by the name, else by the look of it
        start = io.BytesIO(head)
        start.name = str(place)  # type: ignore[attr-defined]
        try:
            format = filetype(start, guess=guess)
        except UnknownFileTypeError:
            continue
        if format in ioformats and ioformats[format].can_read:
            return format
    return ""


def _stopped(format: str, read: int, xyz: XyzText | None) -> str:
    """Where ASE gave up, having read some frames."""
    if xyz is None:
        after = f" after {read} frames" if read else ""
        return (
            f"cannot be read{after}: it is damaged or cut off, or not of the format it was read as "
            f"('{format}' of ASE); copy it again, or convert it to extended xyz"
        )
    plain = xyz.why_not(read) if read < len(xyz.lines) else ""
    if plain or read >= len(xyz.lines):
        return f"cannot be read: {plain or 'ASE and atomtrain disagree on where its frames begin'}"
    return (
        f"cannot be read: something is wrong in frame {read}, which begins on line {xyz.lines[read]}; "
        "repair or remove it"
    )
