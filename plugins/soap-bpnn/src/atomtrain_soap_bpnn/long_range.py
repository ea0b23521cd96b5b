"""Long-range features: learnt charges, their potential beyond the neighbourhood, a small network.

``features -> charges (linear) -> potential -> linear, SiLU, linear -> features``, as many charges as
features. The potential at atom i is half the sum over all other atoms, images included, of::

    q_j (1 - f(r_ij)) / r_ij,    f(r) = (1 + cos(pi r / radius)) / 2  within the radius, 0 beyond

so that what the short-ranged features see already does not enter twice. Periodic structures are
summed by P3M (doi 10.1063/1.477414) or Ewald, a homogeneous background making them neutral; there
1/r is erf(r / sqrt(2) smearing) / r. Slabs get a vacuum and the correction for the dipole
(doi 10.1063/1.479595, with charge 10.1063/1.3216473). Molecules are summed directly.

Imports torch-pme (the extra ``long-range``): import this module only where it is used. No ``from
__future__ import annotations``: TorchScript compiles it.
"""

import math
from typing import List, Optional, Tuple

import torch
from torch import Tensor, nn
from torchpme import CoulombPotential, EwaldCalculator, P3MCalculator
from torchpme.lib.kvectors import generate_kvectors_for_mesh, get_ns_mesh

from atomtrain.errors import DataError
from atomtrain.graph import AtomGraph
from atomtrain_density.elements import by_species
from atomtrain_soap_bpnn.hypers import LongRange as LongRangeHypers


class LongRange(nn.Module):
    """``[n_atoms, n_features] -> [n_atoms, n_features]``; see the module's text.

    ``radius`` is that of the short-ranged features. Charges and layers are shared by all elements.
    """

    def __init__(self, hypers: LongRangeHypers, n_features: int, radius: float) -> None:
        super().__init__()
        self.radius = float(radius)
        # between the images of a slab, which see each other smeared; see also _slab
        self.vacuum = 8.0 * hypers.smearing
        potential = CoulombPotential(smearing=hypers.smearing, exclusion_radius=self.radius)
        if hypers.use_ewald:
            self.calculator = EwaldCalculator(
                potential, lr_wavelength=hypers.kspace_resolution, full_neighbor_list=True
            )
        else:
            self.calculator = _P3M(
                potential,
                mesh_spacing=hypers.kspace_resolution,
                interpolation_nodes=hypers.interpolation_nodes,
                full_neighbor_list=True,
            )
        for module in self.calculator.modules():  # torch-pme's constants are no weights
            for name, buffer in list(module.named_buffers(recurse=False)):
                module.register_buffer(name, buffer, persistent=False)
        self.charges = nn.Linear(n_features, n_features)
        self.output = nn.Sequential(
            nn.Linear(n_features, n_features), nn.SiLU(), nn.Linear(n_features, n_features)
        )

    def forward(self, graph: AtomGraph, features: Tensor) -> Tensor:
        """The long-range features of all atoms.

        Raises DataError (ValueError in TorchScript) for structures periodic in one direction only.
        """
        return self.output(self.potential(graph, self.charges(features)))

    def potential(self, graph: AtomGraph, charges: Tensor) -> Tensor:
        """The potential ``[n_atoms, n_charges]`` that ``charges [n_atoms, n_charges]`` make."""
        n_periodic: List[int] = graph.pbc.sum(1).tolist()
        rows: List[Tensor] = []
        values: List[Tensor] = []
        molecule = (~graph.pbc.any(1)).to(torch.int64)
        atoms_of_molecules = torch.nonzero(molecule.index_select(0, graph.structure)).squeeze(1)
        if atoms_of_molecules.shape[0] > 0:
            number = (torch.cumsum(molecule, 0) - 1).index_select(0, graph.structure)
            rows.append(atoms_of_molecules)
            values.append(
                _direct_sum(
                    graph.positions.index_select(0, atoms_of_molecules),
                    charges.index_select(0, atoms_of_molecules),
                    number.index_select(0, atoms_of_molecules),
                    int(molecule.sum()),
                    self.radius,
                )
            )
        for k in range(len(n_periodic)):
            if n_periodic[k] == 0:
                continue
            if n_periodic[k] == 1:
                _refuse_wire()
            atoms = torch.nonzero(graph.structure == k).squeeze(1)
            positions = graph.positions.index_select(0, atoms)
            own_charges = charges.index_select(0, atoms)
            cell = graph.cells[k]
            correction: Optional[Tensor] = None
            if n_periodic[k] == 2:
                cell, correction = _slab(cell, graph.pbc[k], positions, own_charges, self.vacuum)
            value = self.calculator._compute_kspace(own_charges, cell, positions)
            if correction is not None:
                value = value + correction
            rows.append(atoms)
            values.append(value)
        potential = torch.zeros_like(charges).index_copy(0, torch.cat(rows), torch.cat(values))

        # what the sums over waves have too much within the radius
        centers, neighbors, vectors = graph.centers, graph.neighbors, graph.vectors
        if atoms_of_molecules.shape[0] > 0:
            of_molecule = molecule.index_select(0, graph.structure.index_select(0, centers))
            pairs = torch.nonzero(of_molecule == 0).squeeze(1)
            centers, neighbors = centers.index_select(0, pairs), neighbors.index_select(0, pairs)
            vectors = vectors.index_select(0, pairs)
        kernel = self.calculator.potential.sr_from_dist(torch.linalg.vector_norm(vectors, dim=1))
        near = charges.index_select(0, neighbors) * (0.5 * kernel).unsqueeze(1)
        return potential.index_add(0, centers, near)


