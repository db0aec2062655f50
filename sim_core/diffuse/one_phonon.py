r"""One-phonon thermal diffuse scattering of an elastic network.

.. math:: I(q) = F^\dagger(q)\, K(k)^{-1} F(q), \quad k = q

in electrons^2 for each cell; spring constants are in k_B T/A^2. This inverse is the sum over phonons of
:math:`|F^\dagger v|^2/\omega^2`: masses cancel, and no eigenvector stands in the way of a derivative.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Complex, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..form_factors import form_factor
from .bodies import Bodies, RigidUnits, free_sums
from .brillouin import Batch, Wavevectors, batches, make_batch, separate_wavevectors, unique_wavevectors
from .columns import Columns, column_sums, enumerate_columns, find_columns, level_waves, sorted_scatterers
from .dynamical_matrix import implicit_inverse, response
from .elastic_network import Contacts, Springs
from .structure import Structure, cell_positions, miller_indices


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
        self, structure: Structure, couplings: Tensor, q: Tensor, wavevectors: Wavevectors, u_iso: Tensor
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Points that have nothing but wavevectors in common, and their intensities."""
        size = max(1, self.batch // (structure.units * structure.atoms))
        most = max(1, 8 * self.batch // len(self.bodies.translations(structure)) ** 2)
        for batch in batches(wavevectors, size, most):

            def part(
                couplings: Tensor, q: Tensor, kappa: Tensor, xyz: Tensor, u: Tensor, batch: Batch = batch
            ) -> Tensor:
                F = self.structure_factors(replace(structure, xyz=xyz), q, u)
                return self._intensity(structure, F, couplings, kappa, batch)

            yield batch.points, _streamed(part, couplings, q[batch.points], batch.kappa, structure.xyz, u_iso)

    def _grid(
        self,
        structure: Structure,
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
        size = max(
            1,
            self.batch // max(structure.units * structure.atoms, 4 * len(self.bodies.translations(structure)) * levels),
        )
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
                return self._intensity(structure, F, couplings, batch.kappa, batch)

            yield batch.points, _streamed(part, couplings, atoms.fractional, atoms.u_iso, waves)

    def _intensity(
        self, structure: Structure, F: Tensor, couplings: Tensor, kappa: Tensor, batch: Batch
    ) -> Float[Tensor, "n"]:
        """Intensity of a batch of points from their structure factors."""
        K = self.bodies.dynamical_matrix(couplings, self.contacts, kappa)
        at_bragg = ((kappa - torch.round(kappa)).detach().abs() < self.bragg_tolerance).all(-1)
        known = response(K.detach(), self.bodies.translations(structure), at_bragg, self.finite_at_bragg)
        conjugated = (batch.flipped != self.conjugate)[:, None, None]
        K, inverse = (torch.where(conjugated, m.conj(), m) for m in (K[batch.row], known.inverse[batch.row]))
        singular = known.singular[batch.row].repeat_interleave(batch.width)[batch.place]
        intensity = quadratic_form(F.to(K.dtype), K, inverse, batch)
        return torch.where(singular, torch.nan, intensity)

    def structure_factors(
        self, structure: Structure, q: Float[Tensor, "points 3"], u_iso: Float[Tensor, "atoms"]
    ) -> Complex[Tensor, "points M"]:
        """Coupling of the scattered wave to the displacements."""
        q2 = q.square().sum(-1)
        atoms = structure.form_factors
        f = form_factor(q2 / (16 * torch.pi**2), atoms.a, atoms.b, atoms.c)[:, atoms.kind]
        amplitude = (f * structure.weight * torch.exp(-0.5 * q2[:, None] * u_iso)).to(self.dtype)
        sums = free_sums(q, cell_positions(structure), amplitude, self.bodies.factors(structure))
        return self.bodies.structure_factors(q, sums)


def _streamed(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """A value whose intermediate results are not kept for the backward pass."""
    keep = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    return _Recomputed.apply(function, *tensors) if keep else function(*tensors)


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
    K: Complex[Tensor, "rows M M"],
    inverse: Complex[Tensor, "rows M M"],
    batch: Batch,
) -> Float[Tensor, "n"]:
    r""":math:`F^\dagger K^{-1} F` with its exact first derivative from an inverse that is held constant.

    With :math:`x = K^{-1} F` the derivative is :math:`2\,\mathrm{Re}\,x^\dagger dF - x^\dagger dK\,x`.

    Args:
        F: Structure factors of the points.
        K: Dynamical matrix of each row of points.
        inverse: Their inverses.
        batch: Which point stands where in the rows.
    """
    rows = F.new_zeros(len(K) * batch.width, F.shape[-1]).index_copy(0, batch.place, F)
    value, _ = _QuadraticForm.apply(rows.reshape(len(K), batch.width, -1), K, inverse)
    return value.flatten()[batch.place]


class _QuadraticForm(torch.autograd.Function):
    """Values for rows of F, and x = K^-1 F, which all derivatives are made of."""

    generate_vmap_rule = True

    @staticmethod
    def forward(F: Tensor, K: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor]:
        x = F @ inverse.transpose(-1, -2)
        return _real_product(x, F), x

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(output[1])
        ctx.save_for_forward(output[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Any) -> tuple[Tensor, Tensor, None]:
        (x,) = ctx.saved_tensors
        weighted = x * gradient[..., None]
        return 2 * weighted, -weighted.transpose(-1, -2) @ x.conj(), None

    @staticmethod
    def jvp(ctx: Any, dF: Tensor | None, dK: Tensor | None, _: Any) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        change = torch.zeros_like(x.real[..., 0])
        if dF is not None:
            change = change + 2 * _real_product(x, dF)
        if dK is not None:
            change = change - _real_product(x, x @ dK.transpose(-1, -2))
        return change, None


def _real_product(x: Complex[Tensor, "*batch M"], y: Complex[Tensor, "*batch M"]) -> Float[Tensor, "*batch"]:
    """Re x^H y."""
    return (torch.view_as_real(x) * torch.view_as_real(y.resolve_conj())).sum((-2, -1))


def covariance(
    structure: Structure, contacts: Contacts, bodies: Bodies, springs: Springs, kappa: Float[Tensor, "k 3"]
) -> Float[Tensor, "M M"]:
    """Covariance of the displacements within a cell, summed over wavevectors, uniform shifts left out [A^2].

    Wavevectors are streamed, as points are in :class:`OnePhonon`.
    """
    translations = bodies.translations(structure)

    def part(couplings: Tensor, kappa: Tensor) -> Tensor:
        K = bodies.dynamical_matrix(couplings, contacts, kappa)
        at_bragg = (kappa - torch.round(kappa)).abs().amax(-1) < 1e-9
        known = response(K.detach(), translations, at_bragg, finite=True)
        return implicit_inverse(K, known.inverse).real.sum(0)

    couplings = bodies.couplings(structure, contacts, springs)
    total = couplings.new_zeros(len(translations), len(translations))
    for some in kappa.split(max(1, (1 << 22) // len(translations) ** 2)):
        total = total + _streamed(part, couplings, some)
    return total


def model_u_iso(covariance: Float[Tensor, "M M"], structure: Structure, bodies: Bodies) -> Float[Tensor, "atoms"]:
    """Mean square displacements [A^2] that the network predicts, scaled to the mean of ``structure.b_iso``."""
    u = bodies.mean_square(covariance, structure)
    return u * (structure.b_iso.mean() / (8 * torch.pi**2) / u.mean())
