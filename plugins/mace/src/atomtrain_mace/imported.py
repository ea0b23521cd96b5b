"""A model that mace-torch trained as a checkpoint of ours.

Everything is taken from the module itself: hypers from its blocks, weights by their names. Whatever it has that
ours has not is refused by name, and both are run on the same structure before anything is written.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from atomtrain.errors import CheckpointError
from atomtrain.graph import AtomGraph
from atomtrain.model import Predictor
from atomtrain.targets import DatasetInfo, TargetInfo
from atomtrain_mace.blocks import loaded, modules
from atomtrain_mace.heads import EnergyReadout
from atomtrain_mace.hypers import ModelHypers
from atomtrain_mace.model import Mace

PARTS = ("node_embedding", "radial_embedding", "interactions", "products")
"""modules that have the same names and weights in ours"""
RADIAL = {"BesselBasis": "bessel", "GaussianBasis": "gaussian", "ChebychevBasis": "chebyshev"}
TRANSFORMS = {"AgnesiTransform": "Agnesi", "SoftTransform": "Soft"}


def read(path: Path) -> Any:
    """The module in a file of mace-torch. It is a pickle: reading it can run code. Raises CheckpointError."""
    try:
        found = loaded(path)
    except Exception as error:  # whatever a pickle can raise
        raise CheckpointError(
            f"'{path}' cannot be read as a model of mace-torch ({type(error).__name__}: {error})"
        ) from error
    if isinstance(found, dict):
        raise CheckpointError(
            f"'{path}' has weights without the model they belong to: import the '.model' file that mace_run_train "
            "wrote at the end"
        )
    if isinstance(found, torch.jit.ScriptModule):
        raise CheckpointError(
            f"'{path}' is compiled (for LAMMPS, for instance): import the '.model' file it was made of"
        )
    kind = type(found).__name__
    if kind not in ("ScaleShiftMACE", "MACE"):
        raise CheckpointError(
            f"'{path}' is a {kind}; only ScaleShiftMACE and MACE, which predict energies, can be imported"
        )
    return found


def _refuse(what: str) -> CheckpointError:
    return CheckpointError(
        f"the model has {what}, which atomtrain-mace cannot express; nothing was written"
    )


def hypers_of(model: Any) -> ModelHypers:
    """Raises CheckpointError for what ours does not have."""
    if hasattr(model, "joint_embedding"):
        names = ", ".join(getattr(model, "embedding_specs", {}) or ["?"])
        raise _refuse(f"embeddings of further inputs ({names})")
    for module in model.modules():
        config = getattr(module, "cueq_config", None) or getattr(module, "oeq_config", None)
        if config is not None and getattr(config, "enabled", False):
            raise CheckpointError(
                "the model was converted for cuequivariance or openequivariance; convert it back "
                "(mace_convert_cueq_e3nn) and import that"
            )
    for readout in model.readouts:
        if type(readout).__name__ not in ("LinearReadoutBlock", "NonLinearReadoutBlock"):
            raise _refuse(f"a readout {type(readout).__name__}")
    interactions, products = model.interactions, model.products
    kinds = [type(one).__name__ for one in interactions]
    unknown = [k for k in kinds if k not in modules.interaction_classes]
    if unknown or len(set(kinds[1:])) > 1:
        raise _refuse(f"interactions {', '.join(kinds)}")
    correlations = {_correlation(product) for product in products}
    if len(correlations) > 1:
        raise _refuse("another correlation in each layer")
    radial = model.radial_embedding
    basis = type(radial.bessel_fn).__name__
    transform = type(getattr(radial, "distance_transform", None)).__name__
    if basis not in RADIAL or transform not in ("NoneType", *TRANSFORMS):
        raise _refuse(f"radial functions {basis} with {transform}")
    if list(radial.parameters()):
        raise _refuse("radial functions that are trained")
    n_layers, n_readouts = len(interactions), len(model.readouts)
    hidden = str(products[0].linear.irreps_out)
    edge = getattr(model, "edge_irreps", None)
    return ModelHypers(
        r_max=float(model.r_max),
        radial_type=RADIAL[basis],  # type: ignore[arg-type]
        num_radial_basis=int(radial.out_dim),
        num_cutoff_basis=int(radial.cutoff_fn.p),
        distance_transform=TRANSFORMS.get(transform, "None"),  # type: ignore[arg-type]
        radial_MLP=_radial_widths(interactions[0]),
        apply_cutoff=getattr(radial, "apply_cutoff", True),
        pair_repulsion=hasattr(model, "pair_repulsion_fn"),
        max_ell=int(model.spherical_harmonics._lmax),
        interaction=kinds[-1],  # type: ignore[arg-type]
        interaction_first=kinds[0],  # type: ignore[arg-type]
        num_interactions=n_layers,
        correlation=correlations.pop(),
        hidden_irreps=hidden.replace("+", " + "),
        edge_irreps=None if edge is None else str(edge),
        use_edge_irreps_first=bool(getattr(model, "use_edge_irreps_first", False))
        and edge is not None,
        keep_last_layer_irreps=n_layers > 1 and "+" in str(products[-1].linear.irreps_out),
        use_reduced_cg=bool(getattr(model, "use_reduced_cg", False)),
        use_so3=bool(getattr(model, "use_so3", False)),
        use_agnostic_product=bool(getattr(model, "use_agnostic_product", False)),
        use_last_readout_only=n_layers > 1 and n_readouts == 1,
        MLP_irreps=f"{_neurons(model)}x0e",
        gate=_gate(model),  # type: ignore[arg-type]
    )


def _correlation(product: Any) -> int:
    return len(product.symmetric_contractions.contractions[0].weights) + 1


def _radial_widths(interaction: Any) -> list[int]:
    widths = getattr(interaction.conv_tp_weights, "hs", None)
    if widths is None:
        raise _refuse("an unknown network of radial functions")
    return [int(width) for width in list(widths)[1:-1]]


def _neurons(model: Any) -> int:
    last = model.readouts[-1]
    n = last.hidden_irreps.dim if hasattr(last, "hidden_irreps") else 16
    return int(n) // (len(heads_of(model)) if hasattr(last, "hidden_irreps") else 1)


def _gate(model: Any) -> str:
    last = model.readouts[-1]
    if not hasattr(last, "non_linearity"):
        return "silu"
    act = last.non_linearity.acts[0]
    function = getattr(act, "f", act)
    for name, known in modules.gate_dict.items():
        if known is function:
            return str(name)
    raise _refuse(f"a readout with the activation {function}")


def heads_of(model: Any) -> list[str]:
    """The names of its heads; one where it has none."""
    return list(getattr(model, "heads", None) or ["Default"])


def convert(
    model: Any, head: str | None = None, name: str = "energy"
) -> tuple[Predictor, ModelHypers]:
    """What predicts with our model what ``model`` does, under the target ``name``, by one of its heads.

    Raises CheckpointError where the model has something that ours has not.
    """
    heads = heads_of(model)
    if head is None and len(heads) > 1:
        raise CheckpointError(
            f"the model has several heads: choose one with --head ({', '.join(heads)})"
        )
    if head is not None and head not in heads:
        raise CheckpointError(f"the model has no head '{head}' (it has: {', '.join(heads)})")
    which = heads.index(head) if head is not None else 0
    hypers = hypers_of(model)
    numbers = tuple(int(z) for z in model.atomic_numbers)
    if list(numbers) != sorted(set(numbers)):
        raise _refuse("elements that are not in the order of their numbers")
    target = TargetInfo(name, quantity="energy", unit="eV", gradients=("forces", "strain"))
    info = DatasetInfo("angstrom", numbers, {name: target})
    ours = Mace(hypers, info)
    dtype = next(model.parameters()).dtype
    state = dict(model.state_dict())
    scale, shift = torch.ones(()), torch.zeros(())
    if hasattr(model, "scale_shift"):
        scale, shift = (
            _of_head(t, which) for t in (model.scale_shift.scale, model.scale_shift.shift)
        )
    with torch.no_grad():
        ours.to(dtype)
        _take(ours, state)
        for mine, theirs in zip(ours.interactions, model.interactions, strict=True):
            mine.avg_num_neighbors.fill_(float(theirs.avg_num_neighbors))  # type: ignore[operator]
        readout = ours.heads[name]
        assert isinstance(readout, EnergyReadout)
        _take_readout(readout, model, which, len(heads))
        if ours.baseline is not None:
            repulsion: Any = ours.baseline
            for key, value in repulsion.pairs.state_dict().items():
                value.copy_(state[f"pair_repulsion_fn.{key}"])
            repulsion.factor.fill_(float(scale))
        predictor = Predictor(ours, info)
        affine = predictor.affine_of(name)
        energies = torch.atleast_2d(model.atomic_energies_fn.atomic_energies)[which]
        affine.scale.fill_(float(scale))
        affine.reference.fill_(float(scale))
        affine.shift.copy_((energies.double() + shift.double()).reshape(-1, 1))
    return predictor.eval(), hypers


def _of_head(tensor: Tensor, which: int) -> Tensor:
    flat = tensor.reshape(-1)
    return flat[which if len(flat) > 1 else 0]


def _take(ours: nn.Module, state: dict[str, Tensor]) -> None:
    """Copy what has the same name; CheckpointError for weights that only one of both has."""
    mine = {n: t for n, t in ours.state_dict().items() if n.split(".")[0] in PARTS}
    weights = {n for n, _ in ours.named_parameters()}
    for name, tensor in mine.items():
        value = state.get(name)
        if value is None:
            if name in weights:
                raise _refuse(f"no weights '{name}'")
            continue  # what an older mace-torch computed when it was needed
        if value.shape != tensor.shape:
            shapes = f"{tuple(value.shape)} instead of {tuple(tensor.shape)}"
            raise _refuse(f"'{name}' of the shape {shapes}")
        tensor.copy_(value)
    for name in state:
        if name.split(".")[0] in PARTS and name not in mine and name.endswith(("weight", "bias")):
            raise _refuse(f"weights '{name}'")


def _take_readout(readout: EnergyReadout, model: Any, which: int, n_heads: int) -> None:
    """The weights of one head. Of several, the last layer's sum over the neurons of all is divided by their root."""
    theirs = list(model.readouts)
    for block, other in zip(readout.linear, theirs, strict=False):
        weight = other.linear.weight.reshape(-1, n_heads)[:, which]
        if len(weight) != len(block.linear.weight):  # type: ignore[union-attr, arg-type]
            raise _refuse("readouts of other features than scalars")
        block.linear.weight.copy_(weight)  # type: ignore[union-attr, operator]
    for network in readout.network:
        other, m = theirs[-1], readout.neurons
        first = other.linear_1.weight.reshape(-1, n_heads, m)[:, which]
        network.linear_1.weight.copy_(first.flatten())  # type: ignore[union-attr, operator]
        last = other.linear_2.weight.reshape(n_heads, m, n_heads)[which, :, which]
        network.linear_2.weight.copy_(last / n_heads**0.5)  # type: ignore[union-attr, operator]


