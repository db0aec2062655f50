r"""Bragg spots in closed form: one Gaussian for each pixel and reflection instead of a sum over samples.

Size of the blocks, misorientation, divergence, bandwidth and the pixel's own extent each spread a lattice point q0 of
reciprocal space; their covariances add up, and with D = S - q0

.. math:: I = r_e^2\,\Phi\,f\,F^2(h_0)\,(N_a N_b N_c)^2 \sqrt{\det C_\mathrm{size} / \det C}\;
    e^{-D^\mathsf{T} C^{-1} D / 2}.

Exact for Gaussian blocks with normally distributed misorientations. ``Likeness`` replaces the interference function of
a parallelepiped by two Gaussians along each edge.

The equations stand in docs/physics.md.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..constants import R_E_SQUARED
from ..experiment import Beam, Crystal, Experiment, Panel, Scan
from ..kernels.spot_sum import Settings, Spots, spot_sum
from ..rotations import axis_rotation
from .mosaic import SIGMA_PER_SPREAD
from .sampled import falloff, in_blocks, point_weights, polarization, subpixel_points
from .structure_factors import padded_values

BLOCK = 1 << 14
"""Scattering vectors that are held at a time: what fits into a cache."""


@dataclass(frozen=True)
class Blocks:
    r"""A block's interference function as Gaussians along each edge, for y = N x.

    The sum of :math:`w\,e^{-y^2/2\sigma^2}` over the terms, to the third power and times (N_a N_b N_c)^2.

    Attributes:
        weights: w of each term.
        sigmas: Standard deviation of each term.
    """

    weights: tuple[float, ...]
    sigmas: tuple[float, ...]


GAUSSIAN = Blocks((1.0,), (1 / math.sqrt(2 * math.pi),))
"""Gaussian blocks: peak N^2 and integral N along each edge, as of a parallelepiped."""

SQUARE = Blocks((1.0097, 0.0140), (0.3542, 2.943))
"""A likeness of :math:`\\sin^2(\\pi y)/(\\pi y)^2`: the core and the tails of a parallelepiped without its fringes."""

BLOCKS = {"gaussian": GAUSSIAN, "square": SQUARE}
"""Shapes that have a closed form, by the names that configurations use."""


def reflections(crystal: Crystal, beam: Beam, scan: Scan, blocks: Blocks) -> Spots:
    r"""What the crystal, the beam and the spindle make of each lattice point, for each step of the scan.

    .. math:: C_\mathrm{size} = A^* \,\mathrm{diag}(\sigma_i^2/N_i^2)\,A^{*\mathsf{T}}, \quad
        C_\mathrm{divergence} = \sigma^2 (1 - \hat s_0 \hat s_0^\mathsf{T})/\lambda^2
    """
    turns = axis_rotation(scan.axis.expand(len(scan.phi), 3), scan.phi)
    basis = turns @ crystal.reciprocal
    frames = turns @ crystal.rotation
    edges = torch.cartesian_prod(*[basis.new_tensor(blocks.sigmas)] * 3).view(-1, 3) / crystal.n_cells
    weights = torch.cartesian_prod(*[basis.new_tensor(blocks.weights)] * 3).view(-1, 3).prod(-1)
    scaled = basis[:, None] * edges[:, None, :]
    size = scaled @ scaled.mT
    heights = weights * crystal.n_cells.prod() ** 2 * edges.prod(-1) * torch.linalg.det(crystal.reciprocal).abs()
    eta = (SIGMA_PER_SPREAD * crystal.mosaic_spread).expand(3)
    turned = frames * eta
    return Spots(
        basis=basis,
        constant=size + directions_covariance(beam),
        mosaic=turned @ turned.mT,
        heights=heights,
        shares=scan.weight,
        axis=scan.axis,
        half_width=None if scan.width is None else scan.width / 2,
    )


def mean_wave(beam: Beam) -> tuple[Float[Tensor, "3"], Float[Tensor, ""]]:
    """Mean direction (a unit vector) and mean wavelength [A] of the plane waves."""
    direction = beam.weight @ beam.direction
    return direction / direction.norm(), beam.weight @ beam.wavelength


def directions_covariance(beam: Beam) -> Float[Tensor, "3 3"]:
    """Covariance of the incident wave vector [1/A^2]: that of the plane waves and the Gaussian divergence."""
    direction, wavelength = mean_wave(beam)
    offsets = beam.direction - direction
    covariance = (beam.weight[:, None] * offsets).mT @ offsets
    if beam.divergence is not None:
        across = torch.eye(3, dtype=direction.dtype, device=direction.device) - torch.outer(direction, direction)
        covariance = covariance + beam.divergence**2 * across
    return covariance / wavelength**2


def bandwidth_variance(beam: Beam) -> Float[Tensor, ""]:
    """Relative variance of the wavelength: that of the plane waves and the Gaussian bandwidth."""
    _, wavelength = mean_wave(beam)
    variance = beam.weight @ (beam.wavelength / wavelength - 1).square()
    return variance if beam.bandwidth is None else variance + beam.bandwidth**2


def pixel_covariance(
    panel: Panel,
    points: Float[Tensor, "rows 3"],
    wavelength: Float[Tensor, ""],
    point_spread: float,
) -> Float[Tensor, "rows 3 3"]:
    r"""Covariance of S over a pixel [1/A^2], :math:`J J^\mathsf{T} (1/12 + \sigma_\mathrm{psf}^2)`.

    .. math:: J = \frac{p}{\lambda R} (1 - \hat s_1 \hat s_1^\mathsf{T})\,(\hat f, \hat s)

    Args:
        panel: The detector.
        points: Centres of the pixels [m].
        wavelength: [A].
        point_spread: Standard deviation of the detector's point spread [pixels].
    """
    distance = points.norm(dim=-1, keepdim=True)
    flight = points / distance
    axes = torch.stack([panel.fast_axis, panel.slow_axis])
    across = axes[:, None] - (flight @ axes.mT).mT[..., None] * flight
    j = across * (panel.pixel_size / wavelength / distance)
    return (1 / 12 + point_spread**2) * torch.einsum("kra,krb->rab", j, j)


class ClosedFormBragg(nn.Module):
    """Photons in each pixel from the Bragg spots of a mosaic crystal, in closed form.

    Takes the same experiments as :class:`SampledBragg`. The number of cells and the mosaic spread are real numbers.
    The range of each step of the scan is integrated exactly.

    Args:
        blocks: Interference function of a block.
        neighbours: How many lattice points along each axis of the index space reach a pixel: 1, 2 or 3.
        d_min: Resolution limit [A]; zero for none.
        dtype: Precision of the intensities and of the image; geometry stays in double precision.
        point_spread: Standard deviation of the detector's point spread [pixels].
    """

    def __init__(
        self,
        blocks: Blocks = GAUSSIAN,
        neighbours: tuple[int, int, int] = (1, 1, 1),
        d_min: float = 0.0,
        dtype: torch.dtype = torch.float64,
        point_spread: float = 0.0,
    ) -> None:
        super().__init__()
        if any(n not in (1, 2, 3) for n in neighbours):
            raise ValueError(f"neighbours: expected 1, 2 or 3 along each axis, got {neighbours}")
        self.blocks = blocks
        self.neighbours = neighbours
        self.d_min = d_min
        self.dtype = dtype
        self.point_spread = point_spread

    def forward(self, experiment: Experiment, pixels: Int[Tensor, "pixels 2"] | None = None) -> Float[Tensor, "pixels"]:
        """Expected photons.

        Args:
            experiment: What to simulate.
            pixels: Indices (slow, fast) of the pixels wanted; ``None`` for all, fast running fastest.

        Returns:
            Photons a pixel, in the simulator's precision.
        """
        beam, table = experiment.beam, experiment.structure_factors
        pixels = experiment.panel.all_pixels() if pixels is None else pixels
        spots = reflections(experiment.crystal, beam, experiment.scan, self.blocks)
        amplitudes = padded_values(table)
        h, k, l = table.table.shape
        settings = Settings(self.neighbours, table.h_min, (h, k, l), self.dtype)

        def block(part: Tensor) -> Tensor:
            s, covariance, factor = self._rays(experiment, part)
            y = spot_sum(s.flatten(0, 1), covariance, spots, amplitudes, settings)
            return R_E_SQUARED * beam.fluence * (factor * y.view(factor.shape)).sum(-1)

        layers = 1 if experiment.panel.sensor is None else len(experiment.panel.sensor.depths)
        return in_blocks(block, pixels, max(1, BLOCK // layers)).to(self.dtype)

    def _rays(self, experiment: Experiment, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scattering vectors [pixels, layers, 3], their covariances and the factors of each pixel and layer."""
        beam, panel = experiment.beam, experiment.panel
        points = subpixel_points(panel, pixels, 1)[:, :, 0]
        flight = points / points.norm(dim=-1, keepdim=True)
        direction, wavelength = mean_wave(beam)
        s = (flight - direction) / wavelength
        rows = s.flatten(0, 1)
        covariance = pixel_covariance(panel, points.flatten(0, 1), wavelength, self.point_spread)
        covariance = covariance + bandwidth_variance(beam) * rows[:, :, None] * rows[:, None, :]
        factor = point_weights(panel, points[:, :, None])[..., 0] * (polarization(beam, flight) @ beam.weight)
        factor = factor * falloff(experiment.structure_factors, s)
        if self.d_min > 0:
            factor = factor * (s.norm(dim=-1) <= 1 / self.d_min)
        return s, covariance, factor


