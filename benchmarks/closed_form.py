"""Time of the closed form on this machine, the reference and machine code side by side.

Prints wall and processor nanoseconds a pixel of a 1024 x 1024 image and of its Jacobian along 13 parameters (misset,
mosaic spread, number of cells, cell), medians of five, alternating in one run. ``--quick`` takes 256 x 256 pixels.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from machine import machine
from rich.console import Console
from rich.table import Table

from sim_core import Beam, Crystal, Experiment, Panel, Scan, StructureFactors
from sim_core.bragg.closed_form import ClosedFormBragg

REPEATS = 5
SIZE = 1024
REFERENCE_SIZE = 256
"""The reference's cost is proportional to the number of pixels; its Jacobian of a whole image fills the memory."""


def tensor(values: object) -> torch.Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def experiment(size: int) -> Experiment:
    """Cubic cell of 100 A, N = 15, mosaic spread 0.5 deg, a table of amplitudes; the same angles in any size."""
    generator = torch.Generator().manual_seed(1)
    table = 100 * torch.rand(21, 21, 21, generator=generator, dtype=torch.float64)
    return Experiment(
        beam=Beam(
            direction=tensor([[1.0, 0.0, 0.0]]),
            wavelength=tensor([1.0]),
            weight=tensor([1.0]),
            fluence=tensor(1e29),
            kahn=tensor(0.0),
            polarization_axis=tensor([0.0, 0.0, 1.0]),
        ),
        panel=Panel(
            origin=tensor([0.1, 0.0512, -0.0512]),
            fast_axis=tensor([0.0, 0.0, 1.0]),
            slow_axis=tensor([0.0, -1.0, 0.0]),
            normal=tensor([1.0, 0.0, 0.0]),
            pixel_size=tensor(0.1024 / size),
            image_size=(size, size),
        ),
        crystal=Crystal(
            cell=torch.cat([tensor([100.0, 100.0, 100.0]), torch.deg2rad(tensor([90.0, 90.0, 90.0]))]),
            orientation=torch.eye(3, dtype=torch.float64),
            misset=torch.deg2rad(tensor([5.0, 3.0, -2.0])),
            n_cells=tensor([15.0, 15.0, 15.0]),
            mosaic_spread=torch.deg2rad(tensor(0.5)),
        ),
        scan=Scan(tensor([0.0, 0.0, 1.0]), tensor([0.0]), tensor([1.0])),
        structure_factors=StructureFactors(table, torch.tensor([-10, -10, -10]), tensor(0.0)),
    )


def works(kernel: str, dtype: torch.dtype, size: int) -> dict[str, tuple[Callable[[], object], int]]:
    """What is timed, with its number of pixels."""
    whole = experiment(size)
    crystal = whole.crystal
    start = torch.cat([crystal.misset, crystal.mosaic_spread[None], crystal.n_cells, crystal.cell])
    simulator = ClosedFormBragg(dtype=dtype, kernel=kernel)

    def image(vector: torch.Tensor) -> torch.Tensor:
        misset, spread, n_cells, cell = vector.split([3, 1, 3, 6])
        moved = replace(crystal, misset=misset, mosaic_spread=spread[0], n_cells=n_cells, cell=cell)
        return simulator(replace(whole, crystal=moved))

    def gradient() -> None:
        image(start.clone().requires_grad_()).sum().backward()

    return {
        "forward": (lambda: image(start), size**2),
        "forward + gradient": (gradient, size**2),
        "forward + Jacobian of 13": (lambda: torch.func.jacfwd(image)(start), size**2),
    }


def timed(work: Callable[[], object], pixels: int) -> tuple[float, float]:
    """Wall and processor nanoseconds a pixel."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return (time.perf_counter() - wall) / pixels * 1e9, (time.process_time() - processor) / pixels * 1e9


def measure(dtype: torch.dtype, size: int) -> dict[str, dict[str, dict[str, float]]]:
    sizes = {"eager": REFERENCE_SIZE, "compiled": size}
    jobs = {kernel: works(kernel, dtype, edge) for kernel, edge in sizes.items()}
    record: dict = {kernel: {} for kernel in jobs}
    for name in jobs["eager"]:
        for kernel in jobs:
            jobs[kernel][name][0]()
        samples: dict = {kernel: [] for kernel in jobs}
        for _ in range(REPEATS):
            for kernel in jobs:
                samples[kernel].append(timed(*jobs[kernel][name]))
        for kernel, pairs in samples.items():
            wall, processor = (statistics.median(column) for column in zip(*pairs, strict=True))
            record[kernel][name] = {"wall_ns": round(wall, 1), "processor_ns": round(processor, 1)}
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small image")
    quick = parser.parse_args().quick
    size = REFERENCE_SIZE if quick else SIZE
    console = Console(width=150)
    console.print(f"closed form, {size} x {size} pixels, {torch.get_num_threads()} threads; medians")
    record: dict = {"machine": machine(), "pixels": size, "threads": torch.get_num_threads(), "load": os.getloadavg()}
    for dtype in (torch.float64, torch.float32):
        name = str(dtype).removeprefix("torch.")
        record[name] = measure(dtype, size)
        table = Table("ns a pixel", "eager", "compiled", "ratio", "compiled, processor", title=name, box=None)
        for work, eager in record[name]["eager"].items():
            fast = record[name]["compiled"][work]
            ratio = eager["wall_ns"] / fast["wall_ns"]
            wall = (f"{x['wall_ns']:.1f}" for x in (eager, fast))
            table.add_row(work, *wall, f"{ratio:.0f}", f"{fast['processor_ns']:.1f}")
        console.print(table)
    target = Path(__file__).parent / "results" / f"closed_form{'-quick' * quick}.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
