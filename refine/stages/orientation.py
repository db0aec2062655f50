"""Finding an orientation in an image: everywhere, or near a given one."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from refine.data.observation import Picture
from refine.errors import RefinementError
from refine.stages.arbitration import Misset, Solution
from refine.threads import one_thread
from sim_core import Experiment
from sim_core.amplitudes import padded_values
from sim_core.bragg.closed_form import GAUSSIAN, Blocks
from sim_core.kernels.spots.sum import Settings as SumSettings
from sim_core.mosaic import SIGMA_PER_SPREAD
from sim_core.rotations import xyz_angles, xyz_rotation
from sim_core.search.fit import Fit
from sim_core.search.grid import Ball, Candidates, Fits, Scene, climb, different, different_rows, scan_grid, with_twins
from sim_core.search.orientations import matrix_quaternion, nearest_equivalent, quaternion_matrix, quaternion_product
from sim_core.search.scene import Image

APART = math.radians(1.0)
"""Orientations that differ by less are the same solution [rad]."""

CANDIDATES = 200_000
"""Candidates times reflections that are left after the grid."""

FEWEST, MOST = 400, 1500
"""Candidates that are left after the grid, whatever the reflections."""

KEPT = (250, 32, 8, 6)
"""Candidates that are left after the climb and after the fits."""

CLOSE, AT_MOST = 0.7, 4
"""Share of the best score above which another solution is compared once more, and how many are in all."""

FIRST, COARSE, FINE = 1000, 2500, 12000
"""Points of the image that candidates are fitted to, fit by fit."""


class NothingFoundError(RefinementError):
    """No orientation explains the image better than noise would.

    Attributes:
        search: What the search saw.
    """

    def __init__(self, search: dict[str, Any]) -> None:
        best, least = search["best_score"], search["significant_score"]
        super().__init__(
            f"orientation search: nothing found; the best of {search['orientations']} orientations has the score "
            f"{best:.3g}, at least {least:.3g} is significant"
        )
        self.search = search


@dataclass(frozen=True)
class Found:
    """An orientation and how sure it is.

    Attributes:
        solutions: Different ones, the best first.
        group: Rotations before the misset that leave the image as it is, as quaternions.
        report: For results.json.
    """

    solutions: list[Solution]
    group: Tensor
    report: dict[str, Any]

    @property
    def misset_deg(self) -> Misset:
        """The best."""
        return self.solutions[0].misset_deg

    def decided(self, better: Callable[[list[Solution]], list[Solution]], even_alone: bool = True) -> "Found":
        """With those close to the best moved and ranked by something better; those that became one count once."""
        close = [s for s in self.solutions if s.score > CLOSE * self.solutions[0].score][:AT_MOST]
        if len(close) == 1 and not even_alone:
            return self
        every = better(close) + self.solutions[len(close) :]
        turned = torch.stack([matrix_quaternion(misset_rotation(s.misset_deg)) for s in every])
        kept = [every[row] for row in different_rows(turned, self.group, APART, len(every))]
        scores = {"best_score": kept[0].score, "runner_up_score": kept[1].score if len(kept) > 1 else None}
        return Found(kept, self.group, self.report | scores)


@one_thread()
def find_orientation(
    experiment: Experiment,
    picture: Picture,
    d_min: float,
    near_deg: Misset | None,
    within_deg: float | None = None,
    blocks: Blocks = GAUSSIAN,
) -> Found:
    """Search all orientations, or those near one.

    Scores are the fall of the deviance of the square roots of the photons, relative to the background alone, in units
    of what is left for each point (at least one).

    Args:
        experiment: Everything but the misset.
        picture: The image.
        d_min: Resolution limit [A]; zero for none.
        near_deg: Of the equivalent solutions the one nearest to this misset is taken; ``None`` for zero.
        within_deg: Look within this angle of ``near_deg`` only; ``None`` for everywhere.
        blocks: Interference function that the last few candidates are compared with.

    Raises:
        NothingFoundError: if the best is not significant.
    """
    start = time.perf_counter()
    photons = torch.from_numpy(picture.photons).double()
    image = Image(experiment, photons, torch.from_numpy(picture.used), d_min)
    if not bool(image.used.any()):
        nothing = {"orientations": 0, "symmetry_rotations": 1, "best_score": 0.0, "runner_up_score": None}
        raise NothingFoundError({**nothing, "significant_score": 20.0, "wall_s": time.perf_counter() - start})
    scene = image.scene()
    goal = _goal(image, near_deg)
    ball = None if within_deg is None else Ball(goal, math.radians(within_deg))
    if ball is not None:
        scene = scene._replace(group=scene.group[:1])
    fine, fit, scored = _fitted(image, scene, ball, blocks)
    points = len(fit.target.observed)
    left = max(1.0, float(fine.deviance[0]) / points)
    scores = ((fit.null() - fine.deviance) / left).tolist()
    least = 20 + 2 * math.log(scored)
    report = {
        "orientations": scored,
        "symmetry_rotations": len(scene.group),
        "best_score": scores[0],
        "runner_up_score": scores[1] if len(scores) > 1 else None,
        "significant_score": least,
        "wall_s": time.perf_counter() - start,
    }
    if not scores[0] > least:
        raise NothingFoundError(report)
    spread = torch.rad2deg(fine.mosaic / SIGMA_PER_SPREAD).tolist()
    missets = [_misset(rotation, image, scene.group, goal) for rotation in fine.rotations]
    found = [Solution(*row) for row in zip(missets, spread, fine.scale.tolist(), scores, strict=True)]
    before = matrix_quaternion(image.experiment.crystal.orientation)
    inverse = before * before.new_tensor([1.0, -1.0, -1.0, -1.0])
    group = quaternion_product(quaternion_product(before, scene.group), inverse)
    return Found(found, group, report)


def _fitted(image: Image, scene: Scene, ball: Ball | None, blocks: Blocks) -> tuple[Fits, Fit, int]:
    """The few best orientations that differ, the best first, what fitted them, and how many were looked at."""
    many = min(max(CANDIDATES // max(1, len(scene.reflections.vectors)), FEWEST), MOST)
    grid, scored = scan_grid(scene, many, ball)
    climbed, more = climb(scene, grid, math.radians(0.3), KEPT[0])
    twins = 0 if ball is not None else KEPT[1]
    first, _ = _fit(image, FIRST, climbed.rotations, scene.mosaic, ((0.5, 2),))
    best = different(_ranked(first), scene.group, APART, KEPT[1])
    coarse, _ = _fit(image, COARSE, with_twins(best, scene.frame[2], twins), scene.mosaic, ((0.5, 1), (0.2, 3)))
    best = different(_ranked(coarse), scene.group, APART, KEPT[2])
    fine, fit = _fit(image, FINE, best.rotations, scene.mosaic, ((0.1, 3), (0.0, 4)))
    if len(blocks.weights) > 1:
        best = different(_ranked(fine), scene.group, APART, KEPT[3])
        rotations = with_twins(best, scene.frame[2], min(2, twins))
        fine, fit = _fit(image, FINE, rotations, scene.mosaic, ((0.0, 4),), blocks)
    order = fine.deviance.argsort()
    last = order[different_rows(fine.rotations[order], scene.group, APART, KEPT[3])]
    return Fits(*(column[last] for column in fine)), fit, scored + more


def _fit(
    image: Image,
    points: int,
    rotations: Tensor,
    mosaic: float,
    stages: tuple[tuple[float, int], ...],
    blocks: Blocks = GAUSSIAN,
) -> tuple[Fits, Fit]:
    """Fit with the mosaic spread inflated by some degrees for some steps, stage by stage."""
    factors = image.experiment.structure_factors
    h, k, l = factors.table.shape
    settings = SumSettings((1, 1, 1), factors.h_min, (h, k, l), torch.float32)
    fit = Fit(image.target(points), image.spots(blocks), padded_values(factors), settings)
    fits = fit.start(rotations, mosaic, math.radians(stages[0][0]))
    for inflation, steps in stages:
        fits = fit.run(fits, math.radians(inflation), steps)
    return fits, fit


def _ranked(fits: Fits) -> Candidates:
    order = fits.deviance.argsort()
    return Candidates(fits.rotations[order], -fits.deviance[order])


def misset_rotation(misset_deg: Misset | None) -> Tensor:
    """Rotation matrix of a misset; ``None`` is none."""
    return xyz_rotation(torch.deg2rad(torch.tensor(misset_deg or (0.0, 0.0, 0.0)).double()))


def _goal(image: Image, near_deg: Misset | None) -> Tensor:
    """Orientation of the crystal, in the middle of the exposure, at a given misset."""
    orientation = matrix_quaternion(image.experiment.crystal.orientation)
    wanted = matrix_quaternion(misset_rotation(near_deg))
    return quaternion_product(matrix_quaternion(image.turn[0]), quaternion_product(wanted, orientation))


def _misset(rotation: Tensor, image: Image, group: Tensor, goal: Tensor) -> Misset:
    """The misset of the equivalent that is nearest to the goal, rounded: a search that is repeated agrees."""
    nearest = nearest_equivalent(rotation, group, goal)
    turn = image.turn[0].T @ quaternion_matrix(nearest) @ image.experiment.crystal.orientation.T
    x, y, z = (round(v, 4) for v in torch.rad2deg(xyz_angles(turn)).tolist())
    return x, y, z
