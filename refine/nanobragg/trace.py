"""Every intermediate of one pixel, one ``name = value`` a line with 15 digits."""

from collections.abc import Iterator

import torch
from torch import Tensor

from sim_core.amplitudes import nearest_reflection
from sim_core.constants import R_E_SQUARED

from .image import Simulator
from .rays import Rays, pixel_factor, row_factor
from .shapes import grating


def _line(name: str, *values: int | float | Tensor) -> str:
    return f"{name} = {' '.join(format(float(v), '.15g') for v in values)}"


def trace_lines(simulator: Simulator, fast: int, slow: int) -> Iterator[str]:
    """Lines for the pixel, in the order of evaluation, after the whole image has been simulated.

    Args:
        simulator: The simulator, whose state tells which pixel saw the first sweep and where interpolation ended.
        fast: Index along a row.
        slow: Index along a column.
    """
    setup, optics = simulator.setup, simulator.optics
    pixel = torch.tensor([[slow, fast]], device=simulator.device)
    simulator.rewind((slow, fast))
    rays = optics.rays(pixel)
    yield from _setting_lines(simulator, fast, slow)
    each = row_factor(optics, rays)
    yield from _evaluation_lines(simulator, rays, pixel)
    if not setup.command.nopolar:
        yield _line("polar", optics.polarization(optics.incident[0], rays.flight[0, 0, 0]))
    yield _line("omega_pixel", optics.solid_angle(rays.position[0, 0, 0]))
    if setup.layers.range > 0.0:
        yield _line("capture_fraction", optics.absorbed(rays.flight[0, -1, 0], setup.layers.count - 1))
    if each is not None:
        yield _line("factor_of_rows", *each[0])
    factor = pixel_factor(optics, rays)[0]
    simulator.rewind((slow, fast))
    photons = simulator.block(pixel)[0]
    yield _line("steps", setup.steps)
    yield _line("fluence", setup.fluence)
    scale = R_E_SQUARED * setup.fluence / setup.steps * factor
    yield _line("I_before_scaling", photons / scale if scale != 0 else 0.0)
    yield _line("factor_of_pixel", factor)
    yield _line("I", photons)


def _setting_lines(simulator: Simulator, fast: int, slow: int) -> Iterator[str]:
    setup = simulator.setup
    g, lattice = setup.geometry, setup.lattice
    yield _line("pixel", fast, slow)
    vectors = {
        "pix0_vector": g.origin,
        "fdet_vector": g.fast,
        "sdet_vector": g.slow,
        "odet_vector": g.normal,
        "beam_vector": g.beam,
        "polar_vector": g.polarization,
        "spindle_axis": g.spindle,
        **{f"real_{name}": v for name, v in zip("abc", lattice.direct, strict=True)},
        **{f"recip_{name}_star": v for name, v in zip("abc", lattice.reciprocal, strict=True)},
        "n_cells": setup.n_cells,
    }
    for name, vector in vectors.items():
        yield _line(name, *vector)
    numbers = {"volume": lattice.volume, "distance": g.distance, "close_distance": g.close_distance}
    for name, number in numbers.items():
        yield _line(name, number)


def _evaluation_lines(simulator: Simulator, rays: Rays, pixel: Tensor) -> Iterator[str]:
    """Positions and scattering vectors of each row, indices and amplitudes of each evaluation."""
    n = len(simulator.setup.sources)
    points, towards = (x.flatten(0, 2) for x in (rays.position, rays.flight))
    for terms in simulator.terms(rays, pixel):
        for row in range(terms.rows.start, terms.rows.stop):
            state = simulator.state
            begun = row > state.first_row or state.first_pixel != tuple(pixel[0].tolist())
            at = f"[{row}]"
            yield _line(f"pixel_pos{at}", *points[row // n])
            yield _line(f"diffracted{at}", *towards[row // n])
            yield _line(f"incident{at}", *simulator.optics.incident[row % n])
            yield _line(f"lambda{at}", simulator.optics.wavelength[row % n])
            yield _line(f"S{at}", *rays.scattering[0, row])
            values = terms.value[row - terms.rows.start]
            yield from _sample_lines(simulator, rays.scattering[0, row], values, begun, at)


def _sample_lines(simulator: Simulator, s: Tensor, values: Tensor, begun: bool, at: str) -> Iterator[str]:
    setup = simulator.setup
    orientations = simulator.later if begun else simulator.first
    angles = simulator.angles[1 if begun else 0]
    h = simulator.indices(s[None], orientations)[:, 0]
    h0 = nearest_reflection(h)
    lattice = simulator.lattice(h[:, None], h0[:, None])[0]
    blocks = max(1, len(setup.domains))
    for sample in range(h.shape[1]):
        here = f"{at}[phi {sample // blocks}][domain {sample % blocks}]"
        yield _line(f"phi{here}", angles[sample // blocks])
        yield _line(f"hkl{here}", *h[:, sample])
        yield _line(f"hkl0{here}", *h0[:, sample])
        if setup.command.shape == "square":
            for axis, name in enumerate("abc"):
                factor = grating(torch.pi * h[axis, sample], setup.n_cells[axis])
                yield _line(f"F_latt_{name}{here}", factor)
        square = lattice[sample] if simulator.dtype != torch.float64 else lattice[sample] ** 2
        yield _line(f"F_latt{here}", square.sqrt())
        yield _line(f"F_cell{here}", (values[sample] / square).sqrt() if square > 0 else 0.0)
