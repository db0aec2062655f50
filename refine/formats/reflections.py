"""Structure factor amplitudes: ``h k l F`` text, expanded to P1."""

from pathlib import Path

import numpy as np

from refine.errors import InputError, required


def read_hkl(path: Path, default: float) -> tuple[np.ndarray, np.ndarray]:
    """Read a list of reflections into a box.

    Args:
        path: A text file with one reflection a line, four columns h k l F; no symmetry is applied. The last of
            several entries of a reflection wins.
        default: |F| of a reflection inside the box that the file does not list.

    Returns:
        Table of |F| [electrons] by h, k, l, and the lowest h, k, l.

    Raises:
        InputError: if the file is empty, cannot be read as four columns, or holds a value that is not finite.
    """
    try:
        lines = [line.split() for line in path.read_text().splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise required(path, "text with four columns h k l F", "a binary file") from None
    if not lines:
        raise required(path, "at least one reflection h k l F", "an empty file")
    for number, fields in enumerate(lines, 1):
        if len(fields) != 4:
            raise required(path, "four columns h k l F", f"{len(fields)} in line {number}")
    try:
        values = np.array(lines, dtype=np.float64)
    except ValueError as error:
        raise InputError(f"{path}: expected numbers h k l F, {error}") from None
    if not np.isfinite(values).all() or (values[:, :3] % 1 != 0).any():
        raise required(path, "whole numbers h k l and finite F", "others")
    return _box(path, values[:, :3].astype(np.int64), values[:, 3], default)


def _box(path: Path, hkl: np.ndarray, amplitudes: np.ndarray, default: float) -> tuple[np.ndarray, np.ndarray]:
    low, high = hkl.min(0), hkl.max(0)
    if np.prod((high - low + 1).astype(float)) > 2e8:
        raise required(path, "indices that fit a box of 200 million reflections", f"{low} to {high}")
    table = np.full(high - low + 1, default)
    table[tuple((hkl - low).T)] = amplitudes
    return table, low
