"""One-phonon scattering of blocks at many points, differentiable once in everything, forwards and backwards.

Points are worked on in tiles and only the inputs are kept. What each point has of its own (indices, samples, weights)
takes its derivatives from one pass back through the tile, however many directions a Jacobian has; what all points
share (atoms, springs) costs a product of matrices for each direction in which it changes.
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..scattered_waves import monomials, sum_waves
from .block_tile import Amplitudes, Inputs, Settings, Slopes, slopes, value

OWN = ("hkl", "q", "samples", "weights")
"""Inputs with one row a point."""


def block_sum(x: Inputs, settings: Settings) -> Float[Tensor, "points"]:
    """Intensity [electron^2 for each cell] at each point, summed over its samples.

    Args:
        x: Points, block, atoms and inverse dynamical matrices.
        settings: What is constant.
    """
    y: Tensor = _BlockSum.apply(*x, settings)
    return y


def _tiles(x: Inputs, settings: Settings) -> Iterator[tuple[slice, Inputs]]:
    a, b, c = settings.grid.sizes
    most = max(x.fractional.shape[0] * x.fractional.shape[1], a * b * c, a * b * x.samples.shape[1] // 2)
    size = max(1, settings.tile // most)
    for start in range(0, len(x.hkl), size):
        rows = slice(start, start + size)
        yield rows, x._replace(**{name: getattr(x, name)[rows] for name in OWN})


class _BlockSum(torch.autograd.Function):
    @staticmethod
    def forward(*args: Any) -> Tensor:
        x, settings = Inputs(*args[:-1]), args[-1]
        parts = [value(tile, settings) for _, tile in _tiles(x, settings)]
        return torch.cat(parts) if parts else x.hkl.new_zeros(0, dtype=settings.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *tensors, ctx.settings = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)
        ctx.set_materialize_grads(False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor | None) -> tuple[Tensor | None, ...]:
        if gradient is None:
            return (None,) * (len(Inputs._fields) + 1)
        x = Inputs(*ctx.saved_tensors)
        wanted = [n for n, needed in zip(Inputs._fields, ctx.needs_input_grad, strict=False) if needed]
        out = {name: torch.zeros_like(getattr(x, name)) for name in wanted}
        for rows, tile in _tiles(x, ctx.settings):
            g = gradient[rows].to(ctx.settings.dtype)
            found, amplitude = slopes(tile, ctx.settings, "n_cells" in out)
            for name in set(OWN) & set(out):
                slope = getattr(found, name)
                out[name][rows] = (slope * g.view(-1, *[1] * (slope.ndim - 1))).to(out[name])
            _add_shared(out, g, tile, found, amplitude, ctx.settings)
        return (*(out.get(name) for name in Inputs._fields), None)

    @staticmethod
    def jvp(ctx: Any, *changes: Tensor | None) -> Tensor:
        y: Tensor = _Tangents.apply(ctx.settings, *ctx.saved_tensors, *changes[:-1])
        return y

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        raise NotImplementedError("block_sum: a batch of experiments is a loop; only its tangents are batched")


class _Tangents(torch.autograd.Function):
    """All directions of a Jacobian in one pass."""

    @staticmethod
    def forward(settings: Settings, *tensors: Any) -> Tensor:
        count = len(Inputs._fields)
        changes = {n: c[None] for n, c in zip(Inputs._fields, tensors[count:], strict=True) if c is not None}
        return _tangents(Inputs(*tensors[:count]), changes, settings)[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def vmap(info: Any, in_dims: Any, settings: Settings, *tensors: Any) -> Any:
        count = len(Inputs._fields)
        if any(d is not None for d in in_dims[1 : count + 1]):
            raise NotImplementedError("block_sum: a batch of experiments is a loop; only its tangents are batched")
        changes = {}
        for name, change, dim in zip(Inputs._fields, tensors[count:], in_dims[count + 1 :], strict=True):
            if change is not None:
                whole = change.expand(info.batch_size, *change.shape) if dim is None else change.movedim(dim, 0)
                changes[name] = whole
        return _tangents(Inputs(*tensors[:count]), changes, settings), 0


def _tangents(x: Inputs, changes: dict[str, Tensor], settings: Settings) -> Float[Tensor, "directions points"]:
    """Change of every point along each direction."""
    directions = next(len(c) for c in changes.values())
    out = torch.zeros(directions, len(x.hkl), dtype=settings.dtype, device=x.hkl.device)
    moving = {n: _moving(changes[n], settings.dtype) for n in changes if n in _SHARED}
    for rows, tile in _tiles(x, settings):
        found, amplitude = slopes(tile, settings, "n_cells" in changes)
        for name in OWN:
            if name in changes:
                part = changes[name][:, rows].to(settings.dtype) * getattr(found, name)
                out[:, rows] += part.flatten(2).sum(-1)
        if "n_cells" in changes:
            out[:, rows] += changes["n_cells"].to(settings.dtype) @ found.n_cells.T
        for name, (which, change) in moving.items():
            if len(which):
                out[which, rows] += _SHARED[name](change, tile, found, amplitude, settings)
    return out


def _moving(change: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Directions in which a shared input changes, and its changes."""
    which = change.flatten(1).any(1).nonzero()[:, 0]
    return which, change[which].to(dtype)


