# mypy: allow-untyped-defs, allow-untyped-calls
"""The closed form as machine code for a CPU: loops over tiles of pixels that Python calls from any thread.

A tile's rows stay in the first caches; geometry is computed on the fly, so that nothing but the image, or its
derivatives along given directions, is written to memory.
"""

import numpy as np

from ..compiling import entry, lanes
from .slopes import (
    add_lattice_point,
    add_rotated_slopes,
    add_scaled,
    add_slopes,
    camera_slopes,
    clear,
    column_sum,
)
from .tile import (
    AXIS,
    BASIS,
    BY_S,
    CAMERA,
    COLUMNS,
    DENSITY,
    DOUBLE_ROWS,
    FACTOR,
    FAST,
    HALF_WIDTH,
    MOSAIC,
    SLOW,
    TERM,
    TERMS,
    TOTAL,
    T,
    add_density,
    add_rotated_density,
    points,
    rays,
    seeds,
)

STEP_COLUMNS = COLUMNS + CAMERA * T


@lanes
def _cast(x, out):
    """Numbers in the precision of another array."""
    for i in range(len(x)):
        out[i] = x[i]


@lanes
def _coordinates(a, pixels, width, first):
    """Centres of the pixels (slow, fast) in pixels; lanes beyond the last pixel repeat it."""
    if len(pixels):
        for i in range(T):
            row = min(first + i, len(pixels) - 1)
            a[SLOW + i], a[FAST + i] = pixels[row, 0] + 0.5, pixels[row, 1] + 0.5
    else:
        across = 1.0 / width
        for i in range(T):
            number = np.float64(first) + np.float64(i)
            slow = np.floor((number + 0.5) * across)
            a[SLOW + i], a[FAST + i] = slow + 0.5, number - slow * width + 0.5


@lanes
def _offset(n, plan):
    """Which neighbour along each axis is the n-th: the nearest, the next, the one on the other side."""
    along_h, rest = n // (plan.side_k * plan.side_l), n % (plan.side_k * plan.side_l)
    along_k, along_l = rest // plan.side_l, rest % plan.side_l
    return _side(along_h), _side(along_k), _side(along_l)


@lanes
def _side(n):
    return 1.0 if n == 1 else -1.0 if n == 2 else 0.0


@lanes
def _vector_of(x, i):
    return x[i], x[i + 1], x[i + 2]


@lanes
def _basis(p):
    return _vector_of(p, BASIS), _vector_of(p, BASIS + 3), _vector_of(p, BASIS + 6)


@lanes
def _matrix_of(x, i):
    return x[i], x[i + 1], x[i + 2], x[i + 3], x[i + 4], x[i + 5]


@lanes
def _inverse(m):
    return (m[0, 0], m[0, 1], m[0, 2]), (m[1, 0], m[1, 1], m[1, 2]), (m[2, 0], m[2, 1], m[2, 2])


@lanes
def _add_densities(b, q, plan):
    """All Gaussians of one lattice point."""
    half, one = b.dtype.type(0.5), b.dtype.type(1)
    for term in range(plan.terms):
        at = TERMS + TERM * term
        if plan.rotates:
            axis, half_width = _vector_of(q, AXIS), q[HALF_WIDTH]
            add_rotated_density(b, _matrix_of(q, at), q[at + 6], axis, half_width, one)
        else:
            add_density(b, _matrix_of(q, at), q[at + 6], half, one)


@lanes
def _add_all_slopes(b, q, plan):
    """Derivatives of all Gaussians of one lattice point, on to the parameters of the step."""
    half, one = b.dtype.type(0.5), b.dtype.type(1)
    clear(b, DENSITY, 10)
    for term in range(plan.terms):
        at = TERMS + TERM * term
        column = STEP_COLUMNS + at * T
        if plan.rotates:
            axis, half_width, turning = _vector_of(q, AXIS), q[HALF_WIDTH], STEP_COLUMNS + AXIS * T
            add_rotated_slopes(b, _matrix_of(q, at), q[at + 6], axis, half_width, column, turning, half, one)
        else:
            add_slopes(b, _matrix_of(q, at), q[at + 6], column, half, one)
    add_lattice_point(b, _matrix_of(q, MOSAIC), STEP_COLUMNS)


@entry
def image(pixels, width, plan, p, inverses, amplitudes, start, stop, out):
    """Intensities of pixels ``start`` to ``stop``."""
    columns = TERMS + TERM * plan.terms
    a, b, place = np.empty(DOUBLE_ROWS * T), np.empty(COLUMNS, out.dtype), np.empty(T, np.int64)
    single = np.empty(columns, b.dtype)
    for first in range(start, stop, T):
        _coordinates(a, pixels, width, first)
        rays(a, b, p, plan)
        clear(b, TOTAL, 1)
        for step in range(plan.steps):
            q = p[CAMERA + step * columns : CAMERA + (step + 1) * columns]
            _cast(q, single)
            for n in range(plan.side_h * plan.side_k * plan.side_l):
                points(a, b, place, _basis(q), _inverse(inverses[step]), _offset(n, plan), plan)
                seeds(a, b, place, amplitudes, _matrix_of(single, MOSAIC))
                _add_densities(b, single, plan)
        for i in range(min(T, stop - first)):
            out[first + i] = b[TOTAL + i]


