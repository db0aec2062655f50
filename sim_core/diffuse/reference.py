"""How the program eryx computes one-phonon scattering, kept for comparison with its maps.

It departs from the equations in :mod:`one_phonon` in five ways: rotations are taken about running sums of the
atoms' positions; structure factors belong to the wavevector -q; neighbours are only searched in adjacent cells;
units are packed by shifts that need not be lattice vectors; mean square displacements are taken from the diagonal of
the covariance and come out about three times too large.

References: https://github.com/apeck12/eryx, class ``OnePhonon``.
"""

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .bodies import Bodies, RigidUnits
from .elastic_network import skew
from .structure import Placed, cell_positions

REACH = 1
"""Cells along each axis in which it looks for neighbours."""


def accumulated(positions: Float[Tensor, "units atoms 3"]) -> Float[Tensor, "units atoms 3"]:
    """Running sum of the atoms relative to the mean of their unit [A]."""
    return (positions - positions.mean(1, keepdim=True)).cumsum(1)


def packed_by_axes(structure: Placed, operations: Int[Tensor, "units 3 3"]) -> Placed:
    """Units whose centre lies outside the box (0, 0, 0)-(a, b, c) moved by the sizes of turned cell diagonals.

    Args:
        structure: The crystal.
        operations: Rotations in fractional coordinates.
    """
    centres = cell_positions(structure).detach().mean(1)
    diagonal = (operations.to(structure.basis).sum(-1) @ structure.basis).abs()
    lengths = structure.basis.norm(dim=-1)
    shift = torch.where(centres < 0, diagonal, 0) - torch.where(centres > lengths, diagonal, 0)
    return replace(structure, translations=structure.translations + shift)


def u_iso_of_diagonal(covariance: Float[Tensor, "M M"], structure: Placed, bodies: Bodies) -> Float[Tensor, "atoms"]:
    """Sum of the displacements that the diagonal of the covariance, read as one displacement, gives each atom."""
    assert isinstance(bodies, RigidUnits)
    s = bodies.lever_arms(cell_positions(structure))
    g = covariance.diagonal().reshape(-1, 6)
    shift = g[:, None, :3] + torch.einsum("ujxl,ul->ujx", skew(s), g[:, 3:])
    u = shift.sum((0, -1))
    return u * (3 * structure.b_iso.mean() / (8 * torch.pi**2) / u.mean())
