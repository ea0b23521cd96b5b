"""Run by the Python that has metatrain: a checkpoint of its soap_bpnn as plain tensors and numbers.

Called as ``python _unpack.py model.ckpt out.pt``; uses metatrain's own loading, upgrades included.
"""

import sys
import warnings
from typing import Any

warnings.simplefilter("ignore")

import metatomic.torch  # noqa: E402, F401
import sphericart.torch  # noqa: E402, F401
import torch  # noqa: E402
from metatrain.utils.io import model_from_checkpoint  # noqa: E402


def describe(target: Any) -> dict[str, Any]:
    layout = target.layout
    block = layout.block(0)
    kind = "scalar" if target.is_scalar else "cartesian" if target.is_cartesian else "spherical"
    return {
        "kind": kind,
        "quantity": target.quantity,
        "unit": target.unit,
        "per_atom": target.per_atom,
        "description": target.description,
        "gradients": list(target.gradients),
        "n_properties": [len(b.properties) for b in layout.blocks()],
        "keys": [[int(v) for v in key.values] for key in layout.keys],
        "rank": len(block.components) if kind == "cartesian" else 0,
        "atomic_basis": bool(getattr(target, "is_atomic_basis", False)),
    }


def tables(tensor_map: Any) -> list[dict[str, Any]]:
    return [
        {"key": [int(v) for v in key.values], "values": block.values.detach().clone()}
        for key, block in tensor_map.items()
    ]


def main() -> None:
    checkpoint = torch.load(sys.argv[1], weights_only=False, map_location="cpu")
    name = checkpoint.get("architecture_name", "")
    if name != "soap_bpnn":
        sys.exit(f"it holds a model of '{name}', not of soap_bpnn")
    found = {}
    for context in ("restart", "export"):
        model = model_from_checkpoint(
            torch.load(sys.argv[1], weights_only=False, map_location="cpu"), context
        )
        found[context] = {
            k: v.detach().clone()
            for k, v in model.state_dict().items()
            if isinstance(v, torch.Tensor) and v.numel() and "spliner" not in k
        }
    couplings = {}
    for module in model.modules():
        for k, v in (getattr(module, "cgs", None) or {}).items():
            couplings[k] = v.detach().to(torch.float64).clone()
    composition, scaler = model.additive_models[0].model, model.scaler.model
    torch.save(
        {
            "hypers": model.hypers,
            "length_unit": model.dataset_info.length_unit,
            "atomic_types": [int(z) for z in model.atomic_types],
            "targets": {k: describe(t) for k, t in model.dataset_info.targets.items()},
            "composition": {k: tables(v) for k, v in composition.weights.items()},
            "scales": {k: tables(v) for k, v in scaler.scales.items()},
            "per_target_scales": {k: tables(v) for k, v in scaler.per_target_scales.items()},
            "rank2": model._sph_to_cart_rank2.detach().to(torch.float64).clone(),
            "couplings": couplings,
            "last": found["restart"],
            "best": found["export"],
            "epoch": checkpoint.get("epoch"),
            "best_epoch": checkpoint.get("best_epoch"),
        },
        sys.argv[2],
    )


main()
