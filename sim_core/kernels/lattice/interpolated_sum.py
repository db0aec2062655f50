r"""The sum over orientations with structure factors between the reflections.

.. math:: y_r = \sum_m w_m |F|^2(h_{rm}) P(x_{rm})

Beside :func:`sim_core.kernels.lattice.lattice_sum.lattice_sum`, with F a function of the fractional index: |F| of the
reflections around, or complex F on a fine grid. In the eager reference plain tensor operations carry the derivatives of
F; only the profile's are written out. The compiled kernel has both (:mod:`.cells`).
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from ...amplitudes import (
    box_limits,
    intensity_between,
    interpolable,
    nearest_reflection,
    padded_index,
    padded_values,
    tricubic,
)
from ...experiment import AmplitudeGrid, StructureFactors
from ...interference import Shape
from .eager import TILE
from .lattice_sum import lattice_sum
from .rays import PixelRays
from .settings import Between, Settings


def interpolated_sum(
    scattering: Float[Tensor, "rows 3"] | PixelRays,
    orientations: Float[Tensor, "samples 3 3"],
    weights: Float[Tensor, "samples"],
    parameters: Float[Tensor, "parameters"],
    amplitudes: AmplitudeGrid | StructureFactors,
    settings: Settings,
) -> Float[Tensor, "rows"]:
    """Intensity relative to one electron, differentiable in every tensor, forwards and backwards.

    Args:
        scattering: Scattering vectors S = s1 - s0 [1/A]; or pixels, for the compiled kernel.
        orientations: Rows a, b, c [A] of each orientation of the crystal.
        weights: Weight of each orientation.
        parameters: Parameters of the profile, from :meth:`Shape.parameters`.
        amplitudes: F on a fine grid, whose border counts beyond it; or |F| of reflections, the nearest of which counts
            where one of the 64 around is not in the table.
        settings: Profile, precision and kernel.

    Raises:
        ValueError: if an axis of the grid has fewer than four points.
    """
    if isinstance(amplitudes, AmplitudeGrid) and min(amplitudes.real.shape) < 4:
        raise ValueError(f"between: expected at least 4 points along each axis, got {tuple(amplitudes.real.shape)}")
    if settings.kernel == "compiled":
        return _compiled(scattering, orientations, weights, parameters, amplitudes, settings)
    assert isinstance(scattering, Tensor)
    intensity: Callable[[Tensor, Tensor], Tensor]
    if isinstance(amplitudes, AmplitudeGrid):
        intensity = lambda h, h0: intensity_between(amplitudes, h)  # noqa: E731
    else:
        intensity = _between_reflections(amplitudes)

    def tile(s: Tensor) -> Tensor:
        h = s @ orientations.permute(1, 2, 0)
        h0 = nearest_reflection(h.detach())
        profile: Tensor = _Profile.apply((h - h0).to(settings.dtype), parameters.to(settings.dtype), settings.shape)
        return (profile * intensity(h, h0).to(settings.dtype)) @ weights.to(settings.dtype)

    step = max(1, TILE.get(scattering.device.type, TILE["cuda"]) // (3 * len(weights)))
    parts = scattering.split(step) if len(scattering) else (scattering,)
    if torch.is_grad_enabled() and len(parts) > 1:
        return torch.cat([checkpoint(tile, part, use_reentrant=False) for part in parts])
    return torch.cat([tile(part) for part in parts])


def _between_reflections(factors: StructureFactors) -> Callable[[Tensor, Tensor], Tensor]:
    """|F|^2 as a function of fractional and nearest indices."""
    h, k, l = factors.table.shape
    limits, padded = box_limits(factors.h_min, (h, k, l)), padded_values(factors)

    def intensity(hkl: Tensor, nearest: Tensor) -> Tensor:
        there = interpolable(hkl.detach(), factors.h_min, (h, k, l))
        at_reflection = padded[padded_index(nearest, *limits)]
        if min(h, k, l) < 4:
            return at_reflection.square()
        return torch.where(there, tricubic(factors.table, factors.h_min, hkl), at_reflection).square()

    return intensity


def _compiled(
    s: Tensor | PixelRays, a: Tensor, w: Tensor, p: Tensor, amplitudes: AmplitudeGrid | StructureFactors, to: Settings
) -> Tensor:
    """The same as machine code."""
    if isinstance(amplitudes, AmplitudeGrid):
        between = Between(tuple(amplitudes.low.tolist()), tuple(amplitudes.real.shape), amplitudes.rate, False)
        real, imaginary = amplitudes.real.flatten(), amplitudes.imaginary.flatten()
        return lattice_sum(s, a, w, p, real, to._replace(between=between), imaginary)
    real = torch.cat([amplitudes.table.flatten(), amplitudes.default.reshape(1)])
    if min(amplitudes.table.shape) < 4:
        return lattice_sum(s, a, w, p, real, to)
    between = Between(tuple(amplitudes.h_min.tolist()), tuple(amplitudes.table.shape), (1, 1, 1), True)
    return lattice_sum(s, a, w, p, real, to._replace(between=between))


class _Profile(torch.autograd.Function):
    """A shape's profile with its written-out slopes."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, p: Tensor, shape: Shape) -> Tensor:
        return shape.profile(x, p)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, p, ctx.shape = inputs
        ctx.save_for_backward(x, p)
        ctx.save_for_forward(x, p)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, p = ctx.saved_tensors
        slopes = ctx.shape.slopes(x, p, ctx.needs_input_grad[1])
        d_p = None if slopes.d_parameters is None else (grad * slopes.d_parameters).flatten(1).sum(1)
        return grad * slopes.d_x, d_p, None

    @staticmethod
    def jvp(ctx: Any, dx: Tensor | None, dp: Tensor | None, *rest: Any) -> Tensor:
        x, p = ctx.saved_tensors
        slopes = ctx.shape.slopes(x, p, dp is not None)
        change = torch.zeros_like(slopes.value)
        if dx is not None:
            change = change + (slopes.d_x * dx).sum(0)
        if dp is not None and slopes.d_parameters is not None:
            change = change + torch.tensordot(dp, slopes.d_parameters, 1)
        return change
