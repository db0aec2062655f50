"""Pixels of a panel in a beam as numbers that a compiled kernel turns into scattering vectors on the way."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...experiment import Beam, Panel


@dataclass(frozen=True)
class PixelRays:
    """Rays from the crystal to the sub-pixels of some pixels, for every plane wave; carries no gradient.

    Attributes:
        pixels: Indices (slow, fast); ``None`` for every pixel of the panel, fast running fastest.
        size: Pixels along fast and slow.
        axes: Steps of a pixel along slow and fast [m].
        waves: For each sub-pixel and plane wave: its point of pixel (0, 0) [m], direction, 1 / wavelength [1/A],
            weight x pixel area x close distance / sub-pixels, and the two directions of polarisation.
        polarization: c, c', c'' of the factor c + c' cos^2 2theta - c'' (d_E^2 - d_B^2).
        limit: Largest |S|^2 [1/A^2].
    """

    pixels: Int[Tensor, "pixels 2"] | None
    size: tuple[int, int]
    axes: Float[Tensor, "6"]
    waves: Float[Tensor, "waves 14"]
    polarization: Float[Tensor, "3"]
    limit: float

    @property
    def count(self) -> int:
        """Number of pixels."""
        return self.size[0] * self.size[1] if self.pixels is None else len(self.pixels)


def pixel_rays(
    beam: Beam, panel: Panel, pixels: Int[Tensor, "pixels 2"] | None, oversample: int, d_min: float
) -> PixelRays:
    """The rays of a panel without a thick sensor.

    Args:
        beam: Plane waves.
        panel: The detector.
        pixels: Indices (slow, fast); ``None`` for all.
        oversample: Sub-pixels along each edge.
        d_min: Resolution limit [A]; zero for none.
    """
    slow, fast = panel.slow_axis * panel.pixel_size, panel.fast_axis * panel.pixel_size
    steps = (torch.arange(oversample, device=slow.device) + 0.5) / oversample
    offsets = torch.cartesian_prod(steps, steps).view(-1, 2).to(slow.dtype)
    points = panel.origin + offsets[:, :1] * slow + offsets[:, 1:] * fast
    across = torch.linalg.cross(beam.polarization_axis.expand_as(beam.direction), beam.direction)
    across = across / across.norm(dim=-1, keepdim=True)
    along = torch.linalg.cross(beam.direction, across)
    area = panel.pixel_size**2 * panel.close_distance / oversample**2
    waves = torch.cat(
        [beam.direction, 1 / beam.wavelength[:, None], (beam.weight * area)[:, None], along, across], dim=1
    )
    count = len(waves)
    waves = torch.cat([points.repeat_interleave(count, 0), waves.repeat(len(points), 1)], dim=1)
    kahn = beam.kahn
    factor = slow.new_tensor([1.0, 0.0, 0.0] if kahn is None else [0.5, 0.5, 0.5 * float(kahn)])
    limit = 1 / d_min**2 if d_min > 0 else torch.inf
    return PixelRays(pixels, panel.image_size, torch.cat([slow, fast]), waves, factor, limit)
