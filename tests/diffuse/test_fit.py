"""Springs and coordinates from single scattering vectors."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from refine.fit.losses import KnownNoise
from refine.fit.optimizers import LevenbergMarquardt
from refine.fit.refinement import RefinementModule
from refine.formats.models import read_model
from refine.parameters.parameters import Parameters, ParameterSpec, declare
from refine.settings.terms import Diffuse
from refine.terms.diffuse import DiffuseModel

from .crystals import HERE, f64


def settings(q_file: Path) -> Diffuse:
    axes = {"h": None, "k": None, "l": None}
    numbers = {"gamma_intra": 1.0, "gamma_inter": 1.0, "cutoff_A": 4.0, "d_min_A": 0.0}
    words = {"group_by": "asu", "compat": "none", "bragg": "nan"}
    return Diffuse.model_validate({"sampling": axes, "q_file": str(q_file), **numbers, **words})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["helix_p1", "helix_p212121"])
def test_springs_and_coordinates(tmp_path: Path, name: str) -> None:
    generator = torch.Generator().manual_seed(5)
    crystal = read_model(HERE / ("helix_p1_odd" if name == "helix_p1" else name) / f"{name}.pdb")
    directions = torch.randn(3000, 3, dtype=torch.float64, generator=generator)
    lengths = 4 * torch.rand(3000, dtype=torch.float64, generator=generator) ** (1 / 3)
    np.save(tmp_path / "q.npy", (directions / directions.norm(dim=-1, keepdim=True) * lengths[:, None]).numpy())
    model = DiffuseModel(crystal, settings(tmp_path / "q.npy"))
    model.simulator = replace(model.simulator, batch=1 << 15)
    truth = f64(crystal.xyz)
    with torch.no_grad():
        exact = model({"gamma_intra": f64(2.0), "gamma_inter": f64(0.5)})
        sigma = 0.02 * exact
        observed = exact + sigma * torch.randn(len(exact), dtype=torch.float64, generator=generator)
    shift = torch.randn(truth.shape, dtype=torch.float64, generator=generator)
    start = truth + 0.08 * shift / shift.square().sum(-1).mean().sqrt()
    declare("xyz", tuple(f"{n}_{c}" for n in range(len(truth)) for c in "xyz"))
    log_one = torch.zeros(1, dtype=torch.float64)
    parameters = Parameters(
        [
            ParameterSpec("log_gamma_intra", log_one, free=True),
            ParameterSpec("log_gamma_inter", log_one, free=True),
            ParameterSpec("xyz", start.flatten(), scale=0.1, free=True),
        ]
    )
    module = RefinementModule(model, parameters, KnownNoise(sigma), observed, LevenbergMarquardt)
    optimizer = LevenbergMarquardt(list(parameters.raw.values()))
    losses = []
    for _ in range(20):
        model.rebuild(parameters()["xyz"])
        losses.append(float(optimizer.step(problem=module)))
        if len(losses) > 1 and abs(losses[-2] - losses[-1]) < 1e-4 * losses[-1]:
            break
    found = {k: v.detach() for k, v in parameters().items()}
    error = found["xyz"].reshape(-1, 3) - truth
    if name == "helix_p1":
        error = error - error.mean(0)  # the origin is free
    rms = float(error.square().sum(-1).mean().sqrt())
    print(name, len(losses), losses[-1], found["log_gamma_intra"].exp(), found["log_gamma_inter"].exp(), rms)
    assert abs(float(found["log_gamma_intra"].exp()) / 2 - 1) < 0.01
    assert abs(float(found["log_gamma_inter"].exp()) / 0.5 - 1) < 0.01
    assert rms < 0.005
