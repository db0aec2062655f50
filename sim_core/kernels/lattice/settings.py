"""What the sum over orientations needs beside tensors that carry gradients."""

from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from ...interference import Shape


class Settings(NamedTuple):
    """The profile, where the amplitudes lie, the precision of the sum and which implementation computes it.

    ``default`` is |F| outside the box, for an implementation that looks amplitudes up in the box itself.
    """

    shape: Shape
    h_min: Int[Tensor, "3"]
    box: tuple[int, int, int]
    dtype: torch.dtype
    kernel: str = "eager"
    default: float = 0.0
