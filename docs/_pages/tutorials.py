"""MkDocs' hook: each tutorial runs in a folder of its own, with the data of the examples.

The code of a page is run by markdown-exec, if that is switched on (``ATOMTRAIN_TUTORIALS=true``, by ``nox -s docs``).
Otherwise pages show their code alone.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent.parent
WORK = REPOSITORY / "build" / "tutorials"
NEEDS = {
    "molecule": ("ethanol",),
    "crystal": ("copper",),
    "phases": ("phases",),
    "fine-tuning": ("copper", "phases"),
}
"""the examples whose files a tutorial has"""
_before = Path.cwd()


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Enter the tutorial's folder, or leave out what says how its code is to be run."""
    folder, _, name = page.file.src_uri.removesuffix(".md").rpartition("/")
    if folder != "tutorials":
        return markdown
    if not config.plugins.get("markdown-exec"):
        markdown = re.sub(r"^(```\w+) exec=.*$", r"\1", markdown, flags=re.MULTILINE)
        return re.sub(r"^.*# markdown-exec: hide\n", "", markdown, flags=re.MULTILINE)
    work = WORK / name
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    for example in NEEDS[name]:
        for file in (REPOSITORY / "examples" / example).iterdir():
            shutil.copy(file, work)
    os.chdir(work)
    # what a page imports is its own, though another one has a module of this name
    sys.modules.pop("make_phases", None)
    sys.path.insert(0, "")
    return markdown


def on_page_content(html: str, page: Any, **_: Any) -> str:
    """Back from the tutorial's folder."""
    if Path.cwd() != _before:
        os.chdir(_before)
        sys.path.remove("")
    return html
