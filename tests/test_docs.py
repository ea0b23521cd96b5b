"""What is written is true: code in the documentation runs, options in it load, nothing is left out.

A comment before a block of code says what to do with it:

- ``<!-- test: run -->``: run this Python, in a folder with ``data.xyz``, after the page's earlier ones;
- ``<!-- test: eval -->``: this YAML is a file for ``atomtrain eval``;
- ``<!-- test: skip -->``: this YAML is something else than options.

Python without a comment is compiled; YAML without one is a file of options or a part of one.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from _pages import pages
from _pages.options import walk
from _pages.tutorials import NEEDS
from helpers.alloy import write_crystal
from helpers.given import Mapping, hooks_in, options_in
from helpers.schema import validator
from pydantic import BaseModel

from atomtrain.contract import catalog, hookspecs
from atomtrain.options import (
    DatasetSection,
    Options,
    TargetSection,
    TrainerHypers,
    load_eval_options,
    load_options,
    validate,
)
from atomtrain.options.loss import LOSSES, LossSpec
from atomtrain.plugins import Architecture, open_architecture
from atomtrain.sections.names import bad_target_name
from atomtrain.tasks import CORE_KINDS, task_of

ROOT = Path(__file__).parent.parent
WRITTEN = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("*/README.md"),
                  *ROOT.glob("plugins/*/README.md")])  # fmt: skip
FENCE = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
TESTS = [
    file
    for folder in ("core/tests", "plugins/*/tests", "plugins/testing/src", "tests")
    for file in ROOT.glob(f"{folder}/**/*.py")
    if file != Path(__file__)
]
MARK = re.compile(r"<!-- test: (\w+) -->\s*$")


@dataclass(frozen=True)
class Block:
    """A block of code in a page."""

    page: str
    line: int
    language: str
    text: str
    mark: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: str, text: str) -> Iterator[Block]:
    for found in FENCE.finditer(text):
        mark = MARK.search(text[: found.start()])
        line = text.count("\n", 0, found.start()) + 1
        yield Block(page, line, found[1], found[2], mark[1] if mark else "")


BLOCKS = [
    block
    for name, text in (
        *((p.relative_to(ROOT).as_posix(), p.read_text(encoding="utf-8")) for p in WRITTEN),
        *pages().items(),
    )
    for block in blocks(name, text)
]


def of(language: str) -> list[Block]:
    return [b for b in BLOCKS if b.language == language and b.mark != "skip"]


def whole(part: Any) -> dict[str, Any]:
    """A file of options that has this part of one."""
    base = {
        "architecture": {"name": "soap-bpnn"},
        "training_set": "data.xyz",
        "validation_set": 0.1,
    }
    if not isinstance(part, dict):
        raise AssertionError("neither options nor a part of them: say so with <!-- test: skip -->")
    keys = set(part)
    if keys <= set(Options.model_fields):
        return {**base, **part}
    if keys <= set(DatasetSection.model_fields):
        return {**base, "training_set": {"systems": "data.xyz", **part}}
    if keys <= {"model", "training"}:
        return {**base, "architecture": {"name": "soap-bpnn", **part}}
    if keys <= set(TargetSection.model_fields):
        return {**base, "training_set": {"systems": "data.xyz", "targets": {"mtt::any": part}}}
    if keys <= set(TrainerHypers.model_fields):
        return {**base, "architecture": {"name": "soap-bpnn", "training": part}}
    if all(bad_target_name(key) is None for key in keys):
        return {**base, "training_set": {"systems": "data.xyz", "targets": part}}
    raise AssertionError(f"not options ({', '.join(keys)}): say so with <!-- test: skip -->")


@pytest.mark.parametrize("block", of("yaml"), ids=str)
def test_yaml(block: Block, tmp_path: Path) -> None:
    file = tmp_path / "options.yaml"
    file.write_text(block.text)
    if block.mark == "eval":
        assert load_eval_options(file)
        return
    from atomtrain.sections.document import read_document

    options = load_options(whole(read_document(file).values))
    architecture = open_architecture(options.architecture.name)
    for part, cls in (
        ("model", architecture.model_hypers_class()),
        ("training", architecture.trainer_hypers_class()),
    ):
        section = getattr(options.architecture, part)
        validate(cls, section, ("architecture", part), options.source)
    assert (
        list(validator().iter_errors(yaml.safe_load(yaml.safe_dump(options.source.values)))) == []
    )


@pytest.mark.parametrize("block", of("python"), ids=str)
def test_python_compiles(block: Block) -> None:
    compile(block.text, str(block), "exec")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("page", sorted({b.page for b in of("python") if b.mark == "run"}))
def test_python_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_crystal(tmp_path / "data.xyz", 20)
    names: dict[str, Any] = {}
    for block in of("python"):
        if block.page == page and block.mark == "run":
            exec(compile("\n" * block.line + block.text, page, "exec"), names)


@pytest.mark.parametrize("page", WRITTEN, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_to_files(page: Path) -> None:
    generated = {f"docs/{name}" for name in (*pages(), "changelog.md")}
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in target and not target.startswith("mailto:"):
            place = Path(os.path.normpath(page.parent / target))
            there = place.exists() or place.relative_to(ROOT).as_posix() in generated
            assert there, f"{page.name} links to '{target}'"


# -- nothing is left out -------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """A section of an options file: what it may hold, where it stands, which page explains it."""

    cls: type[BaseModel]
    path: tuple[str, ...]
    page: str
    beside: frozenset[str] = frozenset()

    def holds(self, given: Mapping) -> bool:
        """Whether a mapping in a test is this section, as far as the test says where it stands."""
        pairs = zip(reversed(self.path), reversed(given.path), strict=False)
        here = all(wanted in ("<name>", found) for wanted, found in pairs)
        return here and given.keys <= {*self.cls.model_fields, *self.beside}


def places() -> list[Place]:
    """Every section a user can write."""
    page = "reference/options.md"
    training = ("architecture", "training")
    roots: list[Place] = [Place(Options, (), page), Place(TrainerHypers, training, page)]
    for kind in CORE_KINDS:
        roots.append(Place(task_of(kind).arguments, ("type", kind), page))
    for one in catalog.architectures():
        architecture = Architecture(one)
        page = f"architectures/{architecture.info.name}.md"
        roots.append(Place(architecture.model_hypers_class(), ("architecture", "model"), page))
        roots.append(Place(architecture.trainer_hypers_class(), training, page))
    found = [
        Place(cls, tuple(filter(None, path.split("."))), root.page)
        for root in roots
        for path, cls in walk(root.cls, ".".join(root.path))
    ]
    # a loss stands in many places, and its arguments beside its name and weight
    losses = (LossSpec, *LOSSES.values())
    beside = frozenset(name for cls in losses for name in cls.model_fields)
    return [place for place in found if place.cls is not LossSpec] + [
        Place(cls, (), "reference/options.md", beside) for cls in losses
    ]


def test_every_option_is_explained_and_tested() -> None:
    made, given = pages(), options_in(TESTS)
    problems = []
    for place in places():
        if not place.cls.__doc__:
            problems.append(f"{place.cls.__name__} has no docstring")
        tested = {key for one in given if place.holds(one) for key in one.keys}
        for name, field in place.cls.model_fields.items():
            if not field.description:
                problems.append(f"{place.cls.__name__}.{name} has no description")
            if f"| `{name}` |" not in made[place.page]:
                problems.append(f"{place.cls.__name__}.{name} is not in {place.page}")
            if name not in tested:
                problems.append(f"{'.'.join(place.path)}.{name} is in no options of a test")
    assert not problems, "\n".join(problems)


def test_every_hook_is_explained_and_tested() -> None:
    page, tested = pages()["reference/hooks.md"], hooks_in(TESTS)
    for cls in (hookspecs.ArchitectureHooks, hookspecs.ComponentHooks):
        for name, hook in vars(cls).items():
            if not name.startswith("_"):
                assert hook.__doc__ and "\n" in page.partition(f"### `{name}`")[2], name
                assert f"def {name}(" in page, name
                assert name in tested, f"{name} is implemented in no test"


def test_what_pages_say_of_an_architecture() -> None:
    page = pages()["architectures/soap-bpnn.md"]
    for words in (
        "pip install atomtrain-soap-bpnn",
        "Stage: stable",
        "`architecture.model.soap.cutoff`",
        "| `radius` | number, above 0 | `5.0` | Radius of the neighbourhood",
        "10.1002/qua.24927",
        "| `classes` | with a head of the core |",
    ):
        assert words in page, words
    table = pages()["architectures/index.md"]
    assert (
        "[soap-bpnn](soap-bpnn.md)" in table
        and "| `spherical` | yes | no | no | no | yes |" in table
    )
    assert "| `scalar` | yes | several numbers, as `classes` | yes | yes |" in table


def test_the_site_builds_without_warnings(tmp_path: Path) -> None:
    pytest.importorskip("material")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path / "site")],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for page in ("index.html", "reference/hooks/index.html", "architectures/soap-bpnn/index.html"):
        assert (tmp_path / "site" / page).exists(), page
    for name in NEEDS:  # the code alone, as tutorials are run in the session of the docs
        page = tmp_path / "site" / "tutorials" / name / "index.html"
        assert "exec=" not in page.read_text(encoding="utf-8"), name


def test_every_tutorial_has_its_data() -> None:
    assert set(NEEDS) == {page.stem for page in ROOT.glob("docs/tutorials/*.md")}
    assert all((ROOT / "examples" / name).is_dir() for names in NEEDS.values() for name in names)
