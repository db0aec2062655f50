"""The polarisation factor of a single scattering event."""

import torch
from jaxtyping import Float
from torch import Tensor


def kahn_factor(
    incident: Float[Tensor, "*#batch 3"],
    scattered: Float[Tensor, "*#batch 3"],
    axis: Float[Tensor, "3"],
    kahn: Float[Tensor, ""],
) -> Float[Tensor, "*batch"]:
    r"""Polarisation factor of a partly polarised beam.

    .. math:: P = \tfrac12 (1 + \cos^2 2\theta - K \cos 2\psi \sin^2 2\theta)

    With the components of the scattered direction along E and B (both normal to the beam),
    :math:`\cos 2\psi \sin^2 2\theta = d_E^2 - d_B^2`, which has no singular direction.

    Args:
        incident: Unit vectors of the incident photons.
        scattered: Unit vectors of the scattered photons.
        axis: Direction of the electric field's main component (need not be normal to the beam).
        kahn: Kahn factor K in [-1, 1]; 0 for an unpolarised beam.

    References: Kahn et al. (1982), J. Appl. Cryst. 15, 330.
    """
    b = torch.linalg.cross(axis.expand_as(incident), incident)
    b = b / b.norm(dim=-1, keepdim=True)
    e = torch.linalg.cross(incident, b)
    cos_2theta = (incident * scattered).sum(-1)
    along_e, along_b = (e * scattered).sum(-1), (b * scattered).sum(-1)
    return 0.5 * (1 + cos_2theta**2 - kahn * (along_e**2 - along_b**2))
