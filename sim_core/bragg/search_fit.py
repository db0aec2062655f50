"""Fit of many orientations at once to the square roots of the photons, with the closed form."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from ..kernels.spot_sum import Settings, Spots
from ..rotations import skew
from .orientations import quaternion_matrix, quaternion_product, vector_quaternion
from .search import Fits, Target, expected, root

ROWS = 1 << 15
"""Pixels times candidates that are held at a time."""


class Fit:
    """Levenberg-Marquardt on the orientation, the logarithms of mosaic spread and scale of each candidate.

    Args:
        target: The photons.
        spots: What spreads a lattice point in the crystal's frame, without a mosaic spread.
        amplitudes: From :func:`padded_values`.
        settings: Of the sum.
    """

    def __init__(self, target: Target, spots: Spots, amplitudes: Tensor, settings: Settings) -> None:
        self.target, self.spots, self.amplitudes, self.settings = target, spots, amplitudes, settings
        self.observed = root(target.observed)

    def start(self, rotations: Float[Tensor, "m 4"], mosaic: float, inflation: float) -> Fits:
        """Candidates with the best scale for each."""
        eta = torch.full_like(rotations[:, 0], mosaic)
        scale, deviance = [], []
        for part, e in zip(self._parts(rotations), self._parts(eta), strict=True):
            y = self._spots(part, e, inflation)
            s = self.best_scale(y)
            scale.append(s)
            deviance.append(self._deviance(y, s))
        return Fits(rotations, eta, torch.cat(scale), torch.cat(deviance))

    def null(self) -> float:
        """Deviance of the background alone."""
        return float((root(self.target.background) - self.observed).square().sum())

    def best_scale(self, y: Float[Tensor, "m n"]) -> Float[Tensor, "m"]:
        """A few steps of reweighted least squares."""
        excess = self.target.observed - self.target.background
        s = excess.clamp_min(0).sum() / y.sum(-1).clamp_min(1e-30)
        for _ in range(6):
            w = 1 / (self.target.background + s[:, None] * y + 0.5)
            s = ((w * y * excess).sum(-1) / (w * y * y).sum(-1).clamp_min(1e-30)).clamp_min(1e-9 * s.max())
        return s

    def run(self, fits: Fits, inflation: float, steps: int) -> Fits:
        """A few steps with the mosaic spread inflated by ``inflation`` [rad], in quadrature."""
        parts = [self._run(Fits(*p), inflation, steps) for p in zip(*[self._parts(x) for x in fits], strict=True)]
        return Fits(*[torch.cat(columns) for columns in zip(*parts, strict=True)])

    def _run(self, fits: Fits, inflation: float, steps: int) -> Fits:
        q, eta, scale, _ = fits
        damping = torch.full_like(eta, 1e-2)
        y = self._spots(q, eta, inflation)
        scale = self.best_scale(y)
        deviance = self._deviance(y, scale)
        for _ in range(steps):
            step = self._step(q, eta, scale, inflation, damping)
            new_q = quaternion_product(vector_quaternion(step[:, :3]), q)
            new_eta = (eta * step[:, 3].exp()).clamp(math.radians(0.02), math.radians(2.0))
            y = self._spots(new_q, new_eta, inflation)
            new_scale = self.best_scale(y)
            new = self._deviance(y, new_scale)
            good = new < deviance
            q, eta, scale = (torch.where(good.view(-1, *[1] * (a.ndim - 1)), b, a)
                             for a, b in ((q, new_q), (eta, new_eta), (scale, new_scale)))
            deviance = torch.where(good, new, deviance)
            damping = torch.where(good, damping / 4, damping * 6)
        return Fits(q, eta, scale, deviance)

    def _step(self, q: Tensor, eta: Tensor, scale: Tensor, inflation: float, damping: Tensor) -> Tensor:
        """Damped Gauss-Newton steps; the scale is solved for beside the others."""
        matrices = quaternion_matrix(q)
        eye = torch.eye(3, dtype=q.dtype)

        def photons(v: Tensor) -> tuple[Tensor, Tensor]:
            w = skew(v[:3])
            turned = (eye + w) @ matrices
            variance = (eta * (1 + v[3])) ** 2 + inflation**2
            mu = scale[:, None] * (1 + v[4]) * self._sum(turned, variance) + self.target.background
            z = root(mu)
            return z, z.detach()

        jacobian, z = torch.func.jacfwd(photons, has_aux=True)(q.new_zeros(5))
        residual = z - self.observed
        gradient = torch.einsum("mnp,mn->mp", jacobian, residual)
        hessian = jacobian.mT @ jacobian
        diagonal = hessian.diagonal(dim1=1, dim2=2)
        extra = damping[:, None] * diagonal + 1e-9 * diagonal.amax(1, keepdim=True) + 1e-12
        step = -torch.linalg.solve(hessian + torch.diag_embed(extra), gradient)
        limit = step.new_tensor([math.radians(1.5)] * 3 + [0.7, math.inf])
        return step * (limit / step.abs().clamp_min(1e-30)).amin(1, keepdim=True).clamp(max=1)

    def _sum(self, rotations: Tensor, variance: Tensor) -> Tensor:
        return expected(self.target, self.spots, self.amplitudes, self.settings, rotations, variance)

    def _spots(self, q: Tensor, eta: Tensor, inflation: float) -> Tensor:
        return self._sum(quaternion_matrix(q), eta**2 + inflation**2)

    def _deviance(self, y: Tensor, scale: Tensor) -> Tensor:
        mu = scale[:, None] * y + self.target.background
        return torch.nan_to_num((root(mu) - self.observed).square().sum(-1), nan=torch.inf)

    def _parts(self, x: Tensor) -> tuple[Tensor, ...]:
        return x.split(max(1, ROWS // len(self.target.observed)))
