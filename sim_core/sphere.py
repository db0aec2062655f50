r"""Which points of reciprocal space a crystal brings to the Ewald sphere, and so needs amplitudes for.

A point S scatters where :math:`|s_0 + S| = 1/\lambda`. Points within a margin are kept: half a diagonal of what is
looked up together, and what misorientation, rotation, divergence and bandwidth add in proportion to |S|.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .beam import mean_wave
from .experiment import Experiment
from .rotations import axis_rotation

TAILS = 4.0
"""Standard deviations of a Gaussian spread that count."""

LARGEST = 1 << 27
"""Points of a whole grid that are looked at."""


def longest_scattering_vector(experiment: Experiment) -> Float[Tensor, ""]:
    """Length of S [1/A] at the corner of the panel where it is longest."""
    panel, (direction, wavelength) = experiment.panel, mean_wave(experiment.beam)
    fast, slow = panel.image_size
    corners = panel.positions(panel.origin.new_tensor([[0, 0], [0, fast], [slow, 0], [slow, fast]]))
    return ((corners / corners.norm(dim=-1, keepdim=True) - direction) / wavelength).norm(dim=-1).max()


def highest_indices(experiment: Experiment, d_min: float) -> tuple[int, int, int]:
    """Largest indices along each axis that the panel sees, up to a resolution limit [A]; zero for none."""
    longest = float(longest_scattering_vector(experiment))
    longest = min(longest, 1 / d_min) if d_min > 0 else longest
    h, k, l = (math.ceil(longest * length) for length in experiment.crystal.direct.norm(dim=-1).tolist())
    return h, k, l


@torch.no_grad()
def near_sphere(
    experiment: Experiment,
    highest: tuple[int, int, int],
    rates: tuple[int, int, int],
    steps: float,
    widest: float,
) -> Int[Tensor, "points"]:
    """Points of the grid of indices from -highest to highest that come near the Ewald sphere, as rows of the grid.

    Args:
        experiment: Beam, panel, crystal and scan.
        highest: Largest indices along each axis.
        rates: Points for each index along each axis.
        steps: How many steps of the grid are looked up to either side.
        widest: Largest misorientation [rad].

    Raises:
        ValueError: if the grid is too large.
    """
    sizes = [2 * h * r + 1 for h, r in zip(highest, rates, strict=True)]
    if math.prod(sizes) > LARGEST:
        raise ValueError(f"amplitudes: expected at most {LARGEST} points of reciprocal space, got {math.prod(sizes)}")
    beam, crystal, scan = experiment.beam, experiment.crystal, experiment.scan
    direction, wavelength = mean_wave(beam)
    halves = [torch.arange(n, device=direction.device) / r - h for n, r, h in zip(sizes, rates, highest, strict=True)]
    voxel = (crystal.reciprocal.abs() / direction.new_tensor(rates)).sum(-1).norm()
    turned = 0.0 if scan.width is None else float(scan.width) / 2
    band = float((beam.wavelength / wavelength - 1).abs().max()) + TAILS * float(beam.bandwidth or 0)
    spread = float((beam.direction - direction).norm(dim=-1).max()) + TAILS * float(beam.divergence or 0)
    longest = longest_scattering_vector(experiment) + voxel * steps
    kept = torch.zeros(sizes, dtype=torch.bool, device=direction.device)
    for turn in axis_rotation(scan.axis.expand(len(scan.phi), 3), scan.phi):
        a, b, c = (turn @ crystal.reciprocal).unbind(-1)
        for row, h in enumerate(halves[0].to(a)):
            s = h * a + (halves[1].to(a)[:, None, None] * b + halves[2].to(a)[None, :, None] * c)
            length = s.norm(dim=-1)
            off = ((s + direction / wavelength).norm(dim=-1) - 1 / wavelength).abs()
            kept[row] |= (off <= steps * voxel + length * (widest + turned + spread + band)) & (length <= longest)
    return kept.flatten().nonzero()[:, 0]
