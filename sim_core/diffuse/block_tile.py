r"""One-phonon scattering of blocks at some points, with all first derivatives, written out.

.. math:: y = \sum_s g_s\, F^\dagger G(h_s) F, \quad G(h) = \sum_\kappa w(h - \kappa) K(\kappa)^{-1}

F is taken at one (h, q), the window w at several samples around it. With V = conj(F) F^T as real numbers and
:math:`T_\kappa = V \cdot K(\kappa)^{-1}`, the derivative in a window is T; with x = G F, that in F is 2 x, from where
one pass back through the sums over atoms gives the derivatives in h, q, positions, displacements and lever arms.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..scattered_waves import (
    Answers,
    Kinds,
    Sums,
    Waves,
    make_waves,
    point_slopes,
    pull_back,
    sum_waves,
    sums_by_kind,
)
from .blocks import Axis, BlockGrid, Packed, Window, axis_weights, outer, unpack


class Settings(NamedTuple):
    """What is constant in every derivative.

    Attributes:
        window: Shape of the blocks.
        grid: Wavevectors that fit them.
        kinds: How atoms are sorted.
        occupancy: Of the atoms.
        dtype: Precision.
        tile: Numbers of one kind (waves of atoms, say) that are worked on at a time.
    """

    window: Window
    grid: BlockGrid
    kinds: Kinds
    occupancy: Float[Tensor, "atoms"]
    dtype: torch.dtype
    tile: int


class Inputs(NamedTuple):
    """What can be differentiated.

    Attributes:
        hkl: Fractional Miller indices at which atoms are summed.
        q: The same points as scattering vectors [1/A], in the frame of the atoms.
        samples: Fractional Miller indices at which the window is taken.
        weights: Weight of each sample.
        n_cells: Cells along the edges of a block.
        fractional: Atoms, sorted by their kind.
        u: Elements of their mean square displacements [A^2].
        lever_arms: Atoms relative to the point that their unit turns about [A].
        real: Real parts of the packed inverse dynamical matrices [A^2 / k_B T].
        imaginary: Their imaginary parts.
    """

    hkl: Float[Tensor, "points 3"]
    q: Float[Tensor, "points 3"]
    samples: Float[Tensor, "points samples 3"]
    weights: Float[Tensor, "points samples"]
    n_cells: Float[Tensor, "3"]
    fractional: Float[Tensor, "units atoms 3"]
    u: Float[Tensor, "units atoms 6"]
    lever_arms: Float[Tensor, "units atoms 3"]
    real: Float[Tensor, "half triangle"]
    imaginary: Float[Tensor, "half triangle"]


class Amplitudes(NamedTuple):
    """Structure factors of the displacements, and what they are made of."""

    waves: Waves
    factors: Float[Tensor, "units atoms 4"]
    sums: Sums
    F: Sums
    V: Packed
    T: Float[Tensor, "points wavevectors"]


class Windows(NamedTuple):
    """Weights along the three axes, and the product of those along the first two."""

    a: Axis
    b: Axis
    c: Axis
    ab: Float[Tensor, "points samples pairs"]


class Slopes(NamedTuple):
    """Value at each point and its derivatives in what each point has of its own, and what the others are made of."""

    value: Float[Tensor, "points"]
    hkl: Float[Tensor, "points 3"]
    q: Float[Tensor, "points 3"]
    samples: Float[Tensor, "points samples 3"]
    weights: Float[Tensor, "points samples"]
    n_cells: Float[Tensor, "points 3"]
    answers: Answers
    cotangent: Sums
    windows: Packed


def amplitudes(x: Inputs, settings: Settings) -> Amplitudes:
    """The part that knows the atoms."""
    waves = make_waves(x.hkl, x.q, x.fractional, x.u, settings.kinds, settings.dtype)
    factors = torch.cat([torch.ones_like(x.lever_arms[..., :1]), x.lever_arms], -1) * settings.occupancy[:, None]
    sums = sum_waves(waves, factors, settings.kinds)
    q = x.q.to(settings.dtype)
    F = Sums(_structure_factors(sums.real, q), _structure_factors(sums.imaginary, q))
    V = outer(F.real, F.imaginary)
    even, odd = V.real @ x.real.to(q).T, V.imaginary @ x.imaginary.to(q).T
    a, b, c = settings.grid.sizes
    T = even.new_empty(len(q), a * b * c)
    T[:, settings.grid.minus] = even - odd
    T[:, settings.grid.plus] = even + odd
    return Amplitudes(waves, factors, sums, F, V, T)


def _structure_factors(
    sums: Float[Tensor, "units points 4"], q: Float[Tensor, "points 3"]
) -> Float[Tensor, "points M"]:
    """(q S_0, m x q) of each unit."""
    turn = torch.linalg.cross(sums[..., 1:], q.expand_as(sums[..., 1:]))
    return torch.cat([sums[..., :1] * q, turn], -1).transpose(0, 1).flatten(1)


def windows(x: Inputs, settings: Settings, orders: int) -> Windows:
    """The part that knows the block, with derivatives as :func:`axis_weights` has them."""
    axes = [
        axis_weights(settings.window, h, n, m, settings.dtype, orders)
        for h, n, m in zip(x.samples.unbind(-1), x.n_cells, settings.grid.sizes, strict=True)
    ]
    return Windows(axes[0], axes[1], axes[2], _pairs(axes[0].value, axes[1].value))


def _pairs(a: Float[Tensor, "points samples a"], b: Float[Tensor, "points samples b"]) -> Tensor:
    return (a[..., :, None] * b[..., None, :]).flatten(-2)


def value(x: Inputs, settings: Settings) -> Float[Tensor, "points"]:
    """Intensity at each point, summed over samples."""
    w, T = windows(x, settings, 1), amplitudes(x, settings).T
    lines = w.ab @ T.unflatten(1, (-1, settings.grid.sizes[2]))
    return ((lines * w.c.value).sum(-1) * x.weights.to(settings.dtype)).sum(-1)


def slopes(x: Inputs, settings: Settings, with_cells: bool) -> tuple[Slopes, Amplitudes]:
    """Values and derivatives.

    Args:
        x: Some points.
        settings: What is constant.
        with_cells: Whether the derivative in the number of cells is wanted; otherwise it is zero.
    """
    amplitude, w = amplitudes(x, settings), windows(x, settings, 3 if with_cells else 2)
    weights = x.weights.to(settings.dtype)
    each, in_samples, in_cells = _window_slopes(w, amplitude.T, settings.grid.sizes[2], with_cells)
    mean = ((w.ab * weights[..., None]).mT @ w.c.value).flatten(1)
    plus, minus = mean[:, settings.grid.plus], mean[:, settings.grid.minus]
    packed = Packed((plus + minus) * settings.grid.alone().to(plus), plus - minus)
    answer = _responses(amplitude.F, packed, x)
    q = x.q.to(settings.dtype)
    cotangent, in_q = _cotangent(answer, amplitude.sums, q)
    answers = pull_back(amplitude.waves, cotangent, amplitude.factors, settings.kinds)
    by_kind = sums_by_kind(amplitude.waves, amplitude.factors, settings.kinds)
    by_f = torch.einsum("kupc,upc->pk", by_kind[0], cotangent.real)
    by_f = by_f + torch.einsum("kupc,upc->pk", by_kind[1], cotangent.imaginary)
    hkl, pull = point_slopes(answers, x.q, x.fractional, x.u, by_f, amplitude.waves, settings.kinds)
    total = (each * weights).sum(-1)
    in_samples, in_cells = in_samples * weights[..., None], (in_cells * weights[..., None]).sum(1)
    found = Slopes(total, hkl, in_q + pull, in_samples, each, in_cells, answers, cotangent, packed)
    return found, amplitude


def _window_slopes(
    w: Windows, T: Float[Tensor, "points wavevectors"], width: int, with_cells: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Value of each sample, its derivative in the sample's indices, and in the numbers of cells."""
    parts = [w.ab, _pairs(w.a.by_h, w.b.value), _pairs(w.a.value, w.b.by_h)]
    if with_cells:
        parts += [_pairs(w.a.by_n, w.b.value), _pairs(w.a.value, w.b.by_n)]
    lines = (torch.cat(parts, 1) @ T.unflatten(1, (-1, width))).chunk(len(parts), 1)
    each, in_a, in_b, *others = ((line * w.c.value).sum(-1) for line in lines)
    in_samples = torch.stack([in_a, in_b, (lines[0] * w.c.by_h).sum(-1)], -1)
    if not with_cells:
        return each, in_samples, torch.zeros_like(in_samples)
    return each, in_samples, torch.stack([*others, (lines[0] * w.c.by_n).sum(-1)], -1)


