"""The dynamical matrix of a crystal and its modes."""

from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor


def dynamical_matrix(
    hessian: Float[Tensor, "cells M M"], cells: Int[Tensor, "cells 3"], kappa: Float[Tensor, "k 3"]
) -> Complex[Tensor, "k M M"]:
    r"""Fourier transform of the Hessian, :math:`K(k) = \sum_d H_d e^{2\pi i\,\kappa \cdot d}`, without masses.

    Args:
        hessian: Blocks between the origin cell and each cell.
        cells: Index of each cell.
        kappa: Wavevectors in units of the reciprocal cell, where K repeats with period one.
    """
    phase = 2 * torch.pi * kappa @ cells.to(kappa).T
    flat = hessian.flatten(1)
    return torch.complex(phase.cos() @ flat, phase.sin() @ flat).reshape(-1, *hessian.shape[1:])


class Modes(NamedTuple):
    """Normal modes, softest first.

    Attributes:
        omega: Angular frequencies [sqrt(k_B T / A^2 / dalton)].
        shapes: Displacements for one unit of each mode, columns.
    """

    omega: Float[Tensor, "k M"]
    shapes: Complex[Tensor, "k M M"]


def normal_modes(matrices: Complex[Tensor, "k M M"], mass: Float[Tensor, "M M"]) -> Modes:
    r"""Solutions of :math:`K v = \omega^2 M_0 v`; not meant to be differentiated where frequencies coincide.

    Args:
        matrices: Dynamical matrices without masses.
        mass: Mass matrix :math:`M_0 = L L^T`.
    """
    lower = torch.linalg.cholesky(mass).to(matrices)
    left = torch.linalg.solve_triangular(lower, matrices, upper=False)
    weighted = torch.linalg.solve_triangular(lower, left.mH, upper=False).mH
    values, vectors = torch.linalg.eigh((weighted + weighted.mH) / 2)
    shapes = torch.linalg.solve_triangular(lower.mH, vectors, upper=True)
    return Modes(values.clamp_min(0).sqrt(), shapes)


def dispersion(
    hessian: Float[Tensor, "cells M M"],
    cells: Int[Tensor, "cells 3"],
    mass: Float[Tensor, "M M"],
    corners: Float[Tensor, "corners 3"],
    steps: int,
) -> tuple[Float[Tensor, "k 3"], Float[Tensor, "k M"]]:
    """Frequencies along straight lines between corners of the Brillouin zone.

    Args:
        hessian: Blocks of the Hessian.
        cells: Index of each cell.
        mass: Mass matrix.
        corners: Ends of the lines, in units of the reciprocal cell.
        steps: Points on each line.

    Returns:
        Wavevectors in units of the reciprocal cell, and frequencies.
    """
    t = torch.arange(steps, dtype=corners.dtype, device=corners.device)[:, None] / steps
    lines = [start + t * (end - start) for start, end in pairwise(corners)]
    kappa = torch.cat([*lines, corners[-1:]])
    return kappa, normal_modes(dynamical_matrix(hessian, cells, kappa), mass).omega


def density_of_states(omega: Float[Tensor, "k M"], bins: int) -> tuple[Float[Tensor, "edges"], Float[Tensor, "bins"]]:
    """Histogram of frequencies, normalised to one mode for each degree of freedom of the cell.

    Returns:
        Edges of the bins, and modes for each unit of frequency.
    """
    density, edges = torch.histogram(omega.flatten().cpu(), bins)
    return edges, density / len(omega) / (edges[1] - edges[0])
