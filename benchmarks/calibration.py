"""Are the uncertainties right? ``python benchmarks/calibration.py [--replicates 200] [--domains 2000 [--set 1]]``.

A lysozyme-like still is simulated once by the closed form (``--domains``: by so many random blocks, from whose mean
orientation deviations are counted) and given Poisson noise again and again; each replicate is refined from a disturbed
start. Printed for each free scalar: the standard deviation of (refined - truth)/esd, one where esds are honest,
its mean, and the rms error over the Cramer-Rao bound. benchmarks/results/calibration.json keeps the table.
"""

import argparse
import json
import time
from pathlib import Path

import torch
from machine import machine
from rich.console import Console
from rich.table import Table
from torch import Tensor

from refine.build import build
from refine.compose import load
from refine.fit.optimizers import LevenbergMarquardt
from refine.fit.refinement import Refinement
from refine.report.results import standard_uncertainties
from sim_core.bragg.sampled import SampledBragg
from sim_core.interference import Gaussian
from sim_core.mosaic import DomainSample, domain_rotations, normal_domains
from sim_core.rotations import mean_rotation, xyz_angles, xyz_rotation

RESULTS = Path(__file__).parent / "results"
STEPS = 40
SUBPIXELS, FAINTEST = 16, 1e-3
"""Of images made of blocks: along each edge; photons of the spots below which a pixel stays as it is."""

OVERRIDES = (
    "experiment=lysozyme_still",
    "loss=poisson",
    "simulator=closed_form",
    "crystal.shape=gaussian",
    "crystal.misorientation=normal",
    "data.image=null",
    "data.adc_offset=0",
    "detector.pixels=[256,256]",
    "detector.distance_mm=90",
    "truth.mosaic_spread_deg=0.35",
    "truth.misset_deg=[1.2,-0.7,2.1]",
    "truth.background=12",
    "truth.simulator=closed_form",
    "initial.misset_deg=[1.25,-0.75,2.05]",
    "initial.mosaic_spread_deg=0.4",
    "initial.cell=[79.15,79.15,38.38,90,90,90]",
    "initial.n_cells=[17,17,17]",
    "initial.background=10",
    "parameters.cell.free=true",
    "parameters.n_cells.free=true",
)


def replicate(module: Refinement, mean: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Refined values and esds of one noisy image."""
    module.seen[0].photons.copy_(torch.poisson(mean, generator=generator))
    with torch.no_grad():
        for raw in module.refined.raw.values():
            raw.zero_()
    optimizer = LevenbergMarquardt([module.refined.raw[n] for n in module.refined.free])
    for _ in range(STEPS):
        before = module.refined.vector()
        module.prepare()
        optimizer.step(problem=module)
        if float((module.refined.vector() - before).abs().max()) < 1e-6:
            break
    esds = standard_uncertainties(module).esds
    values = module.refined()
    flat = torch.cat([values[n].detach().reshape(-1) for n in module.refined.free])
    return flat, torch.tensor([esds.get(label, float("nan")) for label in _all_labels(module)], dtype=torch.float64)


def _all_labels(module: Refinement) -> list[str]:
    return [label for name in module.refined.free for label in module.refined.specs[name].labels]


def prepare() -> tuple[Refinement, Tensor]:
    """The refinement and the noise-free image of the truth, in closed form."""
    module = build(load(*OVERRIDES))
    return module, module.observed.clone()


@torch.no_grad()
def grainy(module: Refinement, mean: Tensor, blocks: DomainSample) -> tuple[Tensor, dict[str, float]]:
    """The image of blocks instead, and the truth with their mean orientation, which is what is refined.

    Sub-pixels must be small: those as wide as the spots make them look narrower by a twelfth of the squared width.
    """
    specs, model = module.refined.specs, module.frames[0].model
    values = {
        name: torch.tensor([module.truth[label] for label in specs[name].labels], dtype=start.dtype).view_as(start)
        for name, start in module.refined().items()
    }
    experiment, smooth = model.experiment(values), model.summed(values, model.sites)["scale"][:, 0]
    lit = smooth > FAINTEST
    spots = SampledBragg(blocks, Gaussian(), SUBPIXELS)(experiment, model.sites.index[lit])
    mean = mean.index_put((lit,), mean[lit] - smooth[lit] + spots)
    turn = mean_rotation(domain_rotations(blocks, experiment.crystal.mosaic_spread), blocks.weights)
    angles = torch.rad2deg(xyz_angles(turn @ xyz_rotation(experiment.crystal.misset))).tolist()
    return mean, module.truth | {f"misset_deg_{axis}": angle for axis, angle in zip("xyz", angles, strict=True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicates", type=int, default=200)
    parser.add_argument("--domains", type=int, default=0)
    parser.add_argument("--set", type=int, default=31415, help="seed of the random blocks")
    parser.add_argument("--quick", action="store_true", help="20 replicates, nothing kept")
    args = parser.parse_args()
    count = 20 if args.quick else args.replicates
    start = time.perf_counter()
    module, mean = prepare()
    expected = module.truth
    if args.domains:
        mean, expected = grainy(module, mean, normal_domains(args.domains, args.set))
    generator = torch.Generator().manual_seed(20251119)
    pairs = [replicate(module, mean, generator) for _ in range(count)]
    values, esds = (torch.stack(part) for part in zip(*pairs, strict=True))
    names = _all_labels(module)
    truth = torch.tensor([expected[name] for name in names], dtype=torch.float64)
    pulls = (values - truth) / esds
    rows = []
    for i, name in enumerate(names):
        if bool(torch.isfinite(esds[:, i]).all()):
            rms = float((values[:, i] - truth[i]).square().mean().sqrt() / esds[:, i].median())
            rows.append((name, float(pulls[:, i].std()), float(pulls[:, i].mean()), rms, float(esds[:, i].median())))
    table = Table("parameter", "std of pulls", "mean of pulls", "rms error / bound", "esd", box=None, pad_edge=False)
    for name, std, shift, rms, esd in rows:
        table.add_row(name, f"{std:.3f}", f"{shift:+.3f}", f"{rms:.3f}", f"{esd:.2g}")
    console = Console()
    console.print(table)
    source = f"{args.domains} random blocks" if args.domains else "the closed form"
    console.print(f"{count} replicates, truth from {source}, {time.perf_counter() - start:.0f} s, {machine()}")
    if not args.quick:
        RESULTS.mkdir(exist_ok=True)
        kept = {"machine": machine(), "replicates": count, "truth": source}
        keys = ("parameter", "std", "mean", "rms_over_bound", "esd")
        kept["rows"] = [dict(zip(keys, row, strict=True)) for row in rows]
        name = f"calibration_{args.domains}_domains.json" if args.domains else "calibration.json"
        (RESULTS / name).write_text(json.dumps(kept, indent=2) + "\n")


if __name__ == "__main__":
    main()
