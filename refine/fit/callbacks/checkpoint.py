"""The checkpoint that a killed run resumes from."""

import json
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint

from refine.errors import required
from refine.fit.refinement import Refinement
from refine.paths import existing_file, replacing
from refine.settings.schema import Settings


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


def fingerprint(settings: Settings, refinement: Refinement) -> dict[str, str]:
    """What must be the same for a checkpoint to be continued."""
    sections = ("crystal", "detector", "beam", "scan", "structure_factors", "simulator", "model", "diffuse")
    parts: dict[str, Any] = {name: getattr(settings, name).model_dump() for name in (*sections, "parameters")}
    parts |= {
        "initial": {n: spec.initial.tolist() for n, spec in refinement.refined.specs.items()},
        "data": [frame.observation.sha256 for frame in refinement.frames],
        "schedule": settings.schedule.model_dump(),
        "loss": settings.loss,
        "optimizer": settings.optimizer.get("_target_"),
        "dtype": settings.dtype,
    }
    return {name: json.dumps(part, sort_keys=True) for name, part in parts.items()}


def resumable(settings: Settings, refinement: Refinement) -> str | None:
    """The checkpoint to resume from, after a look that it belongs to this refinement.

    Raises:
        InputError: if it does not.
    """
    if settings.ckpt_path is None:
        return None
    path = existing_file(settings.ckpt_path, "ckpt_path")
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)["refinement"]
    except Exception:
        raise required(path, "a checkpoint of a refinement", "another kind of file") from None
    for name, value in fingerprint(settings, refinement).items():
        if saved.get(name) != value:
            raise required("ckpt_path", f"a checkpoint of the same {name}", f"another in {path}")
    return str(path)
