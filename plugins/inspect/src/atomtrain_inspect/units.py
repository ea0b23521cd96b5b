"""Units of length and energy for a first options file, and how sure they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from atomtrain.data.readers.base import DataFile
from atomtrain.errors import AtomtrainError, DataError, OptionsError
from atomtrain.sections.names import symbols
from atomtrain.targets.units import conversion, same_unit
from atomtrain_inspect.audit import energies_of
from atomtrain_inspect.choices import Ask, Choice, Part
from atomtrain_inspect.energies import unit_of_totals
from atomtrain_inspect.environments import environments
from atomtrain_inspect.sets import Looked

NOT_KNOWN = "not known"


def length_unit(parts: Sequence[Part], opened: dict[str, DataFile], given: str) -> Choice:
    stated = {part.length_unit for part in parts}
    known = _told(stated, given, "--length-unit", "the files are in several units of length")
    if known is not None:
        return known
    usual, _ = usual_units(opened)
    if usual:
        return Choice(usual, f"not certain: the format has no units, {usual} is usual")
    return Choice("angstrom", "")


def _told(stated: set[str], given: str, option: str, several: str) -> Choice | None:
    """A unit that the files state (empty text: they do not) or that is ``given``; DataError where files differ."""
    units = sorted(stated - {""})
    if len(units) > 1:
        raise DataError(f"init: {several} ({', '.join(units)}): convert one")
    if units:
        return _stated(units[0], given, option)
    return Choice(given, "as given") if given else None


def _stated(unit: str, given: str, option: str) -> Choice:
    """A unit that files say, which is to be that which is given."""
    if given and not same_unit(unit, given):
        raise OptionsError(
            f"init: {option} is {given}, but the file says {unit}: leave the option out, or correct the file"
        )
    return Choice(unit, "the file says so")


def check_unit(unit: str, of: str, what: str) -> None:
    """Raise OptionsError for what is no unit of the kind of ``of``."""
    try:
        conversion(unit, of)
    except (AtomtrainError, ValueError) as error:
        raise OptionsError(f"init: {what} '{unit}' cannot be used: {error}") from None


def usual_units(opened: dict[str, DataFile]) -> tuple[str, str]:
    """Units of length and energy that are usual where a format has none; empty: nobody knows."""
    for file in opened.values():
        length, _, energy = (file.account.usual_units if file.account else "").partition(" and ")
        if energy:
            return length, energy
    return "", ""


def believed(length: Choice, looked: Looked, ask: Ask, given: bool) -> Choice:
    """Say how long the shortest distances are, and ask where they are too long or short for angstrom."""
    from ase.data import covalent_radii

    shortest = environments(looked.store, str(length.value)).shortest
    if not shortest:
        return length
    parts = [
        one.distance / (covalent_radii[one.first] + covalent_radii[one.second]) for one in shortest
    ]
    least = shortest[int(np.argmin(parts))]
    said = f"the shortest {symbols([least.first])}-{symbols([least.second])} distance is {least.distance:.3g} A"
    ratio = min(parts)
    if given or length.why or 0.4 < ratio < 1.35:
        return Choice(length.value, f"{length.why}; {said}" if length.why else said)
    guess = "bohr" if 1.35 <= ratio < 2.4 else "nm" if ratio < 0.2 else str(length.value)
    answer = ask(
        f"Unit of length? In angstrom {said}, {ratio:.2g} times what the atoms' radii say",
        str(length.value),
        [],
    )
    why = f"NOT CERTAIN: {said}, {ratio:.2g} times what the atoms' radii say; is it {guess}?"
    return Choice(answer, why if answer == length.value else "as answered")


def energy_unit(looked: Looked, parts: Sequence[Part], given: str, usual: str, ask: Ask) -> Choice:
    """The unit of energies, and how sure that is."""
    stated = {part.stated for part in parts if "energy" in part.keys}
    known = _told(stated, given, "--unit", "the files say different units of energy")
    if known is not None:
        return known
    name = next(iter(looked.targets))
    energies, elements, counts = energies_of(looked, name)
    guess = unit_of_totals(energies, counts, elements)
    if guess:
        rank = np.linalg.matrix_rank(counts[np.isfinite(energies)])
        if rank > 1:
            return Choice(
                guess, "certain: energies of all electrons have this size in no other unit"
            )
        why = "likely: energies of all electrons have this size, but one composition may have it by chance"
        return _asked(guess, why, ask)
    if usual:
        return _asked(usual, f"not certain: the format has no units, {usual} is usual", ask)
    forces = looked.store.labels.get(f"{name}:forces")
    if forces is not None and bool(forces.there.any()):
        size = float(np.sqrt(np.mean(forces.values.numpy()[forces.there.numpy()] ** 2)))
        likely = "eV" if 0.1 < size < 6 else "kcal/mol" if 8 < size < 150 else ""
        if likely and same_unit(looked.length_unit, "angstrom"):
            why = f"likely, not certain: forces of {size:.2g} in the mean are usual in {likely}/angstrom"
            return _asked(likely, f"{why}; correct it if need be", ask)
    return _asked(
        "",
        "the data do not tell it. Say it: without a unit engines cannot convert predictions",
        ask,
    )


def _asked(unit: str, why: str, ask: Ask) -> Choice:
    answer = ask(f"Unit of the energies? ({why})", unit or NOT_KNOWN, [])
    if answer in ("", NOT_KNOWN):
        return Choice("", why)
    check_unit(answer, "eV", "the unit of energies")
    return Choice(answer, why if unit and same_unit(answer, unit) else "as answered")
