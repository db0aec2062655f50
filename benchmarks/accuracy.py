"""Accuracy and time of the Bragg simulators: ``python benchmarks/accuracy.py [--samples N] [--quick] [--threads N]``.

The truth is the mean over N (20,000) independent random samples of the sampled simulator, each a call of its own with
one block, one spindle position, one direction, one wavelength and one place in the pixel, drawn together. Against it
stand the closed form (as a configuration has it, and with the other number of parts a pixel), random blocks and the
quadrature. The truth has noise of its own: ``error`` is the plain relative L2 difference, ``without noise`` is what is
left of it when the truth's variance, known from its batches, is taken away.

The image has 256 x 256 pixels and no polarisation. benchmarks/results/accuracy.json keeps the results, each case as
it is measured. ``--quick``: 1,000 samples, no case with divergence and bandwidth, nothing kept.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accuracy_cases import Case, cases, tensor
from machine import machine
from rich.console import Console
from rich.table import Table
from torch import Tensor

from sim_core import Experiment, Scan
from sim_core.bragg.closed_form import GAUSSIAN, SQUARE, ClosedFormBragg, neighbours_needed, parts_needed
from sim_core.bragg.sampled import SampledBragg
from sim_core.mosaic import SIGMA_PER_SPREAD, DomainSample, normal_domains, quadrature_domains

BATCHES = 20
PHI_STEPS = 5
OVERSAMPLE = 2


@dataclass(frozen=True)
class Truth:
    """Mean image, its squared noise (the sum over pixels of the variance of the mean) and the error of its sum."""

    image: Tensor
    noise: float
    sum_error: float
    samples: int
    seconds: float

    @property
    def norm(self) -> float:
        """Sum of squares over pixels, without the noise."""
        return float(self.image.square().sum()) - self.noise


def one_sample(case: Case, generator: torch.Generator) -> Tensor:
    """The image of one block, spindle position, plane wave and place in the pixel, drawn at random together."""
    e = case.experiment
    normal = torch.randn(6, dtype=torch.float64, generator=generator)
    place = torch.rand(3, dtype=torch.float64, generator=generator) - 0.5
    vector = SIGMA_PER_SPREAD * normal[:3]
    domain = DomainSample((vector / vector.norm())[None], vector.norm()[None], tensor([1.0]))
    beam, scan = e.beam, e.scan
    if beam.divergence is not None:
        tilt = tensor([0.0, normal[3], normal[4]]) * beam.divergence
        direction = beam.direction + tilt
        beam = replace(beam, direction=direction / direction.norm(), divergence=None)
    if beam.bandwidth is not None:
        beam = replace(beam, wavelength=beam.wavelength * (1 + beam.bandwidth * normal[5]), bandwidth=None)
    if scan.width is not None:
        scan = replace(scan, phi=scan.phi + place[2] * scan.width, width=None)
    p = e.panel
    origin = p.origin + p.pixel_size * (place[0] * p.fast_axis + place[1] * p.slow_axis)
    moved = replace(e, beam=beam, scan=scan, panel=replace(p, origin=origin))
    return SampledBragg(domain, case.shape)(moved)


def random_truth(case: Case, samples: int, seed: int = 1) -> Truth:
    generator = torch.Generator().manual_seed(seed)
    start = time.perf_counter()
    size = samples // BATCHES
    batches = []
    for _ in range(BATCHES):
        total = torch.zeros(256 * 256, dtype=torch.float64)
        for _ in range(size):
            total += one_sample(case, generator)
        batches.append(total / size)
    stack = torch.stack(batches)
    sums = stack.sum(-1)
    return Truth(
        stack.mean(0),
        float(stack.var(0).sum() / BATCHES),
        float(sums.std() / math.sqrt(BATCHES) / sums.mean()),
        size * BATCHES,
        time.perf_counter() - start,
    )


def sampled_experiment(e: Experiment) -> Experiment:
    """The same with steps of the spindle and, where the beam is spread, six plane waves that have its variances."""
    beam, scan = e.beam, e.scan
    if beam.divergence is not None and beam.bandwidth is not None:
        root = math.sqrt(3)
        tilts = torch.zeros(6, 3, dtype=torch.float64)
        tilts[0, 1], tilts[1, 1], tilts[2, 2], tilts[3, 2] = root, -root, root, -root
        directions = beam.direction + tilts * beam.divergence
        stretch = 1 + tensor([0, 0, 0, 0, root, -root]) * beam.bandwidth
        beam = replace(
            beam,
            direction=directions / directions.norm(dim=-1, keepdim=True),
            wavelength=beam.wavelength * stretch,
            weight=torch.full((6,), 1 / 6, dtype=torch.float64),
            divergence=None,
            bandwidth=None,
        )
    if scan.width is not None:
        middles = (torch.arange(PHI_STEPS, dtype=torch.float64) + 0.5) / PHI_STEPS - 0.5
        weight = torch.full((PHI_STEPS,), 1 / PHI_STEPS, dtype=torch.float64)
        scan = Scan(scan.axis, scan.phi + middles * scan.width, weight)
    return replace(e, beam=beam, scan=scan)


def timed(work: Callable[[], Tensor], repeats: int) -> tuple[Tensor, float]:
    """Result and median seconds; the first of several runs is not counted."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        image = work()
        times.append(time.perf_counter() - start)
    return image, statistics.median(times[1:] or times)


