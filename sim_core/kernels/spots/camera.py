"""Rays from a camera to pixels: what a plane of pixels and the beam make of each of them."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Absorption(NamedTuple):
    """A layer of a thick sensor: unit normal, and attenuation times depth of its two faces."""

    normal: Float[Tensor, "3"]
    depths: Float[Tensor, "2"]


class Camera(NamedTuple):
    r"""A plane of pixels in the beam.

    Attributes:
        origin: Outer corner of the first pixel [m].
        fast: Edge of a pixel along a row [m].
        slow: Edge of a pixel along a column [m].
        wave: Incident wave vector :math:`s_0/\lambda` [1/A].
        per_wavelength: Inverse of the mean wavelength [1/A].
        bandwidth: Relative variance of the wavelength.
        polarization: M of the polarisation factor :math:`d^\mathsf{T} M d` of a photon that flies along d.
        area: Solid angle of a pixel at 1 m, seen from the front, times everything that all pixels share.
        b_iso: Overall displacement factor [A^2], exp(-B s^2/2) of the intensity; ``None`` for none.
        absorption: What the layer stops; ``None`` for everything.
        blur: Variance of a photon's place about the centre of its pixel [pixels^2].
        flatness: Fourth root of minus a twelfth of its fourth cumulant [pixels]; zero for a Gaussian.
        s_max: Largest |S| that scatters [1/A].
        image_size: Number of pixels along fast and slow.
    """

    origin: Float[Tensor, "3"]
    fast: Float[Tensor, "3"]
    slow: Float[Tensor, "3"]
    wave: Float[Tensor, "3"]
    per_wavelength: Float[Tensor, ""]
    bandwidth: Float[Tensor, ""]
    polarization: Float[Tensor, "3 3"]
    area: Float[Tensor, ""]
    b_iso: Float[Tensor, ""] | None
    absorption: Absorption | None
    blur: float
    flatness: float
    s_max: float
    image_size: tuple[int, int]


class Rays(NamedTuple):
    """Scattering vectors S [1/A], covariances over a pixel and the bandwidth, flat edges, factors of the intensity."""

    scattering: Float[Tensor, "rows 3"]
    covariance: Float[Tensor, "rows 3 3"]
    edges: Float[Tensor, "rows 2 3"]
    factor: Float[Tensor, "rows"]


def rays(camera: Camera, pixels: Int[Tensor, "rows 2"]) -> Rays:
    r"""From the sample to the centre of each pixel (slow, fast).

    .. math:: S = \kappa d - s_0/\lambda, \quad C = J J^\mathsf{T} \beta + \sigma_\lambda^2 S S^\mathsf{T}, \quad
        J = \frac{\kappa}{R} (1 - d d^\mathsf{T}) (f, s), \quad
        \mathrm{factor} = \frac{A}{R^3}\, d^\mathsf{T} M d
    """
    centres = (pixels.to(camera.origin.dtype) + 0.5) @ torch.stack([camera.slow, camera.fast])
    points = camera.origin + centres
    distance = points.norm(dim=-1, keepdim=True)
    d = points / distance
    s = d * camera.per_wavelength - camera.wave
    edges = torch.stack([camera.fast, camera.slow])
    j = pixel_edges(d, distance, edges, camera.per_wavelength)
    covariance = camera.blur * j.mT @ j + camera.bandwidth * s[:, :, None] * s[:, None, :]
    factor = camera.area / distance[:, 0] ** 3 * ((d @ camera.polarization) * d).sum(-1)
    s2 = s.square().sum(-1)
    factor = factor * (s2 <= camera.s_max**2)
    if camera.b_iso is not None:
        factor = factor * torch.exp(-camera.b_iso / 2 * s2)
    if camera.absorption is not None:
        transmitted = torch.exp(-camera.absorption.depths / (d @ camera.absorption.normal)[:, None])
        factor = factor * (transmitted[:, 0] - transmitted[:, 1])
    return Rays(s, covariance, camera.flatness * j, factor)


def pixel_edges(
    d: Float[Tensor, "rows 3"],
    distance: Float[Tensor, "rows 1"],
    edges: Float[Tensor, "2 3"],
    per_wavelength: Float[Tensor, ""],
) -> Float[Tensor, "rows 2 3"]:
    """J^T of :func:`rays` [1/A]: what the edges of a pixel are in reciprocal space."""
    across = edges - (d @ edges.mT)[..., None] * d[:, None]
    return across * (per_wavelength / distance)[..., None]
