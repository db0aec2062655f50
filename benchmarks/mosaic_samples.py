"""Error of the samples of mosaic blocks against many random ones: ``python benchmarks/mosaic_samples.py``."""

import json
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from refine.build import build
from refine.compose import load
from sim_core import Experiment
from sim_core.bragg.sampled import SampledBragg
from sim_core.mosaic import quadrature_domains, random_domains


def experiments() -> dict[str, Experiment]:
    found = {}
    for name in ("mosaic_misset", "lysozyme_still"):
        refinement = build(load(f"experiment={name}"))
        values = {n: v.detach() for n, v in refinement.refined().items()}
        values |= {
            k: torch.tensor(v).double() for k, v in (("misset_deg", [1.2, -0.7, 2.1]), ("mosaic_spread_deg", 0.5))
        }
        found[name] = refinement.frames[0].model.experiment(values)
    return found


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
    record = {}
    for name, experiment in experiments().items():
        record[name] = accuracy(experiment)
        table = Table("mosaic sample", "relative error of the image", title=name, box=None)
        for rule, error in record[name].items():
            table.add_row(rule, f"{error:.4f}")
        console.print(table)
    target = Path(__file__).parent / "results" / "mosaic_samples.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
