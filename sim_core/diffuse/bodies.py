"""What moves as one: whole asymmetric units, or every atom by itself.

Both answer the same questions: which coordinates displacements have, how strongly a scattering vector couples to them,
what they answer to these forces, and how far each atom moves.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from ..scattered_waves import turns
from .brillouin import Batch, one_row
from .dynamical_matrix import dynamical_matrix
from .elastic_network import Contacts, Springs, rigid_body_hessian, scalar_hessian, skew
from .response import AtBragg, implicit_inverse, quadratic_form, response
from .sparse_network import sparse_quadratic_form
from .streaming import streamed
from .structure import Placed, cell_positions

WORK = 1 << 22
"""Numbers in the matrices that are worked on at a time."""

LeverArms = Callable[[Float[Tensor, "units atoms 3"]], Float[Tensor, "units atoms 3"]]


@runtime_checkable
class Bodies(Protocol):
    """A choice of the M displacement coordinates of one cell."""

    @property
    def coordinates(self) -> int:
        """Coordinates of a unit, where they are few; else one."""

    def entries(self, contacts: Contacts) -> int:
        """Numbers that stand for the dynamical matrix at one wavevector."""

    def couplings(self, structure: Placed, contacts: Contacts, springs: Springs) -> Float[Tensor, "..."]:
        """What the dynamical matrix is linear in."""

    def quadratic_form(
        self,
        F: Complex[Tensor, "n M"],
        couplings: Float[Tensor, "..."],
        contacts: Contacts,
        batch: Batch,
        at_bragg: AtBragg,
    ) -> Float[Tensor, "n"]:
        r""":math:`F^\dagger K(k)^{-1} F` of the points of a batch."""

    def covariance(
        self, structure: Placed, contacts: Contacts, springs: Springs, kappa: Float[Tensor, "k 3"]
    ) -> Float[Tensor, "..."]:
        """Covariance of displacements [A^2] summed over wavevectors, uniform shifts left out, for ``mean_square``."""

    def hessian(self, structure: Placed, contacts: Contacts, springs: Springs) -> Float[Tensor, "cells M M"]:
        """Second derivatives of the energy between the origin cell and each cell."""

    def factors(self, structure: Placed) -> Float[Tensor, "units atoms factors"] | None:
        """What scattered waves are multiplied by before they are summed over a unit; ``None``: they are not summed."""

    def structure_factors(
        self, q: Float[Tensor, "points 3"], sums: Complex[Tensor, "points units sums"]
    ) -> Complex[Tensor, "points M"]:
        """Change of the scattered amplitude with each coordinate, over i, from the sums of waves."""

    def mean_square(self, covariance: Float[Tensor, "..."], structure: Placed) -> Float[Tensor, "atoms"]:
        """Mean square displacement of each atom along one direction, averaged over directions and units [A^2]."""

    def mass(self, structure: Placed) -> Float[Tensor, "M M"]:
        """Mass matrix [dalton]."""


def centred(positions: Float[Tensor, "units atoms 3"]) -> Float[Tensor, "units atoms 3"]:
    """Atoms relative to the mean of their unit [A]."""
    return positions - positions.mean(1, keepdim=True)


@dataclass(frozen=True)
class RigidUnits:
    """Every asymmetric unit shifts and turns: 6 coordinates each, shifts first.

    Attributes:
        lever_arms: Where atoms stand relative to the point that their unit turns about.
    """

    lever_arms: LeverArms = centred
    coordinates = 6

    def entries(self, contacts: Contacts) -> int:
        """A dense matrix."""
        return (6 * contacts.units) ** 2

    def couplings(self, structure: Placed, contacts: Contacts, springs: Springs) -> Float[Tensor, "cells M M"]:
        """The Hessian."""
        return self.hessian(structure, contacts, springs)

    def quadratic_form(
        self,
        F: Complex[Tensor, "n M"],
        couplings: Float[Tensor, "cells M M"],
        contacts: Contacts,
        batch: Batch,
        at_bragg: AtBragg,
    ) -> Float[Tensor, "n"]:
        """See :func:`sim_core.diffuse.response.quadratic_form`."""
        K = dynamical_matrix(couplings, contacts.cells, batch.kappa)
        known = response(K.detach(), uniform_shifts(couplings), batch.kappa.detach(), at_bragg)
        return quadratic_form(F, K, known, batch)

    def covariance(
        self, structure: Placed, contacts: Contacts, springs: Springs, kappa: Float[Tensor, "k 3"]
    ) -> Float[Tensor, "M M"]:
        """The whole matrix, from inverses."""
        couplings = self.couplings(structure, contacts, springs)
        shifts = uniform_shifts(couplings)

        def part(couplings: Tensor, kappa: Tensor) -> Tensor:
            K = dynamical_matrix(couplings, contacts.cells, kappa)
            known = response(K.detach(), shifts, kappa, AtBragg(1e-9, finite=True))
            return implicit_inverse(K, known.inverse).real.sum(0)

        total = torch.zeros_like(couplings[0])
        for some in kappa.split(max(1, WORK // self.entries(contacts))):
            total = total + streamed(part, couplings, some)
        return total

    def hessian(self, structure: Placed, contacts: Contacts, springs: Springs) -> Float[Tensor, "cells M M"]:
        """See :func:`rigid_body_hessian`."""
        return rigid_body_hessian(self.lever_arms(cell_positions(structure)), contacts, springs)

    def factors(self, structure: Placed) -> Float[Tensor, "units atoms 4"]:
        """One, and the lever arm."""
        s = self.lever_arms(cell_positions(structure))
        return torch.cat([torch.ones_like(s[..., :1]), s], -1)

    def structure_factors(
        self, q: Float[Tensor, "points 3"], sums: Complex[Tensor, "points units 4"]
    ) -> Complex[Tensor, "points M"]:
        r"""For each unit :math:`(q S_0, m \times q)` with :math:`S_0 = \sum_j w_j, m = \sum_j w_j s_j`."""
        parts = torch.view_as_real(sums)
        direction = q.to(parts.dtype)[:, None, :, None]
        shift = parts[:, :, :1] * direction
        turn = torch.linalg.cross(parts[:, :, 1:], direction.expand_as(shift), dim=2)
        return torch.view_as_complex(torch.cat([shift, turn], 2)).flatten(1)

    def mean_square(self, covariance: Float[Tensor, "M M"], structure: Placed) -> Float[Tensor, "atoms"]:
        r""":math:`\tfrac13 \mathrm{tr}\,A_j C A_j^T`, A = (1 | S(s))."""
        s = self.lever_arms(cell_positions(structure))
        a = torch.cat([torch.eye(3, dtype=s.dtype, device=s.device).expand(*s.shape[:-1], 3, 3), skew(s)], -1)
        own = covariance.reshape(structure.units, 6, structure.units, 6).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
        return torch.einsum("ujxa,uab,ujxb->j", a, own, a) / (3 * structure.units)

    def mass(self, structure: Placed) -> Float[Tensor, "M M"]:
        """Masses and moments of inertia of the units."""
        s = self.lever_arms(cell_positions(structure))
        a = torch.cat([torch.eye(3, dtype=s.dtype, device=s.device).expand(*s.shape[:-1], 3, 3), skew(s)], -1)
        blocks = torch.einsum("j,ujxa,ujxb->uab", structure.mass, a, a)
        inertia: Tensor = torch.block_diag(*blocks)
        return inertia


@dataclass(frozen=True)
class SingleAtoms:
    """Every atom shifts by itself; x, y and z obey the same equations, so one coordinate stands for the three."""

    coordinates = 1

    def entries(self, contacts: Contacts) -> int:
        """A sparse matrix."""
        return len(contacts.first) + contacts.units * contacts.atoms

    def couplings(self, structure: Placed, contacts: Contacts, springs: Springs) -> Float[Tensor, "pairs"]:
        """Spring constant of each pair: the Hessian is sparse."""
        return contacts.constants(springs).to(structure.xyz.dtype)

    def quadratic_form(
        self,
        F: Complex[Tensor, "n M"],
        couplings: Float[Tensor, "pairs"],
        contacts: Contacts,
        batch: Batch,
        at_bragg: AtBragg,
    ) -> Float[Tensor, "n"]:
        """See :func:`sparse_quadratic_form`."""
        return sparse_quadratic_form(F, couplings, contacts, batch, at_bragg)

    def covariance(
        self, structure: Placed, contacts: Contacts, springs: Springs, kappa: Float[Tensor, "k 3"]
    ) -> Float[Tensor, "M"]:
        """Its diagonal: what each atom answers to a force of its own."""
        couplings = self.couplings(structure, contacts, springs)
        size = contacts.units * contacts.atoms
        own = torch.arange(size, device=kappa.device)
        total = couplings.new_zeros(size)
        for k in kappa.split(1):
            for atoms in own.split(max(1, WORK // size)):

                def part(couplings: Tensor, kappa: Tensor, atoms: Tensor = atoms) -> Tensor:
                    force = torch.nn.functional.one_hot(atoms, size).to(torch.complex128)
                    at_bragg = AtBragg(1e-9, finite=True)
                    return sparse_quadratic_form(force, couplings, contacts, one_row(kappa, len(atoms)), at_bragg)

                total = total.index_add(0, atoms, streamed(part, couplings, k))
        return total

    def hessian(self, structure: Placed, contacts: Contacts, springs: Springs) -> Float[Tensor, "cells M M"]:
        """See :func:`scalar_hessian`; for small cells."""
        return scalar_hessian(contacts, springs).to(structure.xyz.dtype)

    def factors(self, structure: Placed) -> None:
        """Every atom counts by itself."""
        return

    def structure_factors(
        self, q: Float[Tensor, "points 3"], sums: Complex[Tensor, "points units atoms"]
    ) -> Complex[Tensor, "points M"]:
        """|q| w of each atom."""
        length = q.square().sum(-1).clamp_min(1e-300).sqrt().to(sums.real.dtype)
        return (sums * length[:, None, None]).flatten(1)

    def mean_square(self, covariance: Float[Tensor, "M"], structure: Placed) -> Float[Tensor, "atoms"]:
        """The variances, averaged over units."""
        return covariance.reshape(structure.units, -1).mean(0)

    def mass(self, structure: Placed) -> Float[Tensor, "M M"]:
        """Masses of the atoms."""
        return torch.diag(structure.mass.repeat(structure.units))


def uniform_shifts(couplings: Float[Tensor, "cells M M"]) -> Float[Tensor, "M 3"]:
    """Orthonormal shifts of all rigid units together."""
    units = couplings.shape[-1] // 6
    one = torch.eye(6, 3, dtype=couplings.dtype, device=couplings.device)
    return one.repeat(units, 1) / units**0.5


def free_sums(
    q: Float[Tensor, "points 3"],
    x: Float[Tensor, "units atoms 3"],
    amplitude: Float[Tensor, "points atoms"],
    factors: Float[Tensor, "units atoms factors"] | None,
) -> Complex[Tensor, "points units sums"]:
    r"""Sums :math:`\sum_j f_j e^{iq \cdot x_j} t_j` over the atoms of each unit, for several factors t, at any points.

    Args:
        q: Scattering vectors [1/A].
        x: Atoms [A].
        amplitude: Scattering power f of each atom, the same in every unit.
        factors: What waves are multiplied by; ``None``: the waves themselves, not summed.
    """
    cosine, sine = turns(q @ x.transpose(-1, -2) / (2 * torch.pi), amplitude.dtype)
    real, imaginary = amplitude * cosine, amplitude * sine
    if factors is not None:
        factors = factors.to(amplitude.dtype)
        real, imaginary = real @ factors, imaginary @ factors
    return torch.complex(real, imaginary).transpose(0, 1)
