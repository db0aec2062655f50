"""What a run leaves beside its numbers: picture, orientation matrix, calculated image."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from refine.build import Problem
from refine.data.frames import montage
from refine.fit.callbacks import History
from refine.fit.refinement import RefinementModule
from refine.formats.images import write_cbf
from refine.formats.orientation import write_mat
from refine.report.pictures import write_report
from refine.settings.schema import Settings
from refine.terms.bragg import BraggModel
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
    refined = expected_frames(problem, module)
    observed = on_frames(problem, problem.observation.observed())
    images = {"observed": observed, "initial": initial_image, "refined": montage(refined)}
    title = f"{settings.experiment_name}: {results['status']} after {results['steps']} steps"
    free = module.refined.free_labels
    write_report(folder / "report.png", images, history.rows, problem.truth, free, title)
    problem.model.cpu()
    values = {k: v.detach().cpu() for k, v in module.refined().items()}
    for number, (image, own) in enumerate(problem.each(values), 1):
        _leave_image(image, own, refined[number - 1], folder, f"_{number}" if problem.images else "")


def _leave_image(problem: Problem, values: dict[str, Tensor], photons: np.ndarray, folder: Path, number: str) -> None:
    settings, wavelength = problem.settings, float(values["wavelength_A"])
    assert isinstance(problem.model, BraggModel)
    experiment = problem.model.experiment(values)
    crystal = experiment.crystal
    turn = xyz_rotation(crystal.misset) @ crystal.orientation
    target = folder / f"refined{number}.mat"
    write_mat(target, crystal.reciprocal.numpy(), turn.numpy(), values["cell"].numpy(), wavelength)
    counts = photons * settings.data.gain + settings.data.adc_offset
    write_cbf(folder / f"calculated{number}.cbf", counts, cbf_header(settings, values, experiment))


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
        "Start_angle": f"{_phi_start(settings):g} deg.",
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
        "OSC_START": _phi_start(settings),
        "OSC_RANGE": settings.scan.osc_deg or 0.0,
        "TWOTHETA": settings.detector.two_theta_deg or 0.0,
    }


def _phi_start(settings: Settings) -> float:
    """Of one image [deg]."""
    start = settings.scan.phi_start_deg
    assert not isinstance(start, list)
    return start or 0.0


@torch.no_grad()
def expected_frames(problem: Problem, module: RefinementModule, initial: bool = False) -> list[np.ndarray]:
    """Expected photons of each whole frame [slow, fast]."""
    vector = torch.zeros_like(module.refined.vector()) if initial else None
    device, frames = module.observed.device, []
    for image, values in problem.each(module.refined(vector)):
        fast, slow = image.settings.detector.pixels or (0, 0)
        pixels = torch.cartesian_prod(torch.arange(slow, device=device), torch.arange(fast, device=device))
        frames.append(image.model(values, pixels).cpu().numpy().reshape(slow, fast))
    return frames


def direct_beam(experiment: Experiment) -> tuple[float, float]:
    """Pixel coordinates (fast, slow) of the direct beam on the panel's plane."""
    panel, beam = experiment.panel, experiment.beam.direction.mean(0)
    hit = beam * panel.close_distance / (beam @ panel.normal) - panel.origin
    return tuple(float(hit @ axis / panel.pixel_size) for axis in (panel.fast_axis, panel.slow_axis))  # type: ignore[return-value]


def on_frames(problem: Problem, photons: torch.Tensor) -> np.ndarray:
    """Values of the pixels that are used on the whole frames, NaN elsewhere."""
    masks = [image.observation.used for image in problem.images or (problem,)]
    frames = [np.full(used.shape, np.nan) for used in masks]
    parts = photons.detach().cpu().split([int(used.sum()) for used in masks])
    for frame, used, part in zip(frames, masks, parts, strict=True):
        frame[used] = part.numpy()
    return montage(frames)
