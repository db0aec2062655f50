"""What a crystal answers to forces: inverses of dynamical matrices and quadratic forms of them, with derivatives."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from .brillouin import Batch

SINGULAR = 1e-13
"""Pivots, and eigenvalues, below this part of the largest diagonal element count as zero."""


class AtBragg(NamedTuple):
    """What to do where a crystal shifts without a force.

    Attributes:
        tolerance: Distance to a Bragg point, in units of the reciprocal cell, that counts as none.
        finite: Leave these shifts out; otherwise intensities are NaN there.
    """

    tolerance: float
    finite: bool


class Response(NamedTuple):
    """An inverse ready for use, constant in every derivative.

    Attributes:
        inverse: Inverse, or pseudo-inverse, of each matrix; zero where there is none.
        singular: Matrices with zero modes that were not taken out.
    """

    inverse: Complex[Tensor, "k M M"]
    singular: Bool[Tensor, "k"]


@torch.no_grad()
def response(
    matrices: Complex[Tensor, "k M M"],
    translations: Float[Tensor, "M shifts"],
    kappa: Float[Tensor, "k 3"],
    at_bragg: AtBragg,
) -> Response:
    r"""Inverse of dynamical matrices by Cholesky decomposition.

    At a Bragg point the crystal shifts as a whole without a force. These modes are known beforehand, T; with
    P = 1 - T T^T the inverse on the rest is :math:`P (P K P + c\,T T^T)^{-1} P` for any c > 0. Where modes beyond these
    are soft (parts of a crystal without contacts), the pseudo-inverse is taken from the eigenvectors.

    Args:
        matrices: Hermitian, positive.
        translations: Orthonormal uniform translations T.
        kappa: Their wavevectors, in units of the reciprocal cell.
        at_bragg: Whether to give pseudo-inverses where there are zero modes; otherwise they are flagged.
    """
    bragg = ((kappa - torch.round(kappa)).abs() < at_bragg.tolerance).all(-1)
    size = matrices.diagonal(dim1=-1, dim2=-2).real.amax(-1)
    uniform = (translations @ translations.T).to(matrices)
    eye = torch.eye(len(uniform), dtype=matrices.dtype, device=matrices.device)
    others = eye - uniform
    regular = matrices
    if bool(bragg.any()):
        deflated = others @ matrices[bragg] @ others + size[bragg, None, None] * uniform
        regular = matrices.index_put((bragg,), deflated)
    factor, info = torch.linalg.cholesky_ex(regular)
    pivots = factor.diagonal(dim1=-1, dim2=-2).real.square()
    singular = (info != 0) | ~(pivots.amin(-1) > SINGULAR * size)
    factor = torch.where(singular[:, None, None], eye, factor)
    inverse = torch.cholesky_inverse(factor)
    if bool(bragg.any()):
        inverse[bragg] = others @ inverse[bragg] @ others
    if at_bragg.finite and bool(singular.any()):
        inverse[singular] = _pseudo_inverse(regular[singular], size[singular])
        both = bragg & singular
        inverse[both] = others @ inverse[both] @ others
        return Response(inverse, torch.zeros_like(singular))
    singular = singular if at_bragg.finite else singular | bragg
    return Response(torch.where(singular[:, None, None], 0, inverse), singular)


def _pseudo_inverse(matrices: Complex[Tensor, "k M M"], size: Float[Tensor, "k"]) -> Complex[Tensor, "k M M"]:
    values, vectors = torch.linalg.eigh(matrices)
    zero = values <= 1e3 * SINGULAR * size[:, None]
    weights = torch.where(zero, 0, 1 / torch.where(zero, 1, values))
    return (vectors * weights[:, None, :]) @ vectors.mH


def implicit_inverse(matrices: Complex[Tensor, "k M M"], inverse: Complex[Tensor, "k M M"]) -> Complex[Tensor, "k M M"]:
    """The inverse with its derivative -K^-1 dK K^-1, which also holds for a pseudo-inverse whose null space is fixed.

    One Newton step, 2 P - P K P, leaves the value as it is and carries exactly this derivative.
    """
    return 2 * inverse - inverse @ matrices @ inverse


def quadratic_form(
    F: Complex[Tensor, "n M"],
    K: Complex[Tensor, "k M M"],
    known: Response,
    batch: Batch,
) -> Float[Tensor, "n"]:
    r""":math:`F^\dagger K^{-1} F` with its exact first derivative from an inverse that is held constant.

    With :math:`x = K^{-1} F` the derivative is :math:`2\,\mathrm{Re}\,x^\dagger dF - x^\dagger dK\,x`.

    Args:
        F: Structure factors of the points.
        K: Dynamical matrix of each wavevector.
        known: Their inverses. The value is NaN where one is singular.
        batch: Which point stands where in the rows.
    """
    rows = F.new_zeros(len(batch.row) * batch.width, F.shape[-1]).index_copy(0, batch.place, F)
    rows = rows.reshape(len(batch.row), batch.width, -1)
    value, _ = _QuadraticForm.apply(rows, K[batch.row], known.inverse[batch.row])
    return torch.where(known.singular[batch.owner()], torch.nan, value.flatten()[batch.place])


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
