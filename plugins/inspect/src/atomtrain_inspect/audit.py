"""All that is looked at, in order."""

from __future__ import annotations

import numpy as np

from atomtrain.graph import volumes
from atomtrain.sections.names import symbols
from atomtrain.targets import TargetInfo
from atomtrain.targets.units import conversion, same_unit
from atomtrain_inspect import alike, gradients
from atomtrain_inspect.energies import bound, composition, outliers, unit_of_totals
from atomtrain_inspect.environments import environments
from atomtrain_inspect.finding import Finding, Report
from atomtrain_inspect.sets import Looked


def audit(looked: Looked) -> Report:
    """What there is to say of structures and their energies, forces and stress."""
    report = Report()
    report.findings += looked.said
    for line in looked.samples:
        report.fact("structures", f"a sample: {line}")
    _structures(looked, report)
    around = environments(looked.store, looked.length_unit)
    if around.shortest:
        report.fact(
            "shortest distances",
            ", ".join(
                f"{symbols([one.first])}-{symbols([one.second])} {one.distance:.3g} A"
                for one in around.shortest[:12]
            ),
        )
        least = around.shortest[0]
        report.fact("shortest distances", f"the shortest is in {looked.named(least.structure)}")
    _alike(looked, report, around.features)
    if not looked.targets:
        said = "there is none" if looked.options else "none was found (--key energy=KEY names it)"
        report.fact("energy", said)
    for name, info in looked.targets.items():
        _energies(looked, report, name, info)
        gradients.labels(looked, report, name, info)
    report.sort()
    return report


# -- structures ----------------------------------------------------------------------------------


def _structures(looked: Looked, report: Report) -> None:
    store = looked.store
    n = store.n_atoms
    sizes = [f"{int((looked.member == k).sum())} {name}" for k, name in enumerate(looked.sets)]
    report.fact("structures", f"{len(looked)} ({', '.join(sizes[:6])}{', ...' * (len(sizes) > 6)})")
    report.fact(
        "structures",
        f"elements {symbols(store.elements, ' ')}; {_range(int(n.min()), int(n.max()))} atoms; "
        f"{_counted(looked)}",
    )
    directions = store.pbc.sum(1)
    said = [
        f"{int((directions == k).sum())} {what}"
        for k, what in (
            (3, "periodic"),
            (2, "periodic in two directions"),
            (1, "in one"),
            (0, "not periodic"),
        )
        if bool((directions == k).any())
    ]
    report.fact("structures", "; ".join(said))
    if bool((directions == 3).any()):
        masses = _masses()[store.types.numpy()]
        mass = np.add.reduceat(masses, store.offsets.numpy()[:-1])
        volume = volumes(store.cells).numpy() * looked.angstrom**3
        density = (1.66054 * mass / np.maximum(volume, 1e-9))[(directions == 3).numpy()]
        report.fact("structures", f"densities {density.min():.3g} to {density.max():.3g} g/cm^3")


def _counted(looked: Looked) -> str:
    kinds = len(np.unique(looked.composition))
    return "one composition" if kinds == 1 else f"{kinds} compositions"


def _range(low: int, high: int) -> str:
    return str(low) if low == high else f"{low} to {high}"


def _masses() -> np.ndarray:
    from ase.data import atomic_masses

    found: np.ndarray = atomic_masses
    return found


def _alike(looked: Looked, report: Report, features: np.ndarray) -> None:
    report.findings += alike.copies(looked)
    report.findings += alike.near_copies(looked, features)
    apart = []
    for run in alike.trajectories(looked):
        finding, lag = alike.close_in_time(looked, run)
        if finding is not None:
            report.findings.append(finding)
        apart.append(f"'{run.file}': apart after about {lag} frames")
        report.findings += alike.out_of_place(looked, run)
    for line in apart[:6]:
        report.fact("trajectories", line)


# -- energies ------------------------------------------------------------------------------------


