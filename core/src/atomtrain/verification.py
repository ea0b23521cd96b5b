"""Whether the file of an exported model does what it should, found by running it as an engine does.

TorchScript specialises a model after its first calls, derivatives included, and what an architecture prepares for
export may be prepared wrongly: a file can be wrong where the trained model is right. So a file is called several
times, on different numbers of structures, with and without gradients, and what comes back is compared with the
trained predictor, with itself, and with differences of its own energy.
"""

from __future__ import annotations

import copy
import logging
import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from metatensor.torch import Labels
from metatomic.torch import AtomisticModel, ModelEvaluationOptions, ModelOutput
from torch import Tensor

from atomtrain.data import BatchSource, StructureStore
from atomtrain.data.distances import ANGSTROM
from atomtrain.data.store import offsets_of
from atomtrain.errors import VerificationError, first_line
from atomtrain.evaluation import gradients_of, systems_of, told
from atomtrain.graph import n_structures, sum_over_structures
from atomtrain.model import Predictor
from atomtrain.model.export import load_model, save_model
from atomtrain.model.export.archive import quiet_torchscript
from atomtrain.model.gradients import forces_and_strain, with_leaves
from atomtrain.targets import DatasetInfo

log = logging.getLogger("atomtrain")

MOST, ATOMS = 3, 200
"""Structures that are tried, and atoms in all of them: more would not find more."""
SAME = {"float32": 1e-4, "float64": 1e-8}
"""How far file and predictor may differ, relative to the size of what is trained, by the precision of the network:
a thousand roundings in float32. Other orders of summation make ten."""
DISPLACED, STRAINED, STEPS = 0.005, 0.001, 4
"""Steps (angstrom along each coordinate, and strain) and how many of them go each way from a structure. 0.02 angstrom
are little against a bond, where a polynomial of degree 5 is exact to 1e-6, and as much as float32 needs: energies that
are rounded by 1e-5 eV leave 5e-4 eV/angstrom of a slope."""
SLOPE = 0.01
"""How far a derivative may be from the slope of the energy, relative to its size: errors are larger, and roundings of
derivatives smaller by a hundred."""
SCATTER = 8.0
"""and how many standard errors of the slope on top, which come from six residuals or more: what rounding alone never
reaches."""
VAGUE = 0.1
"""Slopes whose standard errors allow more than this part of them say nothing."""


@dataclass
class Verification:
    """What was tried of a file, what was found wrong, and what could not be tried (and why)."""

    checked: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)


def save_verified(
    model: AtomisticModel,
    path: Path,
    predictor: Predictor,
    structures: StructureStore | None = None,
    *,
    extensions: Path | str | None = None,
) -> list[str]:
    """Write ``model`` to ``path`` once its file was found to do what ``predictor`` does.

    Until then, and for good if it is wrong, the file is called ``<stem>.unverified.pt``: VerificationError. Gives
    what :func:`atomtrain.model.export.save_model` gives, whose errors it raises as well.
    """
    aside = unverified(path)
    foreign = save_model(model, aside, extensions=extensions)
    found = verify(aside, structures, predictor, extensions=extensions if foreign else None)
    report(found, str(path))
    if found.problems:
        raise VerificationError(
            f"the exported model does not do what was trained: {'; '.join(found.problems)}. It is written as "
            f"'{aside}': do not use it. The checkpoint is right; report this to the authors of the architecture"
        )
    aside.replace(path)
    return foreign


def unverified(path: Path) -> Path:
    """What a file is called that was not, or not yet, found right: ``model.unverified.pt``."""
    return path.with_suffix(f".unverified{path.suffix}")


def report(found: Verification, name: str) -> None:
    """Say in the log what was checked; problems are for whoever called."""
    if found.checked and not found.problems:
        log.info(f"verified: {name} ({'; '.join(found.checked)})")
    for text in found.unchecked:
        log.warning(f"not verified: {text}")


