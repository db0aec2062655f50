r"""Structure factors of atoms, at whole indices or between them.

.. math:: F(h) = \sum_j o_j f_j(q)\, e^{-q \cdot U_j q/2}\, e^{2\pi i\,h \cdot x_j}

Every function is differentiable in coordinates, displacements and cell. Displacements are tensors in the Cartesian
frame of atomic models (a along x); nothing else of that frame is left in the result.
"""

from itertools import product

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from .experiment import Structure
from .scattered_waves import elements, sort_kinds
from .unit_cell import pdb_basis
from .wave_sum import Atoms, wave_sum

MIDPOINT = 0.0168
"""Root mean square of (t + 1) t (t - 1) (t - 2) / 24 over one interval: the error of a cubic through four points."""


def amplitudes(
    structure: Structure,
    cell: Float[Tensor, "6"],
    u_cart: Float[Tensor, "units atoms 3 3"],
    hkl: Float[Tensor, "points 3"],
    origin: Float[Tensor, "3"] | None = None,
    dtype: torch.dtype = torch.float64,
) -> Complex[Tensor, "points"]:
    """Structure factors F [electron] of all atoms of a cell.

    Args:
        structure: The atoms.
        cell: a, b, c [A], alpha, beta, gamma [rad].
        u_cart: Mean square displacements of the atoms [A^2].
        hkl: Fractional Miller indices.
        origin: Point in fractional coordinates that phases are relative to.
        dtype: Precision of the sums.
    """
    kinds = sort_kinds(structure.form_factors)
    fractional = structure.positions()[:, kinds.order]
    if origin is not None:
        fractional = fractional - origin
    q = 2 * torch.pi * hkl @ torch.linalg.inv(pdb_basis(cell)).T
    atoms = Atoms(kinds, structure.weight[kinds.order], dtype)
    real, imaginary = wave_sum(hkl, q, fractional, elements(u_cart)[:, kinds.order], atoms)
    return torch.complex(real, imaginary)


def modulus(F: Complex[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """|F|, with the derivative zero where F is."""
    square = F.real.square() + F.imag.square()
    return torch.where(square > 0, torch.where(square > 0, square, 1.0).sqrt(), 0.0)


def amplitude_table(
    structure: Structure,
    cell: Float[Tensor, "6"],
    u_cart: Float[Tensor, "units atoms 3 3"],
    h_min: Int[Tensor, "3"],
    size: tuple[int, int, int],
) -> Float[Tensor, "h k l"]:
    """|F| [electron] of the reflections in a box, for :class:`sim_core.experiment.StructureFactors`.

    Args:
        structure: The atoms.
        cell: a, b, c [A], alpha, beta, gamma [rad].
        u_cart: Mean square displacements of the atoms [A^2].
        h_min: Lowest indices of the box.
        size: Indices along each axis.
    """
    axes = [torch.arange(n, device=h_min.device) + low for n, low in zip(size, h_min, strict=True)]
    hkl = torch.cartesian_prod(*axes).to(torch.float64)
    return modulus(amplitudes(structure, cell, u_cart, hkl)).reshape(size)


def middle(structure: Structure) -> Float[Tensor, "3"]:
    """Mean of all atoms of the cell, in fractional coordinates; constant in a derivative."""
    return structure.positions().detach().mean((0, 1))


def needed_rates(structure: Structure, tolerance: float = 1e-3) -> tuple[int, int, int]:
    r"""Points for each index along each axis from which cubics through four of them give F between them.

    A wave :math:`e^{2\pi i\,h x}` is missed by :math:`(2\pi x/r)^4 (t+1)t(t-1)(t-2)/24`; phases of atoms are random,
    positions x are relative to :func:`middle`.

    Args:
        structure: The atoms.
        tolerance: Root mean square error, relative to that of F.
    """
    x = (structure.positions().detach() - middle(structure)).flatten(0, 1)
    spread = x.pow(8).mean(0).pow(1 / 8)
    rates = 2 * torch.pi * spread * (MIDPOINT * 3**0.5 / tolerance) ** 0.25
    h, k, l = (max(1, int(r)) for r in rates.ceil())
    return h, k, l


def amplitude_grid(
    structure: Structure,
    cell: Float[Tensor, "6"],
    u_cart: Float[Tensor, "units atoms 3 3"],
    h_min: Int[Tensor, "3"],
    size: tuple[int, int, int],
    rates: tuple[int, int, int],
    dtype: torch.dtype = torch.float64,
) -> Complex[Tensor, "h k l"]:
    """F [electron] on a fine grid, with phases relative to the middle of the atoms, which makes it smooth.

    Args:
        structure: The atoms.
        cell: a, b, c [A], alpha, beta, gamma [rad].
        u_cart: Mean square displacements of the atoms [A^2].
        h_min: Lowest point along each axis, in steps of the grid.
        size: Points along each axis.
        rates: Points for each index along each axis, from :func:`needed_rates`.
        dtype: Precision of the sums.
    """
    axes = [
        (torch.arange(n, device=h_min.device) + low).to(torch.float64) / rate
        for n, low, rate in zip(size, h_min, rates, strict=True)
    ]
    F = amplitudes(structure, cell, u_cart, torch.cartesian_prod(*axes), middle(structure), dtype)
    return F.reshape(size)


def between(F: Complex[Tensor, "h k l"], places: Float[Tensor, "points 3"]) -> Complex[Tensor, "points"]:
    """F between the points of a grid, by cubics through four of them along each axis.

    Args:
        F: Values on a grid.
        places: Places in steps of the grid, from its first point; at least one step from its faces.
    """
    floor = places.detach().floor()
    t = places - floor
    a, b, c = t + 1, t - 1, t - 2
    weights = torch.stack([-t * b * c / 6, a * b * c / 2, -a * t * c / 2, a * t * b / 6])
    start = floor.long() - 1
    strides = F.shape[1] * F.shape[2], F.shape[2], 1
    flat, total = torch.view_as_real(F.flatten()), torch.zeros_like(t[:, :2])
    for i, j, k in product(range(4), repeat=3):
        row = (start[:, 0] + i) * strides[0] + (start[:, 1] + j) * strides[1] + start[:, 2] + k
        total = total + (weights[i, :, 0] * weights[j, :, 1] * weights[k, :, 2])[:, None] * flat[row]
    return torch.view_as_complex(total)
