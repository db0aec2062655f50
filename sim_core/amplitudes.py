"""Lookup of structure factor amplitudes at the nearest reflection, or between reflections."""

from itertools import product
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .experiment import AmplitudeGrid, StructureFactors

Number = TypeVar("Number", Tensor, float)


def padded_values(structure_factors: StructureFactors) -> Float[Tensor, "n"]:
    """The box with a layer of the default all around, l running fastest; one value for a constant."""
    table, default = structure_factors.table, structure_factors.default
    if table.numel() == 0:
        return default.reshape(1)
    for axis in range(3):
        shape = [*table.shape]
        shape[axis] = 1
        layer = default.expand(shape)
        table = torch.cat([layer, table, layer], axis)
    return table.flatten()


def nearest_reflection(h: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """The nearest integers; a half is rounded down, as in the reference program."""
    return (h - 0.5).ceil_()


def box_limits(h_min: Int[Tensor, "3"], box: tuple[int, int, int]) -> tuple[Float[Tensor, "3 1 1"], list[int]]:
    """Lowest indices of the padded box, and its size, for :func:`padded_index`."""
    return (h_min - 1).double().view(3, 1, 1), [n + 2 for n in box]


def padded_index(
    hkl: Float[Tensor, "3 rows samples"], low: Float[Tensor, "3 1 1"], size: list[int]
) -> Int[Tensor, "rows samples"]:
    """Places of whole-numbered reflections in :func:`padded_values`: outside the box in its layer of the default."""
    h, k, l = ((hkl[i] - low[i]).clamp_(0, size[i] - 1) for i in range(3))
    return h.mul_(size[1]).add_(k).mul_(size[2]).add_(l).long()


def interpolable(
    hkl: Float[Tensor, "3 *batch"], h_min: Int[Tensor, "3"], box: tuple[int, int, int]
) -> Bool[Tensor, "*batch"]:
    """Whether the 4 x 4 x 4 reflections around fractional indices are all in the box."""
    inside = [(h - low + 3 <= size) & (h - 2 >= low) for h, low, size in zip(hkl, h_min, box, strict=True)]
    return inside[0] & inside[1] & inside[2]


def tricubic(
    table: Float[Tensor, "h k l"], h_min: Int[Tensor, "3"], hkl: Float[Tensor, "3 *batch"]
) -> Float[Tensor, "*batch"]:
    r"""Amplitudes between reflections: the cubic Lagrange polynomial through four neighbours along each axis.

    .. math:: F(h) = \sum_{ijk} L_i(h) L_j(k) L_k(l) F_{ijk}, \quad L_i(x) = \prod_{j \ne i} (x - x_j)/(x_i - x_j)

    Smooth in the table and, within a cell of the lattice, in the indices. Between the outermost points of the box the
    cell next to the border holds, too; beyond them the value means nothing.

    References: ``polin3`` in nanoBragg.
    """
    if min(table.shape) < 4:
        return table.new_zeros(hkl.shape[1:])
    sizes = torch.tensor(table.shape, device=hkl.device).view(3, *[1] * (hkl.ndim - 1))
    low = h_min.view(sizes.shape)
    place = torch.minimum((hkl.detach().floor().long() - 1 - low).clamp(min=0), sizes - 4)
    weights = [lagrange(t) for t in (hkl - (place + low + 1)).to(table.dtype)]
    _, n_k, n_l = table.shape
    corner = (place[0] * n_k + place[1]) * n_l + place[2]
    flat = table.flatten()
    total = torch.zeros_like(weights[0][0])
    for i, j in product(range(4), range(4)):
        row = corner + (i * n_k + j) * n_l
        line = sum(weights[2][k] * flat[row + k] for k in range(4))
        total = total + weights[0][i] * weights[1][j] * line
    return total


def intensity_between(grid: AmplitudeGrid, hkl: Float[Tensor, "3 *batch"]) -> Float[Tensor, "*batch"]:
    """|F|^2 at fractional indices; beyond the grid, of four points or more along each axis, that of its border."""
    axes = zip(hkl, grid.rate, grid.low.tolist(), grid.real.shape, strict=True)
    held = torch.stack([(h * rate).clamp(low, low + size - 1) for h, rate, low, size in axes])
    return tricubic(grid.real, grid.low, held).square() + tricubic(grid.imaginary, grid.low, held).square()


def lagrange(t: Number) -> tuple[Number, Number, Number, Number]:
    """Cubic Lagrange polynomials of the nodes -1, 0, 1, 2."""
    a, b, c = t + 1, t - 1, t - 2
    return -t * b * c / 6, a * b * c / 2, -a * t * c / 2, a * t * b / 6


def lagrange_slopes(t: Number) -> tuple[Number, Number, Number, Number]:
    """Their derivatives."""
    square = 3 * t * t
    return (6 * t - square - 2) / 6, (square - 4 * t - 1) / 2, (2 * t + 2 - square) / 2, (square - 1) / 6
