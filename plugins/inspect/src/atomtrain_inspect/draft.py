"""From files to options: what is written into a first ``options.yaml``, and why."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from atomtrain.contract import catalog
from atomtrain.data import Files
from atomtrain.data.readers import paths_of
from atomtrain.data.readers.base import DataFile
from atomtrain.data.readers.frames import FramesFile
from atomtrain.errors import AtomtrainError, DataError, OptionsError
from atomtrain.options import TrainerHypers
from atomtrain.plugins import Architecture, open_architecture
from atomtrain.sections.names import symbols
from atomtrain_inspect import alike
from atomtrain_inspect.audit import audit
from atomtrain_inspect.choices import ROLES, Ask, Choice, Draft, Given, Part, Role
from atomtrain_inspect.finding import Finding
from atomtrain_inspect.sets import Looked, keys_of, of_files
from atomtrain_inspect.units import believed, check_unit, energy_unit, length_unit, usual_units
from atomtrain_inspect.values import ENERGY, Value, Values, values_of

FEW_ELEMENTS = 4
"""up to so many the linear potential is the first to be tried"""
MANY_ELEMENTS, LITTLE_DATA = 8, 2000
ATOMS_OF_BATCH = 120
STEPS = 10_000
"""of the optimiser in a first training"""
UNEVEN = 3.0
"""how much larger than the mean the largest structure may be before batches are made by atoms"""
MOST_OTHERS = 8
LOOKED_AT = 3000
"""frames whose values are looked at"""
SAME_ENERGY = ("free_energy", "energy_extrapolated", "atom_energy", "energies")
"""what readers and ASE have beside an energy: no other one"""


def drafted(given: Given, ask: Ask) -> Draft:
    """Options for files. Raises DataError for what cannot be read, OptionsError where there is nothing to learn."""
    if given.unit:
        check_unit(given.unit, "eV", "--unit")
    if given.length_unit:
        check_unit(given.length_unit, "angstrom", "--length-unit")
    if given.architecture and open_architecture(given.architecture).info.name == "classifier":
        raise OptionsError(
            "init: a classifier stands on a model that is trained already, and says which by "
            "architecture.training.model_checkpoint: write its options by hand"
        )
    files, reader, reading = Files(), given.reader, given.reading
    notes: list[str] = []
    roles = _roles(given, notes)
    opened = {path: files.structures(path, reader, "init", reading) for path in roles}
    parts = _parts(roles, opened, given.keys, notes)
    length = length_unit(parts, opened, given.length_unit)
    looked = of_files(
        list(roles),
        reader=reader,
        length_unit=str(length.value),
        keys=given.keys,
        reading=reading,
        files=files,
    )
    _by_role(looked, roles)
    _check_elements(looked)
    length = believed(length, looked, ask, bool(given.length_unit))
    own = [path for path, role in roles.items() if role == "training"]
    values = _values([opened[path] for path in own], parts)
    has_energy = any("energy" in part.keys for part in parts if part.role == "training")
    without = [part.paths[0] for part in parts if has_energy and "energy" not in part.keys]
    if without:
        raise DataError(
            f"init: {', '.join(without)} has no energy that was found, which others have: leave it out, or name it "
            "(--key energy=KEY) by a name that all files have"
        )
    forces = any("forces" in part.keys for part in parts)
    known = sorted({key for path in own for key in opened[path].keys})
    target = None if has_energy else _target(values, ask, own, known, forces)
    unit = (
        energy_unit(looked, parts, given.unit, usual_units(opened)[1], ask)
        if has_energy
        else Choice("")
    )
    for part in parts:
        _missing(part, [opened[path] for path in part.paths])
    looked.length_unit = str(length.value)
    looked.targets = {
        name: replace(info, unit=str(unit.value)) for name, info in looked.targets.items()
    }
    report = audit(looked)
    draft = Draft(
        parts,
        reader,
        reading,
        report,
        architecture=Choice(given.architecture),
        length_unit=length,
        unit=unit,
        target=target,
        others=[value for value in values.labels if value is not target][:MOST_OTHERS],
        masks=values.masks,
        notes=notes,
    )
    train = np.array([looked.sets[k] == "training" for k in looked.member])
    n = sum(len(opened[path].frames) for path in own)
    _split(draft, looked, values, n, ask)
    draft.architecture = _architecture(draft, looked, n, given.architecture, ask)
    _training(draft, looked.store.n_atoms.numpy()[train], n)
    return draft


# -- files -----------------------------------------------------------------------------------------


def _roles(given: Given, notes: list[str]) -> dict[str, Role]:
    """What each file is for: as said, else by its name."""
    roles: dict[str, Role] = {}
    named: dict[Role, Sequence[str]] = {
        "training": given.paths,
        "validation": given.validation,
        "test": given.test,
    }
    for role, paths in named.items():
        for path in paths_of(list(paths), given.reader, "init") if paths else ():
            roles[path] = role
    if len(roles) > 1 and not given.validation and not given.test:
        for path in roles:
            words = set(re.split(r"[^a-z]+", Path(path).stem.lower()))
            if words & {"test", "testing"}:
                roles[path] = "test"
            elif words & {"val", "valid", "validation"}:
                roles[path] = "validation"
        by_name = [path for path, role in roles.items() if role != "training"]
        if len(by_name) == len(roles):
            roles = dict.fromkeys(roles, "training")
        elif by_name:
            notes += [f"'{path}' is for {roles[path]}, by its name" for path in by_name]
    if "training" not in roles.values():
        raise OptionsError(
            "init: no file is left to train on; name one beside those of --validation and --test"
        )
    return roles


def _parts(
    roles: dict[str, Role], opened: dict[str, DataFile], keys: dict[str, str], notes: list[str]
) -> list[Part]:
    """Files as sections: together where they have the same keys and are read frame by frame."""
    parts: list[Part] = []
    for path, role in roles.items():
        file = opened[path]
        found = keys_of(file.keys, file.resembling("forces"), file.resembling("stress"), keys)
        unknown = [f"{what}={key}" for what, key in keys.items() if key not in file.keys]
        if unknown:
            raise OptionsError(
                f"init: '{path}' has nothing called so (--key {', '.join(unknown)}); it has "
                f"{', '.join(sorted(file.keys)) or 'no values'}"
            )
        energies = [
            k
            for k in sorted(file.keys)
            if ENERGY.search(k) and k != found.get("energy") and k not in SAME_ENERGY
        ]
        if energies and "energy" in found:
            text = f"there is {', '.join(energies)} too; --key energy=... takes another"
            notes += [text] if text not in notes else []
        gradients = [key for key in file.resembling("forces") if "force" not in key.lower()]
        if "energy" in found and "forces" not in found and gradients:
            notes.append(
                f"'{path}' has {', '.join(gradients)}, which may be a gradient: forces are minus the gradient, write "
                "them to the file with that sign"
            )
        stated = file.stated_unit(found["energy"]) if "energy" in found else ""
        length = next(iter(file.length_units().values()), "")
        part = Part(role, [path], found, stated, length)
        before = next((p for p in parts if _joins(p, part, opened)), None)
        if before is None:
            parts.append(part)
        else:
            before.paths.append(path)
    return parts


def _joins(a: Part, b: Part, opened: dict[str, DataFile]) -> bool:
    """Whether two parts are one list of files."""
    plain = all(type(opened[path]) is FramesFile for path in (*a.paths, *b.paths))
    same = (a.role, a.keys, a.stated, a.length_unit) == (b.role, b.keys, b.stated, b.length_unit)
    return plain and same


def _by_role(looked: Looked, roles: dict[str, Role]) -> None:
    """Sets instead of files, where files are for several."""
    if len(set(roles.values())) == 1:
        looked.sets, looked.member = ["training"], np.zeros_like(looked.member)
        return
    present = [role for role in ROLES if role in roles.values()]
    of = np.array([present.index(roles[name]) for name in looked.sets])
    looked.member, looked.sets, looked.options = of[looked.member], list(present), True


def _check_elements(looked: Looked) -> None:
    """Raise DataError for elements that are not in the training set, as a training would."""
    store, member = looked.store, looked.member[looked.store.structure.numpy()]
    types = store.types.numpy()
    known = types[member == looked.sets.index("training")]
    for k, name in enumerate(looked.sets):
        new = sorted(set(types[member == k].tolist()) - set(known.tolist()))
        if new:
            rows = np.flatnonzero((member == k) & np.isin(types, new))
            where = looked.named(int(store.structure[int(rows[0])]))
            raise DataError(
                f"init: {symbols(new)} (in {where}, which is for {name}) is in no structure to train on, and a model "
                "cannot predict elements it never saw: train on such structures too, or leave these out"
            )


def _missing(part: Part, files: Sequence[DataFile]) -> None:
    """How many structures lack what others have."""
    for what, key in part.keys.items():
        lacking = 0
        for file in files:
            if type(file) is FramesFile:
                lacking += sum(frame.find(key) is None for frame in file.frames)
        if lacking:
            part.missing[what] = lacking


def _values(files: Sequence[DataFile], parts: Sequence[Part]) -> Values:
    taken = {key for part in parts for key in part.keys.values()}
    most = LOOKED_AT // len(files) + 1
    frames = [
        file.frames[k]
        for file in files
        for k in np.unique(np.linspace(0, len(file.frames) - 1, most).astype(int)).tolist()
    ]
    return values_of(frames, taken)


# -- targets and sets ------------------------------------------------------------------------------


def _target(
    values: Values, ask: Ask, paths: Sequence[str], known: Sequence[str], forces: bool
) -> Value:
    """What is learnt where there is no energy."""
    if not values.labels and forces:
        raise OptionsError(
            f"init: {', '.join(paths)} has forces but no energy, which a potential is learnt from: name one with --key "
            "energy=KEY, or write it to the file"
        )
    if not values.labels:
        raise OptionsError(
            f"init: in {', '.join(paths)} is no energy, and nothing else that is known to be a label (there is: "
            f"{', '.join(known) or 'nothing'}); name an energy with --key energy=KEY, put labels into the file, or "
            "write options by hand"
        )
    first = values.labels[0]
    if len(values.labels) == 1:
        return first
    names = [value.key for value in values.labels]
    answer = ask("There is no energy. What is to be learnt?", first.key, names)
    return values.labels[names.index(answer)]


def _split(draft: Draft, looked: Looked, values: Values, n: int, ask: Ask) -> None:
    """Sets that do not leak, of the files that are to be trained on."""
    given = {part.role for part in draft.parts}
    wanted = [f"{role}_set" for role in ROLES[1:] if role not in given]
    if not wanted:
        return
    if n < 10:
        count = 1 if n > len(wanted) + 1 else 0
        few = "one structure is too little" if n == 1 else f"{n} structures are too few"
        why = f"{few} to judge a model by: " + (
            "errors on one say little"
            if count
            else "it is not validated, and the last one is taken"
        )
        for name in wanted if count else ["validation_set"]:
            draft.sets[name] = Choice(count, why)
        return
    fraction = 0.1 if n <= 10_000 else 0.05
    ways = _ways(looked, values, n)
    plural = "validation and test structures" if len(wanted) > 1 else "held-out structures"
    best = next(iter(ways))
    answer = best
    if len(ways) > 1:
        answer = ask(f"How are {plural} drawn? ({best}: {ways[best][1]})", best, list(ways))
    more, why = ways[answer]
    for name in wanted:
        value: Any = fraction if answer == "random" else {"fraction": fraction, **more}
        draft.sets[name] = Choice(value, why if name == wanted[0] else "")


def _ways(looked: Looked, values: Values, n: int) -> dict[str, tuple[dict[str, Any], str]]:
    """Ways to draw structures, the best first, with what the options say of them and why."""
    ways: dict[str, tuple[dict[str, Any], str]] = {}
    train = looked.member == looked.sets.index("training")
    runs = [run for run in alike.trajectories(looked) if train[run.rows].any()]
    inside = sum(len(run.rows) for run in runs)
    part = inside / max(1, int(train.sum()))
    groups = {
        key: found for key, found in values.groups.items() if found[0] >= 10 and found[1] <= 0.25
    }
    key = min(groups, key=lambda k: groups[k][0], default="")
    if key:
        count, _ = groups[key]
        ways[f"group {key}"] = (
            {"by": "group", "key": key},
            f"structures of one '{key}' ({count} of them) stay together, so that errors are those on new ones",
        )
    if part > 0.5:
        lag = int(np.median([alike.close_in_time(looked, run)[1] for run in runs]))
        gap = min(lag, n // 40)
        short = f"; {lag} would be better, but leaves too few" if gap < lag else ""
        ways["block"] = (
            {"by": "block", "gap": gap} if gap else {"by": "block"},
            f"{100 * part:.0f} % of the structures are frames of trajectories, apart after about {lag} frames{short}: "
            "a random split would test on what is all but trained on",
        )
    why = "structures are drawn at random"
    if 0 < part <= 0.5:
        why += (
            f"; {100 * part:.0f} % are frames of trajectories, which a random split takes apart: "
            "{fraction: 0.1, by: block} keeps them together"
        )
    ways["random"] = ({}, why)
    return ways


# -- the model -------------------------------------------------------------------------------------


def installed() -> dict[str, Architecture]:
    """Architectures that can be opened."""
    found = {}
    for one in catalog.architectures():
        try:
            found[one.name] = open_architecture(one.name)
        except AtomtrainError:
            continue
    return found


def _architecture(draft: Draft, looked: Looked, n: int, given: str, ask: Ask) -> Choice:
    """As the README's 'Which architecture?' says, of those that are installed."""
    if given:
        return Choice(open_architecture(given).info.name, "as given")
    there = installed()
    elements = len(looked.store.elements)
    kind = "scalar"
    if draft.target is not None:
        kind = (
            "cartesian"
            if "cartesian" in draft.target.type
            else "classes"
            if draft.target.classes
            else "scalar"
        )
    ways: dict[str, str] = {}
    if draft.energy and elements <= FEW_ELEMENTS:
        ways["linear"] = "an energy of few elements: fitted within minutes, with its uncertainty"
    many = elements > MANY_ELEMENTS and n < LITTLE_DATA
    soap = (
        "many elements with little data" if many else "as in metatrain; long-range electrostatics"
    )
    ace = (
        "the more accurate one for "
        + ("energies" if draft.energy else "what is no energy")
        + ", and quick in dynamics"
    )
    ways |= {"soap-bpnn": soap, "ace": ace} if many else {"ace": ace, "soap-bpnn": soap}
    ways = {name: why for name, why in ways.items() if name in there}
    if not ways:
        suits = [
            name
            for name, one in there.items()
            if one.info.name != "classifier"
            and (kind in one.info.target_kinds or kind == "classes")
        ]
        ways = {name: there[name].info.summary for name in sorted(suits)}
    if not ways:
        raise OptionsError(
            "init: no architecture is installed that learns this; pip install atomtrain-ace (or atomtrain-soap-bpnn)"
        )
    best = next(iter(ways))
    answer = best
    if len(ways) > 1:
        answer = ask(f"Which architecture? ({best}: {ways[best]})", best, list(ways))
    others = "; ".join(f"{name} ({why})" for name, why in ways.items() if name != answer)
    return Choice(answer, ways[answer] + (f". Or: {others}" if others else ""))