@lanes
def _contract(b, column, count, tangents, first, out):
    """Columns times tangents [directions, parameters], added to rows of ``out``."""
    for direction in range(len(tangents)):
        row = out[direction * T : (direction + 1) * T]
        for k in range(0, count, 4):
            t = tangents[direction, first + k : first + k + 4]
            if t[0] != 0 or t[1] != 0 or t[2] != 0 or t[3] != 0:
                columns = b[column + k * T : column + (k + 4) * T]
                add_scaled(row, columns, (t[0], t[1], t[2], t[3]))


@lanes
def _contract_amplitudes(a, b, place, amplitudes, changes, out):
    """The part of the amplitudes' own changes [directions, reflections]."""
    for direction in range(len(changes)):
        for i in range(T):
            change = 2.0 * amplitudes[place[i]] * changes[direction, place[i]]
            out[direction * T + i] += b[DENSITY + i] * a[FACTOR + i] * change


@entry
def tangents(pixels, width, plan, p, inverses, amplitudes, start, stop, directions, changes, camera, out):
    """Changes [directions, pixels] along directions of the parameters and of the amplitudes (or none of these)."""
    columns = TERMS + TERM * plan.terms
    a, place = np.empty(DOUBLE_ROWS * T), np.empty(T, np.int64)
    b, rows = np.empty(STEP_COLUMNS + columns * T, out.dtype), np.empty(len(out) * T, out.dtype)
    single = np.empty(columns, b.dtype)
    clear(b, COLUMNS, CAMERA)
    for first in range(start, stop, T):
        _coordinates(a, pixels, width, first)
        rays(a, b, p, plan)
        clear(b, TOTAL, 1)
        clear(b, BY_S, 15)
        clear(rows, 0, len(out))
        for step in range(plan.steps):
            at = CAMERA + step * columns
            q = p[at : at + columns]
            _cast(q, single)
            clear(b, STEP_COLUMNS, columns)
            for n in range(plan.side_h * plan.side_k * plan.side_l):
                points(a, b, place, _basis(q), _inverse(inverses[step]), _offset(n, plan), plan)
                seeds(a, b, place, amplitudes, _matrix_of(single, MOSAIC))
                _add_all_slopes(b, single, plan)
                _contract_amplitudes(a, b, place, amplitudes, changes, rows)
            _contract(b, STEP_COLUMNS, columns, directions, at, rows)
        if camera:
            camera_slopes(a, b, p, plan)
            _contract(b, COLUMNS, CAMERA, directions, 0, rows)
        for direction in range(len(out)):
            for i in range(min(T, stop - first)):
                out[direction, first + i] = rows[direction * T + i]


@lanes
def _add_amplitudes(a, b, place, amplitudes, lanes_used, table):
    """Gradient in the amplitudes."""
    for i in range(lanes_used):
        table[place[i]] += 2.0 * amplitudes[place[i]] * b[DENSITY + i] * a[FACTOR + i]


@entry
def gradient(pixels, width, plan, p, inverses, amplitudes, start, stop, upstream, sums, table):
    """Sums over pixels of ``upstream`` times derivatives, in the parameters and the amplitudes (or none of these)."""
    columns = TERMS + TERM * plan.terms
    a, place = np.empty(DOUBLE_ROWS * T), np.empty(T, np.int64)
    b = np.empty(STEP_COLUMNS + columns * T, upstream.dtype)
    single = np.empty(columns, b.dtype)
    clear(b, COLUMNS, CAMERA)
    for first in range(start, stop, T):
        used = min(T, stop - first)
        _coordinates(a, pixels, width, first)
        rays(a, b, p, plan)
        for i in range(used):
            a[FACTOR + i] *= upstream[first + i]
        for i in range(used, T):
            a[FACTOR + i] = 0
        clear(b, TOTAL, 1)
        clear(b, BY_S, 15)
        for step in range(plan.steps):
            at = CAMERA + step * columns
            q = p[at : at + columns]
            _cast(q, single)
            clear(b, STEP_COLUMNS, columns)
            for n in range(plan.side_h * plan.side_k * plan.side_l):
                points(a, b, place, _basis(q), _inverse(inverses[step]), _offset(n, plan), plan)
                seeds(a, b, place, amplitudes, _matrix_of(single, MOSAIC))
                _add_all_slopes(b, single, plan)
                if len(table):
                    _add_amplitudes(a, b, place, amplitudes, used, table)
            for k in range(columns):
                sums[at + k] += column_sum(b, STEP_COLUMNS + k * T)
        camera_slopes(a, b, p, plan)
        for k in range(CAMERA):
            sums[k] += column_sum(b, COLUMNS + k * T)
