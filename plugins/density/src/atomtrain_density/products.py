"""From the density of an atom's neighbourhood to invariant features of several neighbours at a time.

A density ``D`` has ``K = (degree + 1)^2`` harmonics and Q columns (elements of neighbours times radial
functions). Learnt combinations of the columns give channels, ``A = D W`` by degree and element of the center. A
channel is a function on the sphere; two are multiplied pointwise on a grid that is exact for them and taken back
to harmonics, ``B = Z (Y A1 * Y A2)`` (the Gaunt product: doi 10.48550/arXiv.2401.10216). Features are the channels
of degree 0 and, degree by degree, the scalar products of A1 with A2 (three bodies), B with A3 (four), B with B
(five): the atomic cluster expansion (doi 10.1103/PhysRevB.99.014104) with products in canonical form.

Rows of a table are ordered by element of the center, then harmonic, then atom, so that what belongs to one element
and degree is a matrix, and nothing is padded. All of it is bilinear steps: values, slopes in the density,
and derivatives of both in the weights are written out here, in as many products as the values need four times.

Annotated without ``from __future__ import annotations``, which TorchScript cannot read here.
"""

import math
from typing import List, NamedTuple, Optional, Tuple

import torch
from torch import Tensor, nn

from atomtrain_density.elements import BySpecies
from atomtrain_density.harmonics import SphericalHarmonics, quadrature


class Channels(NamedTuple):
    """What products are made of and what they give, rows as the module's text says."""

    pair: Tensor
    """[n_rows, 2 C], A1 beside A2"""
    third: Tensor
    """[n_rows, C], A3; no columns for correlation 2"""
    points: Tensor
    """[n_rows_of_points, 2 C], A1 and A2 on the grid"""
    product: Tensor
    """[n_rows, C], B"""


class Moved(NamedTuple):
    """Of features that change with the density: what :meth:`Products.adjoint` has to know."""

    tangent: Channels
    """how channels change"""
    slopes: Channels
    """what :meth:`Products.adjoint` gave for the features as they are"""
    by_dot: List[Tensor]
    """and the list it gave"""


class Wanted(NamedTuple):
    """Derivatives in what others than the features are made of."""

    first: Tensor
    """[n_rows, up to C], in the first channels of A1"""
    product: Tensor
    """[n_rows, C], in B (for correlation 2, in A1)"""


class Plain(NamedTuple):
    """What :meth:`Products.plain` gives, atoms in the order of the structures."""

    channels: Tensor
    """[K, n_atoms, n_channels], all of them side by side"""
    product: Tensor
    """[K, n_atoms, C], B (for correlation 2, A1)"""
    features: Tensor
    """[n_atoms, n_features]"""


