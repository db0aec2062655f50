"""Time and memory of the simulators' kernels on this machine: ``make bench``.

Prints wall nanoseconds for each evaluation (pixel x spindle position x block), medians, and how the cost grows with
pixels, blocks and threads. Every row comes from a process of its own, which also gives its peak memory. With
``NANOBRAGG_C`` set to a binary of the reference program that is timed beside them. Ends with the tables of
``between.py`` (amplitudes between reflections) and ``closed_form.py``. ``--quick`` takes small images.
"""

import argparse
import json
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import refine  # noqa: F401  (how threads wait, before torch is imported)

WORKLOADS = {"W1": (1024, 1, 1), "W2": (1024, 25, 1), "W3": (512, 50, 10)}
"""Pixels along an edge, mosaic blocks, spindle positions."""

COLUMNS = [(d, g) for d in ("float32", "float64") for g in ("forward", "gradient")]
EDGE = 46
"""Reflections up to this index are in the table, which covers the detector."""


def experiment(pixels: int, steps: int) -> Any:
    """Cell 100 A, N = 5, 1 A, 0.1 mm pixels at 100 mm, misset 5 3 -2 deg, mosaic 0.5 deg, amplitudes from a table."""
    import torch

    from sim_core import Beam, Crystal, Experiment, Panel, Scan, StructureFactors

    def t(values: object) -> torch.Tensor:
        return torch.as_tensor(values, dtype=torch.float64)

    half = pixels * 1e-4 / 2
    cell = torch.cat([t([100.0] * 3), torch.deg2rad(t([90.0] * 3))])
    misset, spread = torch.deg2rad(t([5.0, 3.0, -2.0])), torch.deg2rad(t(0.5))
    phi = torch.deg2rad(torch.arange(steps, dtype=torch.float64) / 10)
    return Experiment(
        Beam(t([[1.0, 0, 0]]), t([1.0]), t([1.0]), t(1e28), t(0.0), t([0.0, 0, 1])),
        Panel(t([0.1, half, -half]), t([0.0, 0, 1]), t([0.0, -1, 0]), t([1.0, 0, 0]), t(1e-4), (pixels, pixels)),
        Crystal(cell, torch.eye(3, dtype=torch.float64), misset, t([5.0] * 3), spread),
        Scan(t([0.0, 0, 1]), phi, torch.full_like(phi, 1 / steps)),
        StructureFactors(amplitudes(), torch.tensor([-EDGE] * 3), t(7.0)),
    )


def amplitudes() -> Any:
    import torch

    generator = torch.Generator().manual_seed(0)
    return 50 + 100 * torch.rand(*[2 * EDGE + 1] * 3, generator=generator, dtype=torch.float64)


def measure(task: dict[str, Any]) -> dict[str, Any]:
    """Nanoseconds an evaluation of each column, and the peak memory of this process."""
    import resource

    import torch

    from sim_core.bragg.sampled import SampledBragg
    from sim_core.interference import Square
    from sim_core.mosaic import random_domains

    if task["kernel"] == "torch.compile":
        Square.profile = torch.compile(Square.profile)  # type: ignore[method-assign]
        Square.slopes = torch.compile(Square.slopes)  # type: ignore[method-assign]
    kernel = "compiled" if task["kernel"] == "compiled" else "eager"
    found = {}
    for pixels, blocks, steps, threads in task["sizes"]:
        torch.set_num_threads(threads)
        scene = experiment(pixels, steps)
        for dtype, work in task["columns"]:
            simulator = SampledBragg(random_domains(blocks, 1), dtype=getattr(torch, dtype), kernel=kernel)
            seconds = [once(simulator, scene, work) for _ in range(task["repeats"] + 1)][1:]
            name = f"{pixels} {blocks} {steps} {threads} {dtype} {work}"
            found[name] = statistics.median(seconds) / (pixels**2 * blocks * steps) * 1e9
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform != "darwin" else 1 << 20)
    return {"ns": found, "peak_MiB": peak}


def once(simulator: Any, scene: Any, work: str) -> float:
    """Seconds of one image, with its gradient in misset and mosaic spread if that is asked for."""
    import torch

    start = time.perf_counter()
    if work == "forward":
        with torch.no_grad():
            simulator(scene)
    else:
        misset, spread = (v.clone().requires_grad_() for v in (scene.crystal.misset, scene.crystal.mosaic_spread))
        crystal = replace(scene.crystal, misset=misset, mosaic_spread=spread)
        simulator(replace(scene, crystal=crystal)).sum().backward()
    return time.perf_counter() - start


def run(task: dict[str, Any]) -> dict[str, Any]:
    """The same in a process of its own; ``error`` where that fails."""
    command = [sys.executable, __file__, "--one", json.dumps(task)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": _path()})
    if done.returncode:
        return task | {"error": (done.stderr.strip().splitlines() or ["?"])[-1][:200]}
    return task | json.loads(done.stdout.splitlines()[-1])


def _path() -> str:
    return os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])


