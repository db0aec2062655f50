"""From how far a refinement finds home: ``python benchmarks/capture_radius.py [--starts 8] [--only SUBSTRING]``.

The 64 x 64 detector of mosaic_misset (Poisson noise, 100 photons in the brightest pixel, truth of 2000 random blocks)
and the lysozyme-like still: one image for each case, with the seed of the configuration, and starts at a given angle
from the truth about random axes. A start counts where the refined orientation is within 0.1 deg of the truth about
each axis. Beside it: how many came to the minimum that a refinement from the truth comes to. No orientation search over
all rotations. With ``--own-noise`` each start has an image with noise of its own: few photons alone may then move that
minimum by more than 0.1 deg. benchmarks/results/capture_radius.json keeps the rows, those of other cases included.
"""

import argparse
import json
import math
import statistics
import tempfile
import time
from pathlib import Path

import torch
from machine import machine
from rich.console import Console
from rich.table import Table
from torch import Tensor

from refine.build import build
from refine.compose import load
from refine.run import refine
from sim_core.rotations import axis_rotation, xyz_angles, xyz_rotation

TABLE = Path(__file__).parent / "results" / "capture_radius.json"
GOAL = 0.1
SEED = "experiment=mosaic_misset"
LYSOZYME = ("experiment=lysozyme_still", "simulator=closed_form")
CASES = (
    ("64 x 64, N = 5", 5, "coarse_to_fine", (5.0, 10.0)),
    ("64 x 64, N = 10", 10, "coarse_to_fine", (5.0, 10.0)),
    ("64 x 64, N = 20", 20, "coarse_to_fine", (3.0, 5.0)),
    ("64 x 64, N = 50 (report only)", 50, "coarse_to_fine", (3.0,)),
    ("lysozyme_still, closed form", None, "none", (3.0,)),
    ("lysozyme_still, closed form", None, "coarse_to_fine", (5.0,)),
)


def small(n_cells: int, *more: str) -> list[str]:
    """The seed detector with 100 photons in the brightest pixel."""
    base = [SEED, f"crystal.n_cells={n_cells}", "truth.mosaic_domains=2000", *more]
    photons = build(load(*base, "beam.fluence=1e28")).frames[0].picture.photons
    return [*base, f"beam.fluence={1e28 * 100 / photons.max():.8g}", "data.noise=poisson"]


def starts(truth: Tensor, angle: float, count: int) -> list[list[float]]:
    axes = torch.randn(count, 3, generator=torch.Generator().manual_seed(round(10 * angle))).double()
    turns = axis_rotation(axes, torch.full((count,), math.radians(angle)).double())
    return [torch.rad2deg(xyz_angles(turn @ xyz_rotation(truth))).tolist() for turn in turns]


def refined(overrides: list[str], *more: str) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        return refine(load(*overrides, *more, "logger=none"), Path(folder))


def orientation(results: dict) -> Tensor:
    found = [results["parameters"][f"misset_deg_{a}"]["refined"] for a in "xyz"]
    return xyz_rotation(torch.deg2rad(torch.tensor(found).double()))


def away(one: Tensor, other: Tensor) -> float:
    """Largest component [deg] of the small rotation between two orientations; their angle where it is not small."""
    relative = one @ other.T
    skew = [relative[2, 1] - relative[1, 2], relative[0, 2] - relative[2, 0], relative[1, 0] - relative[0, 1]]
    angle = math.degrees(math.acos(max(-1.0, min(1.0, (float(relative.trace()) - 1) / 2))))
    return angle if angle > 5 else max(math.degrees(abs(float(x)) / 2) for x in skew)


def run(overrides: list[str], schedule: str, angle: float, count: int, own_noise: bool) -> dict:
    truth_deg = load(*overrides).truth.misset_deg
    truth = torch.deg2rad(torch.tensor(truth_deg).double())
    from_truth = f"initial.misset_deg={list(truth_deg)}"
    errors, homes, steps, seconds = [], [], [], []
    home = None if own_noise else refined(overrides, from_truth)
    for seed, start in enumerate(starts(truth, angle, count)):
        image = [*overrides, f"seed={seed}"] if own_noise else overrides
        there = orientation(home or refined(image, from_truth))
        begin = time.perf_counter()
        results = refined(image, f"schedule={schedule}", f"initial.misset_deg={start}")
        seconds.append(time.perf_counter() - begin)
        errors.append(away(orientation(results), xyz_rotation(truth)))
        homes.append(away(orientation(results), there))
        steps.append(results["steps"])
    return {
        "found": sum(e <= GOAL for e in errors),
        "same_minimum": sum(e <= GOAL / 5 for e in homes),
        "starts": count,
        "median_error_deg": statistics.median(errors),
        "errors_deg": [round(e, 3) for e in errors],
        "median_steps": statistics.median(steps),
        "median_s": statistics.median(seconds),
    }


def kept() -> dict[str, dict]:
    """Rows of earlier runs."""
    return json.loads(TABLE.read_text())["rows"] if TABLE.exists() else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=8)
    parser.add_argument("--only", default="")
    parser.add_argument("--own-noise", action="store_true")
    options = parser.parse_args()
    TABLE.parent.mkdir(exist_ok=True)
    for name, n_cells, schedule, angles in CASES:
        if options.only not in name or (options.own_noise and n_cells is None):
            continue
        overrides = list(LYSOZYME) if n_cells is None else small(n_cells)
        for angle in angles:
            image = f"{name}, own noise" if options.own_noise else name
            row = {"case": image, "schedule": schedule, "angle_deg": angle}
            row |= run(overrides, schedule, angle, options.starts, options.own_noise)
            rows = kept() | {f"{image}, {schedule}, {angle:g} deg": row}
            TABLE.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=2) + "\n")
    columns = ("image", "schedule", "start off by", "found", "same minimum", "median error", "steps", "seconds")
    table = Table(*columns, box=None)
    for r in kept().values():
        counts = (f"{r['found']}/{r['starts']}", f"{r['same_minimum']}/{r['starts']}")
        cells = (f"{r['angle_deg']:g} deg", *counts, f"{r['median_error_deg']:.3f} deg")
        table.add_row(r["case"], r["schedule"], *cells, f"{r['median_steps']:g}", f"{r['median_s']:.1f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
