# mypy: allow-untyped-defs, allow-untyped-calls
"""Machine code that finds the reflection nearest to each lane, how far it is, and its squared amplitude."""

import numpy as np

from ..compiling import lane_sum as lanes
from .lanes import BLOCK, F2, LANES, OFFSET, ORIGIN, UPSTREAM, VALUE

_T = LANES
GROUP = 64
"""Lanes whose distances are found from a common origin."""

_GROUPS = LANES // GROUP
AMPLITUDE, WITHIN, RATE, _MIDDLE = 6 * LANES, 7 * LANES, 10 * LANES, 13 * LANES
ROWS = 13 * LANES + 3 * _GROUPS
"""Where amplitudes stand behind the scattering vectors and pixels, and how many numbers that makes.

WITHIN and RATE belong to :mod:`.cells`: the place in a cell of the grid, and how it moves with the index.
"""

_OUTSIDE, _ORIGIN, PLACES = LANES, 2 * LANES, 2 * LANES + _GROUPS
"""Where it stands which lanes are outside the box, and where the blocks begin in the table."""

_STRIDE = 32
_LEAST, _MOST, SPAN = 9, 9 + _STRIDE, 9 + 2 * _STRIDE
"""Numbers that :func:`bounds` and :func:`offsets` need: their results are the first nine."""


@lanes
def bounds(s, span):
    """Middle and half width of the scattering vectors of the lanes, component by component.

    Extremes of every 32nd lane come first, which is what vector instructions can do. A number that is none, or too
    large, in any lane makes them no numbers: such lanes are not inside anything.
    """
    for j in range(3):
        wrong = 0.0
        for i in range(_T):
            wrong += 0.0 if abs(s[j * _T + i]) < np.inf else np.nan
        for i in range(_STRIDE):
            least = most = s[j * _T + i]
            for k in range(_STRIDE, _T, _STRIDE):
                v = s[j * _T + k + i]
                least, most = min(least, v), max(most, v)
            span[_LEAST + i], span[_MOST + i] = least, most
        least, most = span[_LEAST], span[_MOST]
        for i in range(1, _STRIDE):
            least, most = min(least, span[_LEAST + i]), max(most, span[_MOST + i])
        span[j], span[j + 3] = 0.5 * (most + least) + wrong, 0.5 * (most - least)


@lanes
def offsets(s, span, x):
    """Scattering vectors from the middle of their group, in the precision of the sum, and the largest components.

    The latter are no numbers where those of :func:`bounds` are not.
    """
    for j in range(3):
        for b in range(_GROUPS):
            first = j * _T + b * GROUP
            middle = 0.5 * (s[first] + s[first + GROUP - 1])
            s[_MIDDLE + j * _GROUPS + b] = middle
            for i in range(GROUP):
                x[OFFSET + first + i] = s[first + i] - middle
        for i in range(_STRIDE):
            most = abs(x[OFFSET + j * _T + i])
            for k in range(_STRIDE, _T, _STRIDE):
                most = max(most, abs(x[OFFSET + j * _T + k + i]))
            span[_MOST + i] = most
        most = span[_MOST]
        for i in range(1, _STRIDE):
            most = max(most, span[_MOST + i])
        span[6 + j] = most if abs(span[j]) < np.inf else np.nan


@lanes
def close(span, a, reach):
    """Whether the lanes of each group are within ``reach`` of its middle, in each index."""
    a00, a01, a02, a10, a11, a12, a20, a21, a22 = a
    inside = reach > 0.0
    for row in ((a00, a01, a02), (a10, a11, a12), (a20, a21, a22)):
        inside = inside and abs(row[0]) * span[6] + abs(row[1]) * span[7] + abs(row[2]) * span[8] <= reach
    return inside


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
    """Distance to the nearest reflection, where its amplitude stands in the table, and whether it is outside."""
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
        at = at if p == p_in else -1.0  # which also is what comes of a number that is none
        at = at if q == q_in else -1.0
        at = at if r == r_in else -1.0
        place[i], place[_OUTSIDE + i] = np.int32(max(at, 0.0)), np.int32(min(at, 0.0))


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
def fetch(amplitudes, place, s, first):
    """Amplitudes of a block of lanes; one by one, since vectors can do all but that."""
    for i in range(first, first + BLOCK):
        s[AMPLITUDE + i] = amplitudes[np.uint32(place[i])]


@lanes
def square_within(s, x):
    """Squared amplitudes where every reflection is in the box."""
    for i in range(_T):
        F = s[AMPLITUDE + i]
        x[F2 + i] = F * F


