"""From what people write (degrees, millimetres, conventions) to records of sim_core; gradients pass through."""

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from refine.errors import required
from refine.experiment.conventions import CONVENTIONS, Convention, unit
from refine.settings.experiment import Beam as BeamSettings
from refine.settings.experiment import Detector as DetectorSettings
from refine.settings.experiment import Scan as ScanSettings
from sim_core import Beam, Crystal, Panel, Scan, Sensor
from sim_core.beam import centred_grid, divergence_grid, tilted_directions
from sim_core.bragg.mosaic import DomainSample, Misorientation, normal_domains, quadrature_domains, random_domains
from sim_core.detector import Frame, Mount, origin_about_beam, origin_about_sample, rotated_frame

Values = Mapping[str, Tensor]


def tensor(values: object) -> Tensor:
    """Double-precision tensor."""
    return torch.as_tensor(values, dtype=torch.float64)


def convention_of(detector: DetectorSettings) -> Convention:
    """The detector's convention; for ``custom`` with the vectors that were given.

    A normal that is not of unit length is replaced by fast x slow, as in the reference program.
    """
    base = CONVENTIONS[detector.convention]
    if detector.convention != "custom":
        return base
    given = {k: v for k, v in detector.custom.model_dump().items() if v is not None}
    merged = {name: given.get(name, getattr(base, name)) for name in detector.custom.model_dump()}
    units = {n: unit(v, f"detector.custom.{n}") for n, v in merged.items() if n != "normal"}
    normal = np.asarray(merged["normal"], dtype=np.float64)
    if float(np.linalg.norm(normal)) != 1.0:
        normal = unit(np.cross(units["fast"], units["slow"]), "detector.custom.fast x slow")
    _check_axes(units)
    vectors = {name: tuple(v.tolist()) for name, v in {**units, "normal": normal}.items()}
    return Convention(
        **vectors,
        swapped=base.swapped,
        half_pixel=base.half_pixel,
        flipped=base.flipped,
        default_centre=base.default_centre,
        pivot=base.pivot,
    )


def _check_axes(units: dict[str, np.ndarray]) -> None:
    for one, other in (("fast", "slow"), ("beam", "polarization")):
        if abs(float(units[one] @ units[other])) > 0.99:
            raise required(f"detector.custom.{other}", f"another direction than {one}", units[other].tolist())


def default_centre_mm(detector: DetectorSettings) -> tuple[float, float]:
    """Beam centre (X, Y) [mm] of the convention: from ``org_px`` or its own default."""
    assert detector.pixels is not None and detector.pixel_size_mm is not None
    pixel, convention = detector.pixel_size_mm, convention_of(detector)
    if detector.org_px is not None:
        fast, slow = ((o - 0.5) * pixel for o in detector.org_px)
    else:
        sizes = zip(detector.pixels, convention.default_centre, strict=True)
        fast, slow = ((n / 2 + shift) * pixel for n, shift in sizes)
    return convention.x_y(fast, slow, pixel, detector.pixels[1] * pixel)


def build_mount(detector: DetectorSettings, values: Values) -> tuple[Mount, str]:
    """How the panel stands, and its pivot."""
    assert detector.pixels is not None and detector.pixel_size_mm is not None
    convention, pixel = convention_of(detector), detector.pixel_size_mm
    like = values["distance_mm"]
    x, y = values["beam_center_mm"].unbind()
    fast, slow = convention.fast_slow(x, y, pixel, detector.pixels[1] * pixel)
    frame = Frame(*(like.new_tensor(v) for v in (convention.fast, convention.slow, convention.normal)))
    mount = Mount(
        frame=frame,
        beam=like.new_tensor(convention.beam),
        centre=torch.stack([fast, slow]) / 1000,
        distance=values["distance_mm"] / 1000,
        rotations=torch.deg2rad(values["rotations_deg"]),
        two_theta=like.new_tensor(math.radians(detector.two_theta_deg or 0.0)),
        two_theta_axis=like.new_tensor(convention.two_theta_axis),
    )
    return mount, detector.pivot or convention.pivot


def build_panel(detector: DetectorSettings, values: Values) -> Panel:
    """The detector.

    Args:
        detector: Settings with ``pixels`` and ``pixel_size_mm`` filled in.
        values: ``distance_mm``, ``beam_center_mm`` and ``rotations_deg``.
    """
    mount, pivot = build_mount(detector, values)
    origin = (origin_about_beam if pivot == "beam" else origin_about_sample)(mount)
    assert detector.pixels is not None and detector.pixel_size_mm is not None
    pixel = origin.new_tensor(detector.pixel_size_mm / 1000)
    return Panel(origin, *rotated_frame(mount), pixel, detector.pixels, _sensor(detector, origin))


def _sensor(detector: DetectorSettings, like: Tensor) -> Sensor | None:
    if detector.sensor_thickness_um == 0:
        return None
    thickness = detector.sensor_thickness_um * 1e-6
    attenuation = 1e6 / (detector.sensor_attenuation_um or detector.sensor_thickness_um)
    edges = torch.linspace(0, thickness, detector.sensor_layers + 1, dtype=like.dtype, device=like.device)
    return Sensor(like.new_tensor(attenuation), edges, (edges[1:] + edges[:-1]) / 2)


def build_beam(beam: BeamSettings, convention: Convention, values: Values, spreading: Collection[str] = ()) -> Beam:
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


def build_crystal(values: Values, orientation: Tensor) -> Crystal:
    """The crystal, from cell [A, deg], misset [deg], mosaic spread [deg] and number of cells."""
    cell = values["cell"]
    return Crystal(
        cell=torch.cat([cell[:3], torch.deg2rad(cell[3:])]),
        orientation=orientation,
        misset=torch.deg2rad(values["misset_deg"]),
        n_cells=values["n_cells"],
        mosaic_spread=torch.deg2rad(values["mosaic_spread_deg"]),
    )


def build_scan(scan: ScanSettings, convention: Convention, like: Tensor) -> Scan:
    """Spindle positions at the middle of each step."""
    assert scan.osc_deg is not None and isinstance(scan.phi_start_deg, float)
    step = math.radians(scan.osc_deg) / scan.phi_steps
    middles = (torch.arange(scan.phi_steps, dtype=like.dtype, device=like.device) + 0.5) * step
    phi = math.radians(scan.phi_start_deg) + middles
    width = like.new_tensor(step) if step > 0 else None
    return Scan(like.new_tensor(convention.spindle), phi, torch.full_like(phi, 1 / scan.phi_steps), width)


def build_domains(model: str, count: int, seed: int, misorientation: Misorientation) -> DomainSample:
    """The sample of mosaic blocks of a configuration."""
    if model == "quadrature":
        return quadrature_domains(count, misorientation)
    return random_domains(count, seed) if misorientation == "cap" else normal_domains(count, seed)


def automatic_oversample(
    n_cells: Sequence[float], cell: Sequence[float], detector: DetectorSettings, wavelength_A: float
) -> int:
    """Sub-pixels that resolve the spots of the largest block: three across its first minimum.

    References: the automatic choice of nanoBragg.
    """
    assert detector.pixel_size_mm is not None and detector.distance_mm is not None
    largest = max(n * length for n, length in zip(n_cells, cell[:3], strict=True))
    return max(1, math.ceil(3 * largest / (wavelength_A * detector.distance_mm / detector.pixel_size_mm)))
