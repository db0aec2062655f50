# mypy: allow-untyped-defs, allow-untyped-calls
"""Loops over pixels in machine code: the image, its gradient and its tangents, from :mod:`sim_core.kernels.lanes`.

A record ``Rays`` says where the scattering vectors come from: ``rows`` holds them, or they are computed from pixels
for each of ``waves`` (a sub-pixel and a plane wave), so that memory is O(pixels). ``Lattice`` and ``Profile`` hold the
orientations, the table and what the profile needs, in the precision of the sum.
"""

from typing import Any, NamedTuple

import numpy as np

from .lanes import (
    BACK,
    CELLS,
    F2,
    LANES,
    SHORT,
    SLOPE,
    SUM,
    UPSTREAM,
    VALUE,
    WORKSPACE,
    S,
    add_rotation,
    add_values,
    add_weight_and_cells,
    entry,
    lanes,
    owner,
    polynomial_slopes,
    polynomial_values,
    slopes,
    values,
)
from .nearest import AMPLITUDE, SPAN, bounds, indices, indices_within, look_up, look_up_within, within

_T = LANES
_FACTOR, _SLOW, _FAST = 3 * _T, 4 * _T, 5 * _T
_Q = SHORT + 3


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


class Lattice(NamedTuple):
    """Orientations [samples, 9] and weights; |F| of a box with its lowest indices and size, and of all others."""

    orientations: Any
    weights: Any
    amplitudes: Any
    default: float
    low: Any
    size: Any


class Profile(NamedTuple):
    """Numbers of cells and constants, all of the precision of the sum.

    Attributes:
        n: N along a, b, c.
        sine: Series of sin(pi sqrt z) / sqrt z.
        slope: Its derivative.
        cosine: Series of -8 pi cos(pi sqrt z).
        q: The factor that an even N has (two numbers) and the polynomial of each axis, in t = 2 cos(2 pi x).
        dq: Twice the derivative of that polynomial.
        constants: 2, 4.
        guard: Distance that counts as zero, and one.
        degree: Largest degree of the polynomials, as they are used; zero for none.
    """

    n: Any
    sine: Any
    slope: Any
    cosine: Any
    q: Any
    dq: Any
    constants: Any
    guard: Any
    degree: int


@lanes
def _place(rays, start, stop, s):
    """Rows, or the pixels of the lanes; lanes beyond the last repeat it."""
    for i in range(_T):
        r = min(start + i, stop - 1)
        if len(rays.rows) > 0:
            s[i], s[_T + i], s[2 * _T + i] = rays.rows[r, 0], rays.rows[r, 1], rays.rows[r, 2]
            s[_FACTOR + i] = 1.0
        elif len(rays.pixels) > 0:
            s[_SLOW + i], s[_FAST + i] = rays.pixels[r, 0], rays.pixels[r, 1]
        else:
            slow = np.floor(r / rays.width)
            s[_SLOW + i], s[_FAST + i] = slow, r - slow * rays.width


@lanes
def _scatter(rays, wave, s):
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
        s[_FACTOR + i] = factor if u * u + v * v + w * w <= limit else 0.0


@lanes
def _nine(table, m):
    """A row of a table as numbers: a view of the row would count its references in every turn of the loop."""
    return (
        table[m, 0],
        table[m, 1],
        table[m, 2],
        table[m, 3],
        table[m, 4],
        table[m, 5],
        table[m, 6],
        table[m, 7],
        table[m, 8],
    )


@lanes
def _meet(lattice, m, s, span, place, x):
    """Distances and squared amplitudes of the lanes at one orientation."""
    a = _nine(lattice.orientations, m)
    if len(lattice.amplitudes) == 1 or within(span, a, lattice.low, lattice.size):
        indices_within(s, a, lattice.low, lattice.size, place, x)
        if len(lattice.amplitudes) > 1:
            look_up_within(lattice.amplitudes, place, s, x)
    else:
        indices(s, a, lattice.low, lattice.size, place, x)
        look_up(lattice.amplitudes, lattice.default, place, s, x)


@lanes
def _evaluate(profile, x):
    if profile.degree == SHORT:
        q0, q1, q2 = profile.q
        polynomial_values(x, (q0[:_Q], q1[:_Q], q2[:_Q]), profile.sine, profile.constants)
    else:
        values(x, profile.n, profile.sine, profile.guard[0])


@lanes
def _differentiate(profile, x):
    if profile.degree == SHORT:
        (q0, q1, q2), (d0, d1, d2) = profile.q, profile.dq
        q, dq = (q0[:_Q], q1[:_Q], q2[:_Q]), (d0[:SHORT], d1[:SHORT], d2[:SHORT])
        polynomial_slopes(x, q, dq, profile.sine, profile.cosine, profile.constants)
    elif profile.degree > 0:
        polynomial_slopes(x, profile.q, profile.dq, profile.sine, profile.cosine, profile.constants)
    else:
        slopes(x, profile.n, profile.sine, profile.slope, profile.guard[0], profile.guard[1])


@owner
def _workspace(lattice):
    """Scattering vectors, their bounds, places in the table, and the lanes; with the one amplitude if there is one."""
    x = np.zeros(WORKSPACE, lattice.weights.dtype)
    x[F2 : F2 + _T] = lattice.amplitudes[0] ** 2
    return np.zeros(AMPLITUDE + _T), np.zeros(SPAN), np.zeros(_T, np.int32), x


