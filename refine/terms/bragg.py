"""The forward model that a refinement compares with an image: Bragg spots times a scale plus a background."""

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from refine.errors import required
from refine.experiment.builders import Values, build_beam, build_crystal, build_panel, build_scan, convention_of
from refine.settings.schema import Settings
from refine.terms.planes import BoxPlanes
from sim_core import Experiment, StructureFactors
from sim_core.background import flat_profile, radial_profiles, scatterer_profile
from sim_core.bragg.closed_form import BLOCKS, ClosedFormBragg, neighbours_needed, parts_needed
from sim_core.bragg.mosaic import DomainSample
from sim_core.bragg.sampled import SampledBragg
from sim_core.interference import SHAPES, Square

SPREADS = ("divergence_rms_mrad", "bandwidth_rms_percent")
"""Gaussian spreads that a beam may have."""

LINEAR = ("scale", "background")
"""Parameters that the expected photons are linear in."""


class BraggModel(nn.Module):
    """Expected photons of the pixels of one image as a function of the parameters' values.

    Args:
        settings: The configuration, with what an image's header says filled in.
        domains: Sample of mosaic blocks.
        structure_factors: Amplitudes.
        orientation: Rotation U of A = U B before the misset.
        pixels: Indices (slow, fast) of the pixels to simulate.
        oversample: Sub-pixels along each edge, of the sampled simulator.
        kind: ``sampled`` or ``closed_form``; ``None`` for the one that the settings name.
    """

    linear = LINEAR
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
        kind: str | None = None,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.convention = convention_of(settings.detector)
        self.spreading = {name for name in SPREADS if _is_used(settings, name)}
        self.simulator = build_simulator(settings, kind or settings.simulator.model, domains, oversample)
        self.background = settings.simulator.background
        self.planes: BoxPlanes | None = None
        self.register_buffer("table", structure_factors.table)
        self.register_buffer("h_min", structure_factors.h_min)
        self.register_buffer("default_F", structure_factors.default)
        self.register_buffer("orientation", orientation)
        self.register_buffer("pixels", pixels)

    def experiment(self, values: Values) -> Experiment:
        """The experiment at given values, in the core's units."""
        return Experiment(
            beam=build_beam(self.settings.beam, self.convention, values, self.spreading),
            panel=build_panel(self.settings.detector, values),
            crystal=build_crystal(values, self.orientation),
            scan=build_scan(self.settings.scan, self.convention, values["wavelength_A"]),
            structure_factors=StructureFactors(self.table, self.h_min, self.default_F, self._b_iso(values)),
        )

    @property
    def evaluations(self) -> int:
        """Terms of the sum over samples, or pixels times lattice points."""
        if isinstance(self.simulator, SampledBragg):
            return len(self.pixels) * self.simulator.oversample**2 * len(self.simulator.domain_weights)
        return len(self.pixels) * math.prod(self.simulator.neighbours) * self.simulator.oversample**2

    def _b_iso(self, values: Values) -> Tensor | None:
        return values["b_iso_A2"] if _is_used(self.settings, "b_iso_A2") else None

    def described(self) -> dict[str, Any]:
        """What the simulator is, for results.json."""
        if isinstance(self.simulator, SampledBragg):
            nodes = len(self.simulator.domain_weights)
            return {"simulator": "sampled", "oversample": self.simulator.oversample, "mosaic_nodes": nodes}
        return {
            "simulator": "closed_form",
            "lattice_points": list(self.simulator.neighbours),
            "parts": self.simulator.oversample,
        }

    @torch.no_grad()
    def prepare(self, values: Values) -> None:
        """Choose what carries no derivative: how many lattice points reach a pixel, into how many parts it is cut."""
        if isinstance(self.simulator, ClosedFormBragg):
            experiment = self.experiment(values)
            self.simulator.neighbours = neighbours_needed(experiment, self.simulator.blocks)
            if self.settings.simulator.parts is None:
                self.simulator.oversample = parts_needed(experiment, self.simulator.blocks, self.simulator.point_spread)
        if self.planes is not None:
            self.planes.reweight(values["scale"] * self.spots(values))

    def forward(self, values: Values, pixels: Int[Tensor, "n 2"] | None = None) -> Float[Tensor, "n"]:
        """Expected photons.

        Args:
            values: Every parameter by name, in users' units.
            pixels: Other pixels than the model's own.
        """
        photons = self.parts(values, pixels) @ torch.cat([values[name].reshape(-1) for name in self.linear])
        return photons if self.planes is None else torch.maximum(photons, self.planes.least(pixels))

    @property
    def least(self) -> Float[Tensor, "n"] | None:
        """Fewest photons that are expected of the model's pixels; ``None`` where they are sums of what is positive."""
        return None if self.planes is None else self.planes.least()

    def profile(self, experiment: Experiment, pixels: Int[Tensor, "n 2"]) -> Float[Tensor, "n profiles"]:
        """What the background is for each unit of its coefficients."""
        if self.planes is not None:
            return self.planes.fit(self.planes.observed, pixels)[:, None]
        if self.background == "radial":
            return radial_profiles(experiment, pixels)
        return (scatterer_profile if self.background == "scatterer" else flat_profile)(experiment, pixels)[:, None]

    def parts(self, values: Values, pixels: Int[Tensor, "n 2"] | None = None) -> Float[Tensor, "n parts"]:
        """Photons for each unit of the :data:`LINEAR` parameters."""
        wanted = self.pixels if pixels is None else pixels
        spots = self.spots(values, wanted)
        if self.planes is not None:
            seen = spots if pixels is None else self.spots(values)
            spots = spots - self.planes.fit(seen, wanted)
        return torch.cat([spots[:, None], self.profile(self.experiment(values), wanted)], -1)

    def spots(self, values: Values, pixels: Int[Tensor, "n 2"] | None = None) -> Float[Tensor, "n"]:
        """Photons of the spots for a scale of one."""
        return self.simulator(self.experiment(values), self.pixels if pixels is None else pixels).double()


