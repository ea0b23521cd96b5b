from ase.io import read, write

frames = read("copper.xyz", ":")
for atoms in frames:
    atoms.info["lattice"] = "whole" if len(atoms) == 32 else "defective"
write("labelled.xyz", frames)
