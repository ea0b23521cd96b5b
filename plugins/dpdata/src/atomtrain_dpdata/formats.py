"""The formats of dpdata that are read, how they are recognised, and the remedies for their flaws.

A newcomer adds an entry to :data:`FORMATS`. A remedy raises :class:`Unreadable` where a file must be
refused; ``before`` are asked before dpdata reads, ``after`` correct what it has read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

from atomtrain_dpdata.run import Run, Unreadable

Remedy = Callable[[Run], None]
HARTREE = 27.211386245981


@dataclass(frozen=True)
class Format:
    """``path``: what the options must name; ``energy``: its name in the code; ``labels``: it may have any."""

    path: str
    energy: str = ""
    before: tuple[Remedy, ...] = ()
    after: tuple[Remedy, ...] = ()
    labels: bool = True
    keywords: Mapping[str, object] = field(default_factory=dict)


def _once(marker: str, instead: str) -> Remedy:
    """dpdata takes the last of several calculations, or parts of several: only files with one.

    ``marker``: what lines of each begin with, by which dpdata knows it.
    """
    found = re.compile(rf"^\s*{re.escape(marker)}", re.MULTILINE)

    def remedy(run: Run) -> None:
        count = len(found.findall(run.text))
        if count == 0:
            raise Unreadable(
                f"has no line '{marker}', by which dpdata finds what it reads: it is of a calculation that did "
                f"not end, of another kind, or of another version of the code; {instead}"
            )
        if count > 1:
            raise Unreadable(
                f"has {count} calculations ('{marker}'), and dpdata reads files with exactly one; {instead}"
            )

    return remedy


def _failed(marker: str) -> Remedy:
    """A file of one structure that says its cycle did not converge."""

    def remedy(run: Run) -> None:
        run.mark([re.search(marker, run.text) is not None], "cycles")

    return remedy


# DeePMD-kit

_OF_DPDATA = {"box", "coord", "energy", "force", "virial", "real_atom_types"}


def _more_arrays(run: Run) -> None:
    """Arrays that dpdata does not know: dipoles, energies of atoms."""
    sets = sorted(run.path.glob("set.*"))
    names = set.intersection(*({file.stem for file in one.glob("*.npy")} for one in sets))
    for name in sorted(names - _OF_DPDATA):
        parts = [np.load(one / f"{name}.npy", allow_pickle=False) for one in sets]
        values = np.concatenate([part.reshape(len(part), -1) for part in parts])
        if len(values) != len(run.frames) or values.dtype.kind not in "iuf":
            run.account.notes.append(f"{name}.npy has no value for each structure, and is not read")
            continue
        for frame, value in zip(run.frames, values, strict=True):
            n = len(frame.numbers)
            if name.startswith("atom") and value.size % n == 0:
                frame.per_atom.setdefault(name, value.reshape(n, -1))
            else:
                frame.per_structure.setdefault(name, value if value.size > 1 else value[0])


# ABACUS

_ABACUS_FAILED = re.compile(r"convergence has not been achieved", re.IGNORECASE)


def _abacus_log(run: Run) -> str:
    words = dict(line.split()[:2] for line in run.beside(run.path / "INPUT").splitlines()
                 if len(line.split()) > 1)  # fmt: skip
    kind = words.get("calculation", "scf")
    return run.beside(run.path / f"OUT.{words.get('suffix', 'ABACUS')}" / f"running_{kind}.log")


def _abacus_converged(run: Run) -> None:
    """dpdata leaves such steps out without counting them, and in relaxations pairs what is left wrongly."""
    failed = len(_ABACUS_FAILED.findall(_abacus_log(run)))
    if failed:
        raise Unreadable(
            f"has {failed} steps whose electrons did not converge, which dpdata leaves out without saying "
            "which; converge them, or take them out of the run"
        )


def _abacus_pairs(run: Run) -> None:
    """Energies and forces of a relaxation are paired by their order."""
    log = _abacus_log(run)
    energies = len(re.findall(r"final etot is|#TOTAL ENERGY#", log))
    forces = len(re.findall(r"TOTAL-FORCE", log))
    if forces and abs(energies - forces) > 1:
        raise Unreadable(
            f"has {energies} energies but {forces} sets of forces, which dpdata would pair by their order; "
            "write forces in every step (cal_force 1)"
        )


# CP2K


def _cp2k_converged(run: Run) -> None:
    if "SCF run converged" not in run.text and "SCF run NOT converged" in run.text:
        raise Unreadable(
            "is of a run whose electrons did not converge, which dpdata does not read; converge it first"
        )


def _cp2k_forces(run: Run) -> None:
    logs, positions = sorted(run.path.glob("*.log")), sorted(run.path.glob("*pos*.xyz"))
    if not logs or not positions:
        raise Unreadable(
            "needs the log of CP2K (*.log) and its trajectory (*pos*.xyz) in one folder"
        )
    if "ATOMIC FORCES in" not in run.beside(logs[0]):
        raise Unreadable(
            f"has no forces in '{logs[0].name}' ('ATOMIC FORCES in'), where dpdata looks for them; print them "
            "there (FORCE_EVAL, PRINT, FORCES), or write extended xyz of the trajectories and the cell"
        )


def _cp2k_trajectory(run: Run) -> None:
    """dpdata turns cells but not atoms, in single precision, and takes kinds for elements."""
    log = run.beside(next(iter(sorted(run.path.glob("*.log")))))
    positions = next(iter(sorted(run.path.glob("*pos*.xyz"))))
    text = run.beside(positions).splitlines()
    n = len(run.frames[0].numbers)
    symbols = [line.split()[0] for line in text[2 : 2 + n]]
    elements = [re.sub(r"[^A-Za-z].*", "", symbol).capitalize() for symbol in symbols]
    if _numbers(elements) != run.frames[0].numbers.tolist():
        raise Unreadable(
            f"has other elements in '{positions.name}' ({' '.join(elements[:6])}, ...) than dpdata takes from "
            "the kinds in the log; give kinds the names of elements"
        )
    header = [
        [float(x) for x in match.groups()]
        for match in re.finditer(r"CELL\| Vector [abc] \[angstrom\]:\s+(\S+)\s+(\S+)\s+(\S+)", log)
    ][:3]
    if len(header) == 3:
        _same_cells(run, np.array(header))
    frames = len(re.findall(r"^\s*i\s*=", "\n".join(text), re.MULTILINE))
    run.account.announced = frames or None
    outer = re.findall(r"outer SCF loop (converged|FAILED)", log)
    inner = re.findall(r"SCF run (NOT )?converged", log)
    run.mark([word == "FAILED" for word in outer] or [bool(word) for word in inner], "cycles")


def _same_cells(run: Run, cell: np.ndarray) -> None:
    """The cell of the log's head, which is not turned, for all that have its lengths and angles."""
    metric = cell @ cell.T
    turned = [
        k for k, f in enumerate(run.frames) if np.abs(f.cell @ f.cell.T - metric).max() > 1e-3
    ]
    if not turned:
        for frame in run.frames:
            frame.cell = cell.copy()
    elif np.abs(np.triu(cell, 1)).max() > 1e-4:
        raise Unreadable(
            "is of a run with a changing cell that is not along x, in the xy plane, ...: dpdata turns the "
            "cell but not the atoms; convert it with cp2kdata"
        )


