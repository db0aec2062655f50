"""What a refinement shows and leaves, whatever it refines against."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from refine.fit.callbacks import History
from refine.fit.refinement import Refinement
from refine.settings.schema import Settings
from refine.terms.model import Model


class Report(ABC):
    """A kind of data, and how its results look.

    Args:
        settings: The configuration.
        refinement: What is refined.
    """

    def __init__(self, settings: Settings, refinement: Refinement) -> None:
        self.settings, self.refinement = settings, refinement

    @property
    def models(self) -> list[Model]:
        """The models of the frames."""
        return [frame.model for frame in self.refinement.frames]  # type: ignore[misc]

    @property
    def evaluations(self) -> int:
        """Terms of all sums."""
        return sum(model.evaluations for model in self.models)

    def begin(self, console: Console) -> None:
        """Say what is known before the fit."""
        for note in self.refinement.notes:
            console.print(f"note: {note}", soft_wrap=True)

    @abstractmethod
    def picture(self, expected: Tensor) -> dict[str, np.ndarray]:
        """Coloured images for TensorBoard of what the models expect where there are data."""

    @abstractmethod
    def calculated(self) -> Any:
        """What the start expects, for the report."""

    @abstractmethod
    def entries(self) -> dict[str, Any]:
        """Entries of results.json of this kind."""

    @abstractmethod
    def leave(self, history: History, results: dict[str, Any], before: Any, folder: Path) -> None:
        """Write files beside results.json."""

    @abstractmethod
    def show(self, console: Console, results: dict[str, Any]) -> None:
        """Print the closing table."""

    def remark(self, console: Console, results: dict[str, Any]) -> None:
        """Print what follows the verdict: nothing more."""
        return

    @property
    def title(self) -> str:
        """What was run."""
        return self.settings.experiment_name

    def start(self) -> Tensor:
        """The raw vector of the start."""
        return torch.zeros_like(self.refinement.refined.vector())
