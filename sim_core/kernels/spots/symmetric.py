"""Vectors and symmetric 3 x 3 matrices written out, for tensors and, compiled, for numbers.

A vector is its three components, a symmetric matrix its six entries xx, yy, zz, yz, xz, xy. There are no constants in
these formulas, so that they keep the precision of what they are given.
"""

from typing import TypeVar

from torch import Tensor

N = TypeVar("N", Tensor, float)
Vector = tuple[N, N, N]
Symmetric = tuple[N, N, N, N, N, N]


def add(a: Symmetric[N], b: Symmetric[N]) -> Symmetric[N]:
    """Sum of two symmetric matrices."""
    return a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3], a[4] + b[4], a[5] + b[5]


def dot(a: Vector[N], b: Vector[N]) -> N:
    """Scalar product."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def cross(a: Vector[N], b: Vector[N]) -> Vector[N]:
    """Vector product."""
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def times(m: Symmetric[N], a: Vector[N]) -> Vector[N]:
    """M a."""
    xx, yy, zz, yz, xz, xy = m
    return (
        xx * a[0] + xy * a[1] + xz * a[2],
        xy * a[0] + yy * a[1] + yz * a[2],
        xz * a[0] + yz * a[1] + zz * a[2],
    )


def form(m: Symmetric[N], a: Vector[N], b: Vector[N]) -> N:
    """a^T M b."""
    xx, yy, zz, yz, xz, xy = m
    return (
        a[0] * (xx * b[0] + xy * b[1] + xz * b[2])
        + a[1] * (xy * b[0] + yy * b[1] + yz * b[2])
        + a[2] * (xz * b[0] + yz * b[1] + zz * b[2])
    )


def turned(q: Vector[N], e: Symmetric[N]) -> Symmetric[N]:
    """[q]x E [q]x^T: covariance of q under small rotations of covariance E."""
    x, y, z = q
    xx, yy, zz, yz, xz, xy = e
    return (
        yy * z * z + zz * y * y - (yz + yz) * y * z,
        xx * z * z + zz * x * x - (xz + xz) * x * z,
        xx * y * y + yy * x * x - (xy + xy) * x * y,
        xz * x * y + xy * x * z - xx * y * z - yz * x * x,
        xy * y * z + yz * x * y - yy * x * z - xz * y * y,
        yz * x * z + xz * y * z - zz * x * y - xy * z * z,
    )


def inverse_parts(c: Symmetric[N]) -> tuple[Symmetric[N], N]:
    """Adjugate and determinant."""
    xx, yy, zz, yz, xz, xy = c
    adjugate = (
        yy * zz - yz * yz,
        xx * zz - xz * xz,
        xx * yy - xy * xy,
        xz * xy - xx * yz,
        xy * yz - yy * xz,
        yz * xz - zz * xy,
    )
    return adjugate, xx * adjugate[0] + xy * adjugate[5] + xz * adjugate[4]


__all__ = ["Symmetric", "Vector", "add", "cross", "dot", "form", "inverse_parts", "times", "turned"]
