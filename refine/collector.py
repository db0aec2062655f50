"""Commands that start and end quickly: the garbage collector need not look at what stays anyway.

Modules make very many objects that live until the end; to look through them again and again while more are imported,
and once more at exit, takes a good part of a short run.
"""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def imports_stay() -> Iterator[None]:
    """Whatever this block imports is never looked at; what lay about before stays garbage if nothing is imported."""
    known = len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > known:
            gc.freeze()
        gc.enable()


def leave() -> None:
    """At the very end: what is left goes with the process."""
    gc.freeze()
