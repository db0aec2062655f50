# mypy: allow-untyped-defs, allow-untyped-calls
"""Machine code that finds the reflection nearest to each lane, how far it is, and its squared amplitude."""

import numpy as np

from .compiling import lane_sum as lanes
from .lanes import F2, LANES

_T = LANES
AMPLITUDE, ROWS = 6 * LANES, 7 * LANES
"""Where amplitudes stand behind the scattering vectors and pixels, and how many numbers that makes."""

_STRIDE = 32
_LEAST, _MOST, SPAN = 6, 6 + _STRIDE, 6 + 2 * _STRIDE
"""Numbers that :func:`bounds` needs: its results are the first six."""


@lanes
def bounds(s, span):
    """Middle and half width of the scattering vectors of the lanes, component by component.

    Extremes of every 32nd lane come first, which is what vector instructions can do.
    """
    for j in range(3):
        for i in range(_STRIDE):
            least = most = s[j * _T + i]
            for k in range(_STRIDE, _T, _STRIDE):
                v = s[j * _T + k + i]
                least, most = min(least, v), max(most, v)
            span[_LEAST + i], span[_MOST + i] = least, most
        least, most = span[_LEAST], span[_MOST]
        for i in range(1, _STRIDE):
            least, most = min(least, span[_LEAST + i]), max(most, span[_MOST + i])
        span[j], span[j + 3] = 0.5 * (most + least), 0.5 * (most - least)


@lanes
def within(span, a, low, size):
    """Whether the nearest reflections of all lanes are sure to be in the box."""
    a00, a01, a02, a10, a11, a12, a20, a21, a22 = a
    inside = True
    for row, least, n in (
        ((a00, a01, a02), low[0], size[0]),
        ((a10, a11, a12), low[1], size[1]),
        ((a20, a21, a22), low[2], size[2]),
    ):
        middle = row[0] * span[0] + row[1] * span[1] + row[2] * span[2]
        reach = abs(row[0]) * span[3] + abs(row[1]) * span[4] + abs(row[2]) * span[5] + 0.51
        inside = inside and middle - reach >= least and middle + reach <= least + n - 1.0
    return inside


@lanes
def indices(s, a, low, size, place, x):
    """Distance to the nearest reflection, and where its amplitude stands in the table: -1 outside."""
    a00, a01, a02, a10, a11, a12, a20, a21, a22 = a
    (l0, l1, l2), (n0, n1, n2) = low, size
    for i in range(_T):
        u, v, w = s[i], s[i + _T], s[i + 2 * _T]
        h = a00 * u + a01 * v + a02 * w
        k = a10 * u + a11 * v + a12 * w
        l = a20 * u + a21 * v + a22 * w
        h0, k0, q0 = np.ceil(h - 0.5), np.ceil(k - 0.5), np.ceil(l - 0.5)
        x[i], x[i + _T], x[i + 2 * _T] = h - h0, k - k0, l - q0
        p, q, r = h0 - l0, k0 - l1, q0 - l2
        p_in, q_in, r_in = min(max(p, 0.0), n0 - 1.0), min(max(q, 0.0), n1 - 1.0), min(max(r, 0.0), n2 - 1.0)
        at = (p_in * n1 + q_in) * n2 + r_in
        at = at if p == p_in else -1.0
        at = at if q == q_in else -1.0
        place[i] = np.int32(at if r == r_in else -1.0)


@lanes
def indices_within(s, a, low, size, place, x):
    """The same as :func:`indices` where every reflection is in the box."""
    a00, a01, a02, a10, a11, a12, a20, a21, a22 = a
    _, n1, n2 = size
    first = (low[0] * n1 + low[1]) * n2 + low[2]
    for i in range(_T):
        u, v, w = s[i], s[i + _T], s[i + 2 * _T]
        h = a00 * u + a01 * v + a02 * w
        k = a10 * u + a11 * v + a12 * w
        l = a20 * u + a21 * v + a22 * w
        h0, k0, q0 = np.ceil(h - 0.5), np.ceil(k - 0.5), np.ceil(l - 0.5)
        x[i], x[i + _T], x[i + 2 * _T] = h - h0, k - k0, l - q0
        place[i] = np.int32((h0 * n1 + k0) * n2 + q0 - first)


@lanes
def look_up_within(amplitudes, place, s, x):
    """Squared amplitudes where every reflection is in the box; fetched first, since vectors can do all but that."""
    for i in range(_T):
        s[AMPLITUDE + i] = amplitudes[np.uint32(place[i])]
    _square(s, x)


@lanes
def look_up(amplitudes, default, place, s, x):
    """Squared amplitudes, that of ``default`` where there is no place."""
    for i in range(_T):
        s[AMPLITUDE + i] = default if place[i] < 0 else amplitudes[np.uint32(max(place[i], 0))]
    _square(s, x)


@lanes
def _square(s, x):
    for i in range(_T):
        F = s[AMPLITUDE + i]
        x[F2 + i] = F * F
