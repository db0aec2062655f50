"""The checkpoint that a killed run resumes from."""

from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from refine.paths import replacing


class LastCheckpoint(Checkpoint):
    """Writes ``last.ckpt`` every k steps and at the end, beside its place first, so that it is never half-written.

    Args:
        folder: Where checkpoints go.
        every: Steps between checkpoints.
        fingerprint: What a refinement that resumes must have in common with this one.
    """

    def __init__(self, folder: Path, every: int, fingerprint: dict[str, str]) -> None:
        self.path = folder / "last.ckpt"
        self.every = every
        self.fingerprint = fingerprint

    def on_save_checkpoint(self, trainer: L.Trainer, module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Say which refinement this is."""
        checkpoint["refinement"] = self.fingerprint

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Save where it is due."""
        last = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        if last or (trainer.current_epoch + 1) % self.every == 0:
            with replacing(self.path) as temporary:
                trainer.save_checkpoint(temporary)
