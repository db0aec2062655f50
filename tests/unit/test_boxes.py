"""Predicted spots, boxes around them, planes under them, pixels that stand alone."""

import numpy as np
import pytest
import torch
from support import tensor

from refine.build import build
from refine.compose import load
from refine.data.observation import hot_pixels
from refine.data.sites import Pixels
from refine.terms.planes import BoxPlanes, box_of_each_pixel, planes
from sim_core.bragg.prediction import predicted_spots

LYSOZYME = ["experiment=lysozyme_still", "simulator=closed_form", "crystal.shape=gaussian", "initial.scale=1.0"]
AT_TRUTH = ["initial.misset_deg=[1.2,-0.7,2.1]", "initial.mosaic_spread_deg=0.35"]


@pytest.fixture(scope="module")
def lysozyme():
    refinement = build(load(*LYSOZYME, *AT_TRUTH))
    return refinement, refinement.frames[0].model.experiment(refinement.refined())


def test_spots_are_predicted_where_the_simulator_puts_them(lysozyme):
    refinement, experiment = lysozyme
    pixels = Pixels(experiment.panel.all_pixels())
    image = refinement.frames[0].model.parts(refinement.refined(), pixels)[:, 0].view(512, 512)
    owner = box_of_each_pixel(experiment, 6, 0.0, 3.5)
    inside = image[torch.from_numpy(owner >= 0)].sum()
    assert float(inside / image.sum()) > 0.995
    assert (owner >= 0).mean() < 0.5
    spots = predicted_spots(experiment)
    strong = spots.position[spots.excitation < 1]
    found = image[strong[:, 0].long(), strong[:, 1].long()]
    assert float((found > image.median()).double().mean()) > 0.9


def test_a_rotation_brings_more_spots(lysozyme):
    refinement, experiment = lysozyme
    turning = load(*LYSOZYME, *AT_TRUTH, "scan.osc_deg=1.0", "scan.phi_steps=2")
    turned = build(turning).frames[0].model.experiment(refinement.refined())
    assert len(predicted_spots(turned).hkl) > 1.5 * len(predicted_spots(experiment).hkl)


def test_a_pixel_belongs_to_the_nearest_spot(lysozyme):
    _, experiment = lysozyme
    owner = box_of_each_pixel(experiment, 9, 0.0, 3.0)
    position = predicted_spots(experiment, 0.0, 3.0).position
    for y, x in np.argwhere(owner >= 0)[::997]:
        distance = (position - tensor([y + 0.5, x + 0.5])).norm(dim=1)
        assert int(distance.argmin()) == owner[y, x]


def test_planes_pass_under_the_spots():
    y, x = np.mgrid[:15, :15]
    plane = 20.0 + 0.5 * y - 0.3 * x
    spot = 400 * np.exp(-((y - 7) ** 2 + (x - 7) ** 2) / 3)
    photons = np.random.default_rng(1).poisson(plane + spot).astype(float)
    owner = np.zeros((15, 15), dtype=np.int64)
    owner[:, 14] = -1
    found = planes(photons, np.ones((15, 15), dtype=bool), owner)
    assert np.abs(found - plane)[:, :14].max() < 1.5
    assert not found[:, 14].any()


def test_planes_are_eliminated():
    """The planes are those of weighted least squares, and what they take away is their Schur complement."""
    generator = np.random.default_rng(3)
    owner = np.full((12, 20), -1)
    owner[1:8, 2:9], owner[3:12, 11:18] = 4, 7
    used = generator.random(owner.shape) > 0.1
    photons = generator.poisson(30.0, owner.shape).astype(float)
    under = BoxPlanes(photons, used, owner)
    chosen = used & (owner >= 0)
    y, x = np.nonzero(chosen)
    inside = [tensor((owner[chosen] == box).astype(float)) for box in (4, 7)]
    design = torch.stack([inside[i] * v for i in (0, 1) for v in (torch.ones(len(y)), tensor(y), tensor(x))], 1)
    spots = torch.rand(len(y), generator=torch.Generator().manual_seed(4)).double()
    under.reweight(spots)
    root = under.weight.sqrt()[:, None]
    wanted = design @ torch.linalg.lstsq(root * design, root * spots[:, None]).solution
    torch.testing.assert_close(under.fit(spots), wanted[:, 0], rtol=1e-6, atol=1e-6)
    everywhere = under.fit(spots, torch.cartesian_prod(torch.arange(12), torch.arange(20)))
    torch.testing.assert_close(everywhere[torch.from_numpy(chosen).flatten()], wanted[:, 0], rtol=1e-6, atol=1e-6)
    assert not everywhere[torch.from_numpy(owner).flatten() < 0].any()
    slopes = torch.stack([spots, spots.square()], 1)
    left = slopes - torch.stack([under.fit(s) for s in slopes.unbind(1)], 1)
    full = torch.cat([slopes, design], 1)
    information = full.T @ (under.weight[:, None] * full)
    schur = torch.linalg.inv(torch.linalg.inv(information)[:2, :2])
    torch.testing.assert_close(left.T @ (under.weight[:, None] * left), schur, rtol=1e-5, atol=1e-8)
    assert torch.autograd.gradcheck(under.fit, spots.requires_grad_())


def test_hot_pixels_stand_alone():
    photons = np.random.default_rng(2).poisson(5.0, (30, 30)).astype(float)
    photons[10, 10] = 4000
    photons[20:23, 20:23] = [[50, 300, 40], [250, 2500, 300], [60, 280, 50]]
    photons[0, 0] = 900
    found = hot_pixels(photons, np.ones((30, 30), dtype=bool), 10.0)
    assert sorted(map(tuple, np.argwhere(found))) == [(0, 0), (10, 10)]


@pytest.mark.parametrize("background", ["flat", "scatterer", "radial", "planes"])
def test_every_background_refines(background):
    refinement = build(load(*LYSOZYME, f"simulator.background={background}", "data.pixels=boxes"))
    (frame,), values = refinement.frames, refinement.refined()
    parts = frame.model.parts(values)
    assert parts.shape == (len(frame.model.sites), 1 + values["background"].numel())
    wanted = parts @ torch.cat([tensor([1.0]), values["background"].reshape(-1)])
    least = frame.model.least()
    assert (least is not None) == (background == "planes")
    torch.testing.assert_close(frame.model(values), wanted if least is None else torch.maximum(wanted, least))
    assert float((frame.photons - frame.model(values)).mean().abs()) < 20


def test_boxes_need_spots():
    from refine.errors import InputError

    with pytest.raises(InputError, match=r"data.pixels: expected a start that predicts spots"):
        build(load(*LYSOZYME, "data.pixels=boxes", "data.box_reach=1e-9"))
