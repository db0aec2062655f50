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


@runtime_checkable
class Loss(Protocol):
    """A sum over pixels."""

    is_likelihood: bool

    def value(self, model: Float[Tensor, "pixels"], observed: Float[Tensor, "pixels"]) -> Float[Tensor, ""]:
        """The loss."""

    def slope(self, model: Float[Tensor, "pixels"], observed: Float[Tensor, "pixels"]) -> Float[Tensor, "pixels"]:
        """Its derivative with respect to the model."""

    def curvature(self, model: Float[Tensor, "pixels"]) -> Float[Tensor, "pixels"]:
        """Its expected second derivative."""


class Gaussian:
    r"""Counts whose variance is the model's: :math:`V(\mu) = \mu + \sigma_\mathrm{readout}^2`.

    The deviance of a distribution with this mean and variance,

    .. math:: D = 2\sum\int_\mu^n \frac{n - t}{V(t)}\,dt
        = 2\sum (n + \sigma^2)\ln\frac{n + \sigma^2}{\mu + \sigma^2} - (n - \mu),

    is the sum of (n - mu)^2/V for many photons, has the unbiased score (n - mu)/V for few, and never the poles that
    a variance in a denominator brings. Where read-out noise takes n + sigma^2 below zero, the saturated model is zero.

    Args:
        readout: Read-out noise [photons, rms].

    References: Wedderburn (1974), Biometrika 61, 439.
    """

    is_likelihood = True

    def __init__(self, readout: float = 0.0) -> None:
        self.shift = readout**2 + FLOOR

    def value(self, model: Float[Tensor, "pixels"], observed: Float[Tensor, "pixels"]) -> Float[Tensor, ""]:
        """The deviance; through ``r - log(1 + r)``, which keeps its digits near a perfect fit."""
        n, mu = observed + self.shift, model + self.shift
        counted = n >= self.shift
        some = torch.where(counted, n, 1.0)
        r = (mu - some) / some
        below = n * (math.log(self.shift) - mu.log()) + mu - self.shift
        return 2 * torch.where(counted, some * (r - r.log1p()), below).sum().clamp_min(0.0)

    def slope(self, model: Float[Tensor, "pixels"], observed: Float[Tensor, "pixels"]) -> Float[Tensor, "pixels"]:
        """Twice the quasi-score with its sign turned."""
        return 2 * (model - observed) / (model + self.shift)

    def curvature(self, model: Float[Tensor, "pixels"]) -> Float[Tensor, "pixels"]:
        """Two over the variance."""
        return 2 / (model + self.shift)


class Poisson(Gaussian):
    """Photon counting without read-out noise.

    Args:
        readout: Not used: kept so that losses can be exchanged.
    """

    def __init__(self, readout: float = 0.0) -> None:
        super().__init__(0.0)


class KnownNoise:
    """Squared residuals over known variances.

    Args:
        sigma: Standard uncertainty of each point.
    """

    is_likelihood = True

    def __init__(self, sigma: Float[Tensor, "pixels"]) -> None:
        self.weight = sigma.square().reciprocal()

    def value(self, model: Float[Tensor, "pixels"], observed: Float[Tensor, "pixels"]) -> Float[Tensor, ""]:
        """The sum of the weighted squares."""
        return (self.weight.to(model) * (model - observed).square()).sum()

    def slope(self, model: Float[Tensor, "pixels"], observed: Float[Tensor, "pixels"]) -> Float[Tensor, "pixels"]:
        """Its derivative."""
        return 2 * self.weight.to(model) * (model - observed)

    def curvature(self, model: Float[Tensor, "pixels"]) -> Float[Tensor, "pixels"]:
        """Constant."""
        return 2 * self.weight.to(model)


class MeanSquare:
    """Mean squared residual; no likelihood, so it gives no uncertainties.

    Args:
        readout: Not used: kept so that losses can be exchanged.
    """

    is_likelihood = False

    def __init__(self, readout: float = 0.0) -> None:
        del readout

    def value(self, model: Float[Tensor, "pixels"], observed: Float[Tensor, "pixels"]) -> Float[Tensor, ""]:
        """The mean of the squared residuals."""
        return (model - observed).square().mean()

    def slope(self, model: Float[Tensor, "pixels"], observed: Float[Tensor, "pixels"]) -> Float[Tensor, "pixels"]:
        """Its derivative."""
        return 2 * (model - observed) / len(model)

    def curvature(self, model: Float[Tensor, "pixels"]) -> Float[Tensor, "pixels"]:
        """Constant."""
        return torch.full_like(model, 2 / len(model))
