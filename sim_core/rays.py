"""From pixels to scattering: points of sub-pixels, their solid angles, polarisation and displacement factors."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .detector import absorbed_fraction, solid_angle
from .experiment import Beam, Panel, StructureFactors
from .polarization import kahn_factor


def subpixel_points(
    panel: Panel, pixels: Int[Tensor, "pixels 2"], oversample: int
) -> Float[Tensor, "pixels layers subpixels 3"]:
    """Centres of the sub-pixels [m] at the depth of each sensor layer."""
    steps = (torch.arange(oversample, device=pixels.device) + 0.5) / oversample
    offsets = torch.cartesian_prod(steps, steps).view(-1, 2).to(panel.origin.dtype)
    points = panel.positions(pixels[:, None, :] + offsets)[:, None]
    if panel.sensor is None:
        return points
    return points + panel.sensor.depths[:, None, None] * panel.normal


def point_weights(
    panel: Panel, points: Float[Tensor, "pixels layers subpixels 3"]
) -> Float[Tensor, "pixels layers subpixels"]:
    """Solid angle [sr] times absorbed fraction, divided by the number of sub-pixels."""
    weights = solid_angle(points, panel.close_distance, panel.pixel_size) / points.shape[2]
    if panel.sensor is None:
        return weights
    flight = points[:, 0] / points[:, 0].norm(dim=-1, keepdim=True)
    absorbed = absorbed_fraction(flight, panel.normal, panel.sensor.attenuation, panel.sensor.edges)
    return weights * absorbed.transpose(1, 2)


def polarization(beam: Beam, flight: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch sources"]:
    """Polarisation factor for each plane wave; one where the beam has none."""
    if beam.kahn is None:
        return flight.new_ones(*flight.shape[:-1], len(beam.weight))
    return kahn_factor(beam.direction, flight[..., None, :], beam.polarization_axis, beam.kahn)


def falloff(table: StructureFactors, scattering: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch"]:
    r"""Overall displacement factor of the intensity, :math:`e^{-B s^2/2}` with s = 1/d [1/A]; one without B."""
    if table.b_iso is None:
        return scattering.new_ones(scattering.shape[:-1])
    return torch.exp(-table.b_iso / 2 * scattering.square().sum(-1))


def in_blocks(
    block: Callable[[Tensor], Tensor], pixels: Int[Tensor, "pixels 2"], size: int, recompute: bool = False
) -> Float[Tensor, "pixels"]:
    """The loop over pixels: ``block`` of each run of ``size`` pixels in order, one after the other.

    Args:
        block: Photons of some pixels.
        pixels: Indices (slow, fast) of all pixels.
        size: Pixels that are held at a time.
        recompute: The backward pass computes each block again instead of storing it.
    """
    parts = pixels.split(size) if len(pixels) else (pixels,)
    if len(parts) > 1 and recompute:
        return torch.cat([checkpoint(block, part, use_reentrant=False) for part in parts])
    return torch.cat([block(part) for part in parts])
