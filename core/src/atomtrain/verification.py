"""Whether the file of an exported model does what it should, found by running it as an engine does.

TorchScript rewrites a model after its first calls, derivatives included, and what an architecture prepares for export
may be prepared wrongly: a file can be wrong where the trained model is right. So the file is called several times,
on other structures and numbers of structures, and what it gives is held against the trained model (or its own other
calls, where that is not known), and its forces and stress against differences of its own energy.
"""

from __future__ import annotations

import copy
import logging
import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from metatensor.torch import Labels
from metatomic.torch import (
    AtomisticModel,
    ModelEvaluationOptions,
    ModelOutput,
    unit_conversion_factor,
)
from torch import Tensor

from atomtrain.data import BatchSource, StructureStore
from atomtrain.data.store import offsets_of
from atomtrain.errors import VerificationError, first_line
from atomtrain.evaluation import gradients_of, systems_of, told
from atomtrain.graph import sum_over_structures
from atomtrain.model import Predictor
from atomtrain.model.export import load_model, save_model
from atomtrain.model.export.archive import quiet_torchscript
from atomtrain.model.gradients import forces_and_strain, with_leaves

log = logging.getLogger("atomtrain")

ATOMS = 60
"""Larger structures are cut down to so many atoms: more would find no more."""
RATTLED, STRAINED = 0.05, 0.01
"""What structures are moved (angstrom) and strained by, so that no force is zero by symmetry."""
SAME = {torch.float32: 1e-4, torch.float64: 1e-8}
"""How far numbers may be off, as part of their size, by the precision of the network: another order of summation makes
a hundredth of it."""
STEPS = {"forces": 0.005, "strain": 0.001}
"""Steps along a random direction: angstrom in each coordinate, and strain."""
SLOPE = 0.01
"""How far a derivative may be from the slope of the energy, as part of the gradient's norm,"""
SCATTER = 8.0
"""and how many standard errors of the slope, which come from the rounding of energies, on top."""
VAGUE = 0.2
"""Slopes known to no more than this part of the gradient's norm say nothing."""


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
    file = load_model(aside, extensions=extensions if foreign else None)
    found = verify(file, structures, predictor)
    report(found, path)
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


def report(found: Verification, path: Path) -> None:
    """Say in the log what was found right, and what could not be tried; problems are for whoever called."""
    if found.checked and not found.problems:
        log.info(f"verified: {path} {', '.join(found.checked)}")
    for text in found.unchecked:
        log.warning(f"not verified: {text}")


def verify(
    model: AtomisticModel,
    structures: StructureStore | None = None,
    predictor: Predictor | None = None,
    *,
    length_unit: str | None = None,
) -> Verification:
    """Try a ``model``, fresh from its file, on a few small ``structures`` (None, or none: made-up ones).

    ``predictor``: what it was made of, if that is known; else the file is held against itself alone.
    ``length_unit``: that of the structures, by default the model's. Errors of a call are problems of the file.
    """
    devices = model.capabilities().supported_devices
    device = next((d for d in ("cpu", "cuda") if d in devices), None)
    if device is None or (device == "cuda" and not torch.cuda.is_available()):
        return Verification(unchecked=[f"the model runs on {', '.join(devices)} only"])
    found = Verification()
    try:
        file = _File(model, device, length_unit)
        store = _few(structures, file)
        wanted = {}
        if predictor is not None:
            try:
                wanted = _of_predictor(predictor, store, file)
            except Exception as error:  # made-up structures may be none for this architecture
                reason = first_line(error, typed=True)
                return Verification(unchecked=[f"the trained model fails as well: {reason}"])
        _try(file, store, wanted, found)
    except Exception as error:  # of TorchScript, metatomic, libraries: of any type
        lines = str(error).strip().splitlines() or [""]
        found.problems.append(f"a call fails: {type(error).__name__}: {lines[-1].strip()}")
    return found


# -- the file -------------------------------------------------------------------------------------