class Products(nn.Module):
    """The products for channels ``C`` up to ``correlation`` neighbours (2 to 4)."""

    def __init__(self, degree: int, channels: int, correlation: int) -> None:
        super().__init__()
        self.degree = degree
        self.channels = channels
        self.correlation = correlation
        self.n_harmonics = (degree + 1) ** 2
        self.rows: List[int] = [2 * k + 1 for k in range(degree + 1)]
        self.n_third = channels if correlation > 2 else 0
        self.n_features = 2 * channels + self.n_third + (degree + 1) * channels * (correlation - 1)
        points, weights = quadrature(3 * degree)
        y = SphericalHarmonics(degree)(torch.from_numpy(points))
        norm = math.sqrt(
            4 * math.pi / self.n_harmonics
        )  # values on points are as large as channels
        by_degree = torch.zeros(degree + 1, self.n_harmonics, dtype=torch.float64)
        for k in range(degree + 1):
            by_degree[k, k * k : (k + 1) ** 2] = 1.0 / math.sqrt(2 * k + 1)
        self.to_points: Tensor
        self.from_points: Tensor
        self.by_degree: Tensor
        self.register_buffer("to_points", y * norm, persistent=False)
        back = y.T * torch.from_numpy(weights) / norm
        self.register_buffer("from_points", back.contiguous(), persistent=False)
        self.register_buffer("by_degree", by_degree, persistent=False)

    # -- steps -----------------------------------------------------------------------------------

    @torch.jit.ignore
    def neighbors_of_features(self) -> Tensor:
        """How many neighbours each feature looks at together, ``[n_features]``: 1 to ``correlation``."""
        orders = [torch.ones(2 * self.channels + self.n_third)]
        for order in range(2, self.correlation + 1):
            orders.append(torch.full([(self.degree + 1) * self.channels], float(order)))
        return torch.cat(orders)

    def mix(self, density: List[Tensor], weight: Tensor) -> Tensor:
        """``A = D W``: ``[K n_s, Q]`` per element, ``[L + 1, S, Q, m]`` -> ``[n_rows, m]``."""
        n_rows = 0
        for d in density:
            n_rows += d.shape[0]
        a = torch.empty([n_rows, weight.shape[3]], dtype=weight.dtype, device=weight.device)
        blocks, matrices = self._blocks(density), self._matrices(weight)
        for k, into in enumerate(self._blocks(self._by_element(a, density))):
            torch.mm(blocks[k], matrices[k], out=into)
        return a

    def unmix(self, a: Tensor, weight: Tensor, counts: List[int]) -> List[Tensor]:
        """The adjoint of :meth:`mix` in the density."""
        parts: List[Tensor] = []
        for n in counts:
            size = [self.n_harmonics * n, weight.shape[2]]
            parts.append(torch.empty(size, dtype=a.dtype, device=a.device))
        blocks = self._blocks(self._by_element(a, parts))
        matrices = self._matrices(weight.transpose(2, 3))
        for k, into in enumerate(self._blocks(parts)):
            torch.mm(blocks[k], matrices[k], out=into)
        return parts

    def by_weight(self, density: List[Tensor], a: Tensor, into: Tensor, beta: float) -> None:
        """The adjoint of :meth:`mix` in the weights, added to ``into`` times ``beta``."""
        blocks, matrices = self._blocks(self._by_element(a, density)), self._matrices(into)
        for k, left in enumerate(self._blocks(density)):
            torch.addmm(matrices[k], left.t(), blocks[k], beta=beta, out=matrices[k])

    def unmixed(self, c: Channels, pair: Tensor, third: Tensor, counts: List[int]) -> List[Tensor]:
        """From derivatives in all channels to those in the density."""
        density = self.unmix(c.pair, pair, counts)
        if self.n_third > 0:
            for k, more in enumerate(self.unmix(c.third, third, counts)):
                density[k] += more
        return density

    def by_weights(self, density: List[Tensor], c: Channels) -> Tuple[Tensor, Tensor]:
        """From derivatives in all channels of this density to those in ``pair`` and ``third``."""
        shape = [self.degree + 1, len(density), density[0].shape[1], 2 * self.channels]
        pair = torch.empty(shape, dtype=c.pair.dtype, device=c.pair.device)
        third = torch.empty(shape[:3] + [self.n_third], dtype=c.pair.dtype, device=c.pair.device)
        self.by_weight(density, c.pair, pair, 0.0)
        if self.n_third > 0:
            self.by_weight(density, c.third, third, 0.0)
        return pair, third

    def add_by_weights(
        self, density: List[Tensor], c: Channels, pair: Tensor, third: Tensor
    ) -> None:
        """Add them to these."""
        self.by_weight(density, c.pair, pair, 1.0)
        if self.n_third > 0:
            self.by_weight(density, c.third, third, 1.0)

    def _blocks(self, parts: List[Tensor]) -> List[Tensor]:
        """Rows ``[K n_s, m]`` of each element as ``[(2 l + 1) n_s, m]`` by element and degree."""
        blocks: List[Tensor] = []
        for part in parts:
            n = part.shape[0] // self.n_harmonics
            blocks.extend(part.split_with_sizes([r * n for r in self.rows]))
        return blocks

    def _matrices(self, weight: Tensor) -> List[Tensor]:
        """``[L + 1, S, ...]`` by element and degree."""
        matrices: List[Tensor] = []
        for of_element in weight.unbind(1):
            matrices.extend(of_element.unbind(0))
        return matrices

    def _by_element(self, a: Tensor, parts: List[Tensor]) -> List[Tensor]:
        """``[n_rows, m]`` cut as rows are in ``parts``."""
        sizes: List[int] = []
        for part in parts:
            sizes.append(part.shape[0])
        return list(a.split_with_sizes(sizes))

    def transform(self, table: Tensor, x: Tensor, counts: List[int]) -> Tensor:
        """``table [r, c]`` on the harmonics or points of every element: ``[sum c n_s, m]`` -> ``[sum r n_s, m]``."""
        r, c = table.shape
        n_atoms = x.shape[0] // c
        y = torch.empty([n_atoms * r, x.shape[1]], dtype=x.dtype, device=x.device)
        first = 0
        for n in counts:
            source = x[first * c : (first + n) * c].view(c, n * x.shape[1])
            target = y[first * r : (first + n) * r].view(r, n * x.shape[1])
            torch.mm(table, source, out=target)
            first += n
        return y

    def channels_of(
        self,
        density: List[Tensor],
        pair: Tensor,
        third: Tensor,
        counts: List[int],
        at: Optional[Channels] = None,
    ) -> Channels:
        """Channels, their values on the grid, and products; of channels ``at`` how they change with the density."""
        a = self.mix(density, pair)
        if self.correlation < 3:
            return Channels(a, a[:, :0], a[:, :0], a[:, :0])
        points = self.transform(self.to_points, a, counts)
        u, v = points.chunk(2, 1)
        if at is None:
            product = u * v
        else:
            u0, v0 = at.points.chunk(2, 1)
            product = torch.addcmul(u * v0, u0, v)
        b = self.transform(self.from_points, product, counts)
        return Channels(a, self.mix(density, third), points, b)

    def features(
        self, c: Channels, counts: List[int], tangent: Optional[Channels] = None
    ) -> Tensor:
        """``[n_atoms, n_features]``, atoms by element; with a ``tangent`` of the channels, how they change."""
        t = c if tangent is None else tangent
        a1, a2 = c.pair.chunk(2, 1)
        t1, t2 = t.pair.chunk(2, 1)
        dots = [a1 * t2]
        if self.correlation > 2:
            dots.append(c.product * t.third)
        if self.correlation > 3:
            dots.append(c.product * t.product)
        if tangent is not None:
            dots[0].addcmul_(t1, a2)
            if self.correlation > 2:
                dots[1].addcmul_(t.product, c.third)
            if self.correlation > 3:
                dots[2].mul_(2.0)
        return self._gathered(t, dots, counts)

    def _gathered(self, c: Channels, dots: List[Tensor], counts: List[int]) -> Tensor:
        """Channels of degree 0 and, by degree, sums of rows of ``dots``."""
        n_atoms = 0
        for n in counts:
            n_atoms += n
        f = torch.empty([n_atoms, self.n_features], dtype=c.pair.dtype, device=c.pair.device)
        n_pair = 2 * self.channels
        n_linear = n_pair + self.n_third
        sums: List[Tensor] = []
        for x in dots:
            sums.append(self.transform(self.by_degree, x, counts))
        first = 0
        n_degrees, m = self.degree + 1, self.channels
        for n in counts:
            row = first * self.n_harmonics
            own = f[first : first + n]
            own[:, :n_pair] = c.pair[row : row + n]
            own[:, n_pair:n_linear] = c.third[row : row + n]
            low = n_linear
            for x in sums:
                part = x[first * n_degrees : (first + n) * n_degrees].view(n_degrees, n, m)
                own[:, low : low + n_degrees * m].view(n, n_degrees, m).copy_(part.transpose(0, 1))
                low += n_degrees * m
            first += n
        return f

    def spread(self, g: Tensor, counts: List[int]) -> List[Tensor]:
        """The adjoint of the sums over rows: for each kind of scalar product ``[n_rows, C]``."""
        n_degrees, m = self.degree + 1, self.channels
        low = 2 * m + self.n_third
        found: List[Tensor] = []
        for _ in range(self.correlation - 1):
            by_degree = torch.empty([g.shape[0] * n_degrees, m], dtype=g.dtype, device=g.device)
            first = 0
            for n in counts:
                part = g[first : first + n, low : low + n_degrees * m].unflatten(1, [n_degrees, m])
                into = by_degree[first * n_degrees : (first + n) * n_degrees]
                into.view(n_degrees, n, m).copy_(part.transpose(0, 1))
                first += n
            found.append(self.transform(self.by_degree.t(), by_degree, counts))
            low += n_degrees * m
        return found

    def add_linear(self, g: Tensor, pair: Tensor, third: Tensor, counts: List[int]) -> None:
        """Add what features of degree 0 ask of channels."""
        first = 0
        n_pair = 2 * self.channels
        for n in counts:
            row = first * self.n_harmonics
            pair[row : row + n] += g[first : first + n, :n_pair]
            third[row : row + n] += g[first : first + n, n_pair : n_pair + self.n_third]
            first += n

    def adjoint(
        self,
        c: Channels,
        g: Tensor,
        counts: List[int],
        moved: Optional[Moved] = None,
        wanted: Optional[Wanted] = None,
    ) -> Tuple[Channels, List[Tensor]]:
        """Derivatives in channels of ``<g, features>``, ``g [n_atoms, n_features]``.

        In ``points`` of the result is the derivative in the product on the grid (C columns); the list
        is :meth:`spread`. ``moved``: of ``<g, features> + <g0, tangent features>``, with what is known of the latter.
        ``wanted``: what others ask beside the features.
        """
        by_dot = self.spread(g, counts)
        m = self.channels
        pair = crosswise(by_dot[0], c.pair)
        if moved is not None:
            t1, t2 = moved.tangent.pair.chunk(2, 1)
            pair[:, :m].addcmul_(moved.by_dot[0], t2)
            pair[:, m:].addcmul_(moved.by_dot[0], t1)
        if wanted is not None:
            pair[:, : wanted.first.shape[1]] += wanted.first
            if self.correlation < 3:
                pair[:, :m] += wanted.product
        if self.correlation < 3:
            none = pair[:, :0]
            self.add_linear(g, pair, none, counts)
            return Channels(pair, none, none, none), by_dot
        product, third = by_dot[1] * c.third, by_dot[1] * c.product
        if moved is not None:
            product.addcmul_(moved.by_dot[1], moved.tangent.third)
            third.addcmul_(moved.by_dot[1], moved.tangent.product)
        if wanted is not None:
            product += wanted.product
        if self.correlation > 3:
            product.addcmul_(by_dot[2], c.product, value=2.0)
            if moved is not None:
                product.addcmul_(moved.by_dot[2], moved.tangent.product, value=2.0)
        on_points = self.transform(self.from_points.t(), product, counts)
        both = crosswise(on_points, c.points)
        if moved is not None:
            du, dv = moved.tangent.points.chunk(2, 1)
            both[:, :m].addcmul_(moved.slopes.points, dv)
            both[:, m:].addcmul_(moved.slopes.points, du)
        pair += self.transform(self.to_points.t(), both, counts)
        self.add_linear(g, pair, third, counts)
        return Channels(pair, third, on_points, product), by_dot

    # -- the same for autograd -----------------------------------------------------------------

    def plain(self, density: Tensor, layout: BySpecies, pair: Tensor, third: Tensor) -> Plain:
        """All of it in operations that can be differentiated as often as one likes.

        ``density [n_atoms, K, Q]``, atoms in the order of the structures.
        """
        rows = self._plain_rows(density, layout)
        a = self._plain_mix(rows, layout, pair)
        a1, a2 = a.chunk(2, 2)
        channels, b = a, a1
        dots = [a1 * a2]
        if self.correlation > 2:
            u, v = self._plain_transform(self.to_points, a).chunk(2, 2)
            b = self._plain_transform(self.from_points, u * v)
            c = self._plain_mix(rows, layout, third)
            dots.append(b * c)
            channels = torch.cat([a, c], 2)
        if self.correlation > 3:
            dots.append(b * b)
        features = [channels[0]]
        for x in dots:
            by_degree = self._plain_transform(self.by_degree, x)
            features.append(by_degree.transpose(0, 1).flatten(1))
        return Plain(channels, b, torch.cat(features, 1))

    def plain_mix(self, density: Tensor, layout: BySpecies, weight: Tensor) -> Tensor:
        """``[n_atoms, K, Q]`` and ``[L + 1, S, Q, m]`` -> ``[K, n_atoms, m]``."""
        return self._plain_mix(self._plain_rows(density, layout), layout, weight)

    def _plain_rows(self, density: Tensor, layout: BySpecies) -> Tensor:
        """``[n_atoms, K, Q] -> [S, K, width, Q]``, atoms padded by element."""
        rows = density.index_select(0, layout.rows)
        shape = [layout.n_species, layout.width, self.n_harmonics, density.shape[2]]
        return rows.reshape(shape).transpose(1, 2)

    def _plain_mix(self, rows: Tensor, layout: BySpecies, weight: Tensor) -> Tensor:
        """``[S, K, width, Q]``, atoms padded by element, and ``[L + 1, S, Q, m]`` -> ``[K, n_atoms, m]``."""
        n_species, width, n_columns = rows.shape[0], rows.shape[2], rows.shape[3]
        weights = weight.unbind(0)
        parts: List[Tensor] = []
        for k, of_degree in enumerate(rows.split_with_sizes(self.rows, 1)):
            a = torch.bmm(of_degree.reshape(n_species, -1, n_columns), weights[k])
            a = a.reshape(n_species, 2 * k + 1, width, weight.shape[3]).transpose(0, 1)
            parts.append(a.flatten(1, 2).index_select(1, layout.places))
        return torch.cat(parts, 0)

    def _plain_transform(self, table: Tensor, x: Tensor) -> Tensor:
        return torch.mm(table, x.flatten(1)).reshape(table.shape[0], x.shape[1], x.shape[2])


def crosswise(g: Tensor, both: Tensor) -> Tensor:
    """``g`` times each half of ``both [n, 2 m]``, in the other's place: derivatives of a product of the halves."""
    a1, a2 = both.chunk(2, 1)
    found = torch.empty_like(both)
    torch.mul(g, a2, out=found[:, : g.shape[1]])
    torch.mul(g, a1, out=found[:, g.shape[1] :])
    return found
