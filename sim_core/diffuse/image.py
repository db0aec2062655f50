r"""One-phonon scattering of vibrating mosaic blocks in the pixels of a detector.

.. math:: I = r_e^2\,\Phi \sum_m w_m\,\omega P\; N_a N_b N_c\, F^\dagger(q) G(h_m) F(q)

where m runs over spindle positions, misorientations of blocks, plane waves, sub-pixels and sensor layers. G changes
across a spot, F over a reciprocal cell: it may be taken once for a pixel, or a sub-pixel, at each spindle position, at
the mean of its samples, while the window in G is averaged over all of them. What this misses grows with the square of
the phase that the blur turns atoms by.
"""

from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..beam import as_waves
from ..constants import R_E_SQUARED
from ..experiment import Experiment
from ..interference import Shape, Square
from ..mosaic import DomainSample, orientations
from ..rays import falloff, in_blocks, point_weights, polarization, subpixel_points
from ..scattered_waves import elements, sort_kinds
from .block_sum import block_sum
from .block_tile import Inputs, Settings
from .blocks import window_of
from .elastic_network import Contacts, Springs
from .structure import scattering_vectors
from .vibrations import Vibrations, vibrations

BLOCK = 1 << 17
"""Samples of scattering vectors that are held at a time."""

TILE = {"cpu": 1 << 17, "cuda": 1 << 24}
"""Numbers of one kind that are worked on at a time: a cache's worth on a CPU, enough to fill a GPU."""

AtomsAt = Literal["pixel", "subpixel", "sample"]
"""Where the sum over atoms is taken."""


