"""Time and memory of the sampled simulator on this machine: ``make bench``.

Prints wall nanoseconds for each evaluation (pixel x sub-pixel x orientation), medians of five, side by side in one run,
and the error of the mosaic samples against many random blocks.
"""

import json
import platform
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from refine.compose import load
from refine.problem import build_problem
from sim_core import Experiment
from sim_core.bragg.mosaic import quadrature_domains, random_domains
from sim_core.bragg.sampled import SampledBragg

REPEATS = 5


def median_seconds(work: Callable[[], object]) -> float:
    work()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def experiments() -> dict[str, Experiment]:
    found = {}
    for name in ("mosaic_misset", "lysozyme_still"):
        problem = build_problem(load(f"experiment={name}"))
        values = problem.parameters()
        values |= {
            k: torch.tensor(v).double() for k, v in (("misset_deg", [1.2, -0.7, 2.1]), ("mosaic_spread_deg", 0.5))
        }
        found[name] = problem.model.experiment(values)
    return found


def speed(experiment: Experiment, dtype: torch.dtype) -> dict[str, float]:
    pixels = experiment.panel.all_pixels()[:40000]
    simulator = SampledBragg(quadrature_domains(25), oversample=1, dtype=dtype)
    crystal = experiment.crystal
    start = torch.cat([crystal.misset, crystal.mosaic_spread[None]])

    def image(vector: torch.Tensor) -> torch.Tensor:
        moved = replace(crystal, misset=vector[:3], mosaic_spread=vector[3])
        return simulator(replace(experiment, crystal=moved), pixels)

    def gradient() -> None:
        image(start.clone().requires_grad_()).sum().backward()

    works = {
        "forward": lambda: image(start),
        "forward + gradient": gradient,
        "forward + Jacobian of 4": lambda: torch.func.jacfwd(image)(start),
    }
    evaluations = len(pixels) * 25
    return {name: median_seconds(work) / evaluations * 1e9 for name, work in works.items()}


def accuracy(experiment: Experiment) -> dict[str, float]:
    generator = torch.Generator().manual_seed(1)
    pixels = experiment.panel.all_pixels()
    pixels = pixels[torch.randperm(len(pixels), generator=generator)[:4000]]
    reference = torch.stack([SampledBragg(random_domains(5000, 1000 + i))(experiment, pixels) for i in range(4)]).mean(
        0
    )

    def error(domains: object) -> float:
        return float((SampledBragg(domains)(experiment, pixels) - reference).norm() / reference.norm())

    rules = {f"quadrature, {n} nodes": error(quadrature_domains(n)) for n in (7, 25, 65, 187)}
    return rules | {f"random, {n} blocks": error(random_domains(n, 7)) for n in (25, 100, 400)}


def main() -> None:
    console = Console()
    record: dict = {"machine": platform.processor() or platform.machine(), "threads": torch.get_num_threads()}
    for name, experiment in experiments().items():
        columns = {str(d).removeprefix("torch."): speed(experiment, d) for d in (torch.float64, torch.float32)}
        table = Table("ns an evaluation", *columns, title=name, box=None)
        for work in columns["float64"]:
            table.add_row(work, *(f"{c[work]:.1f}" for c in columns.values()))
        console.print(table)
        errors = accuracy(experiment)
        table = Table("mosaic sample", "relative error of the image", title=name, box=None)
        for rule, error in errors.items():
            table.add_row(rule, f"{error:.4f}")
        console.print(table)
        record[name] = {"ns": columns, "error": errors}
    record["peak_MiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    console.print(f"peak memory {record['peak_MiB']} MiB")
    target = Path(__file__).parent / "results" / "simulator.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
