"""Atomic form factors as sums of Gaussians."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class FormFactors:
    """Coefficients by kind of atom, and the kind of each atom.

    Attributes:
        a: Heights of the Gaussians [electron].
        b: Their widths [A^2].
        c: Constants [electron].
        kind: Row of each atom in ``a``, ``b`` and ``c``.
    """

    a: Float[Tensor, "kinds 4"]
    b: Float[Tensor, "kinds 4"]
    c: Float[Tensor, "kinds"]
    kind: Int[Tensor, "atoms"]


def form_factor(
    stol2: Float[Tensor, "points"],
    a: Float[Tensor, "kinds 4"],
    b: Float[Tensor, "kinds 4"],
    c: Float[Tensor, "kinds"],
) -> Float[Tensor, "points kinds"]:
    r"""Scattering power of atoms at rest.

    .. math:: f(s) = \sum_{t=1}^4 a_t e^{-b_t s^2} + c, \quad s = \sin\theta/\lambda = |q|/4\pi

    Args:
        stol2: Squared sin(theta)/lambda [1/A^2].
        a: Heights of the Gaussians [electron].
        b: Their widths [A^2].
        c: Constants [electron].

    Returns:
        Form factors [electron].

    References: International Tables for Crystallography C, 6.1.1.
    """
    return torch.einsum("pkt,kt->pk", torch.exp(-stol2[:, None, None] * b), a) + c


def form_factor_slope(
    stol2: Float[Tensor, "points"], a: Float[Tensor, "kinds 4"], b: Float[Tensor, "kinds 4"]
) -> Float[Tensor, "points kinds"]:
    """Derivative of :func:`form_factor` in ``stol2`` [electron A^2]."""
    return -torch.einsum("pkt,kt->pk", torch.exp(-stol2[:, None, None] * b), a * b)
