"""What is said of dynamics: numbers as plain data, lines for the log, a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import units
from ase.data import covalent_radii

from atomtrain.errors import OutputError
from atomtrain.files import replacing
from atomtrain.runs.directory import check_writable
from atomtrain.sections.names import symbols
from atomtrain_dynamics.engine import Ran, Run
from atomtrain_dynamics.settings import usual_step
from atomtrain_dynamics.structures import BIN, Kind, Reference, Seen, kind_name, pair_name

BLOCKS = 10
"""of a run, whose means the drift is fitted to: steps are not independent of one another"""
FEWEST_STEPS = 5 * BLOCKS
SHOWN_PAIRS, SHOWN_RUNS, SHOWN_POINTS = 6, 10, 100


@dataclass(frozen=True)
class Mean:
    """A mean and its standard error."""

    value: float
    error: float

    @classmethod
    def of(cls, values: Sequence[float], errors: Sequence[float] = ()) -> Mean:
        """Of some values; their error is what they scatter, or what they say of themselves if that is more."""
        n = len(values)
        scatter = float(np.std(values, ddof=1) / np.sqrt(n)) if n > 1 else 0.0
        own = float(np.sqrt(np.sum(np.square(errors))) / n) if len(errors) else 0.0
        return cls(float(np.mean(values)), max(scatter, own))


def drift(run: Run, step: float) -> tuple[Mean, float]:
    """The slope of a run's total energy, meV/atom/ps, and how far energies stray from that line, meV/atom."""
    energies = 1000 * (np.array(run.energies) - run.energies[0]) / len(run.atoms)
    times = step / 1000 * np.arange(len(energies))
    slope, offset = np.polyfit(times, energies, 1)
    rest = energies - slope * times - offset
    length = len(energies) // BLOCKS
    means = [part[: BLOCKS * length].reshape(BLOCKS, length).mean(1) for part in (times, energies)]
    fitted, covariance = np.polyfit(means[0], means[1], 1, cov=True)
    return Mean(float(fitted[0]), float(np.sqrt(covariance[0, 0]))), float(rest.std())


