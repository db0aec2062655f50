# mypy: allow-untyped-defs, allow-untyped-calls
"""Loops over pixels in machine code: the image, its gradient and its tangents, from :mod:`sim_core.kernels.lanes`.

A record ``Rays`` says where the scattering vectors come from: ``rows`` holds them, or they are computed from pixels
for each of ``waves`` (a sub-pixel and a plane wave), so that memory is O(pixels). ``Lattice`` and ``Profile`` hold the
orientations, the table and what the profile needs, in the precision of the sum.
"""

from typing import Any, NamedTuple

import numpy as np

from .compiling import entry
from .compiling import lane_sum as lanes
from .lanes import (
    BACK,
    BLOCK,
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
    odd_slopes,
    odd_values,
    polynomial_slopes,
    polynomial_values,
    slopes,
    values,
)
from .nearest import (
    PLACES,
    ROWS,
    SPAN,
    bounds,
    close,
    fetch,
    indices,
    indices_within,
    near,
    offsets,
    square,
    square_within,
    within,
)
from .scattering import FACTOR, fill, scatter

_T = LANES
_Q = SHORT + 3


class Lattice(NamedTuple):
    """Orientations [samples, 9], the same and weights in the precision of the sum; |F| of a box, and of all others."""

    orientations: Any
    coarse: Any
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
        odd: Whether all N are odd.
        reach: How far from the middle of its group a lane may be (in indices) to be found in the precision of the sum.
        edge: Distance from which on they are found again in double precision, one and zero.
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
    odd: bool
    reach: float
    edge: Any


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
def _prepare(rays, profile, wave, s, span, x):
    """Scattering vectors of the lanes and how far they reach."""
    if len(rays.rows) == 0:
        scatter(rays, rays.waves[wave], s)
    bounds(s, span)
    if profile.reach > 0.0:
        offsets(s, span, x)


@lanes
def _meet(lattice, profile, m, s, span, place, x):
    """Distances of the lanes at one orientation, and where the amplitudes stand; whether all are in the box."""
    a = _nine(lattice.orientations, m)
    inside = len(lattice.amplitudes) == 1 or within(span, a, lattice.low, lattice.size)
    if not inside:
        indices(s, a, lattice.low, lattice.size, place, x)
    elif not close(span, a, profile.reach) or near(
        s, a, _nine(lattice.coarse, m), lattice.low, lattice.size, profile.edge, place, x
    ):
        indices_within(s, a, lattice.low, lattice.size, place, x)
    return inside


@lanes
def _fetch(lattice, place, s, first):
    if len(lattice.amplitudes) > 1:
        fetch(lattice.amplitudes, place, s, first)


@lanes
def _square(lattice, inside, place, s, x):
    if not inside:
        square(lattice.default, place, s, x)
    elif len(lattice.amplitudes) > 1:
        square_within(s, x)


@lanes
def _evaluate(lattice, profile, m, s, span, place, x):
    """Squared amplitudes and profiles of the lanes at one orientation."""
    inside = _meet(lattice, profile, m, s, span, place, x)
    q0, q1, q2 = profile.q
    if profile.degree == SHORT and profile.odd:
        for first in range(0, _T, BLOCK):
            _fetch(lattice, place, s, first)
            odd_values(x, (q0[2:_Q], q1[2:_Q], q2[2:_Q]), profile.sine, profile.constants, first)
    elif profile.degree == SHORT:
        for first in range(0, _T, BLOCK):
            _fetch(lattice, place, s, first)
            polynomial_values(x, (q0[:_Q], q1[:_Q], q2[:_Q]), profile.sine, profile.constants, first)
    else:
        for first in range(0, _T, BLOCK):
            _fetch(lattice, place, s, first)
            values(x, profile.n, profile.sine, profile.guard[0], first)
    _square(lattice, inside, place, s, x)


