"""What several test modules use."""

from pathlib import Path

import torch

REPOSITORY = Path(__file__).parents[1]
SHARED = REPOSITORY.parent / "shared"


def tensor(values: object) -> torch.Tensor:
    return torch.as_tensor(values, dtype=torch.float64)