@lanes
def square(default, place, s, x):
    """Squared amplitudes, that of ``default`` outside."""
    for i in range(_T):
        F = default if place[_OUTSIDE + i] else s[AMPLITUDE + i]
        x[F2 + i] = F * F


@lanes
def add_amplitudes(amplitudes, alone, inside, place, s, x, weight, count, table):
    """Add to ``table`` the gradient in the amplitudes; the last one is that of all reflections outside the box."""
    last = len(table) - 1
    for i in range(count):
        g = 2.0 * weight * x[UPSTREAM + i] * x[VALUE + i]
        if alone or not (inside or place[_OUTSIDE + i] == 0):
            table[last] += g * amplitudes[last]
        else:
            table[place[i]] += g * s[AMPLITUDE + i]


@lanes
def add_amplitude_tangent(amplitudes, alone, inside, place, s, x, weight, changes, d, first, t):
    """The change along one direction of the amplitudes."""
    last = len(amplitudes) - 1
    for i in range(_T):
        if alone or not (inside or place[_OUTSIDE + i] == 0):
            change = amplitudes[last] * changes[d, last]
        else:
            change = s[AMPLITUDE + i] * changes[d, place[i]]
        t[first + i] += 2.0 * weight * x[VALUE + i] * change


@lanes
def origins(s, span, a, low, size, place, x):
    """Distances of the groups' middles and where their amplitudes stand; whether all close lanes are in the box."""
    a00, a01, a02, a10, a11, a12, a20, a21, a22 = a
    (l0, l1, l2), (n0, n1, n2) = low, size
    u, v, w = span[6], span[7], span[8]
    h_most = abs(a00) * u + abs(a01) * v + abs(a02) * w + 0.51
    k_most = abs(a10) * u + abs(a11) * v + abs(a12) * w + 0.51
    l_most = abs(a20) * u + abs(a21) * v + abs(a22) * w + 0.51
    inside = True
    for b in range(_GROUPS):
        u, v, w = s[_MIDDLE + b], s[_MIDDLE + _GROUPS + b], s[_MIDDLE + 2 * _GROUPS + b]
        h = a00 * u + a01 * v + a02 * w - l0
        k = a10 * u + a11 * v + a12 * w - l1
        l = a20 * u + a21 * v + a22 * w - l2
        h0, k0, q0 = np.rint(h), np.rint(k), np.rint(l)
        x[ORIGIN + b], x[ORIGIN + _GROUPS + b], x[ORIGIN + 2 * _GROUPS + b] = h - h0, k - k0, l - q0
        place[_ORIGIN + b] = np.int32((h0 * n1 + k0) * n2 + q0)
        inside &= (h >= h_most) & (h + h_most <= n0 - 1.0) & (k >= k_most) & (k + k_most <= n1 - 1.0)
        inside &= (l >= l_most) & (l + l_most <= n2 - 1.0)
    return inside


@lanes
def near(coarse, size, edge, place, x):
    """The same as :func:`indices_within`, in the precision of the sum from the middles of the groups on.

    Returns whether any lane is so near to the middle between two reflections that this cannot tell which is nearer.
    """
    a00, a01, a02, a10, a11, a12, a20, a21, a22 = coarse
    m1, m2 = np.float32(size[1] * size[2]), np.float32(size[2])
    for b in range(_GROUPS):
        h_b, k_b, l_b = x[ORIGIN + b], x[ORIGIN + _GROUPS + b], x[ORIGIN + 2 * _GROUPS + b]
        at = place[_ORIGIN + b]
        for i in range(b * GROUP, (b + 1) * GROUP):
            u, v, w = x[OFFSET + i], x[OFFSET + _T + i], x[OFFSET + 2 * _T + i]
            h = h_b + a00 * u + a01 * v + a02 * w
            k = k_b + a10 * u + a11 * v + a12 * w
            l = l_b + a20 * u + a21 * v + a22 * w
            h0, k0, l0 = np.rint(h), np.rint(k), np.rint(l)
            x[i], x[i + _T], x[i + 2 * _T] = h - h0, k - k0, l - l0
            place[i] = at + np.int32(h0 * m1 + k0 * m2 + l0)
    most, one, zero = edge
    doubtful = zero
    for i in range(_T):
        doubtful += one if max(max(abs(x[i]), abs(x[i + _T])), abs(x[i + 2 * _T])) > most else zero
    return doubtful > zero
