# mypy: allow-untyped-defs, allow-untyped-calls
r"""Machine code of the sum over orientations for a CPU: the parallelepiped, in either precision.

Pixels (or rows) are the lanes of the vector unit, ``LANES`` of them at a time in a workspace that stays in the first
cache; orientations are the outer loop. Each step is one loop without branches over the lanes, so that the compiler
turns it into vector instructions. With x the distance to the nearest lattice point, k = round(N x), y = N x - k and
P(z) the series of sin(pi sqrt z)/sqrt z,

.. math:: \frac{\sin \pi N x}{\sin \pi x} = \pm\frac{y\,P(y^2)}{x\,P(x^2)}, \qquad
    \frac{d}{dx}\ln\frac{\sin^2 \pi N x}{\sin^2 \pi x} =
    2\left(\frac{k}{xy} + 2 N y\frac{P'(y^2)}{P(y^2)} - 2 x\frac{P'(x^2)}{P(x^2)}\right)

which cancels nowhere: neither form needs a series near a peak, and N need not be whole. The square is a polynomial in
t = 2 cos(2 pi x) where N is whole, which is the faster way to the derivative while N is small.

Sums may be reordered and products fused, but no division is: three denominators become one by hand, each of them
kept away from zero on its own.
"""

import numpy as np

from ..compiling import lane_sum as lanes
from ..spots.functions import exponential

LANES = 256
"""Pixels or rows that are worked on at a time."""

BLOCK = 32
"""Lanes whose amplitudes are fetched and profiles computed together, so that neither waits for the other."""

LARGEST_POLYNOMIAL = 12
"""Largest whole N for which the derivative goes through the polynomial in 2 cos(2 pi x)."""

SHORT, LONG = 2, LARGEST_POLYNOMIAL // 2 - 1
"""Degrees of the polynomial: up to N = 6, for which values go through it, too, and up to the largest."""

_T = LANES
F2, VALUE, SLOPE, UPSTREAM, S, CELLS, SUM, BACK, OFFSET, ORIGIN, BY_PARTS = (
    k * LANES for k in (3, 4, 5, 8, 9, 12, 15, 16, 19, 22, 23)
)
WORKSPACE = 25 * LANES
"""Where each quantity stands in the workspace; the distances x come first, BACK is the gradient in S.

OFFSET and ORIGIN belong to :func:`sim_core.kernels.lattice.nearest.near`, BY_PARTS (derivatives in the real and the
imaginary part of an amplitude) to :func:`sim_core.kernels.lattice.cells.join_slopes`.
"""


@lanes
def _series(z, c):
    p = c[-1]
    for i in range(2, len(c) + 1):
        p = c[-i] + z * p
    return p


@lanes
def _guarded(x, y, n, tiny):
    """Numerator and denominator without 0/0 on a lattice point, where their quotient is N."""
    near = abs(x) < tiny
    return (n * tiny if near else y), (tiny if near else x)


@lanes
def values(x, n, sine, tiny, first):
    """The squared product of the three grating functions."""
    n0, n1, n2 = n
    for i in range(first, first + BLOCK):
        x0, x1, x2 = x[i], x[i + _T], x[i + 2 * _T]
        y0, y1, y2 = n0 * x0, n1 * x1, n2 * x2
        y0, y1, y2 = y0 - np.rint(y0), y1 - np.rint(y1), y2 - np.rint(y2)
        t0, b0 = _guarded(x0, y0, n0, tiny)
        t1, b1 = _guarded(x1, y1, n1, tiny)
        t2, b2 = _guarded(x2, y2, n2, tiny)
        top = (t0 * _series(y0 * y0, sine)) * (t1 * _series(y1 * y1, sine)) * (t2 * _series(y2 * y2, sine))
        bottom = (b0 * _series(x0 * x0, sine)) * (b1 * _series(x1 * x1, sine)) * (b2 * _series(x2 * x2, sine))
        ratio = top / bottom
        x[VALUE + i] = ratio * ratio


@lanes
def _grating(x, y, k, n, t, b, p, inverse, sine, slope):
    """One axis: the square, its slope in x and in N, from 1 / (b p) with p = P(x^2)."""
    q, dq, dp = _series(y * y, sine), _series(y * y, slope), _series(x * x, slope)
    inverse_p, inverse_x = inverse * b, inverse * p
    ratio, quotient = t * inverse_x, q * inverse_p
    square = (ratio * quotient) * (ratio * quotient)
    e = ratio * inverse_p
    half = n * y * (e * e) * q * dq - square * x * dp * inverse_p
    half = half + half + quotient * quotient * k * ratio * (inverse_x * inverse_x)
    d_n = e * inverse_p * q * (q + (y * y) * (dq + dq))
    return square, half + half, d_n + d_n


