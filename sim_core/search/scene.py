"""From an experiment and its image to what an orientation is searched on."""

import math
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..beam import bandwidth_variance, directions_covariance, mean_wave
from ..bragg.closed_form import GAUSSIAN, Blocks, reflections
from ..constants import R_E_SQUARED
from ..experiment import Experiment
from ..kernels.spots.camera import pixel_edges
from ..kernels.spots.sum import Spots
from ..mosaic import SIGMA_PER_SPREAD
from ..rays import falloff, point_weights, polarization
from ..rotations import axis_rotation
from ..unit_cell import reciprocal_basis, volume
from .grid import Scene, Target
from .orientations import table_rotations
from .spot_map import Pixels, Reflections, beam_frame, local_background, standing_out, visible_reflections

STRONGEST = 2000
"""Reflections that the grid is scored with."""

LATTICE_POINTS = 200_000
"""Lattice points that are looked at for the strongest."""

SMALLEST_MOSAIC = math.radians(0.15)
"""Standard deviation of the misorientation that is allowed for at least [rad]."""


class Image:
    """An image with what every step of a search needs of it.

    Args:
        experiment: Its crystal may have any orientation.
        photons: Photons of the frame.
        used: Which pixels count.
        d_min: Resolution limit [A]; zero for none.
    """

    def __init__(
        self,
        experiment: Experiment,
        photons: Float[Tensor, "slow fast"],
        used: Bool[Tensor, "slow fast"],
        d_min: float = 0.0,
    ) -> None:
        panel = replace(experiment.panel, sensor=None)
        self.experiment = replace(experiment, panel=panel)
        direction, wavelength = mean_wave(experiment.beam)
        self.direction, self.wavelength = direction, float(wavelength)
        self.frame = beam_frame(direction)
        self.basis = reciprocal_basis(experiment.crystal.cell)
        self.nearest = float(self.basis.norm(dim=0).min())
        self.width = float(panel.pixel_size / panel.close_distance.abs()) / self.wavelength
        self.photons = photons
        self.window = min(max(15, int(2 * self.nearest / self.width)), 61)
        self.background, self.variance = local_background(photons, used, self.window)
        slow, fast = photons.shape
        centres = torch.cartesian_prod(torch.arange(slow) + 0.5, torch.arange(fast) + 0.5).double()
        self.scattering = self._scattering(panel.positions(centres))
        length = self.scattering.norm(dim=-1)
        farthest = 1 / d_min if d_min > 0 else math.inf
        self.used = used.flatten() & (length > self.nearest / 2) & (length < farthest)
        self.length = length

    def _scattering(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        return (points / points.norm(dim=-1, keepdim=True) - self.direction) / self.wavelength

    @property
    def turn(self) -> tuple[Tensor, Tensor]:
        """Rotation of the spindle at the mean of the exposure, and the variance of its angle [rad^2]."""
        scan = self.experiment.scan
        mean = scan.weight @ scan.phi
        variance = scan.weight @ (scan.phi - mean).square()
        if scan.width is not None:
            variance = variance + scan.width**2 / 12
        return axis_rotation(scan.axis, mean), variance

    def scene(self) -> Scene:
        """What the grid is scored on."""
        crystal, beam = self.experiment.crystal, self.experiment.beam
        _, swing = self.turn
        eta = SIGMA_PER_SPREAD * float(crystal.mosaic_spread.mean())
        mosaic = max(math.sqrt(eta**2 + float(swing) / 2), SMALLEST_MOSAIC)
        reach = (3 * LATTICE_POINTS / (4 * math.pi * float(volume(crystal.cell)))) ** (1 / 3)
        seen = self.length[self.used]
        limits = (max(self.nearest / 2, float(seen.min()) - self.width), min(reach, float(seen.max())))
        found = visible_reflections(self.basis, self.experiment.structure_factors, limits, crystal.n_cells)
        sigma2 = found.sigma**2 + directions_covariance(beam).trace() / 2
        sigma = (sigma2 + bandwidth_variance(beam) * found.vectors.square().sum(-1)).sqrt()
        strongest = Reflections(found.vectors, found.amplitudes, sigma).strongest(STRONGEST)
        signal = standing_out(self.photons, self.background, self.variance).flatten()
        pixels = Pixels(self.scattering[self.used] @ self.frame.T, signal[self.used], self.width)
        group = table_rotations(self.experiment.structure_factors, crystal.cell)
        return Scene(self.frame, pixels, strongest, self.wavelength, mosaic, group)

    def target(self, count: int) -> Target:
        """About ``count`` points to fit: pixels summed in squares that are smaller than the distance of spots, the
        innermost ones where that leaves too many.
        """
        total = int(self.used.sum())
        edge = max(1, min(int(0.4 * self.nearest / self.width), math.ceil(math.sqrt(total / count))))
        used = self.used
        if total > count * edge**2:
            limit = self.length[used].kthvalue(count * edge**2).values
            used = used & (self.length <= limit)
        slow, fast = (n // edge * edge for n in self.photons.shape)

        def summed(x: Tensor) -> Tensor:
            squares = torch.where(used.view(self.photons.shape), x, 0.0)[:slow, :fast]
            return squares.reshape(slow // edge, edge, fast // edge, edge).sum((1, 3)).flatten()

        share = summed(torch.ones_like(self.photons))
        some = share > 0
        steps = [(torch.arange(n // edge) * edge + edge / 2).double() for n in (slow, fast)]
        points = self.experiment.panel.positions(torch.cartesian_prod(*steps)[some])
        factor = self._factor(points) * share[some]
        s = self._scattering(points)
        photons, background = (summed(x)[some] for x in (self.photons, self.background))
        return Target(s, self._covariance(points, s, edge), factor, background, photons)

    def _factor(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n"]:
        """Photons a pixel for each unit of intensity relative to one electron."""
        beam, panel = self.experiment.beam, self.experiment.panel
        flight = points / points.norm(dim=-1, keepdim=True)
        angle = point_weights(panel, points[:, None, None])[:, 0, 0]
        intensity = polarization(beam, flight) @ beam.weight
        falling = falloff(self.experiment.structure_factors, self._scattering(points))
        return R_E_SQUARED * beam.fluence * angle * intensity * falling

    def _covariance(self, points: Tensor, s: Tensor, edge: int) -> Float[Tensor, "n 3 3"]:
        """Of S over a square of pixels, the beam and the rotation about the spindle."""
        beam, scan = self.experiment.beam, self.experiment.scan
        panel = self.experiment.panel
        distance = points.norm(dim=-1, keepdim=True)
        edges = panel.pixel_size * torch.stack([panel.fast_axis, panel.slow_axis])
        j = edge * pixel_edges(points / distance, distance, edges, s.new_tensor(1 / self.wavelength))
        swept = torch.linalg.cross(scan.axis.expand_as(s), s)
        _, swing = self.turn
        outer = bandwidth_variance(beam) * s[:, :, None] * s[:, None, :] + swing * swept[:, :, None] * swept[:, None, :]
        return j.mT @ j / 12 + directions_covariance(beam) + outer

    def spots(self, blocks: Blocks = GAUSSIAN) -> Spots:
        """What the size of a block makes of each lattice point, in the crystal's frame."""
        crystal = self.experiment.crystal
        zero = torch.zeros_like(crystal.misset)
        still = replace(
            crystal, misset=zero, orientation=torch.eye(3, dtype=zero.dtype), mosaic_spread=torch.zeros_like(zero[0])
        )
        scan = replace(self.experiment.scan, phi=zero[:1], weight=torch.ones_like(zero[:1]), width=None)
        beam = self.experiment.beam
        one = torch.ones_like(beam.weight[:1])
        wave = torch.full_like(one, self.wavelength)
        beam = replace(
            beam, direction=self.direction[None], wavelength=wave, weight=one, divergence=None, bandwidth=None
        )
        return reflections(still, beam, scan, blocks)
