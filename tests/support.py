"""What several test modules use."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from refine.fit.losses import Loss
    from refine.fit.refinement import Refinement
    from refine.parameters.parameters import Parameters

REPOSITORY = Path(__file__).parents[1]
SHARED = REPOSITORY.parent / "shared"


def tensor(values: object) -> torch.Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def refinement(
    model: torch.nn.Module,
    parameters: "Parameters",
    loss: "Loss",
    photons: torch.Tensor,
    sigma: torch.Tensor | None = None,
) -> "Refinement":
    """One frame of a model against photons."""
    from refine.data.frames import Frame
    from refine.data.observation import Observation
    from refine.fit.objective import Objective
    from refine.fit.refinement import Refinement

    return Refinement([Frame(0, model, Observation(photons, sigma))], parameters, [Objective([model], loss)])
