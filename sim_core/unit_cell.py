"""The exact metric of a triclinic cell and its matrices."""

import torch
from jaxtyping import Float
from torch import Tensor


def volume(cell: Float[Tensor, "6"]) -> Float[Tensor, ""]:
    r"""Volume [A^3] of a cell (a, b, c [A], alpha, beta, gamma [rad]).

    .. math:: V = abc\sqrt{1 - \cos^2\alpha - \cos^2\beta - \cos^2\gamma + 2\cos\alpha\cos\beta\cos\gamma}

    References: International Tables for Crystallography B, 1.1.
    """
    ca, cb, cg = cell[3:].cos()
    return cell[:3].prod() * (1 - ca**2 - cb**2 - cg**2 + 2 * ca * cb * cg).sqrt()


def reciprocal_basis(cell: Float[Tensor, "6"]) -> Float[Tensor, "3 3"]:
    r"""Matrix B whose columns are a*, b*, c* [1/A]: a* along x, b* in the xy plane, c along z.

    .. math:: B = \begin{pmatrix} a^* & b^*\cos\gamma^* & c^*\cos\beta^* \\
        0 & b^*\sin\gamma^* & -c^*\sin\beta^*\cos\alpha \\ 0 & 0 & 1/c \end{pmatrix}

    Args:
        cell: a, b, c [A], alpha, beta, gamma [rad].

    References: Busing & Levy (1967), Acta Cryst. 22, 457, eq. 3.
    """
    a, b, c = cell[:3]
    (ca, cb, cg), (sa, sb, sg) = cell[3:].cos(), cell[3:].sin()
    v = volume(cell)
    a_star, b_star, c_star = b * c * sa / v, c * a * sb / v, a * b * sg / v
    cos_beta_star, sin_beta_star = (ca * cg - cb) / (sa * sg), v / (a * b * c * sa * sg)
    cos_gamma_star, sin_gamma_star = (ca * cb - cg) / (sa * sb), v / (a * b * c * sa * sb)
    o = torch.zeros_like(a)
    rows = [
        torch.stack([a_star, b_star * cos_gamma_star, c_star * cos_beta_star]),
        torch.stack([o, b_star * sin_gamma_star, -c_star * sin_beta_star * ca]),
        torch.stack([o, o, 1 / c]),
    ]
    return torch.stack(rows)


def direct_basis(reciprocal: Float[Tensor, "3 3"]) -> Float[Tensor, "3 3"]:
    """Rows a, b, c [A] of the cell whose reciprocal vectors are the columns of ``reciprocal`` [1/A]."""
    a_star, b_star, c_star = reciprocal.unbind(-1)
    rows = torch.stack(
        [torch.linalg.cross(b_star, c_star), torch.linalg.cross(c_star, a_star), torch.linalg.cross(a_star, b_star)]
    )
    return rows / torch.dot(a_star, rows[0])


def pdb_basis(cell: Float[Tensor, "6"]) -> Float[Tensor, "3 3"]:
    r"""Rows a, b, c [A] with a along x and b in the xy plane: the Cartesian frame of atomic models.

    .. math:: \begin{pmatrix} a & 0 & 0 \\ b\cos\gamma & b\sin\gamma & 0 \\
        c\cos\beta & c(\cos\alpha - \cos\beta\cos\gamma)/\sin\gamma & V/(ab\sin\gamma) \end{pmatrix}

    The frame of :func:`reciprocal_basis` is another one unless the axes are orthogonal: between the two, hand over
    fractional coordinates and Miller indices.

    Args:
        cell: a, b, c [A], alpha, beta, gamma [rad].

    References: PDB format 3.3, SCALEn; ``orth`` in gemmi.
    """
    a, b, c = cell[:3]
    (ca, cb, cg), sg = cell[3:].cos(), cell[5].sin()
    o = torch.zeros_like(a)
    rows = [
        torch.stack([a, o, o]),
        torch.stack([b * cg, b * sg, o]),
        torch.stack([c * cb, c * (ca - cb * cg) / sg, volume(cell) / (a * b * sg)]),
    ]
    return torch.stack(rows)


def cell_and_orientation(
    reciprocal: Float[Tensor, "3 3"],
) -> tuple[Float[Tensor, "6"], Float[Tensor, "3 3"]]:
    """Split a matrix A = U B into the cell (a, b, c [A], alpha, beta, gamma [rad]) and the rotation U.

    Args:
        reciprocal: Columns a*, b*, c* [1/A], right-handed.

    Raises:
        ValueError: if the vectors are left-handed or lie in a plane.
    """
    determinant = torch.linalg.det(reciprocal)
    if not determinant > 0:
        raise ValueError(f"orientation matrix: expected a positive determinant, got {float(determinant):g}")
    direct = direct_basis(reciprocal)
    lengths = direct.norm(dim=-1)
    unit = direct / lengths[:, None]
    cosines = torch.stack([unit[1] @ unit[2], unit[2] @ unit[0], unit[0] @ unit[1]])
    cell = torch.cat([lengths, cosines.acos()])
    return cell, reciprocal @ torch.linalg.inv(reciprocal_basis(cell))
