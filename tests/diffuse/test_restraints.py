"""The elastic network that keeps bonds."""

from pathlib import Path

import torch

from refine.build import build
from refine.compose import load
from refine.parameters.parameters import Parameters
from refine.parameters.restraints import ElasticNetwork
from refine.parameters.spec import ParameterSpec
from sim_core.rotations import xyz_rotation

from .crystals import f64

X = f64([[0, 0, 0], [1.5, 0, 0], [1.5, 1.4, 0.2], [8.0, 0, 0]])


def test_only_distances_count() -> None:
    restraint = ElasticNetwork(X, cutoff=2.0, sigma=0.1)
    assert len(restraint.first) == 2
    turned = X @ xyz_rotation(f64([0.4, -0.3, 1.0])).T + f64([1.0, 2.0, 3.0])
    assert float(restraint(turned.flatten())) < 1e-20
    stretched = X.clone()
    stretched[0, 0] -= 0.2
    torch.testing.assert_close(restraint(stretched.flatten()), f64(4.0))


def test_derivatives() -> None:
    """At the start the curvature is exact; in natural steps, beside a prior."""
    restraint = ElasticNetwork(X, cutoff=2.0, sigma=0.1)
    prior = (f64([0.5]), f64([0.2]))
    names = tuple(f"{n}_{c}" for n in range(4) for c in "xyz")
    specs = [
        ParameterSpec("scale", f64([1.0]), scale=2.0, free=True, prior=prior),
        ParameterSpec("xyz", X.flatten(), scale=0.1, free=True, components=names),
    ]
    parameters = Parameters(specs, {"xyz": restraint})
    vector = parameters.vector()
    gradient, curvature = parameters.penalty_derivatives(vector)
    torch.testing.assert_close(gradient, torch.func.grad(parameters.penalty)(vector))
    torch.testing.assert_close(curvature, torch.func.hessian(parameters.penalty)(vector), rtol=1e-9, atol=1e-9)


def test_the_configuration_switches_it_on(tmp_path: Path) -> None:
    few = ["experiment=gamma_xyz", "diffuse.points=50"]
    assert not build(load(*few)).refined.restraints
    parameters = build(load(*few, "parameters.xyz.restraint.sigma_A=0.02")).refined
    vector = parameters.vector()
    assert float(parameters.penalty(vector)) < 1e-18
    assert float(parameters.penalty(vector + 0.1)) < 1e-18  # a shift of everything
