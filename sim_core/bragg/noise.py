"""Counting statistics."""

import torch
from jaxtyping import Float
from torch import Tensor


def photon_noise(expected: Float[Tensor, "pixels"], seed: int) -> Float[Tensor, "pixels"]:
    """Poisson deviates of expected photons; the same on every device for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    return torch.poisson(expected.detach().cpu().double(), generator=generator).to(expected)
