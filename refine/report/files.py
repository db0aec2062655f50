"""What headers of calculated images say."""

from collections.abc import Mapping

from torch import Tensor

from refine.experiment.instrument import Instrument
from sim_core import Experiment


def cbf_header(instrument: Instrument, values: Mapping[str, Tensor], experiment: Experiment) -> dict[str, str]:
    """What the mini-header of a CBF says of an experiment."""
    fast, slow = direct_beam(experiment)
    pixel, scan = instrument.panel.pixel_size_mm, instrument.scan
    return {
        "Pixel_size": f"{pixel / 1000:g} m x {pixel / 1000:g} m",
        "Detector_distance": f"{float(values['distance_mm']) / 1000:.6g} m",
        "Wavelength": f"{float(values['wavelength_A']):.6g} A",
        "Beam_xy": f"({fast:.3f}, {slow:.3f}) pixels",
        "Start_angle": f"{scan.phi_start_deg:g} deg.",
        "Angle_increment": f"{scan.osc_deg:g} deg.",
    }


def smv_header(instrument: Instrument, values: Mapping[str, Tensor], experiment: Experiment) -> dict[str, float]:
    """What the header of an SMV image says of an experiment."""
    fast, slow = direct_beam(experiment)
    pixel, scan = instrument.panel.pixel_size_mm, instrument.scan
    return {
        "PIXEL_SIZE": pixel,
        "DISTANCE": float(values["distance_mm"]),
        "WAVELENGTH": float(values["wavelength_A"]),
        "MOSFLM_CENTER_X": (slow - 0.5) * pixel,
        "MOSFLM_CENTER_Y": (fast - 0.5) * pixel,
        "OSC_START": scan.phi_start_deg,
        "OSC_RANGE": scan.osc_deg,
        "TWOTHETA": instrument.panel.two_theta_deg,
    }


def direct_beam(experiment: Experiment) -> tuple[float, float]:
    """Pixel coordinates (fast, slow) of the direct beam on the panel's plane."""
    panel, beam = experiment.panel, experiment.beam.direction.mean(0)
    hit = beam * panel.close_distance / (beam @ panel.normal) - panel.origin
    return tuple(float(hit @ axis / panel.pixel_size) for axis in (panel.fast_axis, panel.slow_axis))  # type: ignore[return-value]
