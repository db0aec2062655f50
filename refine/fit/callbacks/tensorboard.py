"""Convergence in TensorBoard: each curve beside the truth, and the pictures."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter

from refine.fit.callbacks.history import physical
from refine.fit.refinement import RefinementModule


class TensorBoard(L.Callback):
    """Writes scalars every ``log_every`` steps and images every ``image_every``; the truth is a run of its own.

    Args:
        folder: Where the event files go: ``refined`` and ``truth`` below it.
        truth: Known values by label.
        picture: Makes the image [slow, 3 * fast] of observed, calculated and residual from expected photons.
        log_every: Steps between scalars.
        image_every: Steps between pictures.
    """

    def __init__(
        self,
        folder: Path,
        truth: dict[str, float],
        picture: Callable[[torch.Tensor], dict[str, np.ndarray]],
        log_every: int,
        image_every: int,
    ) -> None:
        self.folder, self.truth, self.picture = folder, truth, picture
        self.log_every, self.image_every = log_every, image_every
        self._refined: SummaryWriter | None = None
        self._truth: SummaryWriter | None = None

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Open the event files; a resumed run drops what a killed one wrote after its checkpoint."""
        step = trainer.current_epoch
        self._refined = SummaryWriter(str(self.folder / "refined"), purge_step=step or None)
        self._truth = SummaryWriter(str(self.folder / "truth"), purge_step=step or None)

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the point that the step started from."""
        step = trainer.current_epoch
        if step % self.log_every == 0:
            self._scalars(module, step, float(outputs["loss"]), outputs["before"])
        if step % self.image_every == 0:
            self._pictures(module, step, outputs["before"])

    def finish(self, module: RefinementModule, step: int, loss: float, hparams: dict[str, Any]) -> None:
        """Log the end point, its picture and the settings that led to it."""
        if self._refined is None or self._truth is None:
            return
        self._scalars(module, step, loss, module.refined.vector())
        self._pictures(module, step, module.refined.vector())
        free = set(module.refined.free_labels)
        known = {k: v for k, v in physical(module).items() if k in self.truth and k in free}
        errors = {f"results/error_{k}": v - self.truth[k] for k, v in known.items()}
        self._refined.add_hparams(hparams, {"results/loss": loss, **errors}, run_name="hparams")
        self._refined.close()
        self._truth.close()

    def _scalars(self, module: L.LightningModule, step: int, loss: float, vector: torch.Tensor) -> None:
        assert isinstance(module, RefinementModule) and self._refined and self._truth
        self._refined.add_scalar("loss", loss, step)
        free = {label for name in module.refined.free for label in module.refined.specs[name].labels}
        for label, value in physical(module, vector).items():
            if label not in free:
                continue
            self._refined.add_scalar(f"parameters/{label}", value, step)
            if label in self.truth:
                self._truth.add_scalar(f"parameters/{label}", self.truth[label], step)

    @torch.no_grad()
    def _pictures(self, module: L.LightningModule, step: int, vector: torch.Tensor) -> None:
        assert self._refined
        for name, image in self.picture(module(vector)).items():
            self._refined.add_image(f"images/{name}", image, step, dataformats="HWC")
