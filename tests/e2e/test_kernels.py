"""A refinement has the same answer with each kernel."""

import json
import os
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


IMAGES = """
import logging, sys
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
sys.path.insert(0, "benchmarks")
from simulator import experiment
from sim_core.bragg.closed_form import ClosedFormBragg
from sim_core.mosaic import random_domains
from sim_core.bragg.sampled import SampledBragg
for simulator in (SampledBragg(random_domains(2, 1), kernel="compiled"), ClosedFormBragg(kernel="compiled")):
    assert simulator(experiment(16, 1)).isfinite().all()
"""


def lines(**environment: str) -> list[str]:
    """What two simulators say that shall run as machine code."""
    path = os.pathsep.join([environment.pop("PYTHONPATH", ""), str(REPOSITORY)])
    done = subprocess.run(
        [sys.executable, "-c", IMAGES],
        cwd=REPOSITORY,
        env=os.environ | environment | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


MACHINE_CODE = ["sum over orientations: machine code, float64", "closed form: machine code, float64"]


def eager(reason: str) -> list[str]:
    return [f"{what}: eager ({reason})" for what in ("sum over orientations", "closed form")]


def test_a_broken_compiler_is_a_line(tmp_path):
    (tmp_path / "numba.py").write_text('raise ImportError("libLLVM.so: no such file\\nbecause ..")\n')
    assert lines(PYTHONPATH=str(tmp_path)) == eager("ImportError: libLLVM.so: no such file")


@pytest.mark.slow
def test_a_cache_that_is_not_to_be_had(tmp_path):
    """A folder that cannot be made, then one whose files are damaged."""
    assert lines(NUMBA_CACHE_DIR="/dev/null/cache") == MACHINE_CODE
    assert lines(NUMBA_CACHE_DIR=str(tmp_path)) == MACHINE_CODE
    for index in tmp_path.rglob("*.nbi"):
        index.write_bytes(b"")
    assert lines(NUMBA_CACHE_DIR=str(tmp_path)) == eager("image: EOFError: Ran out of input")
