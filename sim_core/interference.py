r"""Interference functions |F_latt|^2 of one block of unit cells, with their slopes.

Each function repeats with period one in h, so it is evaluated at x = h - round(h): the direct form loses the peak to
cancellation in single precision. A shape splits into an amplitude, which depends on the number of cells alone, and a
profile of x [3, rows, samples] with a vector of profile parameters; the profile's slopes are written out, because the
sum over samples is differentiated by hand (:mod:`sim_core.kernels.lattice.lattice_sum`).
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor


class Slopes(NamedTuple):
    """A profile, its derivative with respect to x and with respect to its parameters."""

    value: Float[Tensor, "rows samples"]
    d_x: Float[Tensor, "3 rows samples"]
    d_parameters: Float[Tensor, "parameters rows samples"] | None


@runtime_checkable
class Shape(Protocol):
    """The interference function of a block: ``amplitude * profile``."""

    def amplitude(self, n_cells: Float[Tensor, "3"]) -> Float[Tensor, ""]:
        """Factor that does not depend on x."""

    def parameters(self, n_cells: Float[Tensor, "3"], reciprocal: Float[Tensor, "3 3"]) -> Float[Tensor, "parameters"]:
        """Parameters of the profile, differentiable in the number of cells and in a*, b*, c* [1/A]."""

    def profile(
        self, x: Float[Tensor, "3 rows samples"], p: Float[Tensor, "parameters"]
    ) -> Float[Tensor, "rows samples"]:
        """Value at a distance x from the nearest lattice point."""

    def slopes(
        self, x: Float[Tensor, "3 rows samples"], p: Float[Tensor, "parameters"], with_parameters: bool
    ) -> Slopes:
        """Value and derivatives."""


@dataclass(frozen=True)
class Square:
    r"""Parallelepiped of unit cells.

    .. math:: |F_\mathrm{latt}|^2 = \prod_i \frac{\sin^2 \pi N_i x_i}{\sin^2 \pi x_i}

    References: ``sincg`` in nanoBragg, squared.
    """

    def amplitude(self, n_cells: Float[Tensor, "3"]) -> Float[Tensor, ""]:
        """One: the profile has the peak (N_a N_b N_c)^2 itself."""
        return torch.ones_like(n_cells[0])

    def parameters(self, n_cells: Float[Tensor, "3"], reciprocal: Float[Tensor, "3 3"]) -> Float[Tensor, "parameters"]:
        """N_a, N_b, N_c."""
        return n_cells

    def profile(
        self, x: Float[Tensor, "3 rows samples"], p: Float[Tensor, "parameters"]
    ) -> Float[Tensor, "rows samples"]:
        """Product of the three grating functions, squared; a tiny number added to x makes 0/0 the limit N."""
        u = torch.add(_tiny(x), x, alpha=math.pi)
        n = p.view(3, 1, 1)
        ratio = (n * u).sin_().div_(u.sin_())
        return (ratio[0] * ratio[1]).mul_(ratio[2]).square_()

    def slopes(
        self, x: Float[Tensor, "3 rows samples"], p: Float[Tensor, "parameters"], with_parameters: bool
    ) -> Slopes:
        """Derivatives of the squared product; a series in x replaces the difference that cancels near a peak."""
        u = torch.add(_tiny(x), x, alpha=math.pi)
        n = p.view(3, 1, 1)
        nu = n * u
        sin, cos_n = u.sin(), nu.cos()
        ratio = nu.sin().div_(sin)
        d_u = (n * cos_n).sub_((1 - sin.square()).sqrt_().mul_(ratio)).div_(sin)
        near = nu.abs() < 0.05
        d_u = torch.where(near, n * _grating_slope(u, n), d_u)
        squares, others = ratio.square(), torch.empty_like(ratio)
        for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
            torch.mul(squares[j], squares[k], out=others[i])
        value = others[0] * squares[0]
        others.mul_(ratio)
        d_n = None
        if with_parameters:
            d_n = 2 * others * (u * cos_n / sin)
        return Slopes(value, others.mul_(d_u).mul_(2 * math.pi), d_n)


def _tiny(x: Tensor) -> Tensor:
    """A number whose sine is itself and which no nonzero x can feel."""
    return torch.full((), 1e-30, dtype=x.dtype, device=x.device)


def _grating_slope(u: Tensor, n: Tensor) -> Tensor:
    """Derivative of sin(n u) / (n sin u) for small n u, to the fifth power."""
    m = n**2
    u2 = u**2
    return -(m - 1) * u * (1 / 3 - u2 * ((3 * m - 7) / 90 - u2 * (3 * m**2 - 18 * m + 31) / 2520))


class _Quadratic(ABC):
    """Shapes whose profile is a function of one quadratic form t = x^T Q x; its parameters are the nine of Q."""

    @abstractmethod
    def _radial(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The profile and its derivative with respect to t."""

    def profile(
        self, x: Float[Tensor, "3 rows samples"], p: Float[Tensor, "parameters"]
    ) -> Float[Tensor, "rows samples"]:
        """Value at a distance x from the nearest lattice point."""
        return self._radial((torch.tensordot(p.view(3, 3), x, 1) * x).sum(0))[0]

    def slopes(
        self, x: Float[Tensor, "3 rows samples"], p: Float[Tensor, "parameters"], with_parameters: bool
    ) -> Slopes:
        """Value and derivatives by the chain rule through t."""
        qx = torch.tensordot(p.view(3, 3), x, 1)
        value, slope = self._radial((qx * x).sum(0))
        outer = slope * (x[:, None] * x[None, :]).flatten(0, 1) if with_parameters else None
        return Slopes(value, 2 * slope * qx, outer)


