"""What an image's header says about the experiment against what the configuration says."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from refine.errors import required
from refine.experiment.builders import convention_of
from refine.experiment.instrument import Instrument, PanelShape, ScanRange, SensorLayers
from refine.formats.images import DetectorImage
from refine.settings.schema import Settings

Row = tuple[str, str, str, str]
"""Name, value, what the header says, and which of them is used."""


@dataclass(frozen=True)
class Setup:
    """The instrument of one frame, and where its refinable numbers start.

    Attributes:
        instrument: Complete.
        values: ``wavelength_A``, ``distance_mm``, ``beam_center_mm`` and ``rotations_deg`` as given or read.
        rows: What came from where, to show; empty without a header.
    """

    instrument: Instrument
    values: dict[str, Any]
    rows: list[Row] = field(default_factory=list)


def set_up(
    settings: Settings, header: dict[str, Any], phi_start_deg: float | None, spreading: frozenset[str] = frozenset()
) -> Setup:
    """Fill what the configuration leaves open from an image's header.

    Args:
        settings: The configuration.
        header: Of the image; empty without one.
        phi_start_deg: Of this frame, where it is given.
        spreading: Gaussian spreads that the beam has.

    Raises:
        InputError: if a value is given neither here nor there.
    """
    detector, beam = settings.detector, settings.beam
    rows: list[Row] = []
    found: dict[str, Any] = {}
    for section, name, given in (
        ("detector", "pixels", detector.pixels),
        ("detector", "pixel_size_mm", detector.pixel_size_mm),
        ("detector", "distance_mm", detector.distance_mm),
        ("beam", "wavelength_A", beam.wavelength_A),
        ("detector", "two_theta_deg", _two_theta(detector, header)),
        ("scan", "phi_start_deg", phi_start_deg),
        ("scan", "osc_deg", settings.scan.osc_deg),
    ):
        value = given if given is not None else header.get(name, 0.0 if section == "scan" else None)
        if value is None:
            where = "the image's header does not say" if settings.data.image else "there is no image with a header"
            raise required(f"{section}.{name}", f"a value ({where})", "null")
        if name in ("pixel_size_mm", "distance_mm", "wavelength_A") and not float(np.min(value)) > 0:
            raise required(f"{section}.{name}", "a value above zero", f"{value} from the image's header")
        found[name] = value
        rows.append(_row(f"{section}.{name}", value, header.get(name), given is not None))
    shape = panel_shape(detector, tuple(found["pixels"]), found["pixel_size_mm"], found["two_theta_deg"])
    centre, row = _centre(detector, shape, header)
    if settings.data.image is not None:
        rows.append(row)
    scan = ScanRange(float(found["phi_start_deg"]), float(found["osc_deg"]), settings.scan.phi_steps)
    values = {"wavelength_A": found["wavelength_A"], "distance_mm": found["distance_mm"]}
    values |= {"beam_center_mm": centre, "rotations_deg": detector.rotations_deg}
    return Setup(Instrument(shape, beam, spreading, scan), values, rows if header else [])


def panel_shape(detector: Any, pixels: tuple[int, int], pixel_size_mm: float, two_theta_deg: float) -> PanelShape:
    """The panel of the configuration's section, with what a header filled in."""
    convention = convention_of(detector)
    thickness = detector.sensor_thickness_um
    sensor = SensorLayers(thickness, detector.sensor_attenuation_um or thickness, detector.sensor_layers)
    return PanelShape(convention, detector.pivot or convention.pivot, pixels, pixel_size_mm, two_theta_deg, sensor)


def default_centre_mm(shape: PanelShape, org_px: tuple[float, float] | None = None) -> tuple[float, float]:
    """Beam centre (X, Y) [mm] of the convention: from ``org_px`` or its own default."""
    pixel, convention = shape.pixel_size_mm, shape.convention
    if org_px is not None:
        fast, slow = ((o - 0.5) * pixel for o in org_px)
    else:
        sizes = zip(shape.pixels, convention.default_centre, strict=True)
        fast, slow = ((n / 2 + shift) * pixel for n, shift in sizes)
    return convention.x_y(fast, slow, pixel, shape.slow_size_mm)


def _two_theta(detector: Any, header: dict[str, Any]) -> float:
    """As given, or zero; a header does not say about which axis its detector is swung."""
    if detector.two_theta_deg is not None:
        return float(detector.two_theta_deg)
    if header.get("two_theta_deg"):
        wanted = f"a value (the header says {header['two_theta_deg']:g}, but not about which axis)"
        raise required("detector.two_theta_deg", wanted, "null")
    return 0.0


def header_of(image: DetectorImage) -> dict[str, Any]:
    """The header's values, with the size of the image among them."""
    slow, fast = image.counts.shape
    return {**image.header, "pixels": (fast, slow)}


def _centre(detector: Any, shape: PanelShape, header: dict[str, Any]) -> tuple[tuple[float, float], Row]:
    """Beam centre (X, Y) [mm]: as given, or the header's in this convention, or the convention's default."""
    places = ["beam_fast_slow_mm", "foot_fast_slow_mm"]
    wanted, other = places if shape.pivot == "beam" else places[::-1]
    upright = not any(detector.rotations_deg) and shape.two_theta_deg == 0
    fast_slow = header.get(wanted, header.get(other) if upright else None)
    said = header.get("beam_center_mm")
    if fast_slow is not None:
        fast, slow = fast_slow
        said = shape.convention.x_y(fast, slow, shape.pixel_size_mm, shape.slow_size_mm)
    given = detector.beam_center_mm
    if given is None and detector.org_px is not None:
        given = default_centre_mm(shape, detector.org_px)
    centre = given or said or default_centre_mm(shape)
    row = _row("detector.beam_center_mm", centre, said, given is not None)
    if given is None and said is None:
        row = (*row[:3], f"default of {detector.convention}")
    return (float(centre[0]), float(centre[1])), row


def _row(name: str, value: Any, said: Any, given: bool) -> Row:
    def text(v: Any) -> str:
        return " ".join(f"{x:g}" for x in np.ravel(v))

    if said is None:
        return name, text(value), "-", "configuration"
    same = bool(np.allclose(value, said, rtol=1e-5, atol=1e-9))
    return name, text(value), text(said), "agrees" if same and given else "from header" if not given else "overridden"