def neighbours_needed(experiment: Experiment, blocks: Blocks, reach: float = 3.5) -> tuple[int, int, int]:
    """How many lattice points along each axis reach a pixel, for ``ClosedFormBragg``; waits for the device.

    One where ``reach`` standard deviations of the widest spot end within half a cell of the index space, two up to a
    whole cell, three beyond.

    Args:
        experiment: What is to be simulated.
        blocks: Interference function.
        reach: Standard deviations that count.
    """
    beam, crystal, scan = experiment.beam, experiment.crystal, experiment.scan
    with torch.no_grad():
        s2 = _longest_scattering_vector(experiment.panel, beam).square()
        spread = (SIGMA_PER_SPREAD * crystal.mosaic_spread.max()).square() * s2 + bandwidth_variance(beam) * s2
        spread = spread + directions_covariance(beam).trace() / 2
        sigma = max(s for s, w in zip(blocks.sigmas, blocks.weights, strict=True) if w * s > 0.2)
        edges = crystal.direct.square().sum(-1)
        extent = reach * (edges * spread + (sigma / crystal.n_cells) ** 2).sqrt()
        if scan.width is not None:
            extent = extent + (edges * s2).sqrt() * scan.width / 2
        counts = [1 if x <= 0.5 else 2 if x <= 1 else 3 for x in extent.tolist()]
    return counts[0], counts[1], counts[2]


def _longest_scattering_vector(panel: Panel, beam: Beam) -> Float[Tensor, ""]:
    """Length of S [1/A] at the corner of the panel where it is longest."""
    fast, slow = panel.image_size
    corners = panel.positions(panel.origin.new_tensor([[0, 0], [0, fast], [slow, 0], [slow, fast]]))
    direction, wavelength = mean_wave(beam)
    return ((corners / corners.norm(dim=-1, keepdim=True) - direction) / wavelength).norm(dim=-1).max()


__all__ = ["BLOCKS", "Blocks", "ClosedFormBragg", "GAUSSIAN", "SQUARE", "neighbours_needed"]
