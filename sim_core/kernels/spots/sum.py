r"""The sum over the lattice points near each scattering vector, the hot loop of the closed form.

.. math:: y = \sum_{k,t,h_0} w_k\,H_t\,F^2(h_0)\,\frac{e^{-D^\mathsf{T} C^{-1} D/2}}{\sqrt{\det C}}, \quad
    q_0 = A^*_k h_0,\; D = S - q_0,\; C = C_{kt} + [q_0]_\times E_k [q_0]_\times^\mathsf{T} + C_\mathrm{pixel}

over the steps k of the spindle, the Gaussians t of a block and the nearest lattice points h0. A pixel is a box, flatter
than the Gaussian in C_pixel: its fourth cumulants (the next that do not vanish) stand in the exponent, too. Symmetric
matrices are their six entries xx, yy, zz, yz, xz, xy. Which lattice point is nearest is a selection: gradients pass
through q0 with h0 held fixed. Lengths are measured in the width of a spot, so that single precision has no powers of
1e-4 to lose.
"""

import math
from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...amplitudes import box_limits, nearest_reflection, padded_index
from .symmetric import Symmetric, Vector, add, cross, form, inverse_parts, turned


class Spots(NamedTuple):
    """What spreads a lattice point, in reciprocal space [1/A], for each step of the spindle.

    Attributes:
        basis: Columns a*, b*, c*.
        constant: Covariance of block size and divergence for each Gaussian of a block.
        mosaic: Covariance of the rotation vector of a block [rad^2].
        heights: Weight of each Gaussian: peak times the root of the determinant of its own covariance.
        shares: Share of each step in the exposure.
        axis: Unit vector of the spindle.
        half_width: Half the range that a step covers [rad]; ``None`` for a still.
    """

    basis: Float[Tensor, "steps 3 3"]
    constant: Float[Tensor, "steps terms 3 3"]
    mosaic: Float[Tensor, "steps 3 3"]
    heights: Float[Tensor, "terms"]
    shares: Float[Tensor, "steps"]
    axis: Float[Tensor, "3"]
    half_width: Float[Tensor, ""] | None


class Settings(NamedTuple):
    """What does not carry a gradient: lattice points along each axis, where the amplitudes lie, precision, kernel."""

    neighbours: tuple[int, int, int]
    h_min: Int[Tensor, "3"]
    box: tuple[int, int, int]
    dtype: torch.dtype
    kernel: str = "eager"


def spot_sum(
    scattering: Float[Tensor, "rows 3"],
    covariance: Float[Tensor, "rows 3 3"],
    edges: Float[Tensor, "rows 2 3"] | None,
    spots: Spots,
    amplitudes: Float[Tensor, "reflections"],
    settings: Settings,
) -> Float[Tensor, "rows"]:
    """Intensity relative to one electron, differentiable in every tensor.

    Args:
        scattering: Scattering vectors S [1/A].
        covariance: Their covariance over a pixel and the bandwidth [1/A^2].
        edges: Edges of a pixel times its flatness [1/A], see :func:`flattening`; ``None`` where it is a Gaussian.
        spots: What spreads a lattice point.
        amplitudes: |F| of the reflections, from :func:`padded_values`.
        settings: Neighbours, lookup and precision.
    """
    unit = torch.linalg.matrix_norm(spots.constant[0, 0].detach()).sqrt()
    s = scattering.mT / unit
    pixel = symmetric(covariance.permute(1, 2, 0) / unit**2, settings.dtype)
    across = [vector(edge.mT / unit, settings.dtype) for edge in ([] if edges is None else edges.unbind(1))]
    f2 = amplitudes.square().to(settings.dtype)
    heights = (spots.heights / unit**3).to(settings.dtype)
    total = torch.zeros_like(s[0], dtype=settings.dtype)
    for step in range(len(spots.basis)):
        basis = spots.basis[step] / unit
        mosaic = symmetric(spots.mosaic[step], settings.dtype)
        for h0, f2_0 in _lattice_points(s, basis, f2, settings):
            q0 = basis @ h0
            d = vector(s - q0, settings.dtype)
            q = vector(q0, settings.dtype)
            spread = add(pixel, turned(q, mosaic))
            density = torch.zeros_like(total)
            for term, height in enumerate(heights):
                c = add(spread, symmetric(spots.constant[step, term] / unit**2, settings.dtype))
                density = density + height * _density(c, d, q, across, spots)
            total = total + spots.shares[step].to(settings.dtype) * f2_0 * density
    return total


