"""Detector images: every format behind one checked reader, and the writer of calculated images."""

import base64
import hashlib
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fabio
import numpy as np
from fabio.cbfimage import CbfImage

from refine.errors import InputError, required
from refine.formats.headers import read_header
from refine.paths import replacing


@dataclass(frozen=True)
class DetectorImage:
    """One exposure as it stands in its file.

    Attributes:
        path: The file.
        counts: Values [slow, fast] in detector units, double precision.
        valid: Pixels that the detector itself calls good (gaps and dead pixels are not).
        largest: The value at which pixels are taken as saturated; ``None`` for floating-point files.
        header: What the header says of the experiment, in the configuration's names and units.
        sha256: Digest of the file.
    """

    path: Path
    counts: np.ndarray
    valid: np.ndarray
    largest: float | None
    sha256: str
    header: dict[str, Any] = field(default_factory=dict)


def read_image(path: Path, frame: int = 0) -> DetectorImage:
    """Read one exposure from SMV, CBF, EDF, TIFF, HDF5 (Eiger, NeXus) or NumPy.

    Args:
        path: The file.
        frame: Which image of a file of several, from 0.

    Raises:
        InputError: if the file is damaged, truncated, of an unknown kind, not one two-dimensional image, or holds
            values that are not finite.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise required(path, "a readable file", error.strerror) from None
    if path.suffix == ".npy":
        if frame:
            raise required("data.frame", "0 for a file of one image", frame)
        values = _read_numpy(path)
    else:
        _check_container(path, raw)
        values = _read_fabio(path, frame)
    if values.ndim != 2 or values.size == 0:
        raise required(path, "one image of two dimensions", f"shape {values.shape}")
    if values.dtype.kind not in "uif":
        raise required(path, "pixels of whole or floating-point numbers", f"type {values.dtype}")
    try:
        header, bad = read_header(path, raw)
    except InputError:
        raise
    except Exception as error:
        raise required(path, "a readable header", _first_line(error)) from None
    integer = values.dtype.kind in "ui"
    counts = values.astype(np.float64)
    if not np.isfinite(counts).all():
        raise required(
            path, "finite pixel values", f"{(~np.isfinite(counts)).sum()} that are not (mask them as integers)"
        )
    valid = counts >= 0 if values.dtype.kind == "i" else np.ones(counts.shape, dtype=bool)
    if bad is not None and bad.shape == counts.shape:
        valid &= ~bad
    largest = float(np.iinfo(values.dtype).max) if integer else None
    cutoff = header.pop("count_cutoff", None)
    if largest is not None and cutoff:
        largest = min(largest, float(cutoff))
    return DetectorImage(path, counts, valid, largest, hashlib.sha256(raw).hexdigest(), header)


def write_cbf(path: Path, counts: np.ndarray, header: dict[str, str]) -> None:
    """Write counts [slow, fast], rounded, as a CBF with byte-offset compression.

    Args:
        path: File to write.
        counts: Expected counts in detector units.
        header: Lines of the mini-header: name and value with its unit.
    """
    contents = "\r\n".join(["# Detector: calculated", *(f"# {name} {value}" for name, value in header.items())])
    whole = np.clip(np.rint(counts), -(2**31), 2**31 - 1).astype(np.int32)
    with replacing(path) as temporary:
        CbfImage(data=whole, header={"_array_data.header_contents": contents}).write(str(temporary))


def write_smv(path: Path, counts: np.ndarray, header: dict[str, float]) -> None:
    """Write counts [slow, fast], rounded, as an SMV image of 16 bits; what is too bright is saturated.

    Args:
        path: File to write.
        counts: Expected counts in detector units.
        header: Entries of the header beside size and type.
    """
    slow, fast = counts.shape
    lines = ["HEADER_BYTES=512", "DIM=2", "BYTE_ORDER=little_endian", "TYPE=unsigned_short"]
    lines += [f"SIZE1={fast}", f"SIZE2={slow}", *(f"{name}={value:.9g}" for name, value in header.items())]
    text = "{\n" + "".join(f"{line};\n" for line in lines) + "}\f"
    whole = np.clip(np.rint(counts), 0, 65535).astype("<u2")
    with replacing(path) as temporary:
        temporary.write_bytes(text.encode("ascii").ljust(512) + whole.tobytes())


def write_numpy(path: Path, counts: np.ndarray) -> None:
    """Write counts [slow, fast] as they are.

    Args:
        path: File to write.
        counts: Expected counts in detector units.
    """
    with replacing(path) as temporary:
        np.save(temporary, counts)


def _read_numpy(path: Path) -> np.ndarray:
    try:
        return np.asarray(np.load(path, allow_pickle=False))
    except (ValueError, EOFError, OSError) as error:
        raise InputError(f"{path}: expected a NumPy array, {_first_line(error)}") from None


def _read_fabio(path: Path, frame: int) -> np.ndarray:
    """Pixels through fabio; whatever it only logs while reading (damage among it) is an error here."""
    try:
        with _recorded("fabio") as messages, fabio.open(str(path)) as image:
            if not 0 <= frame < image.nframes:
                raise required("data.frame", f"a number from 0 to {image.nframes - 1} for {path}", frame)
            values = np.asarray(image.data if image.nframes == 1 else image.get_frame(frame).data)
    except InputError:
        raise
    except Exception as error:
        raise required(path, "a readable detector image", _first_line(error)) from None
    if messages:
        raise required(path, "an undamaged detector image", messages[0])
    return values


def _check_container(path: Path, raw: bytes) -> None:
    """The checks that fabio leaves out: an empty file, an SMV's size and type, a CBF's checksum."""
    if not raw:
        raise required(path, "a detector image", "an empty file")
    if raw.startswith(b"{\nHEADER_BYTES") or raw.startswith(b"{\r\nHEADER_BYTES"):
        _check_smv(path, raw)
    elif raw.startswith(b"###CBF"):
        _check_cbf(path, raw)


def _check_smv(path: Path, raw: bytes) -> None:
    text = raw[:16384].split(b"}", 1)[0].decode("latin-1")
    entries = {key.strip(): value.strip() for key, value in re.findall(r"^([^={}\n]+)=([^;\n]*)", text, re.MULTILINE)}
    try:
        header, fast, slow = (int(entries[key]) for key in ("HEADER_BYTES", "SIZE1", "SIZE2"))
    except (KeyError, ValueError):
        raise required(path, "an SMV header with HEADER_BYTES, SIZE1 and SIZE2", "none") from None
    kind = entries.get("TYPE", "unsigned_short")
    if kind != "unsigned_short":
        raise required(path, "SMV pixels of TYPE unsigned_short", kind)
    expected = header + fast * slow * 2
    if len(raw) < expected:
        raise required(path, f"{expected} bytes (header and {fast} x {slow} pixels)", f"a truncated file of {len(raw)}")


def _check_cbf(path: Path, raw: bytes) -> None:
    start = raw.find(b"\x0c\x1a\x04\xd5")
    size = re.search(rb"X-Binary-Size:\s*(\d+)", raw)
    if start < 0 or size is None:
        raise required(path, "a CBF with a binary section", "none")
    binary = raw[start + 4 : start + 4 + int(size[1])]
    if len(binary) < int(size[1]):
        raise required(path, f"a CBF with {int(size[1])} bytes of pixels", f"a truncated file with {len(binary)}")
    digest = re.search(rb"Content-MD5:\s*(\S+)", raw[:start])
    actual = base64.b64encode(hashlib.md5(binary, usedforsecurity=False).digest())
    if digest is not None and digest[1] != actual:
        raise required(path, "an undamaged CBF", "pixels that do not agree with its Content-MD5")


@contextmanager
def _recorded(logger_name: str) -> Iterator[list[str]]:
    """Collect the warnings and errors that a library logs, instead of showing them."""
    messages: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(_first_line(record.getMessage()))  # type: ignore[method-assign]
    logger = logging.getLogger(logger_name)
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


def _first_line(error: object) -> str:
    return str(error).strip().split("\n")[0][:160] or type(error).__name__