class _File:
    """An exported model, called as an engine does."""

    def __init__(self, model: AtomisticModel, device: str, length_unit: str | None) -> None:
        capabilities = model.capabilities()
        self.model, self.device = model.to(device), device
        self.dtype: torch.dtype = getattr(torch, capabilities.dtype)
        floats = {t.dtype for t in (*model.parameters(), *model.buffers())} & set(SAME)
        self.precision = (
            torch.float32 if torch.float32 in (floats or {self.dtype}) else torch.float64
        )
        self.types: list[int] = capabilities.atomic_types
        self.length_unit: str = length_unit or capabilities.length_unit or "angstrom"
        self.angstrom: float = unit_conversion_factor("angstrom", self.length_unit)
        self.lists = model.requested_neighbor_lists()
        offered, targets = dict(capabilities.outputs.items()), told(model)
        self.only_energies = bool(targets) and all(t.is_energy for t in targets.values())
        self.outputs: dict[str, ModelOutput] = {}
        self.energies: dict[str, ModelOutput] = {}
        self.of_atoms: dict[str, ModelOutput] = {}  # sums, which are offered atom by atom too
        # metatomic adds older names of what a model offers
        for name in getattr(model, "_model_capabilities_outputs_names", offered):
            unit, kind = offered[name].unit, offered[name].sample_kind
            target = targets.get(name)
            is_energy = target.is_energy if target else name.split("/")[0] == "energy"
            if kind == "atom" and (is_energy or (target and not target.per_atom)):
                self.of_atoms[name] = ModelOutput(unit=unit, sample_kind="atom")
                kind = "system"
            self.outputs[name] = ModelOutput(unit=unit, sample_kind=kind)
            if is_energy:
                self.energies[name] = self.outputs[name]

    def call(
        self,
        store: StructureStore,
        part: Tensor,
        outputs: dict[str, ModelOutput],
        *,
        gradients: bool = False,
        selected: Labels | None = None,
    ) -> dict[str, Tensor]:
        """Each output ``[n_samples, n]``; with ``gradients`` those of energies too, by label key."""
        systems, leaves = systems_of(
            store, part, self.lists, self.length_unit, self.dtype, self.device, gradients
        )
        options = ModelEvaluationOptions(self.length_unit, outputs, selected)
        with quiet_torchscript():
            maps = self.model(systems, options, check_consistency=True)
        found = {
            name: torch.cat([block.values.flatten(1) for block in maps[name].blocks()], dim=1)
            for name in outputs
        }
        for name in self.energies if gradients else ():
            energy = found[name]
            if not energy.requires_grad:  # of atoms without neighbours
                energy = energy + 0.0 * leaves[0].sum()
            by_kind = gradients_of(energy, systems, leaves, True)
            found |= {f"{name}:{kind}": by_kind[kind] for kind in STEPS}
        return {key: v.detach().to("cpu", torch.float64) for key, v in found.items()}


@dataclass(frozen=True)
class _Given:
    """What a call gave for a key of :meth:`_File.call` (or ``<name> of atoms``): some ``rows`` of all samples."""

    key: str
    rows: Tensor
    values: Tensor


def _calls(file: _File, store: StructureStore) -> list[_Given]:
    """All outputs at once, and energies as engines ask for them, until TorchScript has rewritten the model."""
    everyone = torch.arange(len(store))
    first, last = everyone[:1], everyone[-1:]
    calls = [(file.outputs, everyone)]
    if not file.only_energies:
        calls += [(file.outputs, last), (file.outputs, everyone)]
    if file.energies:
        parts = (first, first, first, everyone, everyone, last, first)
        calls += [(file.energies, part) for part in parts]
    given = []
    for outputs, part in calls:
        values = file.call(store, part, outputs, gradients=outputs is file.energies)
        atoms = store.atom_indices(part)
        for key, v in values.items():
            kind = outputs[key].sample_kind if key in outputs else key.split(":")[-1]
            given.append(_Given(key, atoms if kind in ("atom", "forces") else part, v))
    return given


def _atoms(file: _File, store: StructureStore) -> list[_Given]:
    """Sums atom by atom, of all atoms but the first: engines that share structures ask for a selection."""
    if not file.of_atoms:
        return []
    rows = torch.arange(len(store.types))[-max(len(store.types) - 1, 1) :]
    structure, whole = store.structure[rows], torch.arange(1, len(store))
    labels = torch.stack([structure, rows - store.offsets[structure]], 1)
    selected = Labels(["system", "atom"], labels.to(file.device, torch.int32))
    given = []
    values = file.call(store, torch.arange(len(store)), file.of_atoms, selected=selected)
    for name, v in values.items():
        sums = sum_over_structures(v, structure, len(store))
        given += [_Given(f"{name} of atoms", rows, v), _Given(name, whole, sums[whole])]
    return given


