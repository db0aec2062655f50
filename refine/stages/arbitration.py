"""What the model of the refinement itself says of a few orientations."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import nn

from refine.data.frames import Frame
from refine.experiment.builders import tensor
from refine.fit.losses import Loss
from refine.fit.objective import Objective
from refine.fit.optimizers import LevenbergMarquardt
from refine.fit.refinement import Refinement
from refine.parameters.parameters import Parameters
from refine.parameters.spec import ParameterSpec
from refine.terms.model import Model
from refine.threads import one_thread

Misset = tuple[float, float, float]

FIRST, MORE = 2, 8
"""Steps from each orientation, and from those that are still close to the best after them."""

BEHIND, SHARE = 30.0, 0.5
"""How far the loss may lie above the best to be close to it: this much, or this share of what the best leaves."""


MOVED = {"misset_deg": (1.0, None, None), "mosaic_spread_deg": (0.5, 0.01, 10.0), "scale": (None, 0.0, None)}
"""What moves: natural step, lowest and highest value."""


class Solution(NamedTuple):
    """An orientation and what goes with it.

    Attributes:
        misset_deg: Angles about lab x, y, z [deg].
        mosaic_spread_deg: Where a refinement of it may start [deg].
        scale: The same.
        score: Fall of the deviance relative to the background alone, in units of what is left for each point.
    """

    misset_deg: Misset
    mosaic_spread_deg: float
    scale: float
    score: float


@torch.no_grad()
def overlap(frame: Frame) -> float:
    """Cosine between the spots of a model and what an image has above its background: one where they are alike."""
    model, values, observed = frame.model, frame.initial, frame.photons
    assert isinstance(model, Model)
    model.prepare(values)
    columns = model.summed(values, model.sites)
    profile, spots = columns["background"].sum(-1), columns["scale"][:, 0]
    excess = observed - (observed / profile).median().clamp_min(0) * profile
    return float(spots @ excess / (spots.norm() * excess.norm()).clamp_min(1e-300))


@one_thread()
def ranked(frame: Frame, solutions: Sequence[Solution], loss: Loss, background_known: bool = True) -> list[Solution]:
    """Solutions as the likelihood has them, the best first; differences of their scores are those of the loss.

    Orientation, mosaic spread and scale move, and the background unless it is known; all else stays. Those that fall
    behind are not followed.

    Args:
        frame: The image, its model and its values.
        solutions: Where to start.
        loss: A deviance.
        background_known: Whether the background of ``values`` is to be believed.
    """
    free = dict(MOVED) if background_known else MOVED | {"background": (None, 0.0, None)}
    starts = [_Fit(frame, s, loss, free) for s in solutions]
    fits = sorted(starts, key=lambda fit: fit.run(FIRST))
    best = fits[0].loss
    near = [fit for fit in fits if fit.loss - best <= max(BEHIND, SHARE * best)]
    fits = sorted(fits, key=lambda fit: fit.run(MORE) if fit in near else fit.loss)
    left = max(1.0, fits[0].loss / len(frame.photons))
    top = max(s.score for s in solutions)
    return [fit.solution(top - (fit.loss - fits[0].loss) / left) for fit in fits]


class _Fit:
    """A refinement of one solution."""

    def __init__(
        self,
        frame: Frame,
        start: Solution,
        loss: Loss,
        free: Mapping[str, tuple[float | None, float | None, float | None]],
    ) -> None:
        spread = torch.full_like(frame.initial["mosaic_spread_deg"], start.mosaic_spread_deg)
        moved = {"misset_deg": tensor(start.misset_deg), "mosaic_spread_deg": spread, "scale": tensor(start.scale)}
        specs = []
        for name, value in {**frame.initial, **moved}.items():
            scale, lower, upper = free.get(name, (1.0, None, None))
            parts = tuple(str(i) for i in range(value.numel())) if value.ndim else ()
            specs.append(ParameterSpec(name, value.reshape(-1), scale, name in free, lower, upper, components=parts))
        self.parameters = Parameters(specs)
        alone = replace(frame, index=0)
        self.module = Refinement([alone], self.parameters, [Objective([frame.model], loss)])
        raw = [self.parameters.raw[name] for name in self.parameters.free]
        self.optimizer = LevenbergMarquardt(raw)
        self.module.prepare()
        settled, loss_there = self.module.settle(self.parameters.vector())
        nn.utils.vector_to_parameters(settled, raw)
        self.loss = float(loss_there)

    def run(self, steps: int) -> float:
        """A few steps; returns the loss after them."""
        for _ in range(steps):
            self.module.prepare()
            before = self.parameters.vector()
            self.optimizer.step(problem=self.module)
            if float((self.parameters.vector() - before).abs().max()) < 1e-2:
                break
        self.loss = float(self.module.loss_at(self.parameters.vector()))
        return self.loss

    def solution(self, score: float) -> Solution:
        """Where it is now."""
        values = {name: value.detach() for name, value in self.parameters().items()}
        x, y, z = (round(v, 4) for v in values["misset_deg"].tolist())
        return Solution((x, y, z), float(values["mosaic_spread_deg"].mean()), float(values["scale"]), score)
