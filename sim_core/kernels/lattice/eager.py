r"""The sum over orientations in tensor operations, on any device: the reference for the other implementations.

Rows are worked on in tiles; with :math:`G = w F^2\,\partial P/\partial x` the change along a change of the orientations
is a matrix product, :math:`\dot y_r = S_r \cdot (G_r \dot A)`, which makes a Jacobian of many parameters about as
cheap as one gradient.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ...amplitudes import box_limits, nearest_reflection, padded_index
from .settings import Settings

# glibc hands freed blocks back to the system unless one as large was freed before. Without this, a tile's temporaries
# would fault their pages in again in every operation, at three times the cost of the arithmetic.
torch.empty(16 << 20, dtype=torch.uint8)

TILE = {"cpu": 1 << 17, "cuda": 1 << 24}
"""Numbers (3 x rows x orientations) that are worked on at a time: a cache's worth on a CPU, enough to fill a GPU."""


class _Tile(NamedTuple):
    rows: slice
    s: Tensor
    x: Tensor
    place: Tensor | None
    f2: Tensor


def _tiles(s: Tensor, a: Tensor, values: Tensor, settings: Settings) -> Iterator[_Tile]:
    """Rows with their fractional indices [3, rows, samples] and squared amplitudes."""
    a = a.permute(1, 2, 0)
    step = max(1, TILE.get(s.device.type, 1 << 24) // (3 * a.shape[-1]))
    low, size = box_limits(settings.h_min, settings.box)
    f2 = values.square().to(settings.dtype)
    for start in range(0, s.shape[0], step):
        rows = slice(start, start + step)
        h = s[rows] @ a
        h0 = nearest_reflection(h)
        x = h.sub_(h0).to(settings.dtype)
        place = padded_index(h0, low, size) if len(values) > 1 else None
        yield _Tile(rows, s[rows], x, place, f2[None] if place is None else torch.take(f2, place))


def forward(s: Tensor, a: Tensor, w: Tensor, p: Tensor, values: Tensor, settings: Settings) -> Tensor:
    """Sum of each row."""
    w, p = w.to(settings.dtype), p.to(settings.dtype)
    parts = [settings.shape.profile(t.x, p).mul_(t.f2) @ w for t in _tiles(s, a, values, settings)]
    return torch.cat(parts) if parts else s.new_zeros(0, dtype=settings.dtype)


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
    """Gradient in each of the five tensors that needs one."""
    dtype = settings.dtype
    w_, p_, a_ = w.to(dtype), p.to(dtype), a.transpose(0, 1)
    out = [torch.zeros_like(t) if n else None for t, n in zip((s, a_, w, p, values), needs, strict=False)]
    for t in _tiles(s, a, values, settings):
        value, d_x, d_p = settings.shape.slopes(t.x, p_, out[3] is not None)
        g = grad[t.rows, None].to(dtype)
        common = g * w_ * t.f2
        slope = d_x.mul_(common).to(s.dtype)
        if out[0] is not None:
            out[0][t.rows] = (slope @ a_).sum(0)
        if out[1] is not None:
            out[1] += slope.mT @ t.s
        if out[2] is not None:
            out[2] += (g * t.f2 * value).sum(0).to(w.dtype)
        if d_p is not None and out[3] is not None:
            out[3] += (common * d_p).flatten(1).sum(1).to(p.dtype)
        if out[4] is not None:
            _add_amplitude_gradient(out[4], values, g * w_ * value, t.place)
    if out[1] is not None:
        out[1] = out[1].transpose(0, 1)
    return out


def tangent(
    s: Tensor,
    a: Tensor,
    w: Tensor,
    p: Tensor,
    values: Tensor,
    settings: Settings,
    *changes: Tensor | None,
) -> Tensor:
    """Change of each row with changes of the five tensors, which may be a batch of directions."""
    ds, da, dw, dp, d_values = changes
    dtype = settings.dtype
    w_, p_, a_ = w.to(dtype), p.to(dtype), a.permute(1, 2, 0).to(dtype)
    da = None if da is None else da.permute(1, 2, 0).to(dtype)
    parts = []
    for t in _tiles(s, a, values, settings):
        value, d_x, d_p = settings.shape.slopes(t.x, p_, dp is not None)
        common = w_ * t.f2
        slope = d_x.mul_(common)
        change = torch.zeros_like(value[:, 0])
        if ds is not None:
            change = change + (_per_row(a_, slope) * ds[t.rows].to(dtype).mT).sum(0)
        if da is not None:
            change = change + (_per_row(da, slope) * t.s.to(dtype).mT).sum(0)
        if dw is not None:
            change = change + (t.f2 * value) @ dw.to(dtype)
        if d_p is not None and dp is not None:
            change = change + (common * d_p).sum(-1).mT @ dp.to(dtype)
        if d_values is not None:
            df2 = (2 * values * d_values).to(dtype)
            change = change + (value * (df2 if t.place is None else df2[t.place])) @ w_
        parts.append(change)
    return torch.cat(parts) if parts else s.new_zeros(0, dtype=dtype)


def _per_row(a: Tensor, slope: Tensor) -> Tensor:
    """Sum over axes and samples of a [3, 3, samples] times slope [3, rows, samples], as [3, rows].

    The many directions of a Jacobian stand on the left, where they fold into one matrix product.
    """
    return a[0] @ slope[0].mT + a[1] @ slope[1].mT + a[2] @ slope[2].mT


def _add_amplitude_gradient(out: Tensor, values: Tensor, per_f2: Tensor, place: Tensor | None) -> None:
    """Scatter dL/dF = 2 F dL/dF^2 to the reflections that were looked up."""
    if place is None:
        out += 2 * values * per_f2.sum().to(values.dtype)
    else:
        out.index_add_(0, place.flatten(), per_f2.flatten().to(values.dtype) * 2 * values[place.flatten()])
