"""What is compared with: pictures as photons with a mask, and the flat observations that are made of them."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from refine.data.sites import Pixels
from refine.errors import required
from refine.formats.images import DetectorImage, read_image
from refine.paths import existing_file
from refine.settings.data import Data


@dataclass(frozen=True)
class Observation:
    """Data at the sites of one frame, in a row.

    Attributes:
        photons: Photons, or intensities of a map.
        sigma: Their standard uncertainties; ``None`` for counts, or where a map has none.
        sha256: Digest of the file, or of the simulated data.
        path: The file; ``None`` for simulated data.
    """

    photons: Float[Tensor, "n"]
    sigma: Float[Tensor, "n"] | None = None
    sha256: str = ""
    path: Path | None = None


@dataclass(frozen=True)
class Picture:
    """A whole image as photons.

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

    def pixels(self) -> Pixels:
        """The pixels that are used."""
        return Pixels(torch.from_numpy(np.argwhere(self.used)))

    def observation(self) -> Observation:
        """Photons of the pixels that are used."""
        photons = torch.from_numpy(np.asarray(self.photons[self.used], dtype=np.float64))
        return Observation(photons, None, self.sha256, self.path)


def from_file(image: DetectorImage, data: Data, pixels: tuple[int, int]) -> Picture:
    """Photons of an image that was read: offset and gain taken out, bad and saturated pixels masked.

    Args:
        image: As read.
        data: The configuration.
        pixels: Size of the detector along fast and slow.

    Raises:
        InputError: if the image or the mask has another size than the detector, or no pixel is left.
    """
    _check_size(image.path, image.counts, pixels, "detector.pixels")
    limit = image.largest if data.saturation is None else data.saturation
    used = image.valid.copy()
    if limit is not None:
        used &= image.counts < limit
    if data.mask is not None:
        used &= _mask(data.mask, pixels)
    photons = (image.counts - data.adc_offset) / data.gain
    if data.hot_sigma is not None:
        used &= ~hot_pixels(photons, used, data.hot_sigma)
    if not used.any():
        raise required(image.path, "at least one pixel below saturation and outside the mask", "none")
    return Picture(photons, used, image.sha256, image.path)


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


def from_simulation(photons: Tensor, data: Data, pixels: tuple[int, int]) -> Picture:
    """A simulated image [slow * fast]."""
    fast, slow = pixels
    array = photons.detach().cpu().double().numpy().reshape(slow, fast)
    used = np.ones(array.shape, dtype=bool) if data.mask is None else _mask(data.mask, pixels)
    if not used.any():
        raise required("data.mask", "at least one pixel that is not zero", "none")
    return Picture(array, used, hashlib.sha256(array.tobytes()).hexdigest())


def _mask(path: str, pixels: tuple[int, int]) -> Bool[np.ndarray, "slow fast"]:
    mask = read_image(existing_file(path, "data.mask"))
    _check_size(mask.path, mask.counts, pixels, "detector.pixels")
    used: np.ndarray = mask.counts != 0
    return used


def _check_size(path: Path, array: np.ndarray, pixels: tuple[int, int], field: str) -> None:
    if array.shape != pixels[::-1]:
        wanted = f"an image of {pixels[0]} x {pixels[1]} pixels ({field})"
        raise required(path, wanted, f"{array.shape[1]} x {array.shape[0]}")
