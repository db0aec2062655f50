"""Samples of the misorientation of mosaic blocks.

A block is turned about a random axis by an angle between zero and the mosaic spread m, with the distribution of
the reference program: w = angle/m has P(w < x) = 1 - sqrt(1 - x^3). A sample keeps the axes and the relative angles
w; the spread scales them, so that an image is a smooth function of it.
"""

import math
from itertools import islice, product
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .experiment import Crystal, Scan
from .random_numbers import ran1
from .rotations import axis_rotation

SIGMA_PER_SPREAD = math.sqrt(math.gamma(1 / 2) * math.gamma(5 / 3) / math.gamma(13 / 6) / 6)
"""Standard deviation of the misorientation about each axis, relative to the mosaic spread: 0.496.

This is sqrt(E[w^2] / 3) with E[w^2] = B(1/2, 5/3) / 2."""


Misorientation = Literal["cap", "normal"]
"""Distributions of the misorientation: the reference program's, or a normal one about each axis."""


class DomainSample(NamedTuple):
    """Misorientations relative to the mosaic spread: unit axes, angles (in [0, 1] for a cap), weights of sum one."""

    axes: Float[Tensor, "domains 3"]
    angles: Float[Tensor, "domains"]
    weights: Float[Tensor, "domains"]


def domain_rotations(sample: DomainSample, spread: Float[Tensor, "*axes"]) -> Float[Tensor, "domains 3 3"]:
    """Rotation matrices of the blocks of a crystal with the given mosaic spread [rad], one number or three."""
    if spread.ndim == 0:
        return axis_rotation(sample.axes, spread * sample.angles)
    vectors = sample.axes * sample.angles[:, None] * spread
    turned = vectors.square().sum(-1) > 0
    safe = torch.where(turned[:, None], vectors, torch.ones_like(vectors))
    return axis_rotation(safe, torch.where(turned, safe.norm(dim=-1), 0.0))


def orientations(
    crystal: Crystal, scan: Scan, domains: DomainSample
) -> tuple[Float[Tensor, "samples 3 3"], Float[Tensor, "samples"]]:
    """Rows a, b, c [A] of every block at every spindle position, and their weights.

    The misset acts first, then the spindle, then the misorientation of the block.
    """
    spindle = axis_rotation(scan.axis.expand(len(scan.phi), 3), scan.phi)
    blocks = domain_rotations(domains, crystal.mosaic_spread)[None]
    if crystal.mosaic_spread.ndim:
        frames = (spindle @ crystal.rotation)[:, None]
        blocks = frames @ blocks @ frames.mT
    turns = blocks @ spindle[:, None]
    rows = (turns @ crystal.direct.T).mT.flatten(0, 1)
    return rows, torch.outer(scan.weight, domains.weights).flatten()


def normal_domains(count: int, seed: int) -> DomainSample:
    """Random blocks with normally distributed misorientations, of the cap's standard deviation about each axis.

    Args:
        count: Number of blocks.
        seed: Of torch's generator.
    """
    generator = torch.Generator().manual_seed(seed)
    vectors = SIGMA_PER_SPREAD * torch.randn(count, 3, dtype=torch.float64, generator=generator)
    angles = vectors.norm(dim=-1)
    return DomainSample(vectors / angles[:, None], angles, torch.full((count,), 1 / count, dtype=torch.float64))


def random_domains(count: int, seed: int) -> DomainSample:
    """The reference program's random blocks; the first is not turned.

    Args:
        count: Number of blocks.
        seed: The positive number given to ``-mosaic_seed``.

    References: ``mosaic_rotation_umat`` in nanoBragg. The relative angle is rounded to single precision as there.
    """
    draws = np.fromiter(islice(ran1(seed), 3 * count), dtype=np.float64, count=3 * count).reshape(count, 3)
    r1, r2, r3 = (2 * draws - 1).T
    ring = np.sqrt(1 - r2**2)
    axes = np.stack([ring * np.sin(np.pi * r1), ring * np.cos(np.pi * r1), r2], axis=1)
    cube = (1 - r3**2).astype(np.float32).astype(np.float64)
    angles = (cube ** float(np.float32(1 / 3))).astype(np.float32).astype(np.float64)
    angles[0] = 0.0
    weights = torch.full((count,), 1 / count, dtype=torch.float64)
    return DomainSample(torch.from_numpy(axes), torch.from_numpy(angles), weights)


