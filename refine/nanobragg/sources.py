"""The incident plane waves: divergence, dispersion, or a file."""

import math
import re
from dataclasses import dataclass

from refine.errors import required

from .c_numbers import c_float
from .command import Command
from .geometry import Geometry
from .ingest import read_bytes
from .sampling import Steps, even_steps
from .vectors import Vector, rotated_about, scaled, unit

LARGEST_NUMBER = 1_000_000


@dataclass(frozen=True)
class Source:
    """A plane wave: direction of flight and wavelength [m]; all have the same weight."""

    direction: Vector
    wavelength: float


def build(command: Command, geometry: Geometry) -> list[Source]:
    """The plane waves in the order in which they are summed.

    Raises:
        InputError: if there is none, or a wavelength is not positive.
    """
    sources = _grid(command, geometry) if command.source_file is None else _from_file(command, geometry)
    if not sources:
        raise required("beam", "at least one plane wave", "none")
    for source in sources:
        if not (source.wavelength > 0.0 and math.isfinite(source.wavelength)):
            raise required("-lambda", "a positive wavelength", f"{source.wavelength * 1e10:g} A")
    return sources


def _flight(position: Vector) -> Vector:
    x, y, z = unit(position)
    return (-x, -y, -z)


def _from_file(command: Command, geometry: Geometry) -> list[Source]:
    """Lines ``x y z weight wavelength``: the weight is read over, and the wavelength [m] counts."""
    text = read_bytes(str(command.source_file), "-sourcefile").decode("latin-1")
    complete = text.endswith("\n")
    lines = text.split("\n")[: -1 if complete else None]
    sources = []
    for number, line in enumerate(lines):
        if not line.strip():
            continue
        fields = [c_float(word) for word in re.split(r"[ \t,;:!]+", line.strip(" \t,;:!\r")) if word]
        defaults = [*scaled(geometry.beam, -10.0), 1.0, command.wavelength]
        if not complete and number == len(lines) - 1:
            defaults = [0.0] * 5
        x, y, z, _, wavelength = (fields + defaults[len(fields) :])[:5]
        sources.append(Source(_flight((x, y, z)), wavelength))
    return sources


def _grid(command: Command, geometry: Geometry) -> list[Source]:
    """Horizontal angle outermost, wavelength innermost; corners outside an ellipse are trimmed."""
    h, v = (
        even_steps(command.divergence_steps[i], command.divergence[i], command.divergence_step[i], name)
        for i, name in enumerate(("-hdivstep", "-vdivstep"))
    )
    w = even_steps(command.dispersion_steps, command.dispersion, -1.0, "-dispersion")
    if h.count * v.count * w.count > LARGEST_NUMBER:
        raise required("beam", f"at most {LARGEST_NUMBER} plane waves", h.count * v.count * w.count)
    sources = []
    for i in range(h.count):
        horizontal = h.step * i - h.range / 2.0
        for j in range(v.count):
            vertical = v.step * j - v.range / 2.0
            if command.round_divergence and 4.0 * (_ellipse(h, horizontal) + _ellipse(v, vertical)) > 1.1:
                continue
            turned = rotated_about(scaled(geometry.beam, -10.0), geometry.polarization, vertical)
            direction = _flight(rotated_about(turned, geometry.vertical, horizontal))
            for k in range(w.count):
                wavelength = command.wavelength * (1.0 + w.step * k - w.range / 2.0)
                sources.append(Source(direction, wavelength))
    return sources


def _ellipse(steps: Steps, angle: float) -> float:
    """One axis of the ellipse's equation; not a number for a range of zero, so that nothing is trimmed then."""
    if steps.range * steps.range == 0.0:
        return math.nan
    return (angle * angle - (steps.step * steps.step / 4.0) * (1 - steps.count % 2)) / (steps.range * steps.range)
