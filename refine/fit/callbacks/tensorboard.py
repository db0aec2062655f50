"""Convergence in TensorBoard: each curve beside the truth, and the pictures."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter

from refine.fit.callbacks.history import physical
from refine.fit.refinement import Refinement
from refine.parameters.declared import ATOMIC
from refine.settings.schema import Settings


class TensorBoard(L.Callback):
    """Writes scalars every ``log_every`` steps and images every ``image_every``; the truth is a run of its own.

    Args:
        folder: Where the event files go: ``refined`` and ``truth`` below it.
        picture: Makes the image [slow, 3 * fast] of observed, calculated and residual from expected photons.
        log_every: Steps between scalars.
        image_every: Steps between pictures.
    """

    def __init__(
        self,
        folder: Path,
        picture: Callable[[torch.Tensor], dict[str, np.ndarray]],
        log_every: int,
        image_every: int,
    ) -> None:
        self.folder, self.picture = folder, picture
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

    def finish(self, module: Refinement, step: int, loss: float, hparams: dict[str, Any]) -> None:
        """Log the end point, its picture and the settings that led to it."""
        if self._refined is None or self._truth is None:
            return
        self._scalars(module, step, loss, module.refined.vector())
        self._pictures(module, step, module.refined.vector())
        free = {label for label in module.refined.free_labels if not label.startswith(ATOMIC)}
        known = {k: v for k, v in physical(module).items() if k in module.truth and k in free}
        errors = {f"results/error_{k}": v - module.truth[k] for k, v in known.items()}
        self._refined.add_hparams(hparams, {"results/loss": loss, **errors}, run_name="hparams")
        self._refined.close()
        self._truth.close()

    def _scalars(self, module: L.LightningModule, step: int, loss: float, vector: torch.Tensor) -> None:
        assert isinstance(module, Refinement) and self._refined and self._truth
        self._refined.add_scalar("loss", loss, step)
        free = {label for name in module.refined.free for label in module.refined.specs[name].labels}
        for label, value in physical(module, vector).items():
            if label not in free or label.startswith(ATOMIC):
                continue
            self._refined.add_scalar(f"parameters/{label}", value, step)
            if label in module.truth:
                self._truth.add_scalar(f"parameters/{label}", module.truth[label], step)
        for name in ("xyz", "b_atoms"):
            if name in module.refined.free:
                shift = module.refined.table(name, vector) - module.refined.table(name, torch.zeros_like(vector))
                rms = shift.square().mean().sqrt() * (3**0.5 if name == "xyz" else 1)
                self._refined.add_scalar(f"parameters/{name}_rms_shift", float(rms), step)

    @torch.no_grad()
    def _pictures(self, module: L.LightningModule, step: int, vector: torch.Tensor) -> None:
        assert self._refined
        for name, image in self.picture(module(vector)).items():
            self._refined.add_image(f"images/{name}", image, step, dataformats="HWC")


def hparams(settings: Settings) -> dict[str, Any]:
    """The settings that led to a result, flat."""
    flat: dict[str, Any] = {"experiment": settings.experiment_name, "dtype": settings.dtype, "seed": settings.seed}
    flat |= {f"optimizer.{k}": v for k, v in settings.optimizer.items()}
    flat |= {"loss": settings.loss["_target_"], "crystal.mosaic_domains": settings.crystal.mosaic_domains}
    for name, value in settings.initial.model_dump().items():
        if isinstance(value, tuple | list):
            flat |= {f"initial.{name}.{place}": number for place, number in enumerate(value)}
        elif value is not None:
            flat[f"initial.{name}"] = value
    return {k: v if isinstance(v, int | float | str | bool) else str(v) for k, v in flat.items()}
