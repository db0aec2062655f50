"""One run: from settings to files."""

import math
import sys

import numpy as np
import torch

from refine.errors import required

from .command import Command
from .image import Simulator
from .outputs import Console, bands, write_all
from .setup import Setup, resolve
from .trace import trace_lines


def simulate(command: Command, mask: np.ndarray | None) -> None:
    """Simulate and write all files.

    Args:
        command: The settings.
        mask: Values of the mask image, ``None`` without one.

    Raises:
        InputError: for settings that make no image and for files that cannot be read or written.
    """
    device = _device(command.device)
    with np.errstate(all="ignore"):
        _simulate(command, resolve(command, mask), device)


def _simulate(command: Command, setup: Setup, device: torch.device) -> None:
    console = Console(to_error=command.trace is not None)
    if command.trace is not None:
        _check_trace(setup, command.trace)
    if command.hkl_file is not None:
        console(f"writing dump file for next time: {command.dump_file}")
    console(f"{setup.reflections.listed} initialized hkls (all others ={command.default_F:g})")
    simulator = Simulator(setup, device, getattr(torch, command.dtype))
    image = render(simulator, command.progress and sys.stderr.isatty())
    solid_angle = simulator.state.solid_angle / setup.steps
    sphere = 100.0 * solid_angle / 4.0 / math.pi
    console(f"solid angle subtended by detector = {solid_angle:g} steradian ( {sphere:g}% sphere)")
    if command.printout:
        _print_pixels(setup, image, console)
    write_all(image, setup, console)
    if command.trace is not None:
        for line in trace_lines(simulator, *command.trace):
            print(line)


def render(simulator: Simulator, progress: bool = False) -> np.ndarray:
    """Photons [slow, fast] in single precision, zero for pixels that are left out."""
    wanted = simulator.setup.mask
    image = np.zeros(wanted.shape, dtype=np.float32)
    for band in bands(image):
        inside = wanted[band]
        pixels = torch.from_numpy(np.argwhere(inside))
        if len(pixels):
            pixels[:, 0] += band.start
            with torch.no_grad():
                image[band][inside] = simulator(pixels).to(torch.float32).cpu().numpy()
        if progress:
            print(f"\r{min(100, 100 * band.stop // len(image))}% done", end="", file=sys.stderr)
    if progress:
        print(file=sys.stderr)
    return image


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.zeros(1, dtype=torch.float64, device=device)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        reason = str(error).split("\n")[0][:100]
        raise required("--device", "a device with double precision", f"{name} ({reason})") from None
    return device


def _check_trace(setup: Setup, pixel: tuple[int, int]) -> None:
    fast, slow = pixel
    if not (fast < setup.geometry.pixels[0] and slow < setup.geometry.pixels[1] and setup.mask[slow, fast]):
        raise required("--trace", "a pixel F S that is simulated", f"{fast} {slow}")


def _print_pixels(setup: Setup, image: np.ndarray, console: Console) -> None:
    """Fast, slow and photons of every pixel that was simulated, or of the one that was asked for."""
    asked = setup.command.printout_pixel
    for slow, fast in np.argwhere(setup.mask):
        if asked is None or asked == (fast, slow):
            console(f"{fast:4d} {slow:4d} : I = {image[slow, fast]:.15g}")
