"""Which code wrote a file, by words in its beginning: for names that ASE takes for another format.

``.out`` is to ASE Quantum ESPRESSO's, ``.log`` Gaussian's and ``.in`` FHI-aims'. The next code is an
entry of :data:`CODES`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Code:
    """A code whose files are known by their beginning, and ASE's name of the format.

    Without a format ASE has no reader; ``dpdata``: dpdata's name of it, for instance, where that has one.
    """

    name: str
    words: re.Pattern[bytes]
    format: str = ""
    dpdata: str = ""


def _words(pattern: bytes) -> re.Pattern[bytes]:
    return re.compile(pattern, re.MULTILINE)


CODES: tuple[Code, ...] = (
    Code("VASP", _words(rb"^<modeling>"), "vasp-xml"),
    Code("ABINIT", _words(rb"^\.Version\s+\S+\s+of ABINIT"), "abinit-out"),
    Code(
        "FHI-aims",
        _words(
            rb"Invoking FHI-aims|^\s*\| Electronic free energy  |"
            rb"^\s*\| Total energy of the DFT / Hartree-Fock s\.c\.f\."
        ),
        "aims-output",
    ),
    Code(
        "LAMMPS", _words(rb"^\s*\d+\s+atoms\s*\n(?:.*\n)*?\s*\d+\s+atom types\s*$"), "lammps-data"
    ),
    Code("Quantum ESPRESSO", _words(rb"^\s*&(?:control|CONTROL|system|SYSTEM)\b"), "espresso-in"),
    Code("Quantum ESPRESSO", _words(rb"Program PWSCF"), "espresso-out"),
    Code("cp.x of Quantum ESPRESSO", _words(rb"Program CP v"), dpdata="qe/cp/traj"),
    Code("ABACUS", _words(rb"\bABACUS\b|Atomic-orbital Based Ab-initio"), dpdata="abacus/scf"),
    Code("ABACUS", _words(rb"^ATOMIC_SPECIES\b[^&]*^LATTICE_CONSTANT\b"), dpdata="abacus/scf"),
    Code(
        "PWmat",
        _words(rb"atoms,\s*Iteration \(fs\)|\A\s*\d+(?: atoms)?\s*\n\s*[Ll]attice vector"),
        dpdata="pwmat/movement",
    ),
    Code("CP2K", _words(rb"^\s*(?:DBCSR|CP2K)\|"), dpdata="cp2k/output"),
    Code(
        "SIESTA", _words(rb"S I E S T A|Welcome to SIESTA|^Siesta Version"), dpdata="siesta/output"
    ),
    Code(
        "OpenMX",
        _words(rb"Welcome to OpenMX|This calculation was performed by OpenMX"),
        dpdata="openmx/md",
    ),
    Code("Psi4", _words(rb"Psi4: An Open-Source"), dpdata="psi4/out"),
    Code("CRYSTAL", _words(rb"\*\s+CRYSTAL(?:\d\d|\s*\*)")),
    Code("TURBOMOLE", _words(rb"\bTURBOMOLE\b")),
    Code("Elk", _words(rb"\| *Elk (?:code )?version|^elk\b")),
    Code("exciting", _words(rb"\| EXCITING\b|EXCITING (?:NITROGEN|OXYGEN|NEON)")),
    Code("DFTB+", _words(rb"\|\s+DFTB\+ ")),
    Code("WIEN2k", _words(rb"^:LABEL\d|^:ITE\d")),
    Code("Q-Chem", _words(rb"Welcome to Q-Chem|Q-Chem, Inc\.")),
    Code("MOPAC", _words(rb"\*\*\s*(?:Cite this program as: )?MOPAC")),
    Code("xTB", _words(rb"\|\s+x T B\s+\||xtb version")),
    Code(
        "AMS or ADF", _words(rb"\bAMS 20\d\d|Amsterdam Modeling Suite|Amsterdam Density Functional")
    ),
    Code("BigDFT", _words(rb"www\.bigdft\.org")),
    Code("CHARMM", _words(rb"\(CHARMM\) - |^\s*CHARMM>")),
    Code("CPMD", _words(rb"PROGRAM CPMD STARTED")),
    Code("Molcas", _words(rb"copy of MOLCAS|This run of MOLCAS|OpenMolcas")),
    Code("pymatgen", _words(rb'"@module":\s*"pymatgen')),
    Code("phonopy", _words(rb"<generator>\s*<i name=\"program\"[^>]*>\s*phonopy")),
)


def written_by(head: bytes) -> Code | None:
    """The code that wrote a file beginning with ``head``, where it is one of :data:`CODES`."""
    return next((code for code in CODES if code.words.search(head)), None)


def remedy(code: Code) -> str:
    """What to do with a file that ASE has no reader for."""
    if code.dpdata:
        return (
            "install atomtrain-dpdata and write reader: dpdata (with its name of the format, for instance "
            f"format: {code.dpdata})"
        )
    return "write its structures and results as extended xyz, or name a format with format:"


_BY_DPDATA = "it looks like one of {}: install atomtrain-dpdata and write reader: dpdata"
_BY_DATABASES = "it has files of {}, which are read by atomtrain-databases: install it"
_FOLDERS = (
    ("DeePMD-kit", ("set.*/coord.npy", "coord.raw", "*/set.*/coord.npy"), _BY_DPDATA),
    ("ABACUS", ("OUT.*/running_*.log",), _BY_DPDATA),
    ("CP2K", ("*-pos-*.xyz",), _BY_DPDATA),
    ("DFTB+", ("detailed.out",), _BY_DPDATA),
    ("LMDB, as fairchem's (.aselmdb)", ("*.aselmdb", "*.lmdb"), _BY_DATABASES),
    ("HDF5, as MACE's (.h5)", ("*.h5", "*.hdf5"), _BY_DATABASES),
)
"""folders that packages read: whose they are, what is in them, and what to do"""


PACKAGES = {
    "dpdata": "atomtrain-dpdata",
    "aselmdb": "atomtrain-databases",
    "mace-h5": "atomtrain-databases",
}
"""what to install for readers that are not there, by their names"""


def folder_remedy(path: Path) -> str:
    """What a folder is and what to do, where a package reads such folders; else empty."""
    return next(
        (
            say.format(name)
            for name, there, say in _FOLDERS
            if any(any(path.glob(one)) for one in there)
        ),
        "",
    )
