"""The Triton kernels in Triton's interpreter, which needs no GPU, against the eager reference."""

import os
import subprocess
import sys

import pytest
from support import REPOSITORY

PROGRAM = """
import torch
from sim_core import StructureFactors
from sim_core.interference import Square
from sim_core.amplitudes import padded_values
from sim_core.kernels.lattice import eager, gpu
from sim_core.kernels.lattice.settings import Settings

torch.manual_seed(0)
t = lambda v: torch.tensor(v, dtype=torch.float64)
table = StructureFactors(torch.rand(9, 7, 5, dtype=torch.float64) + 1, torch.tensor([-4, -3, -2]), t(0.5))
constant = StructureFactors.constant(t(2.0))
for dtype, bound in ((torch.float64, 1e-8), (torch.float32, 2e-5)):
    for n in ([5.0, 4.0, 12.0], [1.0, 20.5, 7.0]):
        for factors in (table, constant):
            s, a = 0.1 * torch.randn(150, 3).double(), 50 * (torch.eye(3) + 0.01 * torch.randn(2, 3, 3)).double()
            s[0] = 0.0
            inputs = (s, a, t([0.3, 0.7]), t(n))
            box = tuple(factors.table.shape)
            settings = Settings(Square(), factors.h_min, box, dtype, "compiled", float(factors.default))
            exact = settings._replace(dtype=torch.float64)
            alone = factors.table.flatten() if factors.table.numel() else factors.default.reshape(1)
            padded = padded_values(factors)
            changes = [torch.randn(2, *v.shape).double() for v in inputs]
            grad, needs = torch.randn(150).to(dtype), (True, True, True, True, False)
            ours = [gpu.forward(*inputs, alone, settings), gpu.tangents(*inputs, alone, settings, *changes, None)]
            ours += gpu.backward(*inputs, alone, settings, grad, needs)[:4]
            each = [eager.tangent(*inputs, padded, exact, *(c[d] for c in changes), None) for d in range(2)]
            theirs = [eager.forward(*inputs, padded, exact), torch.stack(each)]
            theirs += eager.backward(*inputs, padded, exact, grad.double(), needs)[:4]
            for x, y in zip(ours, theirs, strict=True):
                error = float((x.double() - y).abs().max() / y.abs().max())
                assert error < bound, (dtype, n, error)
print("agree")
"""


def test_triton_kernels_agree_in_the_interpreter():
    pytest.importorskip("triton")
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(REPOSITORY)}
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment)
    assert run.stdout == "agree\n", run.stderr
