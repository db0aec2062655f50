"""The crystal: cell and matrix to vectors, size, sub-pixels that its spots ask for."""

import math
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from refine.errors import required
from sim_core.unit_cell import reciprocal_basis

from .c_numbers import float_prefix
from .command import Command
from .generator import Generator, rotation_angles
from .ingest import read_bytes
from .vectors import Matrix, Vector, cross, dot, length, rescaled, rotated, scaled

Triple = tuple[Vector, Vector, Vector]


@dataclass(frozen=True)
class Lattice:
    """Vectors of the unit cell.

    Attributes:
        direct: a, b, c [A] at the spindle's zero.
        reciprocal: a*, b*, c* [1/A].
        volume: Volume [A^3]; negative for a left-handed matrix.
        misset: Rotations about lab x, y, z [rad].
    """

    direct: Matrix
    reciprocal: Matrix
    volume: float
    misset: Vector


@dataclass(frozen=True)
class Cell:
    """Lengths [A], angles [rad] and volume [A^3]."""

    lengths: Vector
    angles: Vector
    volume: float


def user_cell(command: Command) -> Cell | None:
    """The cell of the command line with its gaps filled: b = c = a and right angles.

    Raises:
        InputError: if the first length is not positive.
    """
    if command.cell is None:
        return None
    a, b, c = command.cell[:3]
    if not (a > 0.0 and all(math.isfinite(x) for x in command.cell)):
        raise required("-cell", "a positive length a and finite numbers", " ".join(f"{x:g}" for x in command.cell[:3]))
    b, c = (x if x > 0.0 else a for x in (b, c))
    al, be, ga = (x if x > 0.0 else math.pi / 2 for x in command.cell[3:])
    half = (al + be + ga) / 2
    skew = math.sin(half) * math.sin(half - al) * math.sin(half - be) * math.sin(half - ga)
    volume = 2.0 * a * b * c * math.sqrt(abs(skew))
    return Cell((a, b, c), (al, be, ga), volume if volume > 0.0 else sys.float_info.min)


def _clamped(value: float) -> float:
    return min(max(value, -1.0), 1.0)


def reciprocal_by_reference(cell: Cell) -> Triple:
    """a*, b*, c* [1/A] with the reference's c*, whose z divides by sin gamma* where the geometry has sin gamma.

    The lengths are mended later and the angles are not: a triclinic cell is off by up to some 0.1 degrees. Exact for
    monoclinic, orthogonal and hexagonal cells.
    """
    (a, b, c), (al, be, ga), v = cell.lengths, cell.angles, cell.volume
    a_star, b_star, c_star = b * c * math.sin(al) / v, c * a * math.sin(be) / v, a * b * math.sin(ga) / v
    cos_al = (math.cos(be) * math.cos(ga) - math.cos(al)) / (math.sin(be) * math.sin(ga))
    cos_be = (math.cos(ga) * math.cos(al) - math.cos(be)) / (math.sin(ga) * math.sin(al))
    cos_ga = (math.cos(al) * math.cos(be) - math.cos(ga)) / (math.sin(al) * math.sin(be))
    sin_ga = _clamped(c / (v * a_star * b_star))
    cos_al, cos_be, cos_ga = (1.0 if x * x > 1.0 else x for x in (cos_al, cos_be, cos_ga))
    return (
        (a_star, 0.0, 0.0),
        (b_star * cos_ga, b_star * sin_ga, 0.0),
        (
            c_star * cos_be,
            c_star * (cos_al - cos_be * cos_ga) / sin_ga,
            c_star * v / (a * b * c * sin_ga),
        ),
    )


def _exact_reciprocal(cell: Cell) -> Triple:
    """a*, b*, c* [1/A] of the exact triclinic metric."""
    basis = reciprocal_basis(torch.tensor([*cell.lengths, *cell.angles], dtype=torch.float64))
    a, b, c = (tuple(float(x) for x in basis[:, i]) for i in range(3))
    return ((a[0], a[1], a[2]), (b[0], b[1], b[2]), (c[0], c[1], c[2]))


