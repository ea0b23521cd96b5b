"""Files as codes write them: which energy, which unit, which elements, and what is said of it.

All files are written by hand, in the layouts that the codes document.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from helpers.frames import build

from atomtrain.data import Datasets, Files
from atomtrain.data.readers import Reading, flaws, gro, outcar
from atomtrain.errors import DataError, OptionsError
from atomtrain.frame import Frame
from atomtrain.graph import volumes

BAR = 6.241509074460763e-07
"""eV/A^3"""
HARTREE = 27.211386245981
CELL = 'Lattice="4 0 0 0 4 0 0 0 4"'
ATOMS = "Cu 0 0 0 0.1 0 0\nCu 2 2 0.1 -0.1 0 0\n"
COLUMNS = "Properties=species:S:1:pos:R:3:forces:R:3"


def xyz(comment: str, atoms: str = ATOMS, name: str = "a.xyz") -> None:
    Path(name).write_text(f"2\n{comment}\n{atoms}")


def data(path: Any, systems: dict[str, Any] | None = None, **energy: Any) -> Datasets:
    given = {
        "systems": {"read_from": path, **(systems or {})},
        "targets": {"energy": {"key": "energy", "unit": "eV", **energy}},
    }
    return build(given, [given])


def energies(found: Datasets) -> list[float]:
    return found.train.labels["energy"].values[:, 0].tolist()


def stress(found: Datasets) -> np.ndarray:
    """Of the first structure, 3 x 3."""
    label = found.train.labels["energy:strain"].values[0] / volumes(found.train.cells)[0]
    return label.reshape(3, 3).numpy()


def line(found: Datasets, name: str) -> str:
    (said,) = [note for note in found.notes if note.startswith(f"read '{name}'")]
    return said


# -- the energy that forces belong to --------------------------------------------------------------


def smeared(k: int, forces: bool = True) -> Atoms:
    """A metal with smearing: ASE's energy is extrapolated, the free energy has the forces."""
    atoms = Atoms("Cu2", [[0, 0, 0], [2, 2, 0.1 * k]], cell=[4, 4, 4], pbc=True)
    found = {"energy": -7.0 + 0.1 * k, "free_energy": -7.3 + 0.05 * k, "forces": np.zeros((2, 3))}
    if not forces:
        del found["forces"]
    atoms.calc = SinglePointCalculator(atoms, **found)
    return atoms


@pytest.mark.parametrize("name", ["a.traj", "a.xyz", "a.db"])
def test_the_free_energy_is_taken_with_forces(workplace: Path, name: str) -> None:
    ase.io.write(name, [smeared(0), smeared(1)])
    found = data(name)
    assert energies(found) == pytest.approx([-7.3, -7.25])
    (said,) = [note for note in found.notes if "the free energy is taken" in note]
    assert "differ by up to 0.175 eV/atom" in said and "energy_extrapolated" in said
    assert energies(data(name, key="energy_extrapolated")) == pytest.approx([-7.0, -6.9])


def test_the_free_energy_of_several_files_is_taken(workplace: Path) -> None:
    ase.io.write("a.traj", [smeared(0)])
    ase.io.write("b.traj", [smeared(1)])
    assert energies(data(["a.traj", "b.traj"])) == pytest.approx([-7.3, -7.25])


def test_without_forces_the_energy_stays(workplace: Path) -> None:
    ase.io.write("a.traj", [smeared(0, forces=False), smeared(1, forces=False)])
    found = data("a.traj")
    assert energies(found) == pytest.approx([-7.0, -6.9])
    assert any("without forces or stress 'energy' is taken" in note for note in found.notes)


