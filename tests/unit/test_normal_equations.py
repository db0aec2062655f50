"""Normal equations added up over frames and blocks of pixels: those of one dense Jacobian of all frames."""

from itertools import pairwise

import pytest
import torch
from support import tensor

from refine.build import build
from refine.compose import load
from refine.fit.normal_equations import row_blocks
from refine.fit.refinement import Refinement

WEDGE = [
    "experiment=mosaic_misset",
    "simulator=closed_form",
    "truth.simulator=closed_form",
    "crystal.shape=gaussian",
    "detector.pixels=[40,32]",
    "data.noise=poisson",
    "beam.fluence=3e28",
    "schedule.capture_deg=0",
    "truth.background=3",
    "initial.background=2",
    "initial.misset_deg=[4.5,3.2,-1.8]",
    "parameters.scale.free=true",
]
THREE = "scan.phi_start_deg=[0,30,60]"
CASES = {
    "shared and own parameters": [
        THREE,
        "parameters.mosaic_spread_deg.per_image=true",
        "parameters.background.free=true",
        "parameters.distance_mm.free=true",
        "parameters.distance_mm.prior={mean:99,sigma:0.5}",
        "parameters.mosaic_spread_deg.prior={mean:0.5,sigma:0.1}",
    ],
    "ties": [
        THREE,
        "parameters.misset_deg.per_image=true",
        "parameters.cell.free=true",
        "parameters.cell.prior={mean:[101,101,101,90,90,90],sigma:0.2}",
    ],
    "ties of each frame": [THREE, "parameters.cell.free=true", "parameters.cell.per_image=true"],
    "planes": ["scan.phi_start_deg=[0,30]", "data.pixels=boxes", "simulator.background=planes"],
    "shared background": [
        "scan.phi_start_deg=[0,30]",
        "simulator.background=radial",
        "parameters.background.free=true",
        "parameters.background.per_image=false",
        "parameters.scale.prior={sigma:0.3}",
    ],
    "sum over blocks": [THREE, "simulator=sampled", "crystal.mosaic_domains=7", "loss.outliers=3.0"],
    "a mean": [THREE, "loss=mse", "parameters.background.free=true"],
    "one frame": ["parameters.background.free=true", "parameters.n_cells.free=true"],
}
MAP = ["experiment=gamma_xyz", "diffuse.points=40", "parameters.xyz.restraint.sigma_A=0.02"]
MAP += ["parameters.gamma_intra.prior={mean:1,sigma:0.3}"]


def moved(refinement: Refinement, size: float) -> torch.Tensor:
    """A place near the start, where coordinates stay."""
    vector = refinement.refined.vector()
    step = size * torch.randn(len(vector), generator=torch.Generator().manual_seed(5)).double()
    return torch.where(refinement.refined.where(["xyz", "gamma_intra"]), 0.0, step)


def dense(refinement: Refinement, vector: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Loss, gradient and expected curvature from all data and all directions at once."""
    parts = torch.func.jacfwd(refinement.expected)(vector)
    expected, loss = refinement.expected(vector), refinement.loss
    value, gradient = refinement.refined.penalty(vector), torch.func.grad(refinement.refined.penalty)(vector)
    curvature = torch.func.hessian(refinement.refined.penalty)(vector)
    for jacobian, photons, seen in zip(parts, expected, refinement.seen, strict=True):
        assert jacobian.shape == (len(photons), len(vector))
        value = value + loss.value(photons, seen.photons, seen.sigma)
        gradient = gradient + jacobian.T @ loss.slope(photons, seen.photons, seen.sigma)
        curvature = curvature + jacobian.T @ (loss.curvature(photons, seen.sigma)[:, None] * jacobian)
    return value, gradient, curvature


def alike(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10 * float(wanted.abs().max()))


@pytest.fixture(params=[*CASES, "a map"])
def refinement(request: pytest.FixtureRequest) -> Refinement:
    found = build(load(*MAP) if request.param == "a map" else load(*WEDGE, *CASES[request.param]))
    found.prepare()
    return found


@torch.no_grad()
def test_frames_and_blocks_add_up(refinement, monkeypatch):
    vector = moved(refinement, 0.05)
    wanted = dense(refinement, vector)
    whole = refinement.normal_equations(vector)
    for one, other in zip(whole[:3], wanted, strict=True):
        alike(one, other)
    assert bool((wanted[2].diagonal() > 0).all())
    alike(whole.loss, refinement.value(vector))
    alike(refinement.settle(vector)[1], refinement.value(refinement.settle(vector)[0]))
    monkeypatch.setattr("refine.fit.normal_equations.NUMBERS", 700)
    for one, other in zip(refinement.normal_equations(vector)[:3], whole[:3], strict=True):
        alike(one, other)


@torch.no_grad()
def test_a_frame_depends_on_its_columns_only(refinement):
    vector = moved(refinement, 0.05)
    for frame, jacobian in zip(refinement.frames, torch.func.jacfwd(refinement.expected)(vector), strict=True):
        others = torch.ones(len(vector), dtype=torch.bool)
        others[refinement.refined.columns(frame.index)] = False
        assert not bool(jacobian[:, others].any())


@torch.no_grad()
def test_a_mean_is_over_all_pixels():
    """Of images of different size in pixels that count, too."""
    found = build(load(*WEDGE, "scan.phi_start_deg=[0,30]", "data.pixels=boxes", "loss=mse"))
    sizes = [len(frame.photons) for frame in found.frames]
    assert sizes[0] != sizes[1]
    vector = found.refined.vector()
    alike(found.value(vector), (found(vector) - found.observed).square().mean())


@pytest.mark.parametrize(("rows", "directions"), [(1, 1), (1000, 3), (1001, 7), (5, 10_000)])
def test_runs_of_rows_leave_nothing_out(rows, directions, monkeypatch):
    monkeypatch.setattr("refine.fit.normal_equations.NUMBERS", 700)
    runs = list(row_blocks(rows, directions, False))
    assert (runs[0].start, runs[-1].stop) == (0, rows)
    assert all(one.stop == other.start for one, other in pairwise(runs))
    longest = max(run.stop - run.start for run in runs)
    assert longest * directions <= 700 or longest == 1
    assert list(row_blocks(rows, directions, True)) == [slice(0, rows)]


def test_the_terms_of_one_coefficient_add_up():
    (frame,) = build(load(*WEDGE)).frames
    values = {**frame.initial, "scale": tensor(2.0)}
    parts = [frame.model.part(values, name) for name in ("scale", "background")]
    torch.testing.assert_close(sum(parts), frame.model(values))