def _along_positions(dx: Tensor, x: Inputs, found: Slopes, _: Amplitudes, settings: Settings) -> Tensor:
    along = (found.answers.imaginary @ dx).sum(-3)
    return -2 * torch.pi * (along * x.hkl.to(along)).sum(-1)


def _along_displacements(du: Tensor, x: Inputs, found: Slopes, _: Amplitudes, settings: Settings) -> Tensor:
    spread = (found.answers.real @ du).sum(-3)
    return -0.5 * (spread * monomials(x.q).to(spread)).sum(-1)


def _along_lever_arms(ds: Tensor, x: Inputs, found: Slopes, amplitude: Amplitudes, settings: Settings) -> Tensor:
    columns = (ds * settings.occupancy[:, None].to(ds)).permute(1, 2, 0, 3).flatten(2)
    sums = sum_waves(amplitude.waves, columns, settings.kinds)
    change = sums.real.unflatten(-1, (-1, 3)) * found.cotangent.real[:, :, None, 1:]
    change = change + sums.imaginary.unflatten(-1, (-1, 3)) * found.cotangent.imaginary[:, :, None, 1:]
    return change.sum((0, 3)).T


def _along_real(dk: Tensor, x: Inputs, found: Slopes, amplitude: Amplitudes, settings: Settings) -> Tensor:
    return torch.stack([((found.windows.real @ d) * amplitude.V.real).sum(-1) for d in dk])


def _along_imaginary(dk: Tensor, x: Inputs, found: Slopes, amplitude: Amplitudes, settings: Settings) -> Tensor:
    return torch.stack([((found.windows.imaginary @ d) * amplitude.V.imaginary).sum(-1) for d in dk])


_SHARED = {
    "fractional": _along_positions,
    "u": _along_displacements,
    "lever_arms": _along_lever_arms,
    "real": _along_real,
    "imaginary": _along_imaginary,
}


def _add_shared(
    out: dict[str, Tensor], g: Tensor, x: Inputs, found: Slopes, amplitude: Amplitudes, settings: Settings
) -> None:
    """Add a tile's part of the gradients in what all points share."""
    if "n_cells" in out:
        out["n_cells"] += g @ found.n_cells
    if "fractional" in out:
        out["fractional"] += found.answers.imaginary.mT @ (-2 * torch.pi * g[:, None] * x.hkl.to(g))
    if "u" in out:
        out["u"] += found.answers.real.mT @ (-0.5 * g[:, None] * monomials(x.q).to(g))
    if "lever_arms" in out:
        out["lever_arms"] += _lever_gradient(g, found, amplitude, settings)
    if "real" in out:
        out["real"] += found.windows.real.T @ (g[:, None] * amplitude.V.real)
    if "imaginary" in out:
        out["imaginary"] += found.windows.imaginary.T @ (g[:, None] * amplitude.V.imaginary)


def _lever_gradient(g: Tensor, found: Slopes, amplitude: Amplitudes, settings: Settings) -> Tensor:
    waves, counts, parts = amplitude.waves, settings.kinds.counts, []
    pieces = zip(waves.real.split(counts, 2), waves.imaginary.split(counts, 2), waves.f.unbind(1), strict=True)
    for real, imaginary, f in pieces:
        weight = (g * f)[:, None]
        part = real.mT @ (weight * found.cotangent.real[..., 1:])
        parts.append(part + imaginary.mT @ (weight * found.cotangent.imaginary[..., 1:]))
    return torch.cat(parts, 1) * settings.occupancy[:, None].to(g)
