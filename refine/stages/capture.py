"""Coarse to fine: stages that pull a distant start in before the likelihood takes over.

In a stage the spots are those of Gaussian blocks in closed form, their mosaic spread inflated, and the square roots of
the photons are compared; only the orientation moves, and the best scale stands in for all else. The stage and the steps
taken in it are buffers, so that a checkpoint holds them.
"""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from refine.data.frames import Several, SeveralImages
from refine.fit.losses import SquareRoot
from refine.parameters.parameters import Parameters
from refine.terms.bragg import BraggModel, build_simulator
from sim_core.bragg.mosaic import quadrature_domains

SETTLED = 1e-2
"""A stage ends early once no parameter moves by more, in its own scale."""


class CaptureModel(nn.Module):
    """Photons of a blurred crystal whose orientation alone is free.

    Args:
        model: The model of the refinement, whose pixels, geometry and background it shares.
        start: Gives the values at which everything but the orientation stays.
        observed: Photons of the model's pixels.
    """

    observed: Tensor

    def __init__(
        self, model: BraggModel, start: Callable[[], dict[str, Tensor]], observed: Float[Tensor, "pixels"]
    ) -> None:
        super().__init__()
        self.model, self.start = model, start
        self.register_buffer("observed", observed.double(), persistent=False)
        crystal = model.settings.crystal.model_copy(update={"shape": "gaussian"})
        factors = model.settings.structure_factors.model_copy(update={"interpolate": False})
        blurred = model.settings.model_copy(update={"crystal": crystal, "structure_factors": factors})
        self.simulator = build_simulator(blurred, "closed_form", quadrature_domains(1), 1)
        self.inflation_deg = 0.0

    def inflate(self, inflation_deg: float) -> None:
        """Set what is added to the mosaic spread, in squares [deg]."""
        self.inflation_deg = inflation_deg

    def values(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The start with the orientation as given and the mosaic spread inflated."""
        start = self.start()
        spread = (start["mosaic_spread_deg"].square() + self.inflation_deg**2).sqrt()
        return {**start, "misset_deg": values["misset_deg"], "mosaic_spread_deg": spread}

    def prepare(self, values: Mapping[str, Tensor]) -> None:
        """Choose how many lattice points reach a pixel."""
        with self._swapped():
            self.model.prepare(self.values(values))

    def forward(self, values: Mapping[str, Tensor]) -> Float[Tensor, "pixels"]:
        """Expected photons with the best scale."""
        inflated = self.values(values)
        with self._swapped():
            parts = self.model.parts(inflated)
        spots = parts[:, 0]
        background = parts[:, 1:] @ inflated["background"].reshape(-1)
        weight = 1 / (self.observed.clamp_min(0) + 1)
        excess = self.observed - background
        scale = (weight * spots * excess).sum() / (weight * spots.square()).sum().clamp_min(1e-300)
        return scale.clamp_min(0) * spots + background

    def _swapped(self) -> "_Swap":
        return _Swap(self.model, self.simulator)


class _Swap:
    """The model with another simulator for a while."""

    def __init__(self, model: BraggModel, simulator: nn.Module) -> None:
        self.model, self.other = model, simulator

    def __enter__(self) -> None:
        self.model.simulator, self.other = self.other, self.model.simulator  # type: ignore[assignment]

    def __exit__(self, *_: object) -> None:
        self.model.simulator, self.other = self.other, self.model.simulator  # type: ignore[assignment]


class SeveralCaptures(Several):
    """The blurred models of several images."""

    def inflate(self, inflation_deg: float) -> None:
        """Set what is added to the mosaic spread, in squares [deg]."""
        for model in self.each:
            model.inflate(inflation_deg)


def blurred(
    model: BraggModel | SeveralImages, parameters: Parameters, observed: Float[Tensor, "pixels"]
) -> CaptureModel | SeveralCaptures:
    """The model of the stages, of one image or several."""

    def start() -> dict[str, Tensor]:
        return parameters(torch.zeros_like(parameters.vector()))

    if isinstance(model, BraggModel):
        return CaptureModel(model, start, observed)
    seen = observed.split([len(one.pixels) for one in model.each])
    starts = [lambda i=i: model.of(start(), i) for i in range(len(seen))]
    return SeveralCaptures([CaptureModel(*one) for one in zip(model.each, starts, seen, strict=True)], model.own)


class Schedule(nn.Module):
    """Where a refinement is in its stages.

    Args:
        capture: The blurred model.
        inflation_deg: Of each stage [deg].
        steps: Most steps of a stage.
    """

    stage: Tensor
    taken: Tensor

    def __init__(self, capture: CaptureModel | SeveralCaptures, inflation_deg: tuple[float, ...], steps: int) -> None:
        super().__init__()
        self.capture = capture
        self.inflation_deg, self.steps = inflation_deg, steps
        self.loss = SquareRoot()
        self.register_buffer("stage", torch.tensor(0))
        self.register_buffer("taken", torch.tensor(0))

    @property
    def capturing(self) -> bool:
        """Whether a stage is left."""
        return int(self.stage) < len(self.inflation_deg)

    def enter(self) -> CaptureModel | SeveralCaptures:
        """The model of the present stage."""
        self.capture.inflate(self.inflation_deg[int(self.stage)])
        return self.capture

    def advance(self, step: float) -> bool:
        """Count a step of the given size (in the parameters' scales); returns whether the stage ended with it."""
        self.taken += 1
        ended = int(self.taken) >= self.steps or step < SETTLED
        if ended:
            self.stage += 1
            self.taken.zero_()
        return ended