@dataclass(frozen=True)
class Round(_Quadratic):
    r"""Ellipsoid of unit cells.

    .. math:: F_\mathrm{latt} = 0.7236\,N_a N_b N_c\; 3 (\sin z/z - \cos z)/z^2, \quad
        z = \pi\sqrt{f \textstyle\sum_i N_i^2 x_i^2}

    References: ``sinc3`` in nanoBragg. Below z = 0.2 a series stands for the difference that cancels.
    """

    fudge: float = 1.0

    def amplitude(self, n_cells: Float[Tensor, "3"]) -> Float[Tensor, ""]:
        """(0.7236 N_a N_b N_c)^2: the share of an ellipsoid's volume that matches the reference's intensity."""
        return (0.723601254558268 * n_cells.prod()) ** 2

    def parameters(self, n_cells: Float[Tensor, "3"], reciprocal: Float[Tensor, "3 3"]) -> Float[Tensor, "parameters"]:
        """The diagonal form f N_i^2."""
        return torch.diag(self.fudge * n_cells**2).flatten()

    def _radial(self, t: Tensor) -> tuple[Tensor, Tensor]:
        z2 = math.pi**2 * t
        near = z2 < 0.04
        z = torch.where(near, 1.0, z2).sqrt()
        series = 1 - z2 / 10 * (1 - z2 / 28 * (1 - z2 / 54 * (1 - z2 / 88)))
        series_slope = -1 / 5 + z2 * (1 / 70 - z2 * (1 / 2520 - z2 / 166320))
        sinc3 = torch.where(near, series, 3 * (z.sin() / z - z.cos()) / z**2)
        slope_over_z = torch.where(near, series_slope, 3 * (z.sin() / z - sinc3) / z**2)
        return sinc3**2, math.pi**2 * sinc3 * slope_over_z


class _ReciprocalWidth(_Quadratic):
    """Profiles whose width is set in reciprocal space by t = f (N_a N_b N_c)^2 |x_a a* + x_b b* + x_c c*|^2 [1/A^2].

    The width depends on the total number of cells and on the size of the cell, as in the reference program.
    """

    fudge: float

    def amplitude(self, n_cells: Float[Tensor, "3"]) -> Float[Tensor, ""]:
        """(N_a N_b N_c)^2."""
        return n_cells.prod() ** 2

    def parameters(self, n_cells: Float[Tensor, "3"], reciprocal: Float[Tensor, "3 3"]) -> Float[Tensor, "parameters"]:
        """The reciprocal metric, scaled."""
        return (self.fudge * n_cells.prod() ** 2 * reciprocal.T @ reciprocal).flatten()


@dataclass(frozen=True)
class Gauss(_ReciprocalWidth):
    r"""Gaussian spots: :math:`|F_\mathrm{latt}|^2 = (N_a N_b N_c)^2 \exp(-2 t/0.63)`.

    References: ``-gauss_xtal`` in nanoBragg.
    """

    fudge: float = 1.0

    def _radial(self, t: Tensor) -> tuple[Tensor, Tensor]:
        value = torch.exp(-2 / 0.63 * t)
        return value, -2 / 0.63 * value


@dataclass(frozen=True)
class Gaussian(_Quadratic):
    r"""Blocks whose interference function is a Gaussian with the peak and the integral of the parallelepiped's.

    .. math:: |F_\mathrm{latt}|^2 = (N_a N_b N_c)^2 e^{-\pi \sum_i N_i^2 x_i^2}

    The standard deviation along each axis is :math:`1/(N_i \sqrt{2\pi})`.
    """

    fudge: float = 1.0

    def amplitude(self, n_cells: Float[Tensor, "3"]) -> Float[Tensor, ""]:
        """(N_a N_b N_c)^2."""
        return n_cells.prod() ** 2

    def parameters(self, n_cells: Float[Tensor, "3"], reciprocal: Float[Tensor, "3 3"]) -> Float[Tensor, "parameters"]:
        """The diagonal form f N_i^2."""
        return torch.diag(self.fudge * n_cells**2).flatten()

    def _radial(self, t: Tensor) -> tuple[Tensor, Tensor]:
        value = torch.exp(-math.pi * t)
        return value, -math.pi * value


@dataclass(frozen=True)
class Tophat(_ReciprocalWidth):
    """Spots of constant intensity inside t < 0.3969, nothing outside; its slope is zero wherever it exists.

    References: ``-tophat_spots`` in nanoBragg.
    """

    fudge: float = 1.0

    def _radial(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return (t < 0.3969).to(t.dtype), torch.zeros_like(t)


SHAPES: dict[str, type[Square] | type[Round] | type[Gaussian] | type[Gauss] | type[Tophat]] = {
    "square": Square,
    "gaussian": Gaussian,
    "round": Round,
    "gauss": Gauss,
    "tophat": Tophat,
}
"""The shapes by the names that configurations use."""
