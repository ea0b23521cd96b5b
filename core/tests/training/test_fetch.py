"""Files from addresses and from the Hugging Face hub: a server on this machine, and a stand-in for its library."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from atomtrain.errors import CheckpointError
from atomtrain.training.fetch import fetched, file_name

PLACE = "owner/name/resolve/main/a.ckpt"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Its address; a repository is on it, at the place where a hub would have it."""
    (tmp_path / PLACE).parent.mkdir(parents=True)
    (tmp_path / PLACE).write_text("weights")
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *args: None)
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        address = f"http://127.0.0.1:{running.server_port}"
        monkeypatch.setenv("HF_ENDPOINT", address)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield address
        running.shutdown()


def test_addresses(server: str) -> None:
    for where in (f"{server}/{PLACE}", f"{server}/owner/name/blob/main/a.ckpt"):
        with fetched(where) as path:
            assert path.name == file_name(where) == "a.ckpt" and path.read_text() == "weights"
        assert not path.exists()
    with (
        pytest.raises(CheckpointError, match=r"cannot fetch '.*gone'.*404"),
        fetched(f"{server}/gone"),
    ):
        pass
    with (
        pytest.raises(CheckpointError, match=f"'{server}/{PLACE}' is odd"),
        fetched(f"{server}/{PLACE}") as path,
    ):
        raise CheckpointError(f"'{path}' is odd")


def test_the_hub(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def download(repository: str, file: str, *, revision: str | None, token: str | None) -> str:
        calls.append((repository, file, revision, token))
        if token != "secret":
            raise OSError("401 Client Error.\n\nAccess to model owner/name is restricted.")
        return str(tmp_path / PLACE)

    library = types.ModuleType("huggingface_hub")
    library.hf_hub_download = download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", library)
    with fetched("owner/name", "a.ckpt", revision="v1", token="secret") as path:
        assert path.read_text() == "weights"
    with fetched(f"{server}/{PLACE}", token="secret"):
        pass
    assert calls == [
        ("owner/name", "a.ckpt", "v1", "secret"),
        ("owner/name", "a.ckpt", "main", "secret"),
    ]
    with pytest.raises(CheckpointError, match=r"'a.ckpt' of 'owner/name': 401 .* is restricted"):
        fetched("owner/name", "a.ckpt").__enter__()
    with pytest.raises(CheckpointError, match=r"'here\.ckpt' is not on the Hugging Face hub"):
        fetched("here.ckpt", token="secret").__enter__()
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match=r"pip install 'atomtrain\[hub\]'"):
        fetched("owner/name", "a.ckpt").__enter__()
