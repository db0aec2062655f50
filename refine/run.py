"""One refinement against a detector image, from settings to the run folder."""

import time
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from refine.build import Problem, build_problem
from refine.data.frames import montage
from refine.driver import clear, drive, from_config, quiet
from refine.fit.callbacks import History
from refine.fit.losses import Loss
from refine.fit.refinement import RefinementModule
from refine.report.files import expected_frames, leave_files, on_frames
from refine.report.pictures import picture
from refine.report.results import print_geometry, print_table, versions, write_results
from refine.settings.schema import Settings
from refine.stages.search import NothingFoundError, describe
from refine.threads import SMALL, one_thread
from sim_core.bragg.mosaic import SIGMA_PER_SPREAD

SEEN_DEG = 1e-3
"""Mean rotation of the blocks of simulated data that is worth a line [deg]."""


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
        problem = build_problem(settings)
    except NothingFoundError as error:
        clear(folder)
        failed = {"experiment": settings.experiment_name, "status": "failed", "reason": str(error)}
        write_results(folder / "results.json", failed | {"search": error.search, "versions": versions()})
        raise
    for number, image in enumerate(problem.images or (problem,), 1):
        if image.search is not None:
            which = f"image {number}: " if problem.images else ""
            console.print(which + describe(image.search), soft_wrap=True, highlight=False)
    if problem.geometry:
        print_geometry(console, problem.geometry)
    if settings.ckpt_path is None:
        clear(folder)
    with one_thread(problem.model.evaluations < SMALL):
        return drive(Images(problem), folder, console, start)


class Images:
    """A refinement against a detector image, as :func:`drive` needs it."""

    callbacks: tuple[L.Callback, ...] = ()

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    def loss(self) -> Loss:
        """That of the configuration."""
        data = self.problem.settings.data
        loss: Loss = from_config("loss", self.problem.settings.loss, readout=data.readout / data.gain)
        return loss

    def picture(self, expected: Tensor) -> dict[str, np.ndarray]:
        """Observed and expected photons and their difference."""
        observed = on_frames(self.problem, self.problem.observation.observed())
        return picture(observed, on_frames(self.problem, expected))

    def calculated(self, module: RefinementModule) -> np.ndarray:
        """The whole frame at the start."""
        return montage(expected_frames(self.problem, module, initial=True))

    def described(self, module: RefinementModule) -> dict[str, Any]:
        """What the model was, the standard deviation of its misorientations, the mean rotation of blocks."""
        model = self.problem.model
        sigma = (SIGMA_PER_SPREAD * module.refined()["mosaic_spread_deg"]).tolist()
        return {
            "model": {"pixels": len(model.pixels), **model.described()},
            "data": _files(self.problem),
            "mosaic_sigma_deg": sigma,
            "mean_domain_rotation_deg": self.problem.mean_rotation_deg,
            **_searches(self.problem),
        }

    def leave(
        self, module: RefinementModule, history: History, results: dict[str, Any], before: Any, folder: Path
    ) -> None:
        """Picture, orientation matrix and calculated image."""
        leave_files(self.problem, module, history, results, before, folder)

    def show(self, console: Console, results: dict[str, Any]) -> None:
        """The closing table."""
        print_table(console, results["parameters"])

    def remark(self, console: Console, results: dict[str, Any]) -> None:
        """The spread in another measure."""
        spread = ", ".join(f"{s:.4g}" for s in np.ravel(results["mosaic_sigma_deg"]))
        console.print(f"mosaic spread as a standard deviation about each axis: {spread} deg", highlight=False)
        turned = self.problem.mean_rotation_deg.get("data", [])
        if max(map(abs, turned), default=0.0) > SEEN_DEG:
            angles = " ".join(f"{a:.3f}" for a in turned)
            told = f"the blocks of the truth are turned by {angles} deg on average: part of the errors above"
            console.print(told, soft_wrap=True, highlight=False)


def _searches(problem: Problem) -> dict[str, Any]:
    """What searches saw, where there were any: of one image, or a list with null where there was none."""
    reports = [image.search for image in problem.images or (problem,)]
    found = reports if problem.images else reports[0]
    return {"search": found} if any(reports) else {}


def _files(problem: Problem) -> dict[str, Any]:
    """Paths and digests of the images; those of one image by themselves."""
    seen = [image.observation for image in problem.images or (problem,)]
    paths, digests = [None if o.path is None else str(o.path) for o in seen], [o.sha256 for o in seen]
    return {"path": paths, "sha256": digests} if problem.images else {"path": paths[0], "sha256": digests[0]}
