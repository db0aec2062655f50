"""The sum of all waves of a cell at many points, differentiable once in everything, forwards and backwards.

Points are worked on in tiles and only the inputs are kept; derivatives are moments of the waves, products of matrices.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from .form_factors import form_factor_slope
from .scattered_waves import (
    Kinds,
    Sums,
    Waves,
    make_waves,
    monomials,
    point_slopes,
    pull_back,
    sum_waves,
    sums_by_kind,
    symmetric,
)

TILE = {"cpu": 1 << 17, "cuda": 1 << 24}
"""Numbers (points x atoms in the cell) that are worked on at a time: a cache's worth on a CPU, enough to fill a GPU."""


class Atoms(NamedTuple):
    """What does not change: how atoms are sorted, their occupancies, and the precision of the waves."""

    kinds: Kinds
    occupancy: Float[Tensor, "atoms"]
    dtype: torch.dtype


def wave_sum(
    hkl: Float[Tensor, "points 3"],
    q: Float[Tensor, "points 3"],
    fractional: Float[Tensor, "units atoms 3"],
    u: Float[Tensor, "units atoms 6"],
    atoms: Atoms,
) -> Float[Tensor, "2 points"]:
    """Real and imaginary part of F [electron].

    Args:
        hkl: Fractional Miller indices.
        q: The same points as scattering vectors [1/A], in the frame of the displacements.
        fractional: Atoms, sorted by their kind.
        u: Elements of their mean square displacements [A^2].
        atoms: What does not change.
    """
    F: Tensor = _WaveSum.apply(hkl, q, fractional, u, atoms)
    return F


def _tiles(hkl: Tensor, q: Tensor, x: Tensor, u: Tensor, atoms: Atoms) -> Iterator[tuple[slice, Waves]]:
    size = max(1, TILE.get(hkl.device.type, 1 << 24) // (x.shape[0] * x.shape[1]))
    for start in range(0, len(hkl), size):
        rows = slice(start, start + size)
        yield rows, make_waves(hkl[rows], q[rows], x, u, atoms.kinds, atoms.dtype)


def _ones(x: Tensor, atoms: Atoms) -> Float[Tensor, "units atoms 1"]:
    return atoms.occupancy[None, :, None].expand(len(x), -1, -1)


class _WaveSum(torch.autograd.Function):
    @staticmethod
    def forward(hkl: Tensor, q: Tensor, x: Tensor, u: Tensor, atoms: Atoms) -> Tensor:
        out = hkl.new_empty(2, len(hkl), dtype=atoms.dtype)
        for rows, waves in _tiles(hkl, q, x, u, atoms):
            sums = sum_waves(waves, _ones(x, atoms), atoms.kinds)
            out[:, rows] = torch.stack(sums).sum(1)[..., 0]
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *tensors, ctx.atoms = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)
        ctx.set_materialize_grads(False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor | None) -> tuple[Tensor | None, ...]:
        if gradient is None:
            return (None,) * 5
        hkl, q, x, u = ctx.saved_tensors
        d_hkl, d_q, d_x, d_u = (torch.zeros_like(t) for t in ctx.saved_tensors)
        kinds, ones = ctx.atoms.kinds, _ones(x, ctx.atoms)
        for rows, waves in _tiles(hkl, q, x, u, ctx.atoms):
            g = gradient[:, rows, None].expand(-1, -1, 1)
            cotangent = Sums(*(part.expand(len(x), *part.shape) for part in g))
            answers = pull_back(waves, cotangent, ones, kinds)
            real, imaginary = sums_by_kind(waves, ones, kinds)
            by_f = (real.sum(1) * g[0] + imaginary.sum(1) * g[1])[..., 0].T
            d_hkl[rows], d_q[rows] = point_slopes(answers, q[rows], x, u, by_f, waves, kinds)
            d_x += answers.imaginary.mT @ (-2 * torch.pi * hkl[rows]).to(g)
            d_u += answers.real.mT @ (-0.5 * monomials(q[rows])).to(g)
        return d_hkl, d_q, d_x, d_u, None

    @staticmethod
    def jvp(ctx: Any, *changes: Tensor | None) -> Tensor:
        y: Tensor = _Tangents.apply(ctx.atoms, *ctx.saved_tensors, *changes[:4])
        return y

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        raise NotImplementedError("wave_sum: a batch of crystals is a loop; only its tangents are batched")


