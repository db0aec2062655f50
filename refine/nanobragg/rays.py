"""From pixels to scattering vectors, and the factors of a pixel: solid angle, absorption, polarisation."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sim_core.detector import absorbed_fraction, solid_angle
from sim_core.polarization import kahn_factor

from .setup import Setup
from .vectors import Vector, rodrigues


class Rays(NamedTuple):
    """What leaves the crystal for the points of some pixels; rows are layers x sub-pixels x sources, in this order.

    Attributes:
        position: Points [m].
        flight: Unit vectors towards them.
        scattering: Scattering vectors [1/m].
        alive: Rows within the resolution limit.
    """

    position: Float[Tensor, "pixels layers subpixels 3"]
    flight: Float[Tensor, "pixels layers subpixels 3"]
    scattering: Float[Tensor, "pixels rows 3"]
    alive: Bool[Tensor, "pixels rows"]


class Optics:
    """Geometry and beam of a run as tensors.

    Args:
        setup: The run.
        device: Where the tensors live.
    """

    def __init__(self, setup: Setup, device: torch.device) -> None:
        self.setup = setup
        self.device = device
        self.incident = self._tensor([s.direction for s in setup.sources])
        self.wavelength = self._tensor([s.wavelength for s in setup.sources])

    def _tensor(self, values: Any) -> Tensor:
        return torch.tensor(values, dtype=torch.float64, device=self.device)

    def rays(self, pixels: Int[Tensor, "pixels 2"]) -> Rays:
        """Rays of pixels (slow, fast)."""
        position = self._points(pixels)
        x, y, z = position
        radius = torch.sqrt(x * x + y * y + z * z)
        flight = [component / radius for component in position]
        q = [(d[..., None] - k) / self.wavelength for d, k in zip(flight, self.incident.T, strict=True)]
        d_min = self.setup.command.d_min
        if d_min > 0.0:
            stol = 0.5 * torch.sqrt(q[0] * q[0] + q[1] * q[1] + q[2] * q[2])
            alive = ~((stol > 0.0) & (d_min > 0.5 / stol))
        else:
            alive = torch.ones_like(q[0], dtype=torch.bool)
        scattering = torch.stack(q, -1).flatten(1, 3)
        return Rays(torch.stack(position, -1), torch.stack(flight, -1), scattering, alive.flatten(1))

    def _points(self, pixels: Int[Tensor, "pixels 2"]) -> list[Float[Tensor, "pixels layers subpixels"]]:
        """Centres of the sub-pixels [m] at the upper surface of each layer, component by component."""
        g, n = self.setup.geometry, self.setup.oversample
        sub = g.pixel_size / n
        offset = torch.arange(n, device=self.device)
        slow, fast = (sub * (p[:, None] * n + offset) + sub / 2.0 for p in pixels.double().unbind(1))
        fast, slow = fast[:, None, None, :], slow[:, None, :, None]
        depth = torch.arange(self.setup.layers.count, device=self.device, dtype=torch.float64) * self.setup.layers.step
        depth = depth[:, None, None]
        flat = [
            (fast * f + slow * s + depth * o + origin).flatten(2)
            for f, s, o, origin in zip(g.fast, g.slow, g.normal, g.origin, strict=True)
        ]
        return self._curved(flat) if self.setup.command.curved else flat

    def _curved(self, flat: list[Tensor]) -> list[Tensor]:
        """Points at one distance from the sample; lab y and z of the flat detector become angles."""
        g = self.setup.geometry
        first, second = flat[1] / g.distance, flat[2] / g.distance
        ahead: Vector = (g.distance * g.beam[0], g.distance * g.beam[1], g.distance * g.beam[2])
        turned = rodrigues(ahead, g.slow, torch.sin(first), torch.cos(first))
        return list(rodrigues(turned, g.fast, torch.sin(second), torch.cos(second)))

    def solid_angle(self, position: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch"]:
        """Solid angle of a pixel [sr]; of a point pixel 1 / R^2 [1/m^2]."""
        if self.setup.command.point_pixel:
            return 1.0 / position.square().sum(-1)
        g = self.setup.geometry
        return solid_angle(position, self._tensor(g.close_distance), self._tensor(g.pixel_size))

    def absorbed(self, flight: Float[Tensor, "*batch 3"], layer: int) -> Float[Tensor, "*batch"]:
        """Part of the photons that a layer of the sensor stops."""
        step = self.setup.layers.step
        edges = self._tensor([layer * step, (layer + 1) * step])
        normal = self._tensor(self.setup.geometry.normal)
        return absorbed_fraction(flight, normal, self._tensor(self.setup.attenuation), edges)[..., 0]

    def polarization(
        self, incident: Float[Tensor, "*#batch 3"], flight: Float[Tensor, "*#batch 3"]
    ) -> Float[Tensor, "*batch"]:
        """Polarisation factor."""
        axis, kahn = self._tensor(self.setup.geometry.polarization), self.setup.command.kahn
        if kahn == 0.0:
            return 0.5 * (1.0 + (incident * flight).sum(-1) ** 2)
        return kahn_factor(incident, flight, axis, self._tensor(kahn))


def pixel_factor(optics: Optics, rays: Rays) -> Float[Tensor, "pixels"]:
    """Factors that are evaluated once a pixel.

    The solid angle is that of the first sub-pixel of the first layer, the absorption that of the first sub-pixel of the
    last layer, the polarisation that of the first source and sub-pixel within the resolution limit.
    """
    command, layers = optics.setup.command, optics.setup.layers
    factor = torch.ones_like(rays.flight[:, 0, 0, 0])
    if not command.oversample_thick and layers.range > 0.0:
        factor = factor * optics.absorbed(rays.flight[:, -1, 0], layers.count - 1)
    if not command.oversample_polar and not command.nopolar:
        first = rays.alive.to(torch.uint8).argmax(1)
        sources = len(optics.incident)
        towards = rays.flight.flatten(1, 2)[torch.arange(len(first), device=first.device), first // sources]
        factor = factor * optics.polarization(optics.incident[first % sources], towards) * rays.alive.any(1)
    if not command.oversample_omega:
        factor = factor * optics.solid_angle(rays.position[:, 0, 0])
    return factor


def row_factor(optics: Optics, rays: Rays) -> Float[Tensor, "pixels rows"] | None:
    """Factors that are evaluated for each row, by the -oversample flags; ``None`` without these flags."""
    command, layers = optics.setup.command, optics.setup.layers
    if not (command.oversample_thick or command.oversample_polar or command.oversample_omega):
        return None
    factor = torch.ones_like(rays.flight[..., :1]).expand(*rays.flight.shape[:3], len(optics.incident))
    if command.oversample_thick and layers.range > 0.0:
        parts = [optics.absorbed(rays.flight[:, layer], layer) for layer in range(layers.count)]
        factor = factor * torch.stack(parts, 1)[..., None]
    elif command.oversample_thick and command.compat == "c":
        factor = factor * 0.0
    if command.oversample_polar and not command.nopolar:
        factor = factor * optics.polarization(optics.incident, rays.flight[..., None, :])
    if command.oversample_omega:
        factor = factor * optics.solid_angle(rays.position)[..., None]
    return factor.flatten(1)
