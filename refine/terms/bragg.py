"""Bragg spots, by summing over samples or in closed form."""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from refine.data.sites import Sites
from refine.errors import required
from refine.experiment.sample import Values
from refine.settings.experiment import Crystal
from refine.settings.terms import Simulator
from refine.terms.term import BEAM, CRYSTAL, DETECTOR, Term
from sim_core import Experiment
from sim_core.bragg.closed_form import BLOCKS, GAUSSIAN, ClosedFormBragg, neighbours_needed, parts_needed
from sim_core.bragg.sampled import SampledBragg
from sim_core.interference import SHAPES, Shape, Square
from sim_core.mosaic import DomainSample


class SampledSpots(Term[Experiment]):
    """Spots as a sum over mosaic blocks, spindle positions, waves and sub-pixels.

    Args:
        simulator: The simulator.
    """

    coefficient = "scale"
    reads = BEAM | DETECTOR | CRYSTAL

    def __init__(self, simulator: SampledBragg) -> None:
        super().__init__()
        self.simulator = simulator

    def forward(self, values: Values, scene: Experiment, sites: Sites) -> Float[Tensor, "n 1"]:
        """Photons for a scale of one."""
        return self.simulator(scene, sites.index).double()[:, None]

    def evaluations(self, sites: Sites) -> int:
        """Pixels times sub-pixels times blocks."""
        return len(sites) * self.simulator.oversample**2 * len(self.simulator.domain_weights)

    def described(self) -> dict[str, Any]:
        """Sub-pixels and blocks."""
        nodes = len(self.simulator.domain_weights)
        return {"simulator": "sampled", "oversample": self.simulator.oversample, "mosaic_nodes": nodes}


class ClosedFormSpots(Term[Experiment]):
    """Spots as a Gaussian for each pixel and reflection.

    Args:
        simulator: The simulator.
        parts: Along each edge of a pixel; ``None`` for as many as the spots need.
    """

    coefficient = "scale"
    reads = BEAM | DETECTOR | CRYSTAL

    def __init__(self, simulator: ClosedFormBragg, parts: int | None = None) -> None:
        super().__init__()
        self.simulator, self.parts = simulator, parts

    @torch.no_grad()
    def prepare(self, values: Values, scene: Experiment, sites: Sites) -> None:
        """Choose how many lattice points reach a pixel, into how many parts it is cut."""
        simulator = self.simulator
        simulator.neighbours = neighbours_needed(scene, simulator.blocks)
        if self.parts is None:
            simulator.oversample = parts_needed(scene, simulator.blocks, simulator.point_spread)

    def forward(self, values: Values, scene: Experiment, sites: Sites) -> Float[Tensor, "n 1"]:
        """Photons for a scale of one."""
        return self.simulator(scene, sites.index).double()[:, None]

    def evaluations(self, sites: Sites) -> int:
        """Pixels times parts times lattice points."""
        return len(sites) * math.prod(self.simulator.neighbours) * self.simulator.oversample**2

    def described(self) -> dict[str, Any]:
        """Lattice points and parts."""
        points, parts = list(self.simulator.neighbours), self.simulator.oversample
        return {"simulator": "closed_form", "lattice_points": points, "parts": parts}


Spots = SampledSpots | ClosedFormSpots


def sampled_spots(
    crystal: Crystal,
    simulator: Simulator,
    domains: DomainSample,
    oversample: int,
    dtype: torch.dtype,
    interpolate: bool = False,
) -> SampledSpots:
    """The sampled simulator of a configuration."""
    d_min, kernel = simulator.d_min_A, simulator.kernel
    return SampledSpots(SampledBragg(domains, shape_of(crystal), oversample, d_min, dtype, interpolate, kernel))


def shape_of(crystal: Crystal) -> Shape:
    """Interference function of the blocks."""
    return Square() if crystal.shape == "square" else SHAPES[crystal.shape](crystal.fudge)  # type: ignore[call-arg]


def closed_form_spots(
    crystal: Crystal, simulator: Simulator, dtype: torch.dtype, interpolate: bool = False
) -> ClosedFormSpots:
    """The closed form of a configuration.

    Raises:
        InputError: for a shape that has no closed form.
    """
    if crystal.shape not in BLOCKS:
        raise required("crystal.shape", f"{' or '.join(BLOCKS)} for the closed form", crystal.shape)
    if interpolate:
        raise required("structure_factors.interpolate", "false for the closed form", "true")
    parts, spread = simulator.parts, simulator.point_spread_px
    blocks, d_min = BLOCKS[crystal.shape], simulator.d_min_A
    form = ClosedFormBragg(blocks, (1, 1, 1), d_min, dtype, spread, simulator.kernel, parts or 1)
    return ClosedFormSpots(form, parts)


def blurred_spots(simulator: Simulator, dtype: torch.dtype) -> ClosedFormSpots:
    """Gaussian blocks in closed form: what a distant start is drawn in with."""
    spread, d_min = simulator.point_spread_px, simulator.d_min_A
    form = ClosedFormBragg(GAUSSIAN, (1, 1, 1), d_min, dtype, spread, simulator.kernel, simulator.parts or 1)
    return ClosedFormSpots(form, simulator.parts)