class OnePhononImage(nn.Module):
    """Photons in each pixel from the vibrations of a mosaic crystal's blocks.

    Args:
        domains: Frozen sample of misorientations, scaled by the crystal's mosaic spread.
        shape: Interference function of a block: a parallelepiped or a Gaussian.
        oversample: Sub-pixels along each edge of a pixel.
        d_min: Resolution limit [A]; zero for none.
        dtype: Precision of the sums; geometry stays in double precision.
        atoms_at: Where atoms are summed at each spindle position: once for a ``pixel``, a ``subpixel``, or at every
            ``sample``.
        tile: Numbers of one kind (waves of atoms, say) that are worked on at a time; ``None`` for what suits the
            device.
    """

    domain_axes: Tensor
    domain_angles: Tensor
    domain_weights: Tensor

    def __init__(
        self,
        domains: DomainSample,
        shape: Shape | None = None,
        oversample: int = 1,
        d_min: float = 0.0,
        dtype: torch.dtype = torch.float64,
        atoms_at: AtomsAt = "pixel",
        tile: int | None = None,
    ) -> None:
        super().__init__()
        for name, part in domains._asdict().items():
            self.register_buffer(f"domain_{name}", part)
        self.window = window_of(shape or Square())
        self.oversample = oversample
        self.d_min = d_min
        self.dtype = dtype
        self.atoms_at = atoms_at
        self.tile = tile

    @property
    def domains(self) -> DomainSample:
        """The sample of misorientations."""
        return DomainSample(self.domain_axes, self.domain_angles, self.domain_weights)

    def vibrations(self, experiment: Experiment, contacts: Contacts, springs: Springs) -> Vibrations:
        """How the experiment's crystal moves: its displacements also belong into the amplitudes of its spots.

        Raises:
            ValueError: if the experiment has no atoms.
        """
        if experiment.structure is None:
            raise ValueError("experiment: expected a structure, got none")
        crystal = experiment.crystal
        return vibrations(experiment.structure, crystal.cell, contacts, springs, crystal.n_cells, self.window)

    def forward(
        self,
        experiment: Experiment,
        contacts: Contacts,
        springs: Springs,
        pixels: Int[Tensor, "pixels 2"] | None = None,
        u_cart: Float[Tensor, "units atoms 3 3"] | None = None,
    ) -> Float[Tensor, "pixels"]:
        """Expected photons of diffuse scattering.

        Args:
            experiment: What to simulate, with its atoms.
            contacts: Its elastic network.
            springs: Spring constants.
            pixels: Indices (slow, fast) of the pixels wanted; ``None`` for all, fast running fastest.
            u_cart: Mean square displacements [A^2] in the frame of the atoms; ``None`` for those of the network.
        """
        moving = self.vibrations(experiment, contacts, springs)
        experiment = replace(experiment, beam=as_waves(experiment.beam))
        constant, shared = self._shared(experiment, moving, moving.u_cart if u_cart is None else u_cart)
        steps = len(experiment.scan.phi)
        rows, weights = orientations(experiment.crystal, experiment.scan, self.domains)
        rows, weights = rows.unflatten(0, (steps, -1)), weights.unflatten(0, (steps, -1))
        n_cells = experiment.crystal.n_cells
        scale = (R_E_SQUARED * experiment.beam.fluence * n_cells.prod()).to(self.dtype)

        def block(part: Tensor) -> Tensor:
            samples, f = self._samples(experiment, part, rows, weights)
            share = f / f.sum(-1, keepdim=True).clamp_min(1e-300)
            hkl = (share[..., None] * samples).sum(1)
            q = scattering_vectors(hkl, moving.basis)
            y = block_sum(Inputs(hkl, q, samples, f, n_cells, *shared), constant)
            return scale * y.unflatten(0, (len(part), -1)).sum(1)

        pixels = experiment.panel.all_pixels() if pixels is None else pixels
        layers = 1 if experiment.panel.sensor is None else len(experiment.panel.sensor.depths)
        each = layers * self.oversample**2 * len(experiment.beam.weight) * weights.numel()
        recompute = torch.is_grad_enabled() and _requires_grad(experiment, (rows, weights, scale, *shared))
        return in_blocks(block, pixels, max(1, BLOCK // each), recompute)

    def _shared(
        self, experiment: Experiment, moving: Vibrations, u_cart: Float[Tensor, "units atoms 3 3"]
    ) -> tuple[Settings, tuple[Tensor, ...]]:
        """What all pixels have in common, atoms sorted by their kind."""
        structure = experiment.structure
        assert structure is not None
        kinds = sort_kinds(structure.form_factors)
        occupancy = structure.weight[kinds.order]
        tile = self.tile or TILE.get(u_cart.device.type, 1 << 24)
        constant = Settings(self.window, moving.grid, kinds, occupancy, self.dtype, tile)
        atoms = (moving.fractional, elements(u_cart), moving.lever_arms)
        return constant, (*(t[:, kinds.order] for t in atoms), *moving.inverses)

    def _samples(
        self, experiment: Experiment, pixels: Tensor, rows: Tensor, weights: Tensor
    ) -> tuple[Float[Tensor, "points samples 3"], Float[Tensor, "points samples"]]:
        """Fractional indices of the samples of each point at which atoms are summed, and their weights [sr]."""
        beam, panel = experiment.beam, experiment.panel
        points = subpixel_points(panel, pixels, self.oversample)
        flight = points / points.norm(dim=-1, keepdim=True)
        s = (flight[..., None, :] - beam.direction) / beam.wavelength[:, None]
        f = point_weights(panel, points)[..., None] * beam.weight * polarization(beam, flight)
        f = f * falloff(experiment.structure_factors, s)
        if self.d_min > 0:
            f = f * (s.norm(dim=-1) <= 1 / self.d_min)
        hkl = torch.einsum("plswj,tdij->ptslwdi", s, rows)
        f = torch.einsum("plsw,td->ptslwd", f, weights)
        kept = {"pixel": 2, "subpixel": 3, "sample": 6}[self.atoms_at]
        if kept == 6:
            return hkl.flatten(0, -2)[:, None], f.flatten()[:, None]
        return hkl.flatten(kept, -2).flatten(0, kept - 1), f.flatten(kept).flatten(0, kept - 1)


def _requires_grad(experiment: Experiment, tensors: tuple[Tensor, ...]) -> bool:
    """Whether these tensors, or what else a pixel depends on, take part in reverse-mode differentiation."""
    parts = (experiment.beam, experiment.panel, experiment.panel.sensor, experiment.structure_factors)
    others = [v for part in parts if part is not None for v in vars(part).values()]
    return any(isinstance(t, Tensor) and t.requires_grad for t in (*tensors, *others))
