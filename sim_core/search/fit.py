"""Fit of many orientations at once to the square roots of the photons, with the closed form."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from ..kernels.spots.sum import Settings, Spots
from .grid import Fits, Target, expected, root
from .orientations import quaternion_matrix, quaternion_product, vector_quaternion

ROWS = 1 << 14
"""Pixels times candidates that are held at a time."""

DIFFERENCE, SPREAD_DIFFERENCE = math.radians(0.02), 0.05
"""Steps of the difference quotients: about each axis [rad], relative of the mosaic spread."""


class Fit:
    """Levenberg-Marquardt on the orientation, the logarithms of mosaic spread and scale of each candidate.

    Args:
        target: The photons.
        spots: What spreads a lattice point in the crystal's frame, without a mosaic spread.
        amplitudes: From :func:`padded_values`.
        settings: Of the sum.
    """

    def __init__(self, target: Target, spots: Spots, amplitudes: Tensor, settings: Settings) -> None:
        self.target = Target(*(x.float() for x in target))
        tensors = {name: getattr(spots, name).float() for name in spots._fields if name != "half_width"}
        self.spots = Spots(**tensors, half_width=None)
        self.amplitudes, self.settings = amplitudes.float(), settings
        self.observed = root(self.target.observed)

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
        return float((root(self.target.background) - self.observed).double().square().sum())

    def best_scale(self, y: Float[Tensor, "m n"]) -> Float[Tensor, "m"]:
        """A few steps of reweighted least squares."""
        excess = self.target.observed - self.target.background
        s = excess.clamp_min(0).sum() / y.sum(-1).clamp_min(1e-30)
        top = s.max()
        for _ in range(6):
            w = 1 / (self.target.background + s[:, None] * y + 0.5)
            s = ((w * y * excess).sum(-1) / (w * y * y).sum(-1).clamp_min(1e-30)).clamp_min(1e-9 * top)
        return s.double()

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
            q, eta, scale = (
                torch.where(good.view(-1, *[1] * (a.ndim - 1)), b, a)
                for a, b in ((q, new_q), (eta, new_eta), (scale, new_scale))
            )
            deviance = torch.where(good, new, deviance)
            damping = torch.where(good, damping / 4, damping * 6)
        return Fits(q, eta, scale, deviance)

    def _step(self, q: Tensor, eta: Tensor, scale: Tensor, inflation: float, damping: Tensor) -> Tensor:
        """Damped Gauss-Newton steps from difference quotients; the scale is solved for beside the others."""
        moves = torch.cat([torch.zeros(1, 3, dtype=q.dtype), DIFFERENCE * torch.eye(3, dtype=q.dtype)])
        turned = quaternion_product(vector_quaternion(moves)[:, None], q)
        spread = eta * (1 + SPREAD_DIFFERENCE)
        y = self._spots(torch.cat([turned.flatten(0, 1), q]), torch.cat([eta.repeat(4), spread]), inflation)
        here, *others = y.view(5, len(q), -1).unbind(0)
        steps = (DIFFERENCE, DIFFERENCE, DIFFERENCE, SPREAD_DIFFERENCE)
        slopes = [(other - here) / step for other, step in zip(others, steps, strict=True)]
        height = scale.float()[:, None]
        z = root(height * here + self.target.background)
        jacobian = (2 * height / z)[..., None] * torch.stack([*slopes, here], -1)
        residual = z - self.observed
        gradient = torch.einsum("mnp,mn->mp", jacobian, residual).double()
        hessian = (jacobian.mT @ jacobian).double()
        diagonal = hessian.diagonal(dim1=1, dim2=2)
        extra = damping[:, None] * diagonal + 1e-9 * diagonal.amax(1, keepdim=True) + 1e-12
        step = -torch.linalg.solve(hessian + torch.diag_embed(extra), gradient)
        limit = step.new_tensor([math.radians(1.5)] * 3 + [0.7, math.inf])
        return step * (limit / step.abs().clamp_min(1e-30)).amin(1, keepdim=True).clamp(max=1)

    def _sum(self, rotations: Tensor, variance: Tensor) -> Tensor:
        return expected(self.target, self.spots, self.amplitudes, self.settings, rotations, variance)

    def _spots(self, q: Tensor, eta: Tensor, inflation: float) -> Tensor:
        return self._sum(quaternion_matrix(q).float(), (eta**2 + inflation**2).float())

    def _deviance(self, y: Tensor, scale: Tensor) -> Tensor:
        mu = scale[:, None].float() * y + self.target.background
        return torch.nan_to_num((root(mu) - self.observed).double().square().sum(-1), nan=torch.inf)

    def _parts(self, x: Tensor) -> tuple[Tensor, ...]:
        return x.split(max(1, ROWS // len(self.target.observed)))
