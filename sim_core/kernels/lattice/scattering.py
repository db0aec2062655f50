# mypy: allow-untyped-defs, allow-untyped-calls
"""Machine code that makes scattering vectors of the lanes from pixels, with the factors of each pixel."""

from typing import Any, NamedTuple

import numpy as np

from ..compiling import lane_sum as lanes
from .lanes import LANES

_T = LANES
FACTOR, _SLOW, _FAST = 3 * _T, 4 * _T, 5 * _T


class Rays(NamedTuple):
    """Where scattering vectors come from; double precision.

    Attributes:
        rows: Scattering vectors [rows, 3], or none at all.
        pixels: Indices (slow, fast) [pixels, 2], or none at all for every pixel of the panel.
        width: Pixels along fast.
        axes: Steps of the pixel along slow and fast [m] (6 numbers).
        waves: For each sub-pixel and plane wave: a point of pixel (0, 0) [m] (3), direction (3), 1 / wavelength,
            weight, the two directions of polarisation (6).
        polarization: Constant, factors of cos^2 2theta and of the difference along the two directions.
        limit: Largest |S|^2 [1/A^2].
    """

    rows: Any
    pixels: Any
    width: float
    axes: Any
    waves: Any
    polarization: Any
    limit: float


@lanes
def fill(rays, start, stop, s):
    """Rows, or the pixels of the lanes; lanes beyond the last repeat it."""
    for i in range(_T):
        r = min(start + i, stop - 1)
        if len(rays.rows) > 0:
            s[i], s[_T + i], s[2 * _T + i] = rays.rows[r, 0], rays.rows[r, 1], rays.rows[r, 2]
            s[FACTOR + i] = 1.0
        elif len(rays.pixels) > 0:
            s[_SLOW + i], s[_FAST + i] = rays.pixels[r, 0], rays.pixels[r, 1]
        else:
            slow = np.floor(r / rays.width)
            s[_SLOW + i], s[_FAST + i] = slow, r - slow * rays.width


@lanes
def scatter(rays, wave, s):
    """Scattering vectors of one sub-pixel and plane wave, and solid angle x polarisation x weight."""
    a0, a1, a2, b0, b1, b2 = rays.axes[0], rays.axes[1], rays.axes[2], rays.axes[3], rays.axes[4], rays.axes[5]
    c, c_cos, c_axes, limit = rays.polarization[0], rays.polarization[1], rays.polarization[2], rays.limit
    o0, o1, o2, k0, k1, k2, per_length, weight = wave[0], wave[1], wave[2], wave[3], wave[4], wave[5], wave[6], wave[7]
    e0, e1, e2, m0, m1, m2 = wave[8], wave[9], wave[10], wave[11], wave[12], wave[13]
    for i in range(_T):
        slow, fast = s[_SLOW + i], s[_FAST + i]
        x = o0 + slow * a0 + fast * b0
        y = o1 + slow * a1 + fast * b1
        z = o2 + slow * a2 + fast * b2
        inverse = 1.0 / np.sqrt(x * x + y * y + z * z)
        x, y, z = x * inverse, y * inverse, z * inverse
        u, v, w = (x - k0) * per_length, (y - k1) * per_length, (z - k2) * per_length
        cos = x * k0 + y * k1 + z * k2
        e, m = x * e0 + y * e1 + z * e2, x * m0 + y * m1 + z * m2
        factor = weight * (inverse * inverse * inverse) * (c + c_cos * (cos * cos) - c_axes * (e * e - m * m))
        s[i], s[_T + i], s[2 * _T + i] = u, v, w
        s[FACTOR + i] = factor if u * u + v * v + w * w <= limit else 0.0