def _numbers(symbols: list[str]) -> list[int]:
    from ase.data import atomic_numbers

    return [atomic_numbers.get(symbol, 0) for symbol in symbols]


# PWmat

_PWMAT_VIRIAL = 1602.176634 / 1602.0
"""dpdata converts from and to pressures with different constants"""


def _pwmat_virial(run: Run) -> None:
    for frame in run.frames:
        if "virial" in frame.per_structure:
            frame.per_structure["virial"] = frame.per_structure["virial"] * _PWMAT_VIRIAL


# OpenMX


def _openmx_converged(run: Run) -> None:
    steps = re.findall(r"time=.*", run.beside(Path(f"{run.path}.md")))
    found = [re.search(r"scf_conv=\s*(\d)", step) for step in steps]
    run.mark([match is not None and match[1] == "0" for match in found], "steps")


def _openmx_runs(run: Run) -> None:
    """OpenMX appends to what an earlier run has left."""
    times = re.findall(r"time=\s*(\S+)", run.beside(Path(f"{run.path}.md")))
    again = sum(float(b) <= float(a) for a, b in pairwise(times))
    if again:
        run.account.warnings.append(
            f"'{run.path.name}.md' begins again {again} times: it has several runs, or iterations that did not "
            "converge, one after the other; keep what belongs together"
        )


