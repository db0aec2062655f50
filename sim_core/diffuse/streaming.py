"""Values that are computed again in the backward pass instead of kept."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def streamed(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """A value whose intermediate results are not kept for the backward pass."""
    keep = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    return _Recomputed.apply(function, *tensors) if keep else function(*tensors)


class _Recomputed(torch.autograd.Function):
    """A function that keeps only its inputs and is computed again in the backward pass."""

    @staticmethod
    def forward(ctx: Any, function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        ctx.function = function
        ctx.save_for_backward(*tensors)
        return function(*tensors)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad[1:]
        inputs = [t.detach().requires_grad_(n) for t, n in zip(ctx.saved_tensors, needed, strict=True)]
        with torch.enable_grad():
            value = ctx.function(*inputs)
        wanted = [t for t, n in zip(inputs, needed, strict=True) if n]
        slopes = iter(torch.autograd.grad(value, wanted, gradient, allow_unused=True))
        return (None, *(next(slopes) if n else None for n in needed))
