"""What ``atomtrain doctor`` looks at: versions, plugins, devices, threads, disk, engines.

Each finding says what, where, and what to do. Nothing of the data is looked at: that is ``atomtrain inspect``.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import Distribution, PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any, Literal

from atomtrain.contract import catalog
from atomtrain.errors import AtomtrainError, first_line

Status = Literal["ok", "note", "warning", "broken"]
PACKAGES = (
    "torch", "numpy", "scipy", "ase", "metatomic-torch", "metatensor-torch", "metatensor-operations", "vesin",
    "vesin-torch", "sphericart-torch", "pydantic", "pluggy",
)  # fmt: skip
ENGINES = {
    "metatomic-ase": "simulations in ASE",
    "torch-sim-atomistic": "batches of structures on a GPU",
    "lammps": "large simulations",
    "ipi": "path integrals and replica exchange",
}
WRITTEN = 64 << 20
SLOW, LITTLE = 30e6, 2e9
"""bytes per second, and free bytes, below which a disk is worth a word"""
TRIED = 60.0
"""seconds that a try of threads may take, of which starting Python and torch is the most"""
WORTH = 1.3
"""how many times faster others must be before threads are advised on"""
LOAD = """
import sys, time, torch
torch.manual_seed(0)
layers = [torch.nn.Linear(256, 64), torch.nn.SiLU(), torch.nn.Linear(64, 64), torch.nn.SiLU(), torch.nn.Linear(64, 1)]
net = torch.nn.Sequential(*layers)
x, index = torch.randn(400, 256), torch.randint(0, 40, (400,))
best, end = [], time.perf_counter() + float(sys.argv[1])
while len(best) < 20 or (len(best) < 400 and time.perf_counter() < end):
    began = time.perf_counter()
    torch.zeros(40, 1).index_add(0, index, net(x)).square().sum().backward()
    best.append(time.perf_counter() - began)