@lanes
def slopes(x, n, sine, slope, tiny, one, first):
    """Value, slopes in x and in N of the squared product, for any N."""
    n0, n1, n2 = n
    for i in range(first, first + BLOCK):
        x0, x1, x2 = x[i], x[i + _T], x[i + 2 * _T]
        k0, k1, k2 = np.rint(n0 * x0), np.rint(n1 * x1), np.rint(n2 * x2)
        y0, y1, y2 = n0 * x0 - k0, n1 * x1 - k1, n2 * x2 - k2
        t0, b0 = _guarded(x0, y0, n0, tiny)
        t1, b1 = _guarded(x1, y1, n1, tiny)
        t2, b2 = _guarded(x2, y2, n2, tiny)
        p0, p1, p2 = _series(x0 * x0, sine), _series(x1 * x1, sine), _series(x2 * x2, sine)
        s0, s1, s2 = b0 * p0, b1 * p1, b2 * p2
        inverse = one / (s0 * (s1 * s2))
        v0, d0, e0 = _grating(x0, y0, k0, n0, t0, b0, p0, inverse * (s1 * s2), sine, slope)
        inverse = inverse * s0
        v1, d1, e1 = _grating(x1, y1, k1, n1, t1, b1, p1, inverse * s2, sine, slope)
        v2, d2, e2 = _grating(x2, y2, k2, n2, t2, b2, p2, inverse * s1, sine, slope)
        v12, v02, v01 = v1 * v2, v0 * v2, v0 * v1
        x[VALUE + i] = v0 * v12
        x[SLOPE + i], x[SLOPE + _T + i], x[SLOPE + 2 * _T + i] = d0 * v12, d1 * v02, d2 * v01
        x[CELLS + i], x[CELLS + _T + i], x[CELLS + 2 * _T + i] = e0 * v12, e1 * v02, e2 * v01


@lanes
def polynomial_values(x, q, sine, constants, first):
    """The squared product of the three grating functions, for small whole N."""
    two, four = constants
    q0, q1, q2 = q
    for i in range(first, first + BLOCK):
        s0, s1, s2 = _sine(x[i], sine), _sine(x[i + _T], sine), _sine(x[i + 2 * _T], sine)
        t0, t1, t2 = two - four * (s0 * s0), two - four * (s1 * s1), two - four * (s2 * s2)
        ratio = _series(t0, q0[2:]) * _series(t1, q1[2:]) * _series(t2, q2[2:])
        even = (q0[0] + q0[1] * t0) * (q1[0] + q1[1] * t1) * (q2[0] + q2[1] * t2)
        x[VALUE + i] = even * (ratio * ratio)


@lanes
def _sine(x, sine):
    return x * _series(x * x, sine)


@lanes
def _polynomial_grating(x, q, dq, sine, cosine, constants):
    """One axis of a small whole N: (q0 + q1 t) Q(t)^2 and its slope in x."""
    two, four = constants
    s = _sine(x, sine)
    t = two - four * (s * s)
    value, even = _series(t, q[2:]), q[0] + q[1] * t
    square = even * value
    return square * value, (q[1] * value + even * _series(t, dq)) * value * (s * _series(x * x, cosine))


@lanes
def polynomial_slopes(x, q, dq, sine, cosine, constants, first):
    """Slopes in x of the squared product, for small whole N."""
    for i in range(first, first + BLOCK):
        v0, d0 = _polynomial_grating(x[i], q[0], dq[0], sine, cosine, constants)
        v1, d1 = _polynomial_grating(x[i + _T], q[1], dq[1], sine, cosine, constants)
        v2, d2 = _polynomial_grating(x[i + 2 * _T], q[2], dq[2], sine, cosine, constants)
        x[SLOPE + i], x[SLOPE + _T + i], x[SLOPE + 2 * _T + i] = d0 * (v1 * v2), v0 * d1 * v2, v0 * v1 * d2


@lanes
def odd_values(x, q, sine, constants, first):
    """The same as :func:`polynomial_values` where every N is odd, with less work."""
    two, four = constants
    q0, q1, q2 = q
    for i in range(first, first + BLOCK):
        s0, s1, s2 = _sine(x[i], sine), _sine(x[i + _T], sine), _sine(x[i + 2 * _T], sine)
        t0, t1, t2 = two - four * (s0 * s0), two - four * (s1 * s1), two - four * (s2 * s2)
        ratio = _series(t0, q0) * _series(t1, q1) * _series(t2, q2)
        x[VALUE + i] = ratio * ratio


