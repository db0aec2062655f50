"""Records of tensors: on a device, or as they are without derivatives."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor


def on_device(record: Any, device: torch.device) -> Any:
    """A record, as a dataclass or a named tuple, with its tensors on a device."""
    if isinstance(record, Tensor):
        return record.to(device)
    if is_dataclass(record) and not isinstance(record, type):
        return replace(record, **{f.name: on_device(getattr(record, f.name), device) for f in fields(record)})
    if isinstance(record, tuple) and hasattr(record, "_fields"):
        return type(record)(*(on_device(value, device) for value in record))
    return record


def device_of(fn: Callable[[Tensor], Tensor]) -> torch.device:
    """Where a module's ``_apply`` moves tensors to."""
    return fn(torch.zeros(0, dtype=torch.float64)).device


def constant(record: Any) -> Any:
    """A record with tensors that take part in no differentiation, backwards or forwards."""
    if isinstance(record, Tensor):
        return _primal(record)
    if is_dataclass(record) and not isinstance(record, type):
        return replace(record, **{f.name: constant(getattr(record, f.name)) for f in fields(record)})
    if isinstance(record, tuple) and hasattr(record, "_fields"):
        return type(record)(*(constant(value) for value in record))
    return record


def _primal(t: Tensor) -> Tensor:
    """The value below all wrappers of forward derivatives."""
    while torch._C._functorch.is_functorch_wrapped_tensor(t):
        t = torch._C._functorch.get_unwrapped(t)
    return t.detach()