def difference(predictor: Predictor, model: Any, head: str | None, n_atoms: int = 12) -> float:
    """Of energies and forces on a made up cluster of the model's elements: relative to the largest force."""
    dtype = next(model.parameters()).dtype
    graph = _cluster(predictor, n_atoms, dtype)
    kinds = torch.bucketize(graph.types, torch.tensor(predictor.dataset_info.atomic_types))
    attrs = torch.nn.functional.one_hot(kinds, len(predictor.dataset_info.atomic_types))
    heads = heads_of(model)
    data = {
        "positions": graph.positions.clone().requires_grad_(),
        "node_attrs": attrs.to(dtype),
        "edge_index": torch.stack([graph.neighbors, graph.centers]),
        "shifts": torch.zeros_like(graph.vectors),
        "unit_shifts": torch.zeros_like(graph.vectors),
        "cell": torch.zeros(3, 3, dtype=dtype),
        "batch": graph.structure,
        "ptr": torch.tensor([0, n_atoms]),
        "head": torch.tensor([heads.index(head) if head is not None else 0]),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = model(data, compute_force=True)
    positions = graph.positions.clone().requires_grad_()
    vectors = positions[graph.neighbors] - positions[graph.centers]
    name = next(iter(predictor.dataset_info.targets))
    energies = predictor(graph._replace(positions=positions, vectors=vectors), [name])[name][0]
    (slope,) = torch.autograd.grad(energies.sum(), positions)
    largest = float(theirs["forces"].abs().max())
    of_forces = float((theirs["forces"] + slope).abs().max())
    # E0 are thousands of eV, in the model's own precision: what is compared is the rest
    shifts = predictor.affine_of(name).shift.index_select(0, kinds)
    inner = theirs["node_energy"].detach().double() - shifts.squeeze(1)
    rounding = float(shifts.abs().max()) * torch.finfo(dtype).eps
    of_energies = float((energies.detach() - shifts - inner.unsqueeze(1)).abs().max())
    return max(of_forces, of_energies - 4 * rounding) / max(largest, 1e-6)


def _cluster(predictor: Predictor, n_atoms: int, dtype: torch.dtype) -> AtomGraph:
    """Atoms of all elements in turn, 1.5 apart or more."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.cartesian_prod(*[torch.arange(3.0)] * 3)[:n_atoms]
    positions = 2.0 * corners + 0.5 * torch.rand(corners.shape, generator=generator)
    positions = positions.to(dtype)
    types = torch.tensor(predictor.dataset_info.atomic_types)
    distances = torch.cdist(positions, positions)
    near = (distances < predictor.model.cutoff) & ~torch.eye(n_atoms, dtype=torch.bool)
    centers, neighbors = near.nonzero(as_tuple=True)
    zeros = torch.zeros(len(centers), 3, dtype=dtype)
    return AtomGraph(
        positions=positions,
        types=types[torch.linspace(0, len(types) - 1e-3, n_atoms).long()],
        cells=torch.zeros(1, 3, 3, dtype=dtype),
        pbc=torch.zeros(1, 3, dtype=torch.bool),
        structure=torch.zeros(n_atoms, dtype=torch.int64),
        centers=centers,
        neighbors=neighbors,
        shifts=zeros,
        vectors=positions[neighbors] - positions[centers],
        extras={},
    )


def checkpoint(predictor: Predictor, hypers: ModelHypers) -> dict[str, Any]:
    """The checkpoint of a training that is over; nothing of the training is known."""
    from atomtrain.contract import catalog
    from atomtrain.training.checkpoint import checkpoint_header
    from atomtrain_mace.plugin import describe_architecture

    installed = catalog.find_architecture("mace")
    assert installed is not None, "this package brings it"
    model = hypers.model_dump(mode="json")
    header = checkpoint_header(
        architecture=installed.identity(describe_architecture()),
        options={"architecture": {"training": {}}},
        model_hypers=model,
        dataset_info=predictor.dataset_info,
        splits={},
        fingerprint="",
    )
    state = dict(predictor.model.state_dict())
    affine = {n: t for n, t in predictor.state_dict().items() if n.startswith("affine.")}
    return {
        **header,
        "options": {},
        "model": {"last": state, "best": None},
        "core": {"version": 1, "affine": affine},
        "trainer": None,
        "metrics": {},
    }
