"""What is expected of coordinates before any data: bonds keep their lengths."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class ElasticNetwork(nn.Module):
    r"""Distances between neighbours are those of the start, each with the same uncertainty.

    .. math:: P(x) = \sum_{i<j} (|x_i - x_j| - d_{ij})^2/\sigma^2

    over the pairs that start no further apart than a cutoff. Shifts and turns of the whole cost nothing.

    Args:
        start: Coordinates that the distances are taken from [A].
        cutoff: Longest distance [A].
        sigma: Standard deviation of a distance [A].
    """

    first: Tensor
    second: Tensor
    distance: Tensor

    def __init__(self, start: Float[Tensor, "atoms 3"], cutoff: float, sigma: float) -> None:
        """Find the pairs."""
        super().__init__()
        distances = torch.cdist(start, start)
        near = (distances <= cutoff) & (distances > 0)
        first, second = near.triu(1).nonzero().unbind(-1)
        self.sigma = sigma
        self.register_buffer("first", first)
        self.register_buffer("second", second)
        self.register_buffer("distance", distances[first, second])

    def forward(self, xyz: Float[Tensor, "coordinates"]) -> Float[Tensor, ""]:
        """Twice the negative logarithm of the probability of coordinates [A]."""
        bond = self._bonds(xyz)
        return ((bond.norm(dim=-1) - self.distance) / self.sigma).square().sum()

    def curvature(self, xyz: Float[Tensor, "coordinates"]) -> Float[Tensor, "coordinates coordinates"]:
        r"""Gauss-Newton second derivative, :math:`2\,n n^T/\sigma^2` for a bond along n [1/A^2]."""
        along = nn.functional.normalize(self._bonds(xyz), dim=-1)
        block = 2 / self.sigma**2 * along[:, :, None] * along[:, None]
        atoms = len(xyz) // 3
        total = xyz.new_zeros(atoms * atoms, 3, 3)
        for i, j, sign in (
            (self.first, self.first, 1),
            (self.second, self.second, 1),
            (self.first, self.second, -1),
            (self.second, self.first, -1),
        ):
            total = total.index_add(0, i * atoms + j, sign * block)
        return total.reshape(atoms, atoms, 3, 3).transpose(1, 2).reshape(3 * atoms, 3 * atoms)

    def _bonds(self, xyz: Tensor) -> Tensor:
        x = xyz.reshape(-1, 3)
        return x[self.first] - x[self.second]
