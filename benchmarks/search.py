"""Finding an orientation from nothing: ``python benchmarks/search.py [--only SUBSTRING]``.

Images of known random orientation are searched with ``initial.misset_deg=search``; found is within 0.5 deg of the truth
or of an equivalent of it. The small detector of mosaic_misset (truth of 2000 random blocks, Poisson noise, once with
the fluence of ``noise_1e29.img`` and once with 100 photons in the brightest pixel), cubic and triclinic; the
lysozyme-like still, simulated in other orientations and its two images; and noise alone, where nothing is to be found.
Seconds are those of the search, image and program at hand. benchmarks/results/search.json keeps the rows.
"""

import argparse
import json
import math
import statistics
from collections.abc import Iterator
from pathlib import Path

import torch
from capture_radius import LYSOZYME, SEED, small
from machine import machine
from rich.console import Console
from rich.table import Table

from refine.build import build
from refine.compose import load
from refine.stages.orientation import NothingFoundError, misset_rotation
from sim_core.search.orientations import distance, matrix_quaternion

TABLE = Path(__file__).parent / "results" / "search.json"
GOAL = 0.5
TRICLINIC = "crystal.cell=[70,80,95,75,85,98]"
SIMULATED = (
    *LYSOZYME,
    "data.image=null",
    "data.noise=poisson",
    "data.adc_offset=0",
    "truth.background=12",
    "truth.mosaic_domains=100",
)
IDENTITY = torch.tensor([[1.0, 0, 0, 0]]).double()
Image = list[str]


def random_missets(seed: int, count: int) -> list[Image]:
    """Overrides that turn the crystal at random."""
    angles = 360 * torch.rand(count, 3, generator=torch.Generator().manual_seed(seed)).double() - 180
    angles[:, 1] = torch.rad2deg(torch.asin(angles[:, 1] / 180))
    return [[f"truth.misset_deg={[round(a, 2) for a in row]}", f"seed={seed}"] for row in angles.tolist()]


def cases() -> Iterator[tuple[str, list[Image]]]:
    """Names and images, as overrides of the configuration."""
    for n in (5, 10, 20):
        seed = [SEED, f"crystal.n_cells={n}", "truth.mosaic_domains=2000", "data.noise=poisson", "beam.fluence=1e29"]
        yield f"64 x 64, N = {n}", [[*seed, *m] for m in random_missets(n, 12)]
    for n in (5, 10, 20):
        missets = random_missets(n + 1, 12)
        yield f"64 x 64, N = {n}, 100 photons", [small(n, *m) for m in missets]
    for n in (5, 10):
        seed = [SEED, TRICLINIC, f"crystal.n_cells={n}", "truth.mosaic_domains=2000", "data.noise=poisson"]
        yield f"64 x 64, N = {n}, triclinic", [[*seed, "beam.fluence=1e29", *m] for m in random_missets(n + 2, 6)]
    stills = [[*LYSOZYME, f"data.image=data/lysozyme/noise_{n}.img"] for n in ("hi", "lo")]
    yield "lysozyme_still, its images", stills
    yield "lysozyme_still, turned", [[*SIMULATED, *m] for m in random_missets(1, 8)]
    nothing = [SEED, "data.noise=poisson", "truth.scale=1e-12"]
    yield "noise alone", [[*nothing, f"truth.background={b}"] for b in (0.01, 0.3, 3, 100)]


def error_deg(image: Image) -> tuple[float, float]:
    """Angle to the truth, infinite where nothing was found, and the seconds of the search."""
    settings = load(*image, "initial.misset_deg=search")
    try:
        (frame,) = build(settings).frames
    except NothingFoundError as nothing:
        return math.inf, nothing.search["wall_s"]
    found, truth = tuple(frame.initial["misset_deg"].tolist()), settings.truth.misset_deg
    one, other = (matrix_quaternion(misset_rotation(m)) for m in (found, truth))
    return math.degrees(distance(one[None], other, IDENTITY)[0]), frame.entries["search"]["wall_s"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    TABLE.parent.mkdir(exist_ok=True)
    rows = json.loads(TABLE.read_text())["rows"] if TABLE.exists() else {}
    for name, images in cases():
        if options.only not in name:
            continue
        errors, seconds = zip(*(error_deg(image) for image in images), strict=True)
        rows[name] = {
            "found": sum(e <= GOAL for e in errors),
            "images": len(images),
            "errors_deg": [round(e, 3) if math.isfinite(e) else None for e in errors],
            "median_s": round(statistics.median(seconds), 2),
            "slowest_s": round(max(seconds), 2),
        }
        TABLE.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=2) + "\n")
    table = Table("images", "found", "median error", "seconds", "slowest", box=None)
    for name, r in rows.items():
        known = [e for e in r["errors_deg"] if e is not None]
        error = f"{statistics.median(known):.3f} deg" if known else ""
        table.add_row(name, f"{r['found']}/{r['images']}", error, f"{r['median_s']:.1f}", f"{r['slowest_s']:.1f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
