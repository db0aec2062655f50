r"""The sum over orientations of the crystal, the hot loop of the sampled simulator.

.. math:: y_r = \sum_m w_m F^2(h^0_{rm}) P(x_{rm}), \quad h_{rm} = A_m S_r, \quad x = h - h^0

Values and all first derivatives are computed in tiles of rows and nothing but the inputs is kept between the
forward and the backward pass, so memory is O(rows + orientations). :mod:`.eager` is the reference,
:mod:`.compiled` and :mod:`.gpu` compute the same faster;
:func:`sim_core.kernels.selection.select` says which of them runs.

Indices are found in double precision whatever the precision of the sum: the fractional part of a large number would
lose its digits in single precision.
"""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from ...interference import Gaussian
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
    imaginary: Float[Tensor, "points"] | None = None,
) -> Float[Tensor, "rows"]:
    """Intensity relative to one electron, differentiable once in every tensor, forwards and backwards.

    Args:
        scattering: Scattering vectors S = s1 - s0 [1/A]; or pixels, over whose sub-pixels and plane waves a compiled
            kernel sums, with solid angle [sr], polarisation and weight.
        orientations: Rows a, b, c [A] of each orientation of the crystal.
        weights: Weight of each orientation.
        parameters: Parameters of the profile, from :meth:`Shape.parameters`.
        amplitudes: |F| of the reflections: from :func:`padded_values` for the eager kernel, those of the box for a
            compiled one, and behind them that of all others where it carries a gradient; one number where all are the
            same; the points of ``settings.between`` where that is given.
        settings: Profile, lookup, precision and kernel.
        imaginary: Imaginary part of the amplitudes of ``settings.between``.
    """
    if settings.kernel == "compiled" and isinstance(settings.shape, Gaussian):
        parameters = parameters.view(3, 3).diagonal()
    y: Tensor = _LatticeSum.apply(scattering, orientations, weights, parameters, amplitudes, imaginary, settings)
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


def _parts(inputs: Sequence[Any]) -> tuple[list[Any], dict[str, Any]]:
    """The five tensors that all kernels are given, and the imaginary part where there is one."""
    *tensors, imaginary = inputs
    return tensors, {} if imaginary is None else {"imaginary": imaginary}


class _LatticeSum(torch.autograd.Function):
    @staticmethod
    def forward(*inputs: Any) -> Tensor:
        *given, settings = inputs
        tensors, rest = _parts(given)
        y: Tensor = _kernel(settings, tensors[1].device).forward(*tensors, settings, **rest)
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
            return (None,) * 7
        tensors, rest = _parts(_inputs(ctx))
        kernel = _kernel(ctx.settings, grad.device)
        found = kernel.backward(*tensors, ctx.settings, grad, ctx.needs_input_grad, **rest)
        return (*found, *[None] * (7 - len(found)))

    @staticmethod
    def jvp(ctx: Any, *changes: Tensor | None) -> Tensor:
        inputs = _inputs(ctx)
        if ctx.settings.kernel == "eager":
            return eager.tangent(*inputs[:5], ctx.settings, *changes[:5])
        y: Tensor = _Tangents.apply(ctx.settings, *inputs, *changes[:6])
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
        return _tangents(settings, tensors[:6], [None if c is None else c[None] for c in tensors[6:]])[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def vmap(info: Any, in_dims: Any, settings: Settings, *tensors: Any) -> Any:
        if any(d is not None for d in in_dims[1:7]):
            raise NotImplementedError("lattice_sum: a batch of experiments is a loop; only its tangents are batched")
        changes = []
        for change, dim in zip(tensors[6:], in_dims[7:], strict=True):
            if change is not None:
                change = change.expand(info.batch_size, *change.shape) if dim is None else change.movedim(dim, 0)
            changes.append(change)
        return _tangents(settings, tensors[:6], changes), 0


def _tangents(settings: Settings, inputs: Sequence[Any], changes: list[Tensor | None]) -> Tensor:
    tensors, rest = _parts(inputs)
    y: Tensor = _kernel(settings, tensors[1].device).tangents(*tensors, settings, *changes, **rest)
    return y