def energies_of(looked: Looked, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Energies ``[n]`` (nan where there is none), the ``elements``, and how many atoms of each ``[n, n_elements]``."""
    store = looked.store
    label = store.labels[name]
    energies = np.where(label.there.numpy(), label.values.numpy(), np.nan)[:, 0]
    elements = np.array(store.elements)
    counts = np.zeros((len(store), len(elements)))
    np.add.at(counts, (store.structure.numpy(), np.searchsorted(elements, store.types.numpy())), 1)
    return energies, elements, counts


def _energies(looked: Looked, report: Report, name: str, info: TargetInfo) -> None:
    store = looked.store
    energies, elements, counts = energies_of(looked, name)
    there = np.isfinite(energies)
    unit = f"{info.unit}/atom" if info.unit else "per atom"
    if not there.any():
        report.fact(name, "in no structure")
        return
    found = composition(energies, counts)
    known = found.left[there]
    report.fact(
        name,
        f"in {int(there.sum())} of {len(store)} structures; {np.mean(energies[there] / counts[there].sum(1)):.4g} "
        f"{unit} in the mean; spread after composition {np.sqrt(np.mean(known**2)):.3g} {unit}",
    )
    guess = unit_of_totals(energies, counts, elements)
    if guess:
        # of one composition it may be chance: energies of valence electrons have any size
        certain = found.rank > 1
        agrees = not info.unit or same_unit(info.unit, guess)
        if certain or agrees:
            so = ", so that is their unit" if certain else ""
            report.fact(name, f"as large as energies of all electrons in {guess}{so}")
        if certain and not agrees:
            report.findings.append(
                Finding(
                    "energy-unit",
                    "serious",
                    f"'{name}' of {_first(looked, there)} and others is as large as energies of all electrons are in "
                    f"{guess}, but its unit is said to be {info.unit}: write unit: {guess}, or correct the file",
                )
            )
    else:
        report.fact(name, "not as large as energies of all electrons: they do not tell their unit")
    _atoms(looked, report, name, info, energies, counts, elements, found.rank)
    if found.rank == len(elements):
        fitted = ", ".join(
            f"{symbols([z])} {e:.5g}" for z, e in zip(elements.tolist(), found.atoms, strict=True)
        )
        report.fact(
            name,
            f"energies of atoms by least squares: {fitted}{f' {info.unit}' if info.unit else ''}",
        )
    far = outliers(found.left)
    if len(far):
        report.findings.append(
            looked.finding(
                "energy-outlier",
                "warning",
                far.tolist(),
                f"have '{name}' far from the others, of which nine in ten are within "
                f"{np.quantile(np.abs(known), 0.9):.3g} {unit} of their composition's",
                "make sure that they converged and are in the same unit and reference, or leave them out",
                [f"{found.left[k]:+.4g} {unit}" for k in far[:3]],
            )
        )


def _first(looked: Looked, there: np.ndarray) -> str:
    return looked.named(int(np.flatnonzero(there)[0]))


def _atoms(
    looked: Looked,
    report: Report,
    name: str,
    info: TargetInfo,
    energies: np.ndarray,
    counts: np.ndarray,
    elements: np.ndarray,
    rank: int,
) -> None:
    """Isolated atoms: which elements have one, and whether their energies belong to the others."""
    single = (counts.sum(1) == 1) & np.isfinite(energies)
    # a crystal of one atom is none
    single &= ~looked.store.pbc.any(1).numpy() | _wide(looked)
    alone = np.full(len(elements), np.nan)
    for k in range(len(elements)):
        own = energies[single & (counts[:, k] == 1)]
        if len(own):
            alone[k] = np.median(own)
    has = np.isfinite(alone)
    lacking = symbols(elements[~has].tolist())
    if has.any() and not has.all():
        report.findings.append(
            Finding(
                "isolated-atoms",
                "warning",
                f"there are isolated atoms of {symbols(elements[has].tolist())}, not of {lacking} "
                f"({_first(looked, single)}): dissociation will be wrong for these; add them, computed with the same "
                "settings",
            )
        )
    elif rank < len(elements):
        report.findings.append(
            Finding(
                "composition",
                "note",
                f"{_first(looked, np.isfinite(energies))} and the others, of {_counted(looked)}, "
                f"do not tell the energies of single atoms of {symbols(elements.tolist())} apart "
                f"({rank} of {len(elements)} numbers), and there are no isolated atoms: energies of other compositions "
                "will be meaningless; add isolated atoms, or give atomic_baseline",
            )
        )
    else:
        report.fact(
            name,
            "there are no isolated atoms" if not has.any() else "isolated atoms of all elements",
        )
    if has.any():
        over = bound(energies, counts, alone)[~single]
        over = over[np.isfinite(over)]
        factor = conversion(info.unit or "eV", "eV")
        middle = float(np.median(over)) if len(over) else 0.0
        if middle > 0.02 / factor or middle < -20 / factor:
            how = (
                f"lie {middle:.4g} or more above"
                if middle > 0
                else f"are bound by {-middle:.4g} or more, seen from"
            )
            unit = f" ({info.unit}/atom)" if info.unit else " (per atom)"
            report.findings.append(
                Finding(
                    "isolated-atoms",
                    "warning",
                    f"half of the structures {how} the isolated atoms{unit}, as {_first(looked, single)}: these are of "
                    "another reference; compute them anew",
                )
            )


def _wide(looked: Looked) -> np.ndarray:
    """Whether cells are so wide that an atom is alone in them."""
    edges = looked.store.cells.norm(dim=2).numpy() * looked.angstrom
    return np.where(looked.store.pbc.numpy(), edges, np.inf).min(1) > 8.0
