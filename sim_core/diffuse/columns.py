r"""Waves scattered by atoms at the points of a grid, where they are products of functions of two indices and of one.

With the third reciprocal axis at right angles to the two others, :math:`q^2` has no term that mixes it with them and

.. math:: e^{-q^2 U_j/2}\,e^{iq \cdot x_j} = P_j(h, k)\,E_j(l),

so a sum over atoms at all points is a product of two matrices, one product for each kind of atom. A column is a pair of
the two indices, a level a value of the third. Which axis is the third is a matter of the cell and of the points.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from ..form_factors import FormFactors, form_factor
from ..scattered_waves import turns
from .brillouin import RESOLUTION, unique_rows
from .structure import Placed, cell_positions

SPARSE = 8
"""A grid of which less than one point in this number is wanted is not worth its products."""


class Columns(NamedTuple):
    """Points as pairs of a column and a level.

    Attributes:
        axes: Axes of the columns' two indices, then that of the levels.
        pairs: Indices of each column; columns with the same fractions of them stand together.
        levels: Third indices.
        column: Column of each point.
        level: Level of each point.
    """

    axes: tuple[int, int, int]
    pairs: Float[Tensor, "columns 2"]
    levels: Float[Tensor, "levels"]
    column: Int[Tensor, "points"]
    level: Int[Tensor, "points"]


def find_columns(hkl: Float[Tensor, "points 3"], basis: Float[Tensor, "3 3"]) -> Columns | None:
    """Columns of the points; ``None`` where they fill no grid, or no reciprocal axis is normal to the two others.

    Args:
        hkl: Fractional Miller indices.
        basis: Rows a, b, c of the cell [A].
    """
    metric = reciprocal_metric(basis)
    found = None
    for axis in range(3):
        first, second = (a for a in range(3) if a != axis)
        size = (metric[axis, axis] * metric.diagonal()).sqrt()
        if len(hkl) and bool((metric[axis, [first, second]].abs() < 1e-14 * size[[first, second]]).all()):
            columns = _columns(hkl.detach(), (first, second, axis))
            if found is None or len(columns.pairs) < len(found.pairs):
                found = columns
    if found is None or len(found.pairs) * len(found.levels) > SPARSE * len(hkl):
        return None
    return found


def _columns(hkl: Float[Tensor, "points 3"], axes: tuple[int, int, int]) -> Columns:
    key = torch.round(hkl * RESOLUTION).long()
    pairs, levels = list(axes[:2]), axes[2]
    column, level = unique_rows(key[:, pairs]), unique_rows(key[:, [levels]])
    value = hkl.new_zeros(int(column.max()) + 1, 2).index_copy(0, column, hkl[:, pairs])
    fraction = torch.round((value - torch.floor(value)) * RESOLUTION).long() % int(RESOLUTION)
    order = unique_rows(fraction).argsort(stable=True)
    height = hkl.new_zeros(int(level.max()) + 1).index_copy(0, level, hkl[:, levels])
    return Columns(axes, value[order], height, order.argsort()[column], level)


def reciprocal_metric(basis: Float[Tensor, "3 3"]) -> Float[Tensor, "3 3"]:
    """Matrix G with q^2 = h^T G h [1/A^2]."""
    inverse = torch.linalg.inv(basis)
    return 4 * torch.pi**2 * inverse.T @ inverse


class Scatterers(NamedTuple):
    """Atoms sorted by their kind.

    Attributes:
        fractional: Positions in fractions of the cell.
        u_iso: Mean square displacements [A^2], the same in every unit.
        form_factors: Scattering power.
        metric: From :func:`reciprocal_metric`.
    """

    fractional: Float[Tensor, "units atoms 3"]
    u_iso: Float[Tensor, "atoms"]
    form_factors: FormFactors
    metric: Float[Tensor, "3 3"]


def sorted_scatterers(structure: Placed, u_iso: Float[Tensor, "atoms"]) -> tuple[Scatterers, Int[Tensor, "atoms"]]:
    """Atoms of a structure sorted by their kind, and their order.

    Args:
        structure: The crystal.
        u_iso: Mean square displacements [A^2].
    """
    table = structure.form_factors
    order = table.kind.argsort(stable=True)
    fractional = (cell_positions(structure) @ torch.linalg.inv(structure.basis))[:, order]
    metric = reciprocal_metric(structure.basis)
    return Scatterers(fractional, u_iso[order], replace(table, kind=table.kind[order]), metric), order


def enumerate_columns(columns: Columns, size: int) -> Iterator[tuple[int, Int[Tensor, "n"]]]:
    """First of some columns at a time, and the points in them.

    Args:
        columns: All of them.
        size: Columns at a time.
    """
    order = columns.column.argsort(stable=True)
    ends = torch.bincount(columns.column, minlength=len(columns.pairs)).cumsum(0).tolist()
    begin = 0
    for start in range(0, len(ends), size):
        end = ends[min(start + size, len(ends)) - 1]
        yield start, order[begin:end]
        begin = end


def level_waves(
    atoms: Scatterers, factors: Float[Tensor, "units atoms factors"], columns: Columns, dtype: torch.dtype
) -> Complex[Tensor, "units atoms products"]:
    """Waves E at every level, times each of the factors; the levels of one factor stand together.

    Args:
        atoms: The atoms.
        factors: What is summed.
        columns: The points.
        dtype: Precision of the result.
    """
    axis, levels = columns.axes[2], columns.levels
    height = torch.exp(-0.5 * atoms.metric[axis, axis] * atoms.u_iso[:, None] * levels.square())
    cosine, sine = turns(atoms.fractional[..., axis, None] * levels, dtype)
    heights = factors.to(dtype)[..., None] * height.to(dtype)[:, None]
    return torch.complex(heights * cosine[..., None, :], heights * sine[..., None, :]).flatten(2)


def column_sums(
    atoms: Scatterers, waves: Complex[Tensor, "units atoms products"], columns: Columns, chosen: slice
) -> Complex[Tensor, "columns levels units factors"]:
    r"""Sums :math:`\sum_j f_j e^{-q^2 U_j/2} e^{iq \cdot x_j} t_j` over the atoms of each unit, at all levels.

    Args:
        atoms: The atoms.
        waves: From :func:`level_waves`, with the factors t.
        columns: The points.
        chosen: Which columns.
    """
    pair, axis = list(columns.axes[:2]), columns.axes[2]
    pairs, levels = columns.pairs[chosen], columns.levels
    square = torch.einsum("ca,ab,cb->c", pairs, atoms.metric[pair][:, pair], pairs)
    height = torch.exp(-0.5 * square[:, None] * atoms.u_iso).to(waves.real.dtype)
    cosine, sine = turns(pairs @ atoms.fractional[..., pair].transpose(-1, -2), height.dtype)
    pair_waves = torch.complex(height * cosine, height * sine)
    stol2 = (square[:, None] + atoms.metric[axis, axis] * levels.square()) / (16 * torch.pi**2)
    table = atoms.form_factors
    scattering = form_factor(stol2.flatten(), table.a, table.b, table.c).to(height.dtype)
    counts = torch.bincount(table.kind, minlength=len(table.c)).tolist()
    total = torch.zeros((), dtype=height.dtype, device=height.device)
    for left, right, f in zip(pair_waves.split(counts, 2), waves.split(counts, 1), scattering.unbind(1), strict=True):
        sums = torch.view_as_real(left @ right).reshape(*left.shape[:2], -1, 2 * len(levels))
        total = torch.addcmul(total, sums, f.reshape(-1, 1, len(levels)).repeat_interleave(2, -1))
    return torch.view_as_complex(total.unflatten(-1, (-1, 2))).permute(1, 3, 0, 2)
