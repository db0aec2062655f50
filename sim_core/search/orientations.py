r"""Even grids over the rotations, and the rotations that leave a lattice and its amplitudes as they are.

Rotations are unit quaternions (w, x, y, z) here; q and -q are the same rotation. Turning a crystal by a symmetry g
before its orientation R gives the same image, so that orientations count modulo R -> R g.
"""

import math
from itertools import product

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..amplitudes import padded_index, padded_values
from ..experiment import StructureFactors
from ..unit_cell import reciprocal_basis

GRID_THICKNESS = 3.5
"""Sum of the volumes of the balls of covering radius around the points of :func:`even_rotations`, relative to the
volume of all rotations, rounded up."""


def even_rotations(count: int) -> Float[Tensor, "count 4"]:
    r"""Quaternions spread evenly over all rotations: a super-Fibonacci spiral.

    .. math:: q_i = (\sqrt{t}\sin\alpha, \sqrt{t}\cos\alpha, \sqrt{1-t}\sin\beta, \sqrt{1-t}\cos\beta), \quad
        t = s/n,\; \alpha = 2\pi s/\sqrt{2},\; \beta = 2\pi s/\psi,\; s = i + 1/2,\; \psi^4 = \psi + 4

    References: Alexa (2022), Super-Fibonacci spirals, CVPR, 8291.
    """
    s = torch.arange(count, dtype=torch.float64) + 0.5
    t = s / count
    alpha, beta = 2 * math.pi * s / math.sqrt(2), 2 * math.pi * s / 1.533751168755204288118041
    inner, outer = t.sqrt(), (1 - t).sqrt()
    return torch.stack([inner * alpha.sin(), inner * alpha.cos(), outer * beta.sin(), outer * beta.cos()], -1)


def grid_size(covering: float) -> int:
    """Points of :func:`even_rotations` that leave no rotation farther than ``covering`` [rad] from one of them."""
    ball = 4 / 3 * math.pi * covering**3
    return math.ceil(GRID_THICKNESS * 8 * math.pi**2 / ball)


def quaternion_product(p: Float[Tensor, "*#batch 4"], q: Float[Tensor, "*#batch 4"]) -> Float[Tensor, "... 4"]:
    """The rotation q, then the rotation p."""
    a, b, c, d = p.unbind(-1)
    w, x, y, z = q.unbind(-1)
    parts = (
        a * w - b * x - c * y - d * z,
        a * x + b * w + c * z - d * y,
        a * y - b * z + c * w + d * x,
        a * z + b * y - c * x + d * w,
    )
    return torch.stack(parts, -1)


