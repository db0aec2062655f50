"""How many of torch's threads share a piece of work."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

SMALL = 1 << 22
"""Terms of a sum below which threads cost more than they save."""


@contextmanager
def one_thread(wanted: bool = True) -> Iterator[None]:
    """One thread for the time being, where that is wanted: the work is small tensors, of which threads make more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if wanted else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
