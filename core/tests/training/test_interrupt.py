"""Signals: what they set, and that they are answered while the main thread is busy."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time

import pytest
import torch

from atomtrain.training.interrupt import Interruption


def test_a_signal_is_answered_during_a_long_product(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "atomtrain")
    matrix = torch.ones(1500, 1500, dtype=torch.float64)
    began = threading.Event()
    seen: list[bool] = []

    def kill() -> None:
        began.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(200):
            if "SIGTERM: stopping after the step at hand" in caplog.text:
                break
            time.sleep(0.005)
        seen.append("SIGTERM: stopping" in caplog.text)

    thread = threading.Thread(target=kill)
    with Interruption() as interruption:
        thread.start()
        began.set()
        while thread.is_alive():
            matrix @ matrix
        assert interruption.requested
    assert seen == [True]
    assert signal.set_wakeup_fd(-1) == -1
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_second_interrupt_stops_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), Interruption():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
