"""One line that grows with the steps."""

from typing import Any

import lightning as L
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


class StepProgress(L.Callback):
    """A progress bar with the loss."""

    def __init__(self) -> None:
        columns = [TextColumn("refining"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]
        self._bar = Progress(*columns, TextColumn("{task.fields[state]}"), transient=False)
        self._task: Any = None

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Show the bar."""
        self._task = self._bar.add_task("", total=trainer.max_epochs, completed=trainer.current_epoch, state="")
        self._bar.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Advance it."""
        self._bar.update(self._task, advance=1, state=f"loss {float(outputs['loss']):.4g}")

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Leave it on the screen, full: there is nothing left to do."""
        self._bar.update(self._task, total=trainer.current_epoch)
        self._bar.stop()

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
        """Give the terminal back."""
        self._bar.stop()