# -- what it should give --------------------------------------------------------------------------


@dataclass(frozen=True)
class _Wanted:
    """``values [n_samples, n]`` of all structures, and how far each may be off, ``[n_samples, 1]``."""

    values: Tensor
    allowed: Tensor


def _of_predictor(predictor: Predictor, store: StructureStore, file: _File) -> dict[str, _Wanted]:
    """What the trained model gives, by the keys of :class:`_Given`.

    The size of a number is that of what is trained: of the largest atom's without the composition, which is exact,
    and at least the scale.
    """
    predictor = copy.deepcopy(predictor).cpu().eval()
    model, info = predictor.model, predictor.dataset_info
    floats = {t.dtype for t in (*model.parameters(), *model.buffers())}
    dtype = torch.float64 if torch.float64 in floats else torch.float32
    model.to(dtype)
    same = max(SAME[dtype], SAME[file.precision])
    source = BatchSource(replace(store, labels={}, extra={}), model.cutoff, dtype)
    graph = with_leaves(source.batch(torch.arange(len(store))).graph)
    known = {*info.targets, *model.feature_outputs(), *model.structure_outputs()}
    names = [name for name in file.outputs if name in known]
    wanted: dict[str, _Wanted] = {}

    def want(key: str, values: Tensor, size: Tensor | float) -> None:
        allowed = torch.as_tensor(same * size, dtype=torch.float64)
        wanted[key] = _Wanted(values.detach().double(), allowed.expand(len(values), 1))

    for name, blocks in predictor(graph, names).items():
        rows = torch.cat([block.flatten(1) for block in blocks], dim=1)
        trained, size = rows.detach(), 0.0
        target = info.targets.get(name)
        if target is not None and not (target.per_volume or target.pooled):
            affine = predictor.affine_of(name)
            nothing = [torch.zeros_like(block) for block in blocks]
            composition = affine(nothing, predictor.type_index[graph.types])
            trained = trained - torch.cat([block.flatten(1) for block in composition], dim=1)
            size = float(affine.scale.max())
        size = max(size, float(trained.abs().max()))
        if name in file.of_atoms:
            want(f"{name} of atoms", rows, size)
            sums = sum_over_structures(rows, graph.structure, len(store))
            want(name, sums, size * store.n_atoms[:, None])
        else:
            want(name, rows, size)
        if name in file.energies:
            energy = rows if rows.requires_grad else rows + 0.0 * graph.vectors.sum()
            forces, strain = forces_and_strain(
                energy, graph, strain=True, create_graph=False, retain_graph=True
            )
            assert strain is not None
            for key, gradient in ((f"{name}:forces", forces), (f"{name}:strain", strain)):
                want(key, gradient, max(float(gradient.detach().abs().max()), size / file.angstrom))
    return wanted


def _of_itself(given: list[_Given], file: _File) -> dict[str, _Wanted]:
    """What the last call on all structures gave, where nothing else is known.

    Energies may hold huge compositions: their size is what an angstrom changes, but they are rounded as they are.
    """
    whole: dict[str, Tensor] = {}
    for one in given:
        if len(one.rows) >= len(whole.get(one.key, ())) and not one.key.endswith(" of atoms"):
            whole[one.key] = one.values
    wanted = {}
    for key, values in whole.items():
        name = key.removesuffix(":forces").removesuffix(":strain")
        allowed = SAME[file.precision] * float(values.abs().max())
        if name in file.energies:
            changes = float(whole[f"{name}:forces"].abs().max()) * file.angstrom
            rounding = 8 * torch.finfo(file.dtype).eps * float(whole[name].abs().max())
            allowed = SAME[file.precision] * changes + rounding
            if key.endswith(":forces"):
                allowed /= file.angstrom
        wanted[key] = _Wanted(values, torch.full((len(values), 1), allowed, dtype=torch.float64))
    return wanted


