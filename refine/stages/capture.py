"""Coarse to fine: objectives that pull a distant start in before the likelihood takes over.

In such an objective the spots are those of Gaussian blocks in closed form, their mosaic spread inflated, and the square
roots of the photons are compared; only the orientation moves, and the best scale stands in for all else.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from refine.data.frames import Frame
from refine.fit.losses import SquareRoot
from refine.fit.objective import Objective
from refine.parameters.parameters import Parameters
from refine.settings.terms import Simulator
from refine.terms.bragg import blurred_spots
from refine.terms.model import Model


class CaptureModel(nn.Module):
    """Photons of a blurred crystal whose orientation alone is free.

    Args:
        model: Its geometry and background, with blurred spots.
        start: Values at which everything but the orientation stays.
        observed: Photons of the model's pixels.
        inflation_deg: What is added to the mosaic spread, in squares [deg].
    """

    observed: Tensor

    def __init__(
        self, model: Model, start: Mapping[str, Tensor], observed: Float[Tensor, "pixels"], inflation_deg: float
    ) -> None:
        super().__init__()
        self.model, self.inflation_deg = model, inflation_deg
        self.register_buffer("observed", observed.double(), persistent=False)
        self.names = tuple(start)
        for name, value in start.items():
            self.register_buffer(f"start_{name}", value.detach().clone(), persistent=False)

    def values(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The start with the orientation as given and the mosaic spread inflated."""
        start = {name: getattr(self, f"start_{name}") for name in self.names}
        spread = (start["mosaic_spread_deg"].square() + self.inflation_deg**2).sqrt()
        return {**start, "misset_deg": values["misset_deg"], "mosaic_spread_deg": spread}

    def prepare(self, values: Mapping[str, Tensor]) -> None:
        """Choose how many lattice points reach a pixel."""
        self.model.prepare(self.values(values))

    def forward(self, values: Mapping[str, Tensor]) -> Float[Tensor, "pixels"]:
        """Expected photons with the best scale."""
        inflated = self.values(values)
        parts = self.model.parts(inflated)
        spots = parts[:, 0]
        background = parts[:, 1:] @ torch.cat([inflated[n].reshape(-1) for n in self.model.linear[1:]])
        weight = 1 / (self.observed.clamp_min(0) + 1)
        excess = self.observed - background
        scale = (weight * spots * excess).sum() / (weight * spots.square()).sum().clamp_min(1e-300)
        return scale.clamp_min(0) * spots + background


def captures(
    frames: Sequence[Frame],
    parameters: Parameters,
    simulator: Simulator,
    dtype: torch.dtype,
    inflation_deg: Sequence[float],
    steps: int,
) -> list[Objective]:
    """The objectives before the likelihood: one for each inflation.

    Args:
        frames: What is refined against.
        parameters: Whose start everything but the orientation keeps.
        simulator: The configuration of the spots.
        dtype: Their precision.
        inflation_deg: Of each objective [deg].
        steps: Most steps of one.
    """
    blurred = []
    for frame in frames:
        model, start = frame.model, parameters(frame=frame.index)
        assert isinstance(model, Model)
        terms: dict[str, Any] = {n: t for n, t in model.terms.items() if t.coefficient != "scale"}
        terms = {"spots": blurred_spots(simulator, dtype), **terms}
        whole = Model(model.instrument, model.sample, model.sites, terms, model.planes)
        blurred.append((whole, start, frame.photons))
    return [
        Objective([CaptureModel(*one, degrees) for one in blurred], SquareRoot(), steps) for degrees in inflation_deg
    ]
