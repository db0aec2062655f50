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

from ..amplitudes import padded_values
from ..beam import bandwidth_variance, directions_covariance, mean_wave, polarization_matrix
from ..constants import R_E_SQUARED
from ..experiment import Beam, Crystal, Experiment, Panel, Scan
from ..kernels.spots.camera import Absorption, Camera
from ..kernels.spots.image import spot_image
from ..kernels.spots.sum import Settings, Spots
from ..mosaic import SIGMA_PER_SPREAD
from ..rotations import axis_rotation


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


def cameras(experiment: Experiment, d_min: float, point_spread: float, oversample: int = 1) -> list[Camera]:
    """The planes on which photons are stopped: the panel, or each layer of its sensor, for each part of a pixel.

    Args:
        experiment: What to simulate.
        d_min: Resolution limit [A]; zero for none.
        point_spread: Standard deviation of the detector's point spread [pixels].
        oversample: Parts along each edge of a pixel, each a Gaussian of its own.
    """
    beam, panel = experiment.beam, experiment.panel
    direction, wavelength = mean_wave(beam)
    surface = Camera(
        origin=panel.origin,
        fast=panel.fast_axis * panel.pixel_size,
        slow=panel.slow_axis * panel.pixel_size,
        wave=direction / wavelength,
        per_wavelength=1 / wavelength,
        bandwidth=bandwidth_variance(beam),
        polarization=polarization_matrix(beam),
        area=R_E_SQUARED * beam.fluence * panel.pixel_size**2 * panel.close_distance,
        b_iso=experiment.structure_factors.b_iso,
        absorption=None,
        blur=1 / (12 * oversample**2) + point_spread**2,
        flatness=1440**-0.25 / oversample,
        s_max=1 / d_min if d_min > 0 else math.inf,
        image_size=panel.image_size,
    )
    parts = [_part(surface, i, j, oversample) for i in range(oversample) for j in range(oversample)]
    if panel.sensor is None:
        return parts
    depths = (panel.sensor.attenuation * panel.sensor.edges).unfold(0, 2, 1)
    return [
        part._replace(origin=part.origin + depth * panel.normal, absorption=Absorption(panel.normal, faces))
        for part in parts
        for depth, faces in zip(panel.sensor.depths, depths, strict=True)
    ]


