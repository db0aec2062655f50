"""One refinement against a diffuse map, from settings to the run folder."""

import time
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from rich.console import Console

from refine import driver
from refine.diffuse_problem import DiffuseProblem, MaskedModel, build_diffuse_problem
from refine.fit.callbacks import History
from refine.fit.losses import Loss
from refine.fit.refinement import RefinementModule
from refine.formats.maps import write_map
from refine.report.map_pictures import central_slices, residual_picture, shells, write_diffuse_report
from refine.report.results import print_table
from refine.settings.schema import Settings
from refine.terms.diffuse import as_map


class FindContacts(L.Callback):
    """Finds the contacts anew before every step: between two steps they are constant."""

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch: Any, batch_idx: int) -> None:
        """Use the coordinates as they are now."""
        assert isinstance(module, RefinementModule)
        values = module.refined()
        if "xyz" in values:
            assert isinstance(module.model, MaskedModel)
            module.model.model.rebuild(values["xyz"])


def refine_map(settings: Settings, folder: Path | str) -> dict[str, Any]:
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
    driver.quiet()
    torch.manual_seed(settings.seed)
    console = Console()
    problem = build_diffuse_problem(settings)
    if settings.ckpt_path is None:
        driver.clear(folder)
    for note in problem.notes:
        console.print(f"note: {note}", soft_wrap=True)
    return driver.drive(Maps(problem), folder, console, start)


class Maps:
    """A refinement against a diffuse map."""

    def __init__(self, problem: DiffuseProblem) -> None:
        self.problem = problem
        self.callbacks: tuple[L.Callback, ...] = (FindContacts(),)

    def loss(self) -> Loss:
        """Squared residuals over the variances of the map."""
        return self.problem.loss

    def picture(self, expected: torch.Tensor) -> dict[str, np.ndarray]:
        """Central slices."""
        return residual_picture(*_slices(self.problem, expected))

    @torch.no_grad()
    def calculated(self, module: RefinementModule) -> torch.Tensor:
        """Intensities at the start."""
        expected: torch.Tensor = module(torch.zeros_like(module.refined.vector()))
        return expected

    def described(self, module: RefinementModule) -> dict[str, Any]:
        """Springs, coordinates and agreement by shell."""
        return {"diffuse": _described(self.problem, module)}

    def leave(
        self, module: RefinementModule, history: History, results: dict[str, Any], before: Any, folder: Path
    ) -> None:
        """Picture and calculated map."""
        _leave_files(self.problem, module, history, results, before, folder)

    def show(self, console: Console, results: dict[str, Any]) -> None:
        """Springs and agreement; coordinates stand in results.json."""
        print_table(console, {k: v for k, v in results["parameters"].items() if not k.startswith("xyz")})
        for name, value in results["diffuse"].items():
            if isinstance(value, dict):
                console.print(f"{name}: " + ", ".join(f"{k} {v:.5g}" for k, v in value.items() if v is not None))

    def remark(self, console: Console, results: dict[str, Any]) -> None:
        """Nothing more."""


@torch.no_grad()
def _described(problem: DiffuseProblem, module: RefinementModule) -> dict[str, Any]:
    """Springs in their own unit, errors of the coordinates, correlation by shell."""
    fit, values = problem.settings.diffuse_fit, module.refined()
    refined = {n: float(values["log_" + n].exp()) for n in ("gamma_intra", "gamma_inter")}
    summary: dict[str, Any] = {"notes": problem.notes}
    truth, first = fit.truth.model_dump(), fit.initial.model_dump()
    if "scale" not in fit.free:
        for n, value in refined.items():
            summary[n] = {"truth": truth[n], "initial": first[n], "refined": value}
    ratios = [None if None in s.values() else s["gamma_intra"] / s["gamma_inter"] for s in (truth, first, refined)]
    summary["gamma_ratio"] = dict(zip(("truth", "initial", "refined"), ratios, strict=True))
    if problem.true_xyz is not None and "xyz" in values:
        start = module.refined.specs["xyz"].initial
        errors = {"initial": start, "refined": values["xyz"].cpu()}
        summary["rms_xyz_A"] = {n: _rms(problem, x) for n, x in errors.items()}
    q = problem.model.model.points.q[problem.model.model.kept][problem.model.chosen.cpu()].numpy()
    summary["shells"] = shells(q, problem.observation.observed().numpy(), module().cpu().numpy())
    return summary


def _rms(problem: DiffuseProblem, xyz: torch.Tensor) -> float:
    assert problem.true_xyz is not None
    error = xyz.reshape(-1, 3) - problem.true_xyz
    if len(problem.crystal.rotations) == 1:
        error = error - error.mean(0)
    return float(error.square().sum(-1).mean().sqrt())


def _slices(problem: DiffuseProblem, expected: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Observed and expected intensities as central slices."""
    model, chosen = problem.model.model, problem.model.chosen.cpu()
    observed = torch.from_numpy(problem.observation.photons)
    calculated = torch.full_like(observed, torch.nan)
    calculated[chosen] = expected.detach().cpu().double()
    shape = model.points.shape
    return central_slices(model.whole(observed).numpy(), shape), central_slices(model.whole(calculated).numpy(), shape)


@torch.no_grad()
def _leave_files(
    problem: DiffuseProblem,
    module: RefinementModule,
    history: History,
    results: dict[str, Any],
    initial: torch.Tensor,
    folder: Path,
) -> None:
    """Picture and calculated map."""
    refined = module()
    observed, after = _slices(problem, refined)
    images = {"observed": observed, "initial": _slices(problem, initial)[1], "refined": after}
    title = f"{problem.settings.experiment_name}: {results['status']} after {results['steps']} steps"
    model, shells_found = problem.model.model, results["diffuse"]["shells"]
    are_points = model.points.shape[1:] == (1, 1)
    write_diffuse_report(folder / "report.png", images, are_points, shells_found, history.rows, problem.truth, title)
    write_map(folder / "calculated.npz", as_map(model, problem.crystal, model(module.refined())))
