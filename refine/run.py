"""One refinement from settings to the run folder."""

import json
import logging
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
from refine.formats.images import write_cbf
from refine.formats.orientation import write_mat
from refine.losses import Loss
from refine.module import RefinementModule
from refine.paths import existing_file
from refine.problem import Problem, build_problem
from refine.report import picture, write_report
from refine.results import agreement, parameter_entries, print_geometry, print_table, versions, write_results
from refine.settings import Settings
from sim_core.rotations import xyz_rotation


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
    problem = build_problem(settings)
    if problem.geometry:
        print_geometry(console, problem.geometry)
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
        initial_image = _photons(problem, module, initial=True)
        trainer.fit(module, datamodule=OneImage(), ckpt_path=resume)
        if trainer.interrupted:
            raise RefinementError("interrupted")
        if convergence.converged:
            status, reason = "converged", convergence.reason
    except Exception as error:
        reason = str(error).split("\n")[0] or type(error).__name__
        results = _results(problem, module, history, "failed", reason)
        write_results(folder / "results.json", results)
        raise RefinementError(reason) from error
    module.to("cpu" if not torch.cuda.is_available() else module.device)
    vector = module.refined.vector()
    history.add(module, len(history.rows), float(module.loss_at(vector)), vector)
    history.write()
    results = _results(problem, module, history, status, reason)
    _leave_files(problem, module, history, results, initial_image, folder)
    if TensorBoard in callbacks:
        callbacks[TensorBoard].finish(module, len(history.rows) - 1, history.rows[-1]["loss"], _hparams(settings))
    write_results(folder / "results.json", results)
    print_table(console, results["parameters"])
    loss = results["loss"]
    console.print(
        f"{status}: {reason}; loss {loss['initial']:.4g} -> {loss['final']:.4g} in {results['steps']} steps, "
        f"{results['wall_s']:.1f} s on {results['device']}"
    )
    console.print(f"{folder}", soft_wrap=True)
    return results


@contextmanager
def _threads(problem: Problem) -> Iterator[None]:
    """One thread where the work is too small to share."""
    simulator = problem.model.simulator
    evaluations = len(problem.model.pixels) * simulator.oversample**2 * len(simulator.domain_weights)
    before = torch.get_num_threads()
    torch.set_num_threads(1 if evaluations < 1 << 22 else before)
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
    module = RefinementModule(problem.model, problem.parameters, loss, problem.observation.observed(), make_optimizer)
    try:
        module.configure_optimizers()
    except (TypeError, ValueError) as error:
        raise InputError(f"optimizer: {_first(error)}") from None
    choice = settings.trainer
    callbacks: list[L.Callback] = [Convergence(), History(folder / "history.csv", start), StepProgress()]
    if settings.logger.get("kind") == "tensorboard":

        def draw(expected: torch.Tensor) -> dict[str, np.ndarray]:
            return picture(_on_frame(problem, problem.observation.observed()), _on_frame(problem, expected))

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


def _results(problem: Problem, module: RefinementModule, history: History, status: str, reason: str) -> dict[str, Any]:
    losses = [row["loss"] for row in history.rows] or [float("inf")]
    loss: dict[str, float | None] = {"initial": losses[0], "final": losses[-1]}
    loss["reduction"] = losses[0] / max(losses[-1], 1e-300)
    loss = {k: v if v is not None and np.isfinite(v) else None for k, v in loss.items()}
    failed = status == "failed"
    settings = problem.settings
    return {
        "experiment": settings.experiment_name,
        "status": status,
        "reason": reason,
        "steps": len(history.rows) if failed else len(history.rows) - 1,
        "wall_s": history.wall,
        "device": _device(module.device),
        "dtype": settings.dtype,
        "seed": settings.seed,
        "loss": loss,
        "parameters": {} if failed else parameter_entries(problem, module),
        "agreement": {"cc": None, "r_factor": None, "chi2": None} if failed else agreement(module),
        "mean_domain_rotation_deg": problem.mean_rotation_deg,
        "data": {
            "path": None if problem.observation.path is None else str(problem.observation.path),
            "sha256": problem.observation.sha256,
        },
        "versions": versions(),
    }


def _leave_files(
    problem: Problem,
    module: RefinementModule,
    history: History,
    results: dict[str, Any],
    initial_image: np.ndarray,
    folder: Path,
) -> None:
    """Picture, orientation matrix and calculated image."""
    settings = problem.settings
    observed = np.where(problem.observation.used, problem.observation.photons, np.nan)
    refined = _photons(problem, module)
    images = {"observed": observed, "initial": initial_image, "refined": refined}
    title = f"{settings.experiment_name}: {results['status']} after {results['steps']} steps"
    free = module.refined.free_labels
    write_report(folder / "report.png", images, history.rows, problem.truth, free, title)
    with torch.no_grad():
        values = {k: v.cpu() for k, v in module.refined().items()}
        crystal = problem.model.cpu().experiment(values).crystal
    turn = xyz_rotation(crystal.misset) @ crystal.orientation
    wavelength = float(values["wavelength_A"])
    write_mat(folder / "refined.mat", crystal.reciprocal.numpy(), turn.numpy(), values["cell"].numpy(), wavelength)
    counts = refined * settings.data.gain + settings.data.adc_offset
    pixel = settings.detector.pixel_size_mm
    assert pixel is not None
    header = {
        "Pixel_size": f"{pixel / 1000:g} m x {pixel / 1000:g} m",
        "Detector_distance": f"{float(values['distance_mm']) / 1000:.6g} m",
        "Wavelength": f"{wavelength:.6g} A",
        "Start_angle": f"{settings.scan.phi_start_deg:g} deg.",
        "Angle_increment": f"{settings.scan.osc_deg:g} deg.",
    }
    write_cbf(folder / "calculated.cbf", counts, header)


@torch.no_grad()
def _photons(problem: Problem, module: RefinementModule, initial: bool = False) -> np.ndarray:
    """Expected photons of the whole frame [slow, fast]."""
    vector = torch.zeros_like(module.refined.vector()) if initial else None
    values = module.refined(vector)
    fast, slow = problem.settings.detector.pixels or (0, 0)
    device = module.observed.device
    pixels = torch.cartesian_prod(torch.arange(slow, device=device), torch.arange(fast, device=device))
    photons: np.ndarray = problem.model(values, pixels).cpu().numpy().reshape(slow, fast)
    return photons


def _on_frame(problem: Problem, photons: torch.Tensor) -> np.ndarray:
    frame = np.full(problem.observation.used.shape, np.nan)
    frame[problem.observation.used] = photons.detach().cpu().numpy()
    return frame


def _hparams(settings: Settings) -> dict[str, Any]:
    flat: dict[str, Any] = {"experiment": settings.experiment_name, "dtype": settings.dtype, "seed": settings.seed}
    flat |= {f"optimizer.{k}": v for k, v in settings.optimizer.items()}
    flat |= {"loss": settings.loss["_target_"], "crystal.mosaic_domains": settings.crystal.mosaic_domains}
    flat |= {f"initial.{k}": str(v) for k, v in settings.initial.model_dump().items() if v is not None}
    return {k: v if isinstance(v, int | float | str | bool) else str(v) for k, v in flat.items()}


def _device(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def _quiet() -> None:
    """Lightning's advice on data loaders and its banner are not for our users."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning\..*")
    warnings.filterwarnings("ignore", module=r"torch\.utils\.tensorboard.*")


def _first(error: object) -> str:
    return str(error).strip().split("\n")[0]
