r"""Springs between atoms in contact, in one cell and across its periodic images.

The energy is isotropic (a Gaussian network): a contact of atoms i and j costs :math:`\tfrac12\gamma|u_i - u_j|^2`.
"""

from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Springs(NamedTuple):
    """Spring constants [k_B T / A^2] within one asymmetric unit and between two of them."""

    gamma_intra: Float[Tensor, ""]
    gamma_inter: Float[Tensor, ""]


@dataclass(frozen=True)
class Contacts:
    """Directed pairs of atoms: each contact is listed from both of its ends.

    Attributes:
        units: Number of asymmetric units in the cell.
        atoms: Number of atoms in each.
        first: Index ``unit * atoms + atom`` of the atom in the origin cell.
        second: The same of its neighbour.
        cells: The cells in which neighbours lie; the first is the origin.
        cell: Row of ``cells`` for each pair.
    """

    units: int
    atoms: int
    first: Int[Tensor, "pairs"]
    second: Int[Tensor, "pairs"]
    cells: Int[Tensor, "cells 3"]
    cell: Int[Tensor, "pairs"]

    def intra(self) -> Bool[Tensor, "pairs"]:
        """Pairs within one asymmetric unit; a copy of it in another cell is another unit."""
        return (self.cell == 0) & (self.first // self.atoms == self.second // self.atoms)

    def constants(self, springs: Springs) -> Float[Tensor, "pairs"]:
        """Spring constant of each pair."""
        return torch.where(self.intra(), springs.gamma_intra, springs.gamma_inter)


def find_contacts(
    positions: Float[Tensor, "units atoms 3"],
    basis: Float[Tensor, "3 3"],
    cutoff: float,
    reach: int | None = None,
) -> Contacts:
    """All pairs of atoms no further apart than a cutoff, over every periodic image that can be in reach.

    Atoms are sorted into boxes at least as wide as the cutoff, where the cell is wide enough, so that only boxes
    nearby are searched.

    Args:
        positions: Atoms of the cell [A].
        basis: Rows a, b, c [A].
        cutoff: Largest distance of a contact [A].
        reach: Only look in cells up to this index along each axis; ``None`` looks in all.
    """
    units, atoms, _ = positions.shape
    x = positions.detach().reshape(-1, 3)
    heights = 1 / torch.linalg.inv(basis).norm(dim=0)
    boxes = torch.clamp(torch.floor(heights / cutoff), 1, 64).long()
    steps = torch.ceil(cutoff / (heights / boxes) - 1e-9).long().clamp_min(1)
    fractional = x @ torch.linalg.inv(basis)
    home = torch.floor(fractional).long()
    box = torch.minimum(((fractional - home) * boxes).long(), boxes - 1)
    sorted_box, order = _flat(box, boxes).sort(stable=True)
    found = []
    for offset in product(*(range(-s, s + 1) for s in steps.tolist())):
        there = box + torch.tensor(offset, device=x.device)
        cell = torch.div(there, boxes, rounding_mode="floor")
        target = _flat(there - cell * boxes, boxes)
        begin = torch.searchsorted(sorted_box, target)
        count = torch.searchsorted(sorted_box, target, right=True) - begin
        i = torch.repeat_interleave(torch.arange(len(x), device=x.device), count)
        rank = torch.arange(len(i), device=x.device) - torch.repeat_interleave(count.cumsum(0) - count, count)
        j = order[begin[i] + rank]
        d = cell[i] + home[i] - home[j]
        near = (x[j] + d.to(x) @ basis - x[i]).norm(dim=-1) <= cutoff
        near &= (i != j) | (d != 0).any(-1)
        if reach is not None:
            near &= (d.abs() <= reach).all(-1)
        found.append(torch.cat([i[near, None], j[near, None], d[near]], -1))
    pairs = torch.cat(found)
    width = 2 * int(pairs[:, 2:].abs().max()) + 1 if len(pairs) else 1
    code = ((pairs[:, 2] * width + pairs[:, 3]) * width + pairs[:, 4]).contiguous()
    distinct, place = torch.unique(torch.cat([code.new_zeros(1), code]), return_inverse=True)
    cells = pairs.new_zeros(len(distinct), 3).index_copy(0, place[1:], pairs[:, 2:])
    order = cells.abs().sum(-1).argsort(stable=True)
    place = order.argsort()[place[1:]]
    return Contacts(units, atoms, pairs[:, 0].contiguous(), pairs[:, 1].contiguous(), cells[order], place)


def rigid_body_hessian(
    lever_arms: Float[Tensor, "units atoms 3"], contacts: Contacts, springs: Springs
) -> Float[Tensor, "cells M M"]:
    r"""Second derivatives of the energy for units that only shift and turn: M = 6 units.

    With u = (1, s), a block only needs the moments :math:`\sum \gamma u_i u_j^T` over its contacts; see
    :func:`expand_moments`.

    Args:
        lever_arms: Atoms relative to the point that their unit turns about [A].
        contacts: The network.
        springs: Spring constants.
    """
    n, cells = contacts.units, len(contacts.cells)
    u = torch.cat([torch.ones_like(lever_arms[..., :1]), lever_arms], -1).reshape(-1, 4)
    gamma = contacts.constants(springs)
    first, second = contacts.first // contacts.atoms, contacts.second // contacts.atoms
    block = (contacts.cell * n + first) * n + second
    u_first = u[contacts.first]
    outer = u_first[:, :, None] * (gamma[:, None] * u[contacts.second])[:, None, :]
    moments = u.new_zeros(cells * n * n, 4, 4).index_add(0, block, -outer)
    own = u_first[:, :, None] * (gamma[:, None] * u_first)[:, None, :]
    moments = moments.index_add(0, first * (n + 1), own)
    blocks = expand_moments(moments).reshape(cells, n, n, 6, 6)
    return blocks.permute(0, 1, 3, 2, 4).reshape(cells, 6 * n, 6 * n)


def expand_moments(moments: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 6 6"]:
    r"""Blocks :math:`\sum A_i^T A_j` of rigid bodies, A = (1 | S(s)), from their moments.

    .. math:: A_i^T A_j = \begin{pmatrix} 1 & S(s_j) \\ S(s_i)^T & (s_i \cdot s_j) 1 - s_j s_i^T \end{pmatrix}
    """
    eye = torch.eye(3, dtype=moments.dtype, device=moments.device)
    tensor = moments[..., 1:, 1:]
    trace = tensor.diagonal(dim1=-1, dim2=-2).sum(-1)
    top = torch.cat([moments[..., :1, :1] * eye, skew(moments[..., 0, 1:])], -1)
    low = torch.cat([-skew(moments[..., 1:, 0]), trace[..., None, None] * eye - tensor.transpose(-1, -2)], -1)
    return torch.cat([top, low], -2)


def skew(s: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Matrix S with S l = l x s, the shift of an atom at s when its body turns by l."""
    x, y, z = s.unbind(-1)
    o = torch.zeros_like(x)
    return torch.stack([o, z, -y, -z, o, x, y, -x, o], -1).reshape(*s.shape, 3)


def scalar_hessian(contacts: Contacts, springs: Springs) -> Float[Tensor, "cells atoms_in_cell atoms_in_cell"]:
    """Laplacian of the network with every atom on its own: the same for x, y and z."""
    size = contacts.units * contacts.atoms
    gamma = contacts.constants(springs)
    flat = (contacts.cell * size + contacts.first) * size + contacts.second
    hessian = gamma.new_zeros(len(contacts.cells) * size * size).index_add(0, flat, -gamma)
    hessian = hessian.index_add(0, contacts.first * (size + 1), gamma)
    return hessian.reshape(-1, size, size)


def _flat(box: Int[Tensor, "n 3"], boxes: Int[Tensor, "3"]) -> Int[Tensor, "n"]:
    return (box[:, 0] * boxes[1] + box[:, 1]) * boxes[2] + box[:, 2]
