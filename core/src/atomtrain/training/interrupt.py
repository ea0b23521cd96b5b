"""Ctrl-C and SIGTERM ask a training to stop; it stops after the step it is in."""

from __future__ import annotations

import logging
import signal
import socket
import threading
from types import FrameType, TracebackType
from typing import Any

log = logging.getLogger("atomtrain")
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Context in which the first SIGINT or SIGTERM only sets :attr:`requested`, and says so at once.

    A second Ctrl-C interrupts. Outside the main thread (where Python delivers no signals) it does nothing.
    """

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[int, Any] = {}
        self._ends: tuple[socket.socket, socket.socket] | None = None

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._previous[number] = signal.signal(number, self._handle)
            self._listen()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
        if self._ends is not None:
            signal.set_wakeup_fd(self._before)
            ours, theirs = self._ends
            theirs.close()  # which ends the thread
            self._thread.join()
            ours.close()
            self._ends = None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True

    def _listen(self) -> None:
        """Hear of signals in a thread as well: the main one may be in the middle of a long matrix product."""
        self._ends = ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        self._before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._announce, args=(ours,), daemon=True)
        self._thread.start()

    @staticmethod
    def _announce(end: socket.socket) -> None:
        told = False
        while data := end.recv(1):
            if data[0] in SIGNALS and not told:
                told = True
                name = signal.Signals(data[0]).name
                log.info(f"{name}: stopping after the step at hand; Ctrl-C once more stops at once")