VASP = """<?xml version="1.0" encoding="ISO-8859-1"?>
<modeling>
<generator><i name="program" type="string">vasp</i><i name="version" type="string">5.4.4</i></generator>
<incar><i type="int" name="NELM">3</i></incar>
<kpoints><varray name="kpointlist"><v>0 0 0</v></varray></kpoints>
<parameters><separator name="electronic"><separator name="electronic convergence">
<i type="int" name="NELM">     3</i></separator></separator></parameters>
<atominfo><atoms>2</atoms><types>1</types>
<array name="atoms"><dimension dim="1">ion</dimension><set>
<rc><c>Cu</c><c>1</c></rc><rc><c>Cu</c><c>1</c></rc></set></array></atominfo>
<structure name="initialpos"><crystal><varray name="basis"><v>4 0 0</v><v>0 4 0</v><v>0 0 4</v></varray>
</crystal><varray name="positions"><v>0 0 0</v><v>0.5 0.5 0</v></varray></structure>
{steps}</modeling>
"""
STEP = """<calculation>{cycles}
<structure><crystal><varray name="basis"><v>4 0 0</v><v>0 4 0</v><v>0 0 4</v></varray></crystal>
<varray name="positions"><v>0 0 0</v><v>0.5 0.5 {z}</v></varray></structure>
<varray name="forces"><v>0.1 0 0</v><v>-0.1 0 0</v></varray>
<energy><i name="e_fr_energy">{free}</i><i name="e_0_energy">{zero}</i></energy></calculation>
"""
CYCLE = (
    '<scstep><energy><i name="e_fr_energy">{free}</i><i name="e_wo_entrp">-6.9</i>'
    '<i name="e_0_energy">{zero}</i></energy></scstep>'
)


def vasprun(*cycles: int, name: str = "vasprun.xml") -> None:
    """One step for each number of electronic cycles, of which NELM = 3 are allowed."""
    steps = []
    for k, n in enumerate(cycles):
        values = {"free": -7.3 + k, "zero": -7.0 + k, "z": 0.01 * k}
        steps.append(STEP.format(cycles=n * CYCLE.format(**values), **values))
    Path(name).write_text(VASP.format(steps="".join(steps)))


def test_vasprun(workplace: Path) -> None:
    vasprun(2, 2)
    found = data("vasprun.xml")
    assert energies(found) == pytest.approx([-7.3, -6.3])
    said = line(found, "vasprun.xml")
    for part in ("vasp-xml (ASE 3", "2 structures; Cu; periodic, cell vectors of 4 angstrom",
                 "energy (e_0_energy, eV), free_energy (e_fr_energy, eV), forces (eV/A, up to 0.1)"):  # fmt: skip
        assert part in said


def test_units_that_a_format_fixes(workplace: Path) -> None:
    vasprun(2)
    with pytest.raises(DataError, match=r"read in eV, which the file or its format fixes.*hartree"):
        data("vasprun.xml", unit="hartree")
    with pytest.raises(DataError, match=r"length_unit: 'vasprun.xml' is read in angstrom.*is bohr"):
        data("vasprun.xml", {"length_unit": "bohr"})


def test_steps_that_did_not_converge(workplace: Path) -> None:
    vasprun(2, 3, 2)
    with pytest.raises(DataError, match=r"of 1 of 3 structures did not converge \(frame 1\).*drop"):
        data("vasprun.xml")
    found = data("vasprun.xml", {"unconverged": "drop"})
    assert energies(found) == pytest.approx([-7.3, -5.3])
    assert any("frame 1), and are left out" in text for text in found.warnings)
    assert len(energies(data("vasprun.xml", {"unconverged": "keep"}))) == 3


def test_a_format_is_named_or_told_by_content(workplace: Path) -> None:
    vasprun(2, name="vasprun.xml-001")
    assert "vasp-xml" in line(data("vasprun.xml-001"), "vasprun.xml-001")
    xyz(f"{CELL} {COLUMNS} energy=-7", name="a.dat")
    assert energies(data("a.dat", {"format": "extxyz"})) == [-7.0]
    with pytest.raises(DataError, match=r"format 'extxzy', which ASE.*did you mean 'extxyz'"):
        data("a.dat", {"format": "extxzy"})
    Path("scf.log").write_text("   ABACUS v3.2\n")
    with pytest.raises(DataError, match=r"output of ABACUS, which ASE does not read.*dpdata"):
        data("scf.log")
    Path("run.out").write_text("what is this\n")
    with pytest.raises(DataError, match=r"holds no structures that ASE can read as 'espresso-out'"):
        data("run.out")


