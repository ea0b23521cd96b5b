"""What is known of formats as ASE reads them: names and units of quantities, flaws and their remedies.

A newcomer adds an entry to :data:`KNOWN`. A remedy is a function of the frames, the text and the
path of the file that corrects the frames in place and says so in their account; it raises :class:`Incomplete`, its text
the rest of ``'file' ...``, where the file must be refused. What holds for every format is not here but
in :mod:`.settle`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from atomtrain.data.readers import outcar
from atomtrain.data.readers.account import Frames, Quantity
from atomtrain.data.readers.frames import keys_of
from atomtrain.data.readers.units import BOHR, GPA, HARTREE, RYDBERG
from atomtrain.data.readers.whole import Incomplete
from atomtrain.frame import Frame

Remedy = Callable[[Frames, bytes, str], None]


@dataclass(frozen=True)
class Known:
    """A format of ASE's: what codes call its quantities, and what is to be done about its flaws.

    ``names``: by key of the frames, in the terms of the code. ``keywords``: what ASE's reader is called
    with. ``units``: whether the format, or ASE for it, fixes all units (eV, angstrom and their
    combinations). ``steps``: what each step of a run has once; ``cell``: words of a periodic calculation,
    without a cell of which the file is refused. ``prepared``: the text as ASE is to read it; ``instead``: what
    reads the text where ASE cannot (ValueError where it cannot either).
    """

    names: Mapping[str, str] = field(default_factory=dict)
    remedies: tuple[Remedy, ...] = ()
    keywords: Callable[[], dict[str, Any]] = dict
    units: bool = True
    steps: bytes = b""
    cell: bytes = b""
    prepared: Callable[[bytes], bytes] | None = None
    instead: Callable[[bytes], list[Frame]] | None = None


UNITS = {
    "energy": "eV",
    "free_energy": "eV",
    "forces": "eV/A",
    "stress": "eV/A^3",
}


def account_for(frames: Frames, format: str, content: Callable[[], bytes], path: str) -> None:
    """Complete the account of what ASE read, and apply the remedies for what it is known to get wrong."""
    known = KNOWN.get(format, Known())
    account = frames.account
    if known.units:
        account.length_unit = "angstrom"
    there = keys_of(frames)
    for key, unit in UNITS.items():
        if key in there and (known.units or key in known.names):
            name = known.names.get(key, "")
            account.quantities[key] = Quantity(name, unit if known.units else "")
    text = content() if known.remedies or known.steps or known.cell else b""
    if known.steps:
        account.announced = len(re.findall(known.steps, text, re.MULTILINE)) or None
    periodic = any(frame.cell.any() for frame in frames)
    if known.cell and not periodic and re.search(known.cell, text, re.MULTILINE):
        raise Incomplete(
            f"is of a periodic calculation, but ASE does not read its cell as '{format}'; write it as extended "
            "xyz with its cell"
        )
    for remedy in known.remedies:
        remedy(frames, text, path)
    if account.announced is not None and account.announced > len(frames) + 1:
        account.warnings.append(
            f"{account.announced} steps begin in the file, of which {len(frames)} were read as structures with "
            "results"
        )


# Steps that did not converge


def _matched(frames: Frames, energies: list[float], wrong: list[bool]) -> None:
    """Note the frames whose energy (eV) is that of a step that did not converge."""
    for k, frame in enumerate(frames):
        mine = [frame.find(key) for key in ("energy", "free_energy")]
        for energy, unconverged in zip(energies, wrong, strict=True):
            if unconverged and any(e is not None and abs(float(e) - energy) < 1e-4 for e in mine):
                frames.account.unconverged.append(k)
                break


def _vasprun_unconverged(frames: Frames, text: bytes, path: str) -> None:
    """Steps with as many cycles as are allowed (NELM), whose energy still changed by more than EDIFF."""
    nelm = re.search(rb'name="NELM"\s*>\s*(\d+)', text)
    ediff = re.search(rb'name="EDIFF"\s*>\s*([-+\d.DdEe]+)', text)
    steps = text.split(b"<calculation>")[1:]
    if nelm is None or len(steps) != len(frames):
        return
    limit = int(nelm[1])
    for k, step in enumerate(steps):
        cycles = step.split(b"<scstep>")[1:]
        if not 1 < limit <= len(cycles):
            continue
        last = [re.search(rb'name="e_wo_entrp"\s*>\s*([-+\d.]+)', cycle) for cycle in cycles[-2:]]
        values = [_float(found[1]) for found in last if found is not None]
        if ediff is None or len(values) < 2 or abs(values[1] - values[0]) > _float(ediff[1]):
            frames.account.unconverged.append(k)


def _outcar_unconverged(frames: Frames, text: bytes, path: str) -> None:
    nelm = re.search(rb"NELM\s*=\s*(\d+)", text)
    ends = re.split(rb"FREE ENERGIE OF THE ION-ELECTRON SYSTEM", text)
    if nelm is None or len(ends) != len(frames) + 1:
        return
    limit = int(nelm[1])
    for k, step in enumerate(ends[:-1]):
        cycles = [int(n) for n in re.findall(rb"Iteration\s+\d+\(\s*(\d+)\)", step)]
        reached = b"aborting loop because EDIFF is reached" in step
        said = b"EDIFF was not reached" in step
        if said or (cycles and max(cycles) >= limit > 1 and not reached):
            frames.account.unconverged.append(k)


def _gaussian_unconverged(frames: Frames, text: bytes, path: str) -> None:
    parts = re.split(rb"SCF Done:\s*E\([^)]*\)\s*=\s*([-+\d.DE]+)", text)
    energies = [_float(value) * HARTREE for value in parts[1::2]]
    wrong = [
        b"Convergence criterion not met" in before
        or after.lstrip().find(b"Convergence failure") >= 0
        for before, after in zip(parts[0:-1:2], parts[2::2], strict=True)
    ]
    _matched(frames, energies, wrong)


def _espresso(frames: Frames, text: bytes, path: str) -> None:
    """The last energy before each set of forces, and whether its cycle converged.

    With hybrid functionals ASE takes the energy of an earlier cycle: that of the last begins with '!!'.
    """
    steps = _espresso_steps(text)
    if len(steps) != len(frames):
        if any(step.wrong for step in steps):
            _matched(frames, [step.energy for step in steps], [step.wrong for step in steps])
        return
    changed = 0
    for k, (frame, step) in enumerate(zip(frames, steps, strict=True)):
        if step.hybrid and "energy" in frame.per_structure:
            for key in frame.per_structure.keys() & {"energy", "free_energy"}:
                frame.per_structure[key] = step.energy
            changed += 1
        if step.wrong:
            frames.account.unconverged.append(k)
    if changed:
        frames.account.notes.append(
            f"energies of {changed} structures are those after the exchange converged ('!!'), to which the "
            "forces belong"
        )


@dataclass
class _Step:
    """The self-consistent cycles that end with one set of forces."""

    energy: float
    hybrid: bool
    wrong: bool = False


def _espresso_steps(text: bytes) -> list[_Step]:
    found = re.compile(
        rb"^(!!?)\s+total energy\s+=\s+(\S+) Ry|^\s+(Forces) acting on atoms|convergence (NOT) achieved",
        re.MULTILINE,
    )
    steps: list[_Step] = []
    closed = True
    for match in found.finditer(text):
        if match[1]:
            step = _Step(_float(match[2]) * RYDBERG, match[1] == b"!!")
            if closed:
                steps.append(step)
            else:
                steps[-1] = step
            closed = False
        elif match[3]:
            closed = True
        elif closed:  # without an energy of its own
            steps.append(_Step(math.nan, hybrid=False, wrong=True))
            closed = False
        else:
            steps[-1].wrong = True
    return steps


def _float(word: bytes) -> float:
    return float(word.replace(b"D", b"E").replace(b"d", b"e"))


# Elements


def _lammps_dump(frames: Frames, text: bytes, path: str) -> None:
    """A dump has no energy; without a column of elements it has types, which ASE takes for elements."""
    header = re.search(rb"^ITEM: ATOMS([^\n]*)", text, re.MULTILINE)
    columns = header[1].split() if header else []
    for frame in frames:
        frame.per_structure.pop("energy", None)
    frames.account.quantities.pop("energy", None)
    frames.account.types = b"element" not in columns and b"mass" not in columns
    if b"mass" in columns and b"element" not in columns:
        frames.account.notes.append("elements are those with the nearest masses")


def _lammps_data(frames: Frames, text: bytes, path: str) -> None:
    masses, labels = b"\nMasses" in text, b"\nAtom Type Labels" in text
    frames.account.types = not (masses or labels)
    if masses and not labels:
        frames.account.notes.append("elements are those with the nearest masses")


# Units, cells and energies


def _qbox(frames: Frames, text: bytes, path: str) -> None:
    """Qbox writes hartree, bohr and GPa (pressure positive), of which ASE converts nothing."""
    for frame in frames:
        frame.positions *= BOHR
        frame.cell *= BOHR
        for key in frame.per_structure.keys() & {"energy", "free_energy"}:
            frame.per_structure[key] *= HARTREE
        if "forces" in frame.per_atom:
            frame.per_atom["forces"] = frame.per_atom["forces"] * (HARTREE / BOHR)
        if "stress" in frame.per_structure:
            frame.per_structure["stress"] = -np.asarray(frame.per_structure["stress"]) * GPA
    frames.account.notes.append(
        "converted from hartree and bohr, stress from GPa with its sign turned"
    )


def _always_periodic(frames: Frames, text: bytes, path: str) -> None:
    """Of codes that know periodic cells only, ASE gives the cell but says that it is not periodic."""
    for frame in frames:
        if frame.cell.any(1).all():
            frame.pbc = np.full(3, True)


def _gpaw_text(frames: Frames, text: bytes, path: str) -> None:
    """ASE reads the extrapolated energy alone; forces belong to the free energy beside it."""
    values = [float(value) for value in re.findall(rb"^Free energy:\s+(\S+)", text, re.MULTILINE)]
    if len(values) == len(frames):
        for frame, value in zip(frames, values, strict=True):
            frame.per_structure["free_energy"] = value
        frames.account.quantities["free_energy"] = Quantity("Free energy", "eV")


def _turbomole(frames: Frames, text: bytes, path: str) -> None:
    """The cell is in the file 'control' beside it, or in other groups, which ASE does not read."""
    beside = Path(path).with_name("control")
    control = beside.read_bytes() if beside.is_file() else b""
    if any(
        re.search(rb"^\$(?:periodic\s+[1-3]|lattice|cell)", one, re.MULTILINE)
        for one in (text, control)
    ):
        raise Incomplete(
            "is of a periodic calculation of TURBOMOLE ($periodic, $lattice), whose cell ASE does not read; "
            "write it as extended xyz with its cell"
        )


def _placeholder_cell(frames: Frames, text: bytes, path: str) -> None:
    """'CRYST1 1.000 1.000 1.000' stands for no cell."""
    for frame in frames:
        if np.allclose(frame.cell, np.eye(3)):
            frame.cell = np.zeros((3, 3))
            frame.pbc = np.zeros(3, dtype=bool)
            note = "a cell of 1 x 1 x 1 (CRYST1) stands for none"
            if note not in frames.account.notes:
                frames.account.notes.append(note)


# Labels


def _no_units(frames: Frames, text: bytes, path: str) -> None:
    frames.account.usual_units = "bohr and hartree"
    zero = [k for k, frame in enumerate(frames) if _all_zero(frame.find("energy"))]
    if len(zero) == len(frames) > 1:
        for frame in frames:
            frame.per_structure.pop("energy", None)
        frames.account.quantities.pop("energy", None)
        frames.account.notes.append("all energies are 0: they are placeholders, and not read")
        if all(_all_zero(frame.find("forces")) for frame in frames):
            for frame in frames:
                frame.per_atom.pop("forces", None)
            frames.account.quantities.pop("forces", None)
            frames.account.notes.append("all forces are 0: they are placeholders, and not read")


def _all_zero(value: Any) -> bool:
    return value is not None and not np.any(np.asarray(value))


def _onetep(frames: Frames, text: bytes, path: str) -> None:
    """ASE makes a cell of ones where it does not know how the block of the cell is written."""
    if all((frame.cell == 1).all() for frame in frames):
        block = re.search(
            rb"^\s*%block\s+lattice_cart\s*\n(.*?)%endblock", text, re.I | re.M | re.S
        )
        words = block[1].split() if block else []
        angstrom = bool(words) and words[0].lower().startswith(b"ang")
        numbers = [word for word in words if re.match(rb"[-+.\d]", word)]
        if len(numbers) != 9:
            raise Incomplete(
                "is of ONETEP, but its cell (lattice_cart) is not in it; write it as extended xyz with its cell"
            )
        cell = np.array([_float(word) for word in numbers]).reshape(3, 3)
        for frame in frames:
            frame.cell = cell * (1.0 if angstrom else BOHR)
        frames.account.notes.append("the cell is that of lattice_cart in the input it begins with")
    _always_periodic(frames, text, path)


def _abinit(frames: Frames, text: bytes, path: str) -> None:
    """ASE takes ``rprim`` for the cell in angstrom, without ``acell`` and in bohr."""
    if re.search(rb"^\s*optcell\d*\s+[1-9]", text, re.MULTILINE):
        raise Incomplete(
            "is of a run of ABINIT with a changing cell (optcell), whose cells ASE does not read; read its "
            "_HIST.nc or _GSR.nc with the tools of ABINIT, and write it as extended xyz"
        )
    rows = re.findall(rb"R\([123]\)=\s*(\S+)\s+(\S+)\s+(\S+)", text)
    cells = np.array([[_float(word) for word in row] for row in rows]).reshape(-1, 3, 3)
    if not len(cells):
        found = re.search(rb"^\s*acell\s+(\S+)\s+(\S+)\s+(\S+)", text, re.MULTILINE)
        lengths = np.array([_float(word) for word in found.groups()]) if found else np.ones(3)
        cells = np.stack([frame.cell * lengths[:, None] for frame in frames])
    if np.abs(cells - cells[0]).max() > 1e-6:
        raise Incomplete(
            "has data sets of ABINIT with several cells, of which ASE reads one; give each its own output"
        )
    for frame in frames:
        frame.cell = cells[0] * BOHR
    frames.account.notes.append("the cell is in bohr in the file")


def _castep(frames: Frames, text: bytes, path: str) -> None:
    """With a dispersion correction ASE gives energies without it; forces have it."""
    changed = 0
    for frame in frames:
        found = frame.per_structure
        corrected = {key: found.get(f"{key}_with_dispersion_correlation") for key in _CASTEP}
        if corrected["energy"] is None:
            continue
        free = (
            corrected["free_energy"]
            if corrected["free_energy"] is not None
            else corrected["energy"]
        )
        zero = corrected["energy_zero"] if corrected["energy_zero"] is not None else free
        found.update(energy=zero, free_energy=free)
        changed += 1
    if changed:
        frames.account.notes.append(
            f"energies of {changed} structures are those with dispersion correction"
        )


_CASTEP = ("energy", "free_energy", "energy_zero")


def _castep_text(text: bytes) -> bytes:
    """ASE knows the steps of BFGS and MD alone, wants a regular end, and mixes in the final summary."""
    text = re.sub(rb"\b\w+: (starting|improving) iteration", rb"BFGS: \1 iteration", text)
    steps = [
        m.start()
        for m in re.finditer(rb"^.*(?:BFGS: \w+ iteration|Starting MD iteration)", text, re.M)
    ]
    final = re.search(rb"^.*: Final Configuration", text, re.MULTILINE)
    if final is not None:
        last = text[steps[-1] if steps else 0 : final.start()]
        rest = text[final.start() :]
        for heading in (b" Forces *", b" Stress Tensor *"):
            if heading in last:
                rest = rest.replace(heading, b" of before *")
        text = text[: final.start()] + rest
    if b"Finalisation time   =" not in text:
        if steps and b"Forces *" not in text[steps[-1] :]:  # a step that was not finished
            text = text[: steps[-1]]
        text += b"\n Finalisation time   =      0.00 s\n"
    return text


def _aims(frames: Frames, text: bytes, path: str) -> None:
    """In dynamics the cell is printed once, and ASE gives a last frame with the first positions."""
    found = re.search(rb"\| Unit cell:\s*\n((?:\s*\|.*\n){3})", text)
    if found is not None:
        rows = [line.replace(b"|", b"").split()[:3] for line in found[1].splitlines()]
        cell = np.array([[float(word) for word in row] for row in rows])
        lost = [frame for frame in frames if not frame.cell.any()]
        for frame in lost:
            frame.cell, frame.pbc = cell.copy(), np.full(3, True)
        if lost:
            frames.account.notes.append(
                f"{len(lost)} structures have the cell of the beginning of the file"
            )
    if len(frames) > 1 and np.array_equal(frames[0].positions, frames[-1].positions):
        energies = [frames[0].find("energy"), frames[-1].find("energy")]
        if None not in energies and abs(energies[0] - energies[1]) > 1e-6:
            frames.pop()
            frames.account.notes.append(
                "the last step is left out: ASE gives it the positions of the first"
            )


def _atomic_units() -> dict[str, Any]:
    """RuNNer and n2p2 have no units: the numbers as they are written."""
    from ase.io.runner.runneratoms import Units

    return {"output_units": Units.ATOMIC, "input_units": Units.ATOMIC}


_OWN_UNITS = Known(units=False)

KNOWN: dict[str, Known] = {
    # formats that hold whatever was put in
    "extxyz": _OWN_UNITS,
    "xyz": _OWN_UNITS,
    "db": _OWN_UNITS,
    "json": _OWN_UNITS,
    "traj": _OWN_UNITS,
    "bundletrajectory": _OWN_UNITS,
    "netcdftrajectory": _OWN_UNITS,
    "cfg": _OWN_UNITS,
    # formats with flaws
    "vasp-xml": Known(
        {"energy": "e_0_energy", "free_energy": "e_fr_energy"}, (_vasprun_unconverged,)
    ),
    "vasp-out": Known(
        {"energy": "energy(sigma->0)", "free_energy": "free energy TOTEN"},
        (_outcar_unconverged,),
        steps=rb"TOTAL-FORCE \(eV/Angst\)",
        instead=outcar.read,
    ),
    "espresso-out": Known({"energy": "total energy"}, (_espresso,), steps=rb"^!!?\s+total energy"),
    "gaussian-out": Known({"energy": "SCF Done"}, (_gaussian_unconverged,), steps=rb"SCF Done:"),
    "lammps-dump-text": Known(remedies=(_lammps_dump,), units=False),
    "lammps-dump-binary": Known(remedies=(_lammps_dump,), units=False),
    "lammps-data": Known(remedies=(_lammps_data,), units=False),
    "runnerdata": Known(remedies=(_no_units,), keywords=_atomic_units, units=False),
    "castep-castep": Known(
        {
            "energy": "0K energy (E-0.5TS) or Final energy",
            "free_energy": "Final free energy (E-TS)",
        },
        (_castep,),
        prepared=_castep_text,
    ),
    "abinit-out": Known({"energy": "Etotal"}, (_abinit,)),
    "aims-output": Known({"energy": "Total energy corrected"}, (_aims,)),
    "nwchem-out": Known({"energy": "Total energy"}, cell=rb"lattice vectors in|lattice:\s+a1|a1=<"),
    "orca-output": Known(
        {"energy": "FINAL SINGLE POINT ENERGY"}, steps=rb"^FINAL SINGLE POINT ENERGY"
    ),
    "gpaw-out": Known({"energy": "Extrapolated"}, (_gpaw_text,)),
    "qbox": Known({"energy": "etotal"}, (_qbox,)),
    "eon": Known(remedies=(_always_periodic,)),
    "onetep-out": Known({"energy": "Total"}, (_onetep,)),
    "turbomole": Known(remedies=(_turbomole,)),
    "turbomole-gradient": Known({"energy": "SCF energy"}, (_turbomole,)),
    "proteindatabank": Known(remedies=(_placeholder_cell,)),
}
