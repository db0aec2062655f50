"""Geometry of a flat detector panel, its solid angle and its sensor."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from .rotations import axis_rotation, xyz_rotation


class Frame(NamedTuple):
    """Orthonormal directions of a panel in the laboratory."""

    fast: Float[Tensor, "3"]
    slow: Float[Tensor, "3"]
    normal: Float[Tensor, "3"]


class Mount(NamedTuple):
    """How a panel stands: the unrotated frame and what turns it.

    ``centre`` is the distance [m] of the pivot point from the outer edge of the first pixel along fast and slow:
    of the direct beam (pivot ``beam``) or of the foot of the sample's perpendicular before two-theta (``sample``).
    """

    frame: Frame
    beam: Float[Tensor, "3"]
    centre: Float[Tensor, "2"]
    distance: Float[Tensor, ""]
    rotations: Float[Tensor, "3"]
    two_theta: Float[Tensor, ""]
    two_theta_axis: Float[Tensor, "3"]


def obliquity(mount: Mount) -> Float[Tensor, ""]:
    """Cosine between the beam and the panel's normal, two-theta left out: close distance over distance."""
    return mount.beam @ (xyz_rotation(mount.rotations) @ mount.frame.normal)


def rotated_frame(mount: Mount) -> Frame:
    """The panel's directions after its own rotations about lab x, y, z and then two-theta."""
    turn = axis_rotation(mount.two_theta_axis, mount.two_theta) @ xyz_rotation(mount.rotations)
    return Frame(*(turn @ v for v in mount.frame))


def origin_about_beam(mount: Mount) -> Float[Tensor, "3"]:
    r"""Outer corner [m] of the first pixel where the direct beam keeps its pixel.

    .. math:: P_0 = -F f' - S s' + d\,b

    References: ``pivot BEAM`` of nanoBragg.
    """
    frame = rotated_frame(mount)
    distance = obliquity(mount).abs() * mount.distance / obliquity(mount)
    return -mount.centre[0] * frame.fast - mount.centre[1] * frame.slow + distance * mount.beam


def origin_about_sample(mount: Mount) -> Float[Tensor, "3"]:
    r"""Outer corner [m] of the first pixel where the panel turns as a whole about the sample.

    .. math:: P_0 = R_{2\theta} R_{xyz} (-F f - S s + d_\mathrm{close}\,o)

    References: ``pivot SAMPLE`` of nanoBragg.
    """
    f, s, o = mount.frame
    corner = -mount.centre[0] * f - mount.centre[1] * s + (obliquity(mount) * mount.distance).abs() * o
    return axis_rotation(mount.two_theta_axis, mount.two_theta) @ (xyz_rotation(mount.rotations) @ corner)


def solid_angle(
    position: Float[Tensor, "*batch 3"], close_distance: Float[Tensor, ""], pixel_size: Float[Tensor, ""]
) -> Float[Tensor, "*batch"]:
    r"""Solid angle [sr] of a small flat pixel: :math:`\omega = p^2/R^2 \cdot d_\mathrm{close}/R`.

    Args:
        position: Points on the panel [m].
        close_distance: Distance of the panel's plane from the sample [m].
        pixel_size: Edge of a pixel [m].
    """
    distance = position.norm(dim=-1)
    return pixel_size**2 * close_distance / distance**3


def absorbed_fraction(
    direction: Float[Tensor, "*batch 3"],
    normal: Float[Tensor, "3"],
    attenuation: Float[Tensor, ""],
    edges: Float[Tensor, "layers_1"],
) -> Float[Tensor, "*batch layers"]:
    r"""Part of the photons that each layer of a thick sensor stops.

    .. math:: \exp(-\mu z_t/\cos\theta) - \exp(-\mu z_{t+1}/\cos\theta)

    Args:
        direction: Unit vectors of the photons' flight.
        normal: Unit normal of the panel.
        attenuation: Linear attenuation coefficient of the sensor [1/m].
        edges: Depths of the boundaries of the layers [m].
    """
    transmitted = torch.exp(-attenuation * edges / (direction @ normal)[..., None])
    return transmitted[..., :-1] - transmitted[..., 1:]
