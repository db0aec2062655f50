r"""How far a model is from the counts: deviances, zero where the model equals the data.

A loss gives its value, its slope with respect to the model and the expected second derivative (what Fisher scoring
weights pixels by), all as plain functions of expected and observed photons.
"""

import math
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

FLOOR = 1e-6
"""Smallest variance of a pixel [photon^2]: keeps logarithms finite where a model expects nothing at all."""


Expected = Float[Tensor, "pixels"]
Known = Float[Tensor, "pixels"] | None


@runtime_checkable
class Loss(Protocol):
    """A sum over pixels, or points of a map.

    Each takes ``sigma``, the standard uncertainties where the data have some of their own; ``None`` for counts.
    """

    is_likelihood: bool

    def value(self, model: Expected, observed: Expected, sigma: Known = None) -> Float[Tensor, ""]:
        """The loss."""

    def slope(self, model: Expected, observed: Expected, sigma: Known = None) -> Expected:
        """Its derivative with respect to the model."""

    def curvature(self, model: Expected, sigma: Known = None) -> Expected:
        """Its expected second derivative."""


class Gaussian:
    r"""Counts whose variance is the model's: :math:`V(\mu) = \mu + \sigma_\mathrm{readout}^2 + p^2 \mu^2`.

    The deviance of a distribution with this mean and variance, for p = 0

    .. math:: D = 2\sum\int_\mu^n \frac{n - t}{V(t)}\,dt
        = 2\sum (n + \sigma^2)\ln\frac{n + \sigma^2}{\mu + \sigma^2} - (n - \mu),

    is the sum of (n - mu)^2/V for many photons, has the unbiased score (n - mu)/V for few, and never the poles that
    a variance in a denominator brings. Where read-out noise takes n + sigma^2 below zero, the saturated model is zero.
    With p above zero V = p^2 (t + r_1)(t + r_2), and partial fractions make D the difference of two such sums.

    Args:
        readout: Read-out noise [photons, rms].
        proportional: Error p proportional to the expected photons: what a scale or a structure factor leaves over.
        outliers: Residuals beyond so many standard deviations count linearly (Huber's function of the deviance);
            ``None`` for none.

    Raises:
        ValueError: if the two errors are so large that the variance has no real roots, 2 p readout >= 1.

    References: Wedderburn (1974), Biometrika 61, 439; Huber (1964), Ann. Math. Stat. 35, 73.
    """

    is_likelihood = True

    def __init__(self, readout: float = 0.0, proportional: float = 0.0, outliers: float | None = None) -> None:
        self.shift = readout**2 + FLOOR
        self.square = proportional**2
        self.outliers = outliers
        discriminant = 1 - 4 * self.square * self.shift
        if discriminant <= 0 or proportional < 0 or (outliers is not None and not outliers > 0):
            raise ValueError(
                "expected proportional >= 0 with 2 * proportional * readout < 1 and outliers > 0 or null, "
                f"got {proportional}, {readout} and {outliers}"
            )
        root = math.sqrt(discriminant)
        self.gain = 1 / root
        self.roots = (2 * self.shift / (1 + root), (1 + root) / (2 * self.square) if self.square else None)

    def deviance(self, model: Float[Tensor, "pixels"], observed: Float[Tensor, "pixels"]) -> Float[Tensor, "pixels"]:
        """Of each pixel."""
        near, far = self.roots
        terms = _half_deviance(model, observed, near)
        if far is not None:
            terms = terms - _half_deviance(model, observed, far)
        return (2 * self.gain * terms).clamp_min(0.0)

    def value(self, model: Expected, observed: Expected, sigma: Known = None) -> Float[Tensor, ""]:
        """The deviance, with what lies far out counted linearly."""
        terms = self.deviance(model, observed)
        if self.outliers is None:
            return terms.sum()
        limit = self.outliers
        far = terms > limit**2
        linear = 2 * limit * torch.where(far, terms, 1.0).sqrt() - limit**2
        return torch.where(far, linear, terms).sum()

    def slope(self, model: Expected, observed: Expected, sigma: Known = None) -> Expected:
        """Twice the quasi-score with its sign turned."""
        slope = 2 * (model - observed) / self._variance(model)
        if self.outliers is None:
            return slope
        terms = self.deviance(model, observed)
        return slope * torch.clamp(self.outliers / terms.clamp_min(1e-300).sqrt(), max=1.0)

    def curvature(self, model: Expected, sigma: Known = None) -> Expected:
        """Two over the variance."""
        return 2 / self._variance(model)

    def _variance(self, model: Tensor) -> Tensor:
        return model + self.shift + self.square * model.square() if self.square else model + self.shift