# SIESTA


def _siesta_virial(run: Run) -> None:
    """SIESTA's stress is positive under tension: the virial is minus the volume times it."""
    for frame in run.frames:
        if "virial" in frame.per_structure:
            frame.per_structure["virial"] = -frame.per_structure["virial"]
    run.account.notes.append("the sign of dpdata's virial is corrected")


def _siesta_energies(run: Run) -> None:
    """Forces are derivatives of the free energy, which SIESTA prints at the end only."""
    free = re.findall(r"siesta:\s+FreeEng\s*=\s*(\S+)", run.text)
    last = run.frames[-1].per_structure
    if not free or abs(float(free[-1]) - last["energy"]) < 1e-5:
        return
    if len(run.frames) == 1:
        last["free_energy"] = float(free[-1])
        return
    difference = abs(float(free[-1]) - last["energy"]) / len(run.frames[-1].numbers)
    run.account.warnings.append(
        f"forces belong to the free energy (FreeEng), from which E_KS differs by {difference:.2g} eV/atom in "
        "the last step; it is not printed for the others"
    )


def _siesta_converged(run: Run) -> None:
    steps = re.split(r"outcoor: Atomic coordinates \(Ang\)", run.text)[1:]
    steps = steps[: len(run.frames)] if len(steps) == len(run.frames) + 1 else steps
    run.mark(
        ["SCF_NOT_CONV" in step or "SCF cycle did not converge" in step for step in steps], "cycles"
    )


# psi4


def _psi4_correlated(run: Run) -> None:
    """dpdata takes the energy of the SCF, whatever the gradient is of."""
    found = re.search(r"\b(?:DF-)?(MP[234]|CCSD|CISD|OMP[23]|CC[23])\b.*[Ee]nerg", run.text)
    if found:
        raise Unreadable(
            f"has energies of {found[1]}, but dpdata would pair the SCF's with the gradient; write the "
            "results as extended xyz"
        )


# Quantum ESPRESSO's cp.x


def _cp_cell(run: Run) -> None:
    text = run.beside(Path(f"{run.path}.in"))
    ibrav = re.search(r"ibrav\s*=\s*(-?\d+)", text)
    if ibrav and int(ibrav[1]) not in (0, 1, 2, 3, -3) and not Path(f"{run.path}.cel").exists():
        raise Unreadable(
            f"has ibrav = {ibrav[1]}, which dpdata does not know, and no '{run.path.name}.cel' with cells; keep "
            "that file with the others"
        )


def _cp_order(run: Run) -> None:
    """Older versions of cp.x write atoms sorted by species, dpdata takes the order of the input."""
    order = run.frames[0].numbers
    if np.count_nonzero(np.diff(order)) + 1 > len(np.unique(order)):
        run.account.warnings.append(
            "atoms of the input are not sorted by species, as older versions of cp.x write them; make sure "
            "that positions have the elements they should"
        )


# DFTB+


def _dftb_cluster(run: Run) -> None:
    text = run.beside(run.path / "dftb_in.hsd")
    match = re.search(r"Geometry\s*=\s*GenFormat\s*\{?\s*\d+\s+([CSFcsf])", text)
    if match and match[1].upper() in "SF":
        raise Unreadable(
            "is periodic, and dpdata loses the cell; write it as extended xyz with its cell"
        )


def _dftb_energies(run: Run) -> None:
    """Forces are derivatives of Mermin's free energy."""
    text = run.beside(run.path / "detailed.out")
    free = re.findall(r"^Total Mermin free energy:\s*(\S+)", text, re.MULTILINE)
    if free:
        run.frames[-1].per_structure["free_energy"] = float(free[-1]) * HARTREE
    run.mark(["SCC is NOT converged" in text], "cycles")


