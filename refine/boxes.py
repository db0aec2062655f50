"""Pixels around predicted spots, and the tilted planes of background under them."""

import numpy as np
import torch
from jaxtyping import Float, Int

from sim_core import Experiment
from sim_core.bragg.prediction import predicted_spots

OUTLIER = 4.0
"""Residuals of a plane, in standard deviations, beyond which a pixel belongs to a spot."""


def box_of_each_pixel(experiment: Experiment, half_width: int, d_min: float, reach: float) -> Int[np.ndarray, "s f"]:
    """The predicted spot whose box a pixel is in, the nearest where boxes overlap; -1 outside all boxes.

    Args:
        experiment: What to predict.
        half_width: Pixels on either side of the pixel that holds a spot.
        d_min: Resolution limit [A]; zero for none.
        reach: Largest excitation error of a spot [standard deviations].
    """
    fast, slow = experiment.panel.image_size
    owner = np.full((slow, fast), -1, dtype=np.int64)
    nearest = np.full((slow, fast), np.inf)
    for index, (y, x) in enumerate(predicted_spots(experiment, d_min, reach).position.tolist()):
        rows = slice(max(0, int(y) - half_width), int(y) + half_width + 1)
        columns = slice(max(0, int(x) - half_width), int(x) + half_width + 1)
        ys, xs = np.ogrid[rows, columns]
        ys, xs = ys[ys < slow], xs[xs < fast]
        distance = (ys.reshape(-1, 1) + 0.5 - y) ** 2 + (xs.reshape(1, -1) + 0.5 - x) ** 2
        closer = distance < nearest[rows, columns]
        nearest[rows, columns][closer] = distance[closer]
        owner[rows, columns][closer] = index
    return owner


def planes(
    photons: Float[np.ndarray, "s f"], used: np.ndarray, owner: Int[np.ndarray, "s f"]
) -> Float[np.ndarray, "s f"]:
    """A tilted plane for each box, fitted to the pixels that no spot reaches; at least zero, zero outside boxes.

    Five rounds of least squares; each leaves out what lies more than :data:`OUTLIER` standard deviations above the
    plane of the round before. A box with fewer than nine pixels left takes its median.

    References: the background of a spot in integration programs, Leslie (1999), Acta Cryst. D55, 1696.
    """
    background = np.zeros(photons.shape)
    order = np.argsort(owner, axis=None, kind="stable")
    labels, starts = np.unique(owner.flat[order], return_index=True)
    for label, places in zip(labels, np.split(order, starts[1:]), strict=True):
        if label >= 0:
            background.flat[places] = _plane(photons, used.flat[places], places)
    return background.clip(min=0)


def _plane(photons: np.ndarray, used: np.ndarray, places: np.ndarray) -> np.ndarray:
    y, x = np.unravel_index(places, photons.shape)
    design = np.stack([np.ones(len(places)), y - y.mean(), x - x.mean()], axis=1)
    values = photons.flat[places]
    if not used.any():
        return np.zeros(len(places))
    level = float(np.median(values[used]))
    kept = used & (values <= level + OUTLIER * max(level, 1.0) ** 0.5)
    fitted = np.full(len(places), level)
    for _ in range(5):
        if kept.sum() < 9:
            return np.full(len(places), level)
        fitted = design @ np.linalg.lstsq(design[kept], values[kept], rcond=None)[0]
        kept = used & (values <= fitted + OUTLIER * np.sqrt(fitted.clip(min=1.0)))
    return fitted


def as_tensor(background: Float[np.ndarray, "s f"], pixels: Int[torch.Tensor, "n 2"]) -> Float[torch.Tensor, "n"]:
    """Values at pixels (slow, fast)."""
    return torch.from_numpy(background[pixels[:, 0].cpu().numpy(), pixels[:, 1].cpu().numpy()])
