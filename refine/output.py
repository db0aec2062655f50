"""What a run leaves beside its numbers: picture, orientation matrix, calculated image."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from refine.callbacks import History
from refine.formats.images import write_cbf
from refine.formats.orientation import write_mat
from refine.module import RefinementModule
from refine.problem import Problem
from refine.report import write_report
from refine.settings import Settings
from sim_core import Experiment
from sim_core.rotations import xyz_rotation


def leave_files(
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
    refined = expected_frame(problem, module)
    images = {"observed": observed, "initial": initial_image, "refined": refined}
    title = f"{settings.experiment_name}: {results['status']} after {results['steps']} steps"
    free = module.refined.free_labels
    write_report(folder / "report.png", images, history.rows, problem.truth, free, title)
    with torch.no_grad():
        values = {k: v.cpu() for k, v in module.refined().items()}
        experiment = problem.model.cpu().experiment(values)
    crystal = experiment.crystal
    turn = xyz_rotation(crystal.misset) @ crystal.orientation
    wavelength = float(values["wavelength_A"])
    write_mat(folder / "refined.mat", crystal.reciprocal.numpy(), turn.numpy(), values["cell"].numpy(), wavelength)
    counts = refined * settings.data.gain + settings.data.adc_offset
    write_cbf(folder / "calculated.cbf", counts, cbf_header(settings, values, experiment))


def cbf_header(settings: Settings, values: dict[str, Tensor], experiment: Experiment) -> dict[str, str]:
    """What the mini-header of a CBF says of an experiment."""
    fast, slow = direct_beam(experiment)
    pixel = settings.detector.pixel_size_mm
    assert pixel is not None
    return {
        "Pixel_size": f"{pixel / 1000:g} m x {pixel / 1000:g} m",
        "Detector_distance": f"{float(values['distance_mm']) / 1000:.6g} m",
        "Wavelength": f"{float(values['wavelength_A']):.6g} A",
        "Beam_xy": f"({fast:.3f}, {slow:.3f}) pixels",
        "Start_angle": f"{settings.scan.phi_start_deg:g} deg.",
        "Angle_increment": f"{settings.scan.osc_deg:g} deg.",
    }


def smv_header(settings: Settings, values: dict[str, Tensor], experiment: Experiment) -> dict[str, float]:
    """What the header of an SMV image says of an experiment."""
    fast, slow = direct_beam(experiment)
    pixel = settings.detector.pixel_size_mm
    assert pixel is not None
    return {
        "PIXEL_SIZE": pixel,
        "DISTANCE": float(values["distance_mm"]),
        "WAVELENGTH": float(values["wavelength_A"]),
        "MOSFLM_CENTER_X": (slow - 0.5) * pixel,
        "MOSFLM_CENTER_Y": (fast - 0.5) * pixel,
        "OSC_START": settings.scan.phi_start_deg or 0.0,
        "OSC_RANGE": settings.scan.osc_deg or 0.0,
        "TWOTHETA": settings.detector.two_theta_deg or 0.0,
    }


@torch.no_grad()
def expected_frame(problem: Problem, module: RefinementModule, initial: bool = False) -> np.ndarray:
    """Expected photons of the whole frame [slow, fast]."""
    vector = torch.zeros_like(module.refined.vector()) if initial else None
    values = module.refined(vector)
    fast, slow = problem.settings.detector.pixels or (0, 0)
    device = module.observed.device
    pixels = torch.cartesian_prod(torch.arange(slow, device=device), torch.arange(fast, device=device))
    photons: np.ndarray = problem.model(values, pixels).cpu().numpy().reshape(slow, fast)
    return photons


def direct_beam(experiment: Experiment) -> tuple[float, float]:
    """Pixel coordinates (fast, slow) of the direct beam on the panel's plane."""
    panel, beam = experiment.panel, experiment.beam.direction.mean(0)
    hit = beam * panel.close_distance / (beam @ panel.normal) - panel.origin
    return tuple(float(hit @ axis / panel.pixel_size) for axis in (panel.fast_axis, panel.slow_axis))  # type: ignore[return-value]


def on_frame(problem: Problem, photons: torch.Tensor) -> np.ndarray:
    """Values of the pixels that are used on the whole frame, NaN elsewhere."""
    frame = np.full(problem.observation.used.shape, np.nan)
    frame[problem.observation.used] = photons.detach().cpu().numpy()
    return frame
