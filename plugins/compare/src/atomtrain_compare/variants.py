"""What is compared: options files, each with some of its keys changed."""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from atomtrain.errors import AtomtrainError, OptionsError
from atomtrain.options import BaseTrainerHypers, target_info
from atomtrain.plugins import open_architecture
from atomtrain.runs import plan
from atomtrain.runs.plan import Plan
from atomtrain.sections import read_document

ALIKE = ("seed", "training_set", "validation_set", "test_set")
"""keys of the options that all variants have in common"""


@dataclass(frozen=True)
class Variant:
    """One thing to train: a ``name`` for people, the options it is of, and those options checked.

    ``left_out`` are keys of the file that belong to another architecture than the variant's.
    """

    name: str
    file: str
    changes: tuple[str, ...]
    plan: Plan
    left_out: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """The name as one of a folder."""
        return re.sub(r"[^A-Za-z0-9._=+-]+", "-", self.name).strip("-.") or "variant"

    @property
    def has_epochs(self) -> bool:
        """Whether it is told how many epochs to train. Fits in closed form take the time they take."""
        return "num_epochs" in type(self.plan.hypers).model_fields


def variants_of(files: Sequence[str], given: Sequence[str]) -> list[Variant]:
    """Every options file with each of the ``given`` changes (``architecture.name=ace ...``); without any as it is.

    Raises whatever a training would of its options, and OptionsError where variants are the same, or are not to be
    trained, validated and tested on the same data.
    """
    found = []
    for file in dict.fromkeys(files):
        for text in given or [""]:
            try:
                changes = tuple(shlex.split(text))
            except ValueError as error:
                raise OptionsError(f"--with '{text}': {error}") from None
            try:
                planned, left_out = _planned(file, changes)
                planned.open_checkpoints()
                planned.checkpoints.forget()
            except AtomtrainError as error:
                if not changes:
                    raise
                raise error.saying(f"--with '{text}': {error}") from error
            name = _name(file, changes, planned, len(set(files)) > 1)
            found.append(Variant(name, file, changes, planned, left_out))
    _check_names(found)
    for variant in found[1:]:
        _check_alike(found[0], variant)
    return found


def _planned(file: str, changes: Sequence[str]) -> tuple[Plan, tuple[str, ...]]:
    """The changed options, checked, and what was left out of them.

    Where a change names another architecture than the file, the file's hypers are not this one's: of them stays what
    every training has (``batch_size``, ``loss``, ...) and the number of epochs.
    """
    before, after = (_architecture(read_document(file, some).values) for some in ((), changes))
    if before.get("name") is None or before.get("name") == after.get("name"):
        return plan(file, changes), ()
    architecture = open_architecture(str(after.get("name")))
    if architecture.answers_to(str(before["name"])):
        return plan(file, changes), ()
    known = {*BaseTrainerHypers.model_fields}
    known |= {"num_epochs"} & {*architecture.trainer_hypers_class().model_fields}
    hypers = before.get("training")
    hypers = hypers if isinstance(hypers, dict) else {}
    kept = {key: value for key, value in hypers.items() if key in known}
    first, left_out = [], []
    if before.get("model"):
        first.append("architecture.model=null")
        left_out.append("architecture.model")
    if len(kept) < len(hypers):
        first += ["architecture.training=null", f"architecture.training={json.dumps(kept)}"]
        left_out += [f"architecture.training.{key}" for key in hypers if key not in kept]
    return plan(file, [*first, *changes]), tuple(left_out)


def _architecture(values: Any) -> dict[str, Any]:
    section = values.get("architecture") if isinstance(values, dict) else None
    return section if isinstance(section, dict) else {}


def _name(file: str, changes: Sequence[str], planned: Plan, several: bool) -> str:
    """``ace, num_layers=2``: the architecture, or the file where there are several, and what is changed."""
    pairs = [change.partition("=")[::2] for change in changes]
    others = [(key.strip(), value) for key, value in pairs if key.strip() != "architecture.name"]
    short = [key.rpartition(".")[2] for key, _ in others]
    keys = short if len(set(short)) == len(short) else [key for key, _ in others]
    parts = [re.sub(r"\.ya?ml$", "", file)] if several else []
    if not several or len(others) < len(pairs):
        parts.append(planned.architecture.info.name)
    return ", ".join(
        [*parts, *(f"{key}={value}" for key, (_, value) in zip(keys, others, strict=True))]
    )


def _check_names(variants: Sequence[Variant]) -> None:
    """Raise OptionsError for variants that are the same, or cannot be told apart."""
    for k, variant in enumerate(variants):
        for other in variants[:k]:
            if other.plan.completed == variant.plan.completed:
                raise OptionsError(
                    f"'{_said(other)}' and '{_said(variant)}' are the same options: compare what differs"
                )
    for what in ("name", "folder"):
        name, times = Counter(getattr(v, what).lower() for v in variants).most_common(1)[0]
        if times > 1:
            raise OptionsError(
                f"{times} variants would be called '{name}': give them options files with names that tell them apart"
            )


def _said(variant: Variant) -> str:
    return " ".join([variant.file, *variant.changes])


def _check_alike(first: Variant, other: Variant) -> None:
    """Raise OptionsError unless both have the same data, split and targets."""
    for key in ALIKE:
        found = _difference(first.plan.completed[key], other.plan.completed[key], key)
        if found is None:
            continue
        path, ours, theirs = found
        if key == "seed":
            remedy = "the seed draws the split; train each several times with --seeds"
        else:
            remedy = f"variants are compared on the same data, so give all the same {key}"
        raise OptionsError(
            f"{path} is {_short(ours)} in '{first.name}' and {_short(theirs)} in '{other.name}': {remedy}"
        )
    for k, section in enumerate(first.plan.options.training_set):
        for name, target in section.targets.items():
            kinds = [
                target_info(name, target, variant.plan.architecture.info.default_kind).kind
                for variant in (first, other)
            ]
            if kinds[0] != kinds[1]:
                raise OptionsError(
                    f"training_set.{k}.targets.{name} is of type '{kinds[0]}' for '{first.name}' and '{kinds[1]}' for "
                    f"'{other.name}', which are their defaults: give it a type, or compare what predicts the same"
                )


def _difference(ours: Any, theirs: Any, path: str) -> tuple[str, Any, Any] | None:
    """The first place where two options differ: where it is, and what both say."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        keys: list[Any] = list(dict.fromkeys([*ours, *theirs]))
        pairs = [(key, ours.get(key), theirs.get(key)) for key in keys]
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        pairs = [(k, a, b) for k, (a, b) in enumerate(zip(ours, theirs, strict=True))]
    else:
        return None if ours == theirs else (path, ours, theirs)
    inside = (_difference(a, b, f"{path}.{key}") for key, a, b in pairs)
    return next((found for found in inside if found is not None), None)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