def test_energies_of_hybrids_and_cycles_of_espresso() -> None:
    """The energy after the exchange converged, '!!', belongs to the forces."""
    text = b"""!    total energy              =     -16.0 Ry
!!   total energy              =     -16.2 Ry
     Forces acting on atoms (cartesian axes, Ry/au):
!    total energy              =     -16.1 Ry
     convergence NOT achieved after 100 iterations: stopping
     Forces acting on atoms (cartesian axes, Ry/au):
"""
    frames = [Frame(np.array([1]), np.zeros((1, 3)), np.eye(3), np.ones(3, bool), {"energy": e})
              for e in (-16.0 * HARTREE / 2, -16.1 * HARTREE / 2)]  # fmt: skip
    found = flaws.Frames(frames)
    flaws._espresso(found, text, "a.out")
    assert found[0].find("energy") == pytest.approx(-16.2 * HARTREE / 2)
    assert found[1].find("energy") == pytest.approx(-16.1 * HARTREE / 2)
    assert found.account.unconverged == [1]
    text = text[: text.index(b"!    total energy              =     -16.1")]
    found = flaws.Frames(frames)
    flaws._espresso(found, text + b"     convergence NOT achieved after 9 iterations\n", "a.out")
    assert found.account.unconverged == [1]  # that step has no energy of its own


def test_outcar_that_ase_cannot_read() -> None:
    text = b""" POTCAR:    PAW_PBE Cu 22Jun2005
   VRHFIN =Cu: d10 p1
   VRHFIN =Ni: d9
   ions per type =               1   1
  in kB      10.0    20.0    30.0     4.0     5.0     6.0
      direct lattice vectors                 reciprocal lattice vectors
     4.000000000  0.000000000  0.000000000     0.250000000  0.000000000  0.000000000
     0.000000000  4.000000000  0.000000000     0.000000000  0.250000000  0.000000000
     0.000000000  0.000000000  4.000000000     0.000000000  0.000000000  0.250000000

 POSITION                                       TOTAL-FORCE (eV/Angst)
 -----------------------------------------------------------------------------------
      0.00000      0.00000      0.00000         0.100000      0.000000      0.000000
      2.00000      2.00000      0.00000        -0.100000      0.000000      0.000000
 -----------------------------------------------------------------------------------
  free  energy   TOTEN  =        -7.30000000 eV
  energy  without entropy=       -6.90000000  energy(sigma->0) =       -7.00000000
"""
    (frame,) = outcar.read(text)
    assert frame.numbers.tolist() == [29, 28] and frame.cell[0, 0] == 4
    assert (frame.find("energy"), frame.find("free_energy")) == (-7.0, -7.3)
    assert frame.find("forces")[0].tolist() == [0.1, 0, 0]
    # kbar, pressure positive, xy yz zx in the file; yz zx xy in ASE's order
    expected = -1000 * BAR * np.array([10, 20, 30, 5, 6, 4])
    assert frame.find("stress") == pytest.approx(expected)


def test_castep_other_optimisers_and_no_end() -> None:
    text = b"Forces *\n TPSD: starting iteration  1\n Forces *\n TPSD: improving iteration  1\n"
    made = flaws._castep_text(text)
    assert made.count(b"BFGS: starting iteration") == 1
    assert b"BFGS: improving" not in made  # that step was not finished
    assert b"Finalisation time   =" in made


# -- units -----------------------------------------------------------------------------------------


def test_units_and_sign_of_gradients(workplace: Path) -> None:
    xyz(f'{CELL} {COLUMNS} energy=-7 stress="4000 0 0 0 200 0 0 0 300" pbc="T T T"')
    found = data("a.xyz", stress={"unit": "bar", "positive": "compression"})
    assert np.diag(stress(found)) == pytest.approx(-BAR * np.array([4000, 200, 300]))
    assert np.diag(stress(data("a.xyz", stress={"unit": "kbar"}))) == pytest.approx(
        1000 * BAR * np.array([4000, 200, 300])
    )
    found = data("a.xyz", forces={"unit": "hartree/bohr"}, stress=False)
    assert float(found.train.labels["energy:forces"].values[0, 0]) == pytest.approx(5.142206751)
    (warning,) = [
        text for text in data("a.xyz").warnings if "training" in text and "beyond any" in text
    ]
    assert "stress above 1 eV/angstrom^3" in warning and "stress: {unit: bar}" in warning
    with pytest.raises(DataError, match="the unit of the energy must be known"):
        data("a.xyz", unit="", stress={"unit": "bar"})
    with pytest.raises(OptionsError, match="only a stress has a sign to choose"):
        data("a.xyz", forces={"positive": "tension"})


