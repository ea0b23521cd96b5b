"""How metatrain's files, and older ones of metatomic's names, say what is said otherwise here.

Each function turns such a spelling into ours before a section is validated, and leaves alone what it
does not know: the section says what is wrong with it. ``allow_...`` adds spellings to the JSON schema of a
section, where they are keys of their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from atomtrain.errors import did_you_mean
from atomtrain.sections import Path, Problems

if TYPE_CHECKING:
    from atomtrain.options.dataset import TargetSection

Json = dict[str, Any]

# -- names of targets ------------------------------------------------------------------------------

OLDER_TARGETS = {
    "features": "feature",
    "non_conservative_forces": "non_conservative_force",
    "positions": "position",
    "momenta": "momentum",
    "velocities": "velocity",
    "masses": "mass",
    "charges": "charge",
}
"""what metatomic called some of its outputs before"""


def todays_name(name: str) -> str:
    """Today's name of a target or of its variant."""
    base, slash, variant = name.partition("/")
    return OLDER_TARGETS.get(base, base) + slash + variant


def todays_names(targets: Any) -> Any:
    """Targets by their names of today."""
    if not isinstance(targets, dict):
        return targets
    renamed: dict[Any, Any] = {}
    for name, section in targets.items():
        today = todays_name(name) if isinstance(name, str) else name
        if today in renamed or (today != name and today in targets):
            problem = f"is today's '{today}', which is given as well; remove one"
            raise Problems.at((name,), problem)
        renamed[today] = section
    return renamed


# -- keys of their own -----------------------------------------------------------------------------


def moved(options: Any) -> dict[Path, Path]:
    """Where completed options have a section, and where these do."""
    return {("observers", "wandb"): ("wandb",)} if "wandb" in options else {}


def wandb_as_observer(options: dict[str, Any]) -> dict[str, Any]:
    """``wandb: {...}`` is the observer of that name; ``observers`` are spelt out already."""
    arguments = options.pop("wandb", None)
    observers = options.get("observers") or {}
    if arguments is None or not isinstance(observers, dict):
        return options
    if "wandb" in observers:
        raise Problems.at("wandb", "is given among the observers as well; keep one")
    return {**options, "observers": {**observers, "wandb": arguments}}


def allow_wandb(schema: Json) -> None:
    """``wandb`` beside ``observers``."""
    about = "Log to Weights & Biases; short for the observer ``wandb``."
    schema["properties"]["wandb"] = {"type": "object", "description": about}


def sample_kind(target: dict[str, Any]) -> dict[str, Any]:
    """``per_atom: true`` is ``sample_kind: atom``."""
    per_atom = target.pop("per_atom", None)
    if per_atom is None:
        return target
    if not isinstance(per_atom, bool):
        raise Problems.at("per_atom", "expected true or false")
    kind = "atom" if per_atom else "system"
    if target.get("sample_kind") not in (None, kind):
        problem = f"contradicts sample_kind: {target['sample_kind']}; remove per_atom"
        raise Problems.at("per_atom", problem)
    return {**target, "sample_kind": kind}


def allow_per_atom(schema: Json) -> None:
    """``per_atom`` beside ``sample_kind``."""
    about = "Older spelling of sample_kind: true for 'atom', false for 'system'."
    schema["properties"]["per_atom"] = {"type": "boolean", "description": about}


# -- files that metatrain writes beside a run ------------------------------------------------------

_TARGET = {"quantity", "read_from", "reader", "key", "unit", "type", "num_subtargets", "virial"}
_GRADIENT = {"read_from", "reader", "key"}


def spelt_out(target: TargetSection, gradients: list[str]) -> bool:
    """Whether a target is as in the ``options_restart.yaml`` of a run of metatrain.

    There every energy names its ``gradients``, forces and stress, also where the data have none and
    the options of the run did not speak of them.
    """
    sections = {name: getattr(target, name) for name in gradients}
    return bool(gradients) and (
        target.model_fields_set >= _TARGET
        and all(section.model_fields_set == _GRADIENT for section in sections.values())
        and all(section.key == name for name, section in sections.items())
    )