def _training(draft: Draft, n_atoms: np.ndarray, n: int) -> None:
    """Size of batches and number of epochs, where the trainer has such."""
    hypers = open_architecture(str(draft.architecture.value)).trainer_hypers_class()
    if not issubclass(hypers, TrainerHypers):
        return
    mean, largest = float(n_atoms.mean()), int(n_atoms.max())
    size = int(2 ** np.clip(np.round(np.log2(ATOMS_OF_BATCH / mean)), 0, 6))
    size = max(1, min(size, n // 10))
    if largest > UNEVEN * mean:
        atoms = max(largest, round(size * mean))
        draft.training["max_atoms_per_batch"] = Choice(
            atoms,
            f"structures have {int(n_atoms.min())} to {largest} atoms: batches by atoms take equally long",
        )
    else:
        draft.training["batch_size"] = Choice(size, f"structures of about {mean:.0f} atoms")
    epochs = int(np.clip(STEPS * size / n, 20, 600))
    epochs = round(epochs, -1) if epochs > 50 else epochs
    draft.training["num_epochs"] = Choice(
        epochs, "enough for a first model; atomtrain train ... --dry-run says how long it takes"
    )


def of_checks(findings: Sequence[Finding], *checks: str) -> list[Finding]:
    """Those findings that are notable and of these checks."""
    return [f for f in findings if f.severity != "note" and f.check.startswith(checks)]
