"""Springs and coordinates from single scattering vectors."""

from pathlib import Path

import numpy as np
import pytest
import torch
from support import refinement

from refine.build.maps import MapBuilder
from refine.compose import load
from refine.fit.losses import KnownNoise
from refine.fit.optimizers import LevenbergMarquardt
from refine.parameters.parameters import Parameters
from refine.parameters.spec import ParameterSpec
from refine.settings.schema import Settings

from .crystals import HERE, f64


def settings(model: Path, q_file: Path) -> Settings:
    numbers = ["diffuse.gamma_intra=1", "diffuse.gamma_inter=1", "diffuse.cutoff_A=4", "diffuse.d_min_A=0"]
    words = ["diffuse.group_by=asu", "diffuse.compat=none", "diffuse.bragg=nan"]
    return load(f"model.path={model}", f"diffuse.q_file={q_file}", *numbers, *words)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["helix_p1", "helix_p212121"])
def test_springs_and_coordinates(tmp_path: Path, name: str) -> None:
    generator = torch.Generator().manual_seed(5)
    crystal = HERE / ("helix_p1_odd" if name == "helix_p1" else name) / f"{name}.pdb"
    directions = torch.randn(3000, 3, dtype=torch.float64, generator=generator)
    lengths = 4 * torch.rand(3000, dtype=torch.float64, generator=generator) ** (1 / 3)
    np.save(tmp_path / "q.npy", (directions / directions.norm(dim=-1, keepdim=True) * lengths[:, None]).numpy())
    builder = MapBuilder(settings(crystal, tmp_path / "q.npy"))
    model = builder.model(builder.term.kept)
    truth = f64(builder.atoms.file.xyz)
    with torch.no_grad():
        exact = model({"gamma_intra": f64(2.0), "gamma_inter": f64(0.5), "scale": f64(1.0)})
        sigma = 0.02 * exact
        observed = exact + sigma * torch.randn(len(exact), dtype=torch.float64, generator=generator)
    shift = torch.randn(truth.shape, dtype=torch.float64, generator=generator)
    start = truth + 0.08 * shift / shift.square().sum(-1).mean().sqrt()
    names = tuple(f"{n}_{c}" for n in range(len(truth)) for c in "xyz")
    one = torch.ones(1, dtype=torch.float64)
    parameters = Parameters(
        [
            ParameterSpec("gamma_intra", one, free=True),
            ParameterSpec("gamma_inter", one, free=True),
            ParameterSpec("xyz", start.flatten(), scale=0.1, free=True, components=names),
            ParameterSpec("scale", one),
        ]
    )
    module = refinement(model, parameters, KnownNoise(), observed, sigma)
    optimizer = LevenbergMarquardt(list(parameters.raw.values()))
    losses = []
    for _ in range(20):
        module.prepare()
        losses.append(float(optimizer.step(problem=module)))
        if len(losses) > 1 and abs(losses[-2] - losses[-1]) < 1e-4 * losses[-1]:
            break
    found = {k: v.detach() for k, v in parameters().items()}
    error = found["xyz"].reshape(-1, 3) - truth
    if name == "helix_p1":
        error = error - error.mean(0)  # the origin is free
    rms = float(error.square().sum(-1).mean().sqrt())
    print(name, len(losses), losses[-1], found["gamma_intra"], found["gamma_inter"], rms)
    assert abs(float(found["gamma_intra"]) / 2 - 1) < 0.01
    assert abs(float(found["gamma_inter"]) / 0.5 - 1) < 0.01
    assert rms < 0.005
