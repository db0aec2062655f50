"""Where the spots of an experiment fall on its panel."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..beam import bandwidth_variance, mean_wave
from ..experiment import Experiment
from .closed_form import GAUSSIAN, reflections


class Prediction(NamedTuple):
    """Reflections in diffraction position that hit the panel.

    Attributes:
        hkl: Miller indices.
        position: Where the beam hits the panel, in pixels (slow, fast); pixel i covers [i, i + 1).
        excitation: Distance from the sphere of reflection in standard deviations of the spot's width along it.
    """

    hkl: Int[Tensor, "n 3"]
    position: Float[Tensor, "n 2"]
    excitation: Float[Tensor, "n"]


@torch.no_grad()
def predicted_spots(experiment: Experiment, d_min: float = 0.0, reach: float = 3.0) -> Prediction:
    r"""Reflections within ``reach`` standard deviations of the sphere of reflection, still or turning.

    The excitation error is :math:`\epsilon = |k + q_0| - 1/\lambda` with the spread
    :math:`\sigma^2 = \hat s_1^\mathsf{T} C \hat s_1`, C being the covariance of :mod:`closed_form`; over a rotation the
    smallest of the steps counts, with half a step's range taken off.

    Args:
        experiment: What to predict.
        d_min: Resolution limit [A]; zero for the panel's corner.
        reach: Standard deviations that count.
    """
    beam, scan, crystal = experiment.beam, experiment.scan, experiment.crystal
    direction, wavelength = mean_wave(beam)
    spots = reflections(crystal, beam, scan, GAUSSIAN)
    hkl = _indices(experiment, d_min)
    found = []
    for basis, constant, mosaic in zip(spots.basis, spots.constant[:, 0], spots.mosaic, strict=True):
        q = hkl.double() @ basis.mT
        out = direction / wavelength + q
        length = out.norm(dim=-1)
        flight = out / length[:, None]
        lever = torch.linalg.cross(q, flight)
        width2 = ((flight @ constant) * flight).sum(-1) + ((lever @ mosaic) * lever).sum(-1)
        width2 = width2 + bandwidth_variance(beam) * (q * flight).sum(-1).square()
        error = (length - 1 / wavelength).abs()
        if scan.width is not None:
            speed = torch.linalg.cross(scan.axis.expand_as(q), q)
            error = (error - (speed * flight).sum(-1).abs() * scan.width / 2).clamp_min(0)
        found.append((error / width2.sqrt(), *_hits(experiment, flight)))
    excitation, position, hit = (torch.stack(parts) for parts in zip(*found, strict=True))
    excitation = torch.where(hit, excitation, torch.inf)
    best = excitation.argmin(0)
    rows = torch.arange(len(hkl), device=hkl.device)
    near = excitation[best, rows] < reach
    return Prediction(hkl[near], position[best, rows][near], excitation[best, rows][near])


def _indices(experiment: Experiment, d_min: float) -> Int[Tensor, "n 3"]:
    """All indices within the resolution of the panel's corner, or of ``d_min``, but 0 0 0."""
    panel, crystal = experiment.panel, experiment.crystal
    direction, wavelength = mean_wave(experiment.beam)
    fast, slow = panel.image_size
    corners = panel.positions(panel.origin.new_tensor([[0, 0], [0, fast], [slow, 0], [slow, fast]]))
    s_max = ((corners / corners.norm(dim=-1, keepdim=True) - direction) / wavelength).norm(dim=-1).max()
    s_max = min(float(s_max), 1 / d_min if d_min > 0 else torch.inf)
    most = (crystal.direct.norm(dim=-1) * s_max).ceil().long().tolist()
    hkl = torch.cartesian_prod(*[torch.arange(-n, n + 1, device=panel.origin.device) for n in most])
    length = (hkl.double() @ crystal.reciprocal.mT).norm(dim=-1)
    return hkl[(length <= s_max) & (length > 0)]


def _hits(experiment: Experiment, flight: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, "n 2"], Tensor]:
    """Pixel coordinates (slow, fast) of rays, and whether they are on the panel."""
    panel = experiment.panel
    along = flight @ panel.normal
    forward = along * panel.close_distance > 0
    point = flight * (panel.close_distance / torch.where(forward, along, 1.0))[:, None] - panel.origin
    position = torch.stack([point @ panel.slow_axis, point @ panel.fast_axis], -1) / panel.pixel_size
    size = position.new_tensor(panel.image_size[::-1])
    return position, forward & (position >= 0).all(-1) & (position < size).all(-1)


__all__ = ["Prediction", "predicted_spots"]