def read_matrix(path: str, wavelength: float) -> Triple:
    """a*, b*, c* [1/A] from a file of the wavelength times A, row by row.

    Raises:
        InputError: if the file has no nine numbers.
    """
    words = read_bytes(path, "-mat").decode("latin-1").split()[:9]
    numbers = [x for x in (float_prefix(word) for word in words) if x is not None]
    if len(numbers) < 9 or not all(math.isfinite(x) for x in numbers):
        raise required(Path(path), "nine numbers", len(numbers))
    factor = 1e-10 / wavelength
    rows = [[x * factor for x in numbers[i : i + 3]] for i in (0, 3, 6)]
    a, b, c = ((rows[0][i], rows[1][i], rows[2][i]) for i in range(3))
    return (a, b, c)


def build(command: Command, generator: Generator) -> Lattice:
    """Orient the cell.

    Raises:
        InputError: if there is neither a cell nor a matrix, or their vectors lie in a plane.
    """
    cell = user_cell(command)
    if command.matrix_file is not None:
        vectors = read_matrix(command.matrix_file, command.wavelength)
    elif cell is not None:
        vectors = _exact_reciprocal(cell) if command.compat == "spec" else reciprocal_by_reference(cell)
    else:
        raise required("-cell or -mat", "a unit cell or a matrix", "neither")
    misset = command.misset or (0.0, 0.0, 0.0)
    if command.misset_random:
        misset = rotation_angles(generator.rotation(90.0, [command.misset_seed]))
    a_star, b_star, c_star = (rotated(v, misset) for v in vectors)
    return _completed(a_star, b_star, c_star, cell, misset)


def _completed(a_star: Vector, b_star: Vector, c_star: Vector, cell: Cell | None, misset: Vector) -> Lattice:
    """The direct vectors; with a cell their lengths are its own. Then the reciprocal ones once more from them."""
    products = [cross(b_star, c_star), cross(c_star, a_star), cross(a_star, b_star)]
    v_star = dot(a_star, products[0])
    if cell is not None:
        products = [rescaled(p, x / cell.volume) for p, x in zip(products, cell.lengths, strict=True)]
        v_star = 1.0 / cell.volume
    if not (v_star != 0.0 and math.isfinite(v_star) and math.isfinite(1.0 / v_star)):
        raise required("-cell or -mat", "three vectors that span a volume", f"1/V = {v_star:g}")
    volume = 1.0 / v_star
    a, b, c = (scaled(p, volume) for p in products)
    reciprocal = (scaled(cross(b, c), v_star), scaled(cross(c, a), v_star), scaled(cross(a, b), v_star))
    if not all(math.isfinite(x) for v in (a, b, c, *reciprocal) for x in v):
        raise required("-cell or -mat", "three vectors that span a volume", f"1/V = {v_star:g}")
    return Lattice((a, b, c), reciprocal, volume, misset)


def block_size(command: Command, lattice: Lattice) -> tuple[int, int, int]:
    """Unit cells of a block along a, b, c: as given, or from the crystal's size clipped to the beam."""
    size = list(command.crystal_size)
    if command.beam_size >= 0.0:
        size[1:] = [min(x, command.beam_size) for x in size[1:]]
    counts = []
    for n, edge, vector in zip(command.n_cells, size, lattice.direct, strict=True):
        cells = edge / length(scaled(vector, 1e-10))
        counts.append(max(1, math.ceil(cells) if edge > 0.0 and cells < 2**31 else n))
    return (counts[0], counts[1], counts[2])


def recommended_oversample(
    n_cells: tuple[int, int, int], lattice: Lattice, wavelength: float, distance: float, pixel_size: float
) -> int:
    """Sub-pixels along an edge that put three of them in a spot of the crystal's largest edge."""
    edge = max(length(scaled(v, 1e-10)) * n for n, v in zip(n_cells, lattice.direct, strict=True))
    width = wavelength * distance / pixel_size
    value = 3.0 * edge / width if width != 0.0 else math.inf
    return max(1, math.ceil(value) if abs(value) < 1e6 else 1000000)
