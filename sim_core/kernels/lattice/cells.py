# mypy: allow-untyped-defs, allow-untyped-calls
r"""Machine code for amplitudes between reflections: cubic Lagrange polynomials in a cell of a fine grid.

With g = h * rate the place on the grid, t the place in the cell (-1, 0, 1, 2 are the four points along an axis) and P
the profile,

.. math:: |F|^2 = \Re^2 + \Im^2, \qquad
    \frac{\partial |F|^2 P}{\partial h} = |F|^2 \frac{\partial P}{\partial h}
    + 2 P \Big(\Re \frac{\partial \Re}{\partial t} + \Im \frac{\partial \Im}{\partial t}\Big) \mathrm{rate}

Cells are visited lane by lane: what is read there are 4 x 4 runs of four numbers. All of it is double precision.
"""

from typing import Any, NamedTuple

import numpy as np

from ... import amplitudes
from ..compiling import lane_sum as lanes
from .lanes import BY_PARTS, CELLS, F2, LANES, SLOPE, UPSTREAM, VALUE
from .nearest import RATE, WITHIN

_T = LANES
_lagrange, _lagrange_slopes = lanes(amplitudes.lagrange), lanes(amplitudes.lagrange_slopes)


class Grid(NamedTuple):
    """Amplitudes on a grid of reciprocal space, flat.

    Attributes:
        real: Real part; where ``nearest``, followed by the amplitude of everything outside.
        imaginary: Imaginary part; none at all for real amplitudes.
        low: Lowest place along each axis.
        size: Points along each axis.
        rate: Points for each index.
        nearest: Whether the nearest point counts where one of the 64 is missing; otherwise the grid's border does.
    """

    real: Any
    imaginary: Any
    low: Any
    size: Any
    rate: Any
    nearest: bool


@lanes
def _along(h, low, size, rate):
    """First point of the cell, the place in it, and how that moves: not at all beyond the border."""
    g = h * rate - low
    start = min(max(np.floor(g) - 1.0, 0.0), size - 4.0)
    start = start if start == start else 0.0  # a number that is none stays one in t
    t = g - start - 1.0
    held = min(max(t, -1.0), 2.0)
    return start, held, rate if held == t else 0.0


@lanes
def _whole(h, low, size):
    """The same at the nearest point, and whether that is on the grid."""
    g = np.ceil(h - 0.5) - low
    inside = (g >= 0.0) & (g <= size - 1.0)
    start = min(max(g - 1.0, 0.0), size - 4.0) if inside else 0.0
    return start, g - start - 1.0, inside


@lanes
def locate(s, a, grid, place, x):
    """Distance to the nearest reflection, the cell of each lane and the place in it."""
    a00, a01, a02, a10, a11, a12, a20, a21, a22 = a
    (l0, l1, l2), (n0, n1, n2), (r0, r1, r2) = grid.low, grid.size, grid.rate
    for i in range(_T):
        u, v, w = s[i], s[i + _T], s[i + 2 * _T]
        h = a00 * u + a01 * v + a02 * w
        k = a10 * u + a11 * v + a12 * w
        l = a20 * u + a21 * v + a22 * w
        x[i], x[i + _T], x[i + 2 * _T] = h - np.ceil(h - 0.5), k - np.ceil(k - 0.5), l - np.ceil(l - 0.5)
        p, t0, q0 = _along(h, l0, n0, r0)
        q, t1, q1 = _along(k, l1, n1, r1)
        r, t2, q2 = _along(l, l2, n2, r2)
        at = (p * n1 + q) * n2 + r
        if grid.nearest:
            there = (h - 2.0 >= l0) & (h - l0 + 3.0 <= n0) & (k - 2.0 >= l1) & (k - l1 + 3.0 <= n1)
            if not (there & (l - 2.0 >= l2) & (l - l2 + 3.0 <= n2)):
                p, t0, in_0 = _whole(h, l0, n0)
                q, t1, in_1 = _whole(k, l1, n1)
                r, t2, in_2 = _whole(l, l2, n2)
                q0 = q1 = q2 = 0.0
                at = (p * n1 + q) * n2 + r if in_0 & in_1 & in_2 else -1.0
        s[WITHIN + i], s[WITHIN + _T + i], s[WITHIN + 2 * _T + i] = t0, t1, t2
        s[RATE + i], s[RATE + _T + i], s[RATE + 2 * _T + i] = q0, q1, q2
        place[i] = np.int32(at)


@lanes
def _line(f, at, w):
    return w[0] * f[np.uintp(at)] + w[1] * f[np.uintp(at + 1)] + w[2] * f[np.uintp(at + 2)] + w[3] * f[np.uintp(at + 3)]


@lanes
def _sum(w, a, b, c, d):
    return w[0] * a + w[1] * b + w[2] * c + w[3] * d


@lanes
def _plane(f, at, step, v, w):
    return _sum(
        v, _line(f, at, w), _line(f, at + step, w), _line(f, at + 2 * step, w), _line(f, at + 3 * step, w)
    )  # fmt: skip


@lanes
def _field(f, at, steps, weights):
    """Amplitude in the cell that begins at ``at``."""
    (m1, m2), (u, v, w) = steps, weights
    return _sum(
        u, _plane(f, at, m2, v, w), _plane(f, at + m1, m2, v, w), _plane(f, at + 2 * m1, m2, v, w),
        _plane(f, at + 3 * m1, m2, v, w),
    )  # fmt: skip


