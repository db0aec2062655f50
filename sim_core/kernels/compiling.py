"""Machine code from Python functions: loops over the lanes of the vector unit, and the loops around them.

Sums may not be reordered unless a loop says so; products and sums may be fused. Division by zero gives infinity.
"""

import hashlib
import inspect
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba

_OPTIONS: dict[str, Any] = {"error_model": "numpy", "fastmath": {"contract", "nsz"}}
_PART: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def lanes(function: Callable[..., Any]) -> Callable[..., Any]:
    """A part of a loop over lanes, or such a loop; a checking wrapper of tests is taken off."""
    return numba.njit(inspect.unwrap(function), forceinline=True, **_OPTIONS, **_PART)


def lane_sum(function: Callable[..., Any]) -> Callable[..., Any]:
    """A sum over lanes, in any order."""
    options = _OPTIONS | {"fastmath": {"contract", "nsz", "reassoc"}}
    return numba.njit(inspect.unwrap(function), forceinline=True, **options, **_PART)


def entry(function: Callable[..., Any]) -> Callable[..., Any]:
    """What Python calls, from any thread."""
    return kept(function, _OPTIONS)


def kept(function: Callable[..., Any], options: dict[str, Any]) -> Callable[..., Any]:
    """Machine code that runs in any thread and is kept on disk where a folder can be written.

    Numba looks at the age of the file that defines the function; what is called from there lies in other files.
    """
    bare = inspect.unwrap(function)
    try:
        code: Any = numba.njit(bare, cache=True, nogil=True, **options)
        file = code._cache._cache_file
        file._source_stamp = (*file._source_stamp, _sources())
    except (RuntimeError, AttributeError):  # no place for a cache, or another kind of cache
        code = numba.njit(bare, nogil=True, **options)
    return code


@cache
def _sources() -> str:
    """A number that changes with any of the sources."""
    text = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    return hashlib.sha256(text).hexdigest()
