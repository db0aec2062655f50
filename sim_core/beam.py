"""The incident beam as a set of plane waves."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from .experiment import Beam
from .rotations import axis_rotation


def centred_grid(width: float, count: int) -> Float[Tensor, "count"]:
    """``count`` values evenly over ``[-width/2, width/2]``, both ends included; zero alone for one value."""
    return torch.linspace(-width / 2, width / 2, count, dtype=torch.float64) if count > 1 else torch.zeros(1).double()


def divergence_grid(
    widths: tuple[float, float], counts: tuple[int, int], trim: bool = True
) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
    """Angles [rad] (horizontal, vertical) of a divergent beam, by default trimmed to an ellipse.

    Args:
        widths: Full widths [rad], horizontal and vertical.
        counts: Numbers of angles, horizontal and vertical.
        trim: Leave out the corners outside the ellipse (with 10 % margin, as nanoBragg does).
    """
    h, v = torch.meshgrid(*(centred_grid(w, n) for w, n in zip(widths, counts, strict=True)), indexing="ij")
    h, v = h.flatten(), v.flatten()
    if not trim or min(widths) <= 0:
        return h, v
    radius2 = torch.zeros_like(h)
    for angle, width, count in zip((h, v), widths, counts, strict=True):
        step = width / max(count - 1, 1)
        radius2 = radius2 + (angle**2 - step**2 / 4 * (1 - count % 2)) / width**2
    inside = 4 * radius2 <= 1.1
    return h[inside], v[inside]


def tilted_directions(
    beam: Float[Tensor, "3"],
    polarization_axis: Float[Tensor, "3"],
    horizontal: Float[Tensor, "n"],
    vertical: Float[Tensor, "n"],
) -> Float[Tensor, "n 3"]:
    """Directions of the plane waves of a divergent beam.

    The beam is turned about the polarisation axis by ``vertical`` and then about the normal of beam and
    polarisation axis by ``horizontal`` [rad].

    References: sources of nanoBragg.
    """
    normal = torch.linalg.cross(beam, polarization_axis)
    turned = axis_rotation(polarization_axis.expand(len(vertical), 3), vertical) @ beam
    return (axis_rotation(normal.expand(len(horizontal), 3), horizontal) @ turned[..., None])[..., 0]


def as_waves(beam: Beam) -> Beam:
    """A beam whose Gaussian divergence and bandwidth are plane waves: three Gauss-Hermite nodes for each."""
    if beam.divergence is None and beam.bandwidth is None:
        return beam
    one = beam.weight.new_ones(1)
    nodes = beam.weight.new_tensor([-(3**0.5), 0.0, 3**0.5])
    shares = beam.weight.new_tensor([1 / 6, 2 / 3, 1 / 6])
    direction, weight = beam.direction, beam.weight
    wavelength = beam.wavelength
    if beam.divergence is not None:
        angles = torch.cartesian_prod(nodes, nodes) * beam.divergence
        across = torch.linalg.cross(direction, beam.polarization_axis.expand_as(direction))
        across = across / across.norm(dim=-1, keepdim=True)
        along = torch.linalg.cross(across, direction)
        tilted = direction[:, None] + angles[:, :1] * across[:, None] + angles[:, 1:] * along[:, None]
        direction = (tilted / tilted.norm(dim=-1, keepdim=True)).flatten(0, 1)
        weight = torch.outer(weight, torch.cartesian_prod(shares, shares).prod(-1)).flatten()
        wavelength = wavelength.repeat_interleave(len(angles))
    relative, share = (one, one) if beam.bandwidth is None else (1 + nodes * beam.bandwidth, shares)
    return replace(
        beam,
        direction=direction.repeat_interleave(len(relative), 0),
        wavelength=torch.outer(wavelength, relative).flatten(),
        weight=torch.outer(weight, share).flatten(),
        divergence=None,
        bandwidth=None,
    )


def mean_wave(beam: Beam) -> tuple[Float[Tensor, "3"], Float[Tensor, ""]]:
    """Mean direction (a unit vector) and mean wavelength [A] of the plane waves."""
    direction = beam.weight @ beam.direction
    return direction / direction.norm(), beam.weight @ beam.wavelength


def directions_covariance(beam: Beam) -> Float[Tensor, "3 3"]:
    """Covariance of the incident wave vector [1/A^2]: that of the plane waves and the Gaussian divergence."""
    direction, wavelength = mean_wave(beam)
    offsets = beam.direction - direction
    covariance = (beam.weight[:, None] * offsets).mT @ offsets
    if beam.divergence is not None:
        across = torch.eye(3, dtype=direction.dtype, device=direction.device) - torch.outer(direction, direction)
        covariance = covariance + beam.divergence**2 * across
    return covariance / wavelength**2


def bandwidth_variance(beam: Beam) -> Float[Tensor, ""]:
    """Relative variance of the wavelength: that of the plane waves and the Gaussian bandwidth."""
    _, wavelength = mean_wave(beam)
    variance = beam.weight @ (beam.wavelength / wavelength - 1).square()
    return variance if beam.bandwidth is None else variance + beam.bandwidth**2


def polarization_matrix(beam: Beam) -> Float[Tensor, "3 3"]:
    r"""M of the polarisation factor :math:`d^\mathsf{T} M d` of a photon that flies along the unit vector d.

    .. math:: M = \tfrac12 \sum_i w_i (1 + \hat s_i \hat s_i^\mathsf{T} - K (e_i e_i^\mathsf{T} - b_i b_i^\mathsf{T}))

    over the plane waves, with e and b the directions of the electric and the magnetic field; the same factor as
    :func:`kahn_factor`. The unit matrix where the beam has none.
    """
    unit = torch.eye(3, dtype=beam.weight.dtype, device=beam.weight.device)
    if beam.kahn is None:
        return beam.weight.sum() * unit
    b = torch.linalg.cross(beam.polarization_axis.expand_as(beam.direction), beam.direction)
    b = b / b.norm(dim=-1, keepdim=True)
    e = torch.linalg.cross(beam.direction, b)

    def mean(v: Tensor) -> Tensor:
        return (beam.weight[:, None] * v).mT @ v

    return (beam.weight.sum() * unit + mean(beam.direction) - beam.kahn * (mean(e) - mean(b))) / 2
