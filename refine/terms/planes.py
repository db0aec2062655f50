"""Pixels around predicted spots, and the tilted planes of background under them."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

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


LEAST = 0.1
"""Of the plane of the rim: fewest photons that are expected in a box."""
DARK = 1e-3
"""Fewest photons of a pixel in a box without background."""


class BoxPlanes(nn.Module):
    """A tilted plane of background under each box, eliminated: always the best one for the spots as they are.

    With the weighted projection P onto planes, the expected photons s + P (n - s) of spots s and counts n are
    (1 - P) s + P n: linear in the spots, so all derivatives, and the information that is left for other parameters
    once the planes are determined from the same pixels, follow by themselves.

    Args:
        photons: The image.
        used: Pixels that count.
        owner: Box of each pixel, -1 outside.

    References: variable projection, Golub & Pereyra (1973), SIAM J. Numer. Anal. 10, 413.
    """

    observed: Tensor
    rim: Tensor
    rims: Tensor
    box: Tensor
    frame: Tensor
    pixels: Tensor
    centre: Tensor
    weight: Tensor
    inverse: Tensor

    def __init__(self, photons: Float[np.ndarray, "s f"], used: np.ndarray, owner: Int[np.ndarray, "s f"]) -> None:
        super().__init__()
        frame = np.full(owner.shape, -1)
        frame[owner >= 0] = np.unique(owner[owner >= 0], return_inverse=True)[1]
        chosen = used & (owner >= 0)
        pixels, box = torch.from_numpy(np.argwhere(chosen)), torch.from_numpy(frame[chosen])
        count = torch.bincount(box, minlength=int(frame.max()) + 1).clamp_min(1)
        total = torch.zeros(len(count), 2, dtype=torch.float64).index_add(0, box, pixels.double())
        rim = planes(photons, used, owner)
        self.register_buffer("observed", torch.from_numpy(photons[chosen]).double())
        self.register_buffer("rim", torch.from_numpy(rim[chosen]).double())
        self.register_buffer("rims", torch.from_numpy(rim))
        self.register_buffer("box", box)
        self.register_buffer("frame", torch.from_numpy(frame))
        self.register_buffer("pixels", pixels)
        self.register_buffer("centre", total / count[:, None])
        self.reweight(torch.zeros_like(self.rim))

    def _basis(self, pixels: Int[Tensor, "n 2"], box: Int[Tensor, "n"]) -> Float[Tensor, "n 3"]:
        """One and the distances from the middle of the box [px]; zero outside boxes."""
        offset = pixels - self.centre[box]
        return torch.cat([torch.ones_like(offset[:, :1]), offset], 1) * (box >= 0)[:, None]

    def least(self, pixels: Int[Tensor, "m 2"] | None = None) -> Float[Tensor, "m"]:
        """Fewest photons that are expected: planes under spots that are not there would fall below zero."""
        pixels = self.pixels if pixels is None else pixels
        rim, box = (image[pixels[:, 0], pixels[:, 1]] for image in (self.rims, self.frame))
        return (LEAST * rim).clamp_min(DARK) * (box >= 0)

    @torch.no_grad()
    def reweight(self, spots: Float[Tensor, "n"]) -> None:
        """Weigh pixels by the variance of the counts that these spots [photon] on the rim's planes make."""
        self.weight = 1 / (spots + self.rim).clamp_min(1.0)
        basis = self._basis(self.pixels, self.box)
        outer = basis[:, :, None] * (self.weight[:, None] * basis)[:, None, :]
        normal = outer.new_zeros(len(self.centre), 3, 3).index_add(0, self.box, outer)
        least = 1e-9 * normal[:, 0, 0].clamp_min(1e-9)  # a box of few pixels has no slope
        self.inverse = torch.linalg.inv(normal + least[:, None, None] * torch.eye(3).to(normal))

    def fit(self, values: Float[Tensor, "n"], pixels: Int[Tensor, "m 2"] | None = None) -> Float[Tensor, "m"]:
        """The planes of best fit to values at the pixels that count.

        Args:
            values: What is fitted.
            pixels: Where the planes are wanted, zero outside boxes; ``None`` for the pixels that count.
        """
        basis = self._basis(self.pixels, self.box)
        moments = values.new_zeros(len(self.centre), 3).index_add(0, self.box, basis * (self.weight * values)[:, None])
        coefficients = (self.inverse @ moments[..., None])[..., 0]
        if pixels is None:
            return (basis * coefficients[self.box]).sum(-1)
        box = self.frame[pixels[:, 0], pixels[:, 1]]
        return (self._basis(pixels, box) * coefficients[box]).sum(-1)

    def eliminated(
        self, columns: Float[Tensor, "m k"], seen: Float[Tensor, "n k"], pixels: Int[Tensor, "m 2"] | None = None
    ) -> Float[Tensor, "m parts"]:
        """What the planes leave of the photons of terms, and, as a last column, the planes of the data.

        Args:
            columns: Photons at the pixels that are wanted.
            seen: Photons at the pixels that count.
            pixels: Which are wanted; ``None`` for those that count.
        """
        taken = torch.stack([self.fit(column, pixels) for column in seen.unbind(-1)], -1)
        return torch.cat([columns - taken, self.fit(self.observed, pixels)[:, None]], -1)
