"""Which device and precision a run gets: what the user asks, the model supports, the machine has."""

from __future__ import annotations

import torch

from atomtrain.errors import DeviceError

ALIASES = {"gpu": "cuda", "multi-gpu": "cuda"}
DTYPES = {16: ("bfloat16", "float16"), 32: ("float32",), 64: ("float64",)}


def choose_device(
    asked: str | None, supported: tuple[str, ...], local_rank: int = 0
) -> torch.device:
    """The device to run on; None asks for the model's favourite among those the machine has."""
    if asked is None:
        name = next((d for d in supported if _available(d)), None)
        if name is None:
            raise DeviceError(
                f"the architecture runs on {', '.join(supported)}, none of which this machine has"
            )
    else:
        name = ALIASES.get(asked, asked)
        if asked == "gpu" and not _available("cuda") and _available("mps"):
            name = "mps"
        if name not in supported:
            raise DeviceError(
                f"device: the architecture does not run on '{asked}'; it supports "
                f"{', '.join(supported)}"
            )
        if not _available(name):
            have = ", ".join(d for d in ("cuda", "mps", "cpu") if _available(d))
            raise DeviceError(
                f"device: '{asked}' is not available on this machine (torch {torch.__version__} "
                f"finds: {have}); leave 'device' out to use what there is"
            )
    if name == "cuda":
        return torch.device("cuda", local_rank % torch.cuda.device_count())
    return torch.device(name)


def choose_dtype(precision: int, supported: tuple[str, ...]) -> torch.dtype:
    """The dtype of ``base_precision``."""
    for name in DTYPES[precision]:
        if name in supported:
            dtype = getattr(torch, name)
            assert isinstance(dtype, torch.dtype)
            return dtype
    bits = [b for b, names in DTYPES.items() if not set(names).isdisjoint(supported)]
    remedy = ", ".join(f"base_precision: {b}" for b in bits)
    raise DeviceError(
        f"base_precision: the architecture does not train in {precision} bits; it supports "
        f"{', '.join(supported)} ({remedy})"
    )


def _available(name: str) -> bool:
    if name == "cuda":
        return torch.cuda.is_available()
    if name == "mps":
        return torch.backends.mps.is_available()
    return name == "cpu"
