"""The forward model that a refinement compares with an image: Bragg spots times a scale plus a background."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from refine.builders import Values, build_beam, build_crystal, build_panel, build_scan, convention_of
from refine.settings import Settings
from sim_core import Experiment, StructureFactors
from sim_core.bragg.background import PROFILES
from sim_core.bragg.lattice import SHAPES, Square
from sim_core.bragg.mosaic import DomainSample
from sim_core.bragg.sampled import SampledBragg


class BraggModel(nn.Module):
    """Expected photons of the pixels of one image as a function of the parameters' values.

    Args:
        settings: The configuration, with what an image's header says filled in.
        domains: Sample of mosaic blocks.
        structure_factors: Amplitudes.
        orientation: Rotation U of A = U B before the misset.
        pixels: Indices (slow, fast) of the pixels to simulate.
        oversample: Sub-pixels along each edge.
    """

    table: Tensor
    h_min: Tensor
    default_F: Tensor
    orientation: Tensor
    pixels: Tensor

    def __init__(
        self,
        settings: Settings,
        domains: DomainSample,
        structure_factors: StructureFactors,
        orientation: Float[Tensor, "3 3"],
        pixels: Int[Tensor, "pixels 2"],
        oversample: int,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.convention = convention_of(settings.detector)
        crystal = settings.crystal
        shape = Square() if crystal.shape == "square" else SHAPES[crystal.shape](crystal.fudge)  # type: ignore[call-arg]
        dtype = getattr(torch, settings.dtype)
        between = settings.structure_factors.interpolate
        choice = settings.simulator
        self.simulator = SampledBragg(domains, shape, oversample, choice.d_min_A, dtype, between, choice.kernel)
        self.profile = PROFILES[settings.simulator.background]
        self.register_buffer("table", structure_factors.table)
        self.register_buffer("h_min", structure_factors.h_min)
        self.register_buffer("default_F", structure_factors.default)
        self.register_buffer("orientation", orientation)
        self.register_buffer("pixels", pixels)

    def experiment(self, values: Values) -> Experiment:
        """The experiment at given values, in the core's units."""
        return Experiment(
            beam=build_beam(self.settings.beam, self.convention, values),
            panel=build_panel(self.settings.detector, values),
            crystal=build_crystal(values, self.orientation),
            scan=build_scan(self.settings.scan, self.convention, values["wavelength_A"]),
            structure_factors=StructureFactors(self.table, self.h_min, self.default_F),
        )

    def forward(self, values: Values, pixels: Int[Tensor, "n 2"] | None = None) -> Float[Tensor, "n"]:
        """Expected photons.

        Args:
            values: Every parameter by name, in users' units.
            pixels: Other pixels than the model's own.
        """
        pixels = self.pixels if pixels is None else pixels
        experiment = self.experiment(values)
        spots = self.simulator(experiment, pixels).double()
        return values["scale"] * spots + values["background"] * self.profile(experiment, pixels)
