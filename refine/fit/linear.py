"""The best linear parameters of a model, all others held."""

import torch
from jaxtyping import Float
from torch import Tensor

from refine.fit.losses import Loss

ITERATIONS = 50
"""Steps at most; scoring converges in a few where the model is near the data."""


def linear_fit(
    parts: Float[Tensor, "pixels n"],
    observed: Float[Tensor, "pixels"],
    start: Float[Tensor, "n"],
    limits: tuple[Float[Tensor, "n"], Float[Tensor, "n"]],
    moves: list[bool],
    loss: Loss,
    least: Float[Tensor, "pixels"] | None = None,
) -> tuple[Float[Tensor, "n"], Float[Tensor, ""]]:
    """Coefficients c within limits that minimise the loss of ``parts @ c``, and that loss, by Fisher scoring.

    Args:
        parts: What each coefficient multiplies.
        observed: Photons.
        start: Coefficients to start from.
        limits: Lowest and highest coefficients.
        moves: Which coefficients are sought; the others stay.
        loss: The loss.
        least: Fewest photons that are expected.
    """

    def expect(coefficients: Tensor) -> Tensor:
        expected = parts @ coefficients
        return expected if least is None else torch.maximum(expected, least)

    mask = torch.tensor(moves, device=start.device)
    low, high = torch.minimum(limits[0], start), torch.maximum(limits[1], start)
    best, value = start, loss.value(expect(start), observed)
    for _ in range(ITERATIONS):
        expected = expect(best)
        gradient = torch.where(mask, parts.T @ loss.slope(expected, observed), 0.0)
        curvature = parts.T @ (loss.curvature(expected)[:, None] * parts)
        held = ~mask | ((best <= low) & (gradient > 0)) | ((best >= high) & (gradient < 0))
        size = curvature.diagonal().clamp_min(1e-300)
        system = torch.where(held[:, None] | held[None, :], torch.diag(size), curvature + torch.diag(1e-12 * size))
        step = -torch.linalg.solve(system, gradient.masked_fill(held, 0.0))
        for _ in range(4):
            tried = torch.minimum(torch.maximum(best + step, low), high)
            new = loss.value(expect(tried), observed)
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
