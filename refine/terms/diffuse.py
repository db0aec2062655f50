"""One-phonon diffuse scattering of the atoms of a model, on images and on maps."""

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from refine.data.sites import MapGrid, Sites
from refine.devices import device_of, on_device
from refine.experiment.atoms import Atoms
from refine.experiment.sample import Values
from refine.settings.terms import Diffuse
from refine.terms.term import ATOMS, BEAM, CRYSTAL, DETECTOR, Term
from refine.threads import one_thread
from sim_core import Experiment
from sim_core.beam import bandwidth_variance, directions_covariance, mean_wave
from sim_core.diffuse.brillouin import fold, unique_wavevectors, zone_grid
from sim_core.diffuse.image import OnePhononImage
from sim_core.diffuse.one_phonon import OnePhonon, model_u_iso
from sim_core.diffuse.reference import u_iso_of_diagonal
from sim_core.diffuse.structure import Placed
from sim_core.mosaic import SIGMA_PER_SPREAD
from sim_core.sphere import longest_scattering_vector

STILL = 0.055
"""Standard deviation, in reciprocal cells, of samples for which atoms are summed once."""

JACOBIAN_BATCH = 1 << 15
"""Numbers worked on at a time: a Jacobian holds them once for each parameter."""


class OnePhononSpots(Term[Experiment]):
    """Diffuse scattering of the same blocks as the spots, under the same scale.

    Args:
        atoms: Structure and elastic network.
        simulator: The simulator.
    """

    coefficient = "scale"
    reads = BEAM | DETECTOR | CRYSTAL | ATOMS

    def __init__(self, atoms: Atoms, simulator: OnePhononImage) -> None:
        super().__init__()
        self.atoms, self.simulator = atoms, simulator

    @torch.no_grad()
    def prepare(self, values: Values, scene: Experiment, sites: Sites) -> None:
        """Choose where atoms are summed: once for a pixel, where they vary little over it and all that blurs spots."""
        crystal, beam, longest = scene.crystal, scene.beam, longest_scattering_vector(scene)
        longest = longest if self.simulator.d_min == 0 else longest.clamp(max=1 / self.simulator.d_min)
        edge, (_, wavelength) = crystal.direct.norm(dim=-1).max(), mean_wave(beam)
        turned = (SIGMA_PER_SPREAD * crystal.mosaic_spread.max()).square() + bandwidth_variance(beam)
        blur = edge**2 * (longest**2 * turned + torch.linalg.matrix_norm(directions_covariance(beam), 2))
        part = edge * scene.panel.pixel_size / scene.panel.close_distance.abs() / wavelength
        whole = blur + part**2 / 12 if self.simulator.oversample > 1 else blur
        least = STILL**2
        self.simulator.atoms_at = "sample" if blur > least else "subpixel" if whole > least else "pixel"

    def forward(self, values: Values, scene: Experiment, sites: Sites) -> Float[Tensor, "n 1"]:
        """Photons for a scale of one."""
        u_cart = None if self.atoms.adp == "network" else self.atoms.displacements(values, scene)
        springs = self.atoms.springs(values)
        with one_thread():
            photons = self.simulator(scene, self.atoms.contacts, springs, sites.index, u_cart)
        return photons.double()[:, None]

    def evaluations(self, sites: Sites) -> int:
        """Waves of atoms."""
        structure = self.atoms.start
        return len(sites) * len(structure.rotations) * len(structure.fractional)

    def described(self) -> dict[str, Any]:
        """What scatters between the spots."""
        return {"diffuse": "one_phonon", "atoms": len(self.atoms.start.fractional)}


class OnePhononMap(Term[Placed]):
    """Intensity of a diffuse map [electron^2 for each cell].

    Args:
        atoms: Structure and elastic network.
        grid: All points.
        diffuse: The configuration.
        dtype: Precision of the structure factors.
    """

    coefficient = "scale"
    reads = ATOMS

    def __init__(self, atoms: Atoms, grid: MapGrid, diffuse: Diffuse, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.atoms, self.grid = atoms, grid
        eryx = diffuse.compat == "eryx"
        self.displacements = u_iso_of_diagonal if eryx else model_u_iso
        finite = diffuse.bragg == "finite"
        contacts, bodies = atoms.contacts, atoms.network.bodies
        self.simulator = OnePhonon(contacts, bodies, finite, conjugate=eryx, dtype=dtype, batch=JACOBIAN_BATCH)
        self.kept = grid.kept(diffuse.d_min_A).nonzero()[:, 0]
        self.twin = torch.arange(len(grid.q))
        if grid.sampling is not None and not eryx:
            folding = fold(grid.hkl[self.kept], grid.rates, torch.from_numpy(atoms.file.rotations))
            self.twin = self.twin.index_copy(0, self.kept, self.kept[folding.points][folding.row])
        self._last: tuple[Tensor, ...] | None = None

    def forward(self, values: Values, scene: Placed, sites: Sites) -> Float[Tensor, "n 1"]:
        """Intensity for a scale of one; points that are equal by symmetry are computed once."""
        rows, places = self._distinct(sites.index)
        springs, u_iso = self.atoms.springs(values), None
        simulator = replace(self.simulator, contacts=self.atoms.contacts)
        if self.atoms.adp == "model":
            kappa = zone_grid(self.grid.rates).to(rows.device)
            moved = simulator.bodies.covariance(scene, simulator.contacts, springs, kappa)
            u_iso = self.displacements(moved, scene, simulator.bodies)
        wavevectors = unique_wavevectors(self.grid.hkl[rows])
        return simulator(scene, springs, self.grid.q[rows], wavevectors, u_iso)[places, None]

    def _distinct(self, index: Int[Tensor, "n"]) -> tuple[Int[Tensor, "rows"], Int[Tensor, "n"]]:
        """Points that differ by symmetry, and which of them each place has; the last answer is kept."""
        if self._last is None or self._last[0] is not index:
            self._last = (index, *self.twin[index].unique(return_inverse=True))
        return self._last[1], self._last[2]

    def _apply(self, fn, recurse=True):  # type: ignore[no-untyped-def]
        """Also move what stands in records."""
        super()._apply(fn, recurse)
        for name in ("grid", "kept", "twin"):
            setattr(self, name, on_device(getattr(self, name), device_of(fn)))
        self._last = None
        return self