def _smooth(values: np.ndarray) -> np.ndarray:
    """Means over blocks: a drift is seen, the vibrations of every step are not."""
    length = max(1, len(values) // SHOWN_POINTS)
    whole = len(values) // length * length
    smoothed: np.ndarray = values[:whole].reshape(-1, length).mean(1)
    return smoothed


def check_picture(path: Path) -> None:
    """Raise OutputError unless a picture can be written there: long before there is one."""
    from matplotlib.figure import Figure

    known = sorted(Figure().canvas.get_supported_filetypes())
    if path.suffix.lower().removeprefix(".") not in known:
        raise OutputError(
            f"'{path}' is no name of a picture: give one that ends in .png or .pdf (there are: {', '.join(known)})"
        )
    check_writable(path)


class Result:
    """What came out, beside what the data say."""

    def __init__(self, ran: Ran, seen: Seen, references: dict[Kind, Reference], model: str) -> None:
        self.ran, self.seen, self.references, self.model = ran, seen, references, model
        self.nve = ran.settings.ensemble == "nve"
        self.held = [run for run in ran.runs if not run.ended]
        self.long = [run for run in ran.runs if len(run.energies) >= FEWEST_STEPS]
        self.whole = ran.settings.settle + ran.settings.time

    def _drift(self) -> tuple[Mean, float] | None:
        """Of the runs that held: one that broke has no energy to speak of."""
        found = [drift(run, self.ran.step) for run in self.long if not run.ended]
        if not self.nve or not found:
            return None
        slopes = Mean.of([one.value for one, _ in found], [one.error for one, _ in found])
        return slopes, float(np.mean([stray for _, stray in found]))

    def _temperature(self) -> Mean | None:
        if not self.long:
            return None
        # a run at constant energy keeps the temperature that its energy happens to give
        own = [self.ran.settings.temperature / np.sqrt(run.freedom.sum()) for run in self.long]
        return Mean.of([float(np.mean(run.temperatures)) for run in self.long], own)

    def _by_element(self) -> dict[str, float]:
        """The temperature of each element, K: all the same where energy is shared."""
        energy, freedom = np.zeros(len(covalent_radii)), np.zeros(len(covalent_radii))
        for run in self.long:
            np.add.at(energy, run.atoms.numbers, run.kinetic / len(run.energies))
            np.add.at(freedom, run.atoms.numbers, run.freedom)
        there = np.flatnonzero(freedom > 1e-6)
        return {symbols([int(z)]): float(2 * energy[z] / (units.kB * freedom[z])) for z in there}

    def _distances(self) -> dict[str, dict[str, Any]]:
        """How far distributions of distances are from the data's, by kind of structure and pair of elements."""
        found = {}
        for kind, distribution in self.ran.distributions.items():
            reference = self.references[kind]
            data = reference.whole
            found[kind_name(kind)] = {
                "difference": data.distance(distribution),
                "between_halves_of_the_data": reference.own,
                "structures_of_the_data": data.frames,
                "pairs": {
                    pair_name(pair): data.difference(distribution, pair) for pair in data.sums
                },
            }
        return found

    def _closest(self) -> dict[str, dict[str, float]]:
        found = {}
        for a, b in np.argwhere(np.isfinite(self.ran.closest)).tolist():
            data = float(self.seen.closest[a, b])
            one = {"dynamics_A": float(self.ran.closest[a, b])}
            found[pair_name((a, b))] = {**one, **({"data_A": data} if np.isfinite(data) else {})}
        return found

    def values(self) -> dict[str, Any]:
        """Everything as plain data, with units in the names."""
        settings = self.ran.settings
        found: dict[str, Any] = {
            "temperature_set_K": settings.temperature,
            "time_ps": settings.time,
            "settle_ps": settings.settle,
            "timestep_fs": self.ran.step,
            "ensemble": settings.ensemble,
            "seed": settings.seed or 0,
            "runs_that_held": len(self.held),
            "runs": [self._run(run) for run in self.ran.runs],
        }
        energy, temperature = self._drift(), self._temperature()
        if energy is not None:
            slope, stray = energy
            found |= {
                "drift_meV_per_atom_per_ps": slope.value,
                "drift_error_meV_per_atom_per_ps": slope.error,
                "fluctuation_meV_per_atom": stray,
            }
        if temperature is not None:
            found |= {
                "temperature_K": temperature.value,
                "temperature_error_K": temperature.error,
                "temperature_of_elements_K": self._by_element(),
            }
        return {**found, "distances": self._distances(), "closest": self._closest()}

    def _run(self, run: Run) -> dict[str, Any]:
        found: dict[str, Any] = {
            "start": run.start.name,
            "file": run.start.file,
            "frame": run.start.frame,
            "lasted_ps": round(run.lasted, 6),
            "ended": run.ended or None,
        }
        if run in self.long:
            found["temperature_K"] = float(np.mean(run.temperatures))
            if self.nve and not run.ended:
                slope, found["fluctuation_meV_per_atom"] = drift(run, self.ran.step)
                found["drift_meV_per_atom_per_ps"] = slope.value
        return found

    def lines(self) -> list[str]:
        """The same for people, the verdict first."""
        settings, step = self.ran.settings, self.ran.step
        n, held = len(self.ran.runs), len(self.held)
        how = "constant energy" if self.nve else "Langevin"
        verdict = "all held" if held == n else f"{n - held} of {n} did not hold"
        found = [
            f"dynamics: {n} run{'s' if n > 1 else ''} of {settings.time:g} ps, {how}, "
            f"{settings.temperature:g} K, {step:g} fs a step: {verdict}"
        ]
        ended = [run for run in self.ran.runs if run.ended]
        for run in ended[:SHOWN_RUNS]:
            when = " while it settled" if run.lasted <= settings.settle + 1e-9 else ""
            found.append(f"  {run.start.name}: after {run.lasted:.3g} ps{when}, {run.ended}")
        if len(ended) > SHOWN_RUNS:
            found.append(f"  and {len(ended) - SHOWN_RUNS} more")
        lightest = min(run.atoms.get_masses().min() for run in self.ran.runs)
        if step > 2 * usual_step(lightest):
            found.append(
                f"  {step:g} fs are long for the lightest atoms here: {usual_step(lightest):g} fs are usual, and a "
                "drift or a break may be the step's fault"
            )
        energy, temperature = self._drift(), self._temperature()
        if energy is not None:
            slope, stray = energy
            found.append(
                f"  energy drifts by {slope.value:+.2g} ± {slope.error:.1g} meV/atom/ps and strays by {stray:.2g} "
                "meV/atom"
            )
        if temperature is not None:
            found.append(f"  temperature {temperature.value:.0f} ± {temperature.error:.0f} K")
        if temperature is None and self.held:
            found.append(f"  fewer than {FEWEST_STEPS} steps: too few for a drift or a temperature")
        found += [self._told(name, one) for name, one in self._distances().items()]
        if short := self._shorter():
            found.append(f"  closer than in the data: {short}")
        return found

    @staticmethod
    def _told(name: str, one: dict[str, Any]) -> str:
        worst = max(one["pairs"], key=lambda pair: one["pairs"][pair])
        own = one["between_halves_of_the_data"]
        than = (
            "; the data have but one" if own is None else f"; {own:.2f} between halves of the data"
        )
        return (
            f"  distances of {name} differ from the data's by {one['difference']:.2f} of 1 (most of all {worst}, "
            f"{one['pairs'][worst]:.2f}{than})"
        )

    def _shorter(self) -> str:
        """Distances that are shorter than any in the data: no failure, but nothing the model has seen."""
        shorter = {
            pair: one
            for pair, one in self._closest().items()
            if "data_A" in one and one["dynamics_A"] < one["data_A"]
        }
        worst = sorted(
            shorter, key=lambda pair: shorter[pair]["dynamics_A"] - shorter[pair]["data_A"]
        )
        told = [
            f"{pair} {shorter[pair]['dynamics_A']:.2f} A ({shorter[pair]['data_A']:.2f})"
            for pair in worst[:SHOWN_PAIRS]
        ]
        return ", ".join(told) + (", ..." if len(worst) > SHOWN_PAIRS else "")

    def picture(self, path: Path) -> Path:
        """Total energy and temperature by time, and distances beside the data's, into ``path``."""
        from matplotlib.figure import Figure

        kinds = list(self.ran.distributions)[:2]
        figure = Figure(figsize=(4.2 * (2 + len(kinds)), 3.6), layout="constrained")
        energy, temperature, *others = figure.subplots(1, 2 + len(kinds), squeeze=False)[0]
        for run in self.long:
            values = 1000 * (np.array(run.energies) - np.mean(run.energies)) / len(run.atoms)
            times = self.ran.settings.settle + self.ran.step / 1000 * np.arange(len(values))
            name = run.start.name.replace("structure ", "") + (" (ended)" if run.ended else "")
            style = {"linewidth": 0.8, "label": name, "linestyle": ":" if run.ended else "-"}
            energy.plot(_smooth(times), _smooth(values), **style)
            temperature.plot(_smooth(times), _smooth(np.array(run.temperatures)), **style)
        energy.set(xlabel="time, ps", ylabel="meV/atom", title="total energy, smoothed")
        temperature.set(xlabel="time, ps", ylabel="temperature, K", title="temperature, smoothed")
        temperature.axhline(self.ran.settings.temperature, color="grey", linewidth=0.8)
        if self.long:
            energy.legend(fontsize="x-small")
        for axes, kind in zip(others, kinds, strict=True):
            self._draw(axes, kind)
        figure.suptitle(f"{self.model}: {len(self.held)} of {len(self.ran.runs)} runs held")
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=120)
        return path

    def _draw(self, axes: Any, kind: Kind) -> None:
        data, found = self.references[kind].whole, self.ran.distributions[kind]
        periodic = kind[1]
        pairs = sorted(data.sums, key=lambda pair: -data.weights[pair])[:SHOWN_PAIRS]
        apart = max((float(data.of(pair).max(initial=0)) for pair in pairs), default=1.0)
        for n, pair in enumerate(pairs):
            for distribution, style in ((data, {"alpha": 0.35}), (found, {})):
                values = distribution.of(pair)
                radii = BIN * (np.arange(len(values)) + 0.5)
                base = -n * apart
                if style:
                    axes.fill_between(
                        radii, base, values + base, color=f"C{n}", linewidth=0, **style
                    )
                else:
                    axes.plot(
                        radii, values + base, color=f"C{n}", linewidth=1, label=pair_name(pair)
                    )
        axes.set(xlabel="distance, A", yticks=[], title=f"{kind_name(kind)} (filled: the data)")
        axes.set_ylabel("g(r)" if periodic else "distribution of distances")
        axes.legend(fontsize="x-small")
