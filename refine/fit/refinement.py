"""The LightningModule: frames with their models, parameters, objectives and an optimizer."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import lightning as L
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from refine.data.frames import Frame
from refine.errors import RefinementError
from refine.fit.linear import Block, linear_fit
from refine.fit.losses import Loss
from refine.fit.normal_equations import NormalEquations, Sums, row_blocks
from refine.fit.objective import Objective
from refine.fit.optimizers import LevenbergMarquardt
from refine.parameters.parameters import Parameters

FALL = 0.2
"""What a linear parameter keeps of its value, at least, in one step."""

SETTLED = 1e-2
"""An objective that is not the last ends early once no parameter moves by more, in its own scale."""


class Seen(nn.Module):
    """The data of one frame, on the module's device."""

    photons: Tensor
    sigma: Tensor | None

    def __init__(self, frame: Frame) -> None:
        super().__init__()
        sigma = frame.observation.sigma
        self.register_buffer("photons", frame.observation.photons.double(), persistent=False)
        self.register_buffer("sigma", None if sigma is None else sigma.double(), persistent=False)

    def rows(self, rows: slice) -> tuple[Tensor, Tensor | None]:
        """Some of them, and their standard uncertainties."""
        return self.photons[rows], None if self.sigma is None else self.sigma[rows]


