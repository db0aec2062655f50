"""A crystal whose blocks vibrate: what its atoms, its springs and the size of its blocks say, before any pixel."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..experiment import Structure
from ..unit_cell import pdb_basis
from .blocks import BlockGrid, Packed, Window, block_grid, block_inverses, displacements, pack
from .bodies import centred
from .elastic_network import Contacts, Springs, find_contacts


class Vibrations(NamedTuple):
    """Rigid units of a crystal and how they move.

    Attributes:
        basis: Rows a, b, c of the cell [A] in the frame of the atoms.
        fractional: Atoms of every unit.
        lever_arms: The same relative to the centre of their unit [A].
        grid: Wavevectors that fit a block.
        inverses: Inverse dynamical matrices there [A^2 / k_B T].
        u_cart: Mean square displacements of the atoms of a block [A^2], in the frame of the atoms.
    """

    basis: Float[Tensor, "3 3"]
    fractional: Float[Tensor, "units atoms 3"]
    lever_arms: Float[Tensor, "units atoms 3"]
    grid: BlockGrid
    inverses: Packed
    u_cart: Float[Tensor, "units atoms 3 3"]


def vibrations(
    structure: Structure,
    cell: Float[Tensor, "6"],
    contacts: Contacts,
    springs: Springs,
    n_cells: Float[Tensor, "3"],
    window: Window,
) -> Vibrations:
    """How the units of a crystal move, differentiable in coordinates, cell and springs.

    Args:
        structure: The atoms.
        cell: a, b, c [A], alpha, beta, gamma [rad].
        contacts: The network, from :func:`contacts_of`.
        springs: Its spring constants.
        n_cells: Cells along the edges of a block.
        window: Shape of a block.
    """
    basis, fractional = pdb_basis(cell), structure.positions()
    lever_arms = centred(fractional) @ basis
    grid = block_grid(window, n_cells)
    inverses = block_inverses(lever_arms, contacts, springs, grid)
    u_cart = displacements(inverses, grid, lever_arms)
    return Vibrations(basis, fractional, lever_arms, grid, pack(inverses), u_cart)


def isotropic(structure: Structure) -> Float[Tensor, "units atoms 3 3"]:
    """Mean square displacements B / 8 pi^2 [A^2] of every atom along any direction."""
    eye = torch.eye(3, dtype=structure.b_iso.dtype, device=structure.b_iso.device)
    u = structure.b_iso[:, None, None] * eye / (8 * torch.pi**2)
    return u.expand(len(structure.rotations), -1, -1, -1)


def contacts_of(structure: Structure, cell: Float[Tensor, "6"], cutoff: float) -> Contacts:
    """Pairs of atoms no further apart than a cutoff [A]; constant in every derivative."""
    basis = pdb_basis(cell).detach()
    return find_contacts(structure.positions().detach() @ basis, basis, cutoff)
