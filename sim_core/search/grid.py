r"""Orientation of a crystal from one image without a starting point.

Three steps, each with fewer candidates and more physics: a grid over all rotations modulo the crystal's symmetry,
scored on a :class:`RingMap`; a climb of the best with a tolerance that is halved; a fit of the best of those to the
photons with the closed form, mosaic spread inflated at first. All candidates of a step are worked on together.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..kernels.spots.sum import Settings, Spots, spot_sum
from .orientations import distance, even_rotations, grid_size, in_zone, quaternion_matrix, quaternion_product
from .orientations import vector_quaternion as turn
from .spot_map import Pixels, Reflections, match, ring_map

COVERING = math.radians(3.0)
"""Farthest that any rotation is from a point of the grid [rad]."""

TOLERANCE = 0.4 * COVERING
"""Standard deviation about each axis of the distance to the nearest point of the grid, with some to spare [rad]."""


NEAR_SHARE, NEAR_FEWEST = 0.3, 20
"""Share of the grid within some angle of a start that is kept at most, where it is not a few anyway."""


class Candidates(NamedTuple):
    """Orientations R of the crystal's frame, the best first.

    Attributes:
        rotations: Quaternions.
        scores: The larger the better.
    """

    rotations: Float[Tensor, "n 4"]
    scores: Float[Tensor, "n"]

    def best(self, count: int) -> "Candidates":
        """The first ones."""
        return Candidates(self.rotations[:count], self.scores[:count])


class Ball(NamedTuple):
    """The rotations within some angle of one of them.

    Attributes:
        centre: Quaternion.
        radius: [rad].
    """

    centre: Float[Tensor, "4"]
    radius: float

    def holds(self, rotations: Float[Tensor, "n 4"]) -> Bool[Tensor, "n"]:
        """Which rotations it holds."""
        return (rotations @ self.centre).abs() >= math.cos(self.radius / 2)


class Scene(NamedTuple):
    """What the grid and the climb are scored on.

    Attributes:
        frame: Rows: two unit vectors across the beam and the one along it.
        pixels: What stands out of the background.
        reflections: The strongest lattice points.
        wavelength: [A].
        mosaic: Standard deviation of the misorientation about each axis [rad].
        group: Rotations of the crystal that leave its image as it is, as quaternions.
    """

    frame: Float[Tensor, "3 3"]
    pixels: Pixels
    reflections: Reflections
    wavelength: float
    mosaic: float
    group: Float[Tensor, "g 4"]


def scan_grid(scene: Scene, keep: int, near: Ball | None = None) -> tuple[Candidates, int]:
    """Score an even grid.

    Args:
        scene: The image.
        keep: How many of the best to keep.
        near: The part of all rotations to stay in.

    Returns:
        The best, and how many there were.
    """
    every = even_rotations(grid_size(COVERING))
    grid = in_zone(every, scene.group) if near is None else torch.cat([near.centre[None], every[near.holds(every)]])
    scores = scores_of(scene, grid, TOLERANCE)
    most = len(grid) if near is None else max(NEAR_FEWEST, math.ceil(NEAR_SHARE * len(grid)))
    best = scores.topk(min(keep, most, len(grid)))
    return Candidates(grid[best.indices], best.values), len(grid)


def climb(scene: Scene, candidates: Candidates, finest: float, keep: int) -> tuple[Candidates, int]:
    """Improve candidates by trying their neighbours, with half the tolerance each time.

    Args:
        scene: The image.
        candidates: Where to start.
        finest: Tolerance to end with [rad].
        keep: How many different ones to keep.

    Returns:
        The best that differ by more than the tolerance of the grid, and how many orientations were scored.
    """
    offsets = torch.cartesian_prod(*[torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)] * 3)
    tolerance, scored = TOLERANCE, 0
    here = candidates
    while tolerance > finest:
        tolerance = max(tolerance / 2, finest)
        for step in (1.6, 0.8):
            tried = quaternion_product(turn(offsets * step * tolerance)[None], here.rotations[:, None]).flatten(0, 1)
            scores = scores_of(scene, tried, tolerance).view(-1, len(offsets))
            scored += len(tried)
            best = scores.max(1)
            rows = torch.arange(len(scores)) * len(offsets) + best.indices
            order = best.values.argsort(descending=True)
            here = Candidates(tried[rows][order], best.values[order])
        here = different(here, scene.group, tolerance, max(keep, len(here.rotations) // 3))
    return different(here, scene.group, TOLERANCE, keep), scored


def different(candidates: Candidates, group: Float[Tensor, "g 4"], apart: float, keep: int) -> Candidates:
    """The best ones that are farther than ``apart`` [rad] from every better one, modulo the group."""
    chosen = different_rows(candidates.rotations, group, apart, keep)
    return Candidates(candidates.rotations[chosen], candidates.scores[chosen])


def different_rows(rotations: Float[Tensor, "n 4"], group: Float[Tensor, "g 4"], apart: float, keep: int) -> list[int]:
    """Which rows are farther than ``apart`` [rad] from every one before them, modulo the group."""
    chosen: list[int] = []
    for index, rotation in enumerate(rotations):
        if len(chosen) == keep:
            break
        near = bool(chosen) and bool((distance(rotations[chosen], rotation, group) < apart).any())
        if not near:
            chosen.append(index)
    return chosen


def with_twins(candidates: Candidates, beam: Float[Tensor, "3"], count: int) -> Float[Tensor, "n 4"]:
    """Candidates and the first of them turned by half a turn about the beam: alike but for the Ewald sphere's bend."""
    half = torch.cat([beam.new_zeros(1), beam / beam.norm()])
    return torch.cat([candidates.rotations, quaternion_product(half, candidates.rotations[:count])])