def verify(
    path: Path,
    structures: StructureStore | None = None,
    predictor: Predictor | None = None,
    *,
    length_unit: str | None = None,
    extensions: Path | str | None = None,
) -> Verification:
    """Load the model in ``path`` as an engine does and try it on a few small ``structures`` (None: made-up ones).

    ``predictor``: what it was made of, if that is known; else the file is compared with itself alone.
    ``length_unit``: that of the structures, by default the model's. Raises CheckpointError for a file that
    cannot be opened. Errors of a call are problems of the file.
    """
    model = load_model(path, extensions=extensions)
    devices = model.capabilities().supported_devices
    device = next((d for d in ("cpu", "cuda") if d in devices), None)
    if device is None or (device == "cuda" and not torch.cuda.is_available()):
        return Verification(unchecked=[f"the model runs on {', '.join(devices)} only"])
    model = model.to(device)
    if structures is None or len(structures) == 0:
        structures = made_up(model.capabilities().atomic_types)
    trial = _Trial(model, device, _few(structures), length_unit)
    try:
        trial.calls(predictor)
        trial.atoms()
        trial.slopes()
    except (RuntimeError, ValueError) as error:  # whatever TorchScript stumbles over
        text = str(error).strip().splitlines() or [type(error).__name__]
        trial.found.problems.append(f"a call fails: {text[-1] if len(text) > 1 else text[0]}")
    return trial.found