@entry
def image(rays, lattice, profile, start, stop, out):
    """Write the sum of pixels or rows from ``start`` to ``stop``."""
    s, span, place, x = _workspace(lattice)
    total = np.zeros(_T)
    for begin in range(start, stop, _T):
        _place(rays, begin, stop, s)
        total[:] = 0.0
        for wave in range(len(rays.waves)):
            if len(rays.rows) == 0:
                _scatter(rays, rays.waves[wave], s)
            bounds(s, span)
            x[SUM : SUM + _T] = 0
            for m in range(len(lattice.weights)):
                _meet(lattice, m, s, span, place, x)
                _evaluate(profile, x)
                add_values(x, lattice.weights[m])
            for i in range(_T):
                total[i] += s[_FACTOR + i] * x[SUM + i]
        part = out[begin : min(begin + _T, stop)]
        for i in range(len(part)):
            part[i] = total[i]


@lanes
def _load(s, x):
    for i in range(_T):
        x[S + i], x[S + _T + i], x[S + 2 * _T + i] = s[i], s[_T + i], s[2 * _T + i]


@lanes
def _add_back(a, weight, x):
    """Gradient in the scattering vectors: A^T slope."""
    a00, a01, a02, a10, a11, a12, a20, a21, a22 = a
    for i in range(_T):
        g = weight * x[F2 + i]
        g0, g1, g2 = g * x[SLOPE + i], g * x[SLOPE + _T + i], g * x[SLOPE + 2 * _T + i]
        x[BACK + i] += g0 * a00 + g1 * a10 + g2 * a20
        x[BACK + _T + i] += g0 * a01 + g1 * a11 + g2 * a21
        x[BACK + 2 * _T + i] += g0 * a02 + g1 * a12 + g2 * a22


@entry
def gradient(rays, lattice, profile, start, stop, upstream, out, back):
    """Add to ``out`` [samples, 13] the gradient in orientation, weight and N; write ``back`` [rows, 3] if wanted."""
    s, span, place, x = _workspace(lattice)
    for begin in range(start, stop, _T):
        _place(rays, begin, stop, s)
        count = min(_T, stop - begin)
        for wave in range(len(rays.waves)):
            if len(rays.rows) == 0:
                _scatter(rays, rays.waves[wave], s)
            bounds(s, span)
            _load(s, x)
            x[UPSTREAM : UPSTREAM + _T] = 0
            x[BACK : BACK + 3 * _T] = 0
            part = upstream[begin : begin + count]
            for i in range(count):
                x[UPSTREAM + i] = part[i] * s[_FACTOR + i]
            for m in range(len(lattice.weights)):
                _meet(lattice, m, s, span, place, x)
                _differentiate(profile, x)
                add_rotation(x, lattice.weights[m], m, out)
                if profile.degree == 0:
                    add_weight_and_cells(x, lattice.weights[m], m, out)
                if len(back) > 0:
                    _add_back(_nine(lattice.orientations, m), lattice.weights[m], x)
        if len(back) > 0:
            for i in range(count):
                for j in range(3):
                    back[begin + i, j] = x[BACK + j * _T + i] * x[UPSTREAM + i]


@lanes
def _add_tangent(x, weight, a, first, t):
    """One direction of one orientation: slope (dA S), which is an addition to the direction's lanes."""
    a00, a01, a02, a10, a11, a12, a20, a21, a22 = a
    for i in range(_T):
        u, v, w = x[S + i], x[S + _T + i], x[S + 2 * _T + i]
        change = x[SLOPE + i] * (a00 * u + a01 * v + a02 * w)
        change = change + x[SLOPE + _T + i] * (a10 * u + a11 * v + a12 * w)
        change = change + x[SLOPE + 2 * _T + i] * (a20 * u + a21 * v + a22 * w)
        t[first + i] += weight * x[F2 + i] * change


@lanes
def _add_other_tangents(x, weight, d_weight, d_n, first, t):
    """The same for a change of the weight and of N."""
    n0, n1, n2 = d_n[0], d_n[1], d_n[2]
    for i in range(_T):
        change = x[CELLS + i] * n0 + x[CELLS + _T + i] * n1 + x[CELLS + 2 * _T + i] * n2
        t[first + i] += x[F2 + i] * (d_weight * x[VALUE + i] + weight * change)


@entry
def tangents(rays, lattice, profile, start, stop, d_orientations, d_weights, d_n, out):
    """Write the change [directions, rows] along each direction of orientations, weights and N."""
    s, span, place, x = _workspace(lattice)
    count = len(d_orientations)
    t = np.zeros(count * _T, lattice.weights.dtype)
    for begin in range(start, stop, _T):
        _place(rays, begin, stop, s)
        for d in range(count):
            for i in range(min(_T, stop - begin)):
                out[d, begin + i] = 0.0
        for wave in range(len(rays.waves)):
            if len(rays.rows) == 0:
                _scatter(rays, rays.waves[wave], s)
            bounds(s, span)
            _load(s, x)
            t[:] = 0
            for m in range(len(lattice.weights)):
                _meet(lattice, m, s, span, place, x)
                _differentiate(profile, x)
                for d in range(count):
                    _add_tangent(x, lattice.weights[m], _nine(d_orientations[d], m), d * _T, t)
                    if profile.degree == 0:
                        _add_other_tangents(x, lattice.weights[m], d_weights[d, m], d_n[d], d * _T, t)
            for d in range(count):
                for i in range(min(_T, stop - begin)):
                    out[d, begin + i] += s[_FACTOR + i] * t[d * _T + i]