def build_simulator(
    settings: Settings, kind: str, domains: DomainSample, oversample: int
) -> SampledBragg | ClosedFormBragg:
    """The simulator of a configuration.

    Raises:
        InputError: for a shape that has no closed form.
    """
    crystal, d_min, dtype = settings.crystal, settings.simulator.d_min_A, getattr(torch, settings.dtype)
    if kind == "sampled":
        shape = Square() if crystal.shape == "square" else SHAPES[crystal.shape](crystal.fudge)  # type: ignore[call-arg]
        between, kernel = settings.structure_factors.interpolate, settings.simulator.kernel
        return SampledBragg(domains, shape, oversample, d_min, dtype, between, kernel)
    if crystal.shape not in BLOCKS:
        raise required("crystal.shape", f"{' or '.join(BLOCKS)} for the closed form", crystal.shape)
    if settings.structure_factors.interpolate:
        raise required("structure_factors.interpolate", "false for the closed form", "true")
    blocks, spread = BLOCKS[crystal.shape], settings.simulator.point_spread_px
    kernel, parts = settings.simulator.kernel, settings.simulator.parts or 1
    return ClosedFormBragg(blocks, (1, 1, 1), d_min, dtype, spread, kernel, parts)


def _is_used(settings: Settings, name: str) -> bool:
    """Whether a parameter that is absent at zero is there: given, refined or in the truth."""
    given = {"divergence_rms_mrad": settings.beam.divergence_rms_mrad, "b_iso_A2": settings.structure_factors.b_iso_A2}
    given["bandwidth_rms_percent"] = settings.beam.bandwidth_rms_percent
    others = (getattr(settings.initial, name), getattr(settings.truth, name))
    return bool(given[name]) or any(others) or getattr(settings.parameters, name).free
