r"""The sum over orientations of the crystal, the hot loop of the sampled simulator.

.. math:: y_r = \sum_m w_m F^2(h^0_{rm}) P(x_{rm}), \quad h_{rm} = A_m S_r, \quad x = h - h^0

Values and all first derivatives are computed in tiles of rows and nothing but the inputs is kept between the
forward and the backward pass, so memory is O(rows + orientations). :mod:`.eager` is the reference,
:mod:`.compiled` and :mod:`.gpu` compute the same faster;
:func:`sim_core.kernels.selection.select` says which of them runs.

Indices are found in double precision whatever the precision of the sum: the fractional part of a large number would
lose its digits in single precision.
"""

from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import eager
from .rays import PixelRays
from .settings import Settings


def lattice_sum(
    scattering: Float[Tensor, "rows 3"] | PixelRays,
    orientations: Float[Tensor, "samples 3 3"],
    weights: Float[Tensor, "samples"],
    parameters: Float[Tensor, "parameters"],
    amplitudes: Float[Tensor, "reflections"],
    settings: Settings,
) -> Float[Tensor, "rows"]:
    """Intensity relative to one electron, differentiable once in every tensor, forwards and backwards.

    Args:
        scattering: Scattering vectors S = s1 - s0 [1/A]; or pixels, over whose sub-pixels and plane waves a compiled
            kernel sums, with solid angle [sr], polarisation and weight.
        orientations: Rows a, b, c [A] of each orientation of the crystal.
        weights: Weight of each orientation.
        parameters: Parameters of the profile, from :meth:`Shape.parameters`.
        amplitudes: |F| of the reflections: from :func:`padded_values` for the eager kernel, those of the box alone
            for a compiled one; one number where all are the same.
        settings: Profile, lookup, precision and kernel.
    """
    y: Tensor = _LatticeSum.apply(scattering, orientations, weights, parameters, amplitudes, settings)
    return y


def _kernel(settings: Settings, device: torch.device) -> ModuleType:
    """The implementation; imported when it is first needed."""
    if settings.kernel == "eager":
        return eager
    if device.type == "cpu":
        from . import compiled

        return compiled
    from . import gpu

    return gpu


class _LatticeSum(torch.autograd.Function):
    @staticmethod
    def forward(s: Tensor | PixelRays, a: Tensor, w: Tensor, p: Tensor, values: Tensor, settings: Settings) -> Tensor:
        y: Tensor = _kernel(settings, a.device).forward(s, a, w, p, values, settings)
        return y

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        s, *tensors, ctx.settings = inputs
        ctx.rays = s if isinstance(s, PixelRays) else None
        if ctx.rays is None:
            tensors = [s, *tensors]
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)
        ctx.set_materialize_grads(False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return (None,) * 6
        inputs = _inputs(ctx)
        kernel = _kernel(ctx.settings, grad.device)
        return (*kernel.backward(*inputs, ctx.settings, grad, ctx.needs_input_grad), None)

    @staticmethod
    def jvp(ctx: Any, *changes: Tensor | None) -> Tensor:
        inputs = _inputs(ctx)
        if ctx.settings.kernel == "eager":
            return eager.tangent(*inputs, ctx.settings, *changes[:5])
        y: Tensor = _Tangents.apply(ctx.settings, *inputs, *changes[:5])
        return y

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        raise NotImplementedError("lattice_sum: a batch of experiments is a loop; only its tangents are batched")


def _inputs(ctx: Any) -> list[Any]:
    saved = list(ctx.saved_tensors)
    return saved if ctx.rays is None else [ctx.rays, *saved]


class _Tangents(torch.autograd.Function):
    """Tangents from a compiled kernel, all directions of a Jacobian in one pass."""

    @staticmethod
    def forward(settings: Settings, *tensors: Any) -> Tensor:
        inputs, changes = tensors[:5], [None if c is None else c[None] for c in tensors[5:]]
        y: Tensor = _kernel(settings, inputs[1].device).tangents(*inputs, settings, *changes)
        return y[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def vmap(info: Any, in_dims: Any, settings: Settings, *tensors: Any) -> Any:
        if any(d is not None for d in in_dims[1:6]):
            raise NotImplementedError("lattice_sum: a batch of experiments is a loop; only its tangents are batched")
        changes = []
        for change, dim in zip(tensors[5:], in_dims[6:], strict=True):
            if change is not None:
                change = change.expand(info.batch_size, *change.shape) if dim is None else change.movedim(dim, 0)
            changes.append(change)
        return _kernel(settings, tensors[1].device).tangents(*tensors[:5], settings, *changes), 0