class _Trial:
    """One model on a few structures."""

    def __init__(
        self, model: AtomisticModel, device: str, store: StructureStore, length_unit: str | None
    ) -> None:
        capabilities = model.capabilities()
        self.model, self.device, self.store = model, device, store
        self.dtype = getattr(torch, capabilities.dtype)
        self.lists = model.requested_neighbor_lists()
        self.found = Verification()
        known = told(model)
        self.outputs = dict(capabilities.outputs.items())
        self.energies = [
            name
            for name in self.outputs
            if (known[name].is_energy if name in known else name.split("/")[0] == "energy")
        ]
        self.pooled = {name for name, target in known.items() if target.pooled}
        unit = length_unit or capabilities.length_unit or "angstrom"
        self.info = DatasetInfo(unit, tuple(capabilities.atomic_types), {})
        self.forces: dict[str, Tensor] = {}
        """by energy and gradient, as the file last gave them for all structures"""

    def run(
        self,
        store: StructureStore,
        part: Tensor,
        outputs: dict[str, ModelOutput],
        *,
        gradients: bool = False,
        selected: Labels | None = None,
    ) -> dict[str, Tensor]:
        """One call: outputs ``[n_samples, n]`` by name, forces and strain derivatives by label key."""
        systems, leaves = systems_of(
            store, part, self.lists, self.info.length_unit, self.dtype, self.device, gradients
        )
        options = ModelEvaluationOptions(self.info.length_unit, outputs, selected)
        with quiet_torchscript():
            maps = self.model(systems, options, check_consistency=True)
        values = {
            name: torch.cat([block.values.flatten(1) for block in maps[name].blocks()], dim=1)
            for name in outputs
        }
        found = {k: v.detach() for k, v in values.items()}
        for name in self.energies if gradients else ():
            if name in values and values[name].requires_grad:
                by_key = gradients_of(values[name], systems, leaves, True)
                found[f"{name}:forces"], found[f"{name}:strain"] = (
                    by_key["forces"],
                    by_key["strain"],
                )
            elif name in values:
                found[f"{name}:forces"] = torch.zeros_like(torch.cat(leaves[: len(part)]))
                found[f"{name}:strain"] = torch.zeros(len(part), 9)
        return {k: v.detach().to("cpu", torch.float64) for k, v in found.items()}

    def calls(self, predictor: Predictor | None) -> None:
        """Several calls of different size, with and without gradients: all give the same, the predictor's."""
        n = len(self.store)
        everyone, first, last = (
            torch.arange(n),
            torch.zeros(1, dtype=torch.int64),
            torch.tensor([n - 1]),
        )
        both = torch.cat([last, first])
        plan = [(first, True)] * 3 + [(everyone, True)] * 3 + [(last, True), (both, False)]
        plan += [(first, False)] * 3 + [
            (everyone, False),
            (both, True),
            (first, True),
            (everyone, True),
        ]
        wanted: dict[str, Tensor] = {}
        sizes: dict[str, Tensor] = {}
        same, whose = SAME["float32"], "those of earlier calls"
        if predictor is not None:
            wanted, sizes, precision = _predicted(predictor, self.store, list(self.outputs))
            same, whose = SAME[precision], "the trained model's"
        worst: dict[str, tuple[float, str]] = {}
        for k, (part, gradients) in enumerate(plan):
            found = self.run(self.store, part, self.outputs, gradients=gradients)
            for key, value in found.items():
                rows = self._rows(key, part, value)
                if key not in wanted:
                    if predictor is not None or len(part) < n:
                        continue  # an output of its own; the first call of all is what others are held against
                    wanted[key] = value
                if key not in sizes:
                    sizes[key] = torch.full_like(wanted[key], float(wanted[key].abs().max()) or 1.0)
                if value.shape != wanted[key][rows].shape:
                    worst[key] = (math.inf, f"{tuple(value.shape)} numbers in call {k + 1}")
                    continue
                off = (value - wanted[key][rows]).abs() / sizes[key][rows]
                relative = float(off.nan_to_num(math.inf).max()) if off.numel() else 0.0
                if relative > max(same, worst.get(key, (0.0, ""))[0]):
                    with_ = "with" if gradients else "without"
                    call = f"call {k + 1}, {len(part)} structure(s), {with_} gradients"
                    worst[key] = (relative, f"relative {relative:.1g} in {call}")
            if len(part) == n and gradients:
                self.forces = {
                    k: v for k, v in found.items() if k.split(":")[-1] in ("forces", "strain")
                }
        for key, (_, text) in worst.items():
            self.found.problems.append(f"'{key}' differs from {whose} ({text})")
        names = ", ".join(self.outputs)
        gradients_too = ", their gradients" if self.energies else ""
        self.found.checked.append(
            f"{names}{gradients_too}: equal {whose} in {len(plan)} calls of 1 to {n} structures"
        )

    def _rows(self, key: str, part: Tensor, value: Tensor) -> Tensor:
        """Which rows of all structures' values those of a ``part`` are."""
        atoms = key.endswith(":forces") and key not in self.outputs
        atoms |= key in self.outputs and self.outputs[key].sample_kind == "atom"
        return self.store.atom_indices(part) if atoms else part

    def atoms(self) -> None:
        """Contributions of atoms sum to the total, and selected atoms get what they get among all."""
        names = [
            name
            for name in self.energies
            if name not in self.pooled and self.outputs[name].sample_kind == "system"
        ]
        if not names:
            return
        store, part = self.store, torch.arange(len(self.store))
        total = {n: self.outputs[n] for n in names}
        each = {n: ModelOutput(unit=o.unit, sample_kind="atom") for n, o in total.items()}
        try:
            by_atom = self.run(store, part, each)
        except (RuntimeError, ValueError) as error:
            self.found.unchecked.append(f"energies of atoms ({first_line(error)[:80]})")
            return
        whole = self.run(store, part, total)
        rows = torch.arange(0, len(store.types), 2)
        numbers = torch.stack(
            [store.structure, torch.arange(len(store.types)) - store.offsets[store.structure]], 1
        )
        chosen = Labels(["system", "atom"], numbers[rows].to(self.device, torch.int32))
        some = self.run(store, part, each, selected=chosen)
        some_total = self.run(store, part, total, selected=chosen)
        for name in names:
            sums = sum_over_structures(by_atom[name], store.structure, len(store))
            some_sums = sum_over_structures(by_atom[name][rows], store.structure[rows], len(store))
            size = float(by_atom[name].abs().max()) * SAME["float32"]
            for what, ours, theirs in (
                ("energies of atoms do not sum to the total", sums, whole[name]),
                (
                    "selected atoms get other energies than among all",
                    by_atom[name][rows],
                    some[name],
                ),
                ("the total of selected atoms is not their sum", some_sums, some_total[name]),
            ):
                if ours.shape != theirs.shape or not bool(((ours - theirs).abs() <= size).all()):
                    self.found.problems.append(f"'{name}': {what}")
        self.found.checked.append("energies of (selected) atoms sum to totals")

    def slopes(self) -> None:
        """Forces and strain derivatives are those of the energy, along random directions.

        The energy is asked for without gradients at :data:`STEPS` equal steps each way and a polynomial of
        degree 5 is fitted to it: its slope is free of curvature, and what it leaves tells how much the energies
        are rounded, in whatever precision the file computes.
        """
        if not self.energies:
            return
        rng = np.random.default_rng(0)
        wrong: dict[str, float] = {}
        vague: set[str] = set()
        decided: set[str] = set()
        outputs = {name: self.outputs[name] for name in self.energies}
        for k in range(len(self.store)):
            one = self.store.select(torch.tensor([k]))
            atoms = slice(int(self.store.offsets[k]), int(self.store.offsets[k + 1]))
            for kind in ("forces", "strain"):
                for _ in range(2):
                    n = 3 * len(one.types) if kind == "forces" else 9
                    way = torch.from_numpy(rng.normal(size=n).reshape(-1, 3))
                    step = DISPLACED if kind == "forces" else STRAINED
                    step /= (
                        ANGSTROM.get(self.info.length_unit.lower(), 1.0)
                        if kind == "forces"
                        else 1.0
                    )
                    moves = torch.arange(-STEPS, STEPS + 1) * step
                    moved = _moved(one, way, moves, kind)
                    energies = self.run(moved, torch.arange(len(moves)), outputs)
                    for name in self.energies:
                        slope, error = _slope(moves.numpy(), energies[name][:, 0].numpy())
                        of = self.forces[f"{name}:{kind}"]
                        given = -of[atoms] if kind == "forces" else of[k].reshape(3, 3)
                        off = abs(float((given * way).sum()) - slope)
                        size = max(
                            float(given.norm()), abs(slope)
                        )  # what the slope is along such a way
                        key = f"{name}:{kind}"
                        if not off <= SLOPE * size + SCATTER * error:
                            wrong[key] = max(wrong.get(key, 0.0), off / max(size, 1e-300))
                        elif SCATTER * error > VAGUE * size and size > 0:
                            vague.add(key)
                        else:
                            decided.add(key)
        words = {"forces": "forces", "strain": "stress"}
        for key, off in wrong.items():
            name, kind = key.rsplit(":", 1)
            self.found.problems.append(
                f"{words[kind]} are not the derivative of '{name}' ({off:.0%} off along a random direction)"
            )
        for key in sorted(vague - decided - set(wrong)):
            name, kind = key.rsplit(":", 1)
            self.found.unchecked.append(
                f"{words[kind]} of '{name}' against its energy, which is rounded too much to tell"
            )
        kinds = [words[k] for k in words if any(key.endswith(f":{k}") for key in decided)]
        if kinds:
            self.found.checked.append(f"{' and '.join(kinds)} are the derivative of the energy")


