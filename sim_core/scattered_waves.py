r"""Waves scattered by the atoms of one cell, and sums of them over each asymmetric unit, at any fractional indices.

.. math:: S_{tu}(h, q) = \sum_{j \in u} o_j f_j(q)\, e^{-q \cdot U_j q/2}\, e^{2\pi i\,h \cdot x_j}\, t_j

for several factors t of the atoms. Positions are fractional; q, displacements U and t are Cartesian, in the frame of
the atoms. Atoms of one kind stand together, so that form factors multiply sums and not waves, and
:math:`q \cdot U q` is a product of monomials with numbers of atoms: everything but one sine, cosine and exponential
an atom is a product of matrices.

Arrays of waves are [units, points, atoms], real and imaginary parts apart.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .form_factors import FormFactors, form_factor, form_factor_slope

PAIRS = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
"""The six elements of a symmetric tensor, in the order in which they are kept."""


class Kinds(NamedTuple):
    """Atoms of a unit, sorted by their kind.

    Attributes:
        order: Where each atom stands in the structure.
        counts: Atoms of each kind.
        a: Heights of the form factors' Gaussians [electron].
        b: Their widths [A^2].
        c: Constants [electron].
    """

    order: Int[Tensor, "atoms"]
    counts: tuple[int, ...]
    a: Float[Tensor, "kinds 4"]
    b: Float[Tensor, "kinds 4"]
    c: Float[Tensor, "kinds"]


class Waves(NamedTuple):
    """Waves of atoms without form factors, and these, at some points."""

    real: Float[Tensor, "units points atoms"]
    imaginary: Float[Tensor, "units points atoms"]
    f: Float[Tensor, "points kinds"]
    stol2: Float[Tensor, "points"]


class Sums(NamedTuple):
    """Real and imaginary parts of sums of waves over each unit."""

    real: Float[Tensor, "units points sums"]
    imaginary: Float[Tensor, "units points sums"]


def sort_kinds(table: FormFactors) -> Kinds:
    """Atoms sorted by their kind; kinds without atoms are left out."""
    present, counts = torch.unique(table.kind, return_counts=True)
    order = table.kind.argsort(stable=True)
    return Kinds(order, tuple(counts.tolist()), table.a[present], table.b[present], table.c[present])


def elements(tensor: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 6"]:
    """The six elements of symmetric tensors."""
    return torch.stack([tensor[..., i, j] for i, j in PAIRS], -1)


def symmetric(six: Float[Tensor, "*batch 6"]) -> Float[Tensor, "*batch 3 3"]:
    """Tensors from their six elements."""
    xx, yy, zz, xy, xz, yz = six.unbind(-1)
    return torch.stack([xx, xy, xz, xy, yy, yz, xz, yz, zz], -1).reshape(*six.shape[:-1], 3, 3)


def monomials(q: Float[Tensor, "points 3"]) -> Float[Tensor, "points 6"]:
    """Numbers whose product with the six elements of U is q.U.q."""
    return torch.stack([q[:, i] * q[:, j] * (1 if i == j else 2) for i, j in PAIRS], -1)


def turns(
    revolutions: Float[Tensor, "*batch"], dtype: torch.dtype
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """Cosine and sine of angles in revolutions; whole ones are taken out in double precision."""
    angle = (2 * torch.pi * (revolutions - torch.round(revolutions.detach()))).to(dtype)
    return angle.cos(), angle.sin()


def make_waves(
    hkl: Float[Tensor, "points 3"],
    q: Float[Tensor, "points 3"],
    fractional: Float[Tensor, "units atoms 3"],
    u: Float[Tensor, "units atoms 6"],
    kinds: Kinds,
    dtype: torch.dtype,
) -> Waves:
    """Waves of all atoms.

    Args:
        hkl: Fractional Miller indices.
        q: The same points as scattering vectors [1/A].
        fractional: Atoms, sorted by their kind.
        u: Elements of their mean square displacements [A^2].
        kinds: How they are sorted.
        dtype: Precision of the waves.
    """
    cosine, sine = turns(hkl @ fractional.mT, dtype)
    height = torch.exp(-0.5 * monomials(q).to(dtype) @ u.mT.to(dtype))
    stol2 = q.square().sum(-1) / (16 * torch.pi**2)
    f = form_factor(stol2, kinds.a, kinds.b, kinds.c).to(dtype)
    return Waves(height * cosine, height * sine, f, stol2)


def sum_waves(waves: Waves, factors: Float[Tensor, "units atoms sums"], kinds: Kinds) -> Sums:
    """Sums over the atoms of each unit.

    Args:
        waves: Of all atoms.
        factors: Numbers t of each atom, occupancies included.
        kinds: How atoms are sorted.
    """
    real, imaginary = sums_by_kind(waves, factors, kinds)
    return Sums(torch.einsum("kupc,pk->upc", real, waves.f), torch.einsum("kupc,pk->upc", imaginary, waves.f))


def sums_by_kind(
    waves: Waves, factors: Float[Tensor, "units atoms sums"], kinds: Kinds
) -> tuple[Float[Tensor, "kinds units points sums"], Float[Tensor, "kinds units points sums"]]:
    """Sums over the atoms of each kind, without form factors; real and imaginary parts."""
    parts = factors.to(waves.real.dtype).split(kinds.counts, 1)
    real = torch.stack([w @ t for w, t in zip(waves.real.split(kinds.counts, 2), parts, strict=True)])
    imaginary = torch.stack([w @ t for w, t in zip(waves.imaginary.split(kinds.counts, 2), parts, strict=True)])
    return real, imaginary


class Answers(NamedTuple):
    r"""What a sum over points and factors, :math:`\mathrm{Re}\sum \bar S^* S`, is made of, atom by atom.

    Attributes:
        real: Real part of :math:`z_j = \sum_t \bar S_t^* t_j\, o_j f_j w_j`.
        imaginary: Its imaginary part.
    """

    real: Float[Tensor, "units points atoms"]
    imaginary: Float[Tensor, "units points atoms"]


def pull_back(waves: Waves, cotangent: Sums, factors: Float[Tensor, "units atoms sums"], kinds: Kinds) -> Answers:
    """Shares of the atoms in the real product of their sums with a cotangent; all derivatives are moments of them."""
    parts = factors.to(waves.real.dtype).mT.split(kinds.counts, 2)
    scaled = [(cotangent.real * f[:, None], cotangent.imaginary * f[:, None]) for f in waves.f.unbind(1)]
    a = torch.cat([real @ t for (real, _), t in zip(scaled, parts, strict=True)], -1)
    b = torch.cat([imaginary @ t for (_, imaginary), t in zip(scaled, parts, strict=True)], -1)
    real = torch.addcmul(a * waves.real, b, waves.imaginary)
    imaginary = torch.addcmul(a * waves.imaginary, b, waves.real, value=-1)
    return Answers(real, imaginary)


def moments(
    answers: Answers, fractional: Float[Tensor, "*batch units atoms 3"], u: Float[Tensor, "*batch units atoms 6"]
) -> tuple[Float[Tensor, "*batch points 3"], Float[Tensor, "*batch points 6"]]:
    """Sums over all atoms of the cell of Im z x and Re z U: derivatives along h and q, or of directions in x and U."""
    positions, displacements = fractional.to(answers.real.dtype), u.to(answers.real.dtype)
    return (answers.imaginary @ positions).sum(-3), (answers.real @ displacements).sum(-3)


def point_slopes(
    answers: Answers,
    q: Float[Tensor, "points 3"],
    fractional: Float[Tensor, "units atoms 3"],
    u: Float[Tensor, "units atoms 6"],
    by_f: Float[Tensor, "points kinds"],
    waves: Waves,
    kinds: Kinds,
) -> tuple[Float[Tensor, "points 3"], Float[Tensor, "points 3"]]:
    r"""Derivative of :math:`\mathrm{Re}\sum \bar S^* S` at each point in h and in q.

    Args:
        answers: From :func:`pull_back`.
        q: Scattering vectors [1/A].
        fractional: Atoms.
        u: Their displacements.
        by_f: Derivative in the form factor of each kind.
        waves: The waves.
        kinds: How atoms are sorted.
    """
    along, spread = moments(answers, fractional, u)
    in_f = (by_f * form_factor_slope(waves.stol2, kinds.a, kinds.b).to(by_f.dtype)).sum(-1, keepdim=True)
    pull = (symmetric(spread) @ q.to(spread.dtype)[:, :, None])[..., 0]
    return -2 * torch.pi * along, in_f * q.to(spread.dtype) / (8 * torch.pi**2) - pull
