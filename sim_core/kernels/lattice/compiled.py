"""The sum over orientations as machine code on a CPU: tensors to arrays, threads, and back.

Rows are cut into parts whatever the number of threads, so that results do not depend on it.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...interference import Gaussian, Square
from ..parts import in_parts
from . import machine_code
from .cells import Grid
from .lanes import LANES, LARGEST_POLYNOMIAL, LONG, SHORT
from .profiles import GAUSSIAN, Lattice, Profile
from .rays import PixelRays
from .scattering import Rays
from .series import COSINE, SINE
from .settings import Between, Settings

PARTS = 16
"""Largest number of parts of the rows."""

LARGEST_SUMS = 1 << 22
"""Numbers that the gradients of all parts may take."""

LARGEST_TABLES = 1 << 25
"""Numbers that the gradients of all parts in the amplitudes may take."""

REACH = 20.0
"""Largest N h of a lane from the middle of its group, if single precision is to find how far reflections are."""

LARGEST_SINGLE = 50.0
"""Largest N for which it does: a distance found from there on is off by the last place of a half, not of itself."""

EXACT = 1 << 23
"""Whole numbers up to this one are exact in single precision, and so is their sum with a smaller one."""

_NUMPY = {torch.float32: np.float32, torch.float64: np.float64}


def forward(
    s: Tensor | PixelRays,
    a: Tensor,
    w: Tensor,
    p: Tensor,
    values: Tensor,
    settings: Settings,
    imaginary: Tensor | None = None,
) -> Tensor:
    """Sum of each row, or of each pixel."""
    common = _arguments(s, a, w, p, values, settings, imaginary, True)
    out = np.empty(_length(s), _NUMPY[settings.dtype])
    _in_parts(len(out), PARTS, lambda i, start, stop: machine_code.image(*common, start, stop, out))
    return torch.from_numpy(out)


def backward(
    s: Tensor | PixelRays,
    a: Tensor,
    w: Tensor,
    p: Tensor,
    values: Tensor,
    settings: Settings,
    grad: Tensor,
    needs: tuple[bool, ...],
    imaginary: Tensor | None = None,
) -> list[Tensor | None]:
    """Gradient in each of the six tensors that needs one."""
    table = any(needs[4:6])
    common = _arguments(s, a, w, p, values, settings, imaginary, not (needs[2] or needs[3] or table))
    upstream = grad.detach().contiguous().numpy()
    back = np.zeros((_length(s) if needs[0] else 0, 3))
    points = _points(values, settings)
    numbers = points + (0 if imaginary is None else points) if table else 0
    parts = max(1, min(PARTS, LARGEST_SUMS // (13 * len(a)), LARGEST_TABLES // max(1, numbers)))
    sums, tables = np.zeros((parts, len(a), 13)), np.zeros((parts, numbers))

    def work(part: int, start: int, stop: int) -> None:
        machine_code.gradient(*common, start, stop, upstream, sums[part], back, tables[part])

    _in_parts(_length(s), parts, work)
    total, by_amplitudes = torch.from_numpy(sums.sum(0)), torch.from_numpy(tables.sum(0) if parts > 1 else tables[0])
    return [
        torch.from_numpy(back) if needs[0] else None,
        total[:, :9].reshape(-1, 3, 3) if needs[1] else None,
        total[:, 9] if needs[2] else None,
        total[:, 10:].sum(0) if needs[3] else None,
        by_amplitudes[: len(values)] if needs[4] else None,
        by_amplitudes[points:] if needs[5:6] == (True,) and imaginary is not None else None,
    ]


def tangents(
    s: Tensor | PixelRays,
    a: Tensor,
    w: Tensor,
    p: Tensor,
    values: Tensor,
    settings: Settings,
    *changes: Tensor | None,
    imaginary: Tensor | None = None,
) -> Tensor:
    """Change of each row [directions, rows] along directions of each of the six tensors."""
    ds, da, dw, dn, *rest = changes
    table = any(c is not None for c in rest)
    common = _arguments(s, a, w, p, values, settings, imaginary, dw is None and dn is None and not table)
    count = next(len(c) for c in changes if c is not None)
    out = np.zeros((count, _length(s)), _NUMPY[settings.dtype])
    arrays = [
        np.zeros((count, *shape), out.dtype) if c is None else _array(c.reshape(count, *shape), settings.dtype)
        for c, shape in ((da, (len(a), 9)), (dw, (len(a),)), (dn, (3,)))
    ]
    moves, moving = _moves(values, settings, rest, imaginary, count)

    def work(part: int, start: int, stop: int) -> None:
        machine_code.tangents(*common, start, stop, *arrays, moves, moving, out)

    if not (da is None and dw is None and dn is None) or len(moving):
        _in_parts(_length(s), PARTS, work)
    total = torch.from_numpy(out)
    if ds is not None and not isinstance(s, PixelRays):
        one = torch.ones(len(s), dtype=settings.dtype)
        slope = backward(s, a, w, p, values, settings, one, (True, *[False] * 5), imaginary)[0]
        assert slope is not None
        total = total + (ds * slope).sum(-1).to(settings.dtype)
    return total


def _moves(
    values: Tensor, settings: Settings, changes: list[Tensor | None], imaginary: Tensor | None, count: int
) -> tuple[tuple[Any, Any], Any]:
    """Changes of both parts of the amplitudes [directions, points], and the directions in which they are not zero."""
    points, moved = _points(values, settings), np.zeros(count, bool)
    moves = [np.zeros((count, 0)), np.zeros((count, 0))]
    if any(c is not None for c in changes):
        for i, part in enumerate((values, imaginary)[: len(changes)]):
            if part is not None:
                change = changes[i]
                moves[i] = np.zeros((count, points)) if change is None else _array(change)
                if moves[i].shape[1] < points:  # what lies outside the box does not move
                    moves[i] = np.concatenate([moves[i], np.zeros((count, 1))], 1)
                moved |= moves[i].any(1)
    return (moves[0], moves[1]), np.flatnonzero(moved)


@cache
def problem(dtype: torch.dtype, entry: str, between: bool = False) -> str:
    """Why a loop of :mod:`machine_code` cannot run here; empty if it can. Compiles it, or loads it from the disk.

    In a thread of its own, since the tensors that are made while a Jacobian is computed are wrapped.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_tried, dtype, entry, between).result()


