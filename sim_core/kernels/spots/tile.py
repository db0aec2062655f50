# mypy: allow-untyped-defs, allow-untyped-calls
"""One tile of pixels: rays, lattice points, densities and their derivatives, each a loop over lanes.

``a`` holds rows of double precision (geometry, indices), ``b`` rows in the precision of the intensities; a row is
``LANES`` numbers. ``p`` are the parameters in double precision, as :mod:`spot_compiled` packs them: first the camera,
then each step of the spindle. Derivatives with respect to them stand in the columns from ``COLUMNS`` on.
"""

import math
from collections import namedtuple

import numpy as np

from ..compiling import lanes
from . import symmetric
from .functions import exponential, rotation_means

LANES = 128
"""Pixels that are worked on at a time."""

T = LANES
SLOW, FAST, FLIGHT, INVERSE, SCATTERING, FACTOR, TRANSMITTED, DOUBLE_ROWS = 0, T, 2 * T, 5 * T, 6 * T, 9 * T, 10 * T, 12
PIXEL, EDGES, Q, D, H0, SPREAD, SEED, TOTAL, DENSITY = (T * n for n in (0, 6, 12, 15, 18, 21, 27, 28, 29))
BY_Q, BY_SPREAD, BY_S, BY_PIXEL, BY_EDGES, COLUMNS = (T * n for n in (30, 33, 39, 42, 48, 54))

ORIGIN, FAST_EDGE, SLOW_EDGE, WAVE, PER_WAVELENGTH, BANDWIDTH, POLARIZATION = 0, 3, 6, 9, 12, 13, 14
AREA, B_ISO, NORMAL, DEPTHS, CAMERA = 20, 21, 22, 25, 28
BASIS, MOSAIC, AXIS, HALF_WIDTH, TERMS = 0, 9, 15, 18, 20
TERM = 8
"""Numbers of a Gaussian: covariance (6), height and an empty one; camera, step and Gaussian take multiples of four."""

Plan = namedtuple(
    "Plan", "blur flatness s2_max falls absorbs rotates terms steps side_h side_k side_l low_h low_k low_l n_h n_k n_l"
)
"""What the loops need besides parameters; ``side_*`` are the numbers of neighbours."""

_add, _dot, _cross, _times = (lanes(f) for f in (symmetric.add, symmetric.dot, symmetric.cross, symmetric.times))
_turned, _inverse_parts = lanes(symmetric.turned), lanes(symmetric.inverse_parts)


@lanes
def _vector(x, i):
    """Three numbers of a list of parameters."""
    return x[i], x[i + 1], x[i + 2]


@lanes
def _matrix(x, i):
    """Six numbers of a list of parameters."""
    return x[i], x[i + 1], x[i + 2], x[i + 3], x[i + 4], x[i + 5]


@lanes
def _vector_at(x, row, i):
    return x[row + i], x[row + T + i], x[row + 2 * T + i]


@lanes
def _matrix_at(x, row, i):
    return (
        x[row + i],
        x[row + T + i],
        x[row + 2 * T + i],
        x[row + 3 * T + i],
        x[row + 4 * T + i],
        x[row + 5 * T + i],
    )


@lanes
def _put_vector(x, row, i, v):
    x[row + i], x[row + T + i], x[row + 2 * T + i] = v


@lanes
def _put_matrix(x, row, i, m):
    _put_vector(x, row, i, (m[0], m[1], m[2]))
    _put_vector(x, row + 3 * T, i, (m[3], m[4], m[5]))


@lanes
def _scaled(v, s):
    return v[0] * s, v[1] * s, v[2] * s


@lanes
def _plus(v, w):
    return v[0] + w[0], v[1] + w[1], v[2] + w[2]


@lanes
def _less(v, w):
    return v[0] - w[0], v[1] - w[1], v[2] - w[2]


@lanes
def _across(v, d):
    """The part of a vector normal to a unit vector."""
    return _less(v, _scaled(d, _dot(v, d)))


@lanes
def _outer(v, s):
    """s v v^T."""
    w = _scaled(v, s)
    return w[0] * v[0], w[1] * v[1], w[2] * v[2], w[1] * v[2], w[0] * v[2], w[0] * v[1]


@lanes
def rays(a, b, p, plan):
    """Scattering vector, covariance over the pixel and the factor of the intensity, from pixel coordinates."""
    origin, fast, slow = _vector(p, ORIGIN), _vector(p, FAST_EDGE), _vector(p, SLOW_EDGE)
    wave, per_wavelength, bandwidth = _vector(p, WAVE), p[PER_WAVELENGTH], p[BANDWIDTH]
    polarization, area, blur, s2_max = _matrix(p, POLARIZATION), p[AREA], plan.blur, plan.s2_max
    flatness = plan.flatness
    for i in range(T):
        x = _plus(_plus(origin, _scaled(fast, a[FAST + i])), _scaled(slow, a[SLOW + i]))
        inverse = 1.0 / math.sqrt(_dot(x, x))
        d = _scaled(x, inverse)
        s = _less(_scaled(d, per_wavelength), wave)
        scale = per_wavelength * inverse
        j_f, j_s = _scaled(_across(fast, d), scale), _scaled(_across(slow, d), scale)
        pixel = _add(_outer(j_f, blur), _outer(j_s, blur))
        factor = area * inverse * inverse * inverse * _dot(d, _times(polarization, d))
        a[INVERSE + i] = inverse
        a[FACTOR + i] = factor if _dot(s, s) <= s2_max else 0.0
        _put_vector(a, FLIGHT, i, d)
        _put_vector(a, SCATTERING, i, s)
        _put_matrix(b, PIXEL, i, _add(pixel, _outer(s, bandwidth)))
        _put_vector(b, EDGES, i, _scaled(j_f, flatness))
        _put_vector(b, EDGES + 3 * T, i, _scaled(j_s, flatness))
    if plan.falls:
        _fall(a, p[B_ISO])
    if plan.absorbs:
        _absorb(a, _vector(p, NORMAL), p[DEPTHS], p[DEPTHS + 1])


