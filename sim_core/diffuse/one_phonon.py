r"""One-phonon thermal diffuse scattering of an elastic network.

.. math:: I(q) = F^\dagger(q)\, K(k)^{-1} F(q), \quad k = q

in electrons^2 for each cell; spring constants are in k_B T/A^2. This inverse is the sum over phonons of
:math:`|F^\dagger v|^2/\omega^2`: masses cancel, and no eigenvector stands in the way of a derivative.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from ..form_factors import form_factor
from .bodies import Bodies, RigidUnits, free_sums
from .brillouin import Batch, Wavevectors, batches, make_batch, separate_wavevectors, unique_wavevectors
from .columns import Columns, column_sums, enumerate_columns, find_columns, level_waves, sorted_scatterers
from .elastic_network import Contacts, Springs
from .response import AtBragg
from .streaming import streamed
from .structure import Placed, cell_positions, miller_indices


@dataclass(frozen=True)
class OnePhonon:
    """Settings of the simulator; call it with a structure, springs and scattering vectors.

    Attributes:
        contacts: The elastic network.
        bodies: What moves as one.
        finite_at_bragg: Leave uniform shifts out at Bragg points, where they diverge; otherwise these points are NaN.
        bragg_tolerance: Distance to a Bragg point, in units of the reciprocal cell, that counts as none.
        conjugate: Pair structure factors with the wavevector -q.
        dtype: Precision of the structure factors; the dynamical matrix is always in double precision.
        batch: Numbers (points x atoms in the cell) that are worked on at a time.
    """

    contacts: Contacts
    bodies: Bodies = field(default_factory=RigidUnits)
    finite_at_bragg: bool = False
    bragg_tolerance: float = 1e-6
    conjugate: bool = False
    dtype: torch.dtype = torch.float64
    batch: int = 1 << 20

    def __call__(
        self,
        structure: Placed,
        springs: Springs,
        q: Float[Tensor, "points 3"],
        wavevectors: Wavevectors | None = None,
        u_iso: Float[Tensor, "atoms"] | None = None,
    ) -> Float[Tensor, "points"]:
        """Diffuse intensity [electron^2 for each cell].

        Points are streamed: neither values nor derivatives keep more than a batch of them. All first derivatives
        are exact. Merged wavevectors are constants: a derivative in ``q`` needs those of
        :func:`separate_wavevectors`, which are taken where ``q`` requires a gradient.

        Args:
            structure: The crystal.
            springs: Spring constants.
            q: Scattering vectors [1/A].
            wavevectors: Where they are known already.
            u_iso: Mean square displacements [A^2]; those of ``structure.b_iso`` if not given.
        """
        u_iso = structure.b_iso / (8 * torch.pi**2) if u_iso is None else u_iso
        couplings = self.bodies.couplings(structure, self.contacts, springs)
        hkl = miller_indices(q, structure.basis)
        if wavevectors is None:
            wavevectors = (separate_wavevectors if q.requires_grad else unique_wavevectors)(hkl)
        factors = self.bodies.factors(structure)
        columns = None if wavevectors.free or factors is None else find_columns(hkl, structure.basis)
        if columns is None or factors is None:
            parts = self._free(structure, couplings, q, wavevectors, u_iso)
        else:
            parts = self._grid(structure, couplings, q, wavevectors, u_iso, factors, columns)
        found = list(parts)
        if not found:
            return q.new_zeros(0)
        order = torch.cat([points for points, _ in found]).argsort()
        return torch.cat([intensity for _, intensity in found])[order]

    def _free(
        self, structure: Placed, couplings: Tensor, q: Tensor, wavevectors: Wavevectors, u_iso: Tensor
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Points that have nothing but wavevectors in common, and their intensities."""
        size = max(1, self.batch // (structure.units * structure.atoms))
        most = max(1, 8 * self.batch // self.bodies.entries(self.contacts))
        for batch in batches(wavevectors, size, most):

            def part(
                couplings: Tensor, q: Tensor, kappa: Tensor, xyz: Tensor, u: Tensor, batch: Batch = batch
            ) -> Tensor:
                F = self.structure_factors(replace(structure, xyz=xyz), q, u)
                return self._intensity(F, couplings, kappa, batch)

            yield batch.points, streamed(part, couplings, q[batch.points], batch.kappa, structure.xyz, u_iso)

    def _grid(
        self,
        structure: Placed,
        couplings: Tensor,
        q: Tensor,
        wavevectors: Wavevectors,
        u_iso: Tensor,
        factors: Tensor,
        columns: Columns,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Points of a grid, some columns at a time, and their intensities."""
        atoms, order = sorted_scatterers(structure, u_iso)
        waves = level_waves(atoms, (factors * structure.weight[:, None])[:, order], columns, self.dtype)
        levels = len(columns.levels)
        size = max(1, self.batch // (structure.units * max(structure.atoms, 4 * self.bodies.coordinates * levels)))
        for start, points in enumerate_columns(columns, size):
            batch = make_batch(wavevectors, points)
            place = (columns.column[batch.points] - start) * levels + columns.level[batch.points]

            def part(
                couplings: Tensor,
                fractional: Tensor,
                u: Tensor,
                waves: Tensor,
                batch: Batch = batch,
                place: Tensor = place,
                start: int = start,
            ) -> Tensor:
                moved = atoms._replace(fractional=fractional, u_iso=u)
                sums = column_sums(moved, waves, columns, slice(start, start + size)).flatten(0, 1)[place]
                F = self.bodies.structure_factors(q[batch.points], sums)
                return self._intensity(F, couplings, batch.kappa, batch)

            yield batch.points, streamed(part, couplings, atoms.fractional, atoms.u_iso, waves)

    def _intensity(self, F: Tensor, couplings: Tensor, kappa: Tensor, batch: Batch) -> Float[Tensor, "n"]:
        """Intensity of a batch of points from their structure factors."""
        conjugated = (batch.flipped != self.conjugate)[:, None]
        F = torch.where(conjugated, F.conj(), F).to(torch.complex128)
        at_bragg = AtBragg(self.bragg_tolerance, self.finite_at_bragg)
        return self.bodies.quadratic_form(F, couplings, self.contacts, batch._replace(kappa=kappa), at_bragg)

    def structure_factors(
        self, structure: Placed, q: Float[Tensor, "points 3"], u_iso: Float[Tensor, "atoms"]
    ) -> Complex[Tensor, "points M"]:
        """Coupling of the scattered wave to the displacements."""
        q2 = q.square().sum(-1)
        atoms = structure.form_factors
        f = form_factor(q2 / (16 * torch.pi**2), atoms.a, atoms.b, atoms.c)[:, atoms.kind]
        amplitude = (f * structure.weight * torch.exp(-0.5 * q2[:, None] * u_iso)).to(self.dtype)
        sums = free_sums(q, cell_positions(structure), amplitude, self.bodies.factors(structure))
        return self.bodies.structure_factors(q, sums)


def model_u_iso(covariance: Float[Tensor, "..."], structure: Placed, bodies: Bodies) -> Float[Tensor, "atoms"]:
    """Mean square displacements [A^2] that the network predicts, scaled to the mean of ``structure.b_iso``."""
    u = bodies.mean_square(covariance, structure)
    return u * (structure.b_iso.mean() / (8 * torch.pi**2) / u.mean())
