"""What an image's header says about the experiment against what the configuration says."""

from typing import Any

import numpy as np

from refine.errors import required
from refine.experiment.builders import convention_of, default_centre_mm
from refine.formats.images import DetectorImage
from refine.settings.schema import Settings


def with_header(settings: Settings, header: dict[str, Any]) -> tuple[Settings, list[tuple[str, str, str, str]]]:
    """Fill what the configuration leaves open from an image's header.

    Returns:
        Complete settings, and rows (name, value, from the header, status) to show.

    Raises:
        InputError: if a value is given neither here nor there.
    """
    detector, beam = settings.detector, settings.beam
    rows: list[tuple[str, str, str, str]] = []
    found: dict[str, Any] = {}
    for section, name, given in (
        ("detector", "pixels", detector.pixels),
        ("detector", "pixel_size_mm", detector.pixel_size_mm),
        ("detector", "distance_mm", detector.distance_mm),
        ("beam", "wavelength_A", beam.wavelength_A),
        ("detector", "two_theta_deg", _two_theta(detector, header)),
        ("scan", "phi_start_deg", settings.scan.phi_start_deg),
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
    detector = detector.model_copy(
        update={n: found[n] for n in ("pixels", "pixel_size_mm", "distance_mm", "two_theta_deg")}
    )
    centre, row = _centre(detector, header)
    if settings.data.image is not None:
        rows.append(row)
    detector = detector.model_copy(update={"beam_center_mm": centre, "org_px": None})
    beam = beam.model_copy(update={"wavelength_A": found["wavelength_A"]})
    scan = settings.scan.model_copy(update={n: found[n] for n in ("phi_start_deg", "osc_deg")})
    return settings.model_copy(update={"detector": detector, "beam": beam, "scan": scan}), rows if header else []


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


def _centre(detector: Any, header: dict[str, Any]) -> tuple[tuple[float, float], tuple[str, str, str, str]]:
    """Beam centre (X, Y) [mm]: as given, or the header's in this convention, or the convention's default."""
    convention = convention_of(detector)
    pivot = detector.pivot or convention.pivot
    places = ["beam_fast_slow_mm", "foot_fast_slow_mm"]
    wanted, other = places if pivot == "beam" else places[::-1]
    upright = not any(detector.rotations_deg) and detector.two_theta_deg == 0
    fast_slow = header.get(wanted, header.get(other) if upright else None)
    said = header.get("beam_center_mm")
    if fast_slow is not None:
        fast, slow = fast_slow
        said = convention.x_y(fast, slow, detector.pixel_size_mm, detector.pixels[1] * detector.pixel_size_mm)
    given = detector.beam_center_mm
    if given is None and detector.org_px is not None:
        given = default_centre_mm(detector)
    centre = given or said or default_centre_mm(detector)
    row = _row("detector.beam_center_mm", centre, said, given is not None)
    if given is None and said is None:
        row = (*row[:3], f"default of {detector.convention}")
    return (centre[0], centre[1]), row


def _row(name: str, value: Any, said: Any, given: bool) -> tuple[str, str, str, str]:
    def text(v: Any) -> str:
        return " ".join(f"{x:g}" for x in np.ravel(v))

    if said is None:
        return name, text(value), "-", "configuration"
    same = bool(np.allclose(value, said, rtol=1e-5, atol=1e-9))
    return name, text(value), text(said), "agrees" if same and given else "from header" if not given else "overridden"