# -- pieces ----------------------------------------------------------------------------------------


def _predicted(
    predictor: Predictor, store: StructureStore, wanted: list[str]
) -> tuple[dict[str, Tensor], dict[str, Tensor], str]:
    """What the trained ``predictor`` gives for all structures, how large it is, and its precision.

    A size is what differences are divided by, ``[n_samples, 1]``: for totals the scale of the target times the
    number of atoms, since the composition is large and exact; else the largest number there is.
    """
    predictor = copy.deepcopy(predictor).cpu().eval()
    weights = (*predictor.model.parameters(), *predictor.model.buffers())
    first = next((t.dtype for t in weights if t.is_floating_point()), torch.float32)
    dtype = torch.float64 if first == torch.float64 else torch.float32
    predictor.model.to(dtype)
    info = predictor.dataset_info
    source = BatchSource(replace(store, labels={}, extra={}), predictor.model.cutoff, dtype)
    graph = with_leaves(source.batch(torch.arange(len(store))).graph)
    outputs = predictor(graph, wanted)
    values: dict[str, Tensor] = {}
    sizes: dict[str, Tensor] = {}
    of_structures = predictor.model.structure_outputs()
    for name in wanted:
        rows = torch.cat([block.flatten(1) for block in outputs[name]], dim=1)
        target = info.targets.get(name)
        reference = 0.0
        if target is not None:
            reference = float(predictor.affine_of(name).reference.max())
        largest = max(float(rows.detach().abs().max()) if rows.numel() else 0.0, 1e-30)
        summed = target is not None and not (target.per_atom or target.pooled)
        if target is not None and summed:
            rows = sum_over_structures(rows, graph.structure, n_structures(graph))
            per_atom = largest if target.per_volume else reference
            sizes[name] = per_atom * store.n_atoms.to(torch.float64)[:, None]
        else:
            sizes[name] = torch.full((len(rows), 1), max(largest, reference), dtype=torch.float64)
        values[name] = rows.detach().to(torch.float64)
        if (
            target is not None
            and target.is_energy
            and name not in of_structures
            and rows.requires_grad
        ):
            forces, strain = forces_and_strain(
                rows, graph, strain=True, create_graph=False, retain_graph=True
            )
            assert strain is not None
            for kind, gradient in (("forces", forces), ("strain", strain)):
                values[f"{name}:{kind}"] = gradient.detach().to(torch.float64)
                size = max(float(gradient.abs().max()), reference)
                sizes[f"{name}:{kind}"] = torch.full((len(gradient), 1), size, dtype=torch.float64)
    return values, sizes, str(dtype).removeprefix("torch.")


