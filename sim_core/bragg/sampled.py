r"""Bragg spots by summing over samples: mosaic blocks, spindle positions, plane waves, sub-pixels, sensor layers.

.. math:: I = r_e^2\,\Phi\,|F_\mathrm{latt}^{max}|^2 \sum_q f_q \sum_m w_m F^2(h_{qm}) P(h_{qm})

where q runs over sub-pixels, layers and plane waves, f is solid angle x absorbed fraction x polarisation x weight and
m runs over spindle positions and mosaic blocks.
"""

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..amplitudes import padded_values
from ..beam import as_waves
from ..constants import R_E_SQUARED
from ..experiment import AmplitudeGrid, Experiment, StructureFactors
from ..interference import Shape, Square
from ..kernels.lattice.interpolated_sum import interpolated_sum
from ..kernels.lattice.lattice_sum import lattice_sum
from ..kernels.lattice.rays import PixelRays, pixel_rays
from ..kernels.lattice.settings import Settings
from ..kernels.selection import entries, select
from ..mosaic import DomainSample, orientations
from ..rays import falloff, in_blocks, point_weights, polarization, subpixel_points

BLOCK = 1 << 18
"""Scattering vectors that are held at a time; the backward pass computes each block again."""


class SampledBragg(nn.Module):
    """Photons in each pixel from the Bragg spots of a mosaic crystal.

    Args:
        domains: Frozen sample of misorientations, scaled by the crystal's mosaic spread.
        shape: Interference function of a block.
        oversample: Sub-pixels along each edge of a pixel; each has its own solid angle and polarisation.
        d_min: Resolution limit [A]; zero for none.
        dtype: Precision of the sum over orientations and of the image; geometry stays in double precision.
        interpolate: Tricubic structure factors where all neighbours are in the table; the nearest ones elsewhere. Where
            the structure factors come with a grid between reflections, that is interpolated anyway.
        kernel: Implementation of the sum over orientations: ``auto``, ``eager`` or ``compiled``.
    """

    domain_axes: Tensor
    domain_angles: Tensor
    domain_weights: Tensor

    def __init__(
        self,
        domains: DomainSample,
        shape: Shape | None = None,
        oversample: int = 1,
        d_min: float = 0.0,
        dtype: torch.dtype = torch.float64,
        interpolate: bool = False,
        kernel: str = "auto",
    ) -> None:
        super().__init__()
        for name, value in domains._asdict().items():
            self.register_buffer(f"domain_{name}", value)
        self.shape = shape or Square()
        self.oversample = oversample
        self.d_min = d_min
        self.dtype = dtype
        self.interpolate = interpolate
        self.kernel = kernel

    @property
    def domains(self) -> DomainSample:
        """The sample of misorientations."""
        return DomainSample(self.domain_axes, self.domain_angles, self.domain_weights)

    def forward(self, experiment: Experiment, pixels: Int[Tensor, "pixels 2"] | None = None) -> Float[Tensor, "pixels"]:
        """Expected photons.

        Args:
            experiment: What to simulate.
            pixels: Indices (slow, fast) of the pixels wanted; ``None`` for all, fast running fastest.

        Returns:
            Photons a pixel, in the simulator's precision.
        """
        experiment = replace(experiment, beam=as_waves(experiment.beam))
        panel, crystal, factors = experiment.panel, experiment.crystal, experiment.structure_factors
        rows, weights = orientations(crystal, experiment.scan, self.domains)
        parameters = self.shape.parameters(crystal.n_cells, crystal.reciprocal)
        scale = R_E_SQUARED * experiment.beam.fluence * self.shape.amplitude(crystal.n_cells)
        count = panel.image_size[0] * panel.image_size[1] if pixels is None else len(pixels)
        settings = self._settings(experiment, count, len(rows))
        amplitudes = self._between(factors) or _listed(factors, settings)

        def total(rays: Tensor | PixelRays, weights: Tensor) -> Tensor:
            if isinstance(amplitudes, Tensor):
                return lattice_sum(rays, rows, weights, parameters, amplitudes, settings)
            return interpolated_sum(rays, rows, weights, parameters, amplitudes, settings)

        if settings.kernel == "compiled" and scale.device.type == "cpu" and not _geometry_varies(experiment):
            rays = pixel_rays(experiment.beam, panel, pixels, self.oversample, self.d_min)
            return (total(rays, weights) * scale).to(self.dtype) if _varies(scale) else total(rays, weights * scale)
        pixels = panel.all_pixels() if pixels is None else pixels

        def block(part: Tensor) -> Tensor:
            s, f = self._rays(experiment, part)
            return scale * (f * total(s, weights).view(f.shape)).flatten(1).sum(-1)

        step = max(1, BLOCK // self._points(experiment))
        recompute = torch.is_grad_enabled() and _carries_gradient(experiment)
        return in_blocks(block, pixels, step, recompute).to(self.dtype)

    def _points(self, experiment: Experiment) -> int:
        """Scattering vectors of a pixel."""
        layers = 1 if experiment.panel.sensor is None else len(experiment.panel.sensor.depths)
        return layers * self.oversample**2 * len(experiment.beam.weight)

    def _settings(self, experiment: Experiment, pixels: int, samples: int) -> Settings:
        """What the sum needs beside tensors, with the kernel that this call takes."""
        table = experiment.structure_factors
        h, k, l = table.table.shape
        between = self._between(table) is not None
        evaluations = pixels * self._points(experiment) * samples
        vary = _varies(table.table) or _varies(table.default)
        device = table.default.device
        needed = entries(_everything(experiment))
        kernel = select(self.kernel, evaluations, device, self.dtype, self.shape, between, vary, needed)
        default = float(table.default) if kernel == "compiled" and device.type != "cpu" else 0.0
        return Settings(self.shape, table.h_min, (h, k, l), self.dtype, kernel, default)

    def _between(self, factors: StructureFactors) -> AmplitudeGrid | StructureFactors | None:
        """What is interpolated, if anything is."""
        if factors.between is not None:
            return factors.between
        return factors if self.interpolate and factors.table.numel() else None

    def _rays(
        self, experiment: Experiment, pixels: Tensor
    ) -> tuple[Float[Tensor, "rows 3"], Float[Tensor, "pixels layers subpixels sources"]]:
        """Scattering vectors, and f of the module's equation."""
        beam, panel, table = experiment.beam, experiment.panel, experiment.structure_factors
        points = subpixel_points(panel, pixels, self.oversample)
        flight = points / points.norm(dim=-1, keepdim=True)
        scattering = (flight[..., None, :] - beam.direction) / beam.wavelength[:, None]
        f = point_weights(panel, points)[..., None] * beam.weight * polarization(beam, flight)
        if table.b_iso is not None:
            f = f * falloff(table, scattering)
        if self.d_min > 0:
            f = f * (scattering.norm(dim=-1) <= 1 / self.d_min)
        return scattering.flatten(0, -2), f


def _listed(factors: StructureFactors, settings: Settings) -> Float[Tensor, "reflections"]:
    """|F| as the kernel wants to have it: with a layer of the default around the box, or with the default behind it."""
    if settings.kernel == "eager" or factors.table.numel() == 0:
        return padded_values(factors)
    return torch.cat([factors.table.flatten(), factors.default.reshape(1)])


def _carries_gradient(experiment: Experiment) -> bool:
    """Whether any tensor of the experiment takes part in reverse-mode differentiation."""
    return any(isinstance(v, Tensor) and v.requires_grad for v in _everything(experiment))


def _everything(experiment: Experiment) -> list[object]:
    """What an experiment's records hold."""
    parts = (experiment.beam, experiment.panel, experiment.crystal, experiment.scan, experiment.structure_factors)
    optional = (experiment.panel.sensor, experiment.structure_factors.between)
    return [v for part in (*parts, *filter(None, optional)) for v in vars(part).values()]


def _geometry_varies(experiment: Experiment) -> bool:
    """Whether scattering vectors or weights of pixels carry a derivative, or know of sensor layers or a B factor."""
    panel = experiment.panel
    parts = [v for part in (experiment.beam, panel) for v in vars(part).values()]
    special = panel.sensor is not None or experiment.structure_factors.b_iso is not None
    return special or any(isinstance(v, Tensor) and _varies(v) for v in parts)


def _varies(t: Tensor) -> bool:
    """Whether a tensor takes part in differentiation, backwards or forwards."""
    if torch._C._functorch.is_functorch_wrapped_tensor(t):
        return True
    return t.requires_grad or torch.autograd.forward_ad.unpack_dual(t).tangent is not None
