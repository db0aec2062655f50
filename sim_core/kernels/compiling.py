"""Machine code from Python functions: loops over the lanes of the vector unit, and the loops around them.

Sums may not be reordered unless a loop says so; products and sums may be fused. Division by zero gives infinity.
"""

import inspect
from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Machine code that is kept on disk where a folder can be written; a checking wrapper of tests is taken off."""
    bare = inspect.unwrap(function)
    options = {"error_model": "numpy", "fastmath": {"contract", "nsz"}} | options
    try:
        code: Callable[..., Any] = numba.njit(bare, cache=True, **options)
    except RuntimeError:  # no place for a cache
        code = numba.njit(bare, **options)
    return code


def lanes(function: Callable[..., Any]) -> Callable[..., Any]:
    """A part of a loop over lanes, or such a loop."""
    return numba.njit(inspect.unwrap(function), forceinline=True, error_model="numpy", fastmath={"contract", "nsz"}, no_cpython_wrapper=True, no_cfunc_wrapper=True)


def lane_sum(function: Callable[..., Any]) -> Callable[..., Any]:
    """A sum over lanes, in any order."""
    return compiled(function, forceinline=True, fastmath={"contract", "nsz", "reassoc"})


def entry(function: Callable[..., Any]) -> Callable[..., Any]:
    """What Python calls, from any thread."""
    return compiled(function, nogil=True)