def reference_program(program: str, pixels: int, blocks: int, steps: int) -> dict[str, Any]:
    """Time of the reference program less that for a few pixels, the better of two; ``error`` where it does not run."""
    with tempfile.TemporaryDirectory() as folder:
        table = amplitudes()
        with (Path(folder) / "table.hkl").open("w") as file:
            for h, k, l in _cube():
                file.write(f"{h} {k} {l} {float(table[h + EDGE, k + EDGE, l + EDGE]):.4f}\n")
        times: dict[int, float] = {}
        for edge in (pixels, 8) * 2:
            flags = (
                f"-cell 100 100 100 90 90 90 -N 5 -lambda 1 -distance 100 -pixel 0.1 -detpixels {edge} -oversample 1"
            )
            flags += f" -misset 5 3 -2 -mosaic_spread 0.5 -mosaic_domains {blocks} -hkl table.hkl -default_F 7"
            flags += f" -nointerpolate -nonoise -nopgm -noprogress -phi 0 -osc {steps / 10} -phisteps {steps}"
            start = time.perf_counter()
            try:
                done = subprocess.run([program, *flags.split()], cwd=folder, capture_output=True, text=True)
            except OSError as error:
                return {"error": f"NANOBRAGG_C={program}: {error.strerror}"}
            if done.returncode:
                said = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1][:200]
                return {"error": f"NANOBRAGG_C={program}: exit status {done.returncode}: {said}"}
            times[edge] = min(time.perf_counter() - start, times.get(edge, math.inf))
    return {"ns": [(times[pixels] - times[8]) / (pixels**2 * blocks * steps) * 1e9]}


def _cube() -> Iterator[tuple[int, int, int]]:
    span = range(-EDGE, EDGE + 1)
    return ((h, k, l) for h in span for k in span for l in span)


def table(console: Any, workloads: dict[str, tuple[int, int, int]], repeats: int, threads: int) -> list[dict[str, Any]]:
    """The kernels side by side."""
    from rich.table import Table

    results = []
    program = os.environ.get("NANOBRAGG_C")
    for name, (pixels, blocks, steps) in workloads.items():
        shown = Table(name, *(f"{d} {g}" for d, g in COLUMNS), "peak MiB", box=None)
        base: list[float] = []
        for kernel in ("eager", "torch.compile", "compiled"):
            sizes = [(pixels, blocks, steps, threads)]
            task = {"workload": name, "kernel": kernel, "sizes": sizes, "columns": COLUMNS, "repeats": repeats}
            results.append(run(task))
            if "error" in results[-1]:
                console.print(f"{kernel}: {results[-1]['error']}")
                continue
            ns = list(results[-1]["ns"].values())
            base = base or ns
            cells = [f"{x:.2f} (x {b / x:.1f})" for x, b in zip(ns, base, strict=True)]
            shown.add_row(kernel, *cells, str(results[-1]["peak_MiB"]))
        if program:
            kernel = "reference program"
            results.append({"workload": name, "kernel": kernel} | reference_program(program, pixels, blocks, steps))
            if "error" in results[-1]:
                console.print(results[-1]["error"], markup=False)
            else:
                shown.add_row(kernel, "-", "-", f"{results[-1]['ns'][0]:.2f}", "-", "-")
        console.print(shown)
    return results


def scaling(console: Any, quick: bool) -> list[dict[str, Any]]:
    """Cost of the compiled kernel against pixels, blocks and threads, float32 with gradient."""
    from rich.table import Table

    edges, counts = ((256, 512, 1024), (1, 10, 100)) if quick else ((256, 512, 1024, 2048, 4096), (1, 10, 100, 1000))
    pairs = [(edge, 10) for edge in edges] + [(256, count) for count in counts if count != 10]
    sizes = [(edge, blocks, 1, threads) for edge, blocks in pairs for threads in (1, 2)]
    task = {"workload": "scaling", "kernel": "compiled", "sizes": sizes, "columns": [("float32", "gradient")]}
    result = run(task | {"repeats": 3 if quick else 5})
    shown = Table("pixels", "blocks", "threads", "ms", "ns an evaluation", box=None)
    for (edge, blocks, _, threads), ns in zip(sizes, result["ns"].values(), strict=True):
        shown.add_row(f"{edge} x {edge}", str(blocks), str(threads), f"{ns * edge**2 * blocks / 1e6:.1f}", f"{ns:.2f}")
    console.print(shown)
    return [result]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small images, three repetitions")
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    choice = parser.parse_args()
    if choice.one:
        print(json.dumps(measure(choice.one)))
        return
    from machine import machine
    from rich.console import Console

    console = Console(width=150)
    threads = min(2, os.cpu_count() or 1)
    console.print(f"{machine()}; {threads} threads; wall ns an evaluation, medians; load {os.getloadavg()[0]:.1f}")
    workloads = {n: (p // 4, b, s) for n, (p, b, s) in WORKLOADS.items()} if choice.quick else WORKLOADS
    results = table(console, workloads, 3 if choice.quick else 5, threads)
    results += scaling(console, choice.quick)
    name = re.sub(r"[^a-z0-9]+", "-", machine().lower()).strip("-") + ("-quick" if choice.quick else "")
    target = Path(__file__).parent / "results" / f"{name}.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps({"machine": machine(), "results": results}, indent=1) + "\n")
    for other in ("between.py", "closed_form.py"):
        command = [sys.executable, str(Path(__file__).with_name(other)), *["--quick"] * choice.quick]
        subprocess.run(command, env=os.environ | {"PYTHONPATH": _path()}, check=True)


if __name__ == "__main__":
    main()
