"""torch-sim: many structures at once. ``python in_torch_sim.py model.pt``; torch-sim wants Python 3.12."""

from __future__ import annotations

import sys
import time

import torch
import torch_sim
from ase import Atoms, units
from ase.md.langevin import Langevin
from metatomic_ase import MetatomicCalculator
from metatomic_torchsim import MetatomicModel
from reference import agrees, copper, in_ase

STRUCTURES, STEPS = 8, 50
WARM_UP = 20
"""steps that TorchScript needs to be done with compiling"""


def run(model: MetatomicModel, structures: list[Atoms], steps: int) -> torch_sim.SimState:
    """Langevin dynamics of all structures."""
    return torch_sim.integrate(
        system=structures, model=model, integrator=torch_sim.Integrator.nvt_langevin,
        n_steps=steps, temperature=300, timestep=0.002,
    )  # fmt: skip


def main() -> None:
    """Compare, and run Langevin dynamics of all structures together."""
    model = MetatomicModel(sys.argv[1], device="cpu")
    structures = [copper(seed) for seed in range(STRUCTURES)]
    state = torch_sim.initialize_state(structures, model.device, model.dtype)
    found = model(state)
    atoms = len(structures[0])
    for k, structure in enumerate(structures):
        agrees(
            f"torch-sim, structure {k} of {STRUCTURES}",
            in_ase(sys.argv[1], structure),
            found["energy"][k].item(),
            found["forces"][k * atoms : (k + 1) * atoms].detach().numpy(),
            found["stress"][k].detach().numpy(),
        )
    run(model, structures, WARM_UP)
    begin = time.process_time()
    final = run(model, structures, STEPS)
    together = (time.process_time() - begin) / (STEPS * STRUCTURES)
    assert bool(torch.isfinite(final.positions).all())

    one = structures[0].copy()
    one.calc = MetatomicCalculator(sys.argv[1], device="cpu")
    dynamics = Langevin(one, 2 * units.fs, temperature_K=300, friction=0.01 / units.fs, fixcm=False)
    dynamics.run(WARM_UP)
    begin = time.process_time()
    dynamics.run(STEPS)
    alone = (time.process_time() - begin) / STEPS
    print(
        f"CPU time for each structure and step: {1000 * together:.1f} ms for {STRUCTURES} in torch-sim, "
        f"{1000 * alone:.1f} ms for one in ASE"
    )


if __name__ == "__main__":
    main()
