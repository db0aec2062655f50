"""Where the detector stands: beam centre, convention, pivot, and what the reference derives from them again."""

import math
import sys
from dataclasses import dataclass

from refine.errors import required
from refine.experiment.conventions import CONVENTIONS, Convention

from .command import PIX0, Command
from .vectors import Vector, cross, dot, length, rotated, rotated_about, scaled, unit

LARGEST_IMAGE = 1 << 28
"""Pixels of the largest image that is accepted."""


@dataclass(frozen=True)
class Geometry:
    """The final geometry; metres in the laboratory.

    Attributes:
        origin: Outer corner of the first pixel.
        beam_centre: Direct beam from that corner along fast and slow.
        foot: Foot of the sample's perpendicular from that corner along fast and slow.
        x_y_beam: The beam centre as the convention writes it, before any derivation.
        roi: First and last pixel along fast, then along slow.
    """

    fast: Vector
    slow: Vector
    normal: Vector
    beam: Vector
    polarization: Vector
    vertical: Vector
    spindle: Vector
    origin: Vector
    pixel_size: float
    pixels: tuple[int, int]
    detector_size: tuple[float, float]
    distance: float
    close_distance: float
    beam_centre: tuple[float, float]
    foot: tuple[float, float]
    x_y_beam: tuple[float, float]
    roi: tuple[int, int, int, int]
    two_theta: float


@dataclass(frozen=True)
class Centre:
    """Beam centre (F, S), foot of the perpendicular (F, S) and (X, Y) of the convention [m]."""

    beam: tuple[float, float]
    foot: tuple[float, float]
    x_y: tuple[float, float]


def detector_size(command: Command) -> tuple[tuple[int, int], tuple[float, float]]:
    """Number of pixels and size [m] along fast and slow.

    Raises:
        InputError: if there is no pixel, or there are too many for any memory.
    """
    pixel = command.pixel_size
    if not (pixel > 0.0 and math.isfinite(pixel)):
        raise required("-pixel", "a positive size", f"{pixel * 1000:g} mm")
    counts, sizes = [], []
    for n, size in zip(command.pixels, command.detector_size, strict=True):
        size = pixel * n if n != 0 else size
        count = math.ceil(size / pixel - 0.5) if math.isfinite(size / pixel) else -1
        counts.append(count)
        sizes.append(size)
    if min(counts) < 1 or counts[0] * counts[1] > LARGEST_IMAGE:
        raise required("-detpixels", f"between 1 and {LARGEST_IMAGE} pixels", f"{counts[0]} x {counts[1]}")
    return (counts[0], counts[1]), (sizes[0], sizes[1])


def _centre(command: Command, size: tuple[float, float]) -> Centre:
    """Beam centre by the convention's reading of X and Y; what a convention does not read it ignores."""
    px, name = command.pixel_size, command.convention
    foot = (
        (command.orgx - 0.5) * px if command.orgx is not None else size[0] / 2.0,
        (command.orgy - 0.5) * px if command.orgy is not None else size[1] / 2.0,
    )
    close = (
        foot[0] if command.x_close is None else command.x_close,
        foot[1] if command.y_close is None else command.y_close,
    )
    default = {
        "adxv": ((size[0] + px) / 2.0, (size[1] - px) / 2.0),
        "mosflm": ((size[1] + px) / 2.0, (size[0] + px) / 2.0),
        "denzo": ((size[1] + px) / 2.0, (size[0] + px) / 2.0),
    }.get(name, close)
    x = default[0] if command.x_beam is None else command.x_beam
    y = default[1] if command.y_beam is None else command.y_beam
    beam = {
        "adxv": (x, size[1] - y),
        "mosflm": (y + 0.5 * px, x + 0.5 * px),
        "denzo": (y, x),
    }.get(name, (x, y))
    return Centre(beam, (x, y) if name == "custom" else foot, (x, y))


