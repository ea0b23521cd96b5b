"""i-PI: its metatomic driver, a thermostat, and a path integral. ``python in_ipi.py model.pt``"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import ase.io
import numpy as np
from ase import units
from ipi.pes.metatomic import MetatomicDriver
from ipi.utils.units import unit_to_internal, unit_to_user
from reference import agrees, copper, in_ase

SOCKET = f"atomtrain-{os.getpid()}"
INPUT = """<simulation verbosity='low' safe_stride='1000000'>
  <output prefix='{name}'>
    <properties stride='1' filename='out'> [ step, time{{picosecond}}, conserved{{electronvolt}},
      temperature{{kelvin}}, potential{{electronvolt}}, kinetic_cv{{electronvolt}} ] </properties>
  </output>
  <total_steps> {steps} </total_steps>
  <prng><seed> 1 </seed></prng>
  <ffsocket name='model' mode='unix' pbc='false'><address> {socket} </address></ffsocket>
  <system>
    <initialize nbeads='{beads}'>
      <file mode='ase'> start.xyz </file>
      <velocities mode='thermal' units='kelvin'> 300 </velocities>
    </initialize>
    <forces><force forcefield='model'/></forces>
    <motion mode='dynamics'>
      <dynamics mode='nvt'>
        <timestep units='femtosecond'> 2 </timestep>
        <thermostat mode='{thermostat}'><tau units='femtosecond'> 100 </tau></thermostat>
      </dynamics>
    </motion>
    <ensemble><temperature units='kelvin'> 300 </temperature></ensemble>
  </system>
</simulation>
"""


def driver(model: str) -> None:
    """The driver by itself. It is in atomic units, by i-PI's own constants, with the cell's vectors as columns."""
    atoms, expected = copper(), in_ase(model, copper())
    ase.io.write("start.xyz", atoms, format="extxyz")
    found = MetatomicDriver(template="start.xyz", model=model)
    cell, positions = (
        unit_to_internal("length", "angstrom", v) for v in (atoms.cell.array.T, atoms.positions)
    )
    energy, forces, virial, _ = found(cell, positions)
    agrees(
        "i-PI",
        expected,
        float(unit_to_user("energy", "electronvolt", energy)),
        np.asarray(unit_to_user("force", "ev/ang", forces)),
        -np.asarray(unit_to_user("energy", "electronvolt", virial)) / atoms.get_volume(),
    )


def simulation(model: str, name: str, beads: int, thermostat: str, steps: int) -> None:
    """i-PI with one driver beside it, as one starts them in two terminals."""
    text = INPUT.format(name=name, beads=beads, thermostat=thermostat, steps=steps, socket=SOCKET)
    Path(f"{name}.xml").write_text(text)
    server = subprocess.Popen(["i-pi", f"{name}.xml"])
    command = ["i-pi-py_driver", "-m", "metatomic", "-u", "-a", SOCKET,
               "-o", f"template=start.xyz,model={model}"]  # fmt: skip
    while not Path(f"/tmp/ipi_{SOCKET}").exists() and server.poll() is None:
        time.sleep(0.1)
    client = subprocess.Popen(command)
    try:
        assert server.wait(timeout=600) == 0
    finally:
        server.kill()
        client.terminate()
        client.wait()
    rows = np.loadtxt(f"{name}.out")
    conserved, kinetic = rows[:, 2], rows[len(rows) // 2 :, 5]
    assert len(rows) == steps + 1 and np.isfinite(rows).all()
    classical = 1.5 * units.kB * 300 * 32
    print(
        f"i-PI, {name}: {steps} steps of {beads} bead(s); conserved energy strays by "
        f"{1000 * np.ptp(conserved) / 32:.2f} meV/atom, kinetic energy {kinetic.mean() / classical:.2f} of the "
        "classical"
    )


def main() -> None:
    """All of it in a folder of its own."""
    model = str(Path(sys.argv[1]).resolve())
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        driver(model)
        simulation(model, "nvt", 1, "svr", 100)
        simulation(model, "path-integral", 4, "pile_g", 50)


if __name__ == "__main__":
    main()
