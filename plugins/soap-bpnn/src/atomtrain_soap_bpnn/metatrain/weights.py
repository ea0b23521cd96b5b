"""metatrain's weights in the arrangement of ours.

Both models are the same functions; what differs is the order of the channels of a density (radial
function first there, element first here), and the order and norm of the products that make up an
equivariant basis. Everything is found by the names metatrain 2026.4 gives its parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from atomtrain.errors import CheckpointError
from atomtrain.targets import DatasetInfo, TargetInfo
from atomtrain.targets.layout import Irrep
from atomtrain_density.targets import cartesian_table
from atomtrain_density.tensors import PSEUDO_SPECIES, clebsch_gordan
from atomtrain_soap_bpnn.model import SoapBpnn


def dataset_info(found: Mapping[str, Any]) -> DatasetInfo:
    """Elements, unit of length and targets. Raises CheckpointError for what ours cannot predict."""
    targets = {}
    for name, t in found["targets"].items():
        if t["atomic_basis"]:
            raise CheckpointError(
                f"target '{name}' has irreps of its own for every type of atom, which "
                "atomtrain-soap-bpnn does not predict"
            )
        gradients = {"positions": "forces", "strain": "strain"}
        irreps = tuple(
            Irrep(key[0], key[1], n)
            for key, n in zip(t["keys"], t["n_properties"], strict=True)
            if t["kind"] == "spherical"
        )
        known = [gradients[g] for g in t["gradients"]]
        targets[name] = TargetInfo(
            name=name,
            kind=t["kind"],
            quantity=t["quantity"] if t["kind"] == "scalar" else "",
            unit=t["unit"],
            per_atom=t["per_atom"],
            num_subtargets=1 if irreps else t["n_properties"][0],
            rank=t["rank"],
            irreps=irreps,
            gradients=tuple(g for g in ("forces", "strain") if g in known),
            description=t["description"],
        )
    return DatasetInfo(found["length_unit"], tuple(sorted(found["atomic_types"])), targets)


def weights(
    model: SoapBpnn, found: Mapping[str, Any], state: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The state dict of ``model`` that predicts what ``state`` predicts.

    Raises CheckpointError for a weight that is missing or has another shape.
    """
    return _Rearranged(model, found, state).result()