def _tried(dtype: torch.dtype, entry: str, between: bool) -> str:
    try:
        one = torch.ones(1, dtype=torch.float64)
        grid = Between((0, 0, 0), (4, 4, 4), (1, 1, 1), False) if between else None
        settings = Settings(Square(), torch.zeros(3, dtype=torch.long), (0, 0, 0), dtype, between=grid)
        values = one.expand(64) if between else one
        common = (torch.zeros(1, 3).double(), torch.eye(3).double()[None], one, one.expand(3), values, settings)
        if entry == "image":
            forward(*common)
        elif entry == "gradient":
            backward(*common, torch.zeros(1, dtype=dtype), (True,) * 5)
        else:
            tangents(*common, None, torch.zeros(1, 1, 3, 3).double(), None, None, None)
    except Exception as error:  # whatever the compiler has to say must not end the program
        return f"{entry}: {type(error).__name__}: {str(error).strip()}".split("\n")[0]
    return ""


def _array(t: Tensor, dtype: torch.dtype = torch.float64) -> Any:
    return t.detach().to(dtype).contiguous().numpy()


def _rays(s: Tensor | PixelRays) -> Rays:
    if isinstance(s, PixelRays):
        axes, waves, polarization = (_array(t) for t in (s.axes, s.waves, s.polarization))
        pixels = np.zeros((0, 2), np.int64) if s.pixels is None else s.pixels.contiguous().numpy()
        return Rays(np.zeros((0, 3)), pixels, float(s.size[0]), axes, waves, polarization, s.limit)
    none = np.zeros((0, 2), np.int64)
    return Rays(_array(s), none, 1.0, np.zeros(6), np.zeros((1, 14)), np.zeros(3), math.inf)


def _length(s: Tensor | PixelRays) -> int:
    return s.count if isinstance(s, PixelRays) else len(s)


