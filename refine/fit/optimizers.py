"""Levenberg-Marquardt with expected curvature (Fisher scoring) as a torch optimizer."""

import math
from collections.abc import Callable, Iterable
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from refine.fit.normal_equations import NormalEquations

FARTHEST = 8
"""How many times ``max_step`` a step may be at most."""

PROMISED = 0.5
"""Share of the predicted fall of the loss from which on the prediction is trusted farther out."""

NEAR, APART = 0.5, 0.2
"""The observed curvature counts along steps up to this length, where it differs by this share or more."""


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

    Parameters must be in natural steps: no component of a step is longer than a reach, or the whole step is shortened.
    The reach begins at ``max_step`` and doubles whenever a shortened step lowers the loss as predicted.
    A component at a bound that the gradient pushes outwards is held there.

    Where few photons leave large residuals, the expected curvature may be wrong by a factor, and steps would shrink
    only in proportion. So near the end it is made to agree with the change of the gradient over the last step.

    Args:
        params: Raw parameters, in the order of the problem's vector.
        max_step: Largest change of any component in the first step.
        damping: First value of lambda; it falls after a good step and rises after a bad one.
        tries: How often a step may be refused before the point is taken as a minimum.

    References: Marquardt (1963), J. Soc. Ind. Appl. Math. 11, 431; Osborne (1992), Int. Stat. Rev. 60, 99; Dennis, Gay
        & Welsch (1981), ACM Trans. Math. Softw. 7, 348.
    """

    def __init__(
        self, params: Iterable[nn.Parameter], max_step: float = 1.5, damping: float = 1e-3, tries: int = 12
    ) -> None:
        if not 0 < max_step < math.inf or not 0 < damping < math.inf:
            raise ValueError(f"expected finite max_step and damping above zero, got {max_step} and {damping}")
        super().__init__(params, {"max_step": max_step, "reach": max_step, "damping": damping, "tries": tries})

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
        equations = self._with_memory(here, problem.normal_equations(here))
        for _ in range(group["tries"]):
            proposed, shortened = _proposal(here, equations, problem.bounds(), group["damping"], group["reach"])
            there, loss = problem.settle(proposed)
            if loss < equations.loss:
                group["damping"] = max(group["damping"] / 5, 1e-9)
                if shortened and equations.loss - loss > PROMISED * _predicted(equations, there - here):
                    group["reach"] = min(2 * group["reach"], FARTHEST * group["max_step"])
                self._assign(there)
                break
            if torch.equal(there, here):
                break
            group["damping"] = min(group["damping"] * 8, 1e9)
            group["reach"] = max(group["reach"] / 2, group["max_step"])
        return equations.loss

    def restart(self) -> None:
        """Forget what the steps before taught: for another loss."""
        self.state.clear()
        self.param_groups[0].update({name: self.defaults[name] for name in ("damping", "reach")})

    def _with_memory(self, here: Tensor, equations: NormalEquations) -> NormalEquations:
        """Curvature that agrees with the last step where that was short: a Broyden-Fletcher-Goldfarb-Shanno update."""
        memory = self.state[self.param_groups[0]["params"][0]]
        curvature = equations.curvature
        if memory:
            step, change = here - memory["point"], equations.gradient - memory["gradient"]
            bent = curvature @ step
            expected, observed = step @ bent, step @ change
            differs = bool((observed - expected).abs() > APART * expected) and bool(observed > expected / 10)
            if differs and bool(step.abs().max() < NEAR):
                curvature = curvature + torch.outer(change, change) / observed - torch.outer(bent, bent) / expected
        memory.update(point=here, gradient=equations.gradient)
        return equations._replace(curvature=curvature)

    def _assign(self, vector: Tensor) -> None:
        parameters = self.param_groups[0]["params"]
        for parameter, part in zip(parameters, vector.split([p.numel() for p in parameters]), strict=True):
            parameter.copy_(part.view_as(parameter))


def _proposal(
    here: Tensor, equations: NormalEquations, bounds: tuple[Tensor, Tensor], damping: float, reach: float
) -> tuple[Tensor, bool]:
    """The next point, and whether it was shortened: solve for what is free to move, cap, stay within bounds."""
    low, high = bounds
    gradient, curvature = equations.gradient, equations.curvature
    held = ((here <= low) & (gradient > 0)) | ((here >= high) & (gradient < 0))
    diagonal = curvature.diagonal()
    floor = 1e-12 * diagonal.max().clamp_min(1e-300)
    system = curvature + torch.diag(torch.where(equations.linear, 0.0, damping * diagonal) + floor)
    system = torch.where(held[:, None] | held[None, :], torch.diag(diagonal + floor), system)
    step = -torch.linalg.solve(system, gradient.masked_fill(held, 0.0))
    longest = step.masked_fill(equations.linear, 0.0).abs().max()
    step = step * torch.clamp(reach / longest.clamp_min(1e-300), max=1.0)
    return torch.minimum(torch.maximum(here + step, low), high), bool(longest > reach)


def _predicted(equations: NormalEquations, step: Tensor) -> Tensor:
    """How far the quadratic model falls over a step."""
    return -(equations.gradient @ step + step @ equations.curvature @ step / 2)