_ABACUS = "the folder of the run, with INPUT, STRU and OUT.*"
_DEEPMD = "a folder of DeePMD-kit, with type.raw"

FORMATS: dict[str, Format] = {
    "deepmd/npy": Format(f"{_DEEPMD} and set.*", after=(_more_arrays,)),
    "deepmd/npy/mixed": Format(f"{_DEEPMD} and set.* of mixed types"),
    "deepmd/raw": Format(f"{_DEEPMD}, coord.raw, box.raw"),
    "deepmd/hdf5": Format("an HDF5 file of dpdata, and # and the group where there are several"),
    "abacus/scf": Format(_ABACUS, "final etot", (_abacus_converged,)),
    "abacus/md": Format(_ABACUS, "final etot", (_abacus_converged,)),
    "abacus/relax": Format(_ABACUS, "final etot", (_abacus_converged, _abacus_pairs)),
    "abacus/stru": Format("a file STRU", labels=False),
    "cp2k/output": Format(
        "the output of one calculation",
        "ENERGY| Total FORCE_EVAL",
        (_cp2k_converged, _once("ENERGY| Total FORCE_EVAL", "read dynamics as cp2k/aimd_output")),
        (_failed("SCF run NOT converged|outer SCF loop FAILED"),),
    ),
    "cp2k/aimd_output": Format(
        "the folder of the run, with *pos*.xyz and a .log",
        "POTENTIAL ENERGY",
        (_cp2k_forces,),
        (_cp2k_trajectory,),
    ),
    "pwmat/movement": Format("a file MOVEMENT or OUT.MLMD", "Ep", after=(_pwmat_virial,)),
    "pwmat/atom.config": Format("a file atom.config", labels=False),
    "openmx/md": Format("NAME of NAME.dat and NAME.md", "Energy", after=(_openmx_converged, _openmx_runs)),
    "siesta/output": Format(
        "the output of one calculation",
        "E_KS",
        (_once("outcoor: Atomic coordinates (Ang)", "read steps as siesta/aimd_output, with "
               "AtomCoorFormatOut Ang in the input"),),
        (_siesta_virial, _siesta_energies, _siesta_converged),
    ),
    "siesta/aimd_output": Format(
        "the output of dynamics",
        "E_KS",
        after=(_siesta_virial, _siesta_energies, _siesta_converged),
    ),
    "psi4/out": Format(
        "the output of one gradient",
        "Total Energy",
        (_once("## Total Gradient", "write results as extended xyz"), _psi4_correlated),
    ),
    "orca/spout": Format(
        "the output of one calculation with gradient",
        "FINAL SINGLE POINT ENERGY",
        (_once("FINAL SINGLE POINT ENERGY", "leave the reader out: ASE reads several"),),
        (_failed("SCF NOT CONVERGED"),),
    ),
    "qe/cp/traj": Format(
        "PREFIX of PREFIX.in, .pos, .evp, .for and .cel", "etot", (_cp_cell,), (_cp_order,)
    ),
    "dftbplus": Format(
        "a folder with dftb_in.hsd and detailed.out", "Total energy", (_dftb_cluster,), (_dftb_energies,)
    ),
}  # fmt: skip
"""by dpdata's name"""

ALIASES = {
    "deepmd": "deepmd/raw",
    "deepmd/comp": "deepmd/npy",
    "abacus/pw/scf": "abacus/scf",
    "abacus/lcao/scf": "abacus/scf",
    "abacus/pw/md": "abacus/md",
    "abacus/lcao/md": "abacus/md",
    "abacus/pw/relax": "abacus/relax",
    "abacus/lcao/relax": "abacus/relax",
    "stru": "abacus/stru",
    "movement": "pwmat/movement",
    "mlmd": "pwmat/movement",
    "pwmat/mlmd": "pwmat/movement",
    "pwmat/output": "pwmat/movement",
    "atom.config": "pwmat/atom.config",
    "final.config": "pwmat/atom.config",
    "pwmat/final.config": "pwmat/atom.config",
}