def _arguments(
    s: Tensor | PixelRays,
    a: Tensor,
    w: Tensor,
    p: Tensor,
    values: Tensor,
    settings: Settings,
    imaginary: Tensor | None,
    polynomial: bool,
) -> tuple[Rays, Lattice, Grid | None, Profile]:
    """What all loops are given first; with a polynomial they need know no values for a slope."""
    box, turns, grid = [_three(settings.h_min.tolist()), _three(settings.box)], a.reshape(len(a), 9), None
    amplitudes = _array(values)
    if settings.between is not None:
        low, size, rate, nearest = settings.between
        other = np.zeros(0) if imaginary is None else _array(imaginary)
        grid = Grid(amplitudes, other, _three(low), _three(size), _three(rate), nearest)
        amplitudes = np.zeros(1)
    elif len(amplitudes) < _points(values, settings):
        amplitudes = np.append(amplitudes, settings.default)
    lattice = Lattice(_array(turns), _array(turns, settings.dtype), _array(w, settings.dtype), amplitudes, *box)
    return _rays(s), lattice, grid, _profile(p, settings, polynomial and grid is None)


def _points(values: Tensor, settings: Settings) -> int:
    """Amplitudes that the loops know: those of the box and one for all others, or all of a grid."""
    if settings.between is not None or 0 in settings.box:
        return len(values)
    return math.prod(settings.box) + 1


def _three(numbers: Sequence[int]) -> tuple[float, ...]:
    return tuple(float(n) for n in numbers)


def _profile(n_cells: Tensor, settings: Settings, polynomial: bool) -> Profile:
    """Constants of the profile; the polynomial is taken where it is allowed and the numbers of cells are small."""
    gaussian = isinstance(settings.shape, Gaussian)
    number, n = _NUMPY[settings.dtype], n_cells.tolist()
    polynomial = polynomial and not gaussian
    most = max(*n, 1e-3)
    polynomial = polynomial and all(v == round(v) and 1 <= v <= LARGEST_POLYNOMIAL for v in n)
    q = [_chebyshev(int(v)) if polynomial else (0.0,) * 8 for v in n]
    degree = (SHORT if max(n) <= 2 * SHORT + 2 else LONG) if polynomial else 0
    degree = GAUSSIAN if gaussian else degree
    sine, single = SINE[settings.dtype], settings.dtype == torch.float32 and most <= LARGEST_SINGLE and not gaussian

    def numbers(values: Any) -> tuple[Any, ...]:
        return tuple(number(v) for v in values)

    return Profile(
        n=numbers(n),
        sine=numbers(sine),
        slope=numbers([*(k * c for k, c in enumerate(sine) if k), 0.0]),
        cosine=numbers(-8 * math.pi * c for c in COSINE[settings.dtype]),
        q=tuple(numbers(c) for c in q),
        dq=tuple(numbers(2 * k * c[k + 2] for k in range(1, 6)) for c in q),
        constants=numbers((2.0, 4.0)),
        guard=numbers((1e-12, 1.0)),
        degree=degree,
        odd=all(v % 2 == 1 for v in n),
        reach=min(REACH / most, EXACT / max(1, settings.box[1] * settings.box[2]) - 1) if single else 0.0,
        edge=numbers((0.5 - 1e-6 * REACH / most - 2e-7, 1.0, 0.0)),
    )


@cache
def _chebyshev(n: int) -> tuple[float, ...]:
    """sin^2(n u) / sin^2 u = (c0 + c1 t) Q(t)^2 with t = 2 cos 2u: c0 and c1, then the coefficients of Q.

    Q is sin(n u) / sin u for odd n and sin(n u) / sin 2u for even n; both follow Q' = t Q - Q''.
    """
    before, now = ([0.0] * 6, [0.0] * 6)
    now[0] = 1.0
    if n % 2:
        before[0] = -1.0  # sin(-u) / sin u
    for _ in range((n - 1) // 2):
        before, now = now, [x - y for x, y in zip([0.0, *now[:5]], before, strict=True)]
    return (1.0, 0.0, *now) if n % 2 else (2.0, 1.0, *now)


def _in_parts(rows: int, parts: int, work: Callable[[int, int, int], None]) -> None:
    """``work(part, start, stop)`` for runs of whole tiles."""
    size = LANES * max(1, math.ceil(rows / (parts * LANES)))
    in_parts(rows, size, lambda start, stop: work(start // size, start, stop))
