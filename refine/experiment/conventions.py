"""Detector conventions: what the numbers of MOSFLM, ADXV, DENZO, XDS and DIALS mean in the laboratory.

Each names the beam, the panel's axes, the spindle and how a beam centre (X, Y) lies along fast and slow. F and S are
distances from the outer edge of the first pixel along fast and slow.
"""

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from torch import Tensor

Length = TypeVar("Length", float, Tensor)

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Convention:
    """Directions at zero rotation and the reading of a beam centre.

    ``centre`` is the linear map (F, S) = matrix (X, Y) + offset, its offset in pixels plus panel sizes along slow;
    ``default_centre`` gives F, S in pixels beyond half of the panel's size.
    """

    beam: Vector
    fast: Vector
    slow: Vector
    normal: Vector
    two_theta_axis: Vector
    polarization: Vector
    spindle: Vector
    swapped: bool
    half_pixel: bool
    flipped: bool
    default_centre: tuple[float, float]
    pivot: str

    def fast_slow(self, x: Length, y: Length, pixel: float, slow_size: float) -> tuple[Length, Length]:
        """Beam centre (X, Y) of this convention as F, S; lengths in one unit, numbers or tensors."""
        f, s = (y, x) if self.swapped else (x, y)
        if self.flipped:
            s = slow_size - s
        shift = 0.5 * pixel if self.half_pixel else 0.0
        return f + shift, s + shift

    def x_y(self, f: Length, s: Length, pixel: float, slow_size: float) -> tuple[Length, Length]:
        """The inverse of :meth:`fast_slow`."""
        shift = 0.5 * pixel if self.half_pixel else 0.0
        f, s = f - shift, s - shift
        if self.flipped:
            s = slow_size - s
        return (s, f) if self.swapped else (f, s)


_X, _Y, _Z = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
_MINUS_X, _MINUS_Y, _MINUS_Z = (-1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, -1.0)

_MOSFLM = Convention(_X, _Z, _MINUS_Y, _X, _MINUS_Z, _Z, _Z, True, True, False, (1.0, 1.0), "beam")
_XDS = Convention(_Z, _X, _Y, _Z, _X, _X, _X, False, False, False, (0.0, 0.0), "sample")

CONVENTIONS: dict[str, Convention] = {
    "mosflm": _MOSFLM,
    "denzo": replace(_MOSFLM, half_pixel=False, default_centre=(0.5, 0.5)),
    "adxv": Convention(_Z, _X, _MINUS_Y, _Z, _MINUS_X, _X, _X, False, False, True, (0.5, 0.5), "beam"),
    "xds": _XDS,
    "dials": replace(_XDS, two_theta_axis=_Y, polarization=_Y, spindle=_Y),
    "custom": replace(
        _MOSFLM, two_theta_axis=_Y, swapped=False, half_pixel=False, default_centre=(0.0, 0.0), pivot="beam"
    ),
}
"""The conventions by name; ``custom`` holds what is used for vectors that are not given."""


def unit(vector: Vector | np.ndarray, name: str) -> np.ndarray:
    """A vector of length one.

    Raises:
        ValueError: if it is zero.
    """
    length = float(np.linalg.norm(vector))
    if length == 0:
        raise ValueError(f"{name}: expected a vector of non-zero length, got {list(vector)}")
    return np.asarray(vector, dtype=np.float64) / length
