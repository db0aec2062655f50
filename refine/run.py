"""One refinement, from settings to the run folder: build, fit, report."""

import logging
import shutil
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import torch
from rich.console import Console

from refine.build import build
from refine.data.frames import Frames
from refine.errors import InputError, RefinementError, required
from refine.fit.callbacks import Convergence, History, LastCheckpoint, StepProgress, TensorBoard
from refine.fit.callbacks.checkpoint import fingerprint, resumable
from refine.fit.callbacks.tensorboard import hparams
from refine.fit.refinement import Refinement
from refine.report.image import ImageReport
from refine.report.map import MapReport
from refine.report.report import Report
from refine.report.results import print_verdict, summary, versions, write_results
from refine.settings.schema import Settings
from refine.stages.orientation import NothingFoundError
from refine.threads import SMALL, one_thread


def refine(settings: Settings, folder: Path | str) -> dict[str, Any]:
    """Refine and leave everything in ``folder``.

    Args:
        settings: Checked configuration.
        folder: The run folder.

    Returns:
        What results.json holds.

    Raises:
        InputError: before anything runs.
        RefinementError: if the refinement cannot go on; results.json then says why.
    """
    start, folder = time.perf_counter(), Path(folder)
    quiet()
    torch.manual_seed(settings.seed)
    console = Console()
    try:
        refinement = build(settings)
    except NothingFoundError as error:
        clear(folder)
        failed = {"experiment": settings.experiment_name, "status": "failed", "reason": str(error)}
        write_results(folder / "results.json", failed | {"search": error.search, "versions": versions()})
        raise
    kind = MapReport if settings.of_a_map else ImageReport
    report: Report = kind(settings, refinement)
    report.begin(console)
    if settings.ckpt_path is None:
        clear(folder)
    small = not settings.of_a_map and report.evaluations < SMALL
    with one_thread(small):
        return _fitted(settings, refinement, report, folder, console, start)


def _fitted(
    settings: Settings, refinement: Refinement, report: Report, folder: Path, console: Console, start: float
) -> dict[str, Any]:
    """Fit, then leave the results: the same for every kind of data."""
    trainer, callbacks = _trainer(settings, refinement, report, folder, start)
    resume = resumable(settings, refinement)
    history, convergence = callbacks[History], callbacks[Convergence]
    status, reason = "max_steps", f"{settings.trainer.max_steps} steps were allowed"
    try:
        before = report.calculated()
        trainer.fit(refinement, datamodule=Frames(len(refinement.frames)), ckpt_path=resume)
        if convergence.converged:
            status, reason = "converged", convergence.reason
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        stopped = isinstance(error, KeyboardInterrupt | SystemExit)
        reason = "interrupted" if stopped else _first(error) or type(error).__name__
        write_results(folder / "results.json", summary(settings, refinement, history, "failed", reason))
        raise RefinementError(reason) from error
    refinement.to("cpu" if not torch.cuda.is_available() else refinement.device)
    refinement.current.fill_(len(refinement.objectives) - 1)  # what is reported is the likelihood's
    refinement.prepare()
    vector = refinement.refined.vector()
    history.add(refinement, len(history.rows), float(refinement.loss_at(vector)), vector)
    history.write()
    results = summary(settings, refinement, history, status, reason) | report.entries()
    report.leave(history, results, before, folder)
    if TensorBoard in callbacks:
        last = len(history.rows) - 1, history.rows[-1]["loss"]
        callbacks[TensorBoard].finish(refinement, *last, hparams(settings))
    write_results(folder / "results.json", results)
    report.show(console, results)
    print_verdict(console, results)
    report.remark(console, results)
    console.print(f"{folder}", soft_wrap=True)
    return results


def clear(folder: Path) -> None:
    """Remove what an earlier run left in a folder that is used again."""
    left = ("results.json", "history.csv", "report.png", "refined*.mat", "refined.pdb", "refined.cif")
    for pattern in (*left, "calculated*.cbf", "calculated.npz"):
        for path in folder.glob(pattern):
            path.unlink()
    for name in ("tensorboard", "checkpoints"):
        shutil.rmtree(folder / name, ignore_errors=True)


def _trainer(
    settings: Settings, refinement: Refinement, report: Report, folder: Path, start: float
) -> tuple[L.Trainer, dict[type, Any]]:
    choice = settings.trainer
    try:
        refinement.configure_optimizers()
    except (TypeError, ValueError) as error:
        raise InputError(f"optimizer: {_first(error)}") from None
    callbacks: list[L.Callback] = [Convergence(), History(folder / "history.csv", start), StepProgress()]
    if settings.logger.kind == "tensorboard":
        every = choice.log_every, choice.image_every
        callbacks.append(TensorBoard(folder / "tensorboard", report.picture, *every))
    last = LastCheckpoint(folder / "checkpoints", choice.checkpoint_every, fingerprint(settings, refinement))
    callbacks.append(last)
    accelerator = choice.accelerator
    if accelerator == "auto" and not torch.cuda.is_available():
        accelerator = "cpu"
    try:
        trainer = L.Trainer(
            default_root_dir=folder,
            max_epochs=choice.max_steps,
            accelerator=accelerator,
            devices=1,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=callbacks,
        )
    except Exception as error:
        raise required("trainer.accelerator", "one that this machine has", f"{accelerator} ({_first(error)})") from None
    return trainer, {type(c): c for c in callbacks}


def quiet() -> None:
    """Lightning's advice on data loaders and its banner are not for our users."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    kernels = logging.getLogger("sim_core.kernels")  # says which implementation of the simulator runs
    kernels.setLevel(logging.INFO)
    if not kernels.handlers:
        kernels.addHandler(logging.StreamHandler(sys.stdout))
    warnings.filterwarnings("ignore", module=r"lightning\..*")
    warnings.filterwarnings("ignore", module=r"torch\.utils\.tensorboard.*")


def _first(error: object) -> str:
    return str(error).strip().split("\n")[0]
