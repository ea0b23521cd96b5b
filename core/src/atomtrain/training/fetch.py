"""Checkpoints and models that lie elsewhere: at an address, or in a repository of a hub."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from atomtrain.errors import CheckpointError

HUB = "https://huggingface.co"
_PAGE = re.compile(r"/([^/]+/[^/]+)/(?:resolve|blob|raw)/([^/]+)/(.+)")


def file_name(source: Path | str, file: str | None = None) -> str:
    """What a file is called in itself, wherever it lies."""
    address = urlsplit(str(source))
    path = address.path if address.scheme in ("http", "https") else str(source)
    return PurePosixPath(unquote(file or path)).name


@contextlib.contextmanager
def fetched(
    source: Path | str,
    file: str | None = None,
    *,
    revision: str | None = None,
    token: str | None = None,
) -> Iterator[Path]:
    """A path; or, while the block runs, that of a copy of what lies at an address.

    With ``file`` the ``source`` is a repository on the Hugging Face hub, of which ``revision`` is a branch, tag
    or commit; ``token`` is for private ones. Copies from there stay in the cache of ``huggingface_hub``. Raises
    CheckpointError for what cannot be fetched, and names the address in what the block raises.
    """
    address = str(source)
    hub = os.environ.get("HF_ENDPOINT", HUB).rstrip("/")
    page = _PAGE.fullmatch(urlsplit(address).path) if address.startswith(f"{hub}/") else None
    if file is None and page is not None and (token or revision):
        address, said, file = page.groups()
        revision = revision or said
    if file is not None:
        yield _from_hub(address, file, revision, token)
        return
    if token or revision:
        raise CheckpointError(
            f"'{address}' is not on the Hugging Face hub, which a token or a revision is for: name a repository and "
            f"a file in it (atomtrain export owner/name model.ckpt), or an address below {hub}"
        )
    if "://" not in address:
        yield Path(source)
        return
    if not address.startswith(("https://", "http://")):
        raise CheckpointError(f"'{address}': only http and https addresses are fetched")
    if page is not None:  # what a browser shows is a page about the file
        address = f"{hub}/{page[1]}/resolve/{page[2]}/{page[3]}"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / (file_name(address) or "fetched")
        try:
            with urllib.request.urlopen(address, timeout=60) as response:
                path.write_bytes(response.read())
        except OSError as error:
            raise CheckpointError(f"cannot fetch '{address}': {error}") from error
        try:
            yield path
        except CheckpointError as error:
            raise CheckpointError(str(error).replace(str(path), str(source))) from None


def _from_hub(repository: str, file: str, revision: str | None, token: str | None) -> Path:
    where = f"'{file}' of '{repository}'" + (f" (revision '{revision}')" if revision else "")
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise CheckpointError(
            f"{where} is on the Hugging Face hub: to fetch it from there pip install 'atomtrain[hub]', or download "
            "the file and give its path"
        ) from None
    try:
        return Path(hf_hub_download(repository, file, revision=revision, token=token))
    except (OSError, ValueError) as error:  # what the library raises is one of these
        said = (
            " ".join(str(error).split()) or type(error).__name__
        )  # of several lines, none is enough
        raise CheckpointError(f"cannot fetch {where}: {said}") from error
