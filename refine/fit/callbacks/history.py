"""The loss and every parameter at every step."""

import csv
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch

from refine.fit.refinement import Refinement
from refine.paths import replacing


class History(L.Callback):
    """Rows of step, loss, parameters in their units and seconds, kept in checkpoints and written as CSV.

    Args:
        path: The CSV file.
        start: When the run began (``time.perf_counter``).
    """

    def __init__(self, path: Path, start: float) -> None:
        self.path = path
        self.rows: list[dict[str, int | float]] = []
        self._start = start
        self._before = 0.0

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Record the point that the step started from."""
        assert isinstance(module, Refinement)
        self.add(module, len(self.rows), float(outputs["loss"]), outputs["before"])

    @torch.no_grad()
    def add(self, module: Refinement, step: int, loss: float, vector: torch.Tensor) -> None:
        """Record a point of the parameters' space."""
        row = {"step": step, "loss": loss, **physical(module, vector), "wall_s": self.wall}
        self.rows.append(row)

    @property
    def wall(self) -> float:
        """Seconds since the start, those of earlier parts of a resumed run included."""
        return self._before + time.perf_counter() - self._start

    def write(self) -> None:
        """Write the CSV file, whole or not at all."""
        if not self.rows:
            return
        with replacing(self.path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(self.rows[0]))
            writer.writeheader()
            writer.writerows(self.rows)

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Keep the file up to date."""
        self.write()

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"rows": self.rows, "wall": self.wall}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint."""
        self.rows, self._before = list(state_dict["rows"]), state_dict["wall"]
        self._start = time.perf_counter()


@torch.no_grad()
def physical(module: Refinement, vector: torch.Tensor | None = None) -> dict[str, float]:
    """Every scalar parameter by its label, in its unit."""
    tables = {name: module.refined.table(name, vector) for name in module.refined.specs}
    return {
        label: number
        for name, table in tables.items()
        for label, number in zip(module.refined.specs[name].labels, table.flatten().tolist(), strict=True)
    }
