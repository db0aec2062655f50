"""A quadratic model of the loss, accumulated over frames and blocks of their pixels."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from refine.fit.losses import Loss

NUMBERS = 1 << 23
"""Numbers of a Jacobian that are held at a time: pixels times directions."""


class NormalEquations(NamedTuple):
    """A quadratic model of the loss in the raw vector of the free parameters.

    ``linear`` marks what the problem settles by itself: such components are neither damped nor capped.
    """

    loss: Float[Tensor, ""]
    gradient: Float[Tensor, "n"]
    curvature: Float[Tensor, "n n"]
    linear: Bool[Tensor, "n"]


class Sums(NamedTuple):
    """Loss, gradient and expected curvature, added up in place."""

    loss: Float[Tensor, ""]
    gradient: Float[Tensor, "n"]
    curvature: Float[Tensor, "n n"]

    @classmethod
    def like(cls, vector: Float[Tensor, "n"]) -> "Sums":
        """Nothing yet."""
        return cls(vector.new_zeros(()), torch.zeros_like(vector), vector.new_zeros(len(vector), len(vector)))

    def add(
        self,
        expect: Callable[[Tensor], Float[Tensor, "rows"]],
        vector: Float[Tensor, "n"],
        columns: Int[Tensor, "own"],
        observed: Float[Tensor, "rows"],
        sigma: Float[Tensor, "rows"] | None,
        loss: Loss,
    ) -> None:
        """Add some rows of one frame.

        Args:
            expect: Expected photons of these rows as a function of the raw vector.
            vector: Where.
            columns: Entries of the raw vector that the frame depends on: the directions of its Jacobian.
            observed: Photons.
            sigma: Their standard uncertainties; ``None`` for counts.
            loss: The loss.
        """

        def moved(own: Tensor) -> tuple[Tensor, Tensor]:
            expected = expect(own if len(own) == len(vector) else vector.index_copy(0, columns, own))
            return expected, expected

        jacobian, expected = torch.func.jacfwd(moved, has_aux=True)(vector[columns])
        slope = loss.slope(expected, observed, sigma)
        weighted = loss.curvature(expected, sigma)[:, None] * jacobian
        self.loss.add_(loss.value(expected, observed, sigma))
        self.gradient.index_add_(0, columns, jacobian.T @ slope)
        self.curvature.index_put_((columns[:, None], columns[None, :]), jacobian.T @ weighted, accumulate=True)


def row_blocks(rows: int, directions: int, whole: bool) -> Iterator[slice]:
    """Runs of rows whose Jacobian may be held at a time, of even length; all at once where rows need each other."""
    parts = 1 if whole else max(1, -(-rows * directions // NUMBERS))
    size = max(1, -(-rows // parts))
    yield from (slice(start, min(start + size, rows)) for start in range(0, max(rows, 1), size))