class _P3M(P3MCalculator):
    """torch-pme's P3M with its part on the mesh written anew.

    The original one has no second derivatives in the cell, which training on stress needs (those of
    a norm and a sinc at zero are NaN), takes the mesh's axes for those of space where it divides by
    the shape of the charges, goes over the charges one by one, and keeps tensors with gradients on
    itself, so that a model could not be copied. The values are the same in cells along x, y, z.
    """

    def _compute_kspace(
        self,
        charges: Tensor,
        cell: Tensor,
        positions: Tensor,
        periodic: Optional[Tensor] = None,
        node_mask: Optional[Tensor] = None,
        kvectors: Optional[Tensor] = None,
    ) -> Tensor:
        """``charges [n_atoms, n_charges]``, ``cell [3, 3]``, ``positions [n_atoms, 3]``."""
        n_atoms, n_charges = charges.shape[0], charges.shape[1]
        size = get_ns_mesh(cell.detach(), self.mesh_spacing)  # [3] int64
        sizes: List[int] = size.tolist()

        # weight of each atom at the nodes around it, [n_nodes^3, n_atoms]
        nodes = self.interpolation_nodes
        x = torch.matmul(positions, torch.linalg.inv(cell)) * size  # in units of the mesh
        if nodes % 2 == 0:
            first = torch.floor(x.detach())
            offset = x - (first + 0.5)
        else:
            first = torch.round(x.detach())
            offset = x - first
        along = self.mesh_interpolator._compute_1d_weights(offset).to(x.dtype)
        wx, wy, wz = along.unbind(2)  # [n_nodes, n_atoms]
        weights = (wx[:, None, None] * wy[None, :, None] * wz[None, None, :]).reshape(-1, n_atoms)
        steps = torch.arange(1 - (nodes + 1) // 2, 1 + nodes // 2, device=x.device)
        places = (first.to(torch.int64) + steps.reshape(-1, 1, 1)) % size
        px, py, pz = places.unbind(2)
        rows = px[:, None, None] * sizes[1] + py[None, :, None]
        rows = (rows * sizes[2] + pz[None, None, :]).flatten()

        spread = (weights.unsqueeze(2) * charges).flatten(0, 1)  # [n_nodes^3 * n_atoms, n_charges]
        mesh = torch.zeros(
            (sizes[0] * sizes[1] * sizes[2], n_charges), dtype=x.dtype, device=x.device
        ).index_add(0, rows, spread)
        waves = torch.view_as_real(
            torch.fft.rfftn(mesh.reshape(sizes + [n_charges]), dim=[0, 1, 2])
        )
        # real numbers: TorchScript's own derivative of complex times real is wrong
        waves = torch.view_as_complex(waves * self._green(cell, size, sizes)[..., None, None])
        mesh = torch.fft.irfftn(waves, s=sizes, dim=[0, 1, 2], norm="forward")
        at_nodes = mesh.reshape(-1, n_charges).index_select(0, rows)
        potential = (at_nodes.reshape(-1, n_atoms, n_charges) * weights.unsqueeze(2)).sum(0)

        background = 2 * self.potential.background_correction() * charges.sum(0)
        potential = (potential - background) / torch.linalg.det(cell).abs()
        return 0.5 * (potential - charges * self.potential.self_contribution())

    def _green(self, cell: Tensor, size: Tensor, sizes: List[int]) -> Tensor:
        """Green's function over the square of the charges' shape, ``[n_x, n_y, n_z / 2 + 1]``."""
        kernel = self.potential.lr_from_k_sq(
            generate_kvectors_for_mesh(cell=cell, ns=size).square().sum(3)
        )
        # sin(x) / x with x half the phase from one node to the next, in each direction
        sx = torch.sinc(torch.fft.fftfreq(sizes[0], dtype=cell.dtype, device=cell.device))
        sy = torch.sinc(torch.fft.fftfreq(sizes[1], dtype=cell.dtype, device=cell.device))
        sz = torch.sinc(torch.fft.rfftfreq(sizes[2], dtype=cell.dtype, device=cell.device))
        shape = sx[:, None, None] * sy[None, :, None] * sz[None, None, :]
        return kernel / shape ** (2 * self.interpolation_nodes)


def _direct_sum(
    positions: Tensor, charges: Tensor, molecule: Tensor, n_molecules: int, radius: float
) -> Tensor:
    """The potential in molecules, all at once; ``molecule [n_atoms]`` counts them from 0.

    Molecules are padded to the largest, so that everything is a batched product.
    """
    layout = by_species(molecule, n_molecules)
    shape = [n_molecules, layout.width]
    there = torch.zeros(layout.rows.shape[0], dtype=torch.bool, device=positions.device)
    there = there.index_fill(0, layout.places, True).reshape(shape)
    x = positions.index_select(0, layout.rows).reshape(shape + [3])
    others = ~torch.eye(layout.width, dtype=torch.bool, device=positions.device)
    pair = there.unsqueeze(1) & there.unsqueeze(2) & others
    squares = (x.unsqueeze(1) - x.unsqueeze(2)).square().sum(3)
    r = torch.sqrt(torch.where(pair, squares, 1.0))
    outside = 0.5 - 0.5 * torch.cos(math.pi * (r / radius).clamp(max=1.0))
    kernel = torch.where(pair, 0.5 * outside / r, 0.0)
    q = charges.index_select(0, layout.rows).reshape(shape + [charges.shape[1]])
    return torch.bmm(kernel, q).flatten(0, 1).index_select(0, layout.places)


def _slab(
    cell: Tensor, pbc: Tensor, positions: Tensor, charges: Tensor, vacuum: float
) -> Tuple[Tensor, Tensor]:
    """A cell with vacuum for a structure periodic in two directions, and what corrects for it.

    The correction ``[n_atoms, n_charges]`` removes the interaction of the slab with its images, up
    to what decays exponentially over the vacuum: it is twice the sides of the cell or more.
    """
    open_axis = int(torch.argmin(pbc.to(torch.int64)))
    a, b = cell[(open_axis + 1) % 3], cell[(open_axis + 2) % 3]
    normal = torch.linalg.cross(a, b)
    area = torch.linalg.vector_norm(normal)
    normal = normal / area
    height = torch.mv(positions, normal).unsqueeze(1)
    sides = torch.linalg.vector_norm(cell.detach(), dim=1).max()
    length = (height.max() - height.min()).detach() + (2.0 * sides).clamp(min=vacuum)
    rows = [cell[0], cell[1], cell[2]]
    rows[open_axis] = normal * length
    total = charges.sum(0)
    dipole = (charges * height).sum(0)
    second = (charges * height.square()).sum(0)
    correction = (
        height * dipole - 0.5 * (second + total * height.square()) - total * length**2 / 12.0
    )
    return torch.stack(rows), 2.0 * math.pi / (area * length) * correction


def _refuse_wire() -> None:
    message = (
        "long_range: a structure is periodic in one direction only, which the sums cannot do; make "
        "it periodic in two or three directions with vacuum between the images, or in none"
    )
    if torch.jit.is_scripting():
        raise ValueError(message)
    else:  # noqa: RET506  (TorchScript would compile it otherwise)
        raise DataError(message)
