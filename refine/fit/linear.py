"""The best linear parameters of some frames, all others held."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from refine.fit.losses import Loss

ITERATIONS = 50
"""Steps at most; scoring converges in a few where the model is near the data."""


class Block(NamedTuple):
    """One frame.

    Attributes:
        design: What each of its coefficients multiplies.
        places: Where its coefficients stand among all.
        observed: Photons.
        sigma: Their standard uncertainties; ``None`` for counts.
        least: Fewest photons that are expected; ``None`` for any.
    """

    design: Float[Tensor, "pixels n"]
    places: Int[Tensor, "n"]
    observed: Float[Tensor, "pixels"]
    sigma: Float[Tensor, "pixels"] | None = None
    least: Float[Tensor, "pixels"] | None = None

    def expected(self, coefficients: Float[Tensor, "all"]) -> Float[Tensor, "pixels"]:
        """Photons."""
        found = self.design @ coefficients[self.places]
        return found if self.least is None else torch.maximum(found, self.least)


def linear_fit(
    blocks: Sequence[Block],
    start: Float[Tensor, "all"],
    limits: tuple[Float[Tensor, "all"], Float[Tensor, "all"]],
    moves: Bool[Tensor, "all"],
    loss: Loss,
) -> tuple[Float[Tensor, "all"], Float[Tensor, ""]]:
    """Coefficients within limits that minimise the loss of all frames, and that loss, by Fisher scoring.

    Args:
        blocks: The frames.
        start: Coefficients to start from.
        limits: Lowest and highest coefficients.
        moves: Which coefficients are sought; the others stay.
        loss: The loss.
    """

    def value_at(coefficients: Tensor) -> Tensor:
        values = [loss.value(b.expected(coefficients), b.observed, b.sigma) for b in blocks]
        return torch.stack(values).sum()

    low, high = torch.minimum(limits[0], start), torch.maximum(limits[1], start)
    best, value = start, value_at(start)
    for _ in range(ITERATIONS):
        gradient, curvature = _derivatives(blocks, best, loss)
        gradient = torch.where(moves, gradient, 0.0)
        held = ~moves | ((best <= low) & (gradient > 0)) | ((best >= high) & (gradient < 0))
        size = curvature.diagonal().clamp_min(1e-300)
        system = torch.where(held[:, None] | held[None, :], torch.diag(size), curvature + torch.diag(1e-12 * size))
        step = -torch.linalg.solve(system, gradient.masked_fill(held, 0.0))
        for _ in range(4):
            tried = torch.minimum(torch.maximum(best + step, low), high)
            new = value_at(tried)
            if new <= value:
                break
            step = step / 4
        else:
            return best, value
        small = bool((value - new) <= 1e-10 * value)
        best, value = tried, new
        if small:
            return best, value
    return best, value


def _derivatives(blocks: Sequence[Block], coefficients: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
    """Gradient and expected curvature."""
    gradient = torch.zeros_like(coefficients)
    curvature = gradient.new_zeros(len(gradient), len(gradient))
    for block in blocks:
        expected = block.expected(coefficients)
        slope = block.design.T @ loss.slope(expected, block.observed, block.sigma)
        gradient.index_add_(0, block.places, slope)
        own = block.design.T @ (loss.curvature(expected, block.sigma)[:, None] * block.design)
        curvature.index_put_((block.places[:, None], block.places[None, :]), own, accumulate=True)
    return gradient, curvature
