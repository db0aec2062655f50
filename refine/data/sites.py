"""Where intensity is wanted: pixels of an image, or points of reciprocal space."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from refine.errors import required
from refine.formats.maps import DiffuseMap, read_points
from refine.formats.models import CrystalModel
from refine.paths import existing_file
from refine.settings.terms import Diffuse
from sim_core.diffuse.brillouin import Sampling, grid
from sim_core.diffuse.structure import miller_indices, scattering_vectors

CELL_TOLERANCE = 2e-3
"""Relative difference of scattering vectors that makes the cells of a map and of a model different ones."""
DEFAULT_RATES = (3, 3, 3)
"""Wavevectors that displacements of the model are summed over where points lie on no grid."""


@dataclass(frozen=True)
class Sites:
    """Some of the places where a frame has data.

    Attributes:
        index: Of pixels (slow, fast), or rows of the points of a map.
    """

    index: Int[Tensor, "n *two"]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, rows: slice) -> "Sites":
        return replace(self, index=self.index[rows])


class Pixels(Sites):
    """Pixels of one panel: indices (slow, fast)."""


class Points(Sites):
    """Rows of a :class:`MapGrid`."""


@dataclass(frozen=True)
class MapGrid:
    """All points of a map.

    Attributes:
        q: Scattering vectors [1/A].
        hkl: Fractional Miller indices.
        shape: Points along h, k, l; (N, 1, 1) for single points.
        sampling: Of the grid, by axis; ``None`` for single points.
        rates: Points for each reciprocal cell of the zone that displacements of the model are summed over.
    """

    q: Float[Tensor, "points 3"]
    hkl: Float[Tensor, "points 3"]
    shape: tuple[int, int, int]
    sampling: tuple[Sampling, Sampling, Sampling] | None
    rates: tuple[int, int, int] = DEFAULT_RATES

    def kept(self, d_min: float) -> Bool[Tensor, "points"]:
        """Points of lower resolution, that is with a spacing 2 pi / |q| above ``d_min`` [A]."""
        length = self.q.norm(dim=-1)
        return torch.where(length == 0, torch.inf, 2 * torch.pi / length) > d_min


def grid_of_settings(diffuse: Diffuse, basis: Float[Tensor, "3 3"], seed: int) -> MapGrid:
    """Points of the grid or of the file; random ones where the configuration names neither.

    Raises:
        InputError: if the file is damaged.
    """
    h, k, l = diffuse.sampling.h, diffuse.sampling.k, diffuse.sampling.l
    if diffuse.q_file is not None:
        return _single(torch.from_numpy(read_points(existing_file(diffuse.q_file, "diffuse.q_file"))), basis, diffuse)
    if h is None or k is None or l is None:
        generator = torch.Generator().manual_seed(seed)
        direction = torch.randn(diffuse.points, 3, dtype=torch.float64, generator=generator)
        length = diffuse.q_max * torch.rand(diffuse.points, 1, dtype=torch.float64, generator=generator) ** (1 / 3)
        return _single(direction / direction.norm(dim=-1, keepdim=True) * length, basis, diffuse)
    sampling = (Sampling(*h), Sampling(*k), Sampling(*l))
    hkl, shape = grid(*sampling)
    return MapGrid(scattering_vectors(hkl, basis), hkl, shape, sampling, (h[2], k[2], l[2]))


def _single(q: Tensor, basis: Tensor, diffuse: Diffuse) -> MapGrid:
    return MapGrid(q, miller_indices(q, basis), (len(q), 1, 1), None, zone_rates(diffuse))


def zone_rates(diffuse: Diffuse) -> tuple[int, int, int]:
    """Rates of the sampling, also where a file of points replaces its grid; otherwise :data:`DEFAULT_RATES`."""
    h, k, l = diffuse.sampling.h, diffuse.sampling.k, diffuse.sampling.l
    return DEFAULT_RATES if h is None or k is None or l is None else (h[2], k[2], l[2])


def grid_of_map(observed: DiffuseMap, crystal: CrystalModel, rates: tuple[int, int, int]) -> MapGrid:
    """Points of an observed map in the cell of the model.

    Args:
        observed: The map.
        crystal: The model.
        rates: Of the Brillouin zone, where the map has no sampling of its own.

    Raises:
        InputError: if the map's cell is not the model's.
    """
    basis = torch.from_numpy(np.ascontiguousarray(crystal.basis))
    hkl = torch.from_numpy(observed.hkl).double()
    q = scattering_vectors(hkl, basis)
    length = q.norm(dim=-1).max()
    if bool(((q - torch.from_numpy(observed.q_vectors)).norm(dim=-1) > CELL_TOLERANCE * length).any()):
        cells = (" ".join(f"{v:g}" for v in cell) for cell in (crystal.cell, observed.cell))
        raise required("data.map", f"the cell of the model, {next(cells)}, and its q_vectors", next(cells))
    h, k, l = observed.map_shape.tolist()
    if observed.sampling is None:
        return MapGrid(q, hkl, (h, k, l), None, rates)
    found = [Sampling(low, high, round(rate)) for low, high, rate in observed.sampling.tolist()]
    wanted, shape = grid(*found)
    if shape != (h, k, l) or bool(((wanted - hkl).abs() > 1e-5).any()):
        raise required("data.map", f"hkl and map_shape {shape} of its sampling", f"others, of {(h, k, l)}")
    sampling = (found[0], found[1], found[2])
    own = (found[0].rate, found[1].rate, found[2].rate)
    return MapGrid(scattering_vectors(wanted, basis), wanted, shape, sampling, own)


def whole_map(grid: MapGrid, rows: Int[Tensor, "n"], intensity: Float[Tensor, "n"]) -> Float[Tensor, "points"]:
    """All points of a map, NaN where there is no intensity."""
    full = torch.full((len(grid.q),), torch.nan, dtype=intensity.dtype)
    return full.index_copy(0, rows.cpu(), intensity.detach().cpu())


def as_map(grid: MapGrid, cell: tuple[float, ...], rows: Int[Tensor, "n"], intensity: Float[Tensor, "n"]) -> DiffuseMap:
    """The map that is written, of intensities at some of its points.

    Args:
        grid: All points.
        cell: a, b, c [A], alpha, beta, gamma [deg].
        rows: Which points have an intensity.
        intensity: Theirs.
    """
    return DiffuseMap(
        q_vectors=grid.q.cpu().numpy(),
        hkl=grid.hkl.cpu().numpy(),
        intensity=whole_map(grid, rows, intensity.double()).numpy(),
        map_shape=np.array(grid.shape),
        cell=np.array(cell),
        sampling=None if grid.sampling is None else np.array(grid.sampling, dtype=np.float64),
    )
