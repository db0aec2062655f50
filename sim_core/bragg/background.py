"""Smooth backgrounds under the Bragg spots, as relative profiles over the panel.

A profile is one where the beam's foot point would be; the free parameter ``background`` [photons] multiplies it.
"""

from jaxtyping import Float, Int
from torch import Tensor

from ..constants import AVOGADRO, R_E_SQUARED
from ..detector import solid_angle
from ..experiment import Experiment
from .sampled import point_weights, polarization, subpixel_points


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


PROFILES = {"flat": flat_profile, "scatterer": scatterer_profile}
"""The profiles by the names that configurations use."""

__all__ = ["PROFILES", "flat_profile", "scatterer_profile", "water_photons"]