def test_a_unit_that_the_file_states(workplace: Path) -> None:
    xyz(f'{CELL} {COLUMNS} energy=-7 stress="4 0 0 0 2 0 0 0 3" stress-unit=GPa pbc="T T T"')
    assert np.diag(stress(data("a.xyz"))) == pytest.approx(1e4 * BAR * np.array([4, 2, 3]))
    with pytest.raises(DataError, match=r"'stress' of 'a.xyz' is read in GPa.*options say kbar"):
        data("a.xyz", stress={"unit": "kbar"})


def test_a_stress_of_the_other_sign_than_the_virial(workplace: Path) -> None:
    """GPUMD: both are positive under compression."""
    six = '"{0} 0 0 0 {0} 0 0 0 {0}"'
    comment = f"{CELL} {COLUMNS} energy=-7 virial={six.format(0.64)} stress={six.format(0.01)}"
    xyz(comment)
    assert stress(data("a.xyz"))[0, 0] == pytest.approx(-0.01)
    assert stress(data("a.xyz", virial=True))[0, 0] == pytest.approx(-0.01)
    xyz(comment.replace("0.01 ", "7.0 ").replace('0.01"', '7.0"'))
    assert any(
        "stress and virial of its frames disagree" in text for text in data("a.xyz").warnings
    )


RUNNER = """begin
atom 0.0 0.0 0.0 Ne 0.0 0.0 1.25 0.0 0.0
atom 0.0 0.0 3.0 Ne 0.0 0.0 -1.25 0.0 0.0
energy -0.89096529
charge 0.0
end
"""


def test_formats_without_units_take_those_of_the_options(workplace: Path) -> None:
    Path("input.data").write_text(RUNNER)
    found = data("input.data", {"length_unit": "bohr"}, unit="hartree")
    assert energies(found) == [-0.89096529] and float(found.train.positions[1, 2]) == 3.0
    assert not any("without units" in text for text in found.warnings)
    found = data("input.data")
    assert energies(found) == [-0.89096529]
    assert any("format without units" in text and "bohr" in text for text in found.warnings)


# -- elements --------------------------------------------------------------------------------------

DUMP = """ITEM: TIMESTEP
0
ITEM: NUMBER OF ATOMS
2
ITEM: BOX BOUNDS pp pp pp
0 4
0 4
0 4
ITEM: ATOMS id type x y z fx fy fz
1 1 0 0 0 0.1 0 0
2 2 2 2 0 -0.1 0 0
"""


def test_types_of_lammps(workplace: Path) -> None:
    Path("a.dump").write_text(DUMP)
    with pytest.raises(DataError, match=r"types 1, 2, not of elements.*types: \{1: ..., 2: ...\}"):
        data("a.dump")
    with pytest.raises(DataError, match="the options leave out 2"):
        data("a.dump", {"types": {1: "Cu"}})
    with pytest.raises(DataError, match="has no 'energy'"):  # ASE gives 0.0
        data("a.dump", {"types": {1: "Cu", 2: "Ni"}})
    xyz("energy=-7 " + COLUMNS, name="e.xyz", atoms=ATOMS.replace("Cu 2", "Ni 2"))
    energy = {"read_from": "e.xyz", "forces": {"read_from": "a.dump"}}
    found = data("a.dump", {"types": {1: "Cu", 2: "Ni"}}, **energy)
    assert found.train.types.tolist() == [29, 28]


