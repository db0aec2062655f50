"""One refinement from settings to the run folder."""

import json
import logging
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from hydra.utils import instantiate
from rich.console import Console
from torch import nn
from torch.optim import Optimizer

from refine.callbacks import Convergence, History, LastCheckpoint, StepProgress, TensorBoard
from refine.datamodule import OneImage
from refine.errors import InputError, RefinementError, required
from refine.losses import Loss
from refine.module import RefinementModule
from refine.output import expected_frame, leave_files, on_frame
from refine.parameters import labels
from refine.paths import existing_file
from refine.problem import Problem, build_problem
from refine.report import picture
from refine.results import print_geometry, print_table, print_verdict, summary, versions, write_results
from refine.schedule import CaptureModel, Schedule
from refine.search import NothingFoundError, describe
from refine.settings import Settings
from sim_core.bragg.mosaic import SIGMA_PER_SPREAD


def refine(settings: Settings, folder: Path) -> dict[str, Any]:
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
    start = time.perf_counter()
    _quiet()
    torch.manual_seed(settings.seed)
    console = Console()
    try:
        problem = build_problem(settings)
    except NothingFoundError as error:
        clear(folder)
        failed = {"experiment": settings.experiment_name, "status": "failed", "reason": str(error)}
        write_results(folder / "results.json", failed | {"search": error.search, "versions": versions()})
        raise
    if problem.search is not None:
        console.print(describe(problem.search), soft_wrap=True, highlight=False)
    if problem.geometry:
        print_geometry(console, problem.geometry)
    if settings.ckpt_path is None:
        clear(folder)
    with _threads(problem):
        return _refine(problem, folder, console, start)


def _refine(problem: Problem, folder: Path, console: Console, start: float) -> dict[str, Any]:
    """The refinement itself: fit, then leave the results."""
    settings = problem.settings
    module, trainer, callbacks = _assemble(problem, folder, start)
    resume = _checkpoint(problem)
    history, convergence = callbacks[History], callbacks[Convergence]
    status, reason = "max_steps", f"{settings.trainer.max_steps} steps were allowed"
    try:
        initial_image = expected_frame(problem, module, initial=True)
        trainer.fit(module, datamodule=OneImage(), ckpt_path=resume)
        if convergence.converged:
            status, reason = "converged", convergence.reason
    except (Exception, KeyboardInterrupt, SystemExit) as error:
        stopped = isinstance(error, KeyboardInterrupt | SystemExit)
        reason = "interrupted" if stopped else _first(error) or type(error).__name__
        results = summary(problem, module, history, "failed", reason)
        write_results(folder / "results.json", results)
        raise RefinementError(reason) from error
    module.to("cpu" if not torch.cuda.is_available() else module.device)
    vector = module.refined.vector()
    history.add(module, len(history.rows), float(module.loss_at(vector)), vector)
    history.write()
    results = summary(problem, module, history, status, reason)
    results |= _described(problem, module)
    leave_files(problem, module, history, results, initial_image, folder)
    if TensorBoard in callbacks:
        callbacks[TensorBoard].finish(module, len(history.rows) - 1, history.rows[-1]["loss"], _hparams(settings))
    write_results(folder / "results.json", results)
    print_table(console, results["parameters"])
    print_verdict(console, results)
    spread = ", ".join(f"{s:.4g}" for s in np.ravel(results["mosaic_sigma_deg"]))
    console.print(f"misorientation about each axis: {spread} deg (standard deviation)", highlight=False)
    console.print(f"{folder}", soft_wrap=True)
    return results


def _described(problem: Problem, module: RefinementModule) -> dict[str, Any]:
    """What the model was, the standard deviation of its misorientations, the mean rotation of blocks."""
    sigma = (SIGMA_PER_SPREAD * module.refined()["mosaic_spread_deg"]).tolist()
    return {
        "model": {"pixels": len(problem.model.pixels), **problem.model.described()},
        "mosaic_sigma_deg": sigma,
        "mean_domain_rotation_deg": problem.mean_rotation_deg,
        **({} if problem.search is None else {"search": problem.search}),
    }


def clear(folder: Path) -> None:
    """Remove what an earlier run left in a folder that is used again."""
    for name in ("results.json", "history.csv", "report.png", "refined.mat", "calculated.cbf"):
        (folder / name).unlink(missing_ok=True)
    for name in ("tensorboard", "checkpoints"):
        shutil.rmtree(folder / name, ignore_errors=True)