best.sort()
print(best[len(best) // 2], torch.get_num_threads())
"""
"""steps like those of training: small products, sums over atoms, derivatives"""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at; ``broken``: trainings fail by it."""

    topic: str
    status: Status
    text: str

    def as_json(self) -> dict[str, str]:
        """Plain data."""
        return asdict(self)


Found = Iterator[tuple[Status, str]]


def examined(outputs: Path, measure: bool = True) -> Iterator[Check]:
    """All checks in order; one that fails itself is broken. ``measure``: also what takes seconds."""
    topics: dict[str, Callable[[], Found]] = {
        "versions": versions,
        "plugins": plugins,
        "devices": devices,
        "threads": lambda: threads(measure),
        "disk": lambda: disk(outputs, measure),
        "engines": engines,
    }
    for topic, look in topics.items():
        try:
            for status, text in look():
                yield Check(topic, status, text)
        except Exception as error:
            yield Check(
                topic, "broken", f"this could not be looked at: {first_line(error, typed=True)}"
            )


# -- packages --------------------------------------------------------------------------------------


def versions() -> Found:
    """Python, atomtrain and what it stands on; requirements that are not met."""
    yield "ok", f"Python {platform.python_version()} ({sys.executable}), {platform.platform()}"
    there = {name: found for name in PACKAGES if (found := _version(name))}
    yield (
        "ok",
        ", ".join(
            f"{name} {found}"
            for name, found in {"atomtrain": _version("atomtrain"), **there}.items()
            if found
        ),
    )
    for name in ("torch", "metatomic-torch", "ase"):
        if name not in there:
            yield (
                "broken",
                f"{name} is not installed, which atomtrain needs: pip install --force-reinstall atomtrain",
            )
    try:
        import_module("torch")
        import_module("metatomic.torch")
    except Exception as error:
        yield (
            "broken",
            f"torch and metatomic-torch do not import together ({first_line(error, typed=True)}): install versions "
            "that were built for one another, pip install --upgrade metatomic-torch metatensor-torch",
        )
    for dist in _ours():
        yield from _requirements(dist)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _ours() -> list[Distribution]:
    """The core, and every distribution with a plugin."""
    names = {"atomtrain"}
    for group in (catalog.ARCHITECTURES, catalog.COMPONENTS, catalog.COMMANDS):
        names |= {one.distribution for one in catalog.installed(group)}
    found = []
    for name in sorted(names):
        try:
            found.append(distribution(name))
        except PackageNotFoundError:
            continue
    return found


def _requirements(dist: Distribution) -> Found:
    """What a distribution needs and does not find."""
    from packaging.requirements import InvalidRequirement, Requirement

    for text in dist.requires or ():
        try:
            wanted = Requirement(text)
        except InvalidRequirement:
            continue
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        found, remedy = _version(wanted.name), f"pip install '{wanted.name}{wanted.specifier}'"
        if not found:
            yield (
                "broken",
                f"{dist.name} needs {wanted.name}, which is not installed: {remedy}",
            )
        elif not wanted.specifier.contains(found, prereleases=True):
            yield (
                "broken",
                f"{dist.name} needs {wanted.name} {wanted.specifier}, and {found} is installed: {remedy}",
            )


def plugins() -> Found:
    """Every entry point is loaded; names must be there once."""
    from atomtrain.plugins import Architecture

    for group, what in (
        (catalog.ARCHITECTURES, "architecture"),
        (catalog.COMPONENTS, "component"),
        (catalog.COMMANDS, "command"),
    ):
        found, good = catalog.installed(group), []
        for one in found:
            others = [o.origin for o in found if o.name == one.name and o is not one]
            if others and one is not next(o for o in found if o.name == one.name):
                continue  # was said
            if others:
                yield (
                    "broken",
                    f"{what} '{one.name}' is offered by {one.origin} and by {', '.join(others)}: uninstall all but one",
                )
                continue
            try:
                one.entry_point.load()
                if what == "architecture":
                    stage = Architecture(one).info.stage
                    good.append(f"{one.name} ({one.origin}, {stage})")
                else:
                    good.append(f"{one.name} ({one.origin})")
            except Exception as error:
                said = (
                    str(error)
                    if isinstance(error, AtomtrainError)
                    else first_line(error, typed=True)
                )
                yield (
                    "broken",
                    f"{what} '{one.name}' of {one.origin} cannot be loaded ({one.value}: {said}): reinstall it (pip "
                    f"install --force-reinstall {one.distribution}), or report it to its authors",
                )
        if good:
            yield "ok", f"{what}s: {', '.join(good)}"
        elif what == "architecture":
            yield (
                "broken",
                "no architecture can be used: pip install atomtrain-ace, atomtrain-linear or atomtrain-soap-bpnn",
            )


# -- the machine -----------------------------------------------------------------------------------


def devices() -> Found:
    """GPUs that torch sees, and those that it should see."""
    import torch

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        there = torch.cuda.is_available()
    built = torch.version.cuda
    if there:
        for k in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(k)
            free, whole = torch.cuda.mem_get_info(k)
            text = f"cuda:{k} is {about.name}, {free / 1e9:.0f} of {whole / 1e9:.0f} GB free (torch for CUDA {built})"
            if free > 0.1 * whole:
                yield "ok", text
            else:
                yield (
                    "warning",
                    f"{text}: another program has it; choose another with CUDA_VISIBLE_DEVICES",
                )
            yield from _works(f"cuda:{k}")
    elif _nvidia():
        why = f": {str(said[0].message).splitlines()[0]}" if said else ""
        if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
            yield (
                "warning",
                "CUDA_VISIBLE_DEVICES is empty, so that no GPU is used: unset it to use them",
            )
        elif built is None:
            yield (
                "warning",
                f"this machine has an NVIDIA driver, but torch {torch.__version__} is built without CUDA: install "
                "torch with CUDA (https://pytorch.org/get-started) to train on the GPU",
            )
        else:
            yield (
                "warning",
                f"this machine has an NVIDIA driver, but torch (built for CUDA {built}) cannot use it{why}; "
                "update the driver, or install torch for an older CUDA",
            )
    if torch.backends.mps.is_available():
        yield (
            "note",
            "there is Apple's GPU (mps); few architectures run on it (atomtrain architectures NAME says which devices)",
        )
        yield from _works("mps")
    if not there:
        yield "ok", "trainings run on the CPU"


def _nvidia() -> bool:
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def _works(device: str) -> Found:
    import torch

    try:
        x = torch.ones(64, 64, device=device)
        if float((x @ x).sum()) != 64.0**3:
            yield "broken", f"{device} computes a product wrongly: do not use it"
    except RuntimeError as error:
        yield (
            "broken",
            f"{device} cannot be used ({first_line(error)}): set device: cpu, or look at the driver",
        )


def cores() -> tuple[float, str]:
    """How many cores this process may use, and who says so."""
    limits: list[tuple[float, str]] = [(float(os.cpu_count() or 1), "the machine has")]
    if hasattr(os, "sched_getaffinity"):
        limits.append((float(len(os.sched_getaffinity(0))), "this process is bound to"))
    quota = _quota()
    if quota:
        limits.append((quota, "the container may use"))
    for name in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"):
        if os.environ.get(name, "").isdigit():
            limits.append((float(os.environ[name]), f"Slurm gives ({name})"))
            break
    return min(limits, key=lambda limit: limit[0])


def _quota(root: Path = Path("/sys/fs/cgroup")) -> float:
    """The cores that a container may use; 0: as many as there are."""
    try:
        if (root / "cpu.max").is_file():
            most, period = (root / "cpu.max").read_text(encoding="ascii").split()
        else:
            most, period = (
                (root / "cpu" / f"cpu.cfs_{name}_us").read_text(encoding="ascii").strip()
                for name in ("quota", "period")
            )
        return int(most) / int(period) if most not in ("max", "-1") else 0.0
    except (OSError, ValueError):
        return 0.0


def threads(measure: bool) -> Found:
    """Threads against cores; what a step takes with them, and with others."""
    import torch

    n, (most, who) = torch.get_num_threads(), cores()
    names = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "MKL_NUM_THREADS")
    said = {name: os.environ[name] for name in names if os.environ.get(name)}
    told = ", ".join(f"{k}={v}" for k, v in said.items())
    told = told or "OMP_NUM_THREADS and OMP_WAIT_POLICY are not set"
    text = f"threads of torch: {n}; cores that {who}: {most:g} ({told})"
    if n > most + 0.5:
        yield (
            "warning",
            f"{text}: more threads than cores wait for one another; set OMP_NUM_THREADS={max(1, int(most))}",
        )
    else:
        yield "ok", text
    if measure:
        yield from _measured(said)


def _measured(said: dict[str, str]) -> Found:
    tries: dict[str, dict[str, str]] = {"": {}}
    if said.get("OMP_WAIT_POLICY", "").upper() != "PASSIVE":
        tries["OMP_WAIT_POLICY=PASSIVE"] = {"OMP_WAIT_POLICY": "PASSIVE"}
    if said.get("OMP_NUM_THREADS") != "1":
        tries["OMP_NUM_THREADS=1"] = {"OMP_NUM_THREADS": "1"}
    took = {name: _step(more) for name, more in tries.items()}
    now = took.pop("")
    known = {name: seconds for name, seconds in took.items() if seconds is not None}
    if now is None:
        others = "; ".join(f"with {name} it takes {1e3 * s:.3g} ms" for name, s in known.items())
        yield (
            "warning",
            f"a small step could not be timed as it is (it failed, or was not done within {TRIED:.0f} s): the machine "
            f"is very busy{'; ' * bool(others)}{others}",
        )
        return
    each = "".join(f", {1e3 * seconds:.3g} ms with {name}" for name, seconds in known.items())
    text = f"a small step takes {1e3 * now:.3g} ms as it is{each}"
    best = min(known, key=lambda name: known[name], default="")
    if best and now > WORTH * known[best]:
        yield (
            "warning",
            f"{text}: set {best} here (threads that wait for one another disturb each other where other programs "
            "use the same cores)",
        )
    else:
        yield "ok", f"{text}: leave it"


def _step(more: dict[str, str]) -> float | None:
    """Seconds of a step in a process of its own with these variables; None where it fails or takes too long."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", LOAD, "1.0"],
            env={**os.environ, **more},
            capture_output=True,
            text=True,
            timeout=TRIED,
            check=True,
        )
        return float(done.stdout.split()[0])
    except (subprocess.SubprocessError, OSError, ValueError, IndexError):
        return None


def disk(outputs: Path, measure: bool) -> Found:
    """Free space and writing speed where runs go, and where temporary files do."""
    there = next(p for p in (outputs, *outputs.absolute().parents) if p.exists())
    for what, folder in (("runs", there), ("temporary files", Path(tempfile.gettempdir()))):
        where = f"'{outputs}' ({what})" if what == "runs" else f"'{folder}' ({what})"
        try:
            speed = _speed(folder, WRITTEN if measure else 0)
        except OSError as error:
            yield (
                "broken",
                f"{where} cannot be written to: {error.strerror or error}; work in another folder, or make room",
            )
            continue
        free = shutil.disk_usage(folder).free
        text = f"{where}: {free / 1e9:.3g} GB free" + (
            f", written at {speed / 1e6:.0f} MB/s" if speed else ""
        )
        if free < LITTLE:
            yield "warning", f"{text}: checkpoints may not fit; make room"
        elif speed and speed < SLOW:
            yield (
                "warning",
                f"{text}: that is slow, and checkpoints are waited for; checkpoint_interval makes them rarer",
            )
        else:
            yield "ok", text


def _speed(folder: Path, size: int) -> float:
    """Bytes per second of a file of that size that is written and made sure of; 0 for an empty one."""
    block = os.urandom(1 << 20)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".atomtrain-doctor-") as file:
        began = time.perf_counter()
        for _ in range(size // len(block)):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        return size / (time.perf_counter() - began)


def engines() -> Found:
    """What runs models."""
    for name, what in ENGINES.items():
        found = _version(name)
        if name == "lammps":
            yield from _lammps(what, found)
        elif found:
            yield "ok", f"{name} {found}: {what}"
        else:
            yield "note", f"{name} is not installed: {what} (pip install {name})"


def _lammps(what: str, found: str) -> Found:
    """LAMMPS, which has to be built with metatomic; ``found``: the version of its Python package."""
    install = "conda install -c metatensor -c conda-forge lammps-metatomic"
    program = shutil.which("lmp") or shutil.which("lmp_mpi")
    if program is None:
        said = f"has no program 'lmp' beside it ({found})" if found else "is not installed"
        yield "note", f"lammps {said}: {what} ({install})"
        return
    try:
        told = subprocess.run(
            [program, "-h"], capture_output=True, text=True, timeout=20, check=False
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        yield "note", f"'{program}' does not say what it can ({first_line(error)})"
        return
    if re.search(r"\bmetatomic\b", told):
        yield "ok", f"'{program}' has pair_style metatomic: {what}"
    else:
        yield (
            "note",
            f"'{program}' is a LAMMPS without metatomic, which cannot run our models ({install})",
        )


def as_json(checks: list[Check]) -> str:
    """For programs."""
    found: dict[str, Any] = {
        "broken": sum(check.status == "broken" for check in checks),
        "checks": [check.as_json() for check in checks],
    }
    return json.dumps(found, indent=2, ensure_ascii=False)
