"""Everything an image needs, derived from the command line once and in the reference's order."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from refine.errors import InputError, required
from sim_core.constants import AVOGADRO, R_E_SQUARED

from . import crystal, geometry, reflections, sources
from .command import Command
from .crystal import Lattice
from .generator import Generator
from .geometry import Geometry
from .reflections import Reflections
from .sampling import PhiSteps, Steps, angles_after_carry_over, mosaic_domains, phi_steps, sensor_layers
from .sources import Source
from .vectors import Matrix, rotated_about, scaled, transformed

LARGEST_SAMPLE = 4_000_000
"""Orientations of the crystal that are held at a time."""


@dataclass(frozen=True)
class Setup:
    """One run, resolved.

    Attributes:
        background: Start of every pixel's sum, from the water in the beam.
        steps: Evaluations a pixel by which its sum is divided; layers of the sensor are not counted.
        attenuation: Of the sensor [1/m].
        fluence: Photons per m^2.
        mask: Pixels [slow, fast] to simulate inside the region of interest.
        generator: Random numbers, as the orientation and the blocks have left them.
    """

    command: Command
    geometry: Geometry
    lattice: Lattice
    n_cells: tuple[int, int, int]
    oversample: int
    recommended: int
    interpolate: bool
    sources: list[Source]
    phi: PhiSteps
    layers: Steps
    attenuation: float
    spread: float
    domains: list[Matrix]
    reflections: Reflections
    fluence: float
    background: float
    steps: int
    mask: np.ndarray
    generator: Generator


def resolve(command: Command, mask: np.ndarray | None) -> Setup:
    """Derive geometry, crystal, beam and sampling.

    Args:
        command: The settings.
        mask: Values of the mask image; zero leaves a pixel out.

    Raises:
        InputError: if the settings make no image, or one that is too large.
    """
    _check_finite(command)
    if not 0.0 < command.wavelength < float("inf"):
        raise required("-lambda", "a positive wavelength", f"{command.wavelength * 1e10:g} A")
    panel = geometry.build(command)
    fluence = _fluence(command)
    phi, (layers, attenuation), (spread, count) = phi_steps(command), sensor_layers(command), mosaic_domains(command)
    if phi.count * count > LARGEST_SAMPLE:
        raise required("-phisteps x -mosaic_domains", f"at most {LARGEST_SAMPLE}", phi.count * count)
    generator = Generator()
    lattice = crystal.build(command, generator)
    n_cells = crystal.block_size(command, lattice)
    recommended = crystal.recommended_oversample(n_cells, lattice, command.wavelength, panel.distance, panel.pixel_size)
    oversample = command.oversample if command.oversample > 0 else recommended
    listed = reflections.load(command)
    waves = sources.build(command, panel)
    steps = len(waves) * count * phi.count * oversample**2
    wanted = _wanted(panel, mask)
    evaluations = float(wanted.sum()) * steps * layers.count
    if evaluations > command.max_evaluations:
        raise required("--max-evaluations", f"at most {command.max_evaluations:g}", f"{evaluations:g} of them to do")
    automatic = min(max(1, n) for n in command.n_cells) <= 2
    interpolate = (automatic if command.interpolate is None else command.interpolate) and listed.listed > 0
    domains = generator.domains(spread, count, command.mosaic_seed) if spread > 0.0 else []
    w = command.water
    background = 2.57 * 2.57 * R_E_SQUARED * fluence * w * w * w * 1e6 * AVOGADRO / 18.0
    return Setup(
        command, panel, lattice, n_cells, oversample, recommended, interpolate, waves, phi, layers, attenuation,
        spread, domains, listed, fluence, background, steps, wanted, generator,
    )  # fmt: skip


def _check_finite(command: Command) -> None:
    for name, value in vars(command).items():
        entries = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
        for entry in entries:
            numbers = entry if isinstance(entry, tuple) else (entry,)
            if any(isinstance(x, float) and not math.isfinite(x) for x in numbers):
                raise required(name, "finite numbers", " ".join(str(x) for x in numbers))


def _fluence(command: Command) -> float:
    """Photons per m^2, from the flux where one is given."""
    fluence = command.fluence
    if command.flux != 0.0 and command.exposure > 0.0 and command.beam_size >= 0.0:
        area = command.beam_size * command.beam_size
        fluence = command.flux * command.exposure / area if area > 0.0 else float("inf")
    return fluence


def _wanted(panel: Geometry, mask: np.ndarray | None) -> np.ndarray:
    """Pixels [slow, fast] inside the region of interest and not masked."""
    fast, slow = panel.pixels
    x0, x1, y0, y1 = panel.roi
    wanted = np.zeros((slow, fast), dtype=bool)
    wanted[y0 : y1 + 1, x0 : x1 + 1] = True
    if mask is not None:
        if mask.shape != wanted.shape:
            raise InputError(
                f"-mask: expected {fast} x {slow} pixels as the detector has, got {mask.shape[1]} x {mask.shape[0]}"
            )
        wanted &= mask != 0
    return wanted


def sweeps(setup: Setup) -> tuple[list[float], list[float]]:
    """Spindle angles [rad] at which the steps of the image's first sweep and of all later sweeps are evaluated.

    The reference leaves the crystal as the step before left it where an angle is exactly zero; with ``spec`` every
    step is at its own angle.
    """
    angles = setup.phi.angles
    if setup.command.compat == "spec":
        return angles, angles
    first = angles_after_carry_over(angles, 0.0)
    return first, angles_after_carry_over(angles, first[-1])


def orientations(setup: Setup, angles: list[float]) -> np.ndarray:
    """Rows a, b, c [m] of every block at every spindle angle, blocks running fastest: [samples, 3, 3]."""
    blocks = np.array(setup.domains).transpose(1, 2, 0) if setup.domains else None
    rows = np.empty((len(angles), max(1, len(setup.domains)), 3, 3))
    for step, turned in enumerate(_turned(setup, angles)):
        for axis, vector in enumerate(turned):
            components = vector if blocks is None else transformed(blocks, vector)
            for i in range(3):
                rows[step, :, axis, i] = components[i]
    return rows.reshape(-1, 3, 3)


def _turned(setup: Setup, angles: list[float]) -> Iterator[Matrix]:
    a, b, c = (scaled(v, 1e-10) for v in setup.lattice.direct)
    axis = setup.geometry.spindle
    for angle in angles:
        if angle != 0.0:
            yield (rotated_about(a, axis, angle), rotated_about(b, axis, angle), rotated_about(c, axis, angle))
        else:
            yield (a, b, c)
