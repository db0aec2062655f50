"""When to stop."""

from typing import Any

import lightning as L

STEP = 1e-3
"""Largest last step of a converged parameter, in its own scale."""

LOSS = 1e-6
"""Largest relative change of the loss in the last step of a converged refinement."""


class Convergence(L.Callback):
    """Stops once every parameter's step and the change of the loss are negligible."""

    def __init__(self) -> None:
        self.converged = False
        self.reason = ""

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """A run that resumes after its last step has nothing to do."""
        trainer.should_stop = self.converged

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look at the step that was just taken."""
        step, loss, after = (float(outputs[k]) for k in ("step", "loss", "after"))
        if step < STEP and abs(after - loss) <= LOSS * loss:
            self.converged = True
            change = abs(after - loss) / max(loss, 1e-300)
            self.reason = f"last step {step:.0e} of a parameter's scale, loss changed by {change:.0e} of itself"
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"converged": self.converged, "reason": self.reason}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint."""
        self.converged, self.reason = state_dict["converged"], state_dict["reason"]