def test_types_in_the_place_of_species(workplace: Path) -> None:
    atoms = "1 0 0 0 0.1 0 0\n2 2 2 0 -0.1 0 0\n"
    xyz(f"{CELL} {COLUMNS} energy=-7", atoms)
    with pytest.raises(DataError, match="types 1, 2, not of elements"):
        data("a.xyz")
    assert data("a.xyz", {"types": {1: "Cu", 2: "Ni"}}).train.types.tolist() == [29, 28]
    xyz(
        f"{CELL} {COLUMNS} energy=-7", atoms.replace("1 0 0", "56 0 0", 1).replace("2 2 2", "8 2 2")
    )
    assert data("a.xyz").train.types.tolist() == [56, 8]
    xyz(
        f"{CELL} {COLUMNS} energy=-7",
        atoms.replace("1 0 0", "Cu1 0 0", 1).replace("2 2 2", "O_w 2 2"),
    )
    assert data("a.xyz").train.types.tolist() == [29, 8]


def test_numbers_that_contradict_symbols(workplace: Path) -> None:
    columns = "Properties=species:S:1:pos:R:3:Z:I:1"
    xyz(f"{CELL} {columns} energy=-7", "Cu 0 0 0 29\nCu 2 2 0 28\n")
    with pytest.raises(
        DataError, match=r"contradicts itself on line 4: species is Cu, but Z is 28"
    ):
        data("a.xyz")


SALT = """salt
    4
    1NA      NA    1   0.000   0.000   0.000
    2CL      CL    2   0.282   0.000   0.000
    3ALA     CA    3   0.000   0.282   0.000
    4SOL    OW1    4   0.282   0.282   0.100
   1.00000   1.00000   2.00000
"""


def test_elements_of_gromacs(workplace: Path) -> None:
    Path("a.gro").write_text(SALT * 2)
    frames = gro.read("a.gro", "here")
    assert [frame.numbers.tolist() for frame in frames] == [[11, 17, 6, 8]] * 2
    assert frames[1].positions[3].tolist() == pytest.approx([2.82, 2.82, 1.0])
    assert np.diag(frames[0].cell).tolist() == [10, 10, 20] and frames[0].pbc.all()
    Path("b.gro").write_text(SALT.replace("OW1", "MW "))
    with pytest.raises(DataError, match=r"line 6: the element of atom 'MW' of residue 'SOL'"):
        gro.read("b.gro", "here")
    Path("c.gro").write_text(SALT.replace("   1.00000", "", 1).replace("2.00000", "oops"))
    with pytest.raises(DataError, match="line 7 should be the box"):
        gro.read("c.gro", "here")


# -- atoms that were fixed -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.traj", "a.xyz"])
def test_forces_of_fixed_atoms(workplace: Path, name: str) -> None:
    atoms = Atoms("Cu3", [[0, 0, 0], [2, 2, 0], [2, 0, 2.1]], cell=[4, 4, 4], pbc=True)
    forces = [[0, 0, 0], [0.5, 0, 0], [0, 0.1, 0]]
    atoms.calc = SinglePointCalculator(atoms, energy=-7.0, forces=forces)
    atoms.set_constraint(FixAtoms([0, 1]))  # the force on the second was computed all the same
    ase.io.write(name, atoms)
    if name == "a.xyz":
        move = f'{CELL} {COLUMNS}:move_mask:L:1 energy=-7 pbc="T T T"'
        rows = ["Cu 0 0 0 0 0 0 F", "Cu 2 2 0 0.5 0 0 F", "Cu 2 0 2.1 0 0.1 0 T"]
        Path(name).write_text("\n".join(["3", move, *rows, ""]))
    found = data(name)
    mask = found.train.labels["energy:forces"].mask
    assert mask is not None and mask.all(1).tolist() == [False, False, True]
    assert mask[1].tolist() == [True, False, False]
    assert any("because a constraint fixed them" in note for note in found.notes)
    assert data(name, {"fixed_atoms": "keep"}).train.labels["energy:forces"].mask is None


# -- extended xyz of other programs ----------------------------------------------------------------


