# mypy: allow-untyped-defs, allow-untyped-calls
"""What one orientation gives to the lanes: amplitudes, and profiles or their slopes (:mod:`.lanes`).

Amplitudes are fetched one by one, which keeps the ports of the memory busy, and profiles are arithmetic: both are done
block by block, so that the processor works on the one while it waits for the other.
"""

from typing import Any, NamedTuple

from ..compiling import lane_sum as lanes
from .cells import add_cell_tangent, add_cells, join_slopes, locate, squares
from .lanes import (
    BLOCK,
    F2,
    LANES,
    SHORT,
    gaussian_slopes,
    gaussian_values,
    odd_slopes,
    odd_values,
    polynomial_slopes,
    polynomial_values,
    slopes,
    values,
)
from .nearest import (
    add_amplitude_tangent,
    add_amplitudes,
    bounds,
    close,
    fetch,
    indices,
    indices_within,
    near,
    offsets,
    origins,
    square,
    square_within,
    within,
)
from .scattering import scatter

_T = LANES
_Q = SHORT + 3
GAUSSIAN = -1
"""What stands for the degree of a Gaussian."""


class Lattice(NamedTuple):
    """Orientations [samples, 9], the same and weights in the precision of the sum; |F| of a box.

    The last amplitude is that of every reflection outside the box, which may be empty.
    """

    orientations: Any
    coarse: Any
    weights: Any
    amplitudes: Any
    low: Any
    size: Any


class Profile(NamedTuple):
    """Numbers of cells and constants, all of the precision of the sum.

    Attributes:
        n: N along a, b, c; of a Gaussian, the factors of x^2.
        sine: Series of sin(pi sqrt z) / sqrt z.
        slope: Its derivative.
        cosine: Series of -8 pi cos(pi sqrt z).
        q: The factor that an even N has (two numbers) and the polynomial of each axis, in t = 2 cos(2 pi x).
        dq: Twice the derivative of that polynomial.
        constants: 2, 4.
        guard: Distance that counts as zero, and one.
        degree: Largest degree of the polynomials, as they are used; zero for none, ``GAUSSIAN`` for a Gaussian.
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
def nine(table, m):
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
def prepare(rays, profile, wave, s, span, x):
    """Scattering vectors of the lanes and how far they reach."""
    if len(rays.rows) == 0:
        scatter(rays, rays.waves[wave], s)
    bounds(s, span)
    if profile.reach > 0.0:
        offsets(s, span, x)


@lanes
def _meet(lattice, profile, m, s, span, place, x):
    """Distances of the lanes at one orientation, and where the amplitudes stand; whether all are in the box."""
    a, alone = nine(lattice.orientations, m), lattice.size[0] == 0.0
    if close(span, a, profile.reach):
        inside = origins(s, span, a, lattice.low, lattice.size, place, x) or alone
        if inside and not near(nine(lattice.coarse, m), lattice.size, profile.edge, place, x):
            return True
    else:
        inside = alone or within(span, a, lattice.low, lattice.size)
    if inside:
        indices_within(s, a, lattice.low, lattice.size, place, x)
    else:
        indices(s, a, lattice.low, lattice.size, place, x)
    return inside


@lanes
def _fetch(lattice, place, s, first):
    if lattice.size[0] > 0.0:
        fetch(lattice.amplitudes, place, s, first)


@lanes
def _square(lattice, inside, place, s, x):
    if not inside:
        square(lattice.amplitudes[len(lattice.amplitudes) - 1], place, s, x)
    elif lattice.size[0] > 0.0:
        square_within(s, x)


@lanes
def _values(profile, x, first):
    q0, q1, q2 = profile.q
    if profile.degree == SHORT and profile.odd:
        odd_values(x, (q0[2:_Q], q1[2:_Q], q2[2:_Q]), profile.sine, profile.constants, first)
    elif profile.degree == SHORT:
        polynomial_values(x, (q0[:_Q], q1[:_Q], q2[:_Q]), profile.sine, profile.constants, first)
    elif profile.degree == GAUSSIAN:
        gaussian_values(x, profile.n, profile.sine[0], first)
    else:
        values(x, profile.n, profile.sine, profile.guard[0], first)


@lanes
def evaluate(lattice, grid, profile, m, s, span, place, x):
    """Squared amplitudes and profiles of the lanes at one orientation; between reflections where there is a grid."""
    if grid is None:
        inside = _meet(lattice, profile, m, s, span, place, x)
        for first in range(0, _T, BLOCK):
            _fetch(lattice, place, s, first)
            _values(profile, x, first)
        _square(lattice, inside, place, s, x)
    else:
        locate(s, nine(lattice.orientations, m), grid, place, x)
        for first in range(0, _T, BLOCK):
            _values(profile, x, first)
        squares(grid, place, s, x)


@lanes
def _slopes(profile, x, first):
    (q0, q1, q2), (d0, d1, d2) = profile.q, profile.dq
    dq = (d0[:SHORT], d1[:SHORT], d2[:SHORT])
    if profile.degree == SHORT and profile.odd:
        bare = (q0[2:_Q], q1[2:_Q], q2[2:_Q])
        odd_slopes(x, bare, dq, profile.sine, profile.cosine, profile.constants, first)
    elif profile.degree == SHORT:
        q = (q0[:_Q], q1[:_Q], q2[:_Q])
        polynomial_slopes(x, q, dq, profile.sine, profile.cosine, profile.constants, first)
    elif profile.degree > 0:
        polynomial_slopes(x, profile.q, profile.dq, profile.sine, profile.cosine, profile.constants, first)
    elif profile.degree == GAUSSIAN:
        gaussian_slopes(x, profile.n, profile.sine[0], first)
    else:
        slopes(x, profile.n, profile.sine, profile.slope, profile.guard[0], profile.guard[1], first)


@lanes
def differentiate(lattice, grid, profile, m, s, span, place, x):
    """The same with slopes, and values where the degree is not above zero; whether all reflections are in the box."""
    if grid is None:
        inside = _meet(lattice, profile, m, s, span, place, x)
        for first in range(0, _T, BLOCK):
            _fetch(lattice, place, s, first)
            _slopes(profile, x, first)
        _square(lattice, inside, place, s, x)
    else:
        inside = True
        locate(s, nine(lattice.orientations, m), grid, place, x)
        for first in range(0, _T, BLOCK):
            _slopes(profile, x, first)
        join_slopes(grid, place, s, x)
    return inside


@lanes
def add_table(lattice, grid, m, inside, place, s, x, count, table):
    """Add to ``table`` the gradient in the amplitudes."""
    if grid is None:
        alone = lattice.size[0] == 0.0
        add_amplitudes(lattice.amplitudes, alone, inside, place, s, x, lattice.weights[m], count, table)
    else:
        add_cells(grid, place, s, x, lattice.weights[m], count, table)


@lanes
def add_table_tangent(lattice, grid, m, inside, place, s, x, changes, d, first, t):
    """Add to the lanes of a direction what the ``d``-th change of the amplitudes makes."""
    if grid is None:
        alone, weight = lattice.size[0] == 0.0, lattice.weights[m]
        add_amplitude_tangent(lattice.amplitudes, alone, inside, place, s, x, weight, changes[0], d, first, t)
    else:
        add_cell_tangent(grid, place, s, x, lattice.weights[m], changes[0][d], changes[1][d], first, t)


@lanes
def constant(lattice, x):
    """The one amplitude, if there is one."""
    for i in range(_T):
        x[F2 + i] = lattice.amplitudes[0] ** 2
