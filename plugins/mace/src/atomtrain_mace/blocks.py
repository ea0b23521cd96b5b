"""mace-torch's classes, imported once and so that nothing has to be set for it, and blocks built from hypers."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import nn

from atomtrain_mace.hypers import ModelHypers

_SWITCH = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


def _import() -> None:
    """Import mace and e3nn without what they do to the process.

    e3nn 0.4 keeps constants in a file that torch opens with ``weights_only=False`` alone. For it mace sets a variable
    that holds for every file that is opened afterwards, and in all processes that are started.
    """
    before = os.environ.get(_SWITCH)
    dtype = torch.get_default_dtype()
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):  # it prints what it lacks
            warnings.simplefilter("ignore")
            import mace

            os.environ[_SWITCH] = "1"
            import mace.modules  # noqa: F401
    finally:
        torch.set_default_dtype(dtype)
        if before is None:
            os.environ.pop(_SWITCH, None)
        else:
            os.environ[_SWITCH] = before


_import()

from e3nn import o3 as o3  # noqa: E402
from mace import modules as modules  # noqa: E402


@contextmanager
def building() -> Iterator[None]:
    """What is built in the block is in float64: coefficients are rounded when the model moves, not before.

    What TorchScript warns of there is mace's and e3nn's.
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_default_dtype(before)


def mace_module(hypers: ModelHypers, atomic_numbers: tuple[int, ...]) -> Any:
    """mace-torch's own ``ScaleShiftMACE`` of these hypers, in float64; its readouts and energies are not ours."""
    classes = modules.interaction_classes
    with building():
        made = modules.ScaleShiftMACE(
            atomic_inter_scale=1.0,
            atomic_inter_shift=0.0,
            r_max=hypers.r_max,
            num_bessel=hypers.num_radial_basis,
            num_polynomial_cutoff=hypers.num_cutoff_basis,
            max_ell=hypers.max_ell,
            interaction_cls=classes[hypers.interaction],
            interaction_cls_first=classes[hypers.interaction_first],
            num_interactions=hypers.num_interactions,
            num_elements=len(atomic_numbers),
            hidden_irreps=o3.Irreps(hypers.hidden_irreps),
            MLP_irreps=o3.Irreps(hypers.MLP_irreps),
            atomic_energies=torch.zeros(len(atomic_numbers)).numpy(),
            avg_num_neighbors=hypers.avg_num_neighbors or 1.0,
            atomic_numbers=list(atomic_numbers),
            correlation=hypers.correlation,
            gate=modules.gate_dict[hypers.gate],
            pair_repulsion=False,
            apply_cutoff=hypers.apply_cutoff,
            use_reduced_cg=hypers.use_reduced_cg,
            use_so3=hypers.use_so3,
            use_agnostic_product=hypers.use_agnostic_product,
            use_last_readout_only=hypers.use_last_readout_only,
            distance_transform=hypers.distance_transform,
            edge_irreps=o3.Irreps(hypers.edge_irreps) if hypers.edge_irreps else None,
            use_edge_irreps_first=hypers.use_edge_irreps_first,
            radial_MLP=list(hypers.radial_MLP),
            radial_type=hypers.radial_type,
            keep_last_layer_irreps=hypers.keep_last_layer_irreps,
        )
    for module in made.modules():
        _plain(module)
    return made


def _plain(module: nn.Module) -> None:
    """Weights of no effect as plain parameters that are not trained: those of mace's own class cannot be copied."""
    for name, parameter in list(module.named_parameters(recurse=False)):
        if type(parameter) is not nn.Parameter and not parameter.requires_grad:
            setattr(module, name, nn.Parameter(parameter.data, requires_grad=False))


def compiled(module: nn.Module) -> nn.Module:
    """The module with whatever e3nn has to trace or to compile in its own way done, in place."""
    from e3nn.util import jit

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made: nn.Module = jit.compile(module)
    return made


def loaded(path: Path) -> Any:
    """Whatever mace-torch pickled in a file, on the CPU. This can run code of the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.load(path, map_location="cpu", weights_only=False)
