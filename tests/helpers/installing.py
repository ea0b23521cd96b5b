"""Distributions made up for a test, as importlib.metadata sees them."""

from __future__ import annotations

from pathlib import Path


def install(
    site: Path,
    name: str,
    source: str | None = None,
    group: str = "atomtrain.architectures",
    *,
    entry: str | None = None,
    target: str | None = None,
    version: str = "1.0",
    requires: str = "",
) -> None:
    """Install a distribution with one entry point in the folder ``site``, to be put on the path.

    ``source`` is that of its only module, which has its name; without one ``target`` says what the entry
    point names: something that is on the path already, as the packages in ``made_up`` are.
    """
    module = name.replace("-", "_")
    info = site / f"{module}-{version}.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    if requires:
        metadata += f"Requires-Dist: {requires}\n"
    (info / "METADATA").write_text(metadata)
    (info / "entry_points.txt").write_text(f"[{group}]\n{entry or name} = {target or module}\n")
    if source is not None:
        (site / f"{module}.py").write_text(source)


GOOD = """
from atomtrain.contract import ArchitectureInfo, hookimpl
def hypers():
    from atomtrain.options import Section
    return Section
@hookimpl
def describe_architecture():
    return ArchitectureInfo(name="{name}", summary="s", model_hypers=hypers,
                            trainer_hypers=hypers, aliases=("old-name",), model_version=3)
@hookimpl
def build_model(hypers):
    {build}
"""


def good(name: str, build: str = "return 1") -> str:
    return GOOD.format(name=name, build=build)
