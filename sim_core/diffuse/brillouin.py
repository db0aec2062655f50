"""Bookkeeping of scattering vectors: which share a wavevector of the Brillouin zone, or an intensity by symmetry."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

RESOLUTION = 1e11
"""Wavevectors closer than one part in this of a reciprocal cell are one wavevector."""


class Sampling(NamedTuple):
    """Points from a lowest to a highest index, both included, ``rate`` of them for each reciprocal cell."""

    low: float
    high: float
    rate: int

    def points(self) -> Float[Tensor, "n"]:
        """The indices."""
        count = round(self.rate * (self.high - self.low)) + 1
        return torch.linspace(self.low, self.high, count, dtype=torch.float64)


def grid(h: Sampling, k: Sampling, l: Sampling) -> tuple[Float[Tensor, "points 3"], tuple[int, int, int]]:
    """Fractional Miller indices of a map, the last index fastest, and its shape."""
    axes = [s.points() for s in (h, k, l)]
    return torch.cartesian_prod(*axes), (len(axes[0]), len(axes[1]), len(axes[2]))


def zone_grid(rates: tuple[int, int, int]) -> Float[Tensor, "k 3"]:
    """Wavevectors of a map with these rates, in [-1/2, 1/2) of the reciprocal cell."""
    axes = [((torch.arange(n, dtype=torch.float64) + n // 2) % n - n // 2) / n for n in rates]
    return torch.cartesian_prod(*axes)


class Wavevectors(NamedTuple):
    """Wavevectors that differ, and which of them each point has.

    Attributes:
        kappa: In units of the reciprocal cell; one of each pair k, -k.
        group: Row of ``kappa`` for each point.
        flipped: Points whose wavevector is the negative of that row.
        free: Whether they follow the points in a derivative; otherwise they are constants.
    """

    kappa: Float[Tensor, "k 3"]
    group: Int[Tensor, "points"]
    flipped: Bool[Tensor, "points"]
    free: bool = False


def unique_wavevectors(hkl: Float[Tensor, "points 3"]) -> Wavevectors:
    """Merge points whose indices differ by integers, and k with -k."""
    hkl = hkl.detach()
    size = int(RESOLUTION)
    key = torch.round((hkl - torch.floor(hkl)) * RESOLUTION).long() % size
    mirrored = (size - key) % size
    different = key != mirrored
    first = different.long().argmax(-1, keepdim=True)
    flipped = different.any(-1) & (mirrored.gather(-1, first) < key.gather(-1, first))[:, 0]
    index = unique_rows(torch.where(flipped[:, None], mirrored, key))
    count = int(index.max()) + 1 if len(index) else 0
    last = index.new_zeros(count).scatter(0, index, torch.arange(len(index), device=index.device))
    kappa = torch.where(flipped[last, None], -hkl[last], hkl[last])
    return Wavevectors(kappa - torch.round(kappa), index, flipped)


def separate_wavevectors(hkl: Float[Tensor, "points 3"]) -> Wavevectors:
    """Every point with a wavevector of its own, as a differentiable function of its indices."""
    kappa = hkl - torch.round(hkl.detach())
    own = torch.arange(len(hkl), device=hkl.device)
    return Wavevectors(kappa, own, torch.zeros_like(own, dtype=torch.bool), True)


def unique_rows(rows: Int[Tensor, "points columns"]) -> Int[Tensor, "points"]:
    """Number the distinct rows; one sort for each column, much faster than sorting rows."""
    index = rows.new_zeros(len(rows), dtype=torch.long)
    for column in rows.unbind(-1):
        values, rank = torch.unique(column, return_inverse=True)
        index = torch.unique(index * len(values) + rank, return_inverse=True)[1]
    return index


class Folding(NamedTuple):
    """Points that differ by the Laue symmetry.

    Attributes:
        points: One of each set of points with the same intensity, as rows of the map.
        row: Row of ``points`` for each point of the map.
    """

    points: Int[Tensor, "folded"]
    row: Int[Tensor, "points"]


def fold(hkl: Float[Tensor, "points 3"], rates: tuple[int, int, int], operations: Int[Tensor, "ops 3 3"]) -> Folding:
    r"""Merge the points of a map whose intensities are equal: I(h) = I(R^T h) = I(-h).

    Grids so fine (10^5 points along an axis) that a point has no number of its own in double precision are left alone.

    Args:
        hkl: Fractional Miller indices.
        rates: Points for each reciprocal cell: makes the indices whole numbers.
        operations: Rotations of the space group in fractional coordinates.

    Raises:
        ValueError: if a point does not lie on the grid that the rates say.
    """
    rate = math.lcm(*rates)
    n = torch.round(hkl * rate)
    if bool(((hkl * rate - n).abs() > 1e-6).any()):
        raise ValueError(f"fold: expected points on a grid of {rates} for each reciprocal cell, got others")
    width = 2 * 3 * float(n.abs().max()) + 1 if len(n) else 1.0
    if width**3 > 2**53:
        return Folding(torch.arange(len(n), device=n.device), torch.arange(len(n), device=n.device))
    number = operations.to(n) @ n.new_tensor([width**2, width, 1])  # whole numbers, exact in double precision
    best = n.new_zeros(len(n))
    for weights in number:
        best = torch.maximum(best, (n @ weights).abs())
    _, index = torch.unique(best.long(), return_inverse=True)
    points = index.new_zeros(int(index.max()) + 1 if len(n) else 0)
    return Folding(points.scatter(0, index, torch.arange(len(n), device=n.device)), index)


class Batch(NamedTuple):
    """Points that are worked on together, in rows of equal length that share a wavevector.

    Attributes:
        points: Which points.
        kappa: Wavevectors of the batch.
        row: Wavevector of each row.
        flipped: Points at the negative of their wavevector.
        place: Where each point stands in the rows, read one after the other.
        width: Length of a row.
    """

    points: Int[Tensor, "n"]
    kappa: Float[Tensor, "k 3"]
    row: Int[Tensor, "rows"]
    flipped: Bool[Tensor, "n"]
    place: Int[Tensor, "n"]
    width: int

    def owner(self) -> Int[Tensor, "n"]:
        """Wavevector of each point, ascending."""
        return self.row[self.place // self.width]


def one_row(kappa: Float[Tensor, "1 3"], count: int) -> Batch:
    """A batch of points with the same wavevector."""
    place = torch.arange(count, device=kappa.device)
    return Batch(place, kappa, place[:1] * 0, torch.zeros_like(place, dtype=torch.bool), place, count)


def batches(wavevectors: Wavevectors, points: int, most: int) -> Iterator[Batch]:
    """Cut points, sorted by wavevector, into batches.

    Args:
        wavevectors: Of all points.
        points: Points in each batch.
        most: Wavevectors in each batch.
    """
    group, order = wavevectors.group.sort(stable=True)
    rank = torch.unique_consecutive(group, return_inverse=True)[1]
    start = 0
    while start < len(order):
        end = min(start + points, int(torch.searchsorted(rank, rank[start] + most)))
        yield make_batch(wavevectors, order[start:end])
        start = end


def make_batch(wavevectors: Wavevectors, points: Int[Tensor, "n"]) -> Batch:
    """A batch of points; rows are filled to at least a half on average.

    Args:
        wavevectors: Of all points.
        points: Those of the batch.
    """
    group, order = wavevectors.group[points].sort(stable=True)
    here, run, counts = torch.unique_consecutive(group, return_inverse=True, return_counts=True)
    width = -(-len(points) // len(here))
    rows = -(-counts // width)
    slot = torch.arange(len(points), device=points.device) - (counts.cumsum(0) - counts)[run]
    first = (rows.cumsum(0) - rows)[run] + slot // width
    return Batch(
        points[order],
        wavevectors.kappa[here],
        torch.repeat_interleave(torch.arange(len(here), device=points.device), rows),
        wavevectors.flipped[points[order]],
        first * width + slot % width,
        width,
    )