def _part(whole: Camera, row: int, column: int, oversample: int) -> Camera:
    """A camera that sees the part of each pixel in this row and column of its parts."""
    y, x = ((k + 0.5) / oversample - 0.5 for k in (row, column))
    return whole._replace(origin=whole.origin + y * whole.slow + x * whole.fast, area=whole.area / oversample**2)


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
        kernel: ``eager``, ``compiled`` or ``auto``: which implementation runs.
        oversample: Parts along each edge of a pixel; :func:`parts_needed` says how many.
    """

    def __init__(
        self,
        blocks: Blocks = GAUSSIAN,
        neighbours: tuple[int, int, int] = (1, 1, 1),
        d_min: float = 0.0,
        dtype: torch.dtype = torch.float64,
        point_spread: float = 0.0,
        kernel: str = "auto",
        oversample: int = 1,
    ) -> None:
        super().__init__()
        if any(n not in (1, 2, 3) for n in neighbours):
            raise ValueError(f"neighbours: expected 1, 2 or 3 along each axis, got {neighbours}")
        self.blocks = blocks
        self.neighbours = neighbours
        self.d_min = d_min
        self.dtype = dtype
        self.point_spread = point_spread
        self.kernel = kernel
        self.oversample = oversample

    def forward(self, experiment: Experiment, pixels: Int[Tensor, "pixels 2"] | None = None) -> Float[Tensor, "pixels"]:
        """Expected photons.

        Args:
            experiment: What to simulate.
            pixels: Indices (slow, fast) of the pixels wanted; ``None`` for all, fast running fastest.

        Returns:
            Photons a pixel, in the simulator's precision.
        """
        table = experiment.structure_factors
        spots = reflections(experiment.crystal, experiment.beam, experiment.scan, self.blocks)
        amplitudes = padded_values(table)
        h, k, l = table.table.shape
        settings = Settings(self.neighbours, table.h_min, (h, k, l), self.dtype, self.kernel)
        first, *deeper = cameras(experiment, self.d_min, self.point_spread, self.oversample)
        image = spot_image(first, spots, amplitudes, settings, pixels)
        for camera in deeper:
            image = image + spot_image(camera, spots, amplitudes, settings, pixels)
        return image


def neighbours_needed(experiment: Experiment, blocks: Blocks, reach: float = 3.5) -> tuple[int, int, int]:
    """How many lattice points along each axis reach a pixel, for ``ClosedFormBragg``; waits for the device.

    One where the widest spot ends within half a cell of the index space, two up to a whole cell, three beyond. A spot
    ends at ``reach`` standard deviations, the tails of a block where they have fallen as low, and half the rotation and
    half a pixel further.

    Args:
        experiment: What is to be simulated.
        blocks: Interference function.
        reach: Standard deviations that count.
    """
    beam, crystal, panel = experiment.beam, experiment.crystal, experiment.panel
    with torch.no_grad():
        s_max = _longest_scattering_vector(panel, beam)
        turning = 0.0 if experiment.scan.width is None else experiment.scan.width * s_max
        pixel = panel.pixel_size / panel.close_distance.abs() / mean_wave(beam)[1]
        eta = SIGMA_PER_SPREAD * crystal.mosaic_spread.max()
        spread = (eta.square() + bandwidth_variance(beam)) * s_max**2 + directions_covariance(beam).trace() / 2
        lengths = crystal.direct.norm(dim=-1)
        extent = torch.zeros_like(lengths)
        for weight, sigma in zip(blocks.weights, blocks.sigmas, strict=True):
            width = (lengths.square() * spread + (sigma / crystal.n_cells) ** 2).sqrt()
            extent = torch.maximum(extent, width * math.sqrt(max(0.0, reach**2 + 2 * math.log(min(1.0, weight)))))
        extent = extent + lengths * (turning + pixel) / 2
        counts = [1 if x <= 0.5 else 2 if x <= 1 else 3 for x in extent.tolist()]
    return counts[0], counts[1], counts[2]


def parts_needed(experiment: Experiment, blocks: Blocks, point_spread: float = 0.0) -> int:
    """Parts along each edge of a pixel for ``ClosedFormBragg``, one or two; waits for the device.

    One where the narrowest spot (block and divergence alone) has a standard deviation of at least a quarter of a pixel:
    there a flattened Gaussian is a box to 3.3 %, to 1.3 % from a third on (in one dimension).
    """
    with torch.no_grad():
        sizes = reflections(experiment.crystal, experiment.beam, experiment.scan, blocks).constant[:, 0]
        panel = experiment.panel
        pixel = panel.pixel_size / panel.close_distance.abs() / mean_wave(experiment.beam)[1]
        narrowest = torch.linalg.eigvalsh(sizes).min().clamp_min(0) + (point_spread * pixel) ** 2
        return 1 if float(narrowest) >= float(pixel / 4) ** 2 else 2


def _longest_scattering_vector(panel: Panel, beam: Beam) -> Float[Tensor, ""]:
    """Length of S [1/A] at the corner of the panel where it is longest."""
    fast, slow = panel.image_size
    corners = panel.positions(panel.origin.new_tensor([[0, 0], [0, fast], [slow, 0], [slow, fast]]))
    direction, wavelength = mean_wave(beam)
    return ((corners / corners.norm(dim=-1, keepdim=True) - direction) / wavelength).norm(dim=-1).max()


__all__ = ["BLOCKS", "Blocks", "ClosedFormBragg", "GAUSSIAN", "SQUARE", "neighbours_needed", "parts_needed"]