def test_keys_in_any_case(workplace: Path) -> None:
    xyz(
        f"{CELL} {COLUMNS} energy=-7".replace("Lattice", "lattice").replace(
            "Properties", "properties"
        )
    )
    found = data("a.xyz")
    assert found.train.pbc.all() and float(found.train.cells[0, 0, 0]) == 4.0
    assert found.train.labels["energy:forces"].values[0].tolist() == [0.1, 0, 0]
    assert "'a.xyz': lattice= is taken for Lattice=" in found.notes
    xyz(f"{CELL} {COLUMNS} energy=-7".replace("Lattice", "CELL").replace("forces", "force"))
    found = data("a.xyz")
    assert found.train.pbc.all()
    assert found.train.labels["energy:forces"].values[0].tolist() == [0.1, 0, 0]


def test_a_cell_that_is_not_read(workplace: Path) -> None:
    xyz(f'cell="4 4 4" {COLUMNS} energy=-7')
    with pytest.raises(DataError, match=r"frame 0 of 'a.xyz' have no cell, but a value 'cell'"):
        data("a.xyz")


def test_six_numbers(workplace: Path) -> None:
    xyz(f'{CELL} {COLUMNS} energy=-7 virial="0.6 0.5 0.4 0.03 0.02 0.01" pbc="T T T"')
    expected = -np.array([[0.6, 0.01, 0.02], [0.01, 0.5, 0.03], [0.02, 0.03, 0.4]]) / 64
    assert stress(data("a.xyz", virial=True)) == pytest.approx(expected)


def test_other_numbers_of_entries(workplace: Path) -> None:
    xyz(f'{CELL} {COLUMNS} energy=-7 stress="1 2 3"')
    with pytest.raises(
        DataError, match=r"line 2 \(of frame 0\): 'stress' has 3 numbers, but should"
    ):
        data("a.xyz")


def test_windows_and_fortran(workplace: Path) -> None:
    atoms = "Cu 0.0D+00 0.0D+00 0.0D+00 0.1D+00 0.0D+00 0.0D+00\r\nCu 0.2D+01 2 0.1 -.1d0 0 0\r\n"
    Path("a.xyz").write_bytes(
        b"\xef\xbb\xbf" + f"2\r\n{CELL} {COLUMNS} energy=-0.7D+01\r\n{atoms}".encode()
    )
    found = data("a.xyz")
    assert energies(found) == [-7.0] and float(found.train.positions[1, 0]) == 2.0
    assert float(found.train.labels["energy:forces"].values[1, 0]) == -0.1


@pytest.mark.parametrize(
    "comment",
    [
        " energy: -5.0705 gnorm: 0.01 xtb: 6.6.1",
        "Coordinates from ORCA-job scan E -5.0705",
        " i =        0, time =        0.000, E =        -5.0705",
    ],
)
def test_energies_in_words(workplace: Path, comment: str) -> None:
    xyz(comment, "Cu 0 0 0\nCu 2 2 0\n")
    found = data("a.xyz")
    assert energies(found) == pytest.approx([-5.0705 * HARTREE])
    assert "from hartree" in line(found, "a.xyz")


def test_words_are_not_offered_as_energies(workplace: Path) -> None:
    xyz("energy: -5.07 of this", "Cu 0 0 0\nCu 2 2 0\n")
    with pytest.raises(DataError, match="comment lines have words without values") as caught:
        data("a.xyz")
    assert "did you mean" not in str(caught.value)


# -- labels that are none --------------------------------------------------------------------------


def test_energies_that_are_placeholders(workplace: Path) -> None:
    frames = []
    for k in range(4):
        atoms = Atoms("Cu2", [[0, 0, 0], [2, 2, 0.1 * k]], cell=[4, 4, 4], pbc=True)
        atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=np.eye(2, 3) * k)
        frames.append(atoms)
    ase.io.write("a.traj", frames)
    assert any("'energy' is 0 in all of 4 structures" in text for text in data("a.traj").warnings)
    Path("input.data").write_text(RUNNER.replace("-0.89096529", "0.0") * 3)
    with pytest.raises(DataError, match="has no 'energy'"):
        data("input.data")