# -- the checks -----------------------------------------------------------------------------------


def _try(
    file: _File, store: StructureStore, trained: dict[str, _Wanted], found: Verification
) -> None:
    """Make all calls, and say what is wrong with what they give."""
    given = [*_calls(file, store), *_atoms(file, store)]
    lines = _Lines(store, file.angstrom)
    energies = lines.energies(file)
    given += [_Given(name, torch.arange(len(store)), e[:, :1]) for name, e in energies.items()]
    own = _of_itself(given, file)
    wanted = own | trained
    wrong: dict[str, float] = {}
    for one in given:
        want = wanted.get(one.key)
        if want is not None:
            off = _off(one.values, want.values[one.rows], want.allowed[one.rows])
            wrong[one.key] = max(wrong.get(one.key, 0.0), off)
    whose = "from the trained model's" if trained else "from call to call"
    found.problems += [f"'{key}' differs {whose} by {off:.2g}" for key, off in wrong.items() if off]
    found.checked.append(f"gives {'what was trained' if trained else 'the same'} in repeated calls")
    for name in energies:
        for kind in STEPS:
            key = f"{name}:{kind}"
            allowed = float(wanted[key].allowed.max())
            lines.compare(name, kind, energies[name], own[key].values, allowed, found)


def _off(values: Tensor, wanted: Tensor, allowed: Tensor) -> float:
    """The largest difference that is not allowed, or 0."""
    if values.shape != wanted.shape:
        return math.inf
    off = (values - wanted).abs().nan_to_num(math.inf)
    return float(torch.where(off > allowed, off, 0.0).max()) if off.numel() else 0.0


class _Lines:
    """Lines in random directions: one for each structure and kind of gradient, five points each.

    The fourth difference of five energies is what they are rounded by, and tells how well their slope is known: a
    file in float32 may round by meV.
    """

    def __init__(self, store: StructureStore, angstrom: float) -> None:
        random = torch.Generator().manual_seed(0)
        self.store = store
        self.steps = {"forces": STEPS["forces"] * angstrom, "strain": STEPS["strain"]}
        self.ways = {
            "forces": torch.randn(len(store.types), 3, generator=random, dtype=torch.float64),
            "strain": torch.randn(3 * len(store), 3, generator=random, dtype=torch.float64),
        }

    def energies(self, file: _File) -> dict[str, Tensor]:
        """Energies by name, ``[n_structures, 9]``: at the structure, and -2, -1, 1, 2 steps along each line."""
        points = []
        for k in range(len(self.store)):
            one = self.store.select(torch.tensor([k]))
            points.append(one)
            for kind, step in self.steps.items():
                way = self.ways[kind][self._rows(kind, k)]
                points += [_moved(one, kind, n * step * way) for n in (-2, -1, 1, 2)]
        many = _joined(points)
        found = file.call(many, torch.arange(len(many)), file.energies) if file.energies else {}
        return {name: energies.reshape(-1, 9) for name, energies in found.items()}

    def compare(
        self,
        name: str,
        kind: str,
        energies: Tensor,
        gradient: Tensor,
        allowed: float,
        found: Verification,
    ) -> None:
        """Hold a ``gradient`` of the energy ``name`` against the slopes; each number may be off as ``allowed``."""
        lines, step = energies[:, 1:].reshape(-1, 2, 4), self.steps[kind]
        fourth = lines @ torch.tensor([1.0, -4, -4, 1]).double() + 6 * energies[:, :1]
        slopes = (
            lines[:, list(STEPS).index(kind)]
            @ torch.tensor([1.0, -8, 8, -1]).double()
            / (12 * step)
        )
        error = SCATTER * math.sqrt(float(fourth.square().mean()) / 70 * 130) / (12 * step)
        gradient = -gradient if kind == "forces" else gradient.reshape(-1, 3)
        worst, known = 0.0, False
        for k, slope in enumerate(slopes.tolist()):
            rows = self._rows(kind, k)
            along, norm = self.ways[kind][rows], float(gradient[rows].norm())
            off = abs(float((gradient[rows] * along).sum()) - slope)
            if not off <= SLOPE * norm + error + allowed * math.sqrt(along.numel()):
                worst = max(worst, off / max(norm, 1e-300))
            known |= error < VAGUE * norm
        what = "the forces are" if kind == "forces" else "the stress is"
        if worst > 0:
            found.problems.append(f"{what} not the derivative of '{name}' ({worst:.0%} off)")
        elif known:
            found.checked.append(f"{what} the derivative of '{name}'")
        elif float(gradient.abs().max()) > 0:
            found.unchecked.append(
                f"whether {what} the derivative of '{name}', which is rounded too much to tell"
            )

    def _rows(self, kind: str, k: int) -> slice:
        if kind == "strain":
            return slice(3 * k, 3 * k + 3)
        return slice(int(self.store.offsets[k]), int(self.store.offsets[k + 1]))


