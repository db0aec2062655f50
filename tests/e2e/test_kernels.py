"""A refinement has the same answer with each kernel."""

import json
import subprocess
import sys

import pytest
from support import REPOSITORY


@pytest.mark.slow
@pytest.mark.parametrize(("name", "choices"), [("mosaic_misset", []), ("lysozyme_still", ["crystal.mosaic_domains=7"])])
def test_refinement_ends_at_the_same_values(name, choices, tmp_path):
    found = {}
    for kernel in ("eager", "compiled"):
        folder = tmp_path / kernel
        choice = [
            *choices,
            f"experiment={name}",
            f"simulator.kernel={kernel}",
            "logger.kind=none",
            f"output_dir={folder}",
        ]
        subprocess.run([sys.executable, str(REPOSITORY / "refine" / "train.py"), *choice], cwd=REPOSITORY, check=True)
        found[kernel] = json.loads((folder / "results.json").read_text())["parameters"]
    for label, eager in found["eager"].items():
        if eager["free"]:
            change = abs(eager["refined"] - found["compiled"][label]["refined"])
            assert change <= 0.1 * eager["esd"], label
