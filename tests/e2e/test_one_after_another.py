"""Refinements of all kinds in one process: each as if it were alone."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support import REPOSITORY

from refine.build import build
from refine.compose import load
from refine.run import refine

SHORT = ["logger=none", "trainer.max_steps=3", "trainer.accelerator=cpu"]
STILL = ["experiment=mosaic_misset", "detector.pixels=[40,32]", "truth.mosaic_domains=25", "data.noise=poisson"]
KINDS = {
    "two images": [*STILL, "scan.phi_start_deg=[0,30]", "parameters.scale.free=true"],
    "springs": ["experiment=gamma", *(f"diffuse.sampling.{axis}=[-1,1,2]" for axis in "hkl"), "diffuse.d_min_A=0"],
    "radial background": [
        *STILL,
        "truth.background=5",
        "simulator.background=radial",
        "initial.background=estimate",
        "parameters.background.free=true",
    ],
    "spots and diffuse scattering": [
        "experiment=joint",
        "detector.oversample=1",
        "crystal.mosaic_domains=7",
        "simulator.d_min_A=7",
        "structure_factors.at=reflection",
    ],
    "coordinates": ["experiment=gamma_xyz", "diffuse.points=300"],
    "own mosaic spreads": [
        *STILL,
        "scan.phi_start_deg=[0,20,40]",
        "initial.mosaic_spread_deg=[0.3,0.3,0.3]",
        "parameters.mosaic_spread_deg.per_image=true",
    ],
}
ALONE = """
import json, sys
import refine, torch
from refine.compose import load
from refine.run import refine
torch.set_num_threads(int(sys.argv[1]))
refine(load(*sys.argv[3:]), sys.argv[2])
"""


def told(folder: Path) -> dict[str, Any]:
    """What results.json says, but for times."""
    found = json.loads((folder / "results.json").read_text())
    return {name: value for name, value in found.items() if name not in ("wall_s", "search")}


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Any]]]:
    """All are built, then refined in one order and in the other."""
    torch.set_num_threads(min(2, os.cpu_count() or 1))
    for overrides in KINDS.values():
        build(load(*overrides, *SHORT))
    rounds = []
    for order in (list(KINDS), list(KINDS)[::-1]):
        folder = tmp_path_factory.mktemp("together")
        for name in order:
            refine(load(*KINDS[name], *SHORT), folder / name)
        rounds.append({name: told(folder / name) for name in KINDS})
    return rounds


@pytest.mark.parametrize("name", KINDS)
def test_a_refinement_does_not_know_what_came_before(name, together, tmp_path):
    threads = str(torch.get_num_threads())
    command = [sys.executable, "-c", ALONE, threads, str(tmp_path), *KINDS[name], *SHORT]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    subprocess.run(command, check=True, cwd=REPOSITORY, env=environment, capture_output=True)
    alone = told(tmp_path)
    assert alone["steps"] > 0
    assert alone["loss"]["final"] < alone["loss"]["initial"]
    for found in together:
        assert found[name] == alone