@lanes
def _fall(a, b_iso):
    """Overall displacement factor."""
    for i in range(T):
        s = _vector_at(a, SCATTERING, i)
        a[FACTOR + i] *= exponential(-0.5 * b_iso * _dot(s, s))


@lanes
def _absorb(a, normal, top, bottom):
    """Part of the photons that a layer between two optical depths stops."""
    for i in range(T):
        path = 1.0 / _dot(_vector_at(a, FLIGHT, i), normal)
        a[TRANSMITTED + i], a[TRANSMITTED + T + i] = exponential(-top * path), exponential(-bottom * path)
        a[FACTOR + i] *= a[TRANSMITTED + i] - a[TRANSMITTED + T + i]


@lanes
def points(a, b, place, basis, inverse, offset, plan):
    """A lattice point near each scattering vector: its indices, its place in the table, q0 and D = S - q0."""
    a_star, b_star, c_star = basis
    row_a, row_b, row_c = inverse
    low_h, low_k, low_l, n_h, n_k, n_l = plan.low_h, plan.low_k, plan.low_l, plan.n_h, plan.n_k, plan.n_l
    for i in range(T):
        s = _vector_at(a, SCATTERING, i)
        h, k, l = _dot(row_a, s), _dot(row_b, s), _dot(row_c, s)
        h0, k0, l0 = np.ceil(h - 0.5), np.ceil(k - 0.5), np.ceil(l - 0.5)
        h0 += offset[0] if h > h0 else -offset[0]
        k0 += offset[1] if k > k0 else -offset[1]
        l0 += offset[2] if l > l0 else -offset[2]
        q = _plus(_plus(_scaled(a_star, h0), _scaled(b_star, k0)), _scaled(c_star, l0))
        _put_vector(b, Q, i, q)
        _put_vector(b, D, i, _less(s, q))
        _put_vector(b, H0, i, (h0, k0, l0))
        u = min(max(h0 - low_h, 0.0), n_h - 1.0)
        v = min(max(k0 - low_k, 0.0), n_k - 1.0)
        w = min(max(l0 - low_l, 0.0), n_l - 1.0)
        place[i] = np.int64((u * n_k + v) * n_l + w)


@lanes
def seeds(a, b, place, amplitudes, mosaic):
    """Squared amplitude times factor, and the covariance that all Gaussians of a lattice point share."""
    for i in range(T):
        f = amplitudes[place[i]]
        b[SEED + i] = f * f * a[FACTOR + i]
    for i in range(T):
        _put_matrix(b, SPREAD, i, _add(_matrix_at(b, PIXEL, i), _turned(_vector_at(b, Q, i), mosaic)))


@lanes
def _flattening(t, a, three):
    """What the box of the pixel adds along one edge: t^4 - 6 a t^2 + 3 a^2."""
    t2 = t * t
    return t2 * t2 + three * a * (a - t2 - t2)


@lanes
def add_density(b, constant, height, half, one):
    """Intensity of one Gaussian."""
    three = one + one + one
    for i in range(T):
        d, e, f = _vector_at(b, D, i), _vector_at(b, EDGES, i), _vector_at(b, EDGES + 3 * T, i)
        adjugate, determinant = _inverse_parts(_add(_matrix_at(b, SPREAD, i), constant))
        inverse = one / determinant
        v = _scaled(_times(adjugate, d), inverse)
        flat = _flattening(_dot(e, v), _dot(e, _times(adjugate, e)) * inverse, three)
        flat += _flattening(_dot(f, v), _dot(f, _times(adjugate, f)) * inverse, three)
        b[TOTAL + i] += b[SEED + i] * height * exponential(-half * (_dot(d, v) + flat)) * math.sqrt(inverse)


@lanes
def add_rotated_density(b, constant, height, axis, half_width, one):
    """Intensity of one Gaussian, its mean over a rotation."""
    three = one + one + one
    range2 = half_width * half_width
    for i in range(T):
        d, e, f = _vector_at(b, D, i), _vector_at(b, EDGES, i), _vector_at(b, EDGES + 3 * T, i)
        u = _cross(_vector_at(b, Q, i), axis)
        adjugate, determinant = _inverse_parts(_add(_matrix_at(b, SPREAD, i), constant))
        inverse = one / determinant
        t, v = _scaled(_times(adjugate, u), inverse), _scaled(_times(adjugate, d), inverse)
        a, along = _dot(u, t), _dot(u, v)
        share = range2 / (three + a * range2)
        v_ = _less(v, _scaled(t, share * along))
        e_t, f_t = _dot(e, t), _dot(f, t)
        flat = _flattening(_dot(e, v_), _dot(e, _times(adjugate, e)) * inverse - share * e_t * e_t, three)
        flat += _flattening(_dot(f, v_), _dot(f, _times(adjugate, f)) * inverse - share * f_t * f_t, three)
        mean = rotation_means(a, along, _dot(d, v), flat, half_width)[0]
        b[TOTAL + i] += b[SEED + i] * height * mean * math.sqrt(inverse)
