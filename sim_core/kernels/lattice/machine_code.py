# mypy: allow-untyped-defs, allow-untyped-calls
"""Loops over pixels in machine code: the image, its gradient and its tangents, from :mod:`.profiles`.

Amplitudes are those of the nearest reflections, or of a :class:`.cells.Grid` where there is one. A record ``Rays`` says
where the scattering vectors come from: ``rows`` holds them, or they are computed from pixels
for each of ``waves`` (a sub-pixel and a plane wave), so that memory is O(pixels).
"""

import numpy as np

from ..compiling import entry
from ..compiling import lane_sum as lanes
from .lanes import (
    BACK,
    CELLS,
    F2,
    LANES,
    SLOPE,
    SUM,
    UPSTREAM,
    VALUE,
    WORKSPACE,
    S,
    add_rotation,
    add_values,
    add_weight_and_cells,
)
from .nearest import PLACES, ROWS, SPAN
from .profiles import add_table, add_table_tangent, constant, differentiate, evaluate, nine, prepare
from .scattering import FACTOR, fill

_T = LANES


@entry
def image(rays, lattice, grid, profile, start, stop, out):
    """Write the sum of pixels or rows from ``start`` to ``stop``."""
    s, span, place = np.zeros(ROWS), np.zeros(SPAN), np.zeros(PLACES, np.int32)
    x = np.zeros(WORKSPACE, lattice.weights.dtype)
    constant(lattice, x)
    total = np.zeros(_T)
    for begin in range(start, stop, _T):
        fill(rays, begin, stop, s)
        total[:] = 0.0
        for wave in range(len(rays.waves)):
            prepare(rays, profile, wave, s, span, x)
            x[SUM : SUM + _T] = 0
            for m in range(len(lattice.weights)):
                evaluate(lattice, grid, profile, m, s, span, place, x)
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
def gradient(rays, lattice, grid, profile, start, stop, upstream, out, back, table):
    """Add to ``out`` [samples, 13] the gradient in orientation, weight and N; write ``back`` [rows, 3] if wanted.

    To ``table`` is added that in the amplitudes, if wanted.
    """
    s, span, place = np.zeros(ROWS), np.zeros(SPAN), np.zeros(PLACES, np.int32)
    x = np.zeros(WORKSPACE, lattice.weights.dtype)
    constant(lattice, x)
    for begin in range(start, stop, _T):
        fill(rays, begin, stop, s)
        count = min(_T, stop - begin)
        for wave in range(len(rays.waves)):
            prepare(rays, profile, wave, s, span, x)
            _load(s, x)
            x[UPSTREAM : UPSTREAM + _T] = 0
            x[BACK : BACK + 3 * _T] = 0
            part = upstream[begin : begin + count]
            for i in range(count):
                x[UPSTREAM + i] = part[i] * s[FACTOR + i]
            for m in range(len(lattice.weights)):
                inside = differentiate(lattice, grid, profile, m, s, span, place, x)
                add_rotation(x, lattice.weights[m], m, out)
                if len(table) > 0:
                    add_table(lattice, grid, m, inside, place, s, x, count, table)
                if profile.degree <= 0:
                    add_weight_and_cells(x, lattice.weights[m], m, out)
                if len(back) > 0:
                    _add_back(nine(lattice.orientations, m), lattice.weights[m], x)
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
def tangents(rays, lattice, grid, profile, start, stop, d_orientations, d_weights, d_n, changes, moving, out):
    """Write the change [directions, rows] along each direction of orientations, weights, N, and amplitudes.

    ``moving`` lists the directions in which ``changes`` of amplitudes [directions, points] are not zero.
    """
    s, span, place = np.zeros(ROWS), np.zeros(SPAN), np.zeros(PLACES, np.int32)
    x = np.zeros(WORKSPACE, lattice.weights.dtype)
    constant(lattice, x)
    count = len(d_orientations)
    t = np.zeros(count * _T, lattice.weights.dtype)
    for begin in range(start, stop, _T):
        fill(rays, begin, stop, s)
        for d in range(count):
            for i in range(min(_T, stop - begin)):
                out[d, begin + i] = 0.0
        for wave in range(len(rays.waves)):
            prepare(rays, profile, wave, s, span, x)
            _load(s, x)
            t[:] = 0
            for m in range(len(lattice.weights)):
                inside = differentiate(lattice, grid, profile, m, s, span, place, x)
                for j in range(len(moving)):
                    d = moving[j]
                    add_table_tangent(lattice, grid, m, inside, place, s, x, changes, d, d * _T, t)
                for d in range(count):
                    _add_tangent(x, lattice.weights[m], nine(d_orientations[d], m), d * _T, t)
                    if profile.degree <= 0:
                        _add_other_tangents(x, lattice.weights[m], d_weights[d, m], d_n[d], d * _T, t)
            for d in range(count):
                for i in range(min(_T, stop - begin)):
                    out[d, begin + i] += s[FACTOR + i] * t[d * _T + i]
