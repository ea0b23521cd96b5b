"""MkDocs' hook: puts the generated pages and the navigation into the site."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent.parent

WRITTEN = {
    "Start": (
        "index.md",
        "getting-started.md",
        "finetuning.md",
        "metatrain.md",
        "coming-from.md",
        "data.md",
        "inputs.md",
        "tasks.md",
        "ace.md",
        "linear.md",
        "mace.md",
        "classifier.md",
        "uncertainty.md",
        "compare.md",
        "dynamics.md",
        "select.md",
        "engines.md",
        "hessians.md",
        "report.md",
        "api.md",
    ),
    "Tutorials": (
        "tutorials/molecule.md",
        "tutorials/crystal.md",
        "tutorials/phases.md",
        "tutorials/fine-tuning.md",
    ),
    "Concepts": ("concepts.md", "architecture.md"),
    "For authors": ("authors.md", "training.md", "conformance.md", "components.md"),
}
"""what people wrote, in order; a page that is not there (yet) is left out"""


def on_config(config: Any) -> Any:
    """Generate the pages, and list all there are."""
    sys.path.insert(0, str(DOCS))
    from _pages import pages

    config.extra["generated"] = made = pages()
    made["changelog.md"] = (DOCS.parent / "CHANGELOG.md").read_text(encoding="utf-8")
    known = {name for names in WRITTEN.values() for name in names}
    there = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    written = {part: [n for n in names if n in there] for part, names in WRITTEN.items()}
    architectures = [name for name in made if name.startswith("architectures/")]
    references = [name for name in made if name.startswith("reference/")]
    config.nav = [
        {"Start": written["Start"]},
        {"Tutorials": written["Tutorials"]},
        {"Architectures": architectures},
        {"Concepts": written["Concepts"]},
        {"For authors": [*written["For authors"], "reference/hooks.md"]},
        {"Reference": [name for name in references if name != "reference/hooks.md"]},
        *([{"More": sorted(there - known)}] if there - known else []),
        "changelog.md",
    ]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages."""
    from mkdocs.structure.files import File

    for path, text in config.extra["generated"].items():
        files.append(File.generated(config, path, content=text))
    return files
