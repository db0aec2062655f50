"""Lattice factors in the reference's own form.

Where it takes the sine of the full index and not of the distance to the nearest reflection, the last bits differ from
those of :mod:`sim_core.interference`; single precision has no use for them and takes the well-conditioned form.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from .vectors import Vector


def grating(u: Float[Tensor, "*batch"], n: int) -> Float[Tensor, "*batch"]:
    """sin(n u) / sin(u); n where u is exactly zero."""
    return torch.where(u == 0.0, float(n), torch.sin(u * n) / torch.sin(u))


def sphere(u: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """3 (sin u / u - cos u) / u^2; one where u is exactly zero."""
    return torch.where(u == 0.0, 1.0, 3.0 * (torch.sin(u) / u - torch.cos(u)) / (u * u))


def lattice_factor(
    shape: str,
    h: Float[Tensor, "3 rows samples"],
    x: Float[Tensor, "3 rows samples"],
    n_cells: tuple[int, int, int],
    reciprocal: tuple[Vector, Vector, Vector],
    fudge: float,
) -> Float[Tensor, "rows samples"]:
    """F_latt of a block.

    Args:
        shape: ``square``, ``round``, ``gauss`` or ``tophat``.
        h: Fractional indices.
        x: Distance from the nearest reflection.
        n_cells: Unit cells along a, b, c.
        reciprocal: a*, b*, c* [1/A].
        fudge: Scale of the width.

    References: ``F_latt`` in nanoBragg.
    """
    na, nb, nc = (float(n) for n in n_cells)
    if shape == "square":
        factors = [grating(math.pi * h[i], n) for i, n in enumerate(n_cells) if n > 1]
        product = torch.ones_like(h[0])
        for factor in factors:
            product = product * factor
        return product
    if shape == "round":
        radius2 = x[0] * x[0] * na * na + x[1] * x[1] * nb * nb + x[2] * x[2] * nc * nc
        return na * nb * nc * 0.723601254558268 * sphere(math.pi * torch.sqrt(radius2 * fudge))
    a, b, c = reciprocal
    dx, dy, dz = (x[0] * a[i] + x[1] * b[i] + x[2] * c[i] for i in range(3))
    radius2 = (dx * dx + dy * dy + dz * dz) * na * na * nb * nb * nc * nc
    if shape == "gauss":
        return na * nb * nc * torch.exp(-(radius2 / 0.63 * fudge))
    return na * nb * nc * (radius2 * fudge < 0.3969).to(radius2.dtype)
