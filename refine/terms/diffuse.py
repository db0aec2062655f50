"""The forward model of a diffuse map: elastic network and structure of a file, at the points that are wanted."""

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from refine.errors import required
from refine.experiment.atoms import build_reference_structure, build_structure
from refine.formats.maps import DiffuseMap, read_points
from refine.formats.models import CrystalModel, read_model
from refine.paths import existing_file
from refine.settings.terms import Diffuse, ModelFile
from sim_core.diffuse.bodies import Bodies, RigidUnits, SingleAtoms
from sim_core.diffuse.brillouin import Sampling, fold, grid, unique_wavevectors, zone_grid
from sim_core.diffuse.elastic_network import Springs, find_contacts
from sim_core.diffuse.one_phonon import OnePhonon, model_u_iso
from sim_core.diffuse.reference import REACH, accumulated, u_iso_of_diagonal
from sim_core.diffuse.structure import Structure, cell_positions, miller_indices, scattering_vectors

CELL_TOLERANCE = 2e-3
"""Relative difference of scattering vectors that makes the cells of a map and of a model different ones."""
DEFAULT_RATES = (3, 3, 3)
"""Wavevectors that displacements of the model are summed over where points lie on no grid."""


@dataclass(frozen=True)
class Points:
    """Where intensity is wanted.

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


def build_points(settings: Diffuse, basis: Tensor) -> Points:
    """Points of the grid or of the file.

    Raises:
        InputError: if there is neither, or the file is damaged.
    """
    if settings.q_file is not None:
        q = torch.from_numpy(read_points(existing_file(settings.q_file, "diffuse.q_file")))
        return Points(q, miller_indices(q, basis), (len(q), 1, 1), None, zone_rates(settings))
    h, k, l = settings.sampling.h, settings.sampling.k, settings.sampling.l
    if h is None or k is None or l is None:
        raise required("diffuse", "a sampling of h, k and l or a q_file", "neither")
    sampling = (Sampling(*h), Sampling(*k), Sampling(*l))
    hkl, shape = grid(*sampling)
    return Points(scattering_vectors(hkl, basis), hkl, shape, sampling, (h[2], k[2], l[2]))


def zone_rates(settings: Diffuse) -> tuple[int, int, int]:
    """Rates of the sampling, also where a file of points replaces its grid; otherwise :data:`DEFAULT_RATES`."""
    h, k, l = settings.sampling.h, settings.sampling.k, settings.sampling.l
    return DEFAULT_RATES if h is None or k is None or l is None else (h[2], k[2], l[2])


def points_of(observed: DiffuseMap, crystal: CrystalModel, rates: tuple[int, int, int]) -> Points:
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
        raise required("diffuse_fit.map", f"the cell of the model, {next(cells)}, and its q_vectors", next(cells))
    h, k, l = observed.map_shape.tolist()
    if observed.sampling is None:
        return Points(q, hkl, (h, k, l), None, rates)
    found = [Sampling(low, high, round(rate)) for low, high, rate in observed.sampling.tolist()]
    wanted, shape = grid(*found)
    if shape != (h, k, l) or bool(((wanted - hkl).abs() > 1e-5).any()):
        raise required("diffuse_fit.map", f"hkl and map_shape {shape} of its sampling", f"others, of {(h, k, l)}")
    sampling = (found[0], found[1], found[2])
    return Points(
        scattering_vectors(wanted, basis), wanted, shape, sampling, (found[0].rate, found[1].rate, found[2].rate)
    )


class DiffuseModel(nn.Module):
    """Intensity of a map as a function of spring constants and coordinates.

    Args:
        model: As read.
        settings: The configuration of the simulation.
        adp: Take displacements of the atoms from the ``data`` or the ``model``.
        use_occupancy: Weight atoms by their occupancies.
        dtype: Precision of the structure factors.
        points: Where intensity is wanted, if not where the configuration says.
    """

    q: Tensor
    places: Tensor

    def __init__(
        self,
        model: CrystalModel,
        settings: Diffuse,
        adp: str = "data",
        use_occupancy: bool = False,
        dtype: torch.dtype = torch.float64,
        points: Points | None = None,
    ) -> None:
        """Find contacts and the points that need to be computed."""
        super().__init__()
        eryx = settings.compat == "eryx"
        self.structure: Structure = build_reference_structure(model) if eryx else build_structure(model, use_occupancy)
        self.points = build_points(settings, self.structure.basis) if points is None else points
        self.bodies = _bodies(settings)
        self.adp = adp
        self.displacements = u_iso_of_diagonal if eryx else model_u_iso
        self.cutoff, self.reach = settings.cutoff_A, REACH if eryx else None
        contacts = find_contacts(cell_positions(self.structure), self.structure.basis, self.cutoff, self.reach)
        finite = settings.bragg == "finite"
        self.simulator = OnePhonon(contacts, self.bodies, finite, conjugate=eryx, dtype=dtype)
        kept = self.points.kept(settings.d_min_A).nonzero()[:, 0]
        chosen, places = kept, torch.arange(len(kept))
        if self.points.sampling is not None and not eryx:
            folding = fold(self.points.hkl[kept], self.points.rates, torch.from_numpy(model.rotations))
            chosen, places = kept[folding.points], folding.row
        self.kept = kept
        self.register_buffer("q", self.points.q[chosen])
        self.register_buffer("places", places)
        self.wavevectors = unique_wavevectors(self.points.hkl[chosen])

    def forward(self, values: dict[str, Tensor]) -> Float[Tensor, "kept"]:
        """Intensity of the points that are kept.

        Args:
            values: ``gamma_intra`` and ``gamma_inter`` [k_B T/A^2], or their logarithms as ``log_gamma_intra`` and
                ``log_gamma_inter``; ``xyz``, all coordinates in a row [A], and ``scale`` where they are refined.
        """
        springs = Springs(*(values["log_" + n].exp() if "log_" + n in values else values[n] for n in Springs._fields))
        structure = replace(self.structure, xyz=values.get("xyz", self.structure.xyz).reshape(-1, 3))
        u_iso = None
        if self.adp == "model":
            kappa = zone_grid(self.points.rates).to(self.q.device)
            moved = self.bodies.covariance(structure, self.simulator.contacts, springs, kappa)
            u_iso = self.displacements(moved, structure, self.bodies)
        intensity = self.simulator(structure, springs, self.q, self.wavevectors, u_iso)[self.places]
        return intensity * values["scale"] if "scale" in values else intensity

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "DiffuseModel":
        """Also move what stands in records."""
        super()._apply(fn, recurse)
        device = self.q.device
        self.structure = on_device(self.structure, device)
        self.wavevectors = on_device(self.wavevectors, device)
        self.simulator = replace(self.simulator, contacts=on_device(self.simulator.contacts, device))
        return self

    def rebuild(self, xyz: Float[Tensor, "..."]) -> None:
        """Find the contacts anew at other coordinates [A]."""
        moved = cell_positions(replace(self.structure, xyz=xyz.detach().reshape(-1, 3)))
        contacts = find_contacts(moved, self.structure.basis, self.cutoff, self.reach)
        self.simulator = replace(self.simulator, contacts=contacts)

    def whole(self, intensity: Float[Tensor, "kept"]) -> Float[Tensor, "points"]:
        """All points, NaN where none was computed."""
        full = torch.full((len(self.points.q),), torch.nan, dtype=intensity.dtype)
        return full.index_copy(0, self.kept, intensity.cpu())


def on_device(record: Any, device: torch.device) -> Any:
    """A record, as a dataclass or a named tuple, with its tensors on a device."""
    if isinstance(record, Tensor):
        return record.to(device)
    if is_dataclass(record) and not isinstance(record, type):
        return replace(record, **{f.name: on_device(getattr(record, f.name), device) for f in fields(record)})
    if isinstance(record, tuple):
        return type(record)(*(on_device(value, device) for value in record))
    return record


def open_model(model: ModelFile) -> CrystalModel:
    """Read the model that the configuration names.

    Raises:
        InputError: if there is none, or it cannot be used.
    """
    if model.path is None:
        raise required("model.path", "a PDB or mmCIF file", "null")
    path = existing_file(model.path, "model.path")
    return read_model(path, model.keep_hydrogens, model.keep_waters, model.altloc)


def as_map(model: DiffuseModel, crystal: CrystalModel, intensity: Float[Tensor, "kept"]) -> DiffuseMap:
    """The map that is written."""
    points = model.points
    return DiffuseMap(
        q_vectors=points.q.numpy(),
        hkl=points.hkl.numpy(),
        intensity=model.whole(intensity.detach().double()).numpy(),
        map_shape=np.array(points.shape),
        cell=np.array(crystal.cell),
        sampling=None if points.sampling is None else np.array(points.sampling, dtype=np.float64),
    )


def _bodies(settings: Diffuse) -> Bodies:
    if settings.group_by == "asu":
        return RigidUnits(accumulated) if settings.compat == "eryx" else RigidUnits()
    if settings.compat == "eryx":
        raise required("diffuse.group_by", "asu with compat: eryx", "none")
    return SingleAtoms()