def _half_deviance(model: Tensor, observed: Tensor, shift: float) -> Tensor:
    """The integral of (n - t)/(t + shift); through ``r - log(1 + r)``, which keeps its digits near a perfect fit."""
    n, mu = observed + shift, model + shift
    counted = n >= shift
    some = torch.where(counted, n, 1.0)
    r = (mu - some) / some
    below = n * (math.log(shift) - mu.log()) + mu - shift
    return torch.where(counted, some * (r - r.log1p()), below)


class Poisson(Gaussian):
    """Photon counting without read-out noise.

    Args:
        readout: Not used: kept so that losses can be exchanged.
        proportional: As of :class:`Gaussian`.
        outliers: As of :class:`Gaussian`.
    """

    def __init__(self, readout: float = 0.0, proportional: float = 0.0, outliers: float | None = None) -> None:
        super().__init__(0.0, proportional, outliers)


class KnownNoise:
    """Squared residuals over known variances; without uncertainties all points weigh the same, and give none.

    Args:
        known: Whether the data have uncertainties: otherwise this is no likelihood.
    """

    def __init__(self, known: bool = True) -> None:
        self.is_likelihood = known

    def value(self, model: Expected, observed: Expected, sigma: Known = None) -> Float[Tensor, ""]:
        """The sum of the weighted squares."""
        return (self._weight(model, sigma) * (model - observed).square()).sum()

    def slope(self, model: Expected, observed: Expected, sigma: Known = None) -> Expected:
        """Its derivative."""
        return 2 * self._weight(model, sigma) * (model - observed)

    def curvature(self, model: Expected, sigma: Known = None) -> Expected:
        """Constant."""
        return 2 * self._weight(model, sigma)

    def _weight(self, model: Tensor, sigma: Known) -> Tensor:
        return torch.ones_like(model) if sigma is None else sigma.square().reciprocal().to(model)


class MeanSquare:
    """Mean squared residual; no likelihood, so it gives no uncertainties.

    Args:
        readout: Not used: kept so that losses can be exchanged.
        points: Of all data together, of which a call may see a part; ``None`` where each call sees all of them.
    """

    is_likelihood = False

    def __init__(self, readout: float = 0.0, points: int | None = None) -> None:
        del readout
        self.points = points

    def value(self, model: Expected, observed: Expected, sigma: Known = None) -> Float[Tensor, ""]:
        """Squared residuals over the number of points: they add up to their mean."""
        return (model - observed).square().sum() / (self.points or len(model))

    def slope(self, model: Expected, observed: Expected, sigma: Known = None) -> Expected:
        """Its derivative."""
        return 2 * (model - observed) / (self.points or len(model))

    def curvature(self, model: Expected, sigma: Known = None) -> Expected:
        """Constant."""
        return torch.full_like(model, 2 / (self.points or len(model)))


class SquareRoot:
    r"""Squared differences of :math:`2\sqrt{n + 3/8}`, which gives Poisson counts the variance one.

    Strong spots do not drown weak ones, which makes it a robust guide from far away; it is no likelihood.

    References: Anscombe (1948), Biometrika 35, 246.
    """

    is_likelihood = False

    def value(self, model: Expected, observed: Expected, sigma: Known = None) -> Float[Tensor, ""]:
        """The sum of squares."""
        return (_root(model) - _root(observed)).square().sum()

    def slope(self, model: Expected, observed: Expected, sigma: Known = None) -> Expected:
        """Its derivative."""
        z = _root(model)
        return 4 * (z - _root(observed)) / z

    def curvature(self, model: Expected, sigma: Known = None) -> Expected:
        """Eight over the squared root."""
        return 8 / _root(model).square()


def _root(photons: Tensor) -> Tensor:
    return 2 * (photons.clamp_min(0) + 0.375).sqrt()
