"""The image files: float, scaled integers, picture, noise; and the statistics that scale them."""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from refine.errors import InputError
from refine.paths import replacing

from .geometry import dials_origin
from .setup import Setup
from .vectors import DEGREES

HEADER = 512
BAND = 1 << 20
"""Pixels that are converted at a time."""


@dataclass(frozen=True)
class Statistics:
    """Of an image: the brightest pixel (slow, fast) and moments over the pixels that were evaluated.

    ``rmsd`` is taken over the whole region of interest, pixels left out by the mask among them.
    """

    largest: float
    place: tuple[int, int]
    mean: float
    rms: float
    rmsd: float


class Console:
    """Prints the reference's messages.

    Args:
        to_error: To standard error, where standard output is for something else.
    """

    def __init__(self, to_error: bool = False) -> None:
        self.to_error = to_error

    def __call__(self, line: str) -> None:
        """Print one line."""
        print(line, file=sys.stderr if self.to_error else sys.stdout)


def write(path: str, parts: Iterable[bytes]) -> None:
    """Write a file beside its place and rename it; what is no regular file (``/dev/null``) is written directly.

    Raises:
        InputError: if it cannot be written.
    """
    target = Path(path)
    try:
        if target.exists() and not target.is_file():
            with target.open("wb") as file:
                file.writelines(parts)
            return
        with replacing(target) as temporary, temporary.open("wb") as file:
            file.writelines(parts)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path or repr(path)}: cannot be written, {reason}") from None


def region(setup: Setup) -> tuple[slice, slice]:
    """The region of interest as slices (slow, fast)."""
    x0, x1, y0, y1 = setup.geometry.roi
    return slice(y0, y1 + 1), slice(x0, x1 + 1)


