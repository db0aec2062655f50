r"""One-phonon thermal diffuse scattering of an elastic network.

.. math:: I(q) = F^\dagger(q)\, K(k)^{-1} F(q), \quad k = q

in electrons^2 for each cell; spring constants are in k_B T/A^2. This inverse is the sum over phonons of
:math:`|F^\dagger v|^2/\omega^2`: masses cancel, and no eigenvector stands in the way of a derivative.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..form_factors import form_factor
from .bodies import Bodies, RigidUnits
from .brillouin import Batch, Wavevectors, batches, separate_wavevectors, unique_wavevectors
from .dynamical_matrix import dynamical_matrix, implicit_inverse, response
from .elastic_network import Contacts, Springs
from .structure import Structure, miller_indices


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
        structure: Structure,
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
        hessian = self.bodies.hessian(structure, self.contacts, springs)
        if wavevectors is None:
            find = separate_wavevectors if q.requires_grad else unique_wavevectors
            wavevectors = find(miller_indices(q, structure.basis))
        size = max(1, self.batch // max(structure.units * structure.atoms, len(hessian[0]) ** 2 // 8))
        keep = torch.is_grad_enabled() and any(t.requires_grad for t in (hessian, structure.xyz, u_iso, q))
        parts, order = [], []
        for batch in batches(wavevectors, size):

            def part(*tensors: Tensor, batch: Batch = batch) -> Tensor:
                return self._batch(structure, batch, *tensors)

            arguments = (q[batch.points], batch.kappa, hessian, structure.xyz, u_iso)
            compute = partial(_Recomputed.apply, part) if keep else part
            parts.append(compute(*arguments))
            order.append(batch.points)
        if not parts:
            return q.new_zeros(0)
        back = torch.cat(order).argsort()
        return torch.cat(parts)[back]

    def _batch(
        self, structure: Structure, batch: Batch, q: Tensor, kappa: Tensor, hessian: Tensor, xyz: Tensor, u_iso: Tensor
    ) -> Float[Tensor, "n"]:
        """Intensity of a batch of points."""
        structure = replace(structure, xyz=xyz)
        F = self.structure_factors(structure, q, u_iso)
        flip = batch.flipped != self.conjugate
        F = torch.complex(F.real, torch.where(flip[:, None], -F.imag, F.imag)).to(torch.complex128)
        K = dynamical_matrix(hessian, self.contacts.cells, kappa)
        at_bragg = ((kappa - torch.round(kappa)).detach().abs() < self.bragg_tolerance).all(-1)
        known = response(K.detach(), self.bodies.translations(structure), at_bragg, self.finite_at_bragg)
        return quadratic_form(F, K, known.inverse, known.singular, batch)

    def structure_factors(
        self, structure: Structure, q: Float[Tensor, "points 3"], u_iso: Float[Tensor, "atoms"]
    ) -> Complex[Tensor, "points M"]:
        """Coupling of the scattered wave to the displacements."""
        q2 = q.square().sum(-1)
        atoms = structure.form_factors
        f = form_factor(q2 / (16 * torch.pi**2), atoms.a, atoms.b, atoms.c)[:, atoms.kind]
        amplitude = f * structure.weight * torch.exp(-0.5 * q2[:, None] * u_iso)
        return self.bodies.structure_factors(q, amplitude.to(self.dtype), structure)


class _Recomputed(torch.autograd.Function):
    """A function that keeps only its inputs and is computed again in the backward pass."""

    @staticmethod
    def forward(ctx: Any, function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        ctx.function = function
        ctx.save_for_backward(*tensors)
        return function(*tensors)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad[1:]
        inputs = [t.detach().requires_grad_(n) for t, n in zip(ctx.saved_tensors, needed, strict=True)]
        with torch.enable_grad():
            value = ctx.function(*inputs)
        wanted = [t for t, n in zip(inputs, needed, strict=True) if n]
        slopes = iter(torch.autograd.grad(value, wanted, gradient, allow_unused=True))
        return (None, *(next(slopes) if n else None for n in needed))


def quadratic_form(
    F: Complex[Tensor, "n M"],
    K: Complex[Tensor, "k M M"],
    inverse: Complex[Tensor, "k M M"],
    singular: Bool[Tensor, "k"],
    batch: Batch,
) -> Float[Tensor, "n"]:
    r""":math:`F^\dagger K^{-1} F` with its exact first derivative from an inverse that is held constant.

    With :math:`x = K^{-1} F` the derivative is :math:`2\,\mathrm{Re}\,x^\dagger dF - x^\dagger dK\,x`. The stationary
    form :math:`2\,\mathrm{Re}\,x^\dagger F - x^\dagger K x` has this value and this derivative with x held constant.

    Args:
        F: Structure factors of the points.
        K: Dynamical matrices of the batch.
        inverse: Their inverses.
        singular: Matrices without an inverse: their points are NaN.
        batch: Which point belongs to which matrix.
    """
    size = F.shape[-1]
    rows = len(batch.row_kappa)
    padded = F.new_zeros(rows * batch.width, size)
    padded = padded.index_copy(0, batch.place, F.detach()).reshape(rows, batch.width, size)
    x = padded @ inverse.transpose(-1, -2)[batch.row_kappa]
    strain = (x.conj() * (x @ K.transpose(-1, -2)[batch.row_kappa])).real.sum(-1).flatten()[batch.place]
    x = x.flatten(0, 1)[batch.place]
    work = (x.real * F.real + x.imag * F.imag).sum(-1)
    none = singular[batch.row_kappa].repeat_interleave(batch.width)[batch.place]
    return torch.where(none, torch.nan, 2 * work - strain)


def covariance(
    structure: Structure, contacts: Contacts, bodies: Bodies, springs: Springs, kappa: Float[Tensor, "k 3"]
) -> Float[Tensor, "M M"]:
    """Covariance of the displacements within a cell, summed over wavevectors, uniform shifts left out [A^2]."""
    hessian = bodies.hessian(structure, contacts, springs)
    K = dynamical_matrix(hessian, contacts.cells, kappa)
    at_bragg = (kappa - torch.round(kappa)).abs().amax(-1) < 1e-9
    known = response(K.detach(), bodies.translations(structure), at_bragg, finite=True)
    return implicit_inverse(K, known.inverse).real.sum(0)


def model_u_iso(covariance: Float[Tensor, "M M"], structure: Structure, bodies: Bodies) -> Float[Tensor, "atoms"]:
    """Mean square displacements [A^2] that the network predicts, scaled to the mean of ``structure.b_iso``."""
    u = bodies.mean_square(covariance, structure)
    return u * (structure.b_iso.mean() / (8 * torch.pi**2) / u.mean())