OLDER_HYPERS = {"fixed_composition_weights": "atomic_baseline"}
"""hypers of the training that metatrain has under another name today, and refuses under this one"""

# -- losses of gradients ---------------------------------------------------------------------------

BESIDE = ("forces", "stress", "virial")
"""gradients whose losses may stand beside the other keys of a loss"""
_GRADIENTS = {
    "positions": "forces",
    "forces": "forces",
    "strain": "strain",
    "stress": "strain",
    "virial": "strain",
}


def gradients(loss: dict[str, Any]) -> dict[str, Any]:
    """Losses of gradients in a section of their own, under our names."""
    beside = {name: loss.pop(name) for name in BESIDE if name in loss}
    inside = loss.get("gradients") or {}
    if not isinstance(inside, dict):
        return loss
    for name in inside:
        if name not in _GRADIENTS:
            hint = did_you_mean(name, ("positions", "strain"))
            raise Problems.at(("gradients", name), f"unknown gradient{hint}")
    renamed: dict[str, Any] = {}
    spelling: dict[str, tuple[str, ...]] = {}
    spelt: list[tuple[tuple[str, ...], Any]] = [(("gradients", k), v) for k, v in inside.items()]
    for path, value in [*spelt, *(((name,), value) for name, value in beside.items())]:
        name = _GRADIENTS[path[-1]]
        other = renamed.get(name)
        first = spelling.setdefault(name, path)
        if first == path:
            renamed[name] = value
        elif path[-1] not in ("stress", "virial") and _apart(other, value):
            renamed[name] = {**other, **value}  # type: ignore[dict-item]
        else:
            problem = f"is the loss of what '{'.'.join(first)}' is the loss of; give one of them"
            raise Problems.at(path, problem)
    return {**loss, "gradients": renamed} if renamed else loss


def _apart(one: Any, other: Any) -> bool:
    """Whether two sections say different things, which can stand together."""
    both = isinstance(one, dict) and isinstance(other, dict)
    return both and not set(one) & set(other)


def allow_gradients(schema: Json) -> None:
    """Gradients by all their names, and beside the other keys."""
    properties = schema["properties"]
    properties["gradients"]["propertyNames"] = {"enum": list(_GRADIENTS)}
    loss = properties["gradients"]["additionalProperties"]
    for name in BESIDE:
        properties[name] = {"anyOf": [loss], "description": f"Loss of the {name}."}


# -- nothing ---------------------------------------------------------------------------------------


def nothing(value: Any) -> Any:
    """What metatrain's documentation writes as None, which YAML reads as text."""
    return None if value in ("None", "none") else value


def no_finetuning(section: Any) -> Any:
    """Metatrain's files carry a section without a path."""
    empty = isinstance(section, dict) and not section.get("read_from")
    return None if empty else section


# -- fine-tuning -----------------------------------------------------------------------------------


def finetuning(section: Any) -> Any:
    """Metatrain's ``config`` of a method is the section of that name here; it names modules, we name weights."""
    if not isinstance(section, dict) or "config" not in section:
        return section
    section = dict(section)
    config, method = section.pop("config") or {}, section.get("method", "full")
    if not isinstance(config, dict):
        raise Problems.at("config", "expected a section")
    if method == "lora":
        if section.get("lora"):
            raise Problems.at(
                "config", "is metatrain's way to write 'lora', which is given as well; keep one"
            )
        config = dict(config)
        modules = config.pop("target_modules", None)
        if isinstance(modules, list):
            config["weights"] = [f"*{module}*" for module in modules]
        elif modules is not None:
            raise Problems.at(("config", "target_modules"), "expected a list of names of modules")
        return {**section, "lora": config}
    if config:
        names = ", ".join(map(str, config))
        problem = f"with method '{method}' nothing is configured ({names}): which weights are heads is known here"
        raise Problems.at("config", problem)
    return section


def allow_finetuning(schema: Json) -> None:
    """A section of which nothing need be there, and ``config``."""
    schema.pop("required", None)
    about = "metatrain's way to write the section of the method, 'lora'."
    schema["properties"]["config"] = {"type": ["object", "null"], "description": about}