def quaternion_matrix(q: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotation matrices of unit quaternions."""
    w, x, y, z = q.unbind(-1)
    rows = [
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], -1),
        torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], -1),
        torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], -1),
    ]
    return torch.stack(rows, -2)


def matrix_quaternion(r: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 4"]:
    """Unit quaternions of rotation matrices, w >= 0: the column of the largest norm of the outer product q q^T."""
    xx, yy, zz = r[..., 0, 0], r[..., 1, 1], r[..., 2, 2]
    w2 = 1 + xx + yy + zz
    wx, wy, wz = r[..., 2, 1] - r[..., 1, 2], r[..., 0, 2] - r[..., 2, 0], r[..., 1, 0] - r[..., 0, 1]
    xy, xz, yz = r[..., 1, 0] + r[..., 0, 1], r[..., 0, 2] + r[..., 2, 0], r[..., 2, 1] + r[..., 1, 2]
    columns = torch.stack(
        [
            torch.stack([w2, wx, wy, wz], -1),
            torch.stack([wx, 1 + xx - yy - zz, xy, xz], -1),
            torch.stack([wy, xy, 1 - xx + yy - zz, yz], -1),
            torch.stack([wz, xz, yz, 1 - xx - yy + zz], -1),
        ],
        -2,
    )
    largest = columns.diagonal(dim1=-2, dim2=-1).argmax(-1)
    q = torch.take_along_dim(columns, largest[..., None, None], -2)[..., 0, :]
    q = q / q.norm(dim=-1, keepdim=True)
    return torch.where(q[..., :1] < 0, -q, q)


def vector_quaternion(v: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 4"]:
    """Unit quaternions of rotation vectors (axis times angle) [rad]."""
    angle = v.norm(dim=-1, keepdim=True)
    return torch.cat([(angle / 2).cos(), v * torch.sinc(angle / (2 * math.pi)) / 2], -1)


def distance(
    p: Float[Tensor, "*#batch 4"], q: Float[Tensor, "*#batch 4"], group: Float[Tensor, "g 4"]
) -> Float[Tensor, "..."]:
    """Angle [rad] of the smallest rotation from p to any of q g."""
    relative = quaternion_product(q * q.new_tensor([1.0, -1.0, -1.0, -1.0]), p)
    cosine = (relative @ group.mT).abs().amax(-1)
    return 2 * cosine.clamp(max=1).acos()


def nearest_equivalent(
    q: Float[Tensor, "4"], group: Float[Tensor, "g 4"], target: Float[Tensor, "4"]
) -> Float[Tensor, "4"]:
    """The one of q g that is nearest to a target."""
    equivalents = quaternion_product(q, group)
    return equivalents[(equivalents @ target).abs().argmax()]


def in_zone(q: Float[Tensor, "n 4"], group: Float[Tensor, "g 4"]) -> Float[Tensor, "m 4"]:
    """Of each set of equivalent rotations the part that is nearest to none at all."""
    inverse = (group * group.new_tensor([1.0, -1.0, -1.0, -1.0])).mT
    parts = q.split(1 << 14)  # all at once would take more memory than a cache holds
    return torch.cat([p[p[:, 0].abs() >= (p @ inverse).abs().amax(-1) - 1e-12] for p in parts])


def lattice_rotations(cell: Float[Tensor, "6"], tolerance: float = 2e-3) -> Int[Tensor, "g 3 3"]:
    r"""Proper rotations that map a lattice onto itself, as matrices W on Miller indices: q = B h -> B W h.

    :math:`W^\mathsf{T} G^* W = G^*` with the reciprocal metric :math:`G^*`.

    Args:
        cell: a, b, c [A], alpha, beta, gamma [rad].
        tolerance: Relative mismatch of the metric that passes for the same.

    Returns:
        The identity first.
    """
    b = reciprocal_basis(cell.detach().double().cpu())
    metric = b.T @ b
    lengths = metric.diagonal().sqrt()
    reach = [min(4, int(1.01 * float(lengths.max() * (torch.linalg.inv(b)[i].norm())))) for i in range(3)]
    points = torch.cartesian_prod(*[torch.arange(-n, n + 1) for n in reach]).double()
    squares = ((points @ metric) * points).sum(-1)
    columns = [points[(squares / metric[i, i] - 1).abs() < 2 * tolerance] for i in range(3)]
    found = []
    for i, j, k in product(*[range(len(c)) for c in columns]):
        w = torch.stack([columns[0][i], columns[1][j], columns[2][k]], -1)
        mismatch = (w.T @ metric @ w - metric).abs() / torch.outer(lengths, lengths)
        if abs(float(torch.linalg.det(w)) - 1) < 0.5 and float(mismatch.max()) < 2 * tolerance:
            found.append(w.round().long())
    eye = torch.eye(3, dtype=torch.long)
    return torch.stack([eye, *[w for w in found if not torch.equal(w, eye)]])


def table_rotations(
    factors: StructureFactors, cell: Float[Tensor, "6"], tolerance: float = 0.01
) -> Float[Tensor, "g 4"]:
    r"""Rotations of the crystal that leave its image as it is: those of the lattice that keep every amplitude.

    Where the amplitude is constant they are the lattice's own; else W is kept where
    :math:`\sum |F(W h) - F(h)| \le \mathrm{tolerance} \sum F(h)` over the table.

    Args:
        factors: Amplitudes.
        cell: a, b, c [A], alpha, beta, gamma [rad].
        tolerance: Relative difference of the amplitudes that passes for the same.

    Returns:
        Quaternions in the Cartesian axes of the crystal (a* along x, b* in the xy plane), the identity first.
    """
    candidates = lattice_rotations(cell)
    b = reciprocal_basis(cell.detach().double().cpu())
    table = factors.table.detach().cpu()
    if table.numel():
        ranges = [torch.arange(n) + int(low) for n, low in zip(table.shape, factors.h_min, strict=True)]
        hkl = torch.cartesian_prod(*ranges)
        hkl = hkl[(hkl != 0).any(-1)]
        values = padded_values(StructureFactors(table, factors.h_min.cpu(), factors.default.detach().cpu()))
        low = (factors.h_min.cpu() - 1).double().view(3, 1, 1)
        size = [n + 2 for n in table.shape]

        def amplitude(indices: Tensor) -> Tensor:
            return values[padded_index(indices.T.double()[:, :, None], low, size)[:, 0]]

        here = amplitude(hkl)
        total = here.sum().clamp_min(1e-300)
        same = [bool((amplitude(hkl @ w.T) - here).abs().sum() <= tolerance * total) for w in candidates]
        candidates = candidates[torch.tensor(same)]
    rotations = b @ candidates.double() @ torch.linalg.inv(b)
    u, _, vh = torch.linalg.svd(rotations)
    return matrix_quaternion(u @ vh)


__all__ = [
    "distance",
    "even_rotations",
    "grid_size",
    "in_zone",
    "lattice_rotations",
    "matrix_quaternion",
    "nearest_equivalent",
    "quaternion_matrix",
    "quaternion_product",
    "table_rotations",
    "vector_quaternion",
]