def _responses(F: Sums, packed: Packed, x: Inputs) -> Sums:
    """x = G F."""
    dtype = F.real.dtype
    G = Packed(packed.real @ x.real.to(dtype), packed.imaginary @ x.imaginary.to(dtype))
    real, imaginary = unpack(G, F.real.shape[-1])
    both = torch.stack([F.real, F.imaginary], -1)
    one, other = real @ both, imaginary @ both
    return Sums(one[..., 0] - other[..., 1], one[..., 1] + other[..., 0])


def _cotangent(answer: Sums, sums: Sums, q: Float[Tensor, "points 3"]) -> tuple[Sums, Float[Tensor, "points 3"]]:
    """Derivative 2 x of the intensity in F, taken back to the sums over atoms and to the q that multiplies them."""

    def back(part: Float[Tensor, "points M"], own: Float[Tensor, "units points 4"]) -> tuple[Tensor, Tensor]:
        shift, turn = (2 * part).unflatten(-1, (-1, 6)).transpose(0, 1).split(3, -1)
        to_sums = torch.cat([(shift * q).sum(-1, keepdim=True), torch.linalg.cross(q.expand_as(turn), turn)], -1)
        to_q = shift * own[..., :1] + torch.linalg.cross(turn, own[..., 1:])
        return to_sums, to_q.sum(0)

    real, in_q = back(answer.real, sums.real)
    imaginary, more = back(answer.imaginary, sums.imaginary)
    return Sums(real, imaginary), in_q + more
