"""What a plugin declares, and what its bare module must do before physics can be asked of it."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Iterator
from typing import Any

import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor

from atomtrain.graph import DETACHED, AtomGraph
from atomtrain.model import Model, with_leaves
from atomtrain.model.features import check_declared
from atomtrain.targets import DatasetInfo
from atomtrain_testing import structures
from atomtrain_testing.checks import (
    ConformanceError,
    NotApplicable,
    check,
    expect_equal,
    require,
)
from atomtrain_testing.predictions import graph_of, predict, predict_one
from atomtrain_testing.subject import Subject, run_python

DESCRIBE = """
import sys
from atomtrain.plugins import open_architecture
architecture = open_architecture(sys.argv[1])
found = sorted({"torch", "ase", "metatomic"} & set(sys.modules))
assert not found, "describing the plugin imports " + ", ".join(found)
architecture.model_hypers_class(), architecture.trainer_hypers_class()
found = sorted({"torch", "ase", "metatomic"} & set(sys.modules))
assert not found, "importing the classes of its hypers imports " + ", ".join(found)
"""

UNPICKLE = """
import pickle, sys
with open(sys.argv[1], "rb") as file:
    predictor, graph, wanted, dtype = pickle.load(file)
names = list(predictor.dataset_info.targets)
found = predictor(graph, names)[names[0]][0].detach()
error = float((found - wanted).abs().max())
assert error < 1e-9, f"there it predicts something else (by {error:.3g})"
"""


@check()
def description(subject: Subject) -> None:
    """The plugin opens and describes itself without importing torch.

    The plugin opens (its hooks exist and are spelt right) and describes itself, and the classes of its hypers can
    be imported, all without ``torch``, ``ase`` or ``metatomic``. ``atomtrain architectures`` and the reading of
    options stay quick that way. Import them inside the functions that need them. Also: a summary, at least one kind
    of target, a default kind that is among them, ``cpu`` among the devices.
    """
    info = subject.architecture.info
    require(bool(info.summary.strip()), "ArchitectureInfo.summary is empty")
    require(bool(info.target_kinds), "ArchitectureInfo.target_kinds is empty: what can it fit?")
    require(
        info.default_kind in info.target_kinds,
        f"default_kind '{info.default_kind}' is not among target_kinds {info.target_kinds}",
    )
    require(
        "cpu" in info.devices, f"devices {info.devices} lack 'cpu', on which every model must run"
    )
    require(
        set(info.dtypes) <= {"float64", "float32", "bfloat16", "float16"} and bool(info.dtypes),
        f"dtypes {info.dtypes}: expected names of torch's floating point types",
    )
    run_python(DESCRIBE, subject.name)


@check("description")
def stage(subject: Subject) -> None:
    """The plugin declares what its stage asks for.

    What the stage of the architecture asks for. Every architecture has a maintainer with an e-mail address or a
    handle. A stable one has a description, authors, references and golden checkpoints. (A deprecated one says since
    when, until when, and what to use instead: without that the plugin does not open.)
    """
    info = subject.architecture.info
    require(
        any(p.email or p.handle for p in info.maintainers),
        f"a {info.stage} architecture needs a maintainer with an e-mail address or a handle",
    )
    if info.stage != "stable":
        return
    require(bool(info.description.strip()), "a stable architecture needs a description")
    require(
        bool(info.references.get("architecture") or info.references.get("implementation")),
        "a stable architecture needs references (to its 'architecture' or 'implementation')",
    )
    require(bool(info.authors), "a stable architecture names its authors")


@check("description")
def hypers_documented(subject: Subject) -> None:
    """Every hyper has documentation and a default.

    Every hyper has a default and documentation: the text in quotes below the field of its pydantic class. It is
    what ``atomtrain architectures my-arch``, the JSON schema and the generated page show.
    """
    for part, cls in _hyper_classes(subject):
        for path, field in _fields(cls, part):
            require(
                bool((field.description or "").strip()),
                f"{path} has no documentation: write a text in quotes below the field",
            )
            require(not field.is_required(), f"{path} has no default")


@check("description")
def hypers_strict(subject: Subject) -> None:
    """Defaults are valid, survive a round trip, and unknown keys are refused everywhere.

    The defaults are valid, come out unchanged when they are written to a checkpoint and read again, and every
    section refuses unknown keys. Classes derived from ``atomtrain.options.Section`` do.
    """
    for part, cls in _hyper_classes(subject):
        required = [name for name, f in cls.model_fields.items() if f.is_required()]
        if required:  # 'hypers_documented' speaks of it
            continue
        defaults = cls()
        data = defaults.model_dump(mode="json")
        try:
            again = cls.model_validate(data)
        except ValidationError as error:
            raise ConformanceError(f"{part}: its own defaults are refused: {error}") from error
        require(
            again.model_dump(mode="json") == data,
            f"{part}: the defaults change when they are written to a checkpoint and read again",
        )
        for path, section in _sections(defaults, part):
            try:
                type(section).model_validate(
                    {**section.model_dump(mode="json"), "no_such_hyper": 1}
                )
            except ValidationError:
                continue
            raise ConformanceError(
                f"{path} accepts the unknown key 'no_such_hyper': spelling mistakes would go "
                "unnoticed. Derive the class from atomtrain.options.Section"
            )
        cls.model_json_schema()


@check("description")
def builds(subject: Subject) -> None:
    """The model builds, twice the same, and predicts what was asked for in the right shapes.

    ``build_model`` returns a ``Model`` with a positive ``cutoff`` and ``interaction_range``. Built twice from one
    seed it has the same weights. Asked for a target, ``forward`` returns its blocks in the layout's order, each
    ``[n_atoms, *components, n_properties]``, finite, in the precision of the positions (zeros may be of any); asked
    for nothing, it returns nothing. Equivariant features come with a kind of target that is made of them.
    """
    info = subject.info(subject.main)
    model = subject.build(info)
    require(isinstance(model, Model), f"build_model returns {type(model).__name__}, no Model")
    check_declared(model, subject.architecture.info.target_kinds, subject.name)
    for name in ("cutoff", "interaction_range"):
        value = getattr(model, name, None)
        require(
            isinstance(value, (int, float)) and value > 0,
            f"the model's {name} must be a positive number, not {value!r}",
        )
    twin = subject.build(info).state_dict()
    for name, tensor in model.state_dict().items():
        require(
            name in twin and bool(torch.equal(tensor, twin[name])),
            f"'{name}' differs between two models built from the same seed: take random numbers "
            "from torch's generator",
        )
        if tensor.is_floating_point():
            require(bool(torch.isfinite(tensor).all()), f"'{name}' is not finite after building")
    frames = structures.neighbourly(subject.atomic_types)
    dtype = subject.dtype
    model.to(dtype)
    _check_shapes(model, info, dtype, list(frames.values()))
    graph = graph_of(model, [frames["molecule"]], dtype)
    require(
        model.eval()(graph, []) == {},
        "asked for no outputs, the model returns some: compute only those in 'outputs'",
    )


@check("builds")
def moves(subject: Subject) -> None:
    """The model runs in every floating point type and on every device it declares.

    The model runs in float64 and in every type it declares, and its results are of that type: make new tensors with
    ``torch.zeros_like`` or with ``dtype=`` and ``device=`` of another. No module of the plugin keeps a tensor that
    is neither parameter nor buffer. Where the machine has a GPU and the model declares it, results stay there and
    agree with the CPU's. And the predictions depend on the structure at all.
    """
    info = subject.info(subject.main)
    molecule = structures.some_molecule(subject.atomic_types)
    built = subject.build(info)
    package = type(built).__module__.split(".")[0]
    for name, module in built.named_modules():
        if type(module).__module__.split(".")[0] != package:
            continue  # what a library keeps for its next call is its own affair
        for attribute, value in vars(module).items():
            require(
                not isinstance(value, Tensor),
                f"'{f'{name}.{attribute}'.strip('.')}' is a tensor but no parameter or buffer: it "
                "stays behind when the model moves. Use register_buffer",
            )
    for name in dict.fromkeys(("float64", *(subject.dtypes or subject.architecture.info.dtypes))):
        dtype = getattr(torch, name)
        model = subject.build(info).to(dtype)
        _check_shapes(model, info, dtype, [molecule])
    predictor = subject.predictor()
    wanted = predict_one(predictor, molecule)
    spread = [predict_one(predictor, a) for a in structures.labelled(subject.atomic_types, 3)]
    values = torch.stack([p.blocks[subject.main.name][0].sum(0).detach() for p in spread])
    require(
        float((values - values[0]).abs().max()) > 1e-7,
        "the predictions do not depend on the structure at all",
    )
    if "cuda" in subject.architecture.info.devices and torch.cuda.is_available():
        graph = graph_of(predictor.model, [molecule])
        parts = {k: v.to("cuda") for k, v in graph._asdict().items() if isinstance(v, Tensor)}
        graph = AtomGraph(**{**graph._asdict(), **parts})
        found = predict(predictor.to("cuda"), graph)
        for name, blocks in wanted.blocks.items():
            for a, b in zip(found.blocks[name], blocks, strict=True):
                require(a.device.type == "cuda", f"'{name}' does not stay on the GPU")
                expect_equal(a, b, 1e3 * subject.tolerance, f"'{name}' on the GPU")


@check("builds")
def picklable(subject: Subject) -> None:
    """The model can be copied, pickled, and used in a freshly started process.

    The model can be copied (export does that), pickled, and used in a fresh interpreter that did not build it, as
    processes started by ``spawn`` do. Functions, files and locks kept in a module are what stands in the way.
    """
    predictor = subject.predictor()
    molecule = structures.some_molecule(subject.atomic_types)
    wanted = predict_one(predictor, molecule).blocks[subject.main.name][0].detach()
    twin = predict_one(copy.deepcopy(predictor), molecule).blocks[subject.main.name][0]
    expect_equal(twin, wanted, subject.tolerance, "a copy of the model")
    buffer = io.BytesIO()
    try:
        pickle.dump((predictor, graph_of(predictor.model, [molecule]), wanted, None), buffer)
    except (pickle.PicklingError, TypeError, AttributeError, RuntimeError) as error:
        raise ConformanceError(
            f"the model cannot be pickled ({error}): keep no functions, files or locks in it"
        ) from error
    path = subject.new_folder("pickle") / "model.pkl"
    path.write_bytes(buffer.getvalue())
    run_python(UNPICKLE, str(path))


@check("builds")
def last_layers(subject: Subject) -> None:
    """What the model says its last layers take, times their weights, is what it predicts.

    A model that answers ``Model.last_layer_outputs`` has each of them among its ``feature_outputs``, and a target's
    block is ``last_layer_weights`` times them, but for a number that is the same for all atoms of an element. Where
    nobody differentiates them (``atomtrain.graph.DETACHED``), they and the slopes of the target are what they are
    otherwise. Uncertainties rest on that. Skipped where the model says nothing of its last layers.
    """
    spoken = False
    molecule = structures.some_molecule(subject.atomic_types)
    for predictor in subject.predictors.values():
        model = predictor.model
        for name, output in model.last_layer_outputs().items():
            spoken = True
            width = model.feature_outputs().get(output)
            require(
                width is not None,
                f"last_layer_outputs names '{output}' for '{name}', which is not among feature_outputs",
            )
            graph = with_leaves(graph_of(model, [molecule]))
            held = graph._replace(extras={**graph.extras, DETACHED: torch.zeros(0)})
            found, other = (model(g, [name, output]) for g in (graph, held))
            block, features = found[name][0], found[output][0].detach()
            weights = model.last_layer_weights(name).detach()
            shape = (block.shape[1], width)
            require(
                tuple(weights.shape) == shape,
                f"last_layer_weights('{name}') are {tuple(weights.shape)} instead of {shape} (properties, features)",
            )
            rest = block.detach() - features @ weights.t()
            for element in graph.types.unique():
                of_element = rest[graph.types == element]
                expect_equal(
                    of_element,
                    of_element[:1].expand_as(of_element),
                    1e2 * subject.tolerance,
                    f"'{name}' minus last_layer_weights times '{output}', atoms of element {int(element)}",
                )
            groups = model.last_layer_groups(name)
            if groups > 1:
                own = (graph.types.unsqueeze(1) == torch.tensor(subject.atomic_types)).unsqueeze(2)
                rows = features.reshape(len(own), groups, -1)
                require(
                    own.shape[1] == groups and not bool((rows * ~own).any()),
                    f"last_layer_groups('{name}') is {groups}, but atoms have features in columns that are not "
                    "their element's",
                )
            expect_equal(other[output][0].detach(), features, 1e2 * subject.tolerance, output)
            slopes = [
                torch.autograd.grad(f[name][0].sum(), graph.vectors, materialize_grads=True)[0]
                for f in (found, other)
            ]
            expect_equal(
                slopes[1],
                slopes[0],
                1e2 * subject.tolerance,
                f"slopes of '{name}' beside '{output}'",
            )
    if not spoken:
        raise NotApplicable("the model does not say what its last layers take (last_layer_outputs)")


# -- pieces ----------------------------------------------------------------------------------------


def _hyper_classes(subject: Subject) -> list[tuple[str, type[BaseModel]]]:
    return [
        ("architecture.model", subject.architecture.model_hypers_class()),
        ("architecture.training", subject.architecture.trainer_hypers_class()),
    ]


def _fields(cls: type[BaseModel], path: str) -> Iterator[tuple[str, Any]]:
    """Every field with its path, those of sections (but not of sections in lists) included."""
    for name, field in cls.model_fields.items():
        yield f"{path}.{name}", field
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _fields(field.annotation, f"{path}.{name}")


def _sections(section: BaseModel, path: str) -> Iterator[tuple[str, BaseModel]]:
    yield path, section
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from _sections(value, f"{path}.{name}")


def _check_shapes(model: Model, info: DatasetInfo, dtype: torch.dtype, frames: list[Any]) -> None:
    """Whether the blocks of all targets have the shapes of their layouts, are finite, and of dtype."""
    graph = graph_of(model, frames, dtype)
    names = list(info.targets)
    found = model.eval()(graph, names)
    require(
        set(found) == set(names),
        f"asked for {', '.join(names)}, the model returns {', '.join(found) or 'nothing'}",
    )
    for name, target in info.targets.items():
        n_rows, what = len(graph.types), "atoms"
        if target.pooled:
            n_rows, what = len(frames), "structures"
        blocks = found[name]
        require(
            len(blocks) == len(target.blocks),
            f"'{name}' has {len(blocks)} blocks instead of {len(target.blocks)}",
        )
        for block, layout in zip(blocks, target.blocks, strict=True):
            require(
                tuple(block.shape) == (n_rows, *layout.shape),
                f"'{name}': a block has shape {tuple(block.shape)} instead of "
                f"{(n_rows, *layout.shape)} ({what}, components, properties)",
            )
            require(bool(torch.isfinite(block).all()), f"'{name}' is not finite in {dtype}")
            require(
                block.dtype == dtype or not bool(block.any()),  # zeros are the same in all of them
                f"'{name}' comes out in {block.dtype} where weights and positions are in {dtype}",
            )
