# mypy: allow-untyped-defs, allow-untyped-calls, ignore-errors
"""The sum over orientations on a GPU, in Triton: the same formulas as :mod:`sim_core.kernels.lattice.lanes`.

A program works on ``BLOCK`` rows and loops over orientations. It has been checked in Triton's interpreter against the
eager reference; it has not been measured on a GPU, so that ``auto`` does not choose it.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .series import SINE
from .settings import Settings

BLOCK = 128
"""Rows of a program."""


@triton.jit
def _sine(z, wide: tl.constexpr, c: tl.constexpr):
    """Series of sin(pi sqrt z) / sqrt z and its derivative, with 5 coefficients or 9."""
    p = z * 0.0 + c[8 if wide else 4]
    d = z * 0.0
    for k in tl.static_range(7 if wide else 3, -1, -1):
        d = d * z + p
        p = p * z + c[k]
    return p, d


@triton.jit
def _axis(x, n, wide: tl.constexpr, c: tl.constexpr):
    """The squared grating function of one axis, its slope in x and in N."""
    k = tl.floor(n * x + 0.5)
    y = n * x - k
    near = tl.abs(x) < 1e-12
    b = tl.where(near, 1e-12, x).to(x.dtype)
    t = tl.where(near, n * 1e-12, y).to(x.dtype)
    p, dp = _sine(x * x, wide, c)
    q, dq = _sine(y * y, wide, c)
    ratio, quotient = t / b, q / p
    square = ratio * ratio * quotient * quotient
    e = ratio / p
    half = 2.0 * (n * y * e * e * q * dq - square * x * dp / p) + quotient * quotient * k * ratio / (b * b)
    return square, 2.0 * half, 2.0 * e / p * q * (q + 2.0 * y * y * dq)


@triton.jit
def _terms(
    S,
    A,
    table,
    box,
    m,
    rows,
    mask,
    dtype: tl.constexpr,
    default,
    n0,
    n1,
    n2,
    wide: tl.constexpr,
    c: tl.constexpr,
    single: tl.constexpr,
):
    """F^2 and profile, slopes in x and in N, of a block of rows at orientation m; and its scattering vectors."""
    u = tl.load(S + rows * 3, mask=mask, other=0.0)
    v = tl.load(S + rows * 3 + 1, mask=mask, other=0.0)
    w = tl.load(S + rows * 3 + 2, mask=mask, other=0.0)
    a = A + m * 9
    h = tl.load(a) * u + tl.load(a + 1) * v + tl.load(a + 2) * w
    k = tl.load(a + 3) * u + tl.load(a + 4) * v + tl.load(a + 5) * w
    l = tl.load(a + 6) * u + tl.load(a + 7) * v + tl.load(a + 8) * w
    h0, k0, l0 = tl.ceil(h - 0.5), tl.ceil(k - 0.5), tl.ceil(l - 0.5)
    if single:
        F = tl.load(table) + h0 * 0.0
    else:
        p, q, r = h0 - tl.load(box), k0 - tl.load(box + 1), l0 - tl.load(box + 2)
        s0, s1, s2 = tl.load(box + 3), tl.load(box + 4), tl.load(box + 5)
        inside = mask & (p >= 0) & (p < s0) & (q >= 0) & (q < s1) & (r >= 0) & (r < s2)
        place = tl.where(inside, (p * s1 + q) * s2 + r, 0.0).to(tl.int64)
        F = tl.where(inside, tl.load(table + place), default)
    v0, d0, e0 = _axis((h - h0).to(dtype), n0, wide, c)
    v1, d1, e1 = _axis((k - k0).to(dtype), n1, wide, c)
    v2, d2, e2 = _axis((l - l0).to(dtype), n2, wide, c)
    f2 = (F * F).to(dtype)
    value = f2 * v0 * v1 * v2
    return (
        value, f2 * d0 * v1 * v2, f2 * v0 * d1 * v2, f2 * v0 * v1 * d2,
        f2 * e0 * v1 * v2, f2 * v0 * e1 * v2, f2 * v0 * v1 * e2, u, v, w,
    )  # fmt: skip


@triton.jit
def _forward(
    S,
    A,
    W,
    N,
    table,
    box,
    out,
    count,
    samples,
    default,
    dtype: tl.constexpr,
    wide: tl.constexpr,
    c: tl.constexpr,
    single: tl.constexpr,
    block: tl.constexpr,
):
    rows = tl.program_id(0) * block + tl.arange(0, block)
    mask = rows < count
    n0, n1, n2 = tl.load(N).to(dtype), tl.load(N + 1).to(dtype), tl.load(N + 2).to(dtype)
    total = tl.zeros([block], dtype)
    for m in range(samples):
        value, _a, _b, _c, _d, _e, _f, _u, _v, _w = _terms(
            S, A, table, box, m, rows, mask, dtype, default, n0, n1, n2, wide, c, single
        )
        total += tl.load(W + m).to(dtype) * value
    tl.store(out + rows, total, mask=mask)


@triton.jit
def _backward(
    S,
    A,
    W,
    N,
    table,
    box,
    grad,
    out,
    back,
    count,
    samples,
    default,
    dtype: tl.constexpr,
    wide: tl.constexpr,
    c: tl.constexpr,
    single: tl.constexpr,
    block: tl.constexpr,
    with_back: tl.constexpr,
):
    rows = tl.program_id(0) * block + tl.arange(0, block)
    mask = rows < count
    n0, n1, n2 = tl.load(N).to(dtype), tl.load(N + 1).to(dtype), tl.load(N + 2).to(dtype)
    g = tl.load(grad + rows, mask=mask, other=0.0).to(dtype)
    b0, b1, b2 = tl.zeros([block], tl.float64), tl.zeros([block], tl.float64), tl.zeros([block], tl.float64)
    for m in range(samples):
        value, d0, d1, d2, e0, e1, e2, u, v, w = _terms(
            S, A, table, box, m, rows, mask, dtype, default, n0, n1, n2, wide, c, single
        )
        weight = tl.load(W + m).to(dtype)
        to, a = out + m * 13, A + m * 9
        d0, d1, d2 = (
            (g * weight * d0).to(tl.float64),
            (g * weight * d1).to(tl.float64),
            (g * weight * d2).to(tl.float64),
        )
        tl.atomic_add(to, tl.sum(d0 * u, 0))
        tl.atomic_add(to + 1, tl.sum(d0 * v, 0))
        tl.atomic_add(to + 2, tl.sum(d0 * w, 0))
        tl.atomic_add(to + 3, tl.sum(d1 * u, 0))
        tl.atomic_add(to + 4, tl.sum(d1 * v, 0))
        tl.atomic_add(to + 5, tl.sum(d1 * w, 0))
        tl.atomic_add(to + 6, tl.sum(d2 * u, 0))
        tl.atomic_add(to + 7, tl.sum(d2 * v, 0))
        tl.atomic_add(to + 8, tl.sum(d2 * w, 0))
        tl.atomic_add(to + 9, tl.sum((g * value).to(tl.float64), 0))
        tl.atomic_add(to + 10, tl.sum((g * weight * e0).to(tl.float64), 0))
        tl.atomic_add(to + 11, tl.sum((g * weight * e1).to(tl.float64), 0))
        tl.atomic_add(to + 12, tl.sum((g * weight * e2).to(tl.float64), 0))
        if with_back:
            b0 += d0 * tl.load(a) + d1 * tl.load(a + 3) + d2 * tl.load(a + 6)
            b1 += d0 * tl.load(a + 1) + d1 * tl.load(a + 4) + d2 * tl.load(a + 7)
            b2 += d0 * tl.load(a + 2) + d1 * tl.load(a + 5) + d2 * tl.load(a + 8)
    if with_back:
        tl.store(back + rows * 3, b0, mask=mask)
        tl.store(back + rows * 3 + 1, b1, mask=mask)
        tl.store(back + rows * 3 + 2, b2, mask=mask)


@triton.jit
def _tangent(
    S,
    A,
    W,
    N,
    table,
    box,
    dA,
    dW,
    dN,
    out,
    count,
    samples,
    default,
    dtype: tl.constexpr,
    wide: tl.constexpr,
    c: tl.constexpr,
    single: tl.constexpr,
    block: tl.constexpr,
):
    rows = tl.program_id(0) * block + tl.arange(0, block)
    direction = tl.program_id(1)
    mask = rows < count
    n0, n1, n2 = tl.load(N).to(dtype), tl.load(N + 1).to(dtype), tl.load(N + 2).to(dtype)
    c0, c1, c2 = tl.load(dN + direction * 3), tl.load(dN + direction * 3 + 1), tl.load(dN + direction * 3 + 2)
    total = tl.zeros([block], tl.float64)
    for m in range(samples):
        value, d0, d1, d2, e0, e1, e2, u, v, w = _terms(
            S, A, table, box, m, rows, mask, dtype, default, n0, n1, n2, wide, c, single
        )
        a = dA + (direction * samples + m) * 9
        change = d0 * (tl.load(a) * u + tl.load(a + 1) * v + tl.load(a + 2) * w)
        change += d1 * (tl.load(a + 3) * u + tl.load(a + 4) * v + tl.load(a + 5) * w)
        change += d2 * (tl.load(a + 6) * u + tl.load(a + 7) * v + tl.load(a + 8) * w)
        change += e0 * c0 + e1 * c1 + e2 * c2
        total += tl.load(W + m) * change + tl.load(dW + direction * samples + m) * value
    tl.store(out + direction * count + rows, total, mask=mask)


def _common(s: Tensor, a: Tensor, w: Tensor, p: Tensor, values: Tensor, settings: Settings):
    """Arguments of every kernel, in double precision, and the constants that it is compiled for."""
    box = torch.cat([settings.h_min.to(a), a.new_tensor(settings.box)])
    arrays = [t.detach().double().contiguous() for t in (s, a, w, p, values)]
    wide = settings.dtype == torch.float64
    constants = {
        "dtype": tl.float64 if wide else tl.float32, "wide": wide, "c": SINE[settings.dtype],
        "single": settings.box[0] == 0, "block": BLOCK,
    }  # fmt: skip
    return (*arrays, box), constants


def forward(s: Tensor, a: Tensor, w: Tensor, p: Tensor, values: Tensor, settings: Settings) -> Tensor:
    """Sum of each row."""
    arrays, constants = _common(s, a, w, p, values, settings)
    out = torch.empty(len(s), dtype=settings.dtype, device=s.device)
    if len(s):
        _forward[(triton.cdiv(len(s), BLOCK),)](*arrays, out, len(s), len(a), settings.default, **constants)
    return out


def backward(
    s: Tensor,
    a: Tensor,
    w: Tensor,
    p: Tensor,
    values: Tensor,
    settings: Settings,
    grad: Tensor,
    needs: tuple[bool, ...],
) -> list[Tensor | None]:
    """Gradient in scattering vectors, orientations, weights and numbers of cells; amplitudes have none here."""
    arrays, constants = _common(s, a, w, p, values, settings)
    total = torch.zeros(len(a), 13, dtype=torch.float64, device=s.device)
    back = torch.zeros(len(s) if needs[0] else 1, 3, dtype=torch.float64, device=s.device)
    if len(s):
        _backward[(triton.cdiv(len(s), BLOCK),)](
            *arrays, grad.contiguous(), total, back, len(s), len(a), settings.default, **constants, with_back=needs[0]
        )  # fmt: skip
    return [
        back if needs[0] else None,
        total[:, :9].reshape(-1, 3, 3) if needs[1] else None,
        total[:, 9] if needs[2] else None,
        total[:, 10:].sum(0) if needs[3] else None,
        None,
    ]


def tangents(
    s: Tensor, a: Tensor, w: Tensor, p: Tensor, values: Tensor, settings: Settings, *changes: Tensor | None
) -> Tensor:
    """Change of each row [directions, rows] along directions of scattering vectors, orientations, weights, N."""
    ds, da, dw, dn = changes[:4]
    arrays, constants = _common(s, a, w, p, values, settings)
    count = next(len(c) for c in changes if c is not None)
    moves = [
        s.new_zeros(count, *shape) if c is None else c.double().contiguous()
        for c, shape in ((da, (len(a), 9)), (dw, (len(a),)), (dn, (3,)))
    ]
    out = torch.zeros(count, len(s), dtype=torch.float64, device=s.device)
    if len(s):
        grid = (triton.cdiv(len(s), BLOCK), count)
        _tangent[grid](*arrays, *moves, out, len(s), len(a), settings.default, **constants)
    if ds is not None:
        one = torch.ones(len(s), dtype=torch.float64, device=s.device)
        out = out + (ds * backward(s, a, w, p, values, settings, one, (True, False, False, False, False))[0]).sum(-1)
    return out.to(settings.dtype)


def problem(dtype: torch.dtype, entry: str, between: bool = False) -> str:
    """Why this implementation cannot run here, whatever is to be computed; empty if it can."""
    return "" if torch.cuda.is_available() else "no CUDA device"
