"""Active right-handed rotations of column vectors, smooth at the identity."""

import torch
from jaxtyping import Float
from torch import Tensor


def skew(v: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Matrix of the cross product: ``skew(v) @ w == cross(v, w)``."""
    x, y, z = v.unbind(-1)
    o = torch.zeros_like(x)
    rows = [torch.stack(row, -1) for row in ((o, -z, y), (z, o, -x), (-y, x, o))]
    return torch.stack(rows, -2)


def axis_rotation(axis: Float[Tensor, "*batch 3"], angle: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch 3 3"]:
    r"""Rotation about a fixed unit axis.

    .. math:: R = \cos\phi\,1 + \sin\phi\,[n]_\times + (1 - \cos\phi)\,n n^T

    Args:
        axis: Unit vectors.
        angle: Angles [rad].

    Returns:
        Rotation matrices.

    References: Rodrigues' formula; ``rotate_axis`` in nanoBragg.
    """
    n = axis / axis.norm(dim=-1, keepdim=True)
    cos, sin = angle.cos()[..., None, None], angle.sin()[..., None, None]
    identity = torch.eye(3, dtype=n.dtype, device=n.device)
    return cos * identity + sin * skew(n) + (1 - cos) * n[..., :, None] * n[..., None, :]


def xyz_rotation(angles: Float[Tensor, "3"]) -> Float[Tensor, "3 3"]:
    r"""Rotation about the fixed laboratory axes, x first, then y, then z: :math:`R = R_z R_y R_x`.

    Args:
        angles: Angles about x, y, z [rad].

    References: the misset and the detector rotations of nanoBragg.
    """
    axes = torch.eye(3, dtype=angles.dtype, device=angles.device)
    r_x, r_y, r_z = axis_rotation(axes, angles)
    return r_z @ r_y @ r_x


def xyz_angles(rotation: Float[Tensor, "3 3"]) -> Float[Tensor, "3"]:
    """Angles [rad] about x, y, z whose :func:`xyz_rotation` is the given matrix (|y| <= 90 degrees)."""
    r = rotation
    return torch.stack(
        [
            torch.atan2(r[2, 1], r[2, 2]),
            torch.atan2(-r[2, 0], torch.hypot(r[2, 1], r[2, 2])),
            torch.atan2(r[1, 0], r[0, 0]),
        ]
    )


def mean_rotation(rotations: Float[Tensor, "n 3 3"], weights: Float[Tensor, "n"]) -> Float[Tensor, "3 3"]:
    """The rotation nearest to a weighted mean of rotation matrices (polar decomposition of the mean)."""
    u, _, vh = torch.linalg.svd((weights[:, None, None] * rotations).sum(0))
    return u @ vh