def _vectors(command: Command, convention: Convention) -> dict[str, Vector]:
    """Unit vectors of the laboratory; a normal that is no unit vector gives way to the one of the plane."""
    given = command.vectors if command.convention == "custom" else {}
    defaults = {
        "fdet_vector": convention.fast,
        "sdet_vector": convention.slow,
        "odet_vector": convention.normal,
        "beam_vector": convention.beam,
        "polar_vector": convention.polarization,
        "spindle_axis": convention.spindle,
    }
    found = {name: unit(given.get(name, default)) for name, default in defaults.items()}
    normal = given.get("odet_vector", convention.normal)
    found["odet_vector"] = normal if length(normal) == 1.0 else unit(cross(found["fdet_vector"], found["sdet_vector"]))
    found["twotheta_axis"] = given.get("twotheta_axis", convention.two_theta_axis)
    for name, vector in found.items():
        if not length(vector) > 0.0:
            raise required(f"-{name}", "a vector of non-zero length", " ".join(f"{x:g}" for x in vector))
    return found


def _pivot(command: Command, convention: Convention) -> str:
    """The named conventions force their own pivot; ``spec`` lets the flag count."""
    if command.compat == "spec" and command.pivot_named is not None:
        return command.pivot_named
    return command.pivot if command.convention == "custom" else convention.pivot


def build(command: Command) -> Geometry:
    """Derive the geometry.

    Raises:
        InputError: if a size or a vector makes none.
    """
    pixels, size = detector_size(command)
    convention = CONVENTIONS[command.convention]
    centre = _centre(command, size)
    v = _vectors(command, convention)
    f, s, o = v["fdet_vector"], v["sdet_vector"], v["odet_vector"]
    beam, axis = v["beam_vector"], v["twotheta_axis"]
    angles = (command.rotations[0], command.rotations[1], command.rotations[2])

    ratio = dot(beam, rotated(o, angles)) or sys.float_info.min
    distance = 0.1 if command.distance is None else command.distance
    close = abs(ratio * distance) if command.close_distance is None else command.close_distance
    distance = close / ratio

    flat = tuple(-centre.foot[0] * f[i] - centre.foot[1] * s[i] + close * o[i] for i in range(3))
    about_sample = rotated_about(rotated((flat[0], flat[1], flat[2]), angles), axis, command.two_theta)
    f, s, o = (rotated_about(rotated(x, angles), axis, command.two_theta) for x in (f, s, o))
    if _pivot(command, convention) == "sample":
        origin = about_sample
    else:
        x, y, z = (-centre.beam[0] * f[i] - centre.beam[1] * s[i] + distance * beam[i] for i in range(3))
        origin = (x, y, z)
    given = command.vectors.get(PIX0) if command.compat == "spec" else None
    origin = given or origin

    close = dot(origin, o)
    distance = close / ratio
    to_beam = tuple(distance * beam[i] - origin[i] for i in range(3))
    offset = (to_beam[0], to_beam[1], to_beam[2])
    beam_centre = (dot(f, offset), dot(s, offset))
    if not all(math.isfinite(x) for x in (*origin, close, distance)):
        raise required("-distance", "a finite distance", f"{distance * 1000:g} mm")
    return Geometry(
        f, s, o, beam, v["polar_vector"], unit(cross(beam, v["polar_vector"])), v["spindle_axis"], origin,
        command.pixel_size, pixels, size, distance, close,
        beam_centre, (-dot(origin, f), -dot(origin, s)), centre.x_y if origin is not given else beam_centre,
        _roi(command, pixels), command.two_theta,
    )  # fmt: skip


def _roi(command: Command, pixels: tuple[int, int]) -> tuple[int, int, int, int]:
    x0, x1, y0, y1 = command.roi
    return (
        x0 if x0 >= 0 else 0,
        x1 if x1 >= 0 else pixels[0],
        y0 if y0 >= 0 else 0,
        y1 if y1 >= 0 else pixels[1],
    )


def dials_origin(geometry: Geometry) -> Vector:
    """The corner of the first pixel [mm] in the frame that the header uses for DIALS."""
    x, y, z = geometry.origin
    return scaled((z, y, -x), 1000.0)