@lanes
def _plane_slopes(f, at, step, v, dv, w, dw):
    """Value and slopes along the two axes of a plane of the cell."""
    a, b, c, d = _line(f, at, w), _line(f, at + step, w), _line(f, at + 2 * step, w), _line(f, at + 3 * step, w)
    p, q, r, s = _line(f, at, dw), _line(f, at + step, dw), _line(f, at + 2 * step, dw), _line(f, at + 3 * step, dw)
    return _sum(v, a, b, c, d), _sum(dv, a, b, c, d), _sum(v, p, q, r, s)


@lanes
def _field_slopes(f, at, steps, weights, slopes):
    """Amplitude and its slopes in the place in the cell."""
    (m1, m2), (u, v, w), (du, dv, dw) = steps, weights, slopes
    a, a1, a2 = _plane_slopes(f, at, m2, v, dv, w, dw)
    b, b1, b2 = _plane_slopes(f, at + m1, m2, v, dv, w, dw)
    c, c1, c2 = _plane_slopes(f, at + 2 * m1, m2, v, dv, w, dw)
    d, d1, d2 = _plane_slopes(f, at + 3 * m1, m2, v, dv, w, dw)
    return _sum(u, a, b, c, d), _sum(du, a, b, c, d), _sum(u, a1, b1, c1, d1), _sum(u, a2, b2, c2, d2)


@lanes
def _steps(grid):
    return np.int64(grid.size[1]) * np.int64(grid.size[2]), np.int64(grid.size[2])


@lanes
def _weights(s, i):
    return _lagrange(s[WITHIN + i]), _lagrange(s[WITHIN + _T + i]), _lagrange(s[WITHIN + 2 * _T + i])


@lanes
def _slopes(s, i):
    return (
        _lagrange_slopes(s[WITHIN + i]),
        _lagrange_slopes(s[WITHIN + _T + i]),
        _lagrange_slopes(s[WITHIN + 2 * _T + i]),
    )


@lanes
def squares(grid, place, s, x):
    """Squared amplitudes of the lanes."""
    steps, last = _steps(grid), len(grid.real) - 1
    for i in range(_T):
        at, weights = np.int64(place[i]), _weights(s, i)
        if at < 0:
            x[F2 + i] = grid.real[last] * grid.real[last]
        else:
            real = _field(grid.real, at, steps, weights)
            imaginary = _field(grid.imaginary, at, steps, weights) if len(grid.imaginary) > 0 else 0.0
            x[F2 + i] = real * real + imaginary * imaginary


@lanes
def join_slopes(grid, place, s, x):
    """From a profile with its slopes to those of profile times squared amplitude, whose factor becomes one."""
    steps, last = _steps(grid), len(grid.real) - 1
    for i in range(_T):
        at, weights, slopes = np.int64(place[i]), _weights(s, i), _slopes(s, i)
        imaginary, i0, i1, i2 = 0.0, 0.0, 0.0, 0.0
        if at < 0:
            real, r0, r1, r2 = grid.real[last], 0.0, 0.0, 0.0
        else:
            real, r0, r1, r2 = _field_slopes(grid.real, at, steps, weights, slopes)
            if len(grid.imaginary) > 0:
                imaginary, i0, i1, i2 = _field_slopes(grid.imaginary, at, steps, weights, slopes)
        value, square = x[VALUE + i], real * real + imaginary * imaginary
        by_real, by_imaginary = 2.0 * real * value, 2.0 * imaginary * value
        q0, q1, q2 = s[RATE + i], s[RATE + _T + i], s[RATE + 2 * _T + i]
        x[SLOPE + i] = square * x[SLOPE + i] + q0 * (by_real * r0 + by_imaginary * i0)
        x[SLOPE + _T + i] = square * x[SLOPE + _T + i] + q1 * (by_real * r1 + by_imaginary * i1)
        x[SLOPE + 2 * _T + i] = square * x[SLOPE + 2 * _T + i] + q2 * (by_real * r2 + by_imaginary * i2)
        x[VALUE + i], x[F2 + i] = square * value, 1
        x[BY_PARTS + i], x[BY_PARTS + _T + i] = by_real, by_imaginary
        for j in range(3):
            x[CELLS + j * _T + i] *= square


@lanes
def _add_line(out, at, w, g):
    for k in range(4):
        out[np.uintp(at + k)] += g * w[k]


@lanes
def _add_field(out, at, steps, weights, g):
    u, v, w = weights
    for i in range(4):
        for j in range(4):
            _add_line(out, at + i * steps[0] + j * steps[1], w, g * u[i] * v[j])


@lanes
def add_cells(grid, place, s, x, weight, count, table):
    """Add to ``table`` the gradient in the real part, and behind it in the imaginary part."""
    steps, points = _steps(grid), len(grid.real)
    for i in range(count):
        at, weights, g = np.int64(place[i]), _weights(s, i), weight * x[UPSTREAM + i]
        if at < 0:
            table[points - 1] += g * x[BY_PARTS + i]
        else:
            _add_field(table, at, steps, weights, g * x[BY_PARTS + i])
            if len(grid.imaginary) > 0:
                _add_field(table, at + points, steps, weights, g * x[BY_PARTS + _T + i])


@lanes
def add_cell_tangent(grid, place, s, x, weight, real, imaginary, first, t):
    """The change along one direction of the amplitudes."""
    steps, last = _steps(grid), len(grid.real) - 1
    for i in range(_T):
        at, weights = np.int64(place[i]), _weights(s, i)
        if at < 0:
            change = x[BY_PARTS + i] * real[last]
        else:
            change = x[BY_PARTS + i] * _field(real, at, steps, weights)
            if len(imaginary) > 0:
                change += x[BY_PARTS + _T + i] * _field(imaginary, at, steps, weights)
        t[first + i] += weight * change
