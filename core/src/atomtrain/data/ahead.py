"""Making things before they are asked for, in a thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
DEPTH = 2
"""how many are made before the first of them is taken"""


def made_ahead(items: Iterable[T]) -> Iterator[T]:
    """The same items in the same order, up to :data:`DEPTH` of them made by a thread before they are asked for.

    What goes wrong in making one is raised where it is asked for. A generator that is left early stops the thread.
    """
    made: queue.Queue[tuple[T | None, BaseException | None, bool]] = queue.Queue(DEPTH)
    left = threading.Event()

    def put(item: T | None, error: BaseException | None, last: bool) -> None:
        while not left.is_set():
            try:
                made.put((item, error, last), timeout=0.1)
                return
            except queue.Full:
                continue

    def make() -> None:
        try:
            for item in items:
                put(item, None, False)
                if left.is_set():
                    return
            put(None, None, True)
        except BaseException as error:
            put(None, error, True)

    thread = threading.Thread(target=make, daemon=True, name="batches")
    thread.start()
    try:
        while True:
            item, error, last = made.get()
            if error is not None:
                raise error
            if last:
                return
            yield item  # type: ignore[misc]
    finally:
        left.set()
        thread.join()