def _lattice_points(
    s: Tensor, basis: Tensor, f2: Tensor, settings: Settings
) -> Iterator[tuple[Float[Tensor, "3 rows"], Tensor]]:
    """Lattice points around each vector and their squared amplitudes."""
    h = (torch.linalg.inv(basis) @ s).detach()
    nearest = nearest_reflection(h)
    side = torch.where(h > nearest, 1.0, -1.0).to(h.dtype)
    low, size = box_limits(settings.h_min, settings.box)
    for offsets in product(*[((0.0,), (0.0, 1.0), (0.0, 1.0, -1.0))[n - 1] for n in settings.neighbours]):
        h0 = nearest + side * s.new_tensor(offsets)[:, None]
        place = padded_index(h0[:, :, None], low, size)[:, 0] if len(f2) > 1 else None
        yield h0, f2 if place is None else f2[place]


def _density(
    c: Symmetric[Tensor], d: Vector[Tensor], q: Vector[Tensor], edges: list[Vector[Tensor]], spots: Spots
) -> Tensor:
    """exp(-D^T C^-1 D/2)/sqrt(det C), flattened; its mean over the step's rotation where there is one.

    The flattening of a rotated spot takes a Gaussian of the same variance, w^2/3 along u, for the range.
    """
    adjugate, determinant = inverse_parts(c)
    peak = determinant.rsqrt()

    def product(v: Vector[Tensor], w: Vector[Tensor]) -> Tensor:
        return form(adjugate, v, w) / determinant

    dd, flat = product(d, d), torch.zeros_like(d[0])
    if spots.half_width is None:
        for e in edges:
            flat = flat + flattening(product(e, d), product(e, e))
        return peak * torch.exp(-(dd + flat) / 2)
    w = spots.half_width.to(d[0].dtype)
    u = cross(q, vector(spots.axis[:, None], d[0].dtype))
    uu, ud = product(u, u), product(u, d)
    share = w**2 / (3 + uu * w**2)
    for e in edges:
        eu = product(e, u)
        flat = flat + flattening(product(e, d) - share * eu * ud, product(e, e) - share * eu**2)
    return peak * rotation_mean(uu, ud, dd, flat, w)


def flattening(t: Tensor, a: Tensor) -> Tensor:
    r"""What the box adds to :math:`D^\mathsf{T} C^{-1} D` along one edge e: t^4 - 6 a t^2 + 3 a^2.

    With :math:`t = e^\mathsf{T} C^{-1} D,\; a = e^\mathsf{T} C^{-1} e` it is a^2 He_4(t/sqrt a): the term of the
    fourth cumulant in Edgeworth's series, in the exponent, so that intensities stay positive. Edges carry the factor
    :math:`(-\kappa_4/12)^{1/4}`; :math:`\kappa_4 = -1/120` for a box of unit width.
    """
    t2 = t * t
    return t2 * t2 + 3 * a * (a - 2 * t2)


def rotation_mean(a: Tensor, b: Tensor, c: Tensor, flat: Tensor, w: Tensor) -> Tensor:
    r"""Mean of :math:`e^{-(c + 2 b \varphi + a \varphi^2)/2}` over phi in [-w, w], times :math:`e^{-\mathrm{flat}/2}`.

    .. math:: e^{-(c - b^2/a)/2} \sqrt{\frac{\pi}{2a}}\,
        \frac{\mathrm{erf}(\sqrt{a/2}(w + b/a)) - \mathrm{erf}(\sqrt{a/2}(-w + b/a))}{2w}

    Where a w^2 is small the first terms of its series stand for the difference that cancels.
    """
    small = a * w**2 < 1e-4
    a_ = torch.where(small, torch.ones_like(a), a)
    b_ = torch.where(small, torch.zeros_like(b), b)
    root = (a_ / 2).sqrt()
    middle = b_ / a_
    w_ = torch.where(w > 0, w, torch.ones_like(w))
    span = torch.erf(root * (middle + w_)) - torch.erf(root * (middle - w_))
    wide = torch.exp(-((c - b_ * middle).clamp_min(0) + flat) / 2) * math.sqrt(math.pi) / (4 * root * w_) * span
    w2 = w**2
    series = 1 + w2 / 6 * (b**2 - a) + w2**2 / 120 * (b**4 - 6 * a * b**2 + 3 * a**2)
    return torch.where(small, torch.exp(-(c + flat) / 2) * series, wide)


def vector(x: Float[Tensor, "3 *rows"], dtype: torch.dtype) -> Vector[Tensor]:
    """Components."""
    a, b, c = x.to(dtype).unbind(0)
    return a, b, c


def symmetric(m: Float[Tensor, "3 3 *rows"], dtype: torch.dtype) -> Symmetric[Tensor]:
    """The six entries of a symmetric matrix."""
    m = m.to(dtype)
    return m[0, 0], m[1, 1], m[2, 2], m[1, 2], m[0, 2], m[0, 1]


__all__ = ["Settings", "Spots", "flattening", "rotation_mean", "spot_sum"]
