"""Levenberg-Marquardt with expected curvature (Fisher scoring) as a torch optimizer."""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.optim import Optimizer


class NormalEquations(NamedTuple):
    """A quadratic model of the loss in the raw vector of the free parameters.

    ``linear`` marks what the problem settles by itself: such components are neither damped nor capped.
    """

    loss: Float[Tensor, ""]
    gradient: Float[Tensor, "n"]
    curvature: Float[Tensor, "n n"]
    linear: Bool[Tensor, "n"]


@runtime_checkable
class Problem(Protocol):
    """What a second-order optimizer asks of a refinement."""

    def settle(self, vector: Float[Tensor, "n"]) -> tuple[Float[Tensor, "n"], Float[Tensor, ""]]:
        """The point with the best linear parameters for the others as they are, and its loss."""

    def normal_equations(self, vector: Float[Tensor, "n"]) -> NormalEquations:
        """The loss, its gradient and its expected curvature."""

    def bounds(self) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
        """Lowest and highest values."""


class LevenbergMarquardt(Optimizer):
    r"""Damped Newton steps, :math:`(H + \lambda\,\mathrm{diag} H)\,\delta = -g`, each only accepted if the loss falls.

    Parameters must be in natural steps: ``max_step`` caps every component of a step by shortening the whole step.
    A component at a bound that the gradient pushes outwards is held there.

    Args:
        params: Raw parameters, in the order of the problem's vector.
        max_step: Largest change of any component in one step.
        damping: First value of lambda; it falls after a good step and rises after a bad one.
        tries: How often a step may be refused before the point is taken as a minimum.

    References: Marquardt (1963), J. Soc. Ind. Appl. Math. 11, 431; Osborne (1992), Int. Stat. Rev. 60, 99.
    """

    def __init__(
        self, params: Iterable[nn.Parameter], max_step: float = 1.5, damping: float = 1e-3, tries: int = 12
    ) -> None:
        if not 0 < max_step < math.inf or not 0 < damping < math.inf:
            raise ValueError(f"expected finite max_step and damping above zero, got {max_step} and {damping}")
        super().__init__(params, {"max_step": max_step, "damping": damping, "tries": tries})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None, *, problem: Problem | None = None) -> Tensor:  # type: ignore[override]
        """One accepted step, or none where no step lowers the loss.

        Args:
            closure: Not used: a loss alone does not give the curvature.
            problem: Where losses and normal equations come from.

        Returns:
            The loss before the step.

        Raises:
            TypeError: without a problem.
        """
        if problem is None:
            raise TypeError("LevenbergMarquardt.step: expected a problem, got none")
        group = self.param_groups[0]
        here = torch.cat([p.detach().flatten() for p in group["params"]])
        equations = problem.normal_equations(here)
        for _ in range(group["tries"]):
            there = _proposal(here, equations, problem.bounds(), group["damping"], group["max_step"])
            there, loss = problem.settle(there)
            if loss < equations.loss:
                group["damping"] = max(group["damping"] / 5, 1e-9)
                self._assign(there)
                break
            if torch.equal(there, here):
                break
            group["damping"] = min(group["damping"] * 8, 1e9)
        return equations.loss

    def restart(self) -> None:
        """Take the first damping again: for another loss."""
        self.param_groups[0]["damping"] = self.defaults["damping"]

    def _assign(self, vector: Tensor) -> None:
        parameters = self.param_groups[0]["params"]
        for parameter, part in zip(parameters, vector.split([p.numel() for p in parameters]), strict=True):
            parameter.copy_(part.view_as(parameter))


def _proposal(
    here: Tensor, equations: NormalEquations, bounds: tuple[Tensor, Tensor], damping: float, max_step: float
) -> Tensor:
    """The next point: solve for the components that are free to move, cap the step, stay within bounds."""
    low, high = bounds
    gradient, curvature = equations.gradient, equations.curvature
    held = ((here <= low) & (gradient > 0)) | ((here >= high) & (gradient < 0))
    diagonal = curvature.diagonal()
    floor = 1e-12 * diagonal.max().clamp_min(1e-300)
    system = curvature + torch.diag(torch.where(equations.linear, 0.0, damping * diagonal) + floor)
    system = torch.where(held[:, None] | held[None, :], torch.diag(diagonal + floor), system)
    step = -torch.linalg.solve(system, gradient.masked_fill(held, 0.0))
    longest = step.masked_fill(equations.linear, 0.0).abs().max()
    step = step * torch.clamp(max_step / longest.clamp_min(1e-300), max=1.0)
    return torch.minimum(torch.maximum(here + step, low), high)
