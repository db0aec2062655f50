"""Smooth backgrounds under the Bragg spots, as relative profiles over the panel.

A profile is one where the beam's foot point would be; the free parameter ``background`` [photons] multiplies it.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .constants import AVOGADRO, R_E_SQUARED
from .detector import solid_angle
from .experiment import Beam, Experiment
from .rays import point_weights, polarization, subpixel_points

RADIAL_KNOTS = 8
"""Knots of a radial background."""


def flat_profile(experiment: Experiment, pixels: Int[Tensor, "pixels 2"]) -> Float[Tensor, "pixels"]:
    """The same in every pixel."""
    return experiment.panel.origin.new_ones(len(pixels))


def scatterer_profile(experiment: Experiment, pixels: Int[Tensor, "pixels 2"]) -> Float[Tensor, "pixels"]:
    """An amorphous body at the sample that scatters alike into all angles.

    Solid angle, polarisation and absorption shape it, relative to a pixel where a perpendicular from the sample
    meets the panel.
    """
    panel, beam = experiment.panel, experiment.beam
    points = subpixel_points(panel, pixels, 1)
    flight = points / points.norm(dim=-1, keepdim=True)
    weight = (point_weights(panel, points)[..., None] * beam.weight * polarization(beam, flight)).flatten(1).sum(-1)
    foot = (panel.close_distance * panel.normal).view(1, 3)
    return weight / solid_angle(foot, panel.close_distance, panel.pixel_size)


def radial_profiles(
    experiment: Experiment, pixels: Int[Tensor, "pixels 2"], count: int = RADIAL_KNOTS
) -> Float[Tensor, "pixels knots"]:
    """What an amorphous body scatters, piecewise linear in s = 1/d: one hat function for each knot.

    The knots are even in s from zero to the panel's farthest corner; the profiles add up to
    :func:`scatterer_profile`.
    """
    panel, beam = experiment.panel, experiment.beam
    fast, slow = panel.image_size
    corners = panel.positions(panel.origin.new_tensor([[0, 0], [0, fast], [slow, 0], [slow, fast]]))
    s, s_corner = (_length(beam, points) for points in (subpixel_points(panel, pixels, 1)[:, 0, 0], corners))
    place = s / s_corner.detach().max() * (count - 1)
    knots = torch.arange(count, dtype=s.dtype, device=s.device)
    hats = (1 - (place[:, None] - knots).abs()).clamp_min(0)
    return hats * scatterer_profile(experiment, pixels)[:, None]


def _length(beam: Beam, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n"]:
    """Length of the scattering vector [1/A] of the mean wave."""
    flight = points / points.norm(dim=-1, keepdim=True)
    return ((flight - beam.weight @ beam.direction) / (beam.weight @ beam.wavelength)).norm(dim=-1)


def water_photons(experiment: Experiment, thickness: Float[Tensor, ""]) -> Float[Tensor, ""]:
    r"""Photons that a cube of water scatters into the pixel at the panel's foot point.

    .. math:: 2.57^2 r_e^2 \Phi\,\omega\,t^3\,10^6 N_A / 18

    Args:
        experiment: Beam and panel.
        thickness: Edge of the cube [m].

    References: background of nanoBragg; 2.57 electrons is the amplitude of water at small angles.
    """
    panel = experiment.panel
    foot = (panel.close_distance * panel.normal).view(1, 3)
    omega = solid_angle(foot, panel.close_distance, panel.pixel_size)[0]
    molecules = thickness**3 * 1e6 * AVOGADRO / 18
    return 2.57**2 * R_E_SQUARED * experiment.beam.fluence * molecules * omega


__all__ = ["RADIAL_KNOTS", "flat_profile", "radial_profiles", "scatterer_profile", "water_photons"]