class _Rearranged:
    def __init__(
        self, model: SoapBpnn, found: Mapping[str, Any], state: Mapping[str, Tensor]
    ) -> None:
        self.model = model
        self.found = found
        self.state = state
        self.types = list(found["atomic_types"])
        self.order = sorted(range(len(self.types)), key=self.types.__getitem__)  # ours ascend
        self.channels = model.n_species if model.legacy else PSEUDO_SPECIES
        self.own: dict[str, Tensor] = {}

    def result(self) -> dict[str, Tensor]:
        model = self.model
        columns = self._feature_columns()
        if model.legacy:
            self._network(columns)
        else:
            take = self._take
            self.own["alchemy"] = take("soap_calculator.calculator.species.embedding.weight")[
                self.order
            ]
            self.own["shared_network.encoding"] = take("center_encoding.weight")[self.order][
                :, columns
            ]
            if model.norm:
                self.own["shared_network.norm_weight"] = take("layernorm_for_tensors.weight")[
                    columns
                ]
                self.own["shared_network.norm_bias"] = take("layernorm_for_tensors.bias")[columns]
            for k in range(model.hypers.bpnn.num_hidden_layers):
                w = take(f"bpnn_for_tensors.{2 * k}.weight")
                self.own[f"shared_network.layers.{k}.weight"] = w[:, columns] if k == 0 else w
        if model.long_range is not None:
            theirs = "long_range_featurizer"
            for part in ("weight", "bias"):
                self.own[f"long_range.charges.{part}"] = self._take(f"{theirs}.charges_map.{part}")
                for k in (0, 2):
                    self.own[f"long_range.output.{k}.{part}"] = self._take(
                        f"{theirs}.out_projection.{k}.{part}"
                    )
        for name, head in model.heads.items():
            target = self.found["targets"][name]
            if head.mlp:
                self.own[f"heads.{name}.hidden.weight"] = self._per_group(
                    f"heads.{name}.module_list.{{}}.0.weight"
                )
            for k, block in enumerate(head.blocks):  # type: ignore[arg-type]
                self._block(name, target, f"heads.{name}.blocks.{k}", block)
        return self._complete()

    def _network(self, columns: list[int]) -> None:
        """Layer norm and layers of each element, which see the features as ``columns``."""
        n_layers = self.model.hypers.bpnn.num_hidden_layers
        layers = [self._by_type(f"bpnn.module_list.{{}}.{2 * k}.weight") for k in range(n_layers)]
        for k, w in enumerate(layers[1:]):
            self.own[f"network.layers.{k}.weight"] = w
        scale = shift = None
        if self.model.norm:
            scale = self._by_type("layernorm.module_list.{}.weight")[:, columns]
            shift = self._by_type("layernorm.module_list.{}.bias")[:, columns]
        if not layers:
            if scale is not None and shift is not None:
                self.own["network.norm_weight"], self.own["network.norm_bias"] = scale, shift
            return
        # Weights of products that are equal become one; the scale goes into them, and the shift
        # becomes the shortest that gives the same offsets.
        spectrum = self.model.spectrum
        upper, lower, root = spectrum.upper, spectrum.lower, spectrum.root.to(torch.float64)
        w = layers[0][:, :, columns].to(torch.float64)
        scaled = w if scale is None else w * scale.unsqueeze(1)
        one = 0.5 * (scaled[:, :, upper] + scaled[:, :, lower])
        self.own["network.first.weight"] = one.to(layers[0].dtype)
        if scale is not None and shift is not None:
            offset = torch.bmm(w, shift.to(torch.float64).unsqueeze(2))
            found = torch.linalg.pinv(one * root.square()) @ offset
            self.own["network.norm_weight"] = torch.ones_like(scale[:, upper])
            self.own["network.norm_bias"] = found.squeeze(2).to(shift.dtype)

    def _block(self, name: str, target: Mapping[str, Any], ours: str, block: Any) -> None:
        degree, sigma = block.basis.degree, -1 if block.basis.pseudo else 1
        spherical = target["kind"] == "spherical" or target["rank"] == 2
        key = f"{name}_o3_lambda_{degree}_o3_sigma_{sigma}" if spherical else f"{name}___0"
        w = self._per_group(f"last_layers.{name}.{key}.module_map.module_list.{{}}.weight")
        n_groups, _, n_in = w.shape
        w = w.reshape(n_groups, block.n_tensors, -1, n_in)
        order, factors = self._products(degree)
        size = 2 * degree + 1
        products = torch.zeros_like(w[:, :, :size])
        for place, (mine, factor) in enumerate(zip(order, factors, strict=True)):
            products[:, :, mine] = w[:, :, place] * factor
        w = torch.cat([products, w[:, :, size:]], dim=2)
        if block.basis.pseudo:
            w = w * self._triple_product()
        if target["rank"] == 2:
            w = w * self._rank2_factor(degree)
        self.own[f"{ours}.linear.weight"] = w.reshape(n_groups, -1, n_in)
        theirs = f"basis_calculators.{name}.{key}"
        if degree > 0:
            self._contraction(f"{ours}.basis.vectors", f"{theirs}.vector_basis", 1)
        if block.basis.pseudo:
            self._contraction(
                f"{ours}.basis.pseudo_vectors", f"{theirs}.vector_basis_pseudotensor", 1
            )
        if block.basis.with_density:
            self._contraction(
                f"{ours}.basis.own",
                f"{theirs}.lambda_basis_module",
                degree,
                calculator="spex_calculator",
                contraction="spex_contraction",
            )

    def _contraction(
        self,
        ours: str,
        theirs: str,
        degree: int,
        calculator: str = "soap_calculator",
        contraction: str = "contraction",
    ) -> None:
        columns = self._channel_columns(self.model.n_per_l[degree])
        if self.model.legacy:
            w = self._by_type(f"{theirs}.{contraction}.module_map.module_list.{{}}.weight")
            self.own[f"{ours}.linear.weight"] = w[:, :, columns]
            return
        tensors = f"{contraction}_for_tensors"
        self.own[f"{ours}.linear.weight"] = self._take(f"{theirs}.{tensors}.weight")[None][
            :, :, columns
        ]
        self.own[f"{ours}.alchemy"] = self._take(f"{theirs}.{calculator}.species.embedding.weight")[
            self.order
        ]
        self.own[f"{ours}.encoding"] = self._take(f"{theirs}.center_encoding.weight")[self.order][
            :, columns
        ]

    def _products(self, degree: int) -> tuple[list[int], list[float]]:
        """For each of metatrain's products: its place among ours, and what to multiply it by."""
        if degree < 2:
            return list(range(2 * degree + 1)), [1.0] * (2 * degree + 1)

        def norm(k: int) -> float:  # solid harmonics: orthonormal there, Racah's here
            return math.sqrt((2 * k + 1) / (4 * math.pi))

        ratio = self._ratio
        if degree == 2:
            pair = ratio(1, 1, 2)
            return [2, 0, 1, 4, 3], [norm(2), norm(2), pair, pair, pair]
        factors = [norm(a) * norm(degree - a) * ratio(a, degree - a, degree)
                   for a in range(degree + 1)]  # fmt: skip
        factors += [
            norm(a)
            * norm(degree - 1 - a)
            * ratio(a, degree - 1 - a, degree - 1)
            * ratio(degree - 1, 1, degree)
            for a in range(degree)
        ]
        return list(range(2 * degree + 1)), factors

    def _ratio(self, l1: int, l2: int, degree: int) -> float:
        """metatrain's Clebsch-Gordan coefficients over ours: 1 or -1 if conventions are alike."""
        theirs = self.found["couplings"][f"{l1}_{l2}_{degree}"]
        ours = clebsch_gordan(l1, l2, degree)
        return float((theirs * ours).sum() / ours.square().sum())

    def _triple_product(self) -> float:
        """metatrain's pseudoscalar of three vectors over their triple product."""
        c = self.found["couplings"]
        unit = torch.eye(3, dtype=torch.float64)
        cross = torch.einsum("m,n,mnp->p", unit[0], unit[1], c["1_1_1"])
        return float(torch.einsum("m,n,mnp->p", cross, unit[2], c["1_1_0"]).sum())

    def _rank2_factor(self, degree: int) -> float:
        part = slice(degree * degree, (degree + 1) ** 2)
        theirs = self.found["rank2"].reshape(9, 9)[:, part]
        ours = cartesian_table([degree])
        return float((theirs * ours).sum() / ours.square().sum())

    # -- orders --------------------------------------------------------------------------------

    def _channel_columns(self, n: int) -> list[int]:
        """Where each of our channels (element, n) is among metatrain's (n, element)."""
        kinds = self.order if self.model.legacy else range(self.channels)
        return [k * self.channels + s for s in kinds for k in range(n)]

    def _feature_columns(self) -> list[int]:
        columns: list[int] = []
        start = 0
        for n in self.model.n_per_l[: self.model.n_degrees]:
            one = self._channel_columns(n)
            columns += [start + a * len(one) + b for a in one for b in one]
            start += len(one) ** 2
        return columns

    # -- metatrain's names -----------------------------------------------------------------------

    def _by_type(self, pattern: str) -> Tensor:
        return torch.stack([self._take(pattern.format(k)) for k in self.order])

    def _per_group(self, pattern: str) -> Tensor:
        if self.model.legacy:
            return self._by_type(pattern)
        return self._take(pattern.format(0))[None]

    def _take(self, name: str) -> Tensor:
        if name not in self.state:
            raise CheckpointError(
                f"the checkpoint has no '{name}': only checkpoints of metatrain 2026.4 are understood"
            )
        return self.state[name]

    def _complete(self) -> dict[str, Tensor]:
        """All of our parameters: empty ones as they are, everything else must have been found."""
        complete = {}
        for name, value in self.model.state_dict().items():
            if value.numel() == 0:
                complete[name] = value
                continue
            if name not in self.own or self.own[name].shape != value.shape:
                raise CheckpointError(f"the checkpoint holds nothing that fits our '{name}'")
            complete[name] = self.own[name].contiguous()
        return complete


