"""Every way a plugin can be broken stays in its own room and says whose fault it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.installing import good, install

from atomtrain.contract import catalog, components
from atomtrain.errors import CheckpointError, PluginError
from atomtrain.plugins import open_architecture
from atomtrain.tasks import known_kinds, task_of


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_names_are_normalised(site: Path) -> None:
    install(site, "my-arch-one", good("my-arch-one"))
    for name in (
        "my-arch-one",
        "my_arch_one",
        "experimental.my_arch_one",
        "deprecated.My-Arch-One",
    ):
        assert open_architecture(name).info.name == "my-arch-one"
    assert open_architecture("old_name").info.name == "my-arch-one"


def test_two_of_one_name(site: Path) -> None:
    install(site, "arch-twice-a", good("twice"), entry="twice")
    install(site, "arch-twice-b", good("twice"), entry="twice")
    with pytest.raises(PluginError, match=r"provided by arch-twice-a 1.0 and by arch-twice-b 1.0"):
        open_architecture("twice")


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        ("arch-import", "import nothing_of_this_name", "cannot be imported: ModuleNotFoundError"),
        ("arch-empty", "", "does not answer the hook describe_architecture"),
        (
            "arch-misspelt",
            good("arch-misspelt") + "\n@hookimpl\ndef bild_model(hypers):\n    return 1\n",
            "there is no hook 'bild_model'; did you mean 'build_model'",
        ),
        (
            "arch-raising",
            "from atomtrain.contract import hookimpl\n"
            "@hookimpl\ndef describe_architecture():\n    1 / 0\n",
            "failed in describe_architecture: ZeroDivisionError",
        ),
        ("arch-other", good("another"), "registered as 'arch-other' but describes itself as"),
        (
            "arch-wrong",
            "from atomtrain.contract import hookimpl\n"
            "@hookimpl\ndef describe_architecture():\n    return 'me'\n",
            "must return an ArchitectureInfo, not str",
        ),
    ],
)
def test_broken_plugins(site: Path, name: str, source: str, message: str) -> None:
    install(site, name, source)
    install(site, f"{name}-good", good(f"{name}-good"))
    with pytest.raises(PluginError, match=message) as raised:
        open_architecture(name)
    assert f"{name} 1.0" in str(raised.value)
    assert open_architecture(f"{name}-good").info.summary == "s"  # nothing else suffers


def test_a_plugin_for_another_core(site: Path) -> None:
    install(site, "arch-later", "import nothing_yet", requires="atomtrain (>=7,<8)")
    with pytest.raises(
        PluginError,
        match=r"'arch-later' \(arch-later 1.0\) was made for atomtrain <8,>=7, but atomtrain 0.* is "
        r"installed; .*pip install -U atomtrain arch-later",
    ):
        open_architecture("arch-later")
    install(site, "arch-fits", good("arch-fits"), requires="atomtrain>=0.0.1")
    install(site, "arch-extra", good("arch-extra"), requires="atomtrain>=7; extra == 'next'")
    install(site, "arch-friend", good("arch-friend"), requires="atomtrain-soap-bpnn>=7")
    for name in ("arch-fits", "arch-extra", "arch-friend"):
        assert open_architecture(name).info.summary == "s"


@pytest.mark.parametrize(
    ("build", "message"),
    [
        ("return None", "does not answer the hook build_model"),
        ("raise KeyError('x')", "failed in build_model: KeyError"),
    ],
)
def test_build_model_that_fails(site: Path, build: str, message: str) -> None:
    name = f"arch-build-{len(build)}"
    install(site, name, good(name, build))
    with pytest.raises(PluginError, match=message):
        open_architecture(name).build_model(None, None, None)  # type: ignore[arg-type]


def test_unknown_architectures(site: Path) -> None:
    install(site, "arch-known", good("arch-known"))
    with pytest.raises(PluginError, match="did you mean 'arch-known'"):
        open_architecture("arch-knwon")
    with pytest.raises(PluginError, match="pip install atomtrain-zzzz"):
        open_architecture("zzzz")


def test_a_checkpoint_names_what_to_install(site: Path) -> None:
    install(site, "arch-left", good("arch-left"))
    message = (
        "'arch-lest' is not installed; the file was written with 'theirs 2.1': 'pip install theirs'"
    )
    with pytest.raises(PluginError, match=message):
        open_architecture("arch-lest", "theirs 2.1")
    assert open_architecture("arch-left", "theirs 2.1").info.name == "arch-left"


def test_nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "entry_points", lambda group: ())
    with pytest.raises(PluginError, match="no architecture is installed"):
        open_architecture("soap-bpnn")


UPGRADE = """
@hookimpl
def upgrade_checkpoint(checkpoint, part, from_version):
    {body}