@contextmanager
def _threads(problem: Problem) -> Iterator[None]:
    """One thread where the work is too small to share."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if problem.model.evaluations < 1 << 22 else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _assemble(problem: Problem, folder: Path, start: float) -> tuple[RefinementModule, L.Trainer, dict[type, Any]]:
    settings = problem.settings
    loss: Loss = _instantiate("loss", settings.loss, readout=settings.data.readout / settings.data.gain)
    make_optimizer: Callable[[list[nn.Parameter]], Optimizer] = _instantiate(
        "optimizer", settings.optimizer, _partial_=True
    )
    observed = problem.observation.observed()
    schedule = _schedule(problem, observed)
    module = RefinementModule(problem.model, problem.parameters, loss, observed, make_optimizer, schedule)
    try:
        module.configure_optimizers()
    except (TypeError, ValueError) as error:
        raise InputError(f"optimizer: {_first(error)}") from None
    choice = settings.trainer
    callbacks: list[L.Callback] = [Convergence(), History(folder / "history.csv", start), StepProgress()]
    if settings.logger.kind == "tensorboard":

        def draw(expected: torch.Tensor) -> dict[str, np.ndarray]:
            return picture(on_frame(problem, problem.observation.observed()), on_frame(problem, expected))

        callbacks.append(TensorBoard(folder / "tensorboard", problem.truth, draw, choice.log_every, choice.image_every))
    callbacks.append(LastCheckpoint(folder / "checkpoints", choice.checkpoint_every, _fingerprint(problem)))
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
    return module, trainer, {type(c): c for c in callbacks}


def _schedule(problem: Problem, observed: torch.Tensor) -> Schedule | None:
    """The stages that come before the likelihood, where there are any and the orientation is free."""
    choice = problem.settings.schedule
    if not choice.inflation_deg or "misset_deg" not in problem.parameters.free:
        return None
    capture = CaptureModel(problem.model, problem.parameters, observed)
    return Schedule(capture, tuple(choice.inflation_deg), choice.steps)


def _instantiate(field: str, config: dict[str, Any], **extra: Any) -> Any:
    if "_target_" not in config:
        raise required(field, "a _target_", config)
    try:
        return instantiate(config, **extra)
    except Exception as error:
        raise InputError(f"{field}: {_first(error.__cause__ or error)}") from None


def _fingerprint(problem: Problem) -> dict[str, str]:
    """What must be the same for a checkpoint to be continued."""
    s = problem.settings
    parts = {
        "crystal": s.crystal.model_dump(),
        "detector": s.detector.model_dump(),
        "beam": s.beam.model_dump(),
        "scan": s.scan.model_dump(),
        "structure_factors": s.structure_factors.model_dump(),
        "simulator": s.simulator.model_dump(),
        "initial": {n: spec.initial.tolist() for n, spec in problem.parameters.specs.items()},
        "parameters": s.parameters.model_dump(),
        "data": problem.observation.sha256,
        "schedule": s.schedule.model_dump(),
        "loss": s.loss,
        "optimizer": s.optimizer.get("_target_"),
        "dtype": s.dtype,
    }
    return {name: json.dumps(part, sort_keys=True) for name, part in parts.items()}


def _checkpoint(problem: Problem) -> str | None:
    """The checkpoint to resume from, after a look that it belongs to this refinement."""
    if problem.settings.ckpt_path is None:
        return None
    path = existing_file(problem.settings.ckpt_path, "ckpt_path")
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)["refinement"]
    except Exception:
        raise required(path, "a checkpoint of a refinement", "another kind of file") from None
    for name, value in _fingerprint(problem).items():
        if saved.get(name) != value:
            raise required("ckpt_path", f"a checkpoint of the same {name}", f"another in {path}")
    return str(path)


def _hparams(settings: Settings) -> dict[str, Any]:
    flat: dict[str, Any] = {"experiment": settings.experiment_name, "dtype": settings.dtype, "seed": settings.seed}
    flat |= {f"optimizer.{k}": v for k, v in settings.optimizer.items()}
    flat |= {"loss": settings.loss["_target_"], "crystal.mosaic_domains": settings.crystal.mosaic_domains}
    for name, value in settings.initial.model_dump().items():
        if isinstance(value, tuple):
            flat |= {f"initial.{label}": number for label, number in zip(labels(name), value, strict=True)}
        elif value is not None:
            flat[f"initial.{name}"] = value
    return {k: v if isinstance(v, int | float | str | bool) else str(v) for k, v in flat.items()}


def _quiet() -> None:
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