def test_remarks_of_ase_are_said_once(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import warnings

    from atomtrain.data.readers import ase_files

    made = ase_files._frame

    def remarking(*given: Any) -> Frame:
        warnings.warn("an odd line", stacklevel=1)
        return made(*given)

    monkeypatch.setattr(ase_files, "_frame", remarking)
    ase.io.write("a.traj", [smeared(0), smeared(1)])
    files = Files()
    files.open("a.traj", None, "here", Reading())
    assert [text for text in files.lines if "ASE says" in text] == [
        "'a.traj': ASE says: an odd line (frame 0)"
    ]


# -- remedies by format, on frames as ASE gives them -----------------------------------------------


def given(n: int = 2, cell: float = 0.0, **values: Any) -> flaws.Frames:
    """``n`` frames of two atoms, all alike but for their energies."""
    made = []
    for k in range(n):
        frame = Frame(np.array([1, 8]), np.ones((2, 3)), np.eye(3) * cell, np.full(3, cell > 1))
        frame.per_structure = {"energy": -1.0 - k, **values}
        frame.per_atom = {"forces": np.ones((2, 3))}
        made.append(frame)
    return flaws.Frames(made)


def test_dynamics_of_aims() -> None:
    """The cell is printed once, and the last frame has the positions of the first."""
    frames = given(3)
    frames[1].positions = frames[1].positions + 0.1
    text = b"  | Unit cell:\n  |   4.0 0.0 0.0\n  |   0.0 5.0 0.0\n  |   0.0 0.0 6.0\n"
    flaws._aims(frames, text, "aims.out")
    assert len(frames) == 2 and all(np.diag(f.cell).tolist() == [4, 5, 6] for f in frames)
    assert all(frame.pbc.all() for frame in frames)


def test_units_of_qbox() -> None:
    frames = given(1, cell=16.0, stress=np.full(6, 2.0))
    flaws._qbox(frames, b"", "a.xml")
    (frame,) = frames
    assert frame.find("energy") == pytest.approx(-HARTREE)
    assert frame.cell[0, 0] == pytest.approx(8.46683537)
    assert frame.find("forces")[0, 0] == pytest.approx(51.4220675)
    assert frame.find("stress")[0] == pytest.approx(-2 * 1e4 * BAR)


def test_free_energy_in_the_text_of_gpaw() -> None:
    frames = given(2)
    flaws._gpaw_text(frames, b"Free energy:  -1.25\nFree energy:  -2.25\n", "a.txt")
    assert [frame.find("free_energy") for frame in frames] == [-1.25, -2.25]


def test_cycles_of_gaussian() -> None:
    frames = given(2)
    for frame, hartree in zip(frames, (-1.0, -2.0), strict=True):
        frame.per_structure["energy"] = hartree * HARTREE
    text = b""" SCF Done:  E(RB3LYP) =  -1.0     A.U. after   12 cycles
 >>>>>>>>>> Convergence criterion not met.
 SCF Done:  E(RB3LYP) =  -2.0     A.U. after  129 cycles
"""
    flaws._gaussian_unconverged(frames, text, "a.log")
    assert frames.account.unconverged == [1]


def test_cells_that_are_none_or_are_elsewhere(workplace: Path) -> None:
    frames = given(1, cell=1.0)
    flaws._placeholder_cell(frames, b"", "a.pdb")
    assert not frames[0].cell.any() and not frames[0].pbc.any()
    Path("control").write_text("$periodic 3\n$lattice angs\n")
    with pytest.raises(flaws.Incomplete, match="periodic calculation of TURBOMOLE"):
        flaws._turbomole(given(1), b"$coord\n", "coord")
    frames = given(1, cell=9.0)
    frames[0].pbc = np.zeros(3, dtype=bool)
    flaws._always_periodic(frames, b"", "a.con")
    assert frames[0].pbc.all()


def test_dispersion_of_castep() -> None:
    """ASE gives the energy without the correction that the forces have."""
    frames = given(1, energy_with_dispersion_correlation=-1.5, free_energy=-1.1)
    flaws._castep(frames, b"", "a.castep")
    assert (frames[0].find("energy"), frames[0].find("free_energy")) == (-1.5, -1.5)
