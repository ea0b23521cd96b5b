"""How far a training step of SOAP-BPNN is from what the machine could do.

Counts the calls into torch of one step, their floating point operations and the bytes of what they
read and write, measures the machine's rates, and prints what the step would take if it did nothing but
these operations, or nothing but move these bytes, beside what it takes. One thread. Run it with the
Python that has ``atomtrain`` and ``atomtrain-soap-bpnn``:
``python limits.py molecules.xyz crystals.xyz`` (default: the repository's examples).
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from ase import Atoms
from ase.io import read
from compare_peer import EXAMPLES, write_water
from scaling import CUTOFF, store_of
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from atomtrain.data import BatchSource
from atomtrain.model import Predictor
from atomtrain.targets import DatasetInfo, TargetInfo
from atomtrain.training.predict import predict
from atomtrain_soap_bpnn.hypers import ModelHypers
from atomtrain_soap_bpnn.model import SoapBpnn

VIEWS = ("view", "reshape", "transpose", "t.", "unsqueeze", "squeeze", "split", "slice", "select.int",
         "expand", "detach", "unbind", "permute", "alias", "_record_function", "empty")  # fmt: skip


class Count(TorchDispatchMode):
    """Calls, operations of matrix products, and sizes of what is read and written (not by views)."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.flops, self.bytes = 0, 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.calls += 1
        rule = flop_registry.get(func._overloadpacket)
        if rule is not None:
            self.flops += rule(*args, **(kwargs or {}), out_val=result)
        name = str(func).removeprefix("aten.")
        if not name.startswith(VIEWS):
            self.bytes += _size(args) + _size(result)
        return result


def _size(found: Any) -> int:
    if isinstance(found, torch.Tensor):
        return found.numel() * found.element_size()
    if isinstance(found, (list, tuple)):
        return sum(_size(one) for one in found)
    return 0


def step_of(frames: list[Atoms], batch_size: int) -> Callable[[], None]:
    """A training step with forces on the first ``batch_size`` structures."""
    torch.manual_seed(0)
    types = tuple(sorted({int(n) for atoms in frames for n in atoms.numbers}))
    target = TargetInfo("energy", quantity="energy", gradients=("forces",))
    info = DatasetInfo("angstrom", types, {"energy": target})
    predictor = Predictor(SoapBpnn(ModelHypers(), info), info).to(dtype=torch.float32)
    source = BatchSource(
        store_of(frames),
        cutoff=CUTOFF,
        dtype=torch.float32,
        constants=predictor.model.constants,
        memory_budget=8 * 10**9,
    )
    parameters = [p for p in predictor.model.parameters() if p.numel()]
    optimizer = torch.optim.Adam(parameters, fused=True)

    def step() -> None:
        batch = source.batch(torch.arange(batch_size))
        found = predict(predictor, batch, create_graph=True)
        loss = sum((found[key] - batch.labels[key]).square().mean() for key in found)
        optimizer.zero_grad()
        loss.backward(inputs=parameters)  # type: ignore[union-attr]
        optimizer.step()

    return step


def milliseconds(call: Callable[[], object], repetitions: int = 60) -> float:
    """Median wall time, after some calls to warm up."""
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - start))
    return median(times[repetitions // 5 :])


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    given = [Path(name) for name in sys.argv[1:]]
    molecules = given[0] if given else EXAMPLES / "ethanol" / "ethanol.xyz"
    crystals = given[1] if len(given) > 1 else EXAMPLES / "copper" / "copper.xyz"

    a = torch.randn(512, 512)
    flops = 2 * 512**3 / (1e6 * milliseconds(lambda: a @ a))  # GFLOP/s
    big = torch.randn(8 * 1024**2)
    target = torch.empty_like(big)
    rate = 2 * big.numel() * 4 / (1e6 * milliseconds(lambda: target.copy_(big)))  # GB/s
    small = torch.ones(8)
    call = 1000 * milliseconds(lambda: [small + small for _ in range(100)]) / 100
    print(f"{flops:.0f} GFLOP/s (product of 512 x 512), {rate:.0f} GB/s (copy of 32 MiB), "
          f"{call:.1f} microseconds a call (sum of 8 numbers)\n")  # fmt: skip
    print(
        "| batch | calls | MFLOP | at the rate, ms | MB | at the rate, ms | calls, ms | step, ms |"
    )
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        water = Path(folder) / "water.xyz"
        write_water(water)
        for name, path, size in (
            (molecules.stem, molecules, 8),
            (crystals.stem, crystals, 4),
            ("water-192", water, 2),
        ):
            step = step_of(list(read(path, f":{size}")), size)
            taken = milliseconds(step)
            with Count() as seen:
                step()
            mflop, mb = seen.flops / 1e6, seen.bytes / 1e6
            row = (seen.calls, mflop, mflop / flops, mb, mb / rate, seen.calls * call / 1000, taken)
            print(f"| {name} | " + " | ".join(_number(value) for value in row) + " |")


def _number(value: float) -> str:
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)) - 1)}f}" if value else "0"


if __name__ == "__main__":
    main()
