"""Who of several processes is still there. One that fails, dies or no longer comes ends the training of all.

The main process has a :class:`Hub`. Every process, the main one too, holds a :class:`Line` to it, on which it says who
it is, every second how often it met the others, and what became of it; the system closes the line of one that is
killed. The first thing that goes wrong is told to all, and each ends with it as its error: from what it was doing
if that ends by itself, else after ``GRACE`` seconds by ending the process. So nobody waits for ever in a message to
somebody who is gone, whatever the library for these messages does.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import queue
import selectors
import socket
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from atomtrain.errors import AtomtrainError, ProcessesError, first_line
from atomtrain.training.launcher import Launch

log = logging.getLogger("atomtrain")
TICK = 1.0
"""seconds between signs of life"""
GRACE = 8.0
"""seconds a process has to end by itself when the training of all has ended"""
ANSWER = 10.0
"""seconds within which whoever listens at the port of a training has answered"""
TOGETHER = 300.0
"""seconds at most between the starts of the first and the last process"""
SILENCE = 300.0
"""seconds without a sign of life at most, though ``distributed_timeout`` be longer"""

_open: weakref.WeakSet[socket.socket] = weakref.WeakSet()


def _close_in_child() -> None:
    # a worker that makes batches must not hold the line of a process that was killed
    for one in list(_open):
        one.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)


def _message(**content: Any) -> bytes:
    return json.dumps(content).encode() + b"\n"


def _receive(one: socket.socket, pending: bytearray) -> None:
    """Add what has come to ``pending``. Raises OSError where the other end is closed."""
    data = one.recv(1 << 16)
    if not data:
        raise ConnectionResetError
    pending += data


def _messages(pending: bytearray) -> Iterator[dict[str, Any]]:
    """Take the messages that are whole out of ``pending``. Raises ValueError for what is none."""
    while b"\n" in pending:
        text, _, rest = bytes(pending).partition(b"\n")
        pending[:] = rest
        found = json.loads(text)
        if not isinstance(found, dict):
            raise ValueError("no message of ours")
        yield found


@dataclass
class _Member:
    """A process as the hub knows it; times are counts of ticks, so that a suspended job finds nobody late."""

    rank: int = -1
    name: str = ""
    met: int = 0
    moved: int = 0
    heard: int = 0
    told: bool = False
    left: bool = False
    pending: bytearray = field(default_factory=bytearray)


class Hub:
    """The main process's end of all lines. A thread serves it.

    Raises ProcessesError where the port is in use.
    """

    def __init__(self, launch: Launch, patience: float, store_port: int) -> None:
        self._launch, self._patience, self._store_port = launch, patience, store_port
        self._server = _listen(launch)
        self.port: int = self._server.getsockname()[1]
        self._members: dict[socket.socket, _Member] = {}
        self._compared: dict[str, dict[int, Mapping[str, str]]] = {}
        self._tick = 0
        self._ending: bytes | None = None
        self._closing = False
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._server, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self, failed: bool) -> None:
        """End once all others have left, or heard of the failure; late ones are waited for."""
        until = time.monotonic() + 2 * ANSWER
        while time.monotonic() < until and self._thread.is_alive():
            told = [m for m in list(self._members.values()) if m.left or (failed and m.told)]
            if len({m.rank for m in told} - {-1}) >= self._launch.size:
                break
            time.sleep(0.05)
        self._closing = True
        self._thread.join(2 * TICK)

    def _serve(self) -> None:
        last = time.monotonic()
        while not self._closing:
            for key, _ in self._selector.select(TICK / 4):
                if key.fileobj is self._server:
                    self._accept()
                else:
                    self._read(key.fileobj)  # type: ignore[arg-type]
            if time.monotonic() - last >= TICK:
                last = time.monotonic()
                self._tick += 1
                self._tell_all(_message())
                self._judge()
        self._tell_all(_message(closed=True))
        for one in [*self._members, self._server]:
            one.close()
        self._selector.close()

    def _accept(self) -> None:
        one, _ = self._server.accept()
        _open.add(one)
        self._members[one] = _Member(heard=self._tick)
        self._selector.register(one, selectors.EVENT_READ)

    def _read(self, one: socket.socket) -> None:
        member = self._members[one]
        member.heard = self._tick
        try:
            _receive(one, member.pending)
            for message in _messages(member.pending):
                self._hear(one, member, message)
        except (OSError, ValueError, KeyError, TypeError):  # closed, or nothing of ours
            self._selector.unregister(one)
            one.close()
            if member.rank < 0:
                del self._members[one]
            elif not member.left:
                member.left = True
                self._end(
                    f"{member.name} is gone: it was killed, or it crashed. What it wrote last, or the scheduler, says "
                    "why (a signal, memory, a time limit)"
                )

    def _hear(self, one: socket.socket, member: _Member, message: dict[str, Any]) -> None:
        if "hello" in message:
            self._greet(one, member, message)
        elif member.rank < 0:
            raise ValueError("not one of us")
        if "met" in message and message["met"] != member.met:
            member.met, member.moved = message["met"], self._tick
        if "compare" in message:
            self._compare(member.rank, message)
        if "failed" in message:
            text = f"{member.name} failed: {message['failed']}"
            self._end(text, rank=member.rank, error=message["failed"])
        if "left" in message:
            member.left = True

    def _greet(self, one: socket.socket, member: _Member, message: dict[str, Any]) -> None:
        if message["job"] != self._launch.job:
            self._send(one, _message(refused="is that of another training (of atomtrain as well)"))
            return
        name = _name(message["hello"], message["host"], message["pid"])
        before = [m for m in self._members.values() if m.rank == message["hello"]]
        complete = len({m.rank for m in self._members.values()} - {-1}) == self._launch.size
        problem = ""
        if before:
            problem = f"two processes have the same rank: {before[0].name} and {name}"
        elif message["size"] != self._launch.size:
            problem = f"{name} was told of {message['size']} processes, the main one of {self._launch.size}"
        if problem:
            self._send(one, _message(end=f"{problem}. Look at how they were started"))
            if not complete:
                self._end(f"{problem}. Look at how they were started")
            return
        member.rank, member.name, member.moved = message["hello"], name, self._tick
        main = _name(0, socket.gethostname(), os.getpid())
        self._send(one, _message(welcome=main, store=self._store_port))
        if self._ending is not None:
            member.told = True
            self._send(one, self._ending)

    def _compare(self, rank: int, message: dict[str, Any]) -> None:
        """Say that all have the same as the main process, or end the training."""
        what = message["compare"]
        found = self._compared.setdefault(what, {})
        found[rank] = message["values"]
        if len(found) < self._launch.size:
            return
        names = {m.rank: m.name for m in self._members.values()}
        mine = found[0]
        for other, values in sorted(found.items()):
            keys = [key for key in {**mine, **values} if mine.get(key) != values.get(key)]
            if keys:
                said = ", ".join(
                    f"{key} is {mine.get(key, 'absent')} on {names[0]} and {values.get(key, 'absent')} on "
                    f"{names[other]}"
                    for key in keys[:3]
                )
                more = f", and {len(keys) - 3} more" if len(keys) > 3 else ""
                self._end(
                    f"the processes do not have the same {what}: {said}{more}. {message['remedy']}"
                )
                return
        del self._compared[what]
        self._tell_all(_message(same=what))

    def _judge(self) -> None:
        """End the training where somebody has not come, is silent, or is not where the others wait."""
        if self._ending is not None:
            return
        there = [m for m in self._members.values() if m.rank >= 0]
        missing = sorted({*range(self._launch.size)} - {m.rank for m in there})
        if missing and self._tick * TICK >= min(TOGETHER, self._patience):
            who = ", ".join(map(str, missing))
            self._end(
                f"of {self._launch.size} processes rank {who} did not come within {self._tick * TICK:.0f} s. Look "
                "whether all were started, and at what they wrote"
            )
            return
        first = max((m.met for m in there), default=0)
        for member in there:
            if member.left:
                continue
            if (self._tick - member.heard) * TICK >= min(SILENCE, self._patience):
                silent = _silent(member.name, (self._tick - member.heard) * TICK)
                self._end(silent, rank=member.rank)
            elif member.met < first and (self._tick - member.moved) * TICK >= self._patience:
                self._end(
                    f"{member.name} is alive, but for {self._patience:.0f} s "
                    "(architecture.training.distributed_timeout) it did not come to where the others wait for it",
                    rank=member.rank,
                )

    def _end(self, text: str, rank: int | None = None, error: str | None = None) -> None:
        if self._ending is None:
            self._ending = _message(end=text, rank=rank, error=error)
            for member in self._members.values():
                member.told = member.rank >= 0
            self._tell_all(self._ending)

    def _tell_all(self, message: bytes) -> None:
        for one, member in list(self._members.items()):
            if member.rank >= 0:
                self._send(one, message)

    @staticmethod
    def _send(one: socket.socket, message: bytes) -> None:
        with contextlib.suppress(OSError):  # noticed where it is read
            one.sendall(message)


class Line:
    """This process's end of its line to the hub at ``address``. Two threads serve it.

    Attributes
    ----------
    met: how often this process met the others, in sums and barriers; to be counted by whoever does.
    hint: what is said behind every ending: the last checkpoint.
    patience: how many seconds processes wait for one another.
    store: host and port where torch's processes find each other.
    """

    def __init__(self, launch: Launch, address: tuple[str, int], patience: float) -> None:
        self.met = 0
        self.hint = ""
        self._launch, self.patience = launch, patience
        self._ended = threading.Condition()
        self._ending: dict[str, Any] | None = None
        self._same: set[str] = set()
        self._leaving = False
        self._over = False  # whatever comes now is no news
        self._left = threading.Event()
        self._outgoing: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._pending = bytearray()
        self._socket, welcome = _connect(launch, address, patience, self._pending)
        self.store: tuple[str, int] = (address[0], welcome["store"])
        self._main_name: str = welcome["welcome"]
        self._main = threading.current_thread()
        self._talker = threading.Thread(target=self._talk, daemon=True)
        self._talker.start()
        threading.Thread(target=self._listen, daemon=True).start()

    # -- what the training asks --------------------------------------------------------------------

    def compare(self, what: str, values: Mapping[str, str], remedy: str) -> None:
        """Wait for all; raises ProcessesError unless all have the same values."""
        self.met += 1
        self._outgoing.put(_message(met=self.met, compare=what, values=dict(values), remedy=remedy))
        with self._ended:
            self._ended.wait_for(lambda: self._ending is not None or what in self._same)
            self._same.discard(what)
        if self._ending is not None:
            raise self.error()

    def error(self) -> ProcessesError:
        """How the training ended, once it has."""
        assert self._ending is not None
        return self._error(self._ending["end"])

    def lost(self, error: BaseException) -> ProcessesError:
        """What is to be raised where a message among the processes failed: the cause, if the hub knows it."""
        with self._ended:
            self._ended.wait_for(lambda: self._ending is not None, ANSWER)
        if self._ending is not None:
            return self.error()
        why = f"the processes lost each other: {first_line(error)}. Look at the network between their hosts"
        return self._error(why)

    def _error(self, text: str) -> ProcessesError:
        return ProcessesError(f"{text.rstrip('.')}. {self.hint}" if self.hint else text)

    def terminated(self) -> None:
        """Raise what a SIGTERM means: torchrun sends one to all when one has died, and who that was is to be said."""
        if self._leaving:
            return  # and saying it
        with self._ended:
            self._ended.wait_for(lambda: self._ending is not None, 2 * TICK)
        raise self._error("SIGTERM stopped this process") if self._ending is None else self.error()

    def leave(self, error: BaseException | None) -> BaseException | None:
        """Say good-bye; gives what is to be raised in place of ``error``."""
        self._leaving = True
        try:
            return None if error is None else self._failed(error)
        finally:
            self._over = True
            self._left.set()
            self._outgoing.put(None)
            self._talker.join(2 * TICK)
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)  # which ends the thread that listens

    def _failed(self, error: BaseException) -> BaseException:
        own = isinstance(error, AtomtrainError)
        text = str(error) if own else first_line(error, typed=True)
        if self._ending is not None and not own:
            return self.error()  # what became of this process follows from it
        self._outgoing.put(_message(failed=text))
        with self._ended:  # who was the first to say so?
            self._ended.wait_for(lambda: self._ending is not None, 2 * TICK)
        ending = self._ending or {}
        if ending.get("error") == text and ending["rank"] != self._launch.rank:
            return ProcessesError(f"the same as on {ending['end'].split(' failed:')[0]}")
        return error

    # -- the threads -------------------------------------------------------------------------------

    def _talk(self) -> None:
        while True:
            try:
                message = self._outgoing.get(timeout=TICK)
            except queue.Empty:
                message = _message(met=self.met)
            try:
                self._socket.sendall(message or _message(left=True))
            except OSError:
                return  # noticed where it is read
            if message is None:
                return

    def _listen(self) -> None:
        silent = 0
        selector = selectors.DefaultSelector()
        selector.register(self._socket, selectors.EVENT_READ)
        try:
            over = self._heard()
            while not over:
                if not selector.select(TICK):
                    silent += 1
                    if silent * TICK >= min(SILENCE, self.patience):
                        self._end({"end": _silent(self._main_name, silent * TICK)})
                        return
                    continue
                silent = 0
                _receive(self._socket, self._pending)
                over = self._heard()
        except (OSError, ValueError):
            self._end({"end": f"{self._main_name} is gone: it was killed, or it crashed"})
        finally:
            selector.close()
            self._socket.close()

    def _heard(self) -> bool:
        """Whether what has come is the last that will."""
        for message in _messages(self._pending):
            if "same" in message:
                with self._ended:
                    self._same.add(message["same"])
                    self._ended.notify_all()
            if "end" in message:
                self._end(message)
            if "end" in message or "closed" in message:
                return True
        return False

    def _end(self, ending: dict[str, Any]) -> None:
        """The training of all has ended; end the process where it does not end by itself."""
        with self._ended:
            self._ending = ending
            self._ended.notify_all()
        if self._over or self._left.wait(GRACE):
            return
        # in a thread: where the log is may be what hangs
        saying = threading.Thread(target=self._say_it, daemon=True)
        saying.start()
        saying.join(2 * TICK)
        os._exit(1)

    def _say_it(self) -> None:
        assert self._ending is not None
        meant = self._ending.get("rank") == self._launch.rank
        text = f"error: {self.error()}{f' (it is at {_where(self._main)})' if meant else ''}"
        print(text, file=sys.stderr, flush=True)
        log.debug(text)  # for the file


def _name(rank: int, host: str, pid: int) -> str:
    return f"rank {rank} on {host} (process {pid})"


def _silent(name: str, seconds: float) -> str:
    return f"{name} gave no sign of life for {seconds:.0f} s: it is stopped, or its host or the network is down"


def _where(thread: threading.Thread) -> str:
    """File, line and function a thread is in."""
    frame = sys._current_frames().get(thread.ident or 0)
    return f"{frame.f_code.co_filename}:{frame.f_lineno}, {frame.f_code.co_name}" if frame else ""


def _listen(launch: Launch) -> socket.socket:
    """A socket at the port of the training, or any if that is the store's of torchrun."""
    port = 0 if launch.agent else launch.port
    backlog = max(128, launch.size)
    try:
        try:
            one = socket.create_server(
                ("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=backlog
            )
        except (OSError, ValueError) as error:
            if getattr(error, "errno", 0) in (errno.EADDRINUSE, errno.EACCES):
                raise
            one = socket.create_server(("", port), backlog=backlog)  # there is no IPv6
    except OSError as error:
        remedy = (
            "set architecture.training.distributed_port (or MASTER_PORT) to another"
            if launch.launcher == "Slurm"
            else "set MASTER_PORT to another, or start with torchrun --standalone, which finds one"
        )
        raise ProcessesError(
            f"port {port}, where the processes are to find each other, cannot be had: "
            f"{os.strerror(error.errno or 0)}. Another training or program uses it, or two processes were told to be "
            f"rank 0; {remedy}"
        ) from error
    _open.add(one)
    return one


def _connect(
    launch: Launch, address: tuple[str, int], patience: float, pending: bytearray
) -> tuple[socket.socket, dict[str, Any]]:
    """A socket to the hub and its welcome; what came behind that is in ``pending``.

    Raises ProcessesError where nobody is there in time, or somebody else is.
    """
    where = f"{address[0]}:{address[1]}"
    until = time.monotonic() + min(TOGETHER, patience)
    while True:
        try:
            one = socket.create_connection(address, timeout=ANSWER)
            break
        except OSError as error:
            if time.monotonic() > until:
                raise ProcessesError(
                    f"rank 0 of {launch.size} cannot be reached at {where} ({error.strerror or error}). Look whether "
                    "it was started and what it wrote; MASTER_ADDR, where set, must be its host"
                ) from error
            time.sleep(0.2)
    _open.add(one)
    me = {"hello": launch.rank, "size": launch.size, "job": launch.job}
    try:
        one.sendall(_message(**me, host=socket.gethostname(), pid=os.getpid()))
        return one, _welcome(one, where, pending)
    except ProcessesError:
        one.close()
        raise


def _welcome(one: socket.socket, where: str, pending: bytearray) -> dict[str, Any]:
    problem = "does not answer as one"
    until = time.monotonic() + ANSWER
    with contextlib.suppress(OSError, ValueError):
        while time.monotonic() < until:
            _receive(one, pending)
            for message in _messages(pending):
                if "welcome" in message:
                    one.settimeout(None)
                    return message
                if "end" in message:
                    raise ProcessesError(message["end"])
                problem = message.get("refused", problem)
    raise ProcessesError(
        f"whoever listens at {where}, where rank 0 of this training is to be, {problem}. Set "
        "architecture.training.distributed_port (or MASTER_PORT) to a port that is free"
    )
