"""What is known of formats as ASE reads them: names and units of quantities, flaws and their remedies.

A newcomer adds an entry to :data:`KNOWN`. A remedy is a function of the frames and the text of the file
that corrects the frames in place and says so in their account; it raises :class:`Incomplete`, its text
the rest of ``'file' ...``, where the file must be refused. What holds for every format is not here but
in :mod:`.settle`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from atomtrain.data.readers.account import Frames, Quantity
from atomtrain.data.readers.units import HARTREE, RYDBERG

Remedy = Callable[[Frames, bytes], None]


@dataclass(frozen=True)
class Known:
    """A format of ASE's: what codes call its quantities, and what is to be done about its flaws.

    ``names``: by key of the frames, in the terms of the code. ``keywords``: what ASE's reader is called
    with. ``units``: whether the format, or ASE for it, fixes all units (eV, angstrom and their
    combinations).
    """

    names: Mapping[str, str] = field(default_factory=dict)
    remedies: tuple[Remedy, ...] = ()
    keywords: Callable[[], dict[str, Any]] = dict
    units: bool = True


UNITS = {
    "energy": "eV",
    "free_energy": "eV",
    "forces": "eV/A",
    "stress": "eV/A^3",
}


def account_for(frames: Frames, format: str, content: Callable[[], bytes]) -> None:
    """Complete the account of what ASE read, and apply the remedies for what it is known to get wrong."""
    known = KNOWN.get(format, Known())
    account = frames.account
    if known.units:
        account.length_unit = "angstrom"
    there: set[str] = set().union(*(frame.keys for frame in frames))
    for key, unit in UNITS.items():
        if key in there and (known.units or key in known.names):
            name = known.names.get(key, "")
            account.quantities[key] = Quantity(name, unit if known.units else "")
    text = content() if known.remedies and frames else b""
    for remedy in known.remedies:
        remedy(frames, text)


# Steps that did not converge


def _matched(frames: Frames, energies: list[float], wrong: list[bool]) -> None:
    """Note the frames whose energy (eV) is that of a step that did not converge."""
    for k, frame in enumerate(frames):
        mine = [frame.find(key) for key in ("energy", "free_energy")]
        for energy, unconverged in zip(energies, wrong, strict=True):
            if unconverged and any(e is not None and abs(float(e) - energy) < 1e-4 for e in mine):
                frames.account.unconverged.append(k)
                break


def _vasprun_unconverged(frames: Frames, text: bytes) -> None:
    """A step with as many cycles as are allowed (NELM) did not converge."""
    nelm = re.search(rb'name="NELM"\s*>\s*(\d+)', text)
    steps = text.split(b"<calculation>")[1:]
    if nelm is None or len(steps) != len(frames):
        return
    limit = int(nelm[1])
    cycles = [step.count(b"<scstep>") for step in steps]
    frames.account.unconverged = [k for k, n in enumerate(cycles) if limit > 1 and n >= limit]


def _outcar_unconverged(frames: Frames, text: bytes) -> None:
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


def _gaussian_unconverged(frames: Frames, text: bytes) -> None:
    parts = re.split(rb"SCF Done:\s*E\([^)]*\)\s*=\s*([-+\d.DE]+)", text)
    energies = [_float(value) * HARTREE for value in parts[1::2]]
    wrong = [
        b"Convergence criterion not met" in before
        or after.lstrip().find(b"Convergence failure") >= 0
        for before, after in zip(parts[0:-1:2], parts[2::2], strict=True)
    ]
    _matched(frames, energies, wrong)


def _espresso(frames: Frames, text: bytes) -> None:
    """The last energy before each set of forces, and whether its cycle converged.

    With hybrid functionals ASE takes the energy of an earlier cycle: that of the last begins with '!!'.
    """
    found = re.compile(
        rb"^(!!?)\s+total energy\s+=\s+(\S+) Ry|^\s+Forces acting on atoms|"
        rb"convergence (NOT) achieved",
        re.MULTILINE,
    )
    runs: list[tuple[float, bool, bool]] = []  # energy, hybrid, not converged
    closed = True
    for match in found.finditer(text):
        if match[1]:
            entry = (_float(match[2]) * RYDBERG, match[1] == b"!!", False)
            if closed or not runs:
                runs.append(entry)
            else:
                runs[-1] = entry
            closed = False
        elif match[3] and runs:
            runs[-1] = (runs[-1][0], runs[-1][1], True)
        else:
            closed = True
    if len(runs) == len(frames):
        changed = 0
        for k, (frame, (energy, hybrid, wrong)) in enumerate(zip(frames, runs, strict=True)):
            if hybrid and "energy" in frame.per_structure:
                for key in ("energy", "free_energy"):
                    if key in frame.per_structure:
                        frame.per_structure[key] = energy
                changed += 1
            if wrong:
                frames.account.unconverged.append(k)
        if changed:
            frames.account.notes.append(
                f"energies of {changed} structures are those after the exchange converged ('!!'), to which "
                "the forces belong"
            )
    elif any(wrong for *_, wrong in runs):
        _matched(frames, [energy for energy, *_ in runs], [wrong for *_, wrong in runs])


def _float(word: bytes) -> float:
    return float(word.replace(b"D", b"E").replace(b"d", b"e"))


# Elements


def _lammps_dump(frames: Frames, text: bytes) -> None:
    """A dump has no energy; without a column of elements it has types, which ASE takes for elements."""
    header = re.search(rb"^ITEM: ATOMS([^\n]*)", text, re.MULTILINE)
    columns = header[1].split() if header else []
    for frame in frames:
        frame.per_structure.pop("energy", None)
    frames.account.quantities.pop("energy", None)
    frames.account.types = b"element" not in columns and b"mass" not in columns
    if b"mass" in columns and b"element" not in columns:
        frames.account.notes.append("elements are those with the nearest masses")


def _lammps_data(frames: Frames, text: bytes) -> None:
    masses, labels = b"\nMasses" in text, b"\nAtom Type Labels" in text
    frames.account.types = not (masses or labels)
    if masses and not labels:
        frames.account.notes.append("elements are those with the nearest masses")


# Labels


def _no_units(frames: Frames, text: bytes) -> None:
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


def _castep(frames: Frames, text: bytes) -> None:
    """Steps of a geometry optimisation that ASE leaves out are missed; see the count."""
    begun = len(re.findall(rb"^\s*Final (?:energy|free energy)", text, re.MULTILINE))
    if begun > len(frames):
        frames.account.announced = begun


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
        {"energy": "energy(sigma->0)", "free_energy": "free energy TOTEN"}, (_outcar_unconverged,)
    ),
    "espresso-out": Known({"energy": "total energy"}, (_espresso,)),
    "gaussian-out": Known({"energy": "SCF Done"}, (_gaussian_unconverged,)),
    "lammps-dump-text": Known(remedies=(_lammps_dump,), units=False),
    "lammps-data": Known(remedies=(_lammps_data,), units=False),
    "runnerdata": Known(remedies=(_no_units,), keywords=_atomic_units, units=False),
    "castep-castep": Known(
        {"energy": "0K energy (E-0.5TS)", "free_energy": "Final free energy (E-TS)"}, (_castep,)
    ),
    "gpaw-out": Known({"energy": "Extrapolated", "free_energy": "Free energy"}),
}
