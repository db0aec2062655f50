"""Settings from the headers of SMV images (``-mask``, then ``-img``), which the flags override afterwards."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from refine.errors import InputError, required

from .c_numbers import c_float
from .command import Command
from .vectors import DEGREES


def read_bytes(path: str, field: str) -> bytes:
    """Contents of an input file.

    Raises:
        InputError: if it cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise required(field, "a readable file", f"{path} ({getattr(error, 'strerror', None) or error})") from None


def ingest(tokens: Sequence[str], command: Command) -> np.ndarray | None:
    """Read the headers of the mask and of the image, in this order whatever the order of the flags.

    Returns:
        Values of the mask [slow, fast]; ``None`` without a mask.

    Raises:
        InputError: if a file is no SMV image or too short for its size.
    """
    mask = None
    for flag in ("-mask", "-img"):
        named = [tokens[i + 1] for i, token in enumerate(tokens[:-1]) if token.startswith("-") and flag in token]
        if not named:
            continue
        raw = read_bytes(named[-1], flag)
        header, size = _header(named[-1], raw)
        _apply(header, command, flipped=flag == "-mask")
        if flag == "-mask":
            mask = _values(named[-1], raw[size:], command)
    return mask


def _header(path: str, raw: bytes) -> tuple[str, int]:
    if not raw.startswith(b"{\nHEADER_BYT"):
        raise required(path, "an SMV image", "something else")
    size = int(_value(raw[:512].decode("latin-1"), "HEADER_BYTES") or 0)
    if not 0 < size <= len(raw):
        raise required(path, "a whole SMV header", f"{len(raw)} bytes of a header of {size}")
    return raw[:size].decode("latin-1"), size


def _value(header: str, keyword: str) -> float | None:
    """The number after the ``=`` that follows the last place where the keyword occurs, within other words too."""
    place = header.rfind(keyword)
    if place < 0:
        return None
    equals = header.find("=", place)
    if equals < 0:
        return None
    value = c_float(header[equals + 1 :].split("\n")[0])
    return value if np.isfinite(value) else 0.0


def _apply(header: str, command: Command, flipped: bool) -> None:
    def found(keyword: str) -> float | None:
        return _value(header, keyword)

    for axis, keyword in enumerate(("SIZE1", "SIZE2")):
        if (size := found(keyword)) is not None:
            command.pixels[axis] = int(size)
    if (pixel := found("PIXEL_SIZE")) is not None:
        command.pixel_size = pixel / 1000.0
        command.detector_size = [command.pixel_size * n for n in command.pixels]
    lengths = {
        "distance": "DISTANCE",
        "close_distance": "CLOSE_DISTANCE",
        "x_beam": "BEAM_CENTER_X",
        "y_beam": "BEAM_CENTER_Y",
    }
    for name, keyword in lengths.items():
        if (value := found(keyword)) is not None:
            setattr(command, name, value / 1000.0)
    if flipped and (value := found("BEAM_CENTER_Y")) is not None:
        command.y_beam = command.detector_size[1] - value / 1000.0
    if (value := found("WAVELENGTH")) is not None:
        command.wavelength = value / 1e10
    command.orgx, command.orgy = _first(found("ORGX"), command.orgx), _first(found("ORGY"), command.orgy)
    if (value := found("PHI")) is not None:
        command.phi = value / DEGREES
    if (value := found("OSC_RANGE")) is not None:
        command.osc = value / DEGREES


def _first(new: float | None, old: float | None) -> float | None:
    return old if new is None else new


def _values(path: str, raw: bytes, command: Command) -> np.ndarray:
    fast, slow = command.pixels
    if min(fast, slow) < 1 or len(raw) < 2 * fast * slow:
        raise InputError(f"{path}: expected {fast} x {slow} pixels, got {len(raw) // 2}")
    return np.frombuffer(raw, dtype=np.uint16, count=fast * slow).reshape(slow, fast)
