"""From the answers to a project on disk."""

from __future__ import annotations

import datetime
import shutil
from pathlib import Path

from cookiecutter.exceptions import CookiecutterException
from cookiecutter.generate import generate_context, generate_files

from atomtrain.errors import OutputError, PluginError
from atomtrain_template.names import LEVELS, LICENSES, check_name, class_name

TEMPLATE = Path(__file__).parent / "project"


def render(
    name: str,
    *,
    level: str = "features",
    author: str = "Your Name",
    email: str = "you@example.org",
    license: str = "BSD-3-Clause",
    output: Path | str = ".",
) -> Path:
    """Make the project ``atomtrain-<name>`` in the folder ``output`` and return its path.

    Raises PluginError for a bad name, level or licence, OutputError for a folder that exists or
    cannot be made.
    """
    check_name(name)
    for given, known, what in ((level, LEVELS, "level"), (license, LICENSES, "license")):
        if given not in known:
            raise PluginError(f"there is no {what} '{given}'; choose one of {', '.join(known)}")
    for text, what in ((author, "author"), (email, "email")):
        if not 0 < len(text.strip()) <= 60 or any(c in text for c in '"\\\n\r{}'):
            raise PluginError(
                f"the {what} '{text}' must be one line of at most 60 characters, without quotes, "
                "braces or backslashes"
            )
    project = Path(output) / f"atomtrain-{name}"
    if project.exists():
        raise OutputError(f"'{project}' exists already; remove it or choose another name or -o")
    answers = {
        "name": name,
        "class_name": class_name(name),
        "level": level,
        "author": author.strip(),
        "email": email.strip(),
        "license": license,
        "year": str(datetime.date.today().year),
    }
    context = generate_context(TEMPLATE / "cookiecutter.json")["cookiecutter"]
    # generate_context does not take answers that are no strings of the file, and the derived ones
    # are formulas there that only cookiecutter's own prompt works out
    context.update(answers)
    context.update(distribution=f"atomtrain-{name}", package=f"atomtrain_{name.replace('-', '_')}")
    try:
        Path(output).mkdir(parents=True, exist_ok=True)
        generate_files(str(TEMPLATE), {"cookiecutter": context}, output_dir=str(output))
    except (OSError, CookiecutterException) as error:
        raise OutputError(f"cannot make '{project}': {error}") from error
    for compiled in list(project.rglob("__pycache__")):  # pip compiles the template's files too
        shutil.rmtree(compiled)
    return project