def quadrature_domains(count: int, misorientation: Misorientation = "cap") -> DomainSample:
    """A deterministic rule for either distribution: shells of an icosahedral set of directions and the centre.

    Gauss-Radau nodes in w^2 times directions of icosahedral symmetry integrate every polynomial of the
    misorientation up to the order that the budget allows: 7 nodes to order 3, 13 to 4, 25 to 5, 65 to 8,
    97 to 9, 187 to 11. Each shell is turned against the one inside it, so that blocks do not line up along a radius
    (their spots would overlap); the mean rotation of the rule is zero.

    Args:
        count: The largest number of nodes; the best rule within it is taken.
        misorientation: The reference program's ``cap`` or a ``normal`` distribution of the same standard deviation.

    Raises:
        ValueError: if ``count`` is not positive.
    """
    if count < 1:
        raise ValueError(f"mosaic domains: expected a positive number, got {count}")
    rules = [(1 + shells * n, shells, n) for shells, n in ((1, 6), (1, 12), (2, 12), (2, 32), (3, 32), (3, 62))]
    fitting = [rule for rule in rules if rule[0] <= count]
    if not fitting:
        centre = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)
        return DomainSample(centre, torch.zeros(1).double(), torch.ones(1).double())
    _, shells, directions = fitting[-1]
    angles, radial = _radial_rule(shells, *_squared_angles(misorientation))
    axes, angular = _directions(directions)
    twist = axis_rotation(axes.new_tensor([1.0, 2.0, 3.0]), axes.new_tensor(0.6))
    turned = [axes @ torch.linalg.matrix_power(twist, shell).T for shell in range(shells)]
    return DomainSample(
        torch.cat([axes.new_tensor([[0.0, 0.0, 1.0]]), *turned]),
        torch.cat([angles[:1], angles[1:].repeat_interleave(directions)]),
        torch.cat([radial[:1], torch.outer(radial[1:], angular).flatten()]),
    )


def _squared_angles(misorientation: Misorientation) -> tuple[np.ndarray, np.ndarray]:
    """A fine rule for the distribution of the squared relative angle: nodes and weights.

    Cap: with r uniform in [0, 1], w^2 = (1 - r^2)^(2/3). Normal: w^2 = sigma^2 r^2 with the weight r^2 exp(-r^2/2).
    """
    if misorientation == "cap":
        r, mass = np.polynomial.legendre.leggauss(400)
        return (1 - ((r + 1) / 2) ** 2) ** (2 / 3), mass / 2
    r, mass = np.polynomial.hermite_e.hermegauss(60)
    return (SIGMA_PER_SPREAD * r) ** 2, mass * r**2 / (mass * r**2).sum()


def _radial_rule(shells: int, t: np.ndarray, mass: np.ndarray) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
    """Gauss-Radau rule in t = w^2 with one node at w = 0: relative angles and weights.

    The Stieltjes procedure turns the measure into a Jacobi matrix and the last diagonal entry is set so that zero is
    a node.
    """
    before, now = np.zeros_like(t), np.ones_like(t)
    alpha, beta = np.zeros(shells + 1), np.zeros(shells + 1)
    norm = 1.0
    at_zero = [0.0, 1.0]
    for k in range(shells + 1):
        new_norm = (mass * now**2).sum()
        beta[k], norm = (new_norm / norm if k else 0.0), new_norm
        alpha[k] = (mass * t * now**2).sum() / new_norm
        if k == shells:
            alpha[k] = -beta[k] * at_zero[0] / at_zero[1]
            break
        before, now = now, (t - alpha[k]) * now - beta[k] * before
        at_zero = [at_zero[1], -alpha[k] * at_zero[1] - beta[k] * at_zero[0]]
    jacobi = np.diag(alpha) + np.diag(np.sqrt(beta[1:]), 1) + np.diag(np.sqrt(beta[1:]), -1)
    nodes, vectors = np.linalg.eigh(jacobi)
    nodes[0] = 0.0
    return torch.from_numpy(np.sqrt(nodes)), torch.from_numpy(vectors[0] ** 2)


def _directions(count: int) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n"]]:
    """Unit vectors and weights of a spherical rule: octahedron (6), or vertices (12), with faces (32), with edges (62).

    The weights of the icosahedral orbits make the averages of the invariants of degree 6 and 10 vanish.
    """
    if count == 6:
        axes = np.concatenate([np.eye(3), -np.eye(3)])
        return torch.from_numpy(axes), torch.full((6,), 1 / 6, dtype=torch.float64)
    orbits = [o for n, o in zip((12, 32, 62), _icosahedral_orbits(), strict=True) if n <= count]
    probe = orbits[0][0]
    rows = [[np.polynomial.Legendre.basis(degree)(o @ probe).mean() for o in orbits] for degree in (0, 6, 10)]
    shares = np.linalg.solve(np.array(rows)[: len(orbits)], np.eye(len(orbits))[0])
    weights = np.concatenate([np.full(len(o), s / len(o)) for o, s in zip(orbits, shares, strict=True)])
    return torch.from_numpy(np.concatenate(orbits)), torch.from_numpy(weights)


def _icosahedral_orbits() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Directions of the 12 vertices, 20 faces and 30 edges of an icosahedron."""
    golden = (1 + math.sqrt(5)) / 2
    signs = (1.0, -1.0)
    cyclic = [np.roll((0.0, s, t * golden), k) for s, t in product(signs, signs) for k in range(3)]
    vertices = np.array(cyclic) / math.hypot(1, golden)
    near = np.isclose(vertices @ vertices.T, 1 / math.sqrt(5))
    edges = [vertices[i] + vertices[j] for i in range(12) for j in range(i) if near[i, j]]
    faces = [
        vertices[i] + vertices[j] + vertices[k]
        for i in range(12)
        for j in range(i)
        for k in range(j)
        if near[i, j] and near[j, k] and near[k, i]
    ]
    return vertices, *(np.array(v) / np.linalg.norm(v, axis=1, keepdims=True) for v in (faces, edges))