def affine(found: Mapping[str, Any], info: DatasetInfo) -> dict[str, Tensor]:
    """Compositions and scales, as the core keeps them."""
    state: dict[str, Tensor] = {}
    types = found["atomic_types"]
    order = sorted(range(len(types)), key=types.__getitem__)
    for k, (name, target) in enumerate(info.targets.items()):
        n = len(types)
        scale = _table(found["scales"].get(name), target, n, 1.0)[order]
        reference = _table(found["per_target_scales"].get(name), target, n, 1.0)[order]
        shift = _table(found["composition"].get(name), target, n, 0.0)[order]
        state[f"affine.{k}.scale"] = scale
        state[f"affine.{k}.shift"] = shift
        state[f"affine.{k}.reference"] = reference[:, 0].clone()
    return state


def _table(blocks: Any, target: TargetInfo, n_types: int, default: float) -> Tensor:
    """``[n_types, properties of all blocks]`` from metatrain's maps; absent blocks are ``default``."""
    parts = []
    known = {tuple(b["key"]): b["values"] for b in blocks or []}
    for block in target.blocks:
        values = known.get(tuple(v for _, v in block.key))
        if values is None:
            parts.append(torch.full((n_types, block.n_properties), default, dtype=torch.float64))
            continue
        values = values.to(torch.float64)
        while values.dim() > 2:  # one component, as far as a composition exists
            values = values.select(1, 0)
        parts.append(values.expand(n_types, block.n_properties).clone())
    return torch.cat(parts, dim=1)
