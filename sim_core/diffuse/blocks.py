r"""Vibrations of a finite block of cells: what its shape leaves of the inverse dynamical matrix.

With the covariance of displacements a cells apart, averaged over the wavevectors :math:`\kappa` that fit the block,

.. math:: G(h) = \sum_d C_d \prod_i c(d_i)\, e^{-2\pi i\,h \cdot d}
    = \sum_\kappa K(\kappa)^{-1} \prod_i w(h_i - \kappa_i), \quad
    w(x) = \frac1M \sum_{|d| < M} c(d)\, e^{2\pi i\,d x}

A parallelepiped has the lag weights c = 1 - |d|/N, and w is its :math:`|L|^2/N^2`: weights that add up to one. G
diverges nowhere, and far from lattice points it is K(h)^-1 of a large crystal. Numbers of cells are real; that of the
wavevectors, M, is whole and constant in a derivative.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from ..interference import Gaussian, Shape, Square
from .dynamical_matrix import dynamical_matrix
from .elastic_network import Contacts, Springs, rigid_body_hessian, skew
from .response import AtBragg, implicit_inverse, response

Pair = tuple[int, int, int]


@runtime_checkable
class Window(Protocol):
    """The share c of pairs of cells that are d cells apart in a block."""

    def points(self, n: float) -> int:
        """Wavevectors M along an edge of n cells."""

    def lags(self, n: Float[Tensor, ""], d: Float[Tensor, "lags"]) -> tuple[Tensor, Tensor]:
        """The share of each lag d >= 0, and its derivative in n."""


@dataclass(frozen=True)
class Triangle:
    """A parallelepiped: c = 1 - d/N."""

    def points(self, n: float) -> int:
        """As many as cells."""
        return max(1, round(n))

    def lags(self, n: Float[Tensor, ""], d: Float[Tensor, "lags"]) -> tuple[Tensor, Tensor]:
        """A line."""
        return 1 - d / n, d / n**2


@dataclass(frozen=True)
class Bell:
    r"""Gaussian blocks, :math:`|L|^2 = N^2 e^{-\pi N^2 x^2}`: :math:`c = e^{-\pi d^2/N^2}`, cut off at 4e-6."""

    def points(self, n: float) -> int:
        """Twice as many as cells."""
        return max(1, round(2 * n))

    def lags(self, n: Float[Tensor, ""], d: Float[Tensor, "lags"]) -> tuple[Tensor, Tensor]:
        """A Gaussian."""
        c = torch.exp(-torch.pi * d**2 / n**2)
        return c, 2 * torch.pi * d**2 / n**3 * c


def window_of(shape: Shape) -> Window:
    """The window of blocks with this interference function.

    Raises:
        ValueError: for another shape than a parallelepiped or a Gaussian.
    """
    if isinstance(shape, Square):
        return Triangle()
    if isinstance(shape, Gaussian):
        return Bell()
    raise ValueError(f"shape: expected square or gaussian for blocks that vibrate, got {type(shape).__name__.lower()}")


class BlockGrid(NamedTuple):
    """Wavevectors that fit a block, one of each pair k, -k.

    Attributes:
        sizes: Wavevectors along each axis.
        kappa: In units of the reciprocal cell.
        plus: Where each of them stands in the whole grid, the last axis fastest.
        minus: Where its negative stands; the same place for a wavevector that is its own negative.
    """

    sizes: Pair
    kappa: Float[Tensor, "half 3"]
    plus: Int[Tensor, "half"]
    minus: Int[Tensor, "half"]

    def alone(self) -> Float[Tensor, "half"]:
        """A half for a wavevector that is its own negative, else one."""
        return 1 - 0.5 * (self.plus == self.minus).to(self.kappa)


def block_grid(window: Window, n_cells: Float[Tensor, "3"]) -> BlockGrid:
    """Wavevectors of blocks with these numbers of cells."""
    sizes = [window.points(float(n)) for n in n_cells.detach()]
    axes = [torch.arange(m, device=n_cells.device) for m in sizes]
    index = torch.cartesian_prod(*axes)
    size = index.new_tensor(sizes)
    mirrored = (-index) % size
    stride = index.new_tensor([sizes[1] * sizes[2], sizes[2], 1])
    plus, minus = (index * stride).sum(-1), (mirrored * stride).sum(-1)
    half = plus <= minus
    fraction = index[half].to(torch.float64) / size
    kappa = fraction - torch.round(fraction)
    return BlockGrid((sizes[0], sizes[1], sizes[2]), kappa, plus[half], minus[half])


def block_inverses(
    lever_arms: Float[Tensor, "units atoms 3"], contacts: Contacts, springs: Springs, grid: BlockGrid
) -> Complex[Tensor, "half M M"]:
    """Inverse dynamical matrices of rigid units at the wavevectors of a block, without the three uniform shifts.

    Args:
        lever_arms: Atoms relative to the point that their unit turns about [A].
        contacts: The network.
        springs: Spring constants.
        grid: Wavevectors.
    """
    hessian = rigid_body_hessian(lever_arms, contacts, springs)
    K = dynamical_matrix(hessian, contacts.cells, grid.kappa)
    shifts = torch.eye(6, 3, dtype=K.real.dtype, device=K.device).repeat(contacts.units, 1) / contacts.units**0.5
    known = response(K.detach(), shifts, grid.kappa, AtBragg(1e-9, finite=True))
    return implicit_inverse(K, known.inverse)


def displacements(
    inverses: Complex[Tensor, "half M M"], grid: BlockGrid, lever_arms: Float[Tensor, "units atoms 3"]
) -> Float[Tensor, "units atoms 3 3"]:
    r"""Mean square displacements :math:`U_j = A_j C_0 A_j^T` of the atoms of a block [A^2], A = (1 | S(s)).

    Args:
        inverses: From :func:`block_inverses`.
        grid: Their wavevectors.
        lever_arms: Atoms relative to the point that their unit turns about [A].
    """
    units, count = len(lever_arms), grid.sizes[0] * grid.sizes[1] * grid.sizes[2]
    c0 = torch.einsum("k,kab->ab", 2 * grid.alone() / count, inverses.real)
    own = c0.reshape(units, 6, units, 6).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
    eye = torch.eye(3, dtype=lever_arms.dtype, device=lever_arms.device)
    a = torch.cat([eye.expand(*lever_arms.shape[:-1], 3, 3), skew(lever_arms)], -1)
    return a @ own[:, None] @ a.mT


class Packed(NamedTuple):
    """Hermitian matrices as real numbers: what multiplies each of them in a quadratic form.

    Attributes:
        real: Real parts of the upper triangle.
        imaginary: Imaginary parts.
    """

    real: Float[Tensor, "*batch triangle"]
    imaginary: Float[Tensor, "*batch triangle"]


def triangle(size: int, device: torch.device) -> tuple[Int[Tensor, "triangle"], Int[Tensor, "triangle"]]:
    """Rows and columns of the upper triangle of a matrix."""
    rows, columns = torch.triu_indices(size, size, device=device).unbind(0)
    return rows, columns


def pack(matrices: Complex[Tensor, "*batch M M"]) -> Packed:
    """Upper triangles."""
    rows, columns = triangle(matrices.shape[-1], matrices.device)
    upper = matrices[..., rows, columns]
    return Packed(upper.real, upper.imag)


def unpack(packed: Packed, size: int) -> tuple[Float[Tensor, "*batch M M"], Float[Tensor, "*batch M M"]]:
    """Real and imaginary parts of the whole matrices."""
    rows, columns = triangle(size, packed.real.device)
    place = rows.new_zeros(size, size)
    count = torch.arange(len(rows), device=rows.device)
    place[rows, columns] = count
    place[columns, rows] = count
    sign = torch.ones(size, size, dtype=packed.real.dtype, device=rows.device).triu_()
    sign = sign - sign.mT
    shape = (*packed.real.shape[:-1], size, size)
    real = packed.real[..., place.flatten()].reshape(shape)
    return real, packed.imaginary[..., place.flatten()].reshape(shape) * sign


def outer(real: Float[Tensor, "points M"], imaginary: Float[Tensor, "points M"]) -> Packed:
    r"""Numbers V with :math:`F^\dagger X F = V \cdot X` for packed hermitian matrices X."""
    rows, columns = triangle(real.shape[-1], real.device)
    twice = torch.where(rows == columns, 1.0, 2.0).to(real)
    a, b, c, d = real[:, rows] * twice, imaginary[:, rows] * twice, real[:, columns], imaginary[:, columns]
    return Packed(torch.addcmul(a * c, b, d), torch.addcmul(b * c, a, d, value=-1))


class Axis(NamedTuple):
    """Weights of the wavevectors along one axis at some indices, and their derivatives in index and number of cells."""

    value: Float[Tensor, "*batch points"]
    by_h: Float[Tensor, "*batch points"]
    by_n: Float[Tensor, "*batch points"]


def axis_tables(window: Window, n: Float[Tensor, ""], size: int) -> Float[Tensor, "3 waves points"]:
    """What cosines and sines of 2 pi d h are multiplied by to give w(h - m/M), its slope in h, and that in n.

    Args:
        window: Shape of the block.
        n: Cells along the edge.
        size: M.
    """
    d = torch.arange(size, dtype=torch.float64, device=n.device)
    c, by_n = window.lags(n.to(torch.float64), d)
    angle = 2 * torch.pi * torch.outer(d, d / size)
    twice = torch.where(d > 0, 2.0, 1.0).to(d)[:, None] / size
    cosine, sine, rate = twice * angle.cos(), twice * angle.sin(), 2 * torch.pi * (d * c)[:, None]
    tables = [
        torch.cat([c[:, None] * cosine, c[:, None] * sine]),
        torch.cat([rate * sine, -rate * cosine]),
        torch.cat([by_n[:, None] * cosine, by_n[:, None] * sine]),
    ]
    return torch.stack(tables)


def axis_weights(
    window: Window, h: Float[Tensor, "*batch"], n: Float[Tensor, ""], size: int, dtype: torch.dtype, orders: int = 3
) -> Axis:
    """Weights w(h - m/M) for m = 0 ... M - 1.

    Args:
        window: Shape of the block.
        h: Fractional Miller indices.
        n: Cells along the edge.
        size: M.
        dtype: Precision of the weights.
        orders: One for values alone, two with the slope in h, three with that in n; others are empty.
    """
    tables = axis_tables(window, n, size)[:orders].to(dtype)
    waves = torch.cat(powers(h - torch.round(h.detach()), size, dtype), -1)
    parts = (waves @ tables.transpose(0, 1).flatten(1)).split(size, -1)
    return Axis(*parts, *[parts[0][..., :0]] * (3 - orders))


def powers(
    h: Float[Tensor, "*batch"], count: int, dtype: torch.dtype
) -> tuple[Float[Tensor, "*batch count"], Float[Tensor, "*batch count"]]:
    r"""Cosines and sines of :math:`2\pi d h` for d = 0 ... count - 1, doubled again and again from the first."""
    angle = (2 * torch.pi * h).to(dtype)[..., None]
    cosine, sine = torch.ones_like(angle), torch.zeros_like(angle)
    while cosine.shape[-1] < count:
        step = angle * cosine.shape[-1]
        a, b = step.cos(), step.sin()
        turned = cosine * a - sine * b, cosine * b + sine * a
        cosine, sine = torch.cat([cosine, turned[0]], -1), torch.cat([sine, turned[1]], -1)
    return cosine[..., :count], sine[..., :count]