_ASE = "leave the reader out: ASE's {} is read with its units and all of its steps"
ELSEWHERE = {
    "n2p2": "dpdata takes every such file for hartree and bohr; leave the reader out, and give unit and "
    "length_unit in the options",
    "vasp/xml": "dpdata takes the enthalpy for the energy under pressure, and steps that did not converge; "
    + _ASE.format("vasp-xml"),
    "xml": _ASE.format("vasp-xml"),
    "vasp/outcar": _ASE.format("vasp-out"),
    "outcar": _ASE.format("vasp-out"),
    "lammps/dump": "dpdata reads no forces of it; leave the reader out, and give types in the options",
    "dump": "dpdata reads no forces of it; leave the reader out, and give types in the options",
    "gaussian/log": "dpdata reads the last step only; " + _ASE.format("gaussian-out"),
    "fhi_aims/output": _ASE.format("aims-output"),
    "fhi_aims/md": _ASE.format("aims-output"),
    "fhi_aims/scf": _ASE.format("aims-output"),
    "qe/pw/scf": _ASE.format("espresso-out"),
    "gromacs/gro": "dpdata takes names of atoms for elements; leave the reader out",
    "gro": "dpdata takes names of atoms for elements; leave the reader out",
    **dict.fromkeys(
        ("extxyz", "quip/gap/xyz", "quip/gap/xyz_file", "mace/xyz", "nequip/xyz", "gpumd/xyz"),
        "dpdata takes stress in any unit for eV/A^3; leave the reader out: extended xyz is read without it",
    ),
}
"""formats of dpdata that are read better without it, and how"""


def guessed(path: Path) -> str:
    """The format of a folder or file by the look of it; empty where that is not plain."""
    if path.is_dir():
        return _guessed_folder(path)
    if "#" in path.name:
        return "deepmd/hdf5"
    if not path.is_file():  # a name that several files begin with
        if Path(f"{path}.md").exists() and Path(f"{path}.dat").exists():
            return "openmx/md"
        return "qe/cp/traj" if Path(f"{path}.evp").exists() else ""
    for name, format in _NAMES.items():
        if path.name.upper().startswith(name):
            return format
    with path.open("rb") as file:
        head = file.read(100_000)
    if head.startswith(b"\x89HDF"):
        return "deepmd/hdf5"
    found = next((format for word, format in _WORDS.items() if word in head), "")
    if found == "siesta/output" and path.read_bytes().count(b"outcoor: Atomic coordinates") > 1:
        return "siesta/aimd_output"
    return found


_NAMES = {
    "MOVEMENT": "pwmat/movement",
    "OUT.MLMD": "pwmat/movement",
    "ATOM.CONFIG": "pwmat/atom.config",
    "FINAL.CONFIG": "pwmat/atom.config",
    "STRU": "abacus/stru",
}
_WORDS = {
    b"CP2K|": "cp2k/output",
    b"Psi4": "psi4/out",
    b"O   R   C   A": "orca/spout",
    b"Welcome to SIESTA": "siesta/output",
    b"WELCOME TO SIESTA": "siesta/output",
    b"siesta: Atomic coordinates": "siesta/output",
}


def _guessed_folder(path: Path) -> str:
    if any(path.glob("set.*/real_atom_types.npy")):
        return "deepmd/npy/mixed"
    if any(path.glob("set.*/coord.npy")):
        return "deepmd/npy"
    if (path / "coord.raw").exists():
        return "deepmd/raw"
    if any(path.glob("*/set.*/real_atom_types.npy")):
        return "deepmd/npy/mixed"
    if (path / "INPUT").is_file():
        text = (path / "INPUT").read_text(errors="replace")
        kind = re.search(r"^\s*calculation\s+(\S+)", text, re.MULTILINE)
        steps = kind[1].lower() if kind else "scf"
        return {"md": "abacus/md", "relax": "abacus/relax", "cell-relax": "abacus/relax"}.get(
            steps, "abacus/scf"
        )
    if (path / "detailed.out").exists():
        return "dftbplus"
    if any(path.glob("*pos*.xyz")) and any(path.glob("*.log")):
        return "cp2k/aimd_output"
    return ""
