"""What the loop of a refinement needs to know, whatever it refines against."""

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import lightning as L
import numpy as np
from rich.console import Console
from torch import Tensor, nn

from refine.data.observation import Observation
from refine.fit.callbacks.history import History
from refine.fit.losses import Loss
from refine.fit.refinement import RefinementModule
from refine.parameters.parameters import Parameters
from refine.settings.schema import Settings


@runtime_checkable
class Refinable(Protocol):
    """Data, model and parameters."""

    @property
    def settings(self) -> Settings:
        """The configuration."""

    @property
    def observation(self) -> Observation:
        """What is compared with."""

    @property
    def model(self) -> nn.Module:
        """Maps values of the parameters to what is expected."""

    @property
    def parameters(self) -> Parameters:
        """What is refined."""

    @property
    def truth(self) -> dict[str, float]:
        """Known values by label."""


@runtime_checkable
class Data(Protocol):
    """A kind of data: a problem, and how its results look."""

    callbacks: tuple[L.Callback, ...]

    @property
    def problem(self) -> Refinable:
        """What is refined."""

    def loss(self) -> Loss:
        """How model and data are compared."""

    def picture(self, expected: Tensor) -> dict[str, np.ndarray]:
        """Coloured images for TensorBoard of what the model expects where there are data."""

    def calculated(self, module: RefinementModule) -> Any:
        """What the start expects, for the report."""

    def described(self, module: RefinementModule) -> dict[str, Any]:
        """Entries of results.json of this kind."""

    def leave(
        self, module: RefinementModule, history: History, results: dict[str, Any], before: Any, folder: Path
    ) -> None:
        """Write files beside results.json."""

    def show(self, console: Console, results: dict[str, Any]) -> None:
        """Print the closing table."""

    def remark(self, console: Console, results: dict[str, Any]) -> None:
        """Print what follows the verdict."""
