r"""The sum over orientations of the crystal, the hot loop of the sampled simulator.

.. math:: y_r = \sum_m w_m F^2(h^0_{rm}) P(x_{rm}), \quad h_{rm} = A_m S_r, \quad x = h - h^0

Values and all first derivatives are computed in tiles of rows and nothing but the inputs is kept between the
forward and the backward pass, so memory is O(rows + orientations). With :math:`G = w F^2\,\partial P/\partial x` the
derivative along a change of the orientations is a matrix product, :math:`\dot y_r = S_r \cdot (G_r \dot A)`, which
makes a Jacobian of many parameters about as cheap as one gradient.

Indices are found in double precision whatever the precision of the sum: the fractional part of a large number would
lose its digits in single precision.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..bragg.lattice import Shape
from ..bragg.structure_factors import flat_index, nearest_reflection

TILE = 1 << 17
"""Elements (rows x 3 x orientations) that are worked on at a time: a few of them stay in a core's cache."""


class Settings(NamedTuple):
    """What does not carry a gradient: the profile, where the amplitudes lie, the precision of the sum."""

    shape: Shape
    h_min: Int[Tensor, "3"]
    box: tuple[int, int, int]
    dtype: torch.dtype


def lattice_sum(
    scattering: Float[Tensor, "rows 3"],
    orientations: Float[Tensor, "samples 3 3"],
    weights: Float[Tensor, "samples"],
    parameters: Float[Tensor, "parameters"],
    amplitudes: Float[Tensor, "reflections"],
    settings: Settings,
) -> Float[Tensor, "rows"]:
    """Intensity relative to one electron, differentiable once in every tensor, forwards and backwards.

    Args:
        scattering: Scattering vectors S = s1 - s0 [1/A].
        orientations: Rows a, b, c [A] of each orientation of the crystal.
        weights: Weight of each orientation.
        parameters: Parameters of the profile, from :meth:`Shape.parameters`.
        amplitudes: |F| of the reflections, from :func:`flat_values`.
        settings: Profile, lookup and precision.
    """
    y: Tensor = _LatticeSum.apply(scattering, orientations, weights, parameters, amplitudes, settings)
    return y


class _Tile(NamedTuple):
    rows: slice
    s: Tensor
    x: Tensor
    place: Tensor | None
    f2: Tensor


def _tiles(s: Tensor, flat_a: Tensor, values: Tensor, settings: Settings) -> Iterator[_Tile]:
    """Rows with their fractional indices [rows, 3, samples] and squared amplitudes."""
    samples = flat_a.shape[0] // 3
    step = max(1, TILE // (3 * samples))
    values = values.to(settings.dtype)
    for start in range(0, s.shape[0], step):
        rows = slice(start, start + step)
        h = (s[rows] @ flat_a.T).unflatten(-1, (3, samples))
        h0 = nearest_reflection(h)
        x = (h - h0).to(settings.dtype)
        place = flat_index(h0, settings.h_min, settings.box) if len(values) > 1 else None
        f2 = values.square() if place is None else values[place].square()
        yield _Tile(rows, s[rows], x, place, f2)


class _LatticeSum(torch.autograd.Function):
    @staticmethod
    def forward(s: Tensor, a: Tensor, w: Tensor, p: Tensor, values: Tensor, settings: Settings) -> Tensor:
        flat_a = a.transpose(0, 1).reshape(-1, 3)
        w, p = w.to(settings.dtype), p.to(settings.dtype)
        parts = [(t.f2 * settings.shape.profile(t.x, p)) @ w for t in _tiles(s, flat_a, values, settings)]
        return torch.cat(parts) if parts else s.new_zeros(0, dtype=settings.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *tensors, ctx.settings = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)
        ctx.set_materialize_grads(False)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return (None,) * 6
        s, a, w, p, values = ctx.saved_tensors
        needs = ctx.needs_input_grad
        dtype = ctx.settings.dtype
        flat_a = a.transpose(0, 1).reshape(-1, 3)
        out = [torch.zeros_like(t) if n else None for t, n in zip((s, flat_a, w, p, values), needs[:5], strict=True)]
        for t in _tiles(s, flat_a, values, ctx.settings):
            value, d_x, d_p = ctx.settings.shape.slopes(t.x, p.to(dtype))
            g = grad[t.rows, None].to(dtype)
            per_f2 = g * value * w.to(dtype)
            common = g * t.f2 * w.to(dtype)
            slope = (common[:, None, :] * d_x).flatten(1)
            if out[0] is not None:
                out[0][t.rows] = slope.to(s.dtype) @ flat_a
            if out[1] is not None:
                out[1] += (slope.T @ t.s.to(dtype)).to(a.dtype)
            if out[2] is not None:
                out[2] += (g * t.f2 * value).sum(0).to(w.dtype)
            if out[3] is not None:
                out[3] += torch.einsum("rm,rpm->p", common, d_p).to(p.dtype)
            if out[4] is not None:
                _add_amplitude_gradient(out[4], values, per_f2, t.place)
        if out[1] is not None:
            out[1] = out[1].view(3, -1, 3).transpose(0, 1)
        return (*out, None)

    @staticmethod
    def jvp(ctx: Any, ds: Tensor | None, da: Tensor | None, dw: Tensor | None, dp: Tensor | None, *rest: Any) -> Tensor:
        s, a, w, p, values = ctx.saved_tensors
        d_values, dtype = rest[0], ctx.settings.dtype
        flat_a = a.transpose(0, 1).reshape(-1, 3)
        flat_da = None if da is None else da.transpose(0, 1).reshape(-1, 3).to(dtype)
        parts = []
        for t in _tiles(s, flat_a, values, ctx.settings):
            value, d_x, d_p = ctx.settings.shape.slopes(t.x, p.to(dtype))
            common = t.f2 * w.to(dtype)
            slope = (common[:, None, :] * d_x).flatten(1)
            change = torch.zeros_like(value[:, 0])
            if ds is not None:
                change = change + ((slope @ flat_a.to(dtype)) * ds[t.rows].to(dtype)).sum(-1)
            if flat_da is not None:
                change = change + ((slope @ flat_da) * t.s.to(dtype)).sum(-1)
            if dw is not None:
                change = change + (t.f2 * value) @ dw.to(dtype)
            if dp is not None:
                change = change + torch.einsum("rm,rpm->rp", common, d_p) @ dp.to(dtype)
            if d_values is not None:
                df2 = 2 * values * d_values
                change = change + (value * (df2 if t.place is None else df2[t.place]).to(dtype)) @ w.to(dtype)
            parts.append(change)
        return torch.cat(parts) if parts else s.new_zeros(0, dtype=dtype)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        raise NotImplementedError("lattice_sum: a batch of experiments is a loop; only its tangents are batched")


def _add_amplitude_gradient(out: Tensor, values: Tensor, per_f2: Tensor, place: Tensor | None) -> None:
    """Scatter dL/dF = 2 F dL/dF^2 to the reflections that were looked up."""
    if place is None:
        out += 2 * values * per_f2.sum().to(values.dtype)
    else:
        out.index_add_(0, place.flatten(), per_f2.flatten().to(values.dtype) * 2 * values[place.flatten()])