@lanes
def _odd_grating(x, q, dq, sine, cosine, constants):
    """One axis of a small odd N: Q(t), and the slope of Q^2 in x divided by Q."""
    two, four = constants
    s = _sine(x, sine)
    t = two - four * (s * s)
    return _series(t, q), _series(t, dq) * (s * _series(x * x, cosine))


@lanes
def odd_slopes(x, q, dq, sine, cosine, constants, first):
    """The same as :func:`polynomial_slopes` where every N is odd."""
    for i in range(first, first + BLOCK):
        r0, d0 = _odd_grating(x[i], q[0], dq[0], sine, cosine, constants)
        r1, d1 = _odd_grating(x[i + _T], q[1], dq[1], sine, cosine, constants)
        r2, d2 = _odd_grating(x[i + 2 * _T], q[2], dq[2], sine, cosine, constants)
        r12, r02, r01 = r1 * r2, r0 * r2, r0 * r1
        ratio = r0 * r12
        x[SLOPE + i], x[SLOPE + _T + i], x[SLOPE + 2 * _T + i] = ratio * d0 * r12, ratio * d1 * r02, ratio * d2 * r01


@lanes
def gaussian_values(x, q, turn, first):
    """exp(-pi sum q x^2)."""
    q0, q1, q2 = q
    for i in range(first, first + BLOCK):
        x0, x1, x2 = x[i], x[i + _T], x[i + 2 * _T]
        x[VALUE + i] = exponential(-turn * (q0 * x0 * x0 + q1 * x1 * x1 + q2 * x2 * x2))


@lanes
def gaussian_slopes(x, q, turn, first):
    """Value, slopes in x and in q of the Gaussian."""
    q0, q1, q2 = q
    for i in range(first, first + BLOCK):
        x0, x1, x2 = x[i], x[i + _T], x[i + 2 * _T]
        y0, y1, y2 = q0 * x0, q1 * x1, q2 * x2
        value = exponential(-turn * (y0 * x0 + y1 * x1 + y2 * x2))
        by = -turn * value
        x[VALUE + i] = value
        x[SLOPE + i], x[SLOPE + _T + i], x[SLOPE + 2 * _T + i] = (by + by) * y0, (by + by) * y1, (by + by) * y2
        x[CELLS + i], x[CELLS + _T + i], x[CELLS + 2 * _T + i] = by * x0 * x0, by * x1 * x1, by * x2 * x2


@lanes
def add_values(x, weight):
    """Add the values of one orientation to the sum."""
    for i in range(_T):
        x[SUM + i] += weight * x[F2 + i] * x[VALUE + i]


@lanes
def add_rotation(x, weight, m, out):
    """The 3 x 3 sum over lanes: slope S^T, upstream."""
    zero = x[0] - x[0]
    r00, r01, r02, r10, r11, r12, r20, r21, r22 = zero, zero, zero, zero, zero, zero, zero, zero, zero
    for i in range(_T):
        u, v, w = x[S + i], x[S + _T + i], x[S + 2 * _T + i]
        g = x[F2 + i] * x[UPSTREAM + i]
        g0, g1, g2 = g * x[SLOPE + i], g * x[SLOPE + _T + i], g * x[SLOPE + 2 * _T + i]
        r00, r01, r02 = r00 + g0 * u, r01 + g0 * v, r02 + g0 * w
        r10, r11, r12 = r10 + g1 * u, r11 + g1 * v, r12 + g1 * w
        r20, r21, r22 = r20 + g2 * u, r21 + g2 * v, r22 + g2 * w
    for j, r in enumerate((r00, r01, r02, r10, r11, r12, r20, r21, r22)):
        out[m, j] += weight * r


@lanes
def add_weight_and_cells(x, weight, m, out):
    """Sums over lanes for the weight of the orientation (9) and for N (10 to 12)."""
    zero = x[0] - x[0]
    r0, r1, r2, r3 = zero, zero, zero, zero
    for i in range(_T):
        g = x[F2 + i] * x[UPSTREAM + i]
        r0 += g * x[VALUE + i]
        r1 += g * x[CELLS + i]
        r2 += g * x[CELLS + _T + i]
        r3 += g * x[CELLS + 2 * _T + i]
    out[m, 9] += r0
    out[m, 10] += weight * r1
    out[m, 11] += weight * r2
    out[m, 12] += weight * r3
