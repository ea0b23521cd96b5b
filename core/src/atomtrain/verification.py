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
DIRECTIONS = 2
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
    """Say in the log what was checked; problems are for whoever called."""
    if found.checked and not found.problems:
        log.info(f"verified: {path} ({'; '.join(found.checked)})")
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
    file = _File(model, device, length_unit)
    store = _few(structures, file)
    wanted: dict[str, _Wanted] = {}
    if predictor is not None:
        try:
            wanted = _of_predictor(predictor, store, file)
        except Exception as error:  # made-up structures may be none for this architecture
            reason = first_line(error, typed=True)
            return Verification(unchecked=[f"the trained model fails as well: {reason}"])
    found = Verification()
    try:
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
        self.dtype = getattr(torch, capabilities.dtype)
        self.types: list[int] = capabilities.atomic_types
        self.length_unit: str = length_unit or capabilities.length_unit or "angstrom"
        self.angstrom: float = unit_conversion_factor("angstrom", self.length_unit)
        floats = {t.dtype for t in (*model.parameters(), *model.buffers())} & set(SAME)
        self.same = max(SAME[dtype] for dtype in floats or {self.dtype})
        self.lists = model.requested_neighbor_lists()
        offered, targets = dict(capabilities.outputs.items()), told(model)
        self.energies: list[str] = []
        self.outputs: dict[str, ModelOutput] = {}  # what to ask for
        self.of_atoms: dict[str, ModelOutput] = {}  # sums, which are offered atom by atom too
        # metatomic adds older names of what a model offers
        for name in getattr(model, "_model_capabilities_outputs_names", offered):
            target, unit, kind = targets.get(name), offered[name].unit, offered[name].sample_kind
            is_energy = target.is_energy if target else name.split("/")[0] == "energy"
            if is_energy:
                self.energies.append(name)
            if kind == "atom" and (is_energy or target) and not (target and target.per_atom):
                self.of_atoms[f"{name} of atoms"] = ModelOutput(unit=unit, sample_kind="atom")
                kind = "system"
            self.outputs[name] = ModelOutput(unit=unit, sample_kind=kind)

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

    def rows(self, key: str, store: StructureStore, part: Tensor) -> Tensor:
        """Which samples of all structures' are those of the structures ``part``."""
        output = self.outputs.get(key)
        atoms = key.endswith(":forces") if output is None else output.sample_kind == "atom"
        return store.atom_indices(part) if atoms else part


# -- what it should give --------------------------------------------------------------------------


@dataclass(frozen=True)
class _Wanted:
    """``values [n_samples, n]`` of all structures, and how far each may be off, ``[n_samples, 1]``."""

    values: Tensor
    allowed: Tensor


def _of_predictor(predictor: Predictor, store: StructureStore, file: _File) -> dict[str, _Wanted]:
    """What the trained model gives for all structures, by the keys of :meth:`_File.call`.

    What sums are made of has the key ``<name> of atoms``. The size of a number is that of what is trained: of the
    largest atom's without the composition, which is exact, or of the scale.
    """
    predictor = copy.deepcopy(predictor).cpu().eval()
    floats = {p.dtype for p in predictor.model.parameters()}
    dtype = torch.float64 if torch.float64 in floats else torch.float32
    predictor.model.to(dtype)
    model, info = predictor.model, predictor.dataset_info
    source = BatchSource(replace(store, labels={}, extra={}), model.cutoff, dtype)
    graph = with_leaves(source.batch(torch.arange(len(store))).graph)
    known = {*info.targets, *model.feature_outputs(), *model.structure_outputs()}
    names = [name for name in file.outputs if name in known]
    blocks = predictor(graph, names)
    for target in info.targets:
        predictor.affine_of(target).shift.zero_()
    trained = predictor(graph, names)
    wanted: dict[str, _Wanted] = {}

    def want(key: str, values: Tensor, size: Tensor | float) -> None:
        allowed = torch.as_tensor(size, dtype=torch.float64) * max(file.same, SAME[dtype])
        wanted[key] = _Wanted(values.detach().double(), allowed.expand(len(values), 1))

    for name in names:
        rows = torch.cat([block.flatten(1) for block in blocks[name]], dim=1)
        size = max(float(block.detach().abs().max()) for block in trained[name])
        target = info.targets.get(name)
        if target is not None and not target.per_volume:
            size = max(size, float(predictor.affine_of(name).scale.max()))
        if f"{name} of atoms" in file.of_atoms:
            want(f"{name} of atoms", rows, size)
            sums = sum_over_structures(rows, graph.structure, len(store))
            want(name, sums, size * store.n_atoms[:, None])
        else:
            want(name, rows, size)
        if name in file.energies:
            energy = rows if rows.requires_grad else rows + 0.0 * graph.vectors.sum()
            gradients = forces_and_strain(
                energy, graph, strain=True, create_graph=False, retain_graph=True
            )
            for kind, gradient in zip(STEPS, gradients, strict=True):
                assert gradient is not None
                largest = max(float(gradient.detach().abs().max()), size / file.angstrom)
                want(f"{name}:{kind}", gradient, largest)
    return wanted