class Refinement(L.LightningModule):
    """Refines free parameters against frames; one step of the optimizer is one training step.

    Args:
        frames: What is refined against.
        parameters: What is free, and how far it may go.
        objectives: What is minimised, one after the other; the last compares the frames' own models with the data.
        make_optimizer: Called with the raw parameters.
        truth: Known values by label.
        notes: What the data cannot determine, known beforehand.
    """

    current: Tensor
    taken: Tensor

    def __init__(
        self,
        frames: Sequence[Frame],
        parameters: Parameters,
        objectives: Sequence[Objective],
        make_optimizer: Callable[[list[nn.Parameter]], Optimizer] = LevenbergMarquardt,
        truth: Mapping[str, float] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.frames, self.truth, self.notes = list(frames), dict(truth or {}), list(notes)
        self.refined = parameters
        self.objectives = nn.ModuleList(objectives)
        self.seen = nn.ModuleList([Seen(frame) for frame in frames])
        self.register_buffer("current", torch.tensor(0))
        self.register_buffer("taken", torch.tensor(0))
        self._make_optimizer = make_optimizer

    @property
    def likelihood(self) -> Objective:
        """The last objective."""
        objective: Objective = self.objectives[-1]  # type: ignore[assignment]
        return objective

    @property
    def objective(self) -> Objective:
        """The present objective."""
        objective: Objective = self.objectives[int(self.current)]  # type: ignore[assignment]
        return objective

    @property
    def loss(self) -> Loss:
        """That of the last objective."""
        return self.likelihood.loss

    @property
    def observed(self) -> Float[Tensor, "n"]:
        """The data of all frames, one after the other."""
        return torch.cat([seen.photons for seen in self.seen])  # type: ignore[misc]

    def configure_optimizers(self) -> Optimizer:
        """The optimizer over the raw values of the free parameters."""
        return self._make_optimizer([self.refined.raw[name] for name in self.refined.free])

    def expected(
        self, vector: Float[Tensor, "free"] | None = None, objective: Objective | None = None
    ) -> list[Float[Tensor, "n"]]:
        """Expected photons of each frame at the current values, or at other raw values."""
        models = (objective or self.likelihood).models
        return [model(self.refined(vector, frame.index)) for model, frame in zip(models, self.frames, strict=True)]

    def forward(self, vector: Float[Tensor, "free"] | None = None) -> Float[Tensor, "n"]:
        """Expected photons of all frames, one after the other."""
        return torch.cat(self.expected(vector))

    def value(
        self, vector: Float[Tensor, "free"] | None = None, objective: Objective | None = None
    ) -> Float[Tensor, ""]:
        """Loss and priors of an objective, the present one by default."""
        objective = objective or self.objective
        losses = [
            objective.loss.value(photons, seen.photons, seen.sigma)  # type: ignore[arg-type]
            for photons, seen in zip(self.expected(vector, objective), self.seen, strict=True)
        ]
        return torch.stack(losses).sum() + self.refined.penalty(vector)

    @torch.no_grad()
    def loss_at(self, vector: Float[Tensor, "free"], objective: Objective | None = None) -> Float[Tensor, ""]:
        """The objective without derivatives; infinite where it is not a number."""
        return torch.nan_to_num(self.value(vector, objective), nan=torch.inf)

    def _pieces(self) -> Iterator[tuple[Frame, nn.Module, Seen]]:
        models = self.objective.models
        yield from zip(self.frames, models, self.seen, strict=True)

    @torch.no_grad()
    def normal_equations(self, vector: Float[Tensor, "free"]) -> NormalEquations:
        """Objective, gradient and expected curvature, over frames and blocks of their sites.

        A frame is only differentiated in the directions that it depends on.

        Raises:
            RefinementError: if one of them is not finite.
        """
        total = Sums.like(vector)
        for frame, model, seen in self._pieces():
            columns = self.refined.columns(frame.index)
            whole = getattr(model, "whole", True)
            for rows in row_blocks(len(seen.photons), len(columns), whole):
                more = () if whole else (model.sites[rows],)  # type: ignore[index]

                def expect(v: Tensor, frame: Frame = frame, model: nn.Module = model, more: Any = more) -> Tensor:
                    photons: Tensor = model(self.refined(v, frame.index), *more)
                    return photons

                total.add(expect, vector, columns, *seen.rows(rows), self.objective.loss)
        prior_gradient, prior_curvature = self.refined.penalty_derivatives(vector)
        value = total.loss + self.refined.penalty(vector)
        self._check_finite(value, total.gradient)
        if not bool(total.curvature.diagonal().max() > 0):
            raise RefinementError("the image does not depend on the free parameters")
        linear = self.refined.where(self.linear)
        return NormalEquations(value, total.gradient + prior_gradient, total.curvature + prior_curvature, linear)

    @torch.no_grad()
    def prepare(self, objective: Objective | None = None) -> None:
        """Let the models of an objective, the last by default, choose what carries no derivative."""
        for frame, model in zip(self.frames, (objective or self.likelihood).models, strict=True):
            if hasattr(model, "prepare"):
                model.prepare(self.refined(frame=frame.index))  # type: ignore[operator]

    @property
    def linear(self) -> tuple[str, ...]:
        """Names of the free parameters that all models are linear in and that have no prior."""
        names = self.objective.linear
        return tuple(n for n in names if n in self.refined.raw and self.refined.specs[n].prior is None)

    @torch.no_grad()
    def settle(self, vector: Float[Tensor, "free"]) -> tuple[Float[Tensor, "free"], Float[Tensor, ""]]:
        """Eliminate the linear parameters: minimise the loss in them exactly, all others held.

        None falls below a fifth of its present value: where spots are not yet on top of each other the best scale is
        zero, and nothing would draw them together any more.

        References: variable projection, Golub & Pereyra (1973), SIAM J. Numer. Anal. 10, 413.
        """
        names = self.objective.linear
        if not self.linear:
            return vector, self.loss_at(vector)
        tables = {n: self.refined.table(n, vector) for n in names}
        places, start = {}, 0
        for name, table in tables.items():
            places[name] = torch.arange(start, start + table.numel(), device=table.device).view(table.shape)
            start += table.numel()
        blocks = []
        for frame, model, seen in self._pieces():
            own = [places[n][frame.index] if self.refined.specs[n].own else places[n] for n in names]
            parts = model.parts(self.refined(vector, frame.index))  # type: ignore[operator]
            blocks.append(Block(parts, torch.cat(own), seen.photons, seen.sigma, model.least()))  # type: ignore[operator]
        limits = [torch.cat([self.refined.limits(n)[side].flatten() for n in names]) for side in (0, 1)]
        now = torch.cat([self.refined.table(n).flatten() for n in names])
        low = torch.maximum(limits[0], now * FALL)
        first = torch.cat([t.flatten() for t in tables.values()])
        moves = torch.cat([torch.full_like(t, n in self.linear, dtype=torch.bool).flatten() for n, t in tables.items()])
        first = torch.where(moves, torch.minimum(torch.maximum(first, low), limits[1]), first)
        best, loss = linear_fit(blocks, first, (low, limits[1]), moves, self.objective.loss)
        found = {n: best[places[n]] for n in self.linear}
        settled = self.refined.replaced(vector, found)
        return settled, torch.nan_to_num(loss + self.refined.penalty(settled), nan=torch.inf)

    def bounds(self) -> tuple[Float[Tensor, "free"], Float[Tensor, "free"]]:
        """Lowest and highest raw values."""
        return self.refined.bounds()

    def training_step(self, batch: Any, batch_index: int) -> dict[str, Tensor]:
        """One step; returns the last objective's loss before it, after it where the step was small, and its size.

        The size is infinite while another objective than the last is minimised: that is no convergence.
        """
        self.prepare()
        before, last = self.refined.vector(), self.objective.steps is None
        likelihood = None if last else self.loss_at(before, self.likelihood)
        if not last:
            self.prepare(self.objective)
        loss = self._optimize()
        step = (self.refined.vector() - before).abs().max()
        after = torch.full_like(step, torch.inf)
        if likelihood is not None:
            self._advance(float(step))
            return {"loss": likelihood, "before": before, "step": after, "after": after}
        if bool(step < 1e-3):
            after = self.loss_at(self.refined.vector())
        return {"loss": loss.detach(), "before": before, "step": step, "after": after}

    def _advance(self, step: float) -> None:
        """Count a step of the present objective; go on to the next one where it ended with it."""
        steps = self.objective.steps
        assert steps is not None
        self.taken += 1
        if int(self.taken) < steps and step >= SETTLED:
            return
        self.current += 1
        self.taken.zero_()
        optimizer = self.optimizers()
        if isinstance(optimizer.optimizer, LevenbergMarquardt):  # type: ignore[union-attr]
            optimizer.optimizer.restart()  # type: ignore[union-attr]

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
            loss = self.value()
            self.manual_backward(loss)
        slopes = [torch.zeros_like(raw) if raw.grad is None else raw.grad for raw in self.refined.raw.values()]
        self._check_finite(loss.detach(), torch.cat([slope.flatten() for slope in slopes]))
        return loss.detach()

    def _check_finite(self, loss: Tensor, gradient: Tensor) -> None:
        if not bool(torch.isfinite(loss) & torch.isfinite(gradient).all()):
            where = ", ".join(f"{name} = {self.refined.table(name).tolist()}" for name in self.refined.free)
            raise RefinementError(f"the loss or its gradient is not finite at {where}")
