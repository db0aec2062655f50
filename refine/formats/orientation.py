"""Orientation matrices in MOSFLM's form."""

from pathlib import Path

import numpy as np

from refine.errors import required
from refine.paths import replacing


def read_mat(path: Path, wavelength: float) -> np.ndarray:
    """Reciprocal vectors a*, b*, c* [1/A] as columns, from a MOSFLM ``.mat`` (wavelength times A).

    Args:
        path: A text file whose first nine numbers are the matrix, row by row.
        wavelength: Wavelength [A] that the file's matrix carries.

    Raises:
        InputError: if there are no nine numbers or they are no right-handed matrix.
    """
    try:
        numbers = [float(word) for word in path.read_text().split()[:9]]
    except (UnicodeDecodeError, ValueError):
        raise required(path, "nine numbers of a MOSFLM matrix", "something else") from None
    if len(numbers) != 9:
        raise required(path, "nine numbers of a MOSFLM matrix", len(numbers))
    matrix = np.array(numbers).reshape(3, 3) / wavelength
    if not np.linalg.det(matrix) > 0:
        raise required(path, "a right-handed matrix", f"determinant {np.linalg.det(matrix):g}")
    return matrix


def write_mat(path: Path, reciprocal: np.ndarray, orientation: np.ndarray, cell: np.ndarray, wavelength: float) -> None:
    """Write a MOSFLM ``.mat``: wavelength x A, missetting angles of zero, U, the cell, missetting angles again.

    Args:
        path: File to write.
        reciprocal: Columns a*, b*, c* [1/A], misset included.
        orientation: U of A = U B.
        cell: a, b, c [A], alpha, beta, gamma [degrees].
        wavelength: Wavelength [A].
    """
    zeros = "".join(f"{0.0:12.3f}" for _ in range(3))
    rows = ["".join(f"{v:16.12f}" for v in row) for row in wavelength * reciprocal]
    turns = ["".join(f"{v:16.12f}" for v in row) for row in orientation]
    lines = [*rows, zeros, *turns, "".join(f"{v:12.4f}" for v in cell), zeros]
    with replacing(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n")
