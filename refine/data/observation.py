"""The image to refine against: read from a file or simulated from the truth, as photons with a mask."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from refine.errors import required
from refine.formats.images import DetectorImage, read_image
from refine.paths import existing_file
from refine.settings.schema import Settings


@dataclass(frozen=True)
class Observation:
    """An image as photons.

    Attributes:
        photons: Photons [slow, fast]: (counts - adc_offset)/gain.
        used: Pixels to refine against.
        sha256: Digest of the file, or of the simulated photons.
        path: The file; ``None`` for a simulated image.
    """

    photons: np.ndarray
    used: np.ndarray
    sha256: str
    path: Path | None = None

    def pixels(self) -> Tensor:
        """Indices (slow, fast) of the pixels that are used."""
        return torch.from_numpy(np.argwhere(self.used))

    def observed(self) -> Tensor:
        """Photons of the pixels that are used."""
        return torch.from_numpy(self.photons[self.used])


def from_file(image: DetectorImage, settings: Settings) -> Observation:
    """Photons of an image that was read: offset and gain taken out, bad and saturated pixels masked.

    Raises:
        InputError: if the image or the mask has another size than the detector, or no pixel is left.
    """
    data, pixels = settings.data, settings.detector.pixels
    assert pixels is not None
    _check_size(image.path, image.counts, pixels, "detector.pixels")
    limit = image.largest if data.saturation is None else data.saturation
    used = image.valid.copy()
    if limit is not None:
        used &= image.counts < limit
    if data.mask is not None:
        mask = read_image(existing_file(data.mask, "data.mask"))
        _check_size(mask.path, mask.counts, pixels, "detector.pixels")
        used &= mask.counts != 0
    if data.hot_sigma is not None:
        used &= ~hot_pixels((image.counts - data.adc_offset) / data.gain, used, data.hot_sigma)
    if not used.any():
        raise required(image.path, "at least one pixel below saturation and outside the mask", "none")
    return Observation((image.counts - data.adc_offset) / data.gain, used, image.sha256, image.path)


def hot_pixels(
    photons: Float[np.ndarray, "slow fast"], used: Bool[np.ndarray, "slow fast"], sigma: float
) -> Bool[np.ndarray, "slow fast"]:
    """Pixels that stand alone: above the largest of their neighbours by ``sigma`` standard deviations and ten times.

    Args:
        photons: The image.
        used: Pixels that count as neighbours.
        sigma: Standard deviations of that largest neighbour's counts, at least of one photon.
    """
    frame = np.pad(np.where(used, photons, -np.inf), 1, constant_values=-np.inf)
    rows, columns = photons.shape
    shifts = [(i, j) for i in range(3) for j in range(3) if (i, j) != (1, 1)]
    largest = np.max([frame[i : i + rows, j : j + columns] for i, j in shifts], axis=0).clip(min=1.0)
    return used & (photons > largest + sigma * np.sqrt(largest)) & (photons > 10 * largest)


def from_simulation(photons: Tensor, settings: Settings) -> Observation:
    """A simulated image [slow * fast] as an observation."""
    assert settings.detector.pixels is not None
    fast, slow = settings.detector.pixels
    array = photons.detach().cpu().double().numpy().reshape(slow, fast)
    used = np.ones(array.shape, dtype=bool)
    if settings.data.mask is not None:
        mask = read_image(existing_file(settings.data.mask, "data.mask"))
        _check_size(mask.path, mask.counts, settings.detector.pixels, "detector.pixels")
        used = mask.counts != 0
    if not used.any():
        raise required("data.mask", "at least one pixel that is not zero", "none")
    return Observation(array, used, hashlib.sha256(array.tobytes()).hexdigest())


def _check_size(path: Path, array: np.ndarray, pixels: tuple[int, int], field: str) -> None:
    if array.shape != pixels[::-1]:
        wanted = f"an image of {pixels[0]} x {pixels[1]} pixels ({field})"
        raise required(path, wanted, f"{array.shape[1]} x {array.shape[0]}")


class OneImage(L.LightningDataModule):
    """A single batch an epoch: the module holds the image, so that every step sees all of it."""

    def train_dataloader(self) -> DataLoader[Any]:
        """One empty batch."""
        return DataLoader(TensorDataset(torch.zeros(1)), batch_size=1)
