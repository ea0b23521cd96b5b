"""Lines among processes, several in this one: who differs, is missing, fails, dies, is silent or does not come."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from atomtrain.errors import DataError, ProcessesError
from atomtrain.training import lines
from atomtrain.training.launcher import Launch
from atomtrain.training.lines import Hub, Line

PATIENCE = 0.6


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "TICK", 0.05)
    monkeypatch.setattr(lines, "ANSWER", 5.0)
    monkeypatch.setattr(lines, "GRACE", 1000.0)  # nobody is to end this process


def launch(rank: int, size: int = 2, job: str = "77.0") -> Launch:
    return Launch("Slurm", rank, size, rank, "127.0.0.1", 0, job)


@contextmanager
def hub(size: int = 2, patience: float = 30.0) -> Iterator[tuple[Hub, Callable[..., Line]]]:
    """A hub, and what makes lines to it; all that was made is left."""
    made: list[Line] = []
    one = Hub(launch(0, size), patience, 4242)

    def line(rank: int, **changes: object) -> Line:
        place = replace(launch(rank, size), **changes)  # type: ignore[arg-type]
        made.append(Line(place, ("127.0.0.1", one.port), patience))
        return made[-1]

    try:
        yield one, line
    finally:
        for each in made:
            each.leave(None)
        one.close(failed=True)


def compare(*pairs: tuple[Line, dict[str, str]]) -> list[str]:
    """What each line says of ``options`` that are compared by all at once."""
    said = [""] * len(pairs)

    def ask(k: int) -> None:
        try:
            pairs[k][0].compare("options", pairs[k][1], "Give all the same file")
        except ProcessesError as error:
            said[k] = str(error)

    threads = [threading.Thread(target=ask, args=(k,)) for k in range(len(pairs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    return said


def ending(line: Line) -> str:
    """What a line says of how the training ended; waits for that."""
    return str(line.lost(RuntimeError("connection closed")))


def test_what_is_compared() -> None:
    with hub(3) as (_, line):
        a, b, c = (line(k) for k in range(3))
        assert a.store == ("127.0.0.1", 4242)
        same = {"seed": "1", "device": "None"}
        assert compare((a, same), (b, same), (c, same)) == ["", "", ""]
        assert (
            compare((a, same), (b, same), (c, {"seed": "2"}))
            == [found := compare((a, same))[0]] * 3
        )
        host = socket.gethostname()
        assert "the processes do not have the same options: seed is 1 on rank 0 on" in found
        assert f"and 2 on rank 2 on {host} (process" in found
        assert "device is None on rank 0" in found and "absent on rank 2" in found
        assert found.endswith("Give all the same file")


def test_one_that_fails_is_named_with_its_error() -> None:
    with hub() as (_, line):
        a, b = line(0), line(1)
        a.hint = "The last checkpoint is 'x.ckpt'"
        error = DataError("there is no file 'x.xyz'")
        assert b.leave(error) is error
        assert "rank 1 on" in ending(a)
        assert ending(a).endswith(
            "failed: there is no file 'x.xyz'. The last checkpoint is 'x.ckpt'"
        )
        raised = a.leave(RuntimeError("connection closed"))
        assert isinstance(raised, ProcessesError) and "failed: there is no file" in str(raised)


def test_an_error_that_all_have_is_said_whole_by_one() -> None:
    with hub() as (_, line):
        a, b = line(0), line(1)
        error = DataError("there is no file 'x.xyz'")
        assert a.leave(error) is error
        assert str(b.leave(DataError("there is no file 'x.xyz'"))).startswith(
            "the same as on rank 0 on"
        )


def test_one_that_comes_late_hears_of_the_failure() -> None:
    with hub() as (_, line):
        line(0).leave(DataError("bad"))
        assert "rank 0 on" in ending(late := line(1)) and "failed: bad" in ending(late)


def test_one_that_is_killed() -> None:
    with hub() as (one, line):
        a = line(0)
        killed = socket.create_connection(("127.0.0.1", one.port))
        killed.sendall(greeting(1))
        killed.recv(100)
        killed.close()
        assert "rank 1 on there (process 5) is gone: it was killed, or it crashed" in ending(a)


def greeting(rank: int) -> bytes:
    hello = {"hello": rank, "size": 2, "job": "77.0", "host": "there", "pid": 5}
    return json.dumps(hello).encode() + b"\n"


def test_one_that_gives_no_sign_of_life() -> None:
    with hub(patience=PATIENCE) as (one, line):
        a = line(0)
        with socket.create_connection(("127.0.0.1", one.port)) as stopped:
            stopped.sendall(greeting(1))
            assert "rank 1 on there (process 5) gave no sign of life for" in ending(a)


def test_one_that_does_not_come_to_where_the_others_wait() -> None:
    with hub(patience=PATIENCE) as (_, line):
        a, b = line(0), line(1)
        a.met = b.met = 3
        time.sleep(2 * PATIENCE)
        a.met = 4  # all are slow, and nobody waited so far
        found = ending(a)
        assert "rank 1 on" in found and "is alive, but for 1 s" in found
        assert "distributed_timeout" in found


def test_one_that_never_comes() -> None:
    with hub(3, patience=PATIENCE) as (_, line):
        a, _ = line(0), line(2)
        assert "of 3 processes rank 1 did not come within" in ending(a)


def test_a_main_process_that_is_gone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve_and_die, args=(server,), daemon=True).start()
        line = Line(launch(1), server.getsockname(), 30.0)
        line.hint = "The last checkpoint is 'x.ckpt'"
        said = ending(line)
        assert (
            said
            == "rank 0 on there is gone: it was killed, or it crashed. The last checkpoint is 'x.ckpt'"
        )
        line.leave(RuntimeError())


def serve_and_die(server: socket.socket) -> None:
    with server.accept()[0] as main:
        main.recv(1000)
        main.sendall(json.dumps({"welcome": "rank 0 on there", "store": 1}).encode() + b"\n")


def test_two_of_one_rank() -> None:
    with hub() as (_, line):
        a = line(0)
        with pytest.raises(ProcessesError, match="two processes have the same rank: rank 0 on"):
            line(0)
        assert "two processes have the same rank" in ending(a)


def test_another_number_of_processes() -> None:
    with hub() as (_, line):
        line(0)
        with pytest.raises(ProcessesError, match="was told of 3 processes, the main one of 2"):
            line(1, size=3)


def test_a_training_under_way_is_not_disturbed_by_strangers() -> None:
    with hub() as (one, line):
        a, b = line(0), line(1)
        with pytest.raises(ProcessesError, match="is that of another training"):
            line(1, job="78.0")
        with pytest.raises(ProcessesError, match="two processes have the same rank"):
            line(1)
        for sent in (b"GET / HTTP/1.1\r\n\r\n", b"\xff\n", b"[1]\n", b'{"met": 3}\n', b""):
            with socket.create_connection(("127.0.0.1", one.port)) as stranger:
                stranger.sendall(sent)
        assert compare((a, {}), (b, {})) == ["", ""]


def test_a_port_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """By something that says nothing, which torch's own store would wait for without end."""
    monkeypatch.setattr(lines, "ANSWER", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = replace(launch(0), port=taken.getsockname()[1])
        with pytest.raises(
            ProcessesError, match=r"cannot be had: Address already in use.*distributed_port"
        ):
            Hub(place, 30.0, 4242)
        with pytest.raises(ProcessesError, match=r"does not answer as one.*distributed_port"):
            Line(launch(1), ("127.0.0.1", place.port), 30.0)
    with pytest.raises(
        ProcessesError, match=r"rank 0 of 2 cannot be reached at 127.0.0.1.*refused"
    ):
        Line(launch(1), ("127.0.0.1", place.port), PATIENCE)
