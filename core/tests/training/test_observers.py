"""Observers that fail."""

from __future__ import annotations

import pytest

from atomtrain.training.observers import Observer, Observers


def test_a_failing_observer_is_dropped_once(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Observer):
        pass

    heard: list[str] = []
    observers = Observers([Broken(), Observer()])

    def event(observer: Observer) -> None:
        heard.append(type(observer).__name__)
        if isinstance(observer, Broken):
            raise ValueError("out of paper")

    observers.tell(event)
    observers.tell(event)
    assert heard == ["Broken", "Observer", "Observer"]
    assert (
        "Broken failed and hears no more of this training: ValueError: out of paper" in caplog.text
    )