def scores_of(scene: Scene, rotations: Float[Tensor, "n 4"], tolerance: float) -> Float[Tensor, "n"]:
    """How well orientations agree with the map of an image: :func:`match` with the map made for the tolerance [rad]."""
    sigma = float(scene.reflections.sigma.mean())
    rings = ring_map(scene.pixels, tolerance, sigma)
    turned = scene.frame @ quaternion_matrix(rotations)
    return match(turned, scene.reflections, rings, scene.wavelength, tolerance, scene.mosaic)


class Target(NamedTuple):
    """Photons that candidates are fitted to.

    Attributes:
        scattering: S [1/A].
        covariance: Covariance of S over a pixel, the beam's and the bandwidth's [1/A^2].
        factor: Photons for each unit of intensity relative to one electron.
        background: Photons.
        observed: Photons.
    """

    scattering: Float[Tensor, "n 3"]
    covariance: Float[Tensor, "n 3 3"]
    factor: Float[Tensor, "n"]
    background: Float[Tensor, "n"]
    observed: Float[Tensor, "n"]


class Fits(NamedTuple):
    """Fitted candidates.

    Attributes:
        rotations: Quaternions.
        mosaic: Standard deviation of the misorientation about each axis [rad].
        scale: Of the spots.
        deviance: Sum of the squared differences of the square roots, in standard deviations.
    """

    rotations: Float[Tensor, "n 4"]
    mosaic: Float[Tensor, "n"]
    scale: Float[Tensor, "n"]
    deviance: Float[Tensor, "n"]


def root(photons: Tensor) -> Tensor:
    """Square root that gives Poisson counts the variance one (Anscombe)."""
    return 2 * (photons.clamp_min(0) + 0.375).sqrt()


def expected(
    target: Target,
    spots: Spots,
    amplitudes: Float[Tensor, "reflections"],
    settings: Settings,
    rotations: Float[Tensor, "m 3 3"],
    variance: Float[Tensor, "m"],
) -> Float[Tensor, "m n"]:
    """Photons of the spots of each candidate for a scale of one.

    The pixels are turned into the crystal's frame, so that all candidates are rows of one sum; the mosaic spread acts
    at S instead of at the lattice point.
    """
    m, n = len(rotations), len(target.scattering)
    s = torch.einsum("mba,nb->amn", rotations, target.scattering)
    pairs = torch.einsum("mca,mdb->abmcd", rotations, rotations).reshape(9 * m, 9)
    c = (pairs @ target.covariance.reshape(n, 9).T).view(3, 3, m, n)
    length2 = s.square().sum(0)
    for i in range(3):
        for j in range(3):
            across = length2 - s[i] ** 2 if i == j else -s[i] * s[j]
            c[i, j] += variance[:, None] * across
    y = spot_sum(s.flatten(1).mT, c.flatten(2).permute(2, 0, 1), None, spots, amplitudes, settings)
    return target.factor * y.view(m, n)
