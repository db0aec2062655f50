r"""The sum over orientations with structure factors between the reflections.

.. math:: y_r = \sum_m w_m F^2(h_{rm}) P(x_{rm})

Beside :func:`sim_core.kernels.lattice.lattice_sum.lattice_sum`, with F a function of the fractional index. Plain tensor
operations carry the derivatives of F; only the profile's are written out.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from ...amplitudes import box_limits, interpolable, nearest_reflection, padded_index, tricubic
from ...interference import Shape
from .eager import TILE
from .settings import Settings


def interpolated_sum(
    scattering: Float[Tensor, "rows 3"],
    orientations: Float[Tensor, "samples 3 3"],
    weights: Float[Tensor, "samples"],
    parameters: Float[Tensor, "parameters"],
    table: Float[Tensor, "h k l"],
    amplitudes: Float[Tensor, "reflections"],
    settings: Settings,
) -> Float[Tensor, "rows"]:
    """Intensity relative to one electron; the nearest reflection counts where a neighbour is not in the table.

    Args:
        scattering: Scattering vectors S = s1 - s0 [1/A].
        orientations: Rows a, b, c [A] of each orientation of the crystal.
        weights: Weight of each orientation.
        parameters: Parameters of the profile, from :meth:`Shape.parameters`.
        table: |F| of the indices in the box.
        amplitudes: The same with a layer of the default, from :func:`padded_values`.
        settings: Profile, lookup and precision.
    """

    limits = box_limits(settings.h_min, settings.box)

    def tile(s: Tensor) -> Tensor:
        h = s @ orientations.permute(1, 2, 0)
        h0 = nearest_reflection(h.detach())
        nearest = torch.take(amplitudes, padded_index(h0, *limits))
        between = tricubic(table, settings.h_min, h)
        F = torch.where(interpolable(h.detach(), settings.h_min, settings.box), between, nearest)
        profile: Tensor = _Profile.apply((h - h0).to(settings.dtype), parameters.to(settings.dtype), settings.shape)
        return (profile * F.square().to(settings.dtype)) @ weights.to(settings.dtype)

    step = max(1, TILE.get(scattering.device.type, TILE["cuda"]) // (3 * len(weights)))
    parts = scattering.split(step) if len(scattering) else (scattering,)
    if torch.is_grad_enabled() and len(parts) > 1:
        return torch.cat([checkpoint(tile, part, use_reentrant=False) for part in parts])
    return torch.cat([tile(part) for part in parts])


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