def _of_itself(given: list[_Given], file: _File) -> dict[str, _Wanted]:
    """The first values for all samples, where nothing else is known.

    Energies may hold huge compositions: their size is what an angstrom changes, but they are rounded as they are.
    """
    whole: dict[str, Tensor] = {}
    for key, rows, values in given:
        if key not in whole or len(values) > len(whole[key]):
            whole[key] = values
    wanted = {}
    for key, values in whole.items():
        allowed = file.same * float(values.abs().max())
        name = key.removesuffix(" of atoms").removesuffix(":forces").removesuffix(":strain")
        if name in file.energies:
            slope = float(whole[f"{name}:forces"].abs().max())
            rounding = 8 * torch.finfo(file.dtype).eps * float(whole[name].abs().max())
            allowed = file.same * slope * file.angstrom + rounding
            if key.endswith(":forces"):
                allowed /= file.angstrom
        wanted[key] = _Wanted(values, torch.full((len(values), 1), allowed, dtype=torch.float64))
    return wanted


# -- the checks -----------------------------------------------------------------------------------

_Given = tuple[str, Tensor, Tensor]
"""A key of :meth:`_File.call`, some of its samples of all structures, and what a call gave for them."""


def _try(
    file: _File, store: StructureStore, wanted: dict[str, _Wanted], found: Verification
) -> None:
    """Make all calls, and say what is wrong with what they give."""
    given = [*_calls(file, store), *_atoms(file, store)]
    lines = _Lines(file, store)
    given += [(name, torch.arange(len(store)), v) for name, v in lines.centers.items()]
    known, wanted = bool(wanted), _of_itself(given, file) | wanted
    wrong: dict[str, float] = {}
    for key, rows, values in given:
        want, off = wanted[key], torch.full((1, 1), math.inf)
        if values.shape == want.values[rows].shape:
            off = (values - want.values[rows]).abs().nan_to_num(math.inf) - want.allowed[rows]
        if off.numel() and float(off.max()) > 0:
            wrong[key] = max(wrong.get(key, 0.0), float(off.max()))
    differs = "differs from the trained model's" if known else "differs from call to call"
    found.problems += [f"'{key}' {differs} by {off:.2g}" for key, off in wrong.items()]
    same = "as trained" if known else "the same"
    found.checked.append(f"{', '.join(file.outputs)} {same} in repeated calls")
    last = {key: values for key, rows, values in given if len(values) == len(wanted[key].values)}
    lines.compare(last, wanted, found)


def _calls(file: _File, store: StructureStore) -> list[_Given]:
    """One structure as often as TorchScript needs to rewrite the model for it, then others, and it again."""
    everyone = torch.arange(len(store))
    first, last = everyone[:1], everyone[-1:]
    given = []
    for part in (first, first, first, everyone, everyone, last, first):
        values = file.call(store, part, file.outputs, gradients=True)
        given += [(key, file.rows(key, store, part), v) for key, v in values.items()]
    return given


def _atoms(file: _File, store: StructureStore) -> list[_Given]:
    """Sums atom by atom, and of some atoms only, which engines ask for that share a structure's among processes."""
    everyone, atoms = torch.arange(len(store)), torch.arange(len(store.types))
    within = atoms - store.offsets[store.structure]
    labels = torch.stack([store.structure, within], 1).to(file.device, torch.int32)
    outputs = {key.removesuffix(" of atoms"): output for key, output in file.of_atoms.items()}
    given = []
    for rows in (atoms, atoms[::2]) if outputs else ():
        chosen = None if rows is atoms else Labels(["system", "atom"], labels[rows])
        for name, values in file.call(store, everyone, outputs, selected=chosen).items():
            given.append((f"{name} of atoms", rows, values))
            if rows is atoms:
                sums = sum_over_structures(values, store.structure, len(store))
                given.append((name, everyone, sums))
    return given


