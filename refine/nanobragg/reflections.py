"""Structure factors: a list ``h k l F``, its binary copy, or one amplitude for all."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from refine.errors import InputError, required
from refine.paths import replacing

from .c_numbers import float_prefix
from .command import Command
from .ingest import read_bytes

LARGEST_BOX = 200_000_000


@dataclass(frozen=True)
class Reflections:
    """Amplitudes |F| [electrons] in a box of indices.

    Attributes:
        table: |F| by h, k, l; empty without a list.
        low: Lowest h, k, l.
        listed: Number of reflections that were read.
    """

    table: np.ndarray
    low: tuple[int, int, int]
    listed: int


def load(command: Command) -> Reflections:
    """The list of ``-hkl``, or else the binary copy of an earlier run in the working folder, or else nothing.

    With ``spec`` the copy counts only where it is named, or where nothing else gives an amplitude.

    Raises:
        InputError: if there is no amplitude at all, or a file cannot be read.
    """
    if command.hkl_file is not None:
        reflections = _read_list(command.hkl_file, command.default_F, command.compat == "spec")
        _write_dump(Path(command.dump_file), reflections)
        return reflections
    wanted = command.compat == "c" or command.dump_named or command.default_F == 0.0
    if wanted and Path(command.dump_file).is_file():
        return _read_dump(command.dump_file)
    if command.default_F == 0.0:
        raise required("-hkl or -default_F", "structure factors", "none")
    return Reflections(np.zeros((0, 0, 0)), (0, 0, 0), 0)


def _read_list(path: str, default: float, by_lines: bool) -> Reflections:
    text = read_bytes(path, "-hkl").decode("latin-1")
    rows = _rows_of_lines(text) if by_lines else _rows_of_stream(text.split())
    if not rows:
        raise required(path, "reflections h k l F", "none")
    hkl = np.array([row[:3] for row in rows], dtype=np.int64)
    low, high = hkl.min(0), hkl.max(0)
    if np.prod((high - low + 1).astype(float)) > LARGEST_BOX:
        raise required(path, f"indices within a box of {LARGEST_BOX} reflections", f"{low} to {high}")
    table = np.full(high - low + 1, default)
    table[tuple((hkl - low).T)] = [row[3] for row in rows]
    return Reflections(table, (int(low[0]), int(low[1]), int(low[2])), len(rows))


def _rows_of_stream(words: list[str]) -> list[tuple[int, int, int, float]]:
    """Words in groups of four, up to the first that is no number: a further column shifts the ones after it."""
    rows = []
    for start in range(0, len(words) - 3, 4):
        h, k, l, F = words[start : start + 4]
        value = float_prefix(F)
        if value is None or not all(re.fullmatch(r"[-+]?\d{1,9}", index) for index in (h, k, l)):
            break
        rows.append((int(h), int(k), int(l), value))
    return rows


def _rows_of_lines(text: str) -> list[tuple[int, int, int, float]]:
    """The first four columns of each line; comments and lines that begin otherwise are left out."""
    rows = []
    for line in text.splitlines():
        row = _rows_of_stream(line.split("#")[0].split()[:4])
        rows += row
    return rows


def _write_dump(path: Path, reflections: Reflections) -> None:
    """Text of the box, then doubles with a plane, a row and an element of zeros at each end."""
    shape = reflections.table.shape
    padded = np.zeros([n + 1 for n in shape])
    padded[: shape[0], : shape[1], : shape[2]] = reflections.table
    box = " ".join(f"{low} {low + n - 1}" for low, n in zip(reflections.low, shape, strict=True))
    with replacing(path) as temporary:
        temporary.write_bytes(f"{box}\n\f".encode() + padded.tobytes())


def _read_dump(path: str) -> Reflections:
    raw = read_bytes(path, "-dump")
    found = re.match(rb"\s*([-+]?\d{1,9})" + rb"\s+([-+]?\d{1,9})" * 5, raw)
    if found is None:
        raise required(path, "a dump of structure factors", "something else")
    h0, h1, k0, k1, l0, l1 = (int(x) for x in found.groups())
    shape = (h1 - h0 + 1, k1 - k0 + 1, l1 - l0 + 1)
    if min(shape) < 1 or np.prod([float(n) for n in shape]) > LARGEST_BOX:
        raise required(path, f"a box of 1 to {LARGEST_BOX} reflections", f"{shape}")
    body = raw[found.end() :].lstrip(b" \t\n\v\f\r")
    padded = (shape[0] + 1, shape[1] + 1, shape[2] + 1)
    count = int(np.prod(padded))
    if len(body) < 8 * count - 8:
        raise InputError(f"{path}: expected {8 * count} bytes of structure factors, got {len(body)}")
    values = np.frombuffer((body + bytes(8))[: 8 * count], dtype=np.float64).reshape(padded)
    table = values[: shape[0], : shape[1], : shape[2]].copy()
    return Reflections(table, (h0, k0, l0), table.size)
