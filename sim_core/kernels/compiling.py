"""Machine code from Python functions: loops over the lanes of the vector unit, and the loops around them.

Sums may not be reordered unless a loop says so; products and sums may be fused. Division by zero gives infinity.
Parts of a loop do not count references to arrays, which costs more than a short loop: they cannot allocate any.
"""

import hashlib
import inspect
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba

_OPTIONS: dict[str, Any] = {"error_model": "numpy", "fastmath": {"contract", "nsz"}}
_ENTRY = _OPTIONS | {"nogil": True, "no_cfunc_wrapper": True}
_PART: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "_nrt": False}


def lanes(function: Callable[..., Any]) -> Callable[..., Any]:
    """A part of a loop over lanes, or such a loop; a checking wrapper of tests is taken off."""
    return numba.njit(inspect.unwrap(function), forceinline=True, **_OPTIONS, **_PART)


def lane_sum(function: Callable[..., Any]) -> Callable[..., Any]:
    """A sum over lanes, in any order."""
    options = _OPTIONS | {"fastmath": {"contract", "nsz", "reassoc"}}
    return numba.njit(inspect.unwrap(function), forceinline=True, **options, **_PART)


def entry(function: Callable[..., Any]) -> Callable[..., Any]:
    """What Python calls, from any thread: the loop that owns the arrays, kept on disk where a folder can be written.

    Numba looks at the age of the file that defines the function; what is called from there lies in other files.
    """
    bare = inspect.unwrap(function)
    try:
        code: Any = numba.njit(bare, cache=True, **_ENTRY)
        file = code._cache._cache_file
        file._source_stamp = (*file._source_stamp, _sources())
    except (RuntimeError, OSError, AttributeError):  # no place for a cache, or another kind of cache
        code = numba.njit(bare, **_ENTRY)
    return code


@cache
def _sources() -> str:
    """A number that changes with any of the sources."""
    text = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.rglob("*.py")))
    return hashlib.sha256(text).hexdigest()
