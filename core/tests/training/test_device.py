"""Which device a training runs on."""

from __future__ import annotations

import pytest
import torch

from atomtrain.errors import DeviceError
from atomtrain.training.device import choose_device, choose_dtype


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_device(None, ("cuda", "cpu")).type in ("cuda", "cpu")
    assert choose_dtype(64, ("float32", "float64")) == torch.float64
    with pytest.raises(DeviceError, match="does not run on 'mps'"):
        choose_device("mps", ("cuda", "cpu"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="'gpu' is not available on this machine"):
        choose_device("gpu", ("cuda", "cpu"))
