"""Rows of an image, shared out among threads."""

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch


def in_parts(rows: int, size: int, work: Callable[[int, int], object]) -> None:
    """``work(start, stop)`` for every ``size`` rows, in as many threads as torch has.

    Threads take the next part by themselves: to hand them out would wake the thread that waits for the results each
    time, and take a core from one that works.
    """
    starts = iter(range(0, rows, size))  # of which each thread takes one at a time, since that is one step of Python

    def share(_: int) -> None:
        try:
            for start in starts:
                work(start, min(start + size, rows))
        finally:
            deque(starts, maxlen=0)  # what fails or is interrupted leaves nothing to do for the others

    threads = min(torch.get_num_threads(), -(-rows // size))
    try:
        if threads < 2:
            share(0)
        else:
            list(_pool(threads, os.getpid()).map(share, range(threads)))
    finally:
        deque(starts, maxlen=0)


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Threads of this process; a child that was forked makes its own."""
    return ThreadPoolExecutor(threads, thread_name_prefix="kernel")
