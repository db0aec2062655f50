"""Powder rings of hexagonal ice, as linear profiles over the panel.

Small crystals of ice in all orientations scatter into cones about the beam. Each ring has an amplitude [photons] of
its own, because the crystals are often few and not quite random; their common width is a parameter.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .background import _length, scatterer_profile
from .experiment import Experiment
from .rays import subpixel_points

ICE_CELL = (4.497, 7.322)
"""a and c [A] of ice Ih at about 100 K (Roettger et al., Acta Cryst. B50 (1994) 644-648); at 250 K 0.5 % longer."""

ICE_INDICES = (
    (1, 0, 0),
    (0, 0, 2),
    (1, 0, 1),
    (1, 0, 2),
    (1, 1, 0),
    (1, 0, 3),
    (2, 0, 0),
    (1, 1, 2),
    (2, 0, 1),
    (2, 0, 2),
    (2, 0, 3),
)
"""The rings down to 1.5 A from the largest spacing on.

Oxygen stands on sites 4f (1/3, 2/3, 0.062) of P 63/m m c: hhl with odd l is absent, and 004 and 104 (1.83 and 1.66 A)
have less than a thousandth of the strongest ring.
"""


def ice_spacings() -> tuple[float, ...]:
    r"""Spacings d [A] of the rings.

    .. math:: 1/d^2 = \frac{4}{3} \frac{h^2 + hk + k^2}{a^2} + \frac{l^2}{c^2}
    """
    a, c = ICE_CELL
    return tuple(1 / math.sqrt(4 / 3 * (h * h + h * k + k * k) / a**2 + (l / c) ** 2) for h, k, l in ICE_INDICES)


def ice_labels() -> tuple[str, ...]:
    """Names of the rings: their spacings with two digits."""
    return tuple(f"{d:.2f}" for d in ice_spacings())


def ice_rings(
    experiment: Experiment, pixels: Int[Tensor, "pixels 2"], width: Float[Tensor, ""]
) -> Float[Tensor, "pixels rings"]:
    r"""Rings of ice, each with an amplitude of one.

    .. math:: p_r = p\,e^{-(s - 1/d_r)^2 / 2\sigma^2}

    with s = 1/d [1/A] of the mean wave and p of :func:`.background.scatterer_profile`: at its crest a ring has the
    photons that an amorphous body of the same amplitude would have there.

    Args:
        experiment: Beam and panel.
        pixels: Indices (slow, fast).
        width: Standard deviation of the rings in s [1/A], above zero.

    Returns:
        One column for each ring, in the order of :func:`ice_labels`.
    """
    s = _length(experiment.beam, subpixel_points(experiment.panel, pixels, 1)[:, 0, 0])
    crests = torch.tensor([1 / d for d in ice_spacings()], dtype=s.dtype, device=s.device)
    shape = torch.exp(-((s[:, None] - crests) / width).square() / 2)
    return shape * scatterer_profile(experiment, pixels)[:, None]


__all__ = ["ICE_CELL", "ICE_INDICES", "ice_labels", "ice_rings", "ice_spacings"]
