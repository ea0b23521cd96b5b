"""What a comparison leaves in its folder: JSON, Markdown and pictures."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from atomtrain.files import replacing
from atomtrain_compare import table
from atomtrain_compare.picture import draw
from atomtrain_compare.results import Comparison, write_json


def write(comparison: Comparison, folder: Path) -> None:
    """JSON, Markdown and pictures of what is known so far."""
    write_json(comparison.as_json(), folder / "comparison.json")
    pictures = draw(comparison, folder)
    about = comparison.about
    lines = [f"# {' and '.join(about['variants'])}", ""]
    lines += [f"- {note}" for note in table.notes(comparison)]
    for name, variant in about["variants"].items():
        said = " ".join([variant["file"], *variant["changes"]])
        without = f", without {', '.join(variant['left_out'])}" if variant["left_out"] else ""
        lines.append(f"- {name}: `{said}`{without}.")
    known = comparison.machine
    lines.append(f"- {', '.join(f'{key} {value}' for key, value in known.items())}.")
    lines += ["", table.in_markdown(comparison), ""]
    lines += [f"![{path.stem}]({path.name})\n" for path in pictures]
    lines.append(
        "Each folder below `runs` is an ordinary run: `atomtrain train options.yaml` in it repeats it."
    )
    with replacing(folder / "comparison.md") as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def machine() -> dict[str, Any]:
    """What numbers depend on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = {
        "processor": _processor(),
        "cores": cores,
        "threads": torch.get_num_threads(),
        "Python": platform.python_version(),
        "torch": torch.__version__,
        "atomtrain": version("atomtrain"),
    }
    if torch.cuda.is_available():
        found["GPU"] = torch.cuda.get_device_name()
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