# -- structures -----------------------------------------------------------------------------------


def _few(structures: StructureStore | None, file: _File) -> StructureStore:
    """The largest structure, the smallest, and the largest without an atom: there are always two sizes."""
    if structures is None or len(structures) == 0:
        return _made_up(file.types, file.angstrom)
    order = structures.n_atoms.argsort(stable=True)
    chosen = dict.fromkeys([int(order[-1]), int(order[0])])
    few = [_cut(structures.select(torch.tensor([k])), ATOMS) for k in chosen]
    n = len(few[0].types)
    if n > 1:
        few.append(_cut(few[0], n - 1))
    return _rattled(_joined(few), file.angstrom)


def _cut(one: StructureStore, n: int) -> StructureStore:
    """The ``n`` atoms nearest to the first, with nothing where the others were."""
    near = (one.positions - one.positions[0]).norm(dim=1).argsort(stable=True)[:n].sort().values
    counts = torch.tensor([len(near)])
    return StructureStore(
        one.positions[near], one.types[near], one.cells, one.pbc, offsets_of(counts)
    )


def _made_up(atomic_types: list[int], angstrom: float) -> StructureStore:
    """Two molecules and a crystal of these elements: random places 2 angstrom or so from one another."""
    corners = torch.cartesian_prod(*3 * [torch.arange(2.0, dtype=torch.float64)])
    sizes, periodic = [5, 8, 8], torch.tensor([False, False, True])
    types = torch.tensor(atomic_types).repeat(sum(sizes))[: sum(sizes)]
    store = StructureStore(
        positions=2.0 * angstrom * torch.cat([corners[:n] for n in sizes]),
        types=types,
        cells=4.0 * angstrom * torch.eye(3, dtype=torch.float64) * periodic[:, None, None],
        pbc=periodic[:, None].repeat(1, 3),
        offsets=offsets_of(torch.tensor(sizes)),
    )
    return _rattled(store, angstrom)


def _rattled(store: StructureStore, angstrom: float) -> StructureStore:
    """Atoms moved and structures strained a little."""
    random = torch.Generator().manual_seed(1)
    moves = torch.rand(len(store.types), 3, generator=random, dtype=torch.float64) - 0.5
    strains = torch.rand(len(store), 3, 3, generator=random, dtype=torch.float64) - 0.5
    strains = torch.eye(3, dtype=torch.float64) + 2 * STRAINED * strains
    positions = torch.einsum("ai,aij->aj", store.positions, strains[store.structure])
    moved = positions + 2 * RATTLED * angstrom * moves
    return replace(store, positions=moved, cells=store.cells @ strains)


def _moved(one: StructureStore, kind: str, way: Tensor) -> StructureStore:
    """A structure with its atoms moved by ``way [n_atoms, 3]``, or strained by ``way [3, 3]``."""
    if kind == "forces":
        return replace(one, positions=one.positions + way)
    strain = torch.eye(3, dtype=torch.float64) + way
    return replace(one, positions=one.positions @ strain, cells=one.cells @ strain)


def _joined(stores: list[StructureStore]) -> StructureStore:
    """Structures one after the other, without labels."""
    return StructureStore(
        positions=torch.cat([s.positions for s in stores]),
        types=torch.cat([s.types for s in stores]),
        cells=torch.cat([s.cells for s in stores]),
        pbc=torch.cat([s.pbc for s in stores]),
        offsets=offsets_of(torch.cat([s.n_atoms for s in stores])),
    )
