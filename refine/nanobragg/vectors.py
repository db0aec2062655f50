"""Vectors of three numbers, in the reference program's order of operations.

The image is compared bit for bit after rounding to single precision. Near a zero of the interference function the
last bit of an index decides the rounding, so sums and products stand in the reference's order and nothing is fused.
"""

import math
from typing import Any

Vector = tuple[float, float, float]
Matrix = tuple[Vector, Vector, Vector]

DEGREES = 180.0 / math.pi
"""Degrees in a radian; an angle on the command line is divided by it."""


def dot(u: Any, v: Any) -> Any:
    """Scalar product; the components may be arrays."""
    return u[0] * v[0] + u[1] * v[1] + u[2] * v[2]


def cross(u: Vector, v: Vector) -> Vector:
    """Vector product."""
    return (u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0])


def scaled(v: Vector, factor: float) -> Vector:
    """``factor * v``."""
    return (factor * v[0], factor * v[1], factor * v[2])


def length(v: Vector) -> float:
    """Euclidean norm."""
    return math.sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2])


def unit(v: Vector) -> Vector:
    """The direction of a vector; a vector of zeros stays."""
    size = length(v)
    return (v[0] / size, v[1] / size, v[2] / size) if size != 0.0 else (0.0, 0.0, 0.0)


def rescaled(v: Vector, size: float) -> Vector:
    """A vector of the given length along ``v``."""
    old = length(v)
    return scaled(v, size / (old if old > 0.0 else 1.0))


def transformed(matrix: Any, v: Vector) -> Any:
    """Matrix times column vector; the entries of the matrix may be arrays."""
    return (dot(matrix[0], v), dot(matrix[1], v), dot(matrix[2], v))


def rotated(v: Vector, angles: Vector) -> Vector:
    """Turned about the laboratory's x, then y, then z [rad]; a zero angle is left out."""
    for axis, angle in enumerate(angles):
        if angle != 0.0:
            v = transformed(_about(axis, math.cos(angle), math.sin(angle)), v)
    return v


def _about(axis: int, c: float, s: float) -> Matrix:
    if axis == 0:
        return ((1.0, 0.0, 0.0), (0.0, c, -s), (0.0, s, c))
    if axis == 1:
        return ((c, 0.0, s), (0.0, 1.0, 0.0), (-s, 0.0, c))
    return ((c, -s, 0.0), (s, c, 0.0), (0.0, 0.0, 1.0))


def rotated_about(v: Vector, axis: Vector, angle: float) -> Vector:
    """Turned about ``axis`` [rad] by Rodrigues' formula, the axis taken as it is.

    References: ``rotate_axis`` in nanoBragg.
    """
    return rodrigues(v, axis, math.sin(angle), math.cos(angle))


def rodrigues(v: Any, axis: Vector, s: Any, c: Any) -> Any:
    """The same for the sine and cosine of an angle; ``v``, ``s`` and ``c`` may hold arrays of components."""
    along = dot(axis, v) * (1.0 - c)
    x, y, z = axis
    return (
        x * along + v[0] * c + (-z * v[1] + y * v[2]) * s,
        y * along + v[1] * c + (+z * v[0] - x * v[2]) * s,
        z * along + v[2] * c + (-y * v[0] + x * v[1]) * s,
    )
