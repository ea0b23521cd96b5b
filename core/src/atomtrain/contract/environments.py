"""Python environments beside ours: which are registered, what architectures they offer, running a command in one.

Packages can need versions of others that exclude one another. So an architecture may live in an environment of its own,
and a command that is about it runs there: the same command, by that environment's Python.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atomtrain._version import __version__
from atomtrain.contract import catalog
from atomtrain.errors import OutputError, PluginError, did_you_mean, first_line

_MARK = "ATOMTRAIN_ENVIRONMENT"
"""tells a process in which environment somebody started it"""
_LEASH = "ATOMTRAIN_LEASH"
"""tells it the number of a pipe that is closed when who started it is gone"""
_NOT_HANDED_ON = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "__PYVENV_LAUNCHER__", _LEASH)
"""what would make one Python find another's packages"""
_FORWARDED = ("SIGINT", "SIGTERM", "SIGHUP")


class OtherEnvironment(PluginError):
    """What is asked for is in another environment. The command line goes there; in Python it is an error."""

    def __init__(self, environment: Path, what: str) -> None:
        self.environment = environment
        self.what = what
        super().__init__(
            f"{what} is in the environment '{environment}'. The command line runs there by itself; from Python, use "
            f"that environment's: {python_of(environment)}"
        )


@dataclass(frozen=True)
class Offer:
    """What an environment has: its version of atomtrain, architectures (name, distribution, ...) and commands."""

    environment: Path
    atomtrain: str
    architectures: tuple[dict[str, Any], ...]
    commands: tuple[str, ...]

    def has(self, name: str) -> bool:
        """Whether there is an architecture of this name or alias."""
        wanted = catalog.normalise(name)
        return any(
            wanted in map(catalog.normalise, [one["name"], *one.get("aliases", ())])
            for one in self.architectures
        )


# -- which there are -------------------------------------------------------------------------------


def registry() -> Path:
    """The user's file with the paths of environments, one a line."""
    home = os.environ.get("XDG_CONFIG_HOME") or Path("~/.config").expanduser()
    return Path(home) / "atomtrain" / "environments"


def registered() -> list[Path]:
    """The environments that the user registered, in that order."""
    try:
        lines = registry().read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    return [Path(line.strip()) for line in lines if line.strip()]


def register(path: str | Path) -> Offer:
    """Add an environment that can be used, and give what it offers. Raises PluginError for one that cannot."""
    environment = Path(path).expanduser().absolute()
    offer = usable(environment)
    if not offer.architectures:
        raise PluginError(
            f"the environment '{environment}' has atomtrain and no architecture; install one there: "
            f"{python_of(environment)} -m pip install atomtrain-..."
        )
    _write([*(one for one in registered() if one != environment), environment])
    return offer


def forget(path: str | Path) -> None:
    """Take an environment off the list. Raises PluginError for one that is not there."""
    environment = Path(path).expanduser().absolute()
    known = registered()
    if environment not in known:
        hint = did_you_mean(str(environment), map(str, known), "registered")
        raise PluginError(f"the environment '{environment}' is not registered{hint}")
    _write([one for one in known if one != environment])


def _write(environments: Sequence[Path]) -> None:
    file = registry()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"{one}\n" for one in environments), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write '{file}': {error.strerror}") from error


# -- what they have --------------------------------------------------------------------------------


def python_of(environment: Path) -> Path:
    """Its Python. Raises PluginError where there is none."""
    for name in ("bin/python", "bin/python3", "Scripts/python.exe", "python.exe"):
        if (environment / name).is_file():
            return environment / name
    raise PluginError(
        f"'{environment}' is no Python environment: there is no bin/python in it. Make one with 'python -m venv "
        f"{environment}', or give the folder that 'python -c \"import sys; print(sys.prefix)\"' prints there"
    )


