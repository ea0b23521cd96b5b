"""What is installed: architectures, components, commands."""

from __future__ import annotations

import typer
from pydantic import BaseModel, ValidationError

from _pages.options import sections
from _pages.text import as_yaml, line, markdown, table
from atomtrain.contract import catalog, components
from atomtrain.data.readers import BUILTIN
from atomtrain.options import TrainerHypers
from atomtrain.options.loss import LOSSES
from atomtrain.plugins import Architecture
from atomtrain.targets import TargetInfo
from atomtrain.tasks import CORE_KINDS, known_kinds, task_of


def architecture_pages() -> dict[str, str]:
    """A page for each installed architecture, and one that compares them."""
    installed = [Architecture(one) for one in catalog.architectures()]
    made = {f"architectures/{a.info.name}.md": architecture_page(a) for a in installed}
    return {"architectures/index.md": _comparison(installed), **made}


def architecture_page(architecture: Architecture) -> str:
    """The page of one architecture, from its own description."""
    info, installed = architecture.info, architecture.installed
    model, training = architecture.model_hypers_class(), architecture.trainer_hypers_class()
    parts = [
        f"# {info.name}",
        f"*{info.summary}.* Stage: {info.stage}. Version {installed.version}.",
    ]
    if architecture.notice is not None:
        parts.append(f'!!! warning "deprecated"\n    {architecture.notice}.')
    parts += [
        markdown(info.description),
        "## Installation",
        f"```console\npip install {installed.distribution}\n```",
        "## What it fits",
        _kinds([architecture]),
        f"Devices, in order of preference: {', '.join(info.devices)}; precisions: "
        f"{', '.join(info.dtypes)}.",
        "## Default hypers",
    ]
    values = {"model": _defaults(model), "training": _defaults(training)}
    parts.append(as_yaml({"architecture": {"name": info.name, **values}}))
    parts += ["## Hypers of the model", sections(model, "architecture.model", level=3)]
    parts += ["## Hypers of the training", sections(training, "architecture.training", level=3)]
    for title, entries in (
        ("References", [line(f"{r} ({k})") for k, refs in info.references.items() for r in refs]),
        ("Authors", [str(p) for p in info.authors]),
        ("Maintainers", [str(p) for p in info.maintainers]),
    ):
        if entries:
            parts += [f"## {title}", "\n".join(f"- {entry}" for entry in entries)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _defaults(cls: type[BaseModel]) -> object:
    """The defaults of a section as plain data; those keys that have one if some have none."""
    try:
        return cls().model_dump(mode="json")
    except ValidationError:
        fields = cls.model_fields
        given = {name: f.get_default(call_default_factory=True) for name, f in fields.items()}
        shown = cls.model_construct(**given).model_dump(mode="json")
        return {name: value for name, value in shown.items() if not fields[name].is_required()}


def _comparison(installed: list[Architecture]) -> str:
    rows = [
        (f"[{a.info.name}]({a.info.name}.md)", a.installed.distribution, a.info.stage,
         line(a.info.summary))
        for a in installed
    ]  # fmt: skip
    parts = [
        "# Architectures",
        "Every architecture is a package of its own. These are described here:",
        table(("name", "package", "stage", "what it is"), rows),
        "## What they fit",
        _kinds(installed),
    ]
    return "\n\n".join(parts) + "\n"


def _kinds(installed: list[Architecture]) -> str:
    """Which kinds of targets architectures fit, themselves or with a head of the core."""
    rows = [(f"`{kind}`", *(_fits(a, kind) for a in installed)) for kind in known_kinds()]
    return table(("`type` of a target", *(a.info.name for a in installed)), rows)


def _fits(architecture: Architecture, kind: str) -> str:
    own = architecture.info.target_kinds
    layout = task_of(kind).complete(TargetInfo("any", kind=kind)).layout
    if kind in own or (layout != "scalar" and layout in own):
        return "yes"
    default = architecture.info.default_kind
    if kind == "scalar" and task_of(default).classification:
        return f"several numbers, as `{default}`"
    # heads are trained along gradients
    heads = issubclass(architecture.trainer_hypers_class(), TrainerHypers)
    return "with a head of the core" if layout == "scalar" and heads else "no"


def component_page() -> str:
    """What the core and installed packages offer to the options by name."""
    parts = [
        "# Components",
        "What the options may name, the core's own and what installed packages bring.",
    ]
    for title, hook, core in (
        ("Readers", "register_dataset_readers", BUILTIN),
        ("Kinds of targets", "register_tasks", CORE_KINDS),
        ("Losses", "register_losses", tuple(LOSSES)),
        ("Observers", "register_observers", ()),
        ("Evaluations", "register_evaluations", ()),
    ):
        rows = [(f"`{name}`", "in the core") for name in core]
        rows += [(f"`{name}`", line(spec.summary)) for name, spec in components(hook).items()]
        there = table(("name", "what it is"), rows) if rows else "None is installed."
        parts += [f"## {title}", f"Hook `{hook}`.", there]
    return "\n\n".join(parts) + "\n"


def command_page() -> str:
    """The reference of the command line, made from the commands."""
    from atomtrain.cli.app import app

    command = typer.main.get_command(app)
    context = typer.Context(command)
    parts = ["# Commands", markdown(command.help)]
    for name in command.list_commands(context):  # type: ignore[attr-defined]
        one = command.get_command(context, name)  # type: ignore[attr-defined]
        inner = typer.Context(one, info_name=f"atomtrain {name}")
        usage = " ".join(one.get_usage(inner).removeprefix("Usage: ").split())
        parts += [f"## `{name}`", markdown(one.help), f"```console\n{usage}\n```"]
        records = [r for p in one.get_params(inner) if (r := p.get_help_record(inner))]
        if records:
            rows = [(f"`{option}`", line(text)) for option, text in records]
            parts.append(table(("", "what it is"), rows))
    return "\n\n".join(part for part in parts if part) + "\n"
