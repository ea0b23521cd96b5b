"""Small files as codes write them, written here by hand, with what is right to read of them.

The table "my code's output" of ``docs/data.md`` is made of :data:`CODES`: a row is there because a test
reads its file and compares the numbers. ``python -m helpers.code_files`` prints it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from atomtrain.data import Files, Frame
from atomtrain.data.readers import Reading

HARTREE, RYDBERG, BOHR = 27.211386245981, 13.6056931229905, 0.529177210544
KCAL, BAR = 0.0433641043, 6.241509e-7


@dataclass(frozen=True)
class CodeFile:
    """A file of a ``code`` and what its first structure is, in eV and angstrom.

    ``write()`` writes to the working directory and gives what ``read_from`` is to be; ``format``: what the
    log calls it; ``reader``: None or ``dpdata``. ``energy``, ``force`` (first component of the first
    atom), ``stress`` (xx, ASE's sign): None where there is none; ``energy_is``: of which kind, in the
    code's terms, ``missing``: what is not read. ``types``: elements for the options.
    """

    code: str
    file: str
    write: Callable[[], str]
    format: str
    formula: str
    structures: int = 1
    periodic: bool = True
    reader: str | None = None
    energy: float | None = None
    force: float | None = None
    stress: float | None = None
    energy_is: str = ""
    unit: str = "fixed by the code"
    missing: str = ""
    types: tuple[tuple[int, int], ...] = ()


def _put(name: str, text: str) -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text)
    return name


# Formats that dpdata reads: always H2O or HO in a cell of 5 angstrom, energy -10 eV where it is free

CELL = np.diag([5.0, 5.0, 5.0])
WATER = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
FORCES = np.array([[0.1, 0.2, 0.3], [-0.1, -0.1, -0.1], [0.0, -0.1, -0.2]])
VIRIAL = np.array([[0.6, 0.01, 0.02], [0.01, 0.5, 0.03], [0.02, 0.03, 0.4]])


def deepmd(folder: str = "water", *, names: bool = True) -> str:
    """Two sets of two and one structures."""
    _put(f"{folder}/type.raw", "0\n1\n1\n")
    if names:
        _put(f"{folder}/type_map.raw", "O\nH\n")
    for number, count in enumerate((2, 1)):
        place = Path(folder, f"set.{number:03d}")
        place.mkdir(parents=True, exist_ok=True)
        shift = np.arange(count)[:, None] + 2 * number
        for name, value in (("box", CELL), ("coord", WATER), ("force", FORCES), ("virial", VIRIAL)):
            np.save(place / f"{name}.npy", np.tile(value.ravel(), (count, 1)))
        np.save(place / "energy.npy", -10.0 - shift)
        np.save(place / "dipole.npy", np.tile([0.1, 0.2, 0.3], (count, 1)))
        np.save(place / "atom_ener.npy", np.tile([-5.0, -2.5, -2.5], (count, 1)))
    return folder


def deepmd_raw() -> str:
    _put("raw/type.raw", "0 1 1")
    _put("raw/type_map.raw", "O H")
    for name, value in (("box", CELL), ("coord", WATER), ("force", FORCES), ("virial", VIRIAL)):
        line = " ".join(f"{x:.6f}" for x in value.ravel())
        _put(f"raw/{name}.raw", f"{line}\n{line}\n")
    _put("raw/energy.raw", "-10.0\n-11.0\n")
    return "raw"


def deepmd_mixed() -> str:
    """Two compositions of three atoms in one folder."""
    _put("mixed/type.raw", "0\n0\n0\n")
    _put("mixed/type_map.raw", "H\nO\n")
    place = Path("mixed/set.000")
    place.mkdir(parents=True, exist_ok=True)
    np.save(place / "real_atom_types.npy", np.array([[1, 0, 0], [1, 1, 0]]))
    for name, value in (("box", CELL), ("coord", WATER), ("force", FORCES)):
        np.save(place / f"{name}.npy", np.tile(value.ravel(), (2, 1)))
    np.save(place / "energy.npy", np.array([-10.0, -20.0]))
    return "mixed"


def _rows(values: np.ndarray, form: str = "{:14.8f}") -> list[str]:
    return ["".join(form.format(x) for x in row) for row in np.asarray(values)]


STRU = """\
ATOMIC_SPECIES
O 15.999 O.upf
H 1.008 H.upf

LATTICE_CONSTANT
1.8897261254578281

LATTICE_VECTORS
5.0 0.0 0.0
0.0 5.0 0.0
0.0 0.0 5.0

ATOMIC_POSITIONS
Cartesian

O
0.0
1
0.0 0.0 0.0 1 1 1
H
0.0
2
0.96 0.0 0.0 1 1 1
-0.24 0.93 0.0 1 1 1
"""


def _abacus_step(energy: float) -> str:
    forces = [f" {name} {row}" for name, row in zip(("O1", "H1", "H2"), _rows(FORCES), strict=True)]
    stress = _rows(VIRIAL / 125 / BAR / 1000)
    return "\n".join(
        [
            f" final etot is {energy} eV",
            " TOTAL-FORCE (eV/Angstrom)",
            " ---------------------------------------",
            *forces,
            " ---------------------------------------",
            " TOTAL-STRESS (KBAR)",
            " ---------------------------------------",
            *stress,
            " ---------------------------------------",
            "",
        ]
    )


def abacus_scf() -> str:
    _put("scf/INPUT", "INPUT_PARAMETERS\nsuffix  run\ncalculation  scf\ncal_force 1\n")
    _put("scf/STRU", STRU)
    _put(
        "scf/OUT.run/running_scf.log",
        " charge density convergence is achieved\n" + _abacus_step(-10.0),
    )
    return "scf"


def abacus_md() -> str:
    _put("md/INPUT", "INPUT_PARAMETERS\ncalculation  md\n")
    _put("md/STRU", STRU)
    atoms = [
        f"  {k}  {name}  {x}{f}"
        for k, (name, x, f) in enumerate(zip("OHH", _rows(WATER), _rows(FORCES), strict=True))
    ]
    frames = []
    for step in range(2):
        frames += [
            f"MDSTEP:  {step}",
            "LATTICE_CONSTANT: 1.000000000000 Angstrom",
            "LATTICE_VECTORS",
            *_rows(CELL),
            "VIRIAL (kbar)",
            *_rows(VIRIAL / 125 / BAR / 1000),
            "INDEX    LABEL    POSITION (Angstrom)    FORCE (eV/Angstrom)",
            *atoms,
            "",
            "",
        ]
    _put("md/OUT.ABACUS/MD_dump", "\n".join(frames))
    log = " final etot is -10.0 eV\n final etot is -11.0 eV\n"
    _put("md/OUT.ABACUS/running_md.log", log)
    return "md"


CP2K_HEAD = """\
 CP2K| version string:                                       CP2K version 2022.1
 DBCSR| Multiplication driver                                           BLAS
 GLOBAL| Global print level                                            MEDIUM
 CELL| Vector a [angstrom]:       5.000     0.000     0.000    |a| =       5.000
 CELL| Vector b [angstrom]:       0.000     5.000     0.000    |b| =       5.000
 CELL| Vector c [angstrom]:       0.000     0.000     5.000    |c| =       5.000

  1. Atomic kind: O                                     Number of atoms:       1
  2. Atomic kind: H                                     Number of atoms:       2
"""


def _cp2k_forces() -> list[str]:
    units = FORCES / HARTREE * BOHR
    rows = [
        f"      {k + 1}      {1 if k == 0 else 2}      {'OHH'[k]}  {row}"
        for k, row in enumerate(_rows(units))
    ]
    return [
        " ATOMIC FORCES in [a.u.]",
        "",
        " # Atom   Kind   Element          X              Y              Z",
        *rows,
        " SUM OF ATOMIC FORCES           0.0      0.0      0.0     0.0",
    ]


def cp2k_output() -> str:
    stress = _rows(VIRIAL / 125 / BAR / 1e4)
    atoms = [
        f"  {k + 1}     {1 if k == 0 else 2} {'OHH'[k]}  {8 if k == 0 else 1} {row}  6.00  15.999"
        for k, row in enumerate(_rows(WATER))
    ]
    return _put(
        "cp2k.out",
        "\n".join(
            [
                CP2K_HEAD,
                " MODULE QUICKSTEP: ATOMIC COORDINATES IN angstrom",
                "",
                "  Atom  Kind  Element       X           Y           Z          Z(eff)       Mass",
                "",
                *atoms,
                "",
                "  *** SCF run converged in    12 steps ***",
                "",
                f" ENERGY| Total FORCE_EVAL ( QS ) energy [a.u.]:    {-10 / HARTREE:.12f}",
                "",
                *_cp2k_forces(),
                "",
                " STRESS TENSOR [GPa]",
                "",
                "            X               Y               Z",
                *[f"  {name} {row}" for name, row in zip("XYZ", stress, strict=True)],
                "",
                "",
            ]
        ),
    )


def cp2k_dynamics() -> str:
    """Of a cell that lies along the diagonals of the plane: dpdata would turn it."""
    cell = np.array([[3.0, 4.0, 0.0], [-4.0, 3.0, 0.0], [0.0, 0.0, 5.0]])
    vectors = [
        f" CELL| Vector {name} [angstrom]: {row}    |{name}| =       5.000"
        for name, row in zip("abc", _rows(cell), strict=True)
    ]
    head = [line for line in CP2K_HEAD.splitlines() if "Vector" not in line]
    log, positions = [*head[:3], *vectors, *head[3:]], []
    for step in range(2):
        energy = (-10.0 - step) / HARTREE
        lengths = " ".join(["0.944863062729E+01"] * 3)
        angles = " ".join(["0.900000000000E+02"] * 3)
        first = "INITIAL " if step == 0 else ""
        log += [
            "  *** SCF run converged in    12 steps ***",
            *_cp2k_forces(),
            "",
            " *******************************************************",
            *([] if step == 0 else [" ENSEMBLE TYPE                =          NVT"]),
            f" {first}POTENTIAL ENERGY[hartree]  =  {energy:.12f}    {energy:.12f}",
            f" {first}CELL LNTHS[bohr]           =  {lengths}",
            f" {first}CELL ANGLS[deg]            =  {angles}",
            " *******************************************************",
        ]
        positions += [
            "       3",
            f" i = {step:8d}, time = {step:12.3f}, E = {energy:20.10f}",
            *[f"  {name} {row}" for name, row in zip("OHH", _rows(WATER), strict=True)],
        ]
    _put("dynamics/cp2k.log", "\n".join(log) + "\n")
    _put("dynamics/water-pos-1.xyz", "\n".join(positions) + "\n")
    return "dynamics"


def pwmat() -> str:
    """The second step did not converge."""
    lines = []
    for step, cycles in enumerate((8, 8)):
        lines += [
            f"   3 atoms,Iteration (fs) =    0.{step + 1}000E+00, Etot,Ep,Ek (eV) =   -0.9E+01  "
            f"{-10.0 - step:.4f}   0.1E+01, SCF = {cycles:4d}",
            " Lattice vector (Angstrom)",
            *[
                f"{cell}     stress (eV): {row}"
                for cell, row in zip(_rows(CELL), _rows(VIRIAL), strict=True)
            ],
            " Position (normalized), move_x, move_y, move_z",
            *[f"   {'811'[k]} {row} 1 1 1" for k, row in enumerate(_rows(WATER / 5))],
            " Force (-force, eV/Angstrom)",
            *[f"   {'811'[k]} {row}" for k, row in enumerate(_rows(-FORCES))],
            " -------------------------------------------------",
        ]
    return _put("MOVEMENT", "\n".join(lines) + "\n")


def openmx() -> str:
    atoms = [f"  {k + 1}  {'OHH'[k]} {row}  0.5 0.5" for k, row in enumerate(_rows(WATER))]
    text = [
        "System.Name  water",
        "<Atoms.SpeciesAndCoordinates",
        *atoms,
        "Atoms.SpeciesAndCoordinates>",
    ]
    _put("water.dat", "\n".join(text) + "\n")
    frames = []
    for step in range(2):
        energy = (-10.0 - step) / HARTREE
        frames += [
            "3",
            f"time=   {step}.000 (fs)  Energy=  {energy:.10f} (Hartree)  Temperature=  300.0 (Given Temp.="
            "  300.0)  Cell_Vectors=  5.0 0.0 0.0  0.0 5.0 0.0  0.0 0.0 5.0  scf_conv=1",
            *[
                f"   {'OHH'[k]} {x} {f} 0.0 0.0 0.0 0.0"
                for k, (x, f) in enumerate(
                    zip(_rows(WATER), _rows(FORCES / HARTREE * BOHR), strict=True)
                )
            ],
        ]
    _put("water.md", "\n".join(frames) + "\n")
    return "water"


def siesta(*, free: float = -10.0) -> str:
    atoms = [
        f"{row}   {1 if k == 0 else 2}       {k + 1}  {'OHH'[k]}"
        for k, row in enumerate(_rows(WATER))
    ]
    stress = _rows(-VIRIAL / 125)
    return _put(
        "siesta.out",
        "\n".join(
            [
                " Welcome to SIESTA",
                "redata: Number of Atomic Species                     =        2",
                "Species number:   1 Atomic number:    8 Label: O",
                "Species number:   2 Atomic number:    1 Label: H",
                "siesta: Number of atoms, orbitals, and projectors:      3    23    34",
                "outcoor: Atomic coordinates (Ang):",
                *atoms,
                "",
                "outcell: Unit cell vectors (Ang):",
                *_rows(CELL),
                "",
                "siesta: E_KS(eV) =              -10.0000",
                "",
                "siesta: Atomic forces (eV/Ang):",
                *[f"     {k + 1} {row}" for k, row in enumerate(_rows(FORCES))],
                "----------------------------------------",
                "siesta: Final energy (eV):",
                f"siesta:       FreeEng =     {free:.6f}",
                "siesta: Stress tensor (static) (eV/Ang**3):",
                *[f"siesta: {row}" for row in stress],
                "",
                f"siesta: Pressure (static): {np.trace(VIRIAL) / 375 / BAR / 1000:.4f} kBar",
                "",
            ]
        ),
    )


def psi4() -> str:
    gradient = _rows(-FORCES / HARTREE * BOHR)
    return _put(
        "psi4.out",
        "\n".join(
            [
                "          Psi4: An Open-Source Ab Initio Electronic Structure Package",
                "    Geometry (in Angstrom), charge = 0, multiplicity = 1:",
                "",
                "       Center              X                  Y                   Z               Mass       ",
                "    ------------   -----------------  -----------------  -----------------  -----------------",
                *[f"         {'OHH'[k]} {row}   1.0" for k, row in enumerate(_rows(WATER))],
                "",
                f"    Total Energy =  {-10 / HARTREE:.12f}",
                "",
                "  ## Total Gradient (Symmetry 0) ##",
                "  Irrep: 1 Size: 3 x 3",
                "",
                "                 1                   2                   3",
                "",
                *[f"    {k + 1} {row}" for k, row in enumerate(gradient)],
                "",
                "",
            ]
        ),
    )


def orca(*, times: int = 1) -> str:
    one = [
        "                                 * O   R   C   A *",
        "Number of atoms                             ...      3",
        "---------------------------------",
        "CARTESIAN COORDINATES (ANGSTROEM)",
        "---------------------------------",
        *[f"  {'OHH'[k]} {row}" for k, row in enumerate(_rows(WATER))],
        "",
        f"FINAL SINGLE POINT ENERGY       {-10 / HARTREE:.12f}",
        "",
        "------------------",
        "CARTESIAN GRADIENT",
        "------------------",
        "",
        *[
            f"   {k + 1}   {'OHH'[k]}   : {row}"
            for k, row in enumerate(_rows(-FORCES / HARTREE * BOHR))
        ],
        "",
        "                             ****ORCA TERMINATED NORMALLY****",
        "",
    ]
    return _put("orca.out", "\n".join(one * times))


def cp() -> str:
    _put(
        "water.in",
        "\n".join(
            [
                "&CONTROL",
                " calculation = 'cp'",
                "/",
                "&SYSTEM",
                " ibrav = 0,",
                " nat = 3,",
                " ntyp = 2,",
                "/",
                "ATOMIC_SPECIES",
                "O 15.999 O.upf",
                "H 1.008 H.upf",
                "ATOMIC_POSITIONS {angstrom}",
                *[f"{'OHH'[k]} {row}" for k, row in enumerate(_rows(WATER))],
                "CELL_PARAMETERS {angstrom}",
                *_rows(CELL),
                "",
            ]
        ),
    )
    for name, values in (
        ("pos", WATER / BOHR),
        ("for", FORCES / HARTREE * BOHR),
        ("cel", CELL / BOHR),
    ):
        blocks = [f"  {k}  0.00{k}\n" + "\n".join(_rows(values)) for k in (1, 2)]
        _put(f"water.{name}", "\n".join(blocks) + "\n")
    rows = [
        f"  {k}  0.00{k}  0.1  0.0  300.0  {(-9.0 - k) / HARTREE:.10f}  -1.0 -1.0 -1.0"
        for k in (1, 2)
    ]
    _put(
        "water.evp",
        "#   nfi  time(ps)  ekinc  Tcell(K)  Tion(K)  etot  enthal  econs  econt\n"
        + "\n".join(rows)
        + "\n",
    )
    return "water"


def dftb(*, mode: str = "C") -> str:
    atoms = [f"  {k + 1} {1 if k == 0 else 2} {row}" for k, row in enumerate(_rows(WATER))]
    _put(
        "dftb/dftb_in.hsd",
        "\n".join(["Geometry = GenFormat {", f"3 {mode}", "O H", *atoms, "}", ""]),
    )
    forces = [f"  {k + 1} {row}" for k, row in enumerate(_rows(FORCES / HARTREE * BOHR))]
    _put(
        "dftb/detailed.out",
        "\n".join(
            [
                f"Total energy:             {-9.9 / HARTREE:.10f} H         -9.9000 eV",
                f"Total Mermin free energy: {-10 / HARTREE:.10f} H        -10.0000 eV",
                "Total Forces",
                *forces,
                "",
            ]
        ),
    )
    return "dftb"


def deepmd_hdf5() -> str:
    """Two groups, each with a set."""
    import h5py

    with h5py.File("water.hdf5", "w") as file:
        for number, name in enumerate(("a", "b")):
            group = file.create_group(name)
            group["type.raw"] = np.array([0, 1, 1])
            group["type_map.raw"] = np.array(["O", "H"], dtype="S2")
            one = group.create_group("set.000")
            for key, value in (
                ("box", CELL),
                ("coord", WATER),
                ("force", FORCES),
                ("virial", VIRIAL),
            ):
                one[f"{key}.npy"] = value.reshape(1, -1)
            one["energy.npy"] = np.array([-10.0 - number])
    return "water.hdf5"


def abacus_relax() -> str:
    _put("relax/INPUT", "INPUT_PARAMETERS\ncalculation  relax\n")
    _put("relax/STRU", STRU)
    head = [
        f"{'':13}number of atom for this type = 1",
        f"{'':13}number of atom for this type = 2",
        f"{'':18}lattice constant (Bohr) = 1.8897261254578281",
        "",
        " Lattice vectors: (Cartesian coordinate: in unit of a_0)",
        *_rows(CELL),
    ]
    step = [
        " DIRECT COORDINATES",
        "    atom        x        y        z     mag   vx  vy  vz",
        *[f"tauc_{'OHH'[k]}{k + 1} {row}" for k, row in enumerate(_rows(WATER / 5))],
        "",
    ]
    steps = ["\n".join([*step, _abacus_step(energy)]) for energy in (-10.0, -11.0)]
    _put("relax/OUT.ABACUS/running_relax.log", "\n".join([*head, *steps]))
    return "relax"


def siesta_dynamics() -> str:
    atoms = [
        f"{row}   {1 if k == 0 else 2}       {k + 1}  {'OHH'[k]}"
        for k, row in enumerate(_rows(WATER))
    ]
    lines = [
        " Welcome to SIESTA",
        "redata: Number of Atomic Species                     =        2",
        "Species number:   1 Atomic number:    8 Label: O",
        "Species number:   2 Atomic number:    1 Label: H",
        "siesta: Number of atoms, orbitals, and projectors:      3    23    34",
    ]
    for step in range(2):
        lines += [
            f"                            Begin MD step = {step + 1}",
            "outcoor: Atomic coordinates (Ang):",
            *atoms,
            "",
            "outcell: Unit cell vectors (Ang):",
            *_rows(CELL),
            "",
            f"siesta: E_KS(eV) =              {-10.0 - step:.4f}",
            "",
            "siesta: Atomic forces (eV/Ang):",
            *[f"     {k + 1} {row}" for k, row in enumerate(_rows(FORCES))],
            "----------------------------------------",
            "siesta: Stress tensor (static) (eV/Ang**3):",
            *_rows(-VIRIAL / 125),
            "",
            "siesta: Pressure (static):          1.0  kBar",
            "",
        ]
    return _put("dynamics.out", "\n".join(lines))


def atom_config() -> str:
    return _put(
        "atom.config",
        "\n".join(
            [
                " 3 atoms",
                " Lattice vector",
                *_rows(CELL),
                " Position, move_x, move_y, move_z",
                *[f"   {'811'[k]} {row} 1 1 1" for k, row in enumerate(_rows(WATER / 5))],
                "",
            ]
        ),
    )


def abacus_structure() -> str:
    return _put("STRU", STRU)


# Formats that are read without dpdata


def mtp() -> str:
    atoms = [
        f"  {k + 1} {0 if k == 0 else 1} {x} {f}"
        for k, (x, f) in enumerate(zip(_rows(WATER), _rows(FORCES), strict=True))
    ]
    voigt = [VIRIAL[0, 0], VIRIAL[1, 1], VIRIAL[2, 2], VIRIAL[1, 2], VIRIAL[0, 2], VIRIAL[0, 1]]
    return _put(
        "water.cfg",
        "\n".join(
            [
                "BEGIN_CFG",
                " Size",
                "    3",
                " Supercell",
                *_rows(CELL),
                " AtomData:  id type       cartes_x      cartes_y      cartes_z           fx          fy          fz",
                *atoms,
                " Energy",
                "       -10.000000",
                " PlusStress:  xx          yy          zz          yz          xz          xy",
                " ".join(f"{x:.6f}" for x in voigt),
                " Feature   EFS_by       VASP",
                "END_CFG",
                "",
            ]
        ),
    )


def fitsnap() -> str:
    structure = {
        "Positions": WATER.tolist(),
        "AtomTypes": ["O", "H", "H"],
        "Lattice": CELL.tolist(),
        "NumAtoms": 3,
        "Energy": -10.0,
        "Forces": FORCES.tolist(),
        "Stress": (VIRIAL / 125 / BAR).tolist(),
    }
    data = {"Dataset": {"Label": "water", "StressStyle": "bar", "Data": [structure]}}
    return _put("water.json", "# file water\n" + json.dumps(data))


def _npz(numbers: str, positions: str, energies: str, forces: str, **more: str) -> str:
    arrays = {
        numbers: np.array([8, 1, 1]),
        positions: np.stack([WATER, WATER + 0.01]),
        energies: np.array([-10.0, -11.0]) / KCAL,
        forces: np.stack([FORCES, FORCES]) / KCAL,
    }
    np.savez("water.npz", **arrays, **more)  # type: ignore[arg-type]
    return "water.npz"


def rmd17() -> str:
    return _npz("nuclear_charges", "coords", "energies", "forces")


def sgdml() -> str:
    return _npz("z", "R", "E", "F", e_unit="kcal/mol", r_unit="Ang")


def vasprun() -> str:
    def array(name: str, values: np.ndarray) -> list[str]:
        return [
            f'<varray name="{name}" >',
            *[f"<v>{row}</v>" for row in _rows(values)],
            "</varray>",
        ]

    energies = [
        '<i name="e_fr_energy"> -10.0 </i>',
        '<i name="e_wo_entrp"> -9.8 </i>',
        '<i name="e_0_energy"> -9.9 </i>',
    ]
    structure = [
        "<crystal>",
        *array("basis", CELL),
        "</crystal>",
        *array("positions", WATER / 5),
        "</structure>",
    ]
    return _put(
        "vasprun.xml",
        "\n".join(
            [
                '<?xml version="1.0" encoding="ISO-8859-1"?>',
                "<modeling>",
                "<kpoints>",
                *array("kpointlist", np.zeros((1, 3))),
                *array("weights", np.ones((1, 1))),
                "</kpoints>",
                "<atominfo>",
                "<atoms> 3 </atoms>",
                '<array name="atoms" ><set>',
                "<rc><c>O </c><c> 1</c></rc>",
                "<rc><c>H </c><c> 2</c></rc>",
                "<rc><c>H </c><c> 2</c></rc>",
                "</set></array>",
                "</atominfo>",
                '<structure name="initialpos" >',
                *structure,
                "<calculation>",
                "<scstep><energy>",
                *energies,
                "</energy></scstep>",
                "<structure>",
                *structure,
                *array("forces", FORCES),
                *array("stress", VIRIAL / 125 / BAR / 1000),
                "<energy>",
                *energies,
                "</energy>",
                "</calculation>",
                "</modeling>",
                "",
            ]
        ),
    )


def lammps_dump() -> str:
    rows = [
        f"{k + 1} {1 if k == 0 else 2} {x} {f}"
        for k, (x, f) in enumerate(zip(_rows(WATER), _rows(FORCES), strict=True))
    ]
    return _put(
        "water.dump",
        "\n".join(
            [
                "ITEM: TIMESTEP",
                "0",
                "ITEM: NUMBER OF ATOMS",
                "3",
                "ITEM: BOX BOUNDS pp pp pp",
                *["0.0 5.0"] * 3,
                "ITEM: ATOMS id type x y z fx fy fz",
                *rows,
                "",
            ]
        ),
    )


def extended_xyz() -> str:
    stress = " ".join(f"{x:.8f}" for x in (-VIRIAL / 125).ravel())
    rows = [
        f"{'OHH'[k]} {x} {f}"
        for k, (x, f) in enumerate(zip(_rows(WATER), _rows(FORCES), strict=True))
    ]
    head = f'Lattice="5 0 0 0 5 0 0 0 5" Properties=species:S:1:pos:R:3:forces:R:3 energy=-10.0 stress="{stress}"'
    return _put("water.xyz", "\n".join(["3", f'{head} pbc="T T T"', *rows, ""]))


def n2p2() -> str:
    rows = [
        f"atom {x} {'OHH'[k]} 0.0 0.0 {f}"
        for k, (x, f) in enumerate(zip(_rows(WATER), _rows(FORCES), strict=True))
    ]
    return _put(
        "input.data",
        "\n".join(
            [
                "begin",
                "comment written by hand",
                *[f"lattice {row}" for row in _rows(CELL)],
                *rows,
                "energy -10.0",
                "charge 0.0",
                "end",
                "",
            ]
        ),
    )


def gro() -> str:
    rows = [
        f"{1:5d}{'SOL':<5}{name:>5}{k + 1:5d}" + "".join(f"{x / 10:8.3f}" for x in WATER[k])
        for k, name in enumerate(("OW", "HW1", "HW2"))
    ]
    return _put(
        "water.gro", "\n".join(["water", "    3", *rows, "   0.50000   0.50000   0.50000", ""])
    )


def pw() -> str:
    atoms = [
        f"         {k + 1}           {'OHH'[k]}   tau(   {k + 1}) = ({row}  )"
        for k, row in enumerate(_rows(WATER / 5))
    ]
    forces = [
        f"     atom    {k + 1} type  {1 if k == 0 else 2}   force = {row}"
        for k, row in enumerate(_rows(FORCES / RYDBERG * BOHR))
    ]
    stress = [
        f"{a}{b}"
        for a, b in zip(
            _rows(VIRIAL / 125 / RYDBERG * BOHR**3, "{:16.12f}"),
            _rows(VIRIAL / 125 / BAR / 1000, "{:12.2f}"),
            strict=True,
        )
    ]
    return _put(
        "pw.out",
        "\n".join(
            [
                "     Program PWSCF v.7.2 starts on  1Jan2024 at 12: 0: 0",
                "     bravais-lattice index     =            0",
                f"     lattice parameter (alat)  =       {5 / BOHR:.9f}  a.u.",
                "     number of atoms/cell      =            3",
                "     number of atomic types    =            2",
                f"     celldm(1)=   {5 / BOHR:.9f}  celldm(2)=   0.000000  celldm(3)=   0.000000",
                "     crystal axes: (cart. coord. in units of alat)",
                "               a(1) = (   1.000000   0.000000   0.000000 )",
                "               a(2) = (   0.000000   1.000000   0.000000 )",
                "               a(3) = (   0.000000   0.000000   1.000000 )",
                "",
                "   Cartesian axes",
                "",
                "     site n.     atom                  positions (alat units)",
                *atoms,
                "",
                "     number of k points=     1",
                "                       cart. coord. in units 2pi/alat",
                "        k(    1) = (   0.0000000   0.0000000   0.0000000), wk =   2.0000000",
                "",
                f"!    total energy              =   {-10 / RYDBERG:.10f} Ry",
                "     convergence has been achieved in  10 iterations",
                "",
                "     Forces acting on atoms (cartesian axes, Ry/au):",
                "",
                *forces,
                "",
                "     Total force =     0.100000     Total SCF correction =     0.000001",
                "",
                "          total   stress  (Ry/bohr**3)                   (kbar)     P=  6.41",
                *stress,
                "",
                "   JOB DONE.",
                "",
            ]
        ),
    )


def gaussian() -> str:
    table = [
        f"      {k + 1}          {8 if k == 0 else 1}           0     {row}"
        for k, row in enumerate(_rows(WATER))
    ]
    forces = [
        f"      {k + 1}        {8 if k == 0 else 1}    {row}"
        for k, row in enumerate(_rows(FORCES / HARTREE * BOHR))
    ]
    line = " ---------------------------------------------------------------------"
    return _put(
        "water.log",
        "\n".join(
            [
                " Entering Gaussian System, Link 0=g16",
                "                         Input orientation:                          ",
                line,
                " Center     Atomic      Atomic             Coordinates (Angstroms)",
                " Number     Number       Type             X           Y           Z",
                line,
                *table,
                line,
                f" SCF Done:  E(RB3LYP) =  {-10 / HARTREE:.12f}     A.U. after   10 cycles",
                line,
                " Center     Atomic                   Forces (Hartrees/Bohr)",
                " Number     Number              X              Y              Z",
                line,
                *forces,
                line,
                " Normal termination of Gaussian 16",
                "",
            ]
        ),
    )


def aims() -> str:
    vectors = [f"  | {row}" for row in _rows(CELL)]
    atoms = [f"  |    {k + 1}: Species {'OHH'[k]} {row}" for k, row in enumerate(_rows(WATER))]
    forces = [f"  |    {k + 1} {row}" for k, row in enumerate(_rows(FORCES))]
    return _put(
        "aims.out",
        "\n".join(
            [
                "          Invoking FHI-aims ...",
                "  | Number of atoms                   :        3",
                "  | Number of spin channels           :        1",
                "  Input geometry:",
                "  | Unit cell:",
                *vectors,
                "  | Atomic structure:",
                "  |       Atom                x [A]            y [A]            z [A]",
                *atoms,
                "",
                "  The structure contains        3 atoms,  and a total of         10.000 electrons.",
                "  | Formal number of electrons (from input files) :       10.000",
                "  | Number of Kohn-Sham states (occupied + empty):       11",
                "  Begin self-consistency loop: Initialization.",
                "  Convergence:    q app. |  density  | eigen (eV) | Etot (eV) | forces (eV/A) |       CPU time |",
                "",
                "  Energy and forces in a compact form:",
                "  | Total energy uncorrected      :         -0.100000000000000E+02 eV",
                "  | Total energy corrected        :         -0.990000000000000E+01 eV",
                "  | Electronic free energy        :         -0.100000000000000E+02 eV",
                "  Total atomic forces (unitary forces cleaned) [eV/Ang]:",
                *forces,
                "",
                "  | Number of self-consistency cycles          :           10",
                "          Have a nice day.",
                "",
            ]
        ),
    )


def qbox() -> str:
    atoms: list[str] = []
    for k in range(3):
        atoms += [
            f'<atom name="{"OHH"[k]}{k + 1}" species="{"hydrogen" if k else "oxygen"}">',
            f"<position> {_rows((WATER / BOHR)[k : k + 1])[0]} </position>",
            "<velocity> 0.0 0.0 0.0 </velocity>",
            f"<force> {_rows((FORCES / HARTREE * BOHR)[k : k + 1])[0]} </force>",
            "</atom>",
        ]
    side = 5 / BOHR
    species = [
        line
        for name, symbol, number in (("oxygen", "O", 8), ("hydrogen", "H", 1))
        for line in (
            f'<species name="{name}">',
            f"<symbol>{symbol}</symbol>",
            f"<atomic_number>{number}</atomic_number>",
            "<mass>1.0</mass>",
            "</species>",
        )
    ]
    return _put(
        "water.xml",
        "\n".join(
            [
                '<?xml version="1.0" encoding="UTF-8"?>',
                '<fpmd:simulation xmlns:fpmd="http://www.quantum-simulation.org/ns/fpmd/fpmd-1.0">',
                "<release> 1.70 qbox </release>",
                *species,
                "<cmd>run 0</cmd>",
                '<iteration count="1">',
                f"<etotal> {-10 / HARTREE:.10f} </etotal>",
                "<atomset>",
                f'<unit_cell a="{side} 0 0" b="0 {side} 0" c="0 0 {side}" />',
                *atoms,
                "</atomset>",
                "</iteration>",
                "</fpmd:simulation>",
                "",
            ]
        ),
    )


def abinit() -> str:
    stress = -VIRIAL / 125 / HARTREE * BOHR**3
    pairs = [((0, 0), (2, 1)), ((1, 1), (2, 0)), ((2, 2), (1, 0))]
    return _put(
        "water.abo",
        "\n".join(
            [
                ".Version 8.10.3 of ABINIT",
                "",
                "-outvars: echo values of preprocessed input variables --------",
                "            acell      1.0000000000E+01  1.0000000000E+01  1.0000000000E+01 Bohr",
                "            natom           3",
                "           ntypat           2",
                f"            rprim      {0.5 / BOHR:.10f} 0.0 0.0",
                f"                       0.0 {0.5 / BOHR:.10f} 0.0",
                f"                       0.0 0.0 {0.5 / BOHR:.10f}",
                "            typat      1  2  2",
                "            znucl        8.00000    1.00000",
                "",
                "================================",
                "",
                " Real(R)+Recip(G) space primitive vectors, cartesian coordinates (Bohr,Bohr^-1):",
                *[
                    f" R({k + 1})= {row}  G({k + 1})=  0.1  0.0  0.0"
                    for k, row in enumerate(_rows(CELL / BOHR))
                ],
                "",
                " ----iterations are completed or convergence reached----",
                "",
                " cartesian coordinates (angstrom) at end:",
                *[f"    {k + 1} {row}" for k, row in enumerate(_rows(WATER))],
                "",
                " cartesian forces (eV/Angstrom) at end:",
                *[f"    {k + 1} {row}" for k, row in enumerate(_rows(FORCES))],
                "",
                " Components of total free energy (in Hartree) :",
                "",
                f"    >>>>>>>>> Etotal= {-10 / HARTREE:.10f}",
                "",
                " Cartesian components of stress tensor (hartree/bohr^3)",
                *[
                    f"  sigma({a + 1} {b + 1})= {stress[a, b]:.12E}  sigma({c + 1} {d + 1})= {stress[c, d]:.12E}"
                    for (a, b), (c, d) in pairs
                ],
                "",
                "END DATASET(S)",
                "",
            ]
        ),
    )


def orca_of_ase() -> str:
    return orca()


def gpumd() -> str:
    """Keys in lower case, ``force``, no pbc, virial."""
    virial = " ".join(f"{x:.6f}" for x in VIRIAL.ravel())
    rows = [
        f"{'OHH'[k]} {x} {f}"
        for k, (x, f) in enumerate(zip(_rows(WATER), _rows(FORCES), strict=True))
    ]
    head = f'energy=-10.0 virial="{virial}" lattice="5 0 0 0 5 0 0 0 5" properties=species:S:1:pos:R:3:force:R:3'
    return _put("train.xyz", "\n".join(["3", head, *rows, ""]))


_DPDATA = "dpdata"
CODES: tuple[CodeFile, ...] = (
    CodeFile(
        "ABACUS", "folder of an scf run", abacus_scf, "abacus/scf", "H2O", reader=_DPDATA,
        energy=-10.0, force=0.1, stress=-0.6 / 125, energy_is="`final etot`",
        missing="runs that did not converge",
    ),
    CodeFile(
        "ABACUS", "folder of dynamics", abacus_md, "abacus/md", "H2O", 2, reader=_DPDATA,
        energy=-10.0, force=0.1, stress=-0.6 / 125, energy_is="`final etot`",
        missing="runs with steps that did not converge",
    ),
    CodeFile(
        "ABACUS", "folder of a relaxation", abacus_relax, "abacus/relax", "H2O", 2, reader=_DPDATA,
        energy=-10.0, force=0.1, stress=-0.6 / 125, energy_is="`final etot`",
        missing="runs with steps that did not converge",
    ),
    CodeFile("ABACUS", "`STRU`", abacus_structure, "abacus/stru", "H2O", reader=_DPDATA),
    CodeFile(
        "ABINIT", "output", abinit, "abinit-out", "H2O", energy=-10.0, force=0.1, stress=-0.6 / 125,
        energy_is="`Etotal`", missing="cells that change (refused)",
    ),
    CodeFile(
        "CP2K", "output of one calculation", cp2k_output, "cp2k/output", "H2O", reader=_DPDATA,
        energy=-10.0, force=0.1, stress=-0.6 / 125, energy_is="`ENERGY\\| Total FORCE_EVAL`",
        missing="stress in newer output (`STRESS\\|`)",
    ),
    CodeFile(
        "CP2K", "folder of dynamics (`.log`, `*pos*.xyz`)", cp2k_dynamics, "cp2k/aimd_output", "H2O", 2,
        reader=_DPDATA, energy=-10.0, force=0.1, energy_is="`POTENTIAL ENERGY`",
        missing="stress, unless in the log",
    ),
    CodeFile(
        "DeePMD-kit", "folder with `set.*`", deepmd, "deepmd/npy", "H2O", 3, reader=_DPDATA,
        energy=-10.0, force=0.1, stress=-0.6 / 125,
    ),
    CodeFile(
        "DeePMD-kit", "folder of `.raw`", deepmd_raw, "deepmd/raw", "H2O", 2, reader=_DPDATA,
        energy=-10.0, force=0.1, stress=-0.6 / 125,
    ),
    CodeFile(
        "DeePMD-kit", "folder of mixed types", deepmd_mixed, "deepmd/npy/mixed", "H2O", 2, reader=_DPDATA,
        energy=-10.0, force=0.1, missing="the order: structures are sorted by composition",
    ),
    CodeFile(
        "DeePMD-kit", "HDF5", deepmd_hdf5, "deepmd/hdf5", "H2O", 2, reader=_DPDATA,
        energy=-10.0, force=0.1, stress=-0.6 / 125,
    ),
    CodeFile(
        "DFTB+", "folder with `dftb_in.hsd`, `detailed.out`", dftb, "dftbplus", "H2O", periodic=False,
        reader=_DPDATA, energy=-10.0, force=0.1, energy_is="`Total Mermin free energy`",
        missing="crystals (refused)",
    ),
    CodeFile(
        "FHI-aims", "output", aims, "aims-output", "H2O", energy=-10.0, force=0.1,
        energy_is="`Electronic free energy`",
    ),
    CodeFile(
        "Gaussian", "`.log`", gaussian, "gaussian-out", "H2O", periodic=False, energy=-10.0, force=0.1,
        energy_is="`SCF Done`",
    ),
    CodeFile(
        "GPUMD", "`train.xyz`", gpumd, "extxyz", "H2O", energy=-10.0, force=0.1, stress=-0.6 / 125,
        unit="in the comment, or as the options say",
    ),
    CodeFile(
        "ORCA", "output", orca_of_ase, "orca-output", "H2O", periodic=False, energy=-10.0, force=0.1,
        energy_is="`FINAL SINGLE POINT ENERGY`",
    ),
    CodeFile(
        "Qbox", "`.xml`", qbox, "qbox", "H2O", energy=-10.0, force=0.1, energy_is="`etotal`",
    ),
    CodeFile(
        "Quantum ESPRESSO", "output of `pw.x`", pw, "espresso-out", "H2O", energy=-10.0, force=0.1,
        stress=-0.6 / 125, energy_is="`! total energy`",
    ),
    CodeFile(
        "FitSNAP", "`.json`", fitsnap, "fitsnap-json", "H2O",
        energy=-10.0, force=0.1, stress=-0.6 / 125, unit="as its words say",
    ),
    CodeFile(
        "GROMACS", "`.gro`", gro, "gromacs", "H2O", missing="labels: the format has none",
    ),
    CodeFile(
        "LAMMPS", "dump", lammps_dump, "lammps-dump-text", "H2O", force=0.1, unit="as the options say",
        missing="the energy, which no dump has; elements, if there is no such column (`types`)",
        types=((1, 8), (2, 1)),
    ),
    CodeFile(
        "MLIP (MTP)", "`.cfg`", mtp, "mtp-cfg", "H2O", energy=-10.0, force=0.1, stress=-0.6 / 125,
        missing="elements (`types`)", types=((0, 8), (1, 1)),
    ),
    CodeFile(
        "n2p2, RuNNer", "`input.data`", n2p2, "runnerdata", "H2O", energy=-10.0, force=0.1,
        unit="as the options say",
    ),
    CodeFile(
        "OpenMX", "`NAME` of `NAME.dat`, `NAME.md`", openmx, "openmx/md", "H2O", 2, reader=_DPDATA,
        energy=-10.0, force=0.1, energy_is="`Energy`", missing="stress",
    ),
    CodeFile(
        "ORCA", "output of one calculation", orca, "orca/spout", "H2O", periodic=False, reader=_DPDATA,
        energy=-10.0, force=0.1, energy_is="`FINAL SINGLE POINT ENERGY`",
    ),
    CodeFile(
        "psi4", "output of one gradient", psi4, "psi4/out", "H2O", periodic=False, reader=_DPDATA,
        energy=-10.0, force=0.1, energy_is="`Total Energy`", missing="correlated methods (refused)",
    ),
    CodeFile(
        "PWmat", "`MOVEMENT`", pwmat, "pwmat/movement", "H2O", 2, reader=_DPDATA,
        energy=-10.0, force=0.1, stress=-0.6 / 125, energy_is="`Ep`",
    ),
    CodeFile("PWmat", "`atom.config`", atom_config, "pwmat/atom.config", "H2O", reader=_DPDATA),
    CodeFile(
        "Quantum ESPRESSO", "`PREFIX` of files of `cp.x`", cp, "qe/cp/traj", "H2O", 2, reader=_DPDATA,
        energy=-10.0, force=0.1, energy_is="`etot`",
    ),
    CodeFile(
        "rMD17", "`.npz`", rmd17, "npz", "H2O", 2, False, energy=-10.0, force=0.1,
        unit="kcal/mol of the layout",
    ),
    CodeFile(
        "sGDML, MD17", "`.npz`", sgdml, "npz", "H2O", 2, False, energy=-10.0, force=0.1,
        unit="`e_unit`, `r_unit`, else as the options say",
    ),
    CodeFile(
        "SIESTA", "output of one calculation", siesta, "siesta/output", "H2O", reader=_DPDATA,
        energy=-10.0, force=0.1, stress=-0.6 / 125, energy_is="`FreeEng`, where it is another than `E_KS`",
    ),
    CodeFile(
        "SIESTA", "output of dynamics", siesta_dynamics, "siesta/aimd_output", "H2O", 2, reader=_DPDATA,
        energy=-10.0, force=0.1, stress=-0.6 / 125, energy_is="`E_KS`",
        missing="the free energy of each step",
    ),
    CodeFile(
        "VASP", "`vasprun.xml`", vasprun, "vasp-xml", "H2O", energy=-10.0, force=0.1, stress=-0.6 / 125,
        energy_is="`e_fr_energy`, as forces and stress",
    ),
    CodeFile(
        "extended xyz", "`.xyz`", extended_xyz, "extxyz", "H2O", energy=-10.0, force=0.1,
        stress=-0.6 / 125, unit="in the comment, or as the options say",
    ),
)  # fmt: skip


def agrees(one: CodeFile) -> None:
    """Write the file, read it, and compare it with what is right.

    Of two energies the free one counts, as it does in training with forces.
    """
    from ase import Atoms

    path = one.write()
    files = Files()
    file = files.structures(path, one.reader, "here", Reading(types=one.types))
    account, frame = file.account, file.frames[0]
    assert account is not None and account.format == one.format
    assert len(file.frames) == one.structures
    assert bool(frame.pbc.all()) is one.periodic
    if one.periodic:
        np.testing.assert_allclose(abs(np.linalg.det(frame.cell)), 125, rtol=1e-7)
    oxygen = int(frame.numbers.argmax())
    atoms = Atoms(numbers=frame.numbers, positions=frame.positions, cell=frame.cell, pbc=frame.pbc)
    assert atoms.get_chemical_formula() == one.formula
    longest = atoms.get_distances(oxygen, list(range(3)), mic=True).max()
    np.testing.assert_allclose(longest, 0.96, atol=0.01)
    values = {
        "energy": frame.find("energy" if frame.find("free_energy") is None else "free_energy"),
        "force": None if frame.find("forces") is None else frame.find("forces")[oxygen, 0],
        "stress": _stress(frame),
    }
    for name, value in values.items():
        expected = getattr(one, name)
        assert (value is None) is (expected is None), name
        if value is not None:
            np.testing.assert_allclose(value, expected, rtol=1e-6, err_msg=name)
    assert one.format in files.lines[0]


def _stress(frame: Frame) -> float | None:
    stress, virial = frame.find("stress"), frame.find("virial")
    if virial is not None:
        stress = -np.asarray(virial) / abs(np.linalg.det(frame.cell))
    return None if stress is None else float(np.ravel(stress)[0])


def table(versions: dict[str, str]) -> str:
    """The rows as markdown; ``versions`` of ASE and dpdata are those that the tests have."""
    head = ("code", "file", "read by", "`format`", "read are", "unit", "energy", "not read")
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for one in sorted(CODES, key=lambda one: one.code.lower()):
        by = f"`reader: dpdata` ({versions['dpdata']})" if one.reader else "atomtrain"
        if not one.reader and one.format not in ("fitsnap-json", "gromacs", "mtp-cfg", "npz"):
            by = f"ASE {versions['ase']}"
        found = [("energy", one.energy), ("forces", one.force), ("stress", one.stress)]
        labels = ", ".join(name for name, value in found if value is not None) or "structures"
        cells = (
            one.code,
            one.file,
            by,
            f"`{one.format}`",
            labels,
            one.unit,
            one.energy_is,
            one.missing,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def pinned() -> dict[str, str]:
    """The versions of ASE and dpdata in ``constraints.txt``, which tests are run with."""
    text = (Path(__file__).parents[2] / "constraints.txt").read_text()
    return {name: version for name, version in re.findall(r"^(\w+)==([\w.]+)", text, re.MULTILINE)
            if name in ("ase", "dpdata")}  # fmt: skip


if __name__ == "__main__":
    print(table(pinned()), end="")
