"""The sum over orientations as machine code on a CPU: tensors to arrays, threads, and back.

Rows are cut into parts whatever the number of threads, so that results do not depend on it.
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..parts import in_parts
from . import machine_code
from .lanes import LANES, LARGEST_POLYNOMIAL, LONG, SHORT
from .profiles import Lattice, Profile
from .rays import PixelRays
from .scattering import Rays
from .series import COSINE, SINE
from .settings import Settings

PARTS = 16
"""Largest number of parts of the rows."""

LARGEST_SUMS = 1 << 22
"""Numbers that the gradients of all parts may take."""

REACH = 20.0
"""Largest N h of a lane from the middle of its group, if single precision is to find how far reflections are."""

LARGEST_SINGLE = 50.0
"""Largest N for which it does: a distance found from there on is off by the last place of a half, not of itself."""

EXACT = 1 << 23
"""Whole numbers up to this one are exact in single precision, and so is their sum with a smaller one."""

_NUMPY = {torch.float32: np.float32, torch.float64: np.float64}


def forward(s: Tensor | PixelRays, a: Tensor, w: Tensor, p: Tensor, values: Tensor, settings: Settings) -> Tensor:
    """Sum of each row, or of each pixel."""
    rays, lattice, profile = _rays(s), _lattice(a, w, values, settings), _profile(p, settings, True)
    out = np.empty(_length(s), _NUMPY[settings.dtype])
    _in_parts(len(out), PARTS, lambda i, start, stop: machine_code.image(rays, lattice, profile, start, stop, out))
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
) -> list[Tensor | None]:
    """Gradient in scattering vectors, orientations, weights and numbers of cells; amplitudes have none here."""
    rays, lattice = _rays(s), _lattice(a, w, values, settings)
    profile = _profile(p, settings, not (needs[2] or needs[3]))
    upstream = grad.detach().contiguous().numpy()
    back = np.zeros((_length(s) if needs[0] else 0, 3))
    parts = max(1, min(PARTS, LARGEST_SUMS // (13 * len(a))))
    sums = np.zeros((parts, len(a), 13))

    def work(part: int, start: int, stop: int) -> None:
        machine_code.gradient(rays, lattice, profile, start, stop, upstream, sums[part], back)

    _in_parts(_length(s), parts, work)
    total = torch.from_numpy(sums.sum(0))
    return [
        torch.from_numpy(back) if needs[0] else None,
        total[:, :9].reshape(-1, 3, 3) if needs[1] else None,
        total[:, 9] if needs[2] else None,
        total[:, 10:].sum(0) if needs[3] else None,
        None,
    ]


def tangents(
    s: Tensor | PixelRays,
    a: Tensor,
    w: Tensor,
    p: Tensor,
    values: Tensor,
    settings: Settings,
    *changes: Tensor | None,
) -> Tensor:
    """Change of each row [directions, rows] along directions of scattering vectors, orientations, weights, N."""
    ds, da, dw, dn, _ = changes
    rays, lattice = _rays(s), _lattice(a, w, values, settings)
    profile = _profile(p, settings, dw is None and dn is None)
    count = next(len(c) for c in changes if c is not None)
    out = np.zeros((count, _length(s)), _NUMPY[settings.dtype])
    arrays = [
        np.zeros((count, *shape), out.dtype) if c is None else _array(c.reshape(count, *shape), settings.dtype)
        for c, shape in ((da, (len(a), 9)), (dw, (len(a),)), (dn, (3,)))
    ]

    def work(part: int, start: int, stop: int) -> None:
        machine_code.tangents(rays, lattice, profile, start, stop, *arrays, out)

    if not (da is None and dw is None and dn is None):
        _in_parts(_length(s), PARTS, work)
    total = torch.from_numpy(out)
    if ds is not None and not isinstance(s, PixelRays):
        one = torch.ones(len(s), dtype=settings.dtype)
        slope = backward(s, a, w, p, values, settings, one, (True, False, False, False, False))[0]
        assert slope is not None
        total = total + (ds * slope).sum(-1).to(settings.dtype)
    return total


@cache
def problem(dtype: torch.dtype, entry: str) -> str:
    """Why a loop of :mod:`machine_code` cannot run here; empty if it can. Compiles it, or loads it from the disk.

    In a thread of its own, since the tensors that are made while a Jacobian is computed are wrapped.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_tried, dtype, entry).result()


def _tried(dtype: torch.dtype, entry: str) -> str:
    try:
        one = torch.ones(1, dtype=torch.float64)
        settings = Settings(None, torch.zeros(3, dtype=torch.long), (0, 0, 0), dtype)  # type: ignore[arg-type]
        common = (torch.zeros(1, 3).double(), torch.eye(3).double()[None], one, one.expand(3), one, settings)
        if entry == "image":
            forward(*common)
        elif entry == "gradient":
            backward(*common, torch.zeros(1, dtype=dtype), (True, True, True, True, False))
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


def _lattice(a: Tensor, w: Tensor, values: Tensor, settings: Settings) -> Lattice:
    box = [tuple(float(n) for n in numbers) for numbers in (settings.h_min.tolist(), settings.box)]
    turns = a.reshape(len(a), 9)
    return Lattice(
        _array(turns), _array(turns, settings.dtype), _array(w, settings.dtype), _array(values), settings.default, *box
    )


def _profile(n_cells: Tensor, settings: Settings, polynomial: bool) -> Profile:
    """Constants of the profile; the polynomial is taken where it is allowed and the numbers of cells are small."""
    number, n = _NUMPY[settings.dtype], n_cells.tolist()
    most = max(*n, 1e-3)
    polynomial = polynomial and all(v == round(v) and 1 <= v <= LARGEST_POLYNOMIAL for v in n)
    q = [_chebyshev(int(v)) if polynomial else (0.0,) * 8 for v in n]
    degree = (SHORT if max(n) <= 2 * SHORT + 2 else LONG) if polynomial else 0
    sine, single = SINE[settings.dtype], settings.dtype == torch.float32 and most <= LARGEST_SINGLE

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
