"""The loop of a refinement, whatever it refines against: fit, then leave the results."""

import json
import logging
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from hydra.utils import instantiate
from rich.console import Console
from torch import Tensor, nn
from torch.optim import Optimizer

from refine.data.frames import SeveralImages
from refine.data.observation import OneImage
from refine.errors import InputError, RefinementError, required
from refine.fit.callbacks import Convergence, History, LastCheckpoint, StepProgress, TensorBoard
from refine.fit.refinement import RefinementModule
from refine.paths import existing_file
from refine.refinable import Data, Refinable
from refine.report.results import print_verdict, summary, write_results
from refine.settings.schema import Settings
from refine.stages.capture import Schedule, blurred
from refine.terms.bragg import BraggModel


def drive(data: Data, folder: Path, console: Console, start: float) -> dict[str, Any]:
    """Fit, then leave the results: the same for every kind of data.

    Args:
        data: What is refined against, and what is special to its kind.
        folder: The run folder.
        console: Where the closing lines go.
        start: When the run began (``time.perf_counter``).

    Returns:
        What results.json holds.

    Raises:
        InputError: before anything runs.
        RefinementError: if the refinement cannot go on; results.json then says why.
    """
    problem, settings = data.problem, data.problem.settings
    module, trainer, callbacks = _assemble(data, folder, start)
    resume = _checkpoint(problem)
    history, convergence = callbacks[History], callbacks[Convergence]
    status, reason = "max_steps", f"{settings.trainer.max_steps} steps were allowed"
    try:
        before = data.calculated(module)
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
    results |= data.described(module)
    data.leave(module, history, results, before, folder)
    if TensorBoard in callbacks:
        callbacks[TensorBoard].finish(module, len(history.rows) - 1, history.rows[-1]["loss"], _hparams(settings))
    write_results(folder / "results.json", results)
    data.show(console, results)
    print_verdict(console, results)
    data.remark(console, results)
    console.print(f"{folder}", soft_wrap=True)
    return results


def clear(folder: Path) -> None:
    """Remove what an earlier run left in a folder that is used again."""
    for name in ("results.json", "history.csv", "report.png", "refined*.mat", "calculated*.cbf", "calculated.npz"):
        for path in folder.glob(name):
            path.unlink()
    for name in ("tensorboard", "checkpoints"):
        shutil.rmtree(folder / name, ignore_errors=True)


def _assemble(data: Data, folder: Path, start: float) -> tuple[RefinementModule, L.Trainer, dict[type, Any]]:
    problem, choice = data.problem, data.problem.settings.trainer
    make_optimizer: Callable[[list[nn.Parameter]], Optimizer] = from_config(
        "optimizer", problem.settings.optimizer, _partial_=True
    )
    observed = problem.observation.observed()
    schedule = _schedule(problem, observed)
    module = RefinementModule(problem.model, problem.parameters, data.loss(), observed, make_optimizer, schedule)
    try:
        module.configure_optimizers()
    except (TypeError, ValueError) as error:
        raise InputError(f"optimizer: {_first(error)}") from None
    callbacks: list[L.Callback] = [*data.callbacks, Convergence(), History(folder / "history.csv", start)]
    callbacks.append(StepProgress())
    if problem.settings.logger.kind == "tensorboard":
        every = choice.log_every, choice.image_every
        callbacks.append(TensorBoard(folder / "tensorboard", problem.truth, data.picture, *every))
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


def _schedule(problem: Refinable, observed: Tensor) -> Schedule | None:
    """The stages that come before the likelihood, where there are any and the orientation is free."""
    choice, model, parameters = problem.settings.schedule, problem.model, problem.parameters
    if not isinstance(model, BraggModel | SeveralImages):
        return None
    if not choice.inflation_deg or "misset_deg" not in parameters.free:
        return None
    return Schedule(blurred(model, parameters, observed), tuple(choice.inflation_deg), choice.steps)


def from_config(field: str, config: dict[str, Any], **extra: Any) -> Any:
    """The object that a section with a ``_target_`` describes.

    Raises:
        InputError: if there is none, or it cannot be made.
    """
    if "_target_" not in config:
        raise required(field, "a _target_", config)
    try:
        return instantiate(config, **extra)
    except Exception as error:
        raise InputError(f"{field}: {_first(error.__cause__ or error)}") from None


def _fingerprint(problem: Refinable) -> dict[str, str]:
    """What must be the same for a checkpoint to be continued."""
    s = problem.settings
    parts = {
        "crystal": s.crystal.model_dump(),
        "detector": s.detector.model_dump(),
        "beam": s.beam.model_dump(),
        "scan": s.scan.model_dump(),
        "structure_factors": s.structure_factors.model_dump(),
        "simulator": s.simulator.model_dump(),
        "model": s.model.model_dump(),
        "diffuse": s.diffuse.model_dump(),
        "diffuse_fit": s.diffuse_fit.model_dump(exclude={"map"}),
        "initial": {n: spec.initial.tolist() for n, spec in problem.parameters.specs.items()},
        "parameters": s.parameters.model_dump(),
        "data": problem.observation.sha256,
        "schedule": s.schedule.model_dump(),
        "loss": s.loss,
        "optimizer": s.optimizer.get("_target_"),
        "dtype": s.dtype,
    }
    return {name: json.dumps(part, sort_keys=True) for name, part in parts.items()}


def _checkpoint(problem: Refinable) -> str | None:
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
            flat |= {f"initial.{name}.{place}": number for place, number in enumerate(value)}
        elif value is not None:
            flat[f"initial.{name}"] = value
    return {k: v if isinstance(v, int | float | str | bool) else str(v) for k, v in flat.items()}


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