@lanes
def _differentiate(lattice, profile, m, s, span, place, x):
    """The same with slopes; the values where a general N needs them."""
    inside = _meet(lattice, profile, m, s, span, place, x)
    (q0, q1, q2), (d0, d1, d2) = profile.q, profile.dq
    dq = (d0[:SHORT], d1[:SHORT], d2[:SHORT])
    if profile.degree == SHORT and profile.odd:
        bare = (q0[2:_Q], q1[2:_Q], q2[2:_Q])
        for first in range(0, _T, BLOCK):
            _fetch(lattice, place, s, first)
            odd_slopes(x, bare, dq, profile.sine, profile.cosine, profile.constants, first)
    elif profile.degree == SHORT:
        q = (q0[:_Q], q1[:_Q], q2[:_Q])
        for first in range(0, _T, BLOCK):
            _fetch(lattice, place, s, first)
            polynomial_slopes(x, q, dq, profile.sine, profile.cosine, profile.constants, first)
    elif profile.degree > 0:
        for first in range(0, _T, BLOCK):
            _fetch(lattice, place, s, first)
            polynomial_slopes(x, profile.q, profile.dq, profile.sine, profile.cosine, profile.constants, first)
    else:
        for first in range(0, _T, BLOCK):
            _fetch(lattice, place, s, first)
            slopes(x, profile.n, profile.sine, profile.slope, profile.guard[0], profile.guard[1], first)
    _square(lattice, inside, place, s, x)


@lanes
def _constant(lattice, x):
    """The one amplitude, if there is one."""
    for i in range(_T):
        x[F2 + i] = lattice.amplitudes[0] ** 2


@entry
def image(rays, lattice, profile, start, stop, out):
    """Write the sum of pixels or rows from ``start`` to ``stop``."""
    s, span, place = np.zeros(ROWS), np.zeros(SPAN), np.zeros(PLACES, np.int32)
    x = np.zeros(WORKSPACE, lattice.weights.dtype)
    _constant(lattice, x)
    total = np.zeros(_T)
    for begin in range(start, stop, _T):
        fill(rays, begin, stop, s)
        total[:] = 0.0
        for wave in range(len(rays.waves)):
            _prepare(rays, profile, wave, s, span, x)
            x[SUM : SUM + _T] = 0
            for m in range(len(lattice.weights)):
                _evaluate(lattice, profile, m, s, span, place, x)
                add_values(x, lattice.weights[m])
            for i in range(_T):
                total[i] += s[FACTOR + i] * x[SUM + i]
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
    s, span, place = np.zeros(ROWS), np.zeros(SPAN), np.zeros(PLACES, np.int32)
    x = np.zeros(WORKSPACE, lattice.weights.dtype)
    _constant(lattice, x)
    for begin in range(start, stop, _T):
        fill(rays, begin, stop, s)
        count = min(_T, stop - begin)
        for wave in range(len(rays.waves)):
            _prepare(rays, profile, wave, s, span, x)
            _load(s, x)
            x[UPSTREAM : UPSTREAM + _T] = 0
            x[BACK : BACK + 3 * _T] = 0
            part = upstream[begin : begin + count]
            for i in range(count):
                x[UPSTREAM + i] = part[i] * s[FACTOR + i]
            for m in range(len(lattice.weights)):
                _differentiate(lattice, profile, m, s, span, place, x)
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
    s, span, place = np.zeros(ROWS), np.zeros(SPAN), np.zeros(PLACES, np.int32)
    x = np.zeros(WORKSPACE, lattice.weights.dtype)
    _constant(lattice, x)
    count = len(d_orientations)
    t = np.zeros(count * _T, lattice.weights.dtype)
    for begin in range(start, stop, _T):
        fill(rays, begin, stop, s)
        for d in range(count):
            for i in range(min(_T, stop - begin)):
                out[d, begin + i] = 0.0
        for wave in range(len(rays.waves)):
            _prepare(rays, profile, wave, s, span, x)
            _load(s, x)
            t[:] = 0
            for m in range(len(lattice.weights)):
                _differentiate(lattice, profile, m, s, span, place, x)
                for d in range(count):
                    _add_tangent(x, lattice.weights[m], _nine(d_orientations[d], m), d * _T, t)
                    if profile.degree == 0:
                        _add_other_tangents(x, lattice.weights[m], d_weights[d, m], d_n[d], d * _T, t)
            for d in range(count):
                for i in range(min(_T, stop - begin)):
                    out[d, begin + i] += s[FACTOR + i] * t[d * _T + i]
