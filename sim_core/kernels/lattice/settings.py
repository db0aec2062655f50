"""What the sum over orientations needs beside tensors that carry gradients."""

from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from ...interference import Shape


class Between(NamedTuple):
    """Where amplitudes between reflections lie.

    Attributes:
        low: Lowest place along each axis.
        size: Points along each axis.
        rate: Points for each index along each axis.
        nearest: Whether the nearest point counts where a neighbour is missing, and a last amplitude outside; otherwise
            the border does.
    """

    low: tuple[int, ...]
    size: tuple[int, ...]
    rate: tuple[int, int, int]
    nearest: bool


class Settings(NamedTuple):
    """The profile, where the amplitudes lie, the precision of the sum and which implementation computes it.

    ``default`` is |F| outside the box, for an implementation that is given the amplitudes of the box alone; ``between``
    stands for the box where amplitudes are looked up between reflections.
    """

    shape: Shape
    h_min: Int[Tensor, "3"]
    box: tuple[int, int, int]
    dtype: torch.dtype
    kernel: str = "eager"
    default: float = 0.0
    between: Between | None = None