class _Tangents(torch.autograd.Function):
    """All directions of a Jacobian in one pass."""

    @staticmethod
    def forward(atoms: Atoms, *tensors: Any) -> Tensor:
        return _tangents(atoms, tensors[:4], [None if c is None else c[None] for c in tensors[4:]])[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def vmap(info: Any, in_dims: Any, atoms: Atoms, *tensors: Any) -> Any:
        if any(d is not None for d in in_dims[1:5]):
            raise NotImplementedError("wave_sum: a batch of crystals is a loop; only its tangents are batched")
        changes: list[Tensor | None] = []
        for change, dim in zip(tensors[4:], in_dims[5:], strict=True):
            if change is not None:
                change = change.expand(info.batch_size, *change.shape) if dim is None else change.movedim(dim, 0)
            changes.append(change)
        return _tangents(atoms, tensors[:4], changes), 0


def _tangents(
    atoms: Atoms, inputs: tuple[Tensor, ...], changes: list[Tensor | None]
) -> Float[Tensor, "directions 2 points"]:
    """Change of F along each direction."""
    hkl, q, x, u = inputs
    dh, dq, dx, du = changes
    directions = next(len(c) for c in changes if c is not None)
    out = torch.zeros(directions, 2, len(hkl), dtype=atoms.dtype, device=hkl.device)
    for rows, waves in _tiles(hkl, q, x, u, atoms):
        if dh is not None or dq is not None:
            along, spread, in_f = _point_moments(waves, x, u, atoms)
        if dh is not None:
            out[:, :, rows] += _turned(along, 2 * torch.pi * dh[:, rows].to(along))
        if dq is not None:
            pull = (symmetric(spread) @ q[rows].to(spread)[:, :, None])[..., 0]
            slope = in_f[..., None] * q[rows].to(spread) / (8 * torch.pi**2) - pull
            out[:, :, rows] += (slope * dq[:, None, rows].to(spread)).sum(-1)
        for change, numbers in ((dx, 2 * torch.pi * hkl[rows]), (du, -0.5 * monomials(q[rows]))):
            which = [] if change is None else change.flatten(1).any(1).nonzero()[:, 0].tolist()
            for i in which:
                assert change is not None
                sums = sum_waves(waves, change[i] * atoms.occupancy[:, None], atoms.kinds)
                both = torch.stack([(s.sum(0) * numbers.to(s)).sum(-1) for s in sums])
                out[i, :, rows] += both if change is du else torch.stack([-both[1], both[0]])
    return out


def _turned(along: Float[Tensor, "2 points 3"], change: Float[Tensor, "directions points 3"]) -> Tensor:
    """i times a complex sum."""
    real, imaginary = ((part * change).sum(-1) for part in along)
    return torch.stack([-imaginary, real], 1)


def _point_moments(waves: Waves, x: Tensor, u: Tensor, atoms: Atoms) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of waves times positions, displacements, and slopes of form factors; real and imaginary first."""
    occupancy = atoms.occupancy[:, None]
    along = torch.stack(sum_waves(waves, x * occupancy, atoms.kinds)).sum(1)
    spread = torch.stack(sum_waves(waves, u * occupancy, atoms.kinds)).sum(1)
    slope = form_factor_slope(waves.stol2, atoms.kinds.a, atoms.kinds.b).to(atoms.dtype)
    parts = sums_by_kind(waves, _ones(x, atoms), atoms.kinds)
    return along, spread, torch.stack([(p.sum(1)[..., 0].T * slope).sum(-1) for p in parts])