def bands(image: np.ndarray) -> Iterator[slice]:
    """Runs of rows of about :data:`BAND` pixels."""
    step = max(1, BAND // max(1, image.shape[1]))
    return (slice(i, i + step) for i in range(0, image.shape[0], step))


def _running_total(parts: Iterable[np.ndarray]) -> float:
    """Sum in order, one after the other, as a loop would."""
    total = 0.0
    for part in parts:
        if part.size:
            total = float(np.add.accumulate(np.concatenate([[total], part.ravel()]))[-1])
    return total


def statistics(image: np.ndarray, setup: Setup) -> Statistics:
    """Moments of an image [slow, fast] in single precision."""
    evaluated = int(setup.mask.sum())
    with np.errstate(all="ignore"):
        total = _running_total(image[b][setup.mask[b]].astype(np.float64) for b in bands(image))
        squares = _running_total((image[b][setup.mask[b]] ** 2).astype(np.float64) for b in bands(image))
        mean = total / evaluated if evaluated else 0.0
        inside = image[region(setup)]
        deviations = _running_total((inside[b].astype(np.float64) - mean) ** 2 for b in bands(inside))
        rms = float(np.sqrt(np.float64(squares) / (evaluated - 1.0)))
        rmsd = float(np.sqrt(np.float64(deviations) / (inside.size - 1.0)))
    place = int(np.argmax(image)) if image.size else 0
    largest = float(image.flat[place])
    return Statistics(max(largest, 0.0), (place // image.shape[1], place % image.shape[1]), mean, rms, rmsd)


def integer_scale(setup: Setup, stats: Statistics) -> float:
    """The given scale, or one that makes the brightest pixel 55000."""
    if setup.command.scale > 0.0:
        return setup.command.scale
    return 55000.0 / stats.largest if stats.largest > 0.0 else 1.0


def picture_scale(setup: Setup, stats: Statistics, integer: float) -> float:
    """The given scale, or one that makes five standard deviations 250."""
    if setup.command.pgm_scale > 0.0:
        return setup.command.pgm_scale
    return 250.0 / (5.0 * stats.rmsd) if stats.rmsd > 0.0 else integer


def scaled_counts(image: np.ndarray, setup: Setup, scale: float) -> np.ndarray:
    """Rounded counts of 16 bits, zero outside the region of interest."""
    counts = np.zeros(image.shape, dtype=np.uint16)
    source, target = image[region(setup)], counts[region(setup)]
    for band in bands(source):
        value = np.clip(source[band].astype(np.float64) * scale + setup.command.adc, 0.0, 65535.0)
        target[band] = np.floor((np.nan_to_num(value) + 0.5).astype(np.float32)).clip(0, 65535)
    return counts


def picture(image: np.ndarray, setup: Setup, scale: float) -> Iterator[bytes]:
    """A PGM file of 8 bits."""
    fast, slow = setup.geometry.pixels
    yield b"P5\n%d %d\n# pixels scaled by %s\n255\n" % (fast, slow, (b"%g" % scale))
    for band in bands(image):
        values = np.minimum(255.0, image[band].astype(np.float64) * scale)
        yield np.nan_to_num(values).clip(0, 255).astype(np.uint8).tobytes()


def smv_header(setup: Setup) -> bytes:
    """The header of the SMV images: 512 bytes."""
    g, c = setup.geometry, setup.command
    px = g.pixel_size
    (x, y), (f, s), (fclose, sclose) = g.x_y_beam, g.beam_centre, g.foot
    entries: dict[str, float | str] = {
        "SIZE1": g.pixels[0],
        "SIZE2": g.pixels[1],
        "PIXEL_SIZE": px * 1000.0,
        "DISTANCE": g.distance * 1000.0,
        "WAVELENGTH": c.wavelength * 1e10,
        "BEAM_CENTER_X": x * 1000.0,
        "BEAM_CENTER_Y": y * 1000.0,
        "ADXV_CENTER_X": f * 1000.0,
        "ADXV_CENTER_Y": (g.detector_size[1] - s) * 1000.0,
        "MOSFLM_CENTER_X": (s - 0.5 * px) * 1000.0,
        "MOSFLM_CENTER_Y": (f - 0.5 * px) * 1000.0,
        "DENZO_X_BEAM": s * 1000.0,
        "DENZO_Y_BEAM": f * 1000.0,
        "DIALS_ORIGIN": ",".join(f"{v:g}" for v in dials_origin(g)),
        "XDS_ORGX": fclose / px + 0.5,
        "XDS_ORGY": sclose / px + 0.5,
        "CLOSE_DISTANCE": g.close_distance * 1000.0,
        "PHI": c.phi * DEGREES,
        "OSC_START": c.phi * DEGREES,
        "OSC_RANGE": setup.phi.osc * DEGREES,
        "TWOTHETA": g.two_theta * DEGREES,
        "DETECTOR_SN": "000",
        "BEAMLINE": "fake",
    }
    text = "{\nHEADER_BYTES=512;\nDIM=2;\nBYTE_ORDER=little_endian;\nTYPE=unsigned_short;\n"
    for key, value in entries.items():
        end = "\n" if key == "DIALS_ORIGIN" else ";\n"
        text += f"{key}={value if isinstance(value, str) else format(value, 'g')}{end}"
    return (text + "}\f").encode("ascii").ljust(HEADER, b" ")[:HEADER]


def smv(counts: np.ndarray, setup: Setup) -> list[bytes]:
    """An SMV file of 16-bit counts."""
    return [smv_header(setup), counts.astype("<u2", copy=False).tobytes()]


def write_all(image: np.ndarray, setup: Setup, console: Console) -> None:
    """Write every file that the command line asks for.

    Args:
        image: Photons [slow, fast], single precision.
        setup: The run.
        console: Where the reference's messages go.
    """
    command = setup.command
    stats = statistics(image, setup)
    console(f"writing {command.float_file} as {image.size} 4-byte floats")
    write(command.float_file, (image[b].astype("<f4", copy=False).tobytes() for b in bands(image)))
    f, s = last_point(setup, stats.place)
    console(f"max_I = {stats.largest:g}  at {f:g} {s:g}")
    console(f"mean= {stats.mean:g} rms= {stats.rms:g} rmsd= {stats.rmsd:g}")
    scale = integer_scale(setup, stats)
    console(f"intfile_scale = {scale:g}")
    console(f"writing {command.int_file} as 2-byte integers")
    write(command.int_file, smv(scaled_counts(image, setup, scale), setup))
    if command.pgm_file is not None:
        brightness = picture_scale(setup, stats, scale)
        console(f"pgm_scale = {brightness:g}")
        console(f"writing {command.pgm_file} as 1-byte integers")
        write(command.pgm_file, picture(image, setup, brightness))
    if command.noise_file is not None:
        _write_noise(image, setup, console)


def _write_noise(image: np.ndarray, setup: Setup, console: Console) -> None:
    from .noise import add_noise

    command = setup.command
    counts = np.zeros(image.shape, dtype=np.uint16)
    rows, columns = region(setup)
    seed = np.array([command.seed], dtype=np.int64)
    photons, overloads = add_noise(
        image[rows, columns], float(command.adc), setup.generator.state, seed, counts[rows, columns]
    )
    console(f"{photons:.0f} photons on noise image ({overloads} overloads)")
    console(f"writing {command.noise_file} as 2-byte integers")
    write(str(command.noise_file), smv(counts, setup))


def last_point(setup: Setup, pixel: tuple[int, int]) -> tuple[float, float]:
    """Fast and slow [m] of the last sub-pixel of a pixel (slow, fast)."""
    n = setup.oversample
    sub = setup.geometry.pixel_size / n
    slow, fast = (sub * (p * n + n - 1) + sub / 2.0 for p in pixel)
    return fast, slow