def _few(store: StructureStore) -> StructureStore:
    """A few small structures, of different size where there are such."""
    counts = store.n_atoms
    order = torch.argsort(counts[:1000], stable=True)
    different = torch.tensor(np.sort(np.unique(counts[order].numpy(), return_index=True)[1]))
    ordered = torch.cat([order[different], order]).tolist()
    chosen: list[int] = []
    total = 0
    for k in dict.fromkeys(ordered):
        if not chosen or (len(chosen) < MOST and total + int(counts[k]) <= ATOMS):
            chosen.append(k)
            total += int(counts[k])
    return replace(store.select(torch.tensor(chosen)), labels={}, extra={})


def made_up(atomic_types: list[int]) -> StructureStore:
    """Two molecules and a crystal of these elements: random places 2 angstrom or so from one another."""
    rng = np.random.default_rng(0)
    sizes, pbc = [5, 8, 8], [False, False, True]
    corners = np.array(list(np.ndindex(2, 2, 2)))
    positions = [2.0 * corners[:n] + rng.uniform(-0.2, 0.2, (n, 3)) for n in sizes]
    types = np.concatenate(
        [rng.permutation(np.resize(rng.permutation(atomic_types), n)) for n in sizes]
    )
    cells = [np.eye(3) * 4.2 * periodic for periodic in pbc]
    return StructureStore(
        positions=torch.from_numpy(np.concatenate(positions)),
        types=torch.from_numpy(types.astype(np.int64)),
        cells=torch.from_numpy(np.stack(cells)),
        pbc=torch.tensor(pbc)[:, None].repeat(1, 3),
        offsets=offsets_of(torch.tensor(sizes)),
    )


def _moved(one: StructureStore, way: Tensor, moves: Tensor, kind: str) -> StructureStore:
    """A structure several times: atoms moved along ``way [n_atoms, 3]``, or strained by ``way [3, 3]``."""
    n = len(moves)
    many = one.select(torch.zeros(n, dtype=torch.int64))
    if kind == "forces":
        positions = torch.cat([one.positions + move * way for move in moves])
        return replace(many, positions=positions)
    strains = [torch.eye(3, dtype=torch.float64) + move * way for move in moves]
    return replace(
        many,
        positions=torch.cat([one.positions @ strain for strain in strains]),
        cells=torch.stack([one.cells[0] @ strain for strain in strains]),
    )


def _slope(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope at zero of ``y(x)`` by a polynomial of degree 5, and its standard error."""
    powers = np.vander(x / x.max(), 6, increasing=True)
    fit, _, _, _ = np.linalg.lstsq(powers, y - y.mean(), rcond=None)
    left = y - y.mean() - powers @ fit
    variance = float(left @ left) / (len(x) - 6)
    error = math.sqrt(variance * np.linalg.inv(powers.T @ powers)[1, 1])
    return float(fit[1] / x.max()), float(error / x.max())
