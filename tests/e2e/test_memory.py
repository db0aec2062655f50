"""Memory is O(pixels): a large image with gradients in a small process."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, torch
from dataclasses import replace
from pathlib import Path
from sim_core import Beam, Crystal, Experiment, Panel, Scan, StructureFactors
from sim_core.mosaic import quadrature_domains
from sim_core.bragg.sampled import SampledBragg

t = lambda v: torch.tensor(v, dtype=torch.float64)
misset = torch.deg2rad(t([5.0, 3.0, -2.0])).requires_grad_()
spread = torch.deg2rad(t(0.5)).requires_grad_()
cell = torch.cat([t([100.0] * 3), torch.deg2rad(t([90.0] * 3))])
experiment = Experiment(
    Beam(t([[1.0, 0, 0]]), t([1.0]), t([1.0]), t(1e28), t(0.0), t([0.0, 0, 1])),
    Panel(t([0.1, 0.05, -0.05]), t([0.0, 0, 1]), t([0.0, -1, 0]), t([1.0, 0, 0]), t(1e-4), (1024, 1024)),
    Crystal(cell, torch.eye(3, dtype=torch.float64), misset, t([5.0] * 3), spread),
    Scan(t([0.0, 0, 1]), t([0.0]), t([1.0])),
    StructureFactors.constant(t(100.0)),
)
image = SampledBragg(quadrature_domains(25))(experiment)
image.square().sum().backward()
assert misset.grad.abs().min() > 0 and spread.grad.abs() > 0
status = Path("/proc/self/status")  # ru_maxrss also counts what the process that started this one held
if status.exists():
    print(1024 * next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")))
else:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""


@pytest.mark.slow
def test_a_megapixel_with_gradients_fits_two_gibibytes():
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 2 * 2**30
