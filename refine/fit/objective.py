"""What is minimised for a while."""

from collections.abc import Sequence

from torch import nn

from refine.fit.losses import Loss


class Objective(nn.Module):
    """A model of each frame and the loss that compares it with the data.

    Args:
        models: Maps values of a frame's parameters to expected photons, one for each frame.
        loss: How model and data are compared.
        steps: Steps at most before the next objective; ``None`` for the last one, which ends by convergence.
    """

    def __init__(self, models: Sequence[nn.Module], loss: Loss, steps: int | None = None) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)
        self.loss = loss
        self.steps = steps

    @property
    def linear(self) -> tuple[str, ...]:
        """Parameters that all models are linear in; none where one of them is not."""
        return getattr(self.models[0], "linear", ()) if all(hasattr(m, "parts") for m in self.models) else ()