"""


def checkpoint(version: int) -> dict[str, Any]:
    return {"architecture": {"model_version": version, "trainer_version": 1}, "steps": []}


def test_upgrades_go_step_by_step(site: Path) -> None:
    body = "return {**checkpoint, 'steps': [*checkpoint['steps'], (part, from_version)]}"
    install(site, "arch-up", good("arch-up") + UPGRADE.format(body=body))
    upgraded = open_architecture("arch-up").upgrade_checkpoint(checkpoint(1))
    assert upgraded["steps"] == [("model", 1), ("model", 2)]
    assert upgraded["architecture"]["model_version"] == 3
    with pytest.raises(
        CheckpointError, match=r"version 4 of the model .* up to 3; install a newer"
    ):
        open_architecture("arch-up").upgrade_checkpoint(checkpoint(4))


def test_upgrades_that_fail(site: Path) -> None:
    install(site, "arch-up-none", good("arch-up-none") + UPGRADE.format(body="return None"))
    with pytest.raises(PluginError, match="returned nothing for the step from version 1"):
        open_architecture("arch-up-none").upgrade_checkpoint(checkpoint(1))
    install(site, "arch-up-missing", good("arch-up-missing"))
    with pytest.raises(CheckpointError, match="no step from version 1 to 2 of its model"):
        open_architecture("arch-up-missing").upgrade_checkpoint(checkpoint(1))


LOSSES = """
from atomtrain.contract import ComponentSpec, hookimpl
@hookimpl
def register_losses():
    yield ComponentSpec("{name}", "a loss", lambda: 7)
    {then}
"""


def test_components_fail_alone(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(site, "comp-good", LOSSES.format(name="fine", then=""), catalog.COMPONENTS)
    install(site, "comp-bad", LOSSES.format(name="bad", then="raise OSError('disk')"),
            catalog.COMPONENTS)  # fmt: skip
    with pytest.warns(UserWarning, match="comp-bad 1.0 is left out of register_losses: disk"):
        found = components("register_losses")
    assert found["fine"].load() == 7 and "bad" not in found
    monkeypatch.setenv("ATOMTRAIN_STRICT_PLUGINS", "1")
    with pytest.raises(PluginError, match="comp-bad"):
        components("register_losses")


COUNTED = """
from pathlib import Path
from atomtrain.contract import ComponentSpec, hookimpl
from atomtrain.tasks import Task

def count(what):
    with open(Path(__file__).with_name("asked.txt"), "a") as file:
        file.write(what + "\\n")

class Counted(Task):
    kind = "counted"
    def __init__(self):
        count("made")

@hookimpl
def register_tasks():
    count("asked")
    yield ComponentSpec("counted", "a task", lambda: Counted)
"""


def test_packages_are_asked_once(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(site, "comp-counted", COUNTED, catalog.COMPONENTS)
    install(site, "comp-lost", "import no_such_module", catalog.COMPONENTS)
    with pytest.warns(UserWarning, match="comp-lost 1.0 is left out") as warned:
        tasks = [task_of("counted") for _ in range(3)]
    assert tasks[0] is tasks[1] is tasks[2] and "counted" in known_kinds()
    assert len(warned) == 1
    asked = site / "asked.txt"
    assert asked.read_text().split() == ["asked", "made"]
    monkeypatch.syspath_prepend(str(site / "more"))  # where others may be found
    with pytest.warns(UserWarning, match="comp-lost 1.0 is left out"):
        assert "counted" in known_kinds()
    assert asked.read_text().split() == ["asked", "made", "asked"]
    monkeypatch.setattr(catalog, "entry_points", lambda group: ())
    assert "counted" not in known_kinds()


def test_hooks_are_documented() -> None:
    from atomtrain.contract import hookspecs

    for cls in (hookspecs.ArchitectureHooks, hookspecs.ComponentHooks):
        for name, hook in vars(cls).items():
            if not name.startswith("_"):
                assert hook.__doc__, name
                assert hook.__annotations__["return"], name