def compare(case: Case, truth: Truth) -> list[dict]:
    """A row for each simulator: error, error without the truth's noise, ratio of sums, seconds."""
    rows = []

    def row(name: str, work: Callable[[], Tensor], repeats: int) -> None:
        image, seconds = timed(work, repeats)
        square = float((image.double() - truth.image).square().sum())
        values = {
            "error": math.sqrt(square / truth.norm),
            "error_without_noise": math.sqrt(max(0.0, square - truth.noise) / truth.norm),
            "sum": float(image.double().sum() / truth.image.sum()),
            "seconds": seconds,
        }
        rows.append({"simulator": name} | values)

    e = case.experiment
    kinds = {"closed form, 1 Gaussian": GAUSSIAN}
    if case.truth == "square":
        kinds["closed form, 2 Gaussians an edge"] = SQUARE
    for kind, blocks in kinds.items():
        neighbours, parts = neighbours_needed(e, blocks), parts_needed(e, blocks)
        reach = "x".join(map(str, neighbours))
        for dtype, n in ((torch.float64, parts), (torch.float32, parts), (torch.float64, 3 - parts)):
            simulator = ClosedFormBragg(blocks, neighbours, dtype=dtype, oversample=n)
            name = f"{kind}{', default' * (n == parts)} ({reach} reflections, {n}x{n} parts, {str(dtype)[6:]})"
            row(name, lambda s=simulator: s(e), 4)
    split = sampled_experiment(e)
    rules = {f"{n} random blocks": normal_domains(n, 7) for n in (25, 100, 400)}
    rules |= {f"quadrature, {n} blocks": quadrature_domains(n, "normal") for n in (25, 187)}
    for name, domains in rules.items():
        row(name, lambda d=domains: SampledBragg(d, case.shape, oversample=OVERSAMPLE)(split), 1)
    return rows


def report(console: Console, case: Case, truth: Truth, rows: list[dict]) -> None:
    noise = math.sqrt(truth.noise / truth.norm)
    title = f"{case.name}; blocks: {case.truth}"
    caption = (
        f"truth: {truth.samples} samples, {truth.seconds:.0f} s, its own noise {100 * noise:.2f} %, "
        f"of its sum {100 * truth.sum_error:.2f} %"
    )
    table = Table("simulator", title=title, caption=caption, box=None, title_justify="left", caption_justify="left")
    for column in ("error / %", "without noise / %", "sum", "ms"):
        table.add_column(column, justify="right")
    for r in rows:
        error, bare = 100 * r["error"], 100 * r["error_without_noise"]
        table.add_row(r["simulator"], f"{error:.2f}", f"{bare:.2f}", f"{r['sum']:.4f}", f"{1000 * r['seconds']:.0f}")
    console.print(table, "")


def save(case: Case, truth: Truth, rows: list[dict]) -> None:
    """Put a case into the file of results, in the place of what stands there for it."""
    target = Path(__file__).parent / "results" / "accuracy.json"
    target.parent.mkdir(exist_ok=True)
    found = json.loads(target.read_text()) if target.exists() else {}
    found[f"{case.name}; blocks: {case.truth}"] = {
        "machine": machine(),
        "threads": torch.get_num_threads(),
        "samples": truth.samples,
        "noise_of_truth": math.sqrt(truth.noise / truth.norm),
        "noise_of_its_sum": truth.sum_error,
        "truth_seconds": truth.seconds,
        "simulators": rows,
    }
    order = [f"{c.name}; blocks: {c.truth}" for c in cases(False)]
    target.write_text(json.dumps({name: found[name] for name in order if name in found}, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, help="random samples of the truth (20000), a quarter for some")
    parser.add_argument("--quick", action="store_true", help="1000 samples, no divergence and bandwidth")
    parser.add_argument("--threads", type=int, help="of torch")
    parser.add_argument("--only", default="", help="only the cases whose shape and name hold this text")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    samples = options.samples or (1000 if options.quick else 20000)
    console = Console(width=110)
    with torch.inference_mode():
        for case in cases(options.quick):
            if options.only not in f"{case.truth} {case.name}":
                continue
            truth = random_truth(case, max(int(case.share * samples), 2 * BATCHES))
            rows = compare(case, truth)
            report(console, case, truth, rows)
            if not options.quick:
                save(case, truth, rows)


if __name__ == "__main__":
    main()
