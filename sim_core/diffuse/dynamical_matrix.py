"""The dynamical matrix of a crystal, what it answers to a force, and its modes."""

from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Bool, Complex, Float, Int
from torch import Tensor

from .elastic_network import Contacts

SINGULAR = 1e-13
"""Pivots, and eigenvalues, below this part of the largest diagonal element count as zero."""


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


def laplacian(
    gamma: Float[Tensor, "pairs"], contacts: Contacts, kappa: Float[Tensor, "k 3"]
) -> Complex[Tensor, "k atoms_in_cell atoms_in_cell"]:
    r"""Dynamical matrix of single atoms, :math:`K_{ij}(k) = \delta_{ij} \sum_l \gamma_{il} - \sum_d \gamma_{ijd}
    e^{2\pi i\,\kappa \cdot d}`, straight from the contacts.

    Args:
        gamma: Spring constant of each pair [k_B T/A^2].
        contacts: The pairs.
        kappa: Wavevectors in units of the reciprocal cell.
    """
    size = contacts.units * contacts.atoms
    phase = 2 * torch.pi * (kappa @ contacts.cells.to(kappa).T)[:, contacts.cell]
    pair = torch.complex(-gamma * phase.cos(), -gamma * phase.sin())
    place = contacts.first * size + contacts.second
    matrix = pair.new_zeros(len(kappa), size * size).index_add(1, place, pair)
    own = gamma.to(pair.dtype).expand(len(kappa), -1)
    return matrix.index_add(1, contacts.first * (size + 1), own).reshape(-1, size, size)


class Response(NamedTuple):
    """An inverse ready for use, constant in every derivative.

    Attributes:
        inverse: Inverse, or pseudo-inverse, of each matrix; zero where there is none.
        singular: Matrices with zero modes that were not taken out.
    """

    inverse: Complex[Tensor, "k M M"]
    singular: Bool[Tensor, "k"]


@torch.no_grad()
def response(
    matrices: Complex[Tensor, "k M M"],
    translations: Float[Tensor, "M shifts"],
    at_bragg: Bool[Tensor, "k"],
    finite: bool,
) -> Response:
    r"""Inverse of dynamical matrices by Cholesky decomposition.

    At a Bragg point the crystal shifts as a whole without a force. These modes are known beforehand, T; with
    P = 1 - T T^T the inverse on the rest is :math:`P (P K P + c\,T T^T)^{-1} P` for any c > 0. Where modes beyond these
    are soft (parts of a crystal without contacts), the pseudo-inverse is taken from the eigenvectors.

    Args:
        matrices: Hermitian, positive.
        translations: Orthonormal uniform translations T.
        at_bragg: Where T is to be taken out.
        finite: Give pseudo-inverses where there are zero modes; otherwise flag them.
    """
    size = matrices.diagonal(dim1=-1, dim2=-2).real.amax(-1)
    uniform = (translations @ translations.T).to(matrices)
    eye = torch.eye(len(uniform), dtype=matrices.dtype, device=matrices.device)
    others = eye - uniform
    regular = matrices
    if bool(at_bragg.any()):
        deflated = others @ matrices[at_bragg] @ others + size[at_bragg, None, None] * uniform
        regular = matrices.index_put((at_bragg,), deflated)
    factor, info = torch.linalg.cholesky_ex(regular)
    pivots = factor.diagonal(dim1=-1, dim2=-2).real.square()
    singular = (info != 0) | ~(pivots.amin(-1) > SINGULAR * size)
    factor = torch.where(singular[:, None, None], eye, factor)
    inverse = torch.cholesky_inverse(factor)
    if bool(at_bragg.any()):
        inverse[at_bragg] = others @ inverse[at_bragg] @ others
    if finite and bool(singular.any()):
        inverse[singular] = _pseudo_inverse(regular[singular], size[singular])
        both = at_bragg & singular
        inverse[both] = others @ inverse[both] @ others
        return Response(inverse, torch.zeros_like(singular))
    singular = singular | at_bragg if not finite else singular
    return Response(torch.where(singular[:, None, None], 0, inverse), singular)


def _pseudo_inverse(matrices: Complex[Tensor, "k M M"], size: Float[Tensor, "k"]) -> Complex[Tensor, "k M M"]:
    values, vectors = torch.linalg.eigh(matrices)
    zero = values <= 1e3 * SINGULAR * size[:, None]
    weights = torch.where(zero, 0, 1 / torch.where(zero, 1, values))
    return (vectors * weights[:, None, :]) @ vectors.mH


def implicit_inverse(matrices: Complex[Tensor, "k M M"], inverse: Complex[Tensor, "k M M"]) -> Complex[Tensor, "k M M"]:
    """The inverse with its derivative -K^-1 dK K^-1, which also holds for a pseudo-inverse whose null space is fixed.

    One Newton step, 2 P - P K P, leaves the value as it is and carries exactly this derivative.
    """
    return 2 * inverse - inverse @ matrices @ inverse


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
