"""The LightningModule: a model, its parameters, a loss and an optimizer."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import lightning as L
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from refine.errors import RefinementError
from refine.fit.linear import linear_fit
from refine.fit.losses import Loss
from refine.fit.optimizers import LevenbergMarquardt, NormalEquations
from refine.parameters.parameters import Parameters
from refine.stages.capture import Schedule

FALL = 0.2
"""What a linear parameter keeps of its value, at least, in one step."""


@runtime_checkable
class LinearModel(Protocol):
    """A model that is linear in some of its parameters."""

    linear: tuple[str, ...]

    @property
    def least(self) -> Float[Tensor, "pixels"] | None:
        """Fewest photons that are expected; ``None`` for any."""

    def parts(self, values: dict[str, Tensor]) -> Float[Tensor, "pixels n"]:
        """What each linear parameter multiplies."""

    def prepare(self, values: dict[str, Tensor]) -> None:
        """Choose what depends on the values and carries no derivative."""


class RefinementModule(L.LightningModule):
    """Refines the free parameters of any model against one image; one step of the optimizer is one training step.

    Args:
        model: Maps a dictionary of parameter values to expected photons.
        parameters: What is free, and how far it may go.
        loss: Compares expected with observed photons.
        observed: Photons of the model's pixels.
        make_optimizer: Called with the raw parameters.
        schedule: Stages that come before the loss.
    """

    observed: Tensor

    def __init__(
        self,
        model: nn.Module,
        parameters: Parameters,
        loss: Loss,
        observed: Float[Tensor, "pixels"],
        make_optimizer: Callable[[list[nn.Parameter]], Optimizer],
        schedule: Schedule | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = model
        self.refined = parameters
        self.loss = loss
        self.schedule = schedule
        self.register_buffer("observed", observed.double(), persistent=False)
        self._make_optimizer = make_optimizer

    def configure_optimizers(self) -> Optimizer:
        """The optimizer over the raw vectors of the free parameters."""
        return self._make_optimizer([self.refined.raw[name] for name in self.refined.free])

    def forward(self, vector: Float[Tensor, "free"] | None = None) -> Float[Tensor, "pixels"]:
        """Expected photons at the current values, or at other raw values."""
        photons: Tensor = self.model(self.refined(vector))
        return photons

    def objective(self, vector: Float[Tensor, "free"] | None = None) -> Float[Tensor, ""]:
        """Loss and priors at the current values, or at other raw values."""
        return self.loss.value(self(vector), self.observed) + self.refined.penalty(self.refined(vector))

    @torch.no_grad()
    def loss_at(self, vector: Float[Tensor, "free"]) -> Float[Tensor, ""]:
        """The objective without derivatives; infinite where it is not a number."""
        return torch.nan_to_num(self.objective(vector), nan=torch.inf)

    @torch.no_grad()
    def normal_equations(self, vector: Float[Tensor, "free"]) -> NormalEquations:
        """Objective, gradient and expected curvature from one forward-mode Jacobian.

        Raises:
            RefinementError: if one of them is not finite.
        """
        jacobian, expected = torch.func.jacfwd(lambda v: (self(v),) * 2, has_aux=True)(vector)
        gradient = jacobian.T @ self.loss.slope(expected, self.observed)
        curvature = jacobian.T @ (self.loss.curvature(expected)[:, None] * jacobian)
        prior_gradient, prior_curvature = self.refined.penalty_derivatives(vector)
        value = self.loss.value(expected, self.observed) + self.refined.penalty(self.refined(vector))
        self._check_finite(value, gradient)
        linear = self.refined.where(self.linear)
        if not bool(curvature.diagonal().max() > 0):
            raise RefinementError("the image does not depend on the free parameters")
        return NormalEquations(value, gradient + prior_gradient, curvature + prior_curvature, linear)

    def prepare(self) -> None:
        """Let the model choose what depends on the values and carries no derivative."""
        if isinstance(self.model, LinearModel):
            self.model.prepare(self.refined())

    @property
    def linear(self) -> tuple[str, ...]:
        """Names of the free parameters that the model is linear in and that have no prior."""
        names = self.model.linear if isinstance(self.model, LinearModel) else ()
        return tuple(n for n in names if n in self.refined.raw and self.refined.specs[n].prior is None)

    @torch.no_grad()
    def settle(self, vector: Float[Tensor, "free"]) -> tuple[Float[Tensor, "free"], Float[Tensor, ""]]:
        """Eliminate the linear parameters: minimise the loss in them exactly, all others held.

        None falls below a fifth of its present value: where spots are not yet on top of each other the best scale is
        zero, and nothing would draw them together any more.

        References: variable projection, Golub & Pereyra (1973), SIAM J. Numer. Anal. 10, 413.
        """
        if not isinstance(self.model, LinearModel) or not self.linear:
            return vector, self.loss_at(vector)
        values, names = self.refined(vector), self.model.linear
        parts = self.model.parts(values)
        sizes = [values[n].numel() for n in names]
        start = torch.cat([values[n].reshape(-1) for n in names])
        now = self.refined()
        low, high = self.refined.limits(names)
        low = torch.maximum(low, torch.cat([now[n].reshape(-1) for n in names]) * FALL)
        moves = [n in self.linear for n, size in zip(names, sizes, strict=True) for _ in range(size)]
        start, least = torch.minimum(torch.maximum(start, low), high), self.model.least
        best, loss = linear_fit(parts, self.observed, start, (low, high), moves, self.loss, least)
        found = dict(zip(names, best.split(sizes), strict=True))
        settled = self.refined.replaced(vector, {n: found[n] for n in self.linear})
        return settled, torch.nan_to_num(loss + self.refined.penalty(self.refined(settled)), nan=torch.inf)

    def bounds(self) -> tuple[Float[Tensor, "free"], Float[Tensor, "free"]]:
        """Lowest and highest raw values."""
        return self.refined.bounds()

    def training_step(self, batch: Any, batch_index: int) -> dict[str, Tensor]:
        """One step; returns the loss before it, the loss after it where the step was small, and the largest change."""
        self.prepare()
        if self.schedule is not None and self.schedule.capturing:
            return self._capture_step(self.schedule)
        before = self.refined.vector()
        loss = self._optimize()
        step = (self.refined.vector() - before).abs().max()
        after = self.loss_at(self.refined.vector()) if bool(step < 1e-3) else torch.full_like(step, torch.inf)
        return {"loss": loss.detach(), "before": before, "step": step, "after": after}

    def _capture_step(self, schedule: Schedule) -> dict[str, Tensor]:
        """One step of a stage of the schedule; the loss that is returned is the refinement's own."""
        before = self.refined.vector()
        likelihood = self.loss_at(before)
        model, loss = self.model, self.loss
        self.model, self.loss = schedule.enter(), schedule.loss
        try:
            schedule.capture.prepare(self.refined())
            self._optimize()
        finally:
            self.model, self.loss = model, loss
        step = (self.refined.vector() - before).abs().max()
        optimizer = self.optimizers()
        if schedule.advance(float(step)) and isinstance(optimizer.optimizer, LevenbergMarquardt):  # type: ignore[union-attr]
            optimizer.optimizer.restart()  # type: ignore[union-attr]
        return {
            "loss": likelihood,
            "before": before,
            "step": torch.full_like(step, torch.inf),
            "after": torch.full_like(step, torch.inf),
        }

    def _optimize(self) -> Tensor:
        """One step of the optimizer; returns the loss before it."""
        optimizer = self.optimizers()
        assert not isinstance(optimizer, list)
        second_order = isinstance(optimizer.optimizer, LevenbergMarquardt)
        extra = {"problem": self} if second_order else {}
        loss = optimizer.step(closure=self._closure, **extra)
        self.refined.project()
        return loss.detach()

    def _closure(self) -> Tensor:
        self.zero_grad()
        with torch.enable_grad():
            loss = self.objective()
            self.manual_backward(loss)
        self._check_finite(
            loss.detach(),
            torch.cat([torch.zeros_like(raw) if raw.grad is None else raw.grad for raw in self.refined.raw.values()]),
        )
        return loss.detach()

    def _check_finite(self, loss: Tensor, gradient: Tensor) -> None:
        if not bool(torch.isfinite(loss) & torch.isfinite(gradient).all()):
            values = self.refined()
            where = ", ".join(f"{name} = {values[name].tolist()}" for name in self.refined.free)
            raise RefinementError(f"the loss or its gradient is not finite at {where}")
