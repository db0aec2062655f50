"""What the headers of detector images say, in the configuration's names and units.

``beam_fast_slow_mm`` is the direct beam and ``foot_fast_slow_mm`` the foot of the perpendicular from the sample, both
from the outer corner of the first pixel along fast and slow; ``beam_center_mm`` is a pair (X, Y) that a header gives
without naming its convention.
"""

import math
import re
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  (registers the compressions of Eiger files)
import numpy as np

from refine.errors import required


def read_header(path: Path, raw: bytes) -> tuple[dict[str, Any], np.ndarray | None]:
    """Experiment's values and, where the file has one, the detector's own map of bad pixels.

    Args:
        path: The image.
        raw: Its bytes.

    Raises:
        InputError: if an entry that should be a number is none.
    """
    if raw.startswith(b"{") and b"HEADER_BYTES" not in raw[:64]:
        return _edf(path, raw[:16384].split(b"}", 1)[0].decode("latin-1")), None
    if raw.startswith(b"{"):
        return _smv(path, raw[:16384].split(b"}", 1)[0].decode("latin-1")), None
    if raw.startswith(b"###CBF"):
        return _mini_cbf(path, raw[:16384].decode("latin-1")), None
    if raw.startswith(b"\x89HDF"):
        return _hdf5(path)
    return {}, None


def _number(path: Path, name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise required(path, f"a number for {name} in the header", repr(text)) from None
    if not math.isfinite(value):
        raise required(path, f"a finite number for {name} in the header", text)
    return value


def _smv(path: Path, text: str) -> dict[str, Any]:
    entries = {key.strip(): value.strip() for key, value in re.findall(r"^([^={}\n]+)=([^;\n]*)", text, re.MULTILINE)}
    names = {
        "PIXEL_SIZE": "pixel_size_mm",
        "DISTANCE": "distance_mm",
        "WAVELENGTH": "wavelength_A",
        "OSC_START": "phi_start_deg",
        "OSC_RANGE": "osc_deg",
        "TWOTHETA": "two_theta_deg",
    }
    header: dict[str, Any] = {new: _number(path, old, entries[old]) for old, new in names.items() if old in entries}
    pixel = header.get("pixel_size_mm", 0.0)
    if {"MOSFLM_CENTER_X", "MOSFLM_CENTER_Y"} <= entries.keys():
        x, y = (_number(path, k, entries[k]) for k in ("MOSFLM_CENTER_X", "MOSFLM_CENTER_Y"))
        header["beam_fast_slow_mm"] = [y + pixel / 2, x + pixel / 2]
    elif {"BEAM_CENTER_X", "BEAM_CENTER_Y"} <= entries.keys():
        header["beam_center_mm"] = [_number(path, k, entries[k]) for k in ("BEAM_CENTER_X", "BEAM_CENTER_Y")]
    if {"XDS_ORGX", "XDS_ORGY"} <= entries.keys():
        header["foot_fast_slow_mm"] = [(_number(path, k, entries[k]) - 0.5) * pixel for k in ("XDS_ORGX", "XDS_ORGY")]
    return header


def _edf(path: Path, text: str) -> dict[str, Any]:
    entries = {key.strip(): value.strip() for key, value in re.findall(r"^([^={}\n]+)=([^;\n]*)", text, re.MULTILINE)}
    names = {
        "PSize_1": ("pixel_size_mm", 1e3),
        "SampleDistance": ("distance_mm", 1e3),
        "WaveLength": ("wavelength_A", 1e10),
    }
    header: dict[str, Any] = {
        new: factor * _number(path, old, entries[old]) for old, (new, factor) in names.items() if old in entries
    }
    if {"Center_1", "Center_2"} <= entries.keys() and "pixel_size_mm" in header:
        centre = [_number(path, k, entries[k]) for k in ("Center_1", "Center_2")]
        header["beam_fast_slow_mm"] = [c * header["pixel_size_mm"] for c in centre]
    return header


def _mini_cbf(path: Path, text: str) -> dict[str, Any]:
    number = r"([-+0-9.eE]+)"
    patterns = {
        "pixel_size_mm": (rf"# Pixel_size {number} m", 1e3),
        "distance_mm": (rf"# Detector_distance {number} m", 1e3),
        "wavelength_A": (rf"# Wavelength {number} A", 1.0),
        "phi_start_deg": (rf"# Start_angle {number} deg", 1.0),
        "osc_deg": (rf"# Angle_increment {number} deg", 1.0),
        "count_cutoff": (rf"# Count_cutoff {number} counts", 1.0),
    }
    header: dict[str, Any] = {}
    for name, (pattern, factor) in patterns.items():
        if found := re.search(pattern, text):
            header[name] = factor * _number(path, name, found[1])
    beam = re.search(rf"# Beam_xy \({number}, {number}\) pixels", text)
    if beam and "pixel_size_mm" in header:
        header["beam_fast_slow_mm"] = [_number(path, "Beam_xy", v) * header["pixel_size_mm"] for v in beam.groups()]
    return header


def _hdf5(path: Path) -> tuple[dict[str, Any], np.ndarray | None]:
    detector = "entry/instrument/detector/"
    places = {
        "pixel_size_mm": (detector + "x_pixel_size", 1e3),
        "distance_mm": (detector + "detector_distance", 1e3),
        "wavelength_A": ("entry/instrument/beam/incident_wavelength", 1.0),
        "count_cutoff": (detector + "detectorSpecific/countrate_correction_count_cutoff", 1.0),
    }
    with h5py.File(path, "r") as file:

        def scalar(place: str) -> float | None:
            return float(np.ravel(file[place][()])[0]) if place in file else None

        header: dict[str, Any] = {
            name: factor * value for name, (place, factor) in places.items() if (value := scalar(place)) is not None
        }
        centre = [scalar(detector + f"beam_center_{axis}") for axis in "xy"]
        if None not in centre and "pixel_size_mm" in header:
            header["beam_fast_slow_mm"] = [c * header["pixel_size_mm"] for c in centre if c is not None]
        mask = detector + "detectorSpecific/pixel_mask"
        return header, (file[mask][()] != 0 if mask in file else None)