def offered(environment: Path) -> Offer:
    """What an environment has, by its own word. Raises PluginError where it cannot say."""
    python = python_of(environment)
    command = [str(python), "-m", "atomtrain", "architectures", "--json"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=_variables(environment), timeout=120
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PluginError(f"'{python}' cannot be run: {first_line(error)}") from error
    if "No module named atomtrain" in done.stderr:
        raise PluginError(
            f"the environment '{environment}' has no atomtrain; install it there: {python} -m pip install "
            f"atomtrain=={__version__}"
        )
    try:
        found = json.loads(done.stdout)
        architectures, commands = tuple(found["architectures"]), tuple(found["commands"])
        return Offer(environment, found["atomtrain"], architectures, commands)
    except (ValueError, KeyError, TypeError):
        lines = done.stderr.strip().splitlines() or ["it says nothing"]
        raise PluginError(
            f"the environment '{environment}' does not say what it offers ({lines[-1].strip()}); see what "
            f"'{' '.join(command)}' prints, and whether its atomtrain is {__version__}"
        ) from None


def usable(environment: Path) -> Offer:
    """As :func:`offered`, of an environment that has our version of atomtrain; PluginError for another."""
    offer = offered(environment)
    if offer.atomtrain != __version__:
        raise PluginError(
            f"the environment '{environment}' has atomtrain {offer.atomtrain}, and this is {__version__}; install the "
            f"same: {python_of(environment)} -m pip install atomtrain=={__version__}"
        )
    return offer


def check_environment(name: str, environment: str) -> None:
    """Raise OtherEnvironment unless the ``environment`` that options name for an architecture is ours.

    PluginError for one that does not have it.
    """
    path = Path(environment).expanduser().absolute()
    if is_ours(path):
        return
    offer = usable(path)
    if not offer.has(name):
        have = ", ".join(one["name"] for one in offer.architectures) or "none"
        raise PluginError(
            f"the environment '{path}' has no architecture '{name}' (it has: {have}); install it there: "
            f"{python_of(path)} -m pip install {catalog.KNOWN_DISTRIBUTIONS.format(name=catalog.normalise(name))}"
        )
    raise OtherEnvironment(path, f"architecture '{name}'")


def look_for(name: str) -> None:
    """Raise OtherEnvironment if a registered environment has the architecture, which is not installed here."""
    for offer in _offers():
        if offer.has(name):
            usable(offer.environment)
            raise OtherEnvironment(offer.environment, f"architecture '{name}'")


def look_for_command(name: str) -> None:
    """Raise OtherEnvironment if a registered environment has the command, which is not installed here."""
    for offer in _offers():
        if name in offer.commands:
            usable(offer.environment)
            raise OtherEnvironment(offer.environment, f"the command '{name}'")


def _offers() -> Iterator[Offer]:
    """Of all registered environments but ours, those that can be asked."""
    for environment in registered():
        if not is_ours(environment):
            with contextlib.suppress(PluginError):
                yield offered(environment)


def is_ours(environment: Path) -> bool:
    """Whether this process runs in it."""
    ours = [sys.prefix, *filter(None, [os.environ.get(_MARK)])]
    return any(environment.resolve() == Path(one).resolve() for one in ours)


# -- running there ---------------------------------------------------------------------------------


def run(environment: Path, arguments: Sequence[str]) -> int:
    """Run ``atomtrain`` with these arguments by the environment's Python, and give its exit code when it is over.

    It is negative for a child that a signal ended that was not ours: ``-signal.SIGKILL``. Signals that ask to
    stop reach the child by us alone (it has a session of its own, else a terminal's Ctrl-C would come twice, which
    stops it at once), and it stops if we are gone. PYTHONPATH and the like are not handed on.
    """
    command = [str(python_of(environment)), "-m", "atomtrain", *arguments]
    env = _variables(environment)
    if os.name != "posix":
        return subprocess.run(command, env=env).returncode
    theirs, ours = os.pipe()
    env[_LEASH] = str(theirs)
    sent: list[int] = []
    child: subprocess.Popen[bytes] | None = None

    def forward(number: int, _: object) -> None:
        sent.append(number)
        if child is not None:
            child.send_signal(number)

    def pause(number: int, _: object) -> None:
        if child is not None:
            child.send_signal(signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
        if child is not None:  # somebody let us go on
            child.send_signal(signal.SIGCONT)

    handlers = {signal.Signals[name]: forward for name in _FORWARDED} | {signal.SIGTSTP: pause}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        child = subprocess.Popen(command, env=env, start_new_session=True, pass_fds=(theirs,))
        for number in list(sent):
            child.send_signal(number)
        code = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(theirs)
        os.close(ours)
    return 128 - code if -code in sent else code


def stop_with_parent() -> None:
    """In a process that :func:`run` started: be asked to stop (SIGTERM) when who started it is gone."""
    number = os.environ.pop(_LEASH, None)
    if number is None:
        return

    def wait(end: int) -> None:
        with contextlib.suppress(OSError):
            os.read(end, 1)  # nothing is ever written
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, args=(int(number),), daemon=True).start()


def _variables(environment: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in _NOT_HANDED_ON}
    return {**kept, "PYTHONSAFEPATH": "1", _MARK: str(environment)}
