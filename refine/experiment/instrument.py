"""The instrument of one frame, complete: what header and configuration say, and the experiment it makes of values.

Nothing here is refined or optional. Wavelength, distance, beam centre and tilts are parameters.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from refine.experiment.conventions import Convention
from refine.experiment.sample import Sample
from refine.settings.experiment import Beam as BeamSettings
from sim_core import Beam, Experiment, Panel, Scan, Sensor
from sim_core.beam import centred_grid, divergence_grid, tilted_directions
from sim_core.detector import Frame as Axes
from sim_core.detector import Mount, origin_about_beam, origin_about_sample, rotated_frame

Values = Mapping[str, Tensor]


@dataclass(frozen=True)
class SensorLayers:
    """A thick sensor.

    Attributes:
        thickness_um: Zero for a sensor that stops every photon at its surface.
        attenuation_um: Attenuation length.
        layers: How many layers it is cut into.
    """

    thickness_um: float
    attenuation_um: float
    layers: int


@dataclass(frozen=True)
class PanelShape:
    """A flat detector before its distance, beam centre and tilts are known.

    Attributes:
        convention: What its numbers mean in the laboratory.
        pivot: About what it tilts: ``beam`` or ``sample``.
        pixels: Number of pixels along fast and slow.
        pixel_size_mm: Edge of a pixel.
        two_theta_deg: Swing.
        sensor: Its sensor.
    """

    convention: Convention
    pivot: str
    pixels: tuple[int, int]
    pixel_size_mm: float
    two_theta_deg: float
    sensor: SensorLayers

    @property
    def slow_size_mm(self) -> float:
        """Size along slow."""
        return self.pixels[1] * self.pixel_size_mm


@dataclass(frozen=True)
class ScanRange:
    """The rotation of an exposure, sampled at the middle of each step."""

    phi_start_deg: float
    osc_deg: float
    steps: int


@dataclass(frozen=True)
class Instrument:
    """Everything of one image but the sample and the parameters.

    Attributes:
        panel: The detector.
        beam: Fluence, polarisation and the grids of directions and wavelengths.
        spreading: Gaussian spreads that the beam has: ``divergence_rms_mrad``, ``bandwidth_rms_percent``.
        scan: The rotation.
    """

    panel: PanelShape
    beam: BeamSettings
    spreading: frozenset[str]
    scan: ScanRange

    def experiment(self, values: Values, sample: Sample, everywhere: bool = False) -> Experiment:
        """The experiment at given values, in the core's units; gradients pass through.

        Args:
            values: Every parameter.
            sample: What stands in the beam.
            everywhere: With amplitudes of all reflections, wherever the crystal is turned.
        """
        bare = Experiment(
            beam=build_beam(self.beam, self.panel.convention, values, self.spreading),
            panel=build_panel(self.panel, values),
            crystal=sample.crystal(values),
            scan=build_scan(self.scan, self.panel.convention, values["wavelength_A"]),
            structure_factors=sample.listed(values),
        )
        return sample.completed(values, bare, everywhere)


def build_mount(shape: PanelShape, values: Values) -> Mount:
    """How the panel stands."""
    convention = shape.convention
    like = values["distance_mm"]
    x, y = values["beam_center_mm"].unbind()
    fast, slow = convention.fast_slow(x, y, shape.pixel_size_mm, shape.slow_size_mm)
    return Mount(
        frame=Axes(*(like.new_tensor(v) for v in (convention.fast, convention.slow, convention.normal))),
        beam=like.new_tensor(convention.beam),
        centre=torch.stack([fast, slow]) / 1000,
        distance=values["distance_mm"] / 1000,
        rotations=torch.deg2rad(values["rotations_deg"]),
        two_theta=like.new_tensor(math.radians(shape.two_theta_deg)),
        two_theta_axis=like.new_tensor(convention.two_theta_axis),
    )


def build_panel(shape: PanelShape, values: Values) -> Panel:
    """The detector.

    Args:
        shape: What it is.
        values: ``distance_mm``, ``beam_center_mm`` and ``rotations_deg``.
    """
    mount = build_mount(shape, values)
    origin = (origin_about_beam if shape.pivot == "beam" else origin_about_sample)(mount)
    pixel = origin.new_tensor(shape.pixel_size_mm / 1000)
    return Panel(origin, *rotated_frame(mount), pixel, shape.pixels, _sensor(shape.sensor, origin))


def _sensor(sensor: SensorLayers, like: Tensor) -> Sensor | None:
    if sensor.thickness_um == 0:
        return None
    edges = torch.linspace(0, sensor.thickness_um * 1e-6, sensor.layers + 1, dtype=like.dtype, device=like.device)
    return Sensor(like.new_tensor(1e6 / sensor.attenuation_um), edges, (edges[1:] + edges[:-1]) / 2)


def build_beam(beam: BeamSettings, convention: Convention, values: Values, spreading: frozenset[str]) -> Beam:
    """The incident waves: a grid of directions times one of wavelengths, all of the same weight.

    Args:
        beam: Settings.
        convention: Directions of beam and polarisation.
        values: ``wavelength_A``, and what ``spreading`` names.
        spreading: Gaussian spreads that the beam has: ``divergence_rms_mrad``, ``bandwidth_rms_percent``.
    """
    wavelength = values["wavelength_A"]
    axis = wavelength.new_tensor(convention.polarization)
    widths = (beam.divergence_mrad[0] / 1000, beam.divergence_mrad[1] / 1000)
    horizontal, vertical = (a.to(wavelength.device) for a in divergence_grid(widths, beam.divergence_steps))
    directions = tilted_directions(wavelength.new_tensor(convention.beam), axis, horizontal, vertical)
    spread = centred_grid(beam.dispersion_percent / 100, beam.dispersion_steps).to(wavelength.device)
    count = len(directions) * len(spread)
    return Beam(
        direction=directions.repeat_interleave(len(spread), 0),
        wavelength=(wavelength * (1 + spread)).repeat(len(directions)),
        weight=wavelength.new_full((count,), 1 / count),
        fluence=wavelength.new_tensor(beam.fluence),
        kahn=None if beam.polarization is None else wavelength.new_tensor(beam.polarization),
        polarization_axis=axis,
        divergence=values["divergence_rms_mrad"] / 1000 if "divergence_rms_mrad" in spreading else None,
        bandwidth=values["bandwidth_rms_percent"] / 100 if "bandwidth_rms_percent" in spreading else None,
    )


def build_scan(scan: ScanRange, convention: Convention, like: Tensor) -> Scan:
    """Spindle positions at the middle of each step."""
    step = math.radians(scan.osc_deg) / scan.steps
    middles = (torch.arange(scan.steps, dtype=like.dtype, device=like.device) + 0.5) * step
    phi = math.radians(scan.phi_start_deg) + middles
    width = like.new_tensor(step) if step > 0 else None
    return Scan(like.new_tensor(convention.spindle), phi, torch.full_like(phi, 1 / scan.steps), width)