class _Lines:
    """Energies along lines in random directions, and their slopes.

    Of five energies along a line the fourth difference is what they are rounded by, which tells how well the slope is
    known: energies of other models may be rounded by meV.
    """

    def __init__(self, file: _File, store: StructureStore) -> None:
        random = torch.Generator().manual_seed(0)
        self.store = store
        self.steps = {"forces": STEPS["forces"] * file.angstrom, "strain": STEPS["strain"]}
        self.ways: dict[str, list[Tensor]] = {kind: [] for kind in STEPS}
        moved = []
        for k in range(len(store)):
            one = store.select(torch.tensor([k]))
            moved.append(one)
            for kind, step in self.steps.items():
                rows = len(one.types) if kind == "forces" else 3
                ways = torch.randn(DIRECTIONS, rows, 3, generator=random, dtype=torch.float64)
                self.ways[kind].append(ways)
                moved += [_moved(one, kind, n * step * way) for way in ways for n in (-2, -1, 1, 2)]
        outputs = {name: file.outputs[name] for name in file.energies}
        many = _joined(moved)
        found = file.call(many, torch.arange(len(many)), outputs) if outputs else {}
        self.energies = {name: e.reshape(len(store), -1) for name, e in found.items()}
        self.centers = {name: e[:, :1] for name, e in self.energies.items()}

    def compare(
        self, gradients: dict[str, Tensor], wanted: dict[str, _Wanted], found: Verification
    ) -> None:
        """Hold ``gradients``, by label key, against the slopes."""
        sound = set()
        for name, energies in self.energies.items():
            lines = energies[:, 1:].reshape(len(self.store), 2, DIRECTIONS, 4)
            for (kind, step), five in zip(self.steps.items(), lines.unbind(1), strict=True):
                key, what = f"{name}:{kind}", {"forces": "forces", "strain": "stress"}[kind]
                far, near = five[..., 3] - five[..., 0], five[..., 2] - five[..., 1]
                slopes = (8 * near - far) / (12 * step)
                fourth = five @ torch.tensor([1.0, -4, -4, 1]).double() + 6 * energies[:, :1]
                rounding = math.sqrt(float(fourth.square().mean()) / 70)
                error = SCATTER * rounding * math.sqrt(130) / (12 * step)
                allowed = float(wanted[key].allowed.max())
                worst, vague = 0.0, True
                for k, ways in enumerate(self.ways[kind]):
                    rows = self.store.atom_indices(torch.tensor([k])) if kind == "forces" else [k]
                    gradient = gradients[key][rows].reshape(1, -1, 3) * (-1 if kind == "forces" else 1)
                    norm = float(gradient.norm())
                    off = ((gradient * ways).sum((1, 2)) - slopes[k]).abs().nan_to_num(math.inf)
                    limit = SLOPE * norm + error + allowed * math.sqrt(gradient.numel())
                    if float(off.max()) > limit:
                        worst = max(worst, float(off.max()) / max(norm, 1e-300))
                    vague &= error > VAGUE * norm
                if worst > 0:
                    found.problems.append(
                        f"{what} are not the derivative of '{name}' (off by {worst:.0%} along a random direction)"
                    )
                elif not vague:
                    sound.add(what)
                elif float(gradients[key].abs().max()) > 0:
                    found.unchecked.append(
                        f"{what} of '{name}' against its energy, which is rounded too much to tell"
                    )
        if sound:
            found.checked.append(f"{' and '.join(sorted(sound))} the derivative of the energy")


# -- structures -----------------------------------------------------------------------------------


def _few(structures: StructureStore | None, file: _File) -> StructureStore:
    """Three small structures: two of different size where there are such, and one with an atom less."""
    if structures is None or len(structures) == 0:
        return _made_up(file.types, file.angstrom)
    counts = structures.n_atoms
    smallest = int(counts.argmin())
    larger = torch.where(counts > counts[smallest], counts, counts.max() + 1).argmin()
    chosen = [_cut(structures.select(torch.tensor([k])), ATOMS) for k in (smallest, int(larger))]
    if len(structures) == 1:
        chosen = chosen[:1]
    n = len(chosen[0].types)
    store = _joined([*chosen, *([_cut(chosen[0], n - 1)] if n > 1 else [])])
    return _rattled(store, file.angstrom)


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
    types = torch.tensor(atomic_types).repeat(8)[:21]
    sizes, periodic = [5, 8, 8], torch.tensor([False, False, True])
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
