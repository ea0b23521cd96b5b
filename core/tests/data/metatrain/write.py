"""Makes written.zip: small files by metatrain's own writers, read by ../test_formats.py.

Two structures (a periodic one and a molecule) with an energy and its gradients, a vector of atoms
and a spherical tensor. Run here with a Python that has metatrain; made with metatrain 2026.4.1.
"""

import os
import tempfile
import zipfile
from pathlib import Path

import torch
from metatensor.torch import Labels, TensorBlock, TensorMap
from metatomic.torch import System
from metatrain.utils.data.writers.diskdataset import DiskDatasetWriter
from metatrain.utils.data.writers.memmap import MemmapWriter
from metatrain.utils.data.writers.metatensor import MetatensorWriter

torch.set_default_dtype(torch.float64)
systems = [
    System(
        types=torch.tensor([14, 6, 8][:n], dtype=torch.int32),
        positions=torch.arange(3.0 * n).reshape(n, 3) / 8,
        cell=torch.diag(torch.tensor([4.0, 5.0, 6.0])) if n == 2 else torch.zeros(3, 3),
        pbc=torch.tensor([n == 2] * 3),
    )
    for n in (2, 3)
]
s, a = torch.tensor([[0], [1]]), torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1], [1, 2]])


def labels(names, values):
    return Labels(names, values.to(torch.int32))


def axis(name, first=0):
    return labels([name], torch.arange(first, first + 3).reshape(-1, 1))


energy = TensorBlock(
    torch.tensor([[0.5], [1.5]]), labels(["system"], s), [], Labels.range("energy", 1)
)
energy.add_gradient(
    "positions",
    TensorBlock(
        -torch.arange(15.0).reshape(5, 3, 1),
        labels(["sample", "atom"], a),
        [axis("xyz")],
        Labels.range("energy", 1),
    ),
)
energy.add_gradient(
    "strain",
    TensorBlock(
        120.0 * torch.arange(18.0).reshape(2, 3, 3, 1),
        labels(["sample"], s),
        [axis("xyz_1"), axis("xyz_2")],
        Labels.range("energy", 1),
    ),
)
pull = TensorBlock(
    10.0 + torch.arange(15.0).reshape(5, 3, 1),
    labels(["system", "atom"], a),
    [axis("xyz")],
    Labels.range("pull", 1),
)
twist = TensorBlock(
    20.0 + torch.arange(12.0).reshape(2, 3, 2),
    labels(["system"], s),
    [axis("o3_mu", -1)],
    Labels.range("n", 2),
)
single = Labels.single()
maps = {
    "energy": TensorMap(single, [energy]),
    "mtt::pull": TensorMap(single, [pull]),
    "mtt::twist": TensorMap(labels(["o3_lambda", "o3_sigma"], torch.tensor([[1, 1]])), [twist]),
}
here = Path(__file__).parent.resolve()
with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)  # one of the writers takes names without folders only
    for writer in (
        DiskDatasetWriter("peer.zip"),
        MemmapWriter("peer"),
        MetatensorWriter("peer.mts"),
    ):
        writer.write(systems, maps)
        writer.finish()
    with zipfile.ZipFile(here / "written.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(p for p in Path().rglob("*") if p.is_file()):
            archive.write(file)
    os.chdir(here)
