"""Time of the sampled simulator with amplitudes between reflections on this machine, eager and machine code.

Cell 40 A, N = 5.5, 64 x 64 pixels, 3 x 3 sub-pixels, 65 blocks, random complex F at 8 points an index: 2.4 million
evaluations. Prints wall seconds of the image, its gradient and its Jacobian along ten parameters (misset, number of
cells, cell, mosaic spread), and the gradient in F itself; medians of five. ``--quick`` takes 16 x 16 pixels, as does
the eager reference, whose seconds are scaled to the same number of evaluations.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from machine import machine
from rich.console import Console
from rich.table import Table

from sim_core import AmplitudeGrid, Beam, Crystal, Experiment, Panel, Scan, StructureFactors
from sim_core.bragg.sampled import SampledBragg
from sim_core.mosaic import random_domains

SIZE, SMALL, OVERSAMPLE, BLOCKS, RATE, REACH = 64, 16, 3, 65, 8, 14
REPEATS = 5


def tensor(values: object) -> torch.Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def experiment(size: int) -> Experiment:
    """The same angles in any size."""
    generator = torch.Generator().manual_seed(0)
    points = 2 * REACH * RATE + 1
    real, imaginary = (torch.randn(points, points, points, generator=generator).double() for _ in range(2))
    grid = AmplitudeGrid(real, imaginary, torch.tensor([-REACH * RATE] * 3), (RATE, RATE, RATE))
    cell = torch.cat([tensor([40.0] * 3), torch.deg2rad(tensor([90.0] * 3))])
    misset, spread = torch.deg2rad(tensor([5.0, 3.0, -2.0])), torch.deg2rad(tensor(0.5))
    axes = (tensor([0.0, 0, 1]), tensor([0.0, -1, 0]), tensor([1.0, 0, 0]))
    return Experiment(
        Beam(tensor([[1.0, 0, 0]]), tensor([1.0]), tensor([1.0]), tensor(1e28), tensor(0.0), tensor([0.0, 0, 1])),
        Panel(tensor([0.1, 0.032, -0.032]), *axes, tensor(0.064 / size), (size, size)),
        Crystal(cell, torch.eye(3, dtype=torch.float64), misset, tensor([5.5] * 3), spread),
        Scan(tensor([0.0, 0, 1]), tensor([0.0]), tensor([1.0])),
        replace(StructureFactors.constant(tensor(1.0)), between=grid),
    )


def works(kernel: str, dtype: torch.dtype, size: int) -> dict[str, Callable[[], object]]:
    """What is timed."""
    whole = experiment(size)
    crystal, factors, grid = whole.crystal, whole.structure_factors, whole.structure_factors.between
    assert grid is not None
    simulator = SampledBragg(random_domains(BLOCKS, 1), oversample=OVERSAMPLE, dtype=dtype, kernel=kernel)
    start = torch.cat([crystal.misset, crystal.n_cells, crystal.cell[:3], crystal.mosaic_spread[None]])

    def image(vector: torch.Tensor) -> torch.Tensor:
        misset, n_cells, edges, spread = vector.split([3, 3, 3, 1])
        cell = torch.cat([edges, crystal.cell[3:]])
        moved = replace(crystal, misset=misset, n_cells=n_cells, cell=cell, mosaic_spread=spread[0])
        return simulator(replace(whole, crystal=moved))

    def gradient() -> None:
        image(start.clone().requires_grad_()).sum().backward()

    def gradient_in_amplitudes() -> None:
        moved = replace(
            grid, real=grid.real.clone().requires_grad_(), imaginary=grid.imaginary.clone().requires_grad_()
        )
        simulator(replace(whole, structure_factors=replace(factors, between=moved))).sum().backward()

    found: dict[str, Callable[[], object]] = {
        "forward": lambda: image(start),
        "forward + gradient": gradient,
        "forward + Jacobian of 10": lambda: torch.func.jacfwd(image)(start),
    }
    return found | ({"forward + gradient in F": gradient_in_amplitudes} if kernel == "compiled" else {})


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Median wall seconds, after one call that may have to compile."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small image")
    quick = parser.parse_args().quick
    size = SMALL if quick else SIZE
    scale = (size / SMALL) ** 2
    evaluations, threads = (size * OVERSAMPLE) ** 2 * BLOCKS, torch.get_num_threads()
    record: dict = {"machine": machine(), "evaluations": evaluations, "threads": threads}
    console = Console(width=150)
    console.print(f"between reflections, {evaluations} evaluations, {threads} threads; medians")
    for dtype in (torch.float64, torch.float32):
        name = str(dtype).removeprefix("torch.")
        eager = {k: scale * seconds(f, 1) for k, f in works("eager", dtype, SMALL).items()}
        fast = {k: seconds(f, REPEATS) for k, f in works("compiled", dtype, size).items()}
        record[name] = {"eager": eager, "compiled": fast}
        table = Table("seconds", "eager", "compiled", title=name, box=None)
        for work, wall in fast.items():
            table.add_row(work, f"{eager[work]:.1f}" if work in eager else "-", f"{wall:.3f}")
        console.print(table)
    target = Path(__file__).parent / "results" / f"between{'-quick' * quick}.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
