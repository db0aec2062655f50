"""Photons in each pixel, with the reference's state between one evaluation and the next.

The core's loop over pixels calls :meth:`Simulator.block` for runs of pixels in raster order. Two things depend on what
came before: the very first sweep of the spindle sees the crystal unturned where later sweeps see it as the sweep before
left it, and interpolation ends for good at the first evaluation that lacks a neighbour in the table.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sim_core.amplitudes import (
    box_limits,
    interpolable,
    nearest_reflection,
    padded_index,
    padded_values,
    tricubic,
)
from sim_core.constants import R_E_SQUARED
from sim_core.experiment import StructureFactors
from sim_core.interference import SHAPES, Shape, Square
from sim_core.kernels.lattice.lattice_sum import lattice_sum
from sim_core.kernels.lattice.settings import Settings
from sim_core.kernels.selection import select
from sim_core.rays import in_blocks

from .command import Command
from .rays import Optics, Rays, pixel_factor, row_factor
from .setup import Setup, orientations, sweeps
from .shapes import lattice_factor

ROWS = 1 << 18
"""Scattering vectors that are held at a time."""

TILE = {"cpu": 1 << 16, "cuda": 1 << 22}
"""Rows x orientations that are worked on at a time."""


class Terms(NamedTuple):
    """Evaluations of some rows at every orientation.

    Attributes:
        rows: Where the rows lie.
        value: F_cell^2 F_latt^2.
        active: Evaluations that took place: within the resolution limit and with a lattice factor other than zero.
        interpolated: Those with an amplitude between reflections.
    """

    rows: slice
    value: Float[Tensor, "rows samples"]
    active: Bool[Tensor, "rows samples"]
    interpolated: Bool[Tensor, "#rows #samples"]


@dataclass
class State:
    """What the evaluations so far have left behind.

    Attributes:
        begun: Whether there has been a sweep of the spindle.
        first_pixel: The pixel (slow, fast) of the first sweep.
        first_row: The row of that pixel.
        interpolate: Whether interpolation still goes on.
        last_pixel: The pixel in which it ended.
        solid_angle: Sum over pixels, layers and sub-pixels [sr].
    """

    begun: bool = False
    first_pixel: tuple[int, int] | None = None
    first_row: int = 0
    interpolate: bool = False
    last_pixel: tuple[int, int] | None = None
    solid_angle: float = 0.0


class Simulator:
    """The image of a run, block by block in raster order.

    Args:
        setup: The run.
        device: Where to compute.
        dtype: Precision of the sum; indices are found in double precision.
    """

    def __init__(self, setup: Setup, device: torch.device, dtype: torch.dtype) -> None:
        self.setup, self.device, self.dtype = setup, device, dtype
        self.optics = Optics(setup, device)
        self.angles = sweeps(setup)
        self.first, self.later = (torch.from_numpy(orientations(setup, angles)).to(device) for angles in self.angles)
        self.state = State(interpolate=setup.interpolate)
        self._set_amplitudes(setup, device)
        self._set_shape(setup)
        self.kernel = self._set_kernel(setup.command)

    def _set_kernel(self, command: Command) -> str:
        """The implementation of the sum; only the eager one has the reference's last bits, states and flags."""
        if self._running or self.setup.interpolate or (command.kernel == "auto" and self.dtype == torch.float64):
            return "eager"
        evaluations = int(self.setup.mask.sum()) * self.setup.layers.count * self.setup.steps
        return select(command.kernel, evaluations, self.device, self.dtype, self.shape)

    def _set_amplitudes(self, setup: Setup, device: torch.device) -> None:
        listed = setup.reflections
        low = torch.tensor(listed.low, device=device)
        table = torch.from_numpy(listed.table).to(device)
        default = torch.tensor(setup.command.default_F, dtype=torch.float64, device=device)
        self.factors = StructureFactors(table, low, default)
        self.padded = padded_values(self.factors)

    def _set_shape(self, setup: Setup) -> None:
        kind = SHAPES[setup.command.shape]
        self.shape: Shape = Square() if kind is Square else kind(setup.command.fudge)  # type: ignore[call-arg]
        n_cells = torch.tensor(setup.n_cells, dtype=torch.float64, device=self.device)
        reciprocal = torch.tensor(setup.lattice.reciprocal, dtype=torch.float64, device=self.device).T
        self.parameters = self.shape.parameters(n_cells, reciprocal).to(self.dtype)
        self.amplitude = float(self.shape.amplitude(n_cells))

    def __call__(self, pixels: Int[Tensor, "pixels 2"]) -> Float[Tensor, "pixels"]:
        """Photons of pixels (slow, fast), which follow those of the call before in raster order."""
        setup = self.setup
        rows = setup.layers.count * setup.oversample**2 * len(setup.sources)
        if self._running:
            rows *= len(self.later)
        return in_blocks(self.block, pixels.to(self.device), max(1, ROWS // rows))

    @property
    def _running(self) -> bool:
        """Whether the factors of the -oversample flags multiply the running sum instead of their own terms."""
        command = self.setup.command
        flags = command.oversample_thick or command.oversample_polar or command.oversample_omega
        return flags and command.compat == "c"

    def rewind(self, pixel: tuple[int, int]) -> None:
        """Set the state to what it was before a pixel (slow, fast) of the image that has been simulated."""
        state, ended = self.state, self.state.last_pixel
        state.begun = state.first_pixel is not None and pixel > state.first_pixel
        state.interpolate = self.setup.interpolate and (ended is None or pixel <= ended)

    def block(self, pixels: Int[Tensor, "pixels 2"]) -> Float[Tensor, "pixels"]:
        """Photons of some pixels."""
        rays = self.optics.rays(pixels)
        self._add_solid_angle(rays)
        each = row_factor(self.optics, rays)
        add = self._running_sum if self._running else self._sum
        total = add(rays, each, pixels)
        scaled = R_E_SQUARED * self.setup.fluence * total / self.setup.steps
        return scaled * pixel_factor(self.optics, rays)

    def _add_solid_angle(self, rays: Rays) -> None:
        points = rays.position.shape[1] * rays.position.shape[2]
        every = self.setup.command.oversample_omega
        seen = rays.position if every else rays.position[:, 0, 0]
        self.state.solid_angle += float(self.optics.solid_angle(seen).sum()) * (1 if every else points)

    def _sum(self, rays: Rays, each: Tensor | None, pixels: Tensor) -> Float[Tensor, "pixels"]:
        if self.kernel == "compiled":
            parts = [self._compiled(*part) for part in self._sweeps(rays, pixels)]
        else:
            parts = [terms.value.sum(-1) for terms in self.terms(rays, pixels)]
        y = torch.cat(parts).double().view(rays.alive.shape)
        if each is None:
            return self.setup.background + y.sum(1)
        return self.setup.background * each.mean(1) + (each * y).sum(1)

    def _running_sum(self, rays: Rays, each: Tensor | None, pixels: Tensor) -> Float[Tensor, "pixels"]:
        """The sum so far is multiplied at every evaluation: a term keeps its own and all later factors."""
        terms = list(self.terms(rays, pixels))
        each = torch.ones_like(rays.scattering[..., 0]) if each is None else each
        active = torch.cat([t.active for t in terms])
        factors = torch.where(active, each.flatten()[:, None], 1.0).view(len(pixels), -1)
        after = factors.flip(1).cumprod(1).flip(1)
        values = torch.cat([t.value for t in terms]).double().view(len(pixels), -1)
        return self.setup.background * after[:, 0] + (values * after).sum(1)

    def terms(self, rays: Rays, pixels: Int[Tensor, "pixels 2"]) -> Iterator[Terms]:
        """Evaluations of all rows in order."""
        for terms in self._all_tiles(rays, pixels):
            if self.setup.interpolate and not self.state.interpolate and self.state.last_pixel is None:
                outside = (terms.active & ~terms.interpolated).any(1)
                row = terms.rows.start + int(outside.to(torch.uint8).argmax())
                slow, fast = pixels[row // rays.alive.shape[1]].tolist()
                self.state.last_pixel = (slow, fast)
            yield terms

    def _compiled(self, scattering: Tensor, alive: Tensor, rows: slice, orientations: Tensor) -> Tensor:
        """Sums of some rows by the core's compiled kernel."""
        table, low = self.factors.table, self.factors.h_min
        box = (table.shape[0], table.shape[1], table.shape[2])
        settings = Settings(self.shape, low, box, self.dtype, self.kernel, float(self.factors.default))
        amplitudes = table.flatten() if table.numel() else self.padded
        ones = torch.ones(len(orientations), dtype=torch.float64, device=self.device)
        y = lattice_sum(scattering[rows], orientations, ones, self.parameters, amplitudes, settings)
        return self.amplitude * y * alive[rows]

    def _all_tiles(self, rays: Rays, pixels: Tensor) -> Iterator[Terms]:
        for s, alive, part, turned in self._sweeps(rays, pixels):
            yield from self._tiles(s, alive, part.start, part.stop, turned)

    def _sweeps(self, rays: Rays, pixels: Tensor) -> Iterator[tuple[Tensor, Tensor, slice, Tensor]]:
        """Rows of the first sweep of the spindle and those of later sweeps, each with their orientations."""
        s, alive = rays.scattering.flatten(0, 1), rays.alive.flatten()
        start = 0
        if not self.state.begun and bool(alive.any()):
            start = int(alive.to(torch.uint8).argmax()) + 1
            pixel, row = divmod(start - 1, rays.alive.shape[1])
            slow, fast = pixels[pixel].tolist()
            self.state.begun, self.state.first_pixel, self.state.first_row = True, (slow, fast), row
            yield s, alive, slice(0, start), self.first
        yield s, alive, slice(start, len(s)), self.later

    def _tiles(self, s: Tensor, alive: Tensor, start: int, stop: int, rows: Tensor) -> Iterator[Terms]:
        size = max(1, TILE.get(self.device.type, TILE["cuda"]) // len(rows))
        for begin in range(start, stop, size):
            part = slice(begin, min(begin + size, stop))
            yield self.evaluate(s[part], alive[part], rows, part)

    def indices(
        self, scattering: Float[Tensor, "rows 3"], orientations: Float[Tensor, "samples 3 3"]
    ) -> Float[Tensor, "3 rows samples"]:
        """Fractional indices, summed component by component."""
        s, a = scattering.T[:, None, :, None], orientations.permute(2, 1, 0)[:, :, None, :]
        return a[0] * s[0] + a[1] * s[1] + a[2] * s[2]

    def evaluate(self, scattering: Tensor, alive: Tensor, orientations: Tensor, rows: slice) -> Terms:
        """F_cell^2 F_latt^2 of some rows at every orientation."""
        h = self.indices(scattering, orientations)
        h0 = nearest_reflection(h)
        lattice = self.lattice(h, h0)
        active = alive[:, None].expand_as(lattice)
        if self.setup.command.water == 0.0:
            active = active & (lattice != 0.0)
        F, interpolated = self.structure_factor(h, h0, active)
        value = F * F * lattice if self.dtype != torch.float64 else F * F * lattice * lattice
        return Terms(rows, torch.where(active, value, 0.0), active, interpolated)

    def lattice(self, h: Tensor, h0: Tensor) -> Float[Tensor, "rows samples"]:
        """F_latt in double precision; F_latt^2 otherwise, from the core's well-conditioned form."""
        setup = self.setup
        if self.dtype != torch.float64:
            return self.amplitude * self.shape.profile((h - h0).to(self.dtype), self.parameters)
        command = setup.command
        return lattice_factor(command.shape, h, h - h0, setup.n_cells, setup.lattice.reciprocal, command.fudge)

    def structure_factor(self, h: Tensor, h0: Tensor, active: Tensor) -> tuple[Tensor, Tensor]:
        """F_cell at fractional indices, and where it is interpolated; active evaluations decide where that ends."""
        table, low = self.factors.table, self.factors.h_min
        nowhere = torch.zeros(1, 1, dtype=torch.bool, device=self.device)
        if table.numel() == 0:
            return self.factors.default.to(self.dtype), nowhere
        box = (table.shape[0], table.shape[1], table.shape[2])
        F = torch.take(self.padded, padded_index(h0.nan_to_num(), *box_limits(low, box)))
        if not self.state.interpolate:
            return F.to(self.dtype), nowhere
        inside = self._still_inside(interpolable(h, low, box), active)
        return torch.where(inside, tricubic(table, low, h.nan_to_num()), F).to(self.dtype), inside

    def _still_inside(self, inside: Tensor, active: Tensor) -> Bool[Tensor, "rows samples"]:
        """Evaluations to interpolate: those before the first that cannot be; with ``spec`` all that can be."""
        if self.setup.command.compat == "spec":
            return inside
        outside = (active & ~inside).flatten()
        if not bool(outside.any()):
            return inside
        self.state.interpolate = False
        before = torch.arange(outside.numel(), device=outside.device) < outside.to(torch.uint8).argmax()
        return inside & before.view(inside.shape)
