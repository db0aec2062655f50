"""Search of an orientation on small images."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from support import tensor

from refine.build import build
from refine.build.assemble import stages
from refine.build.images import ImageBuilder
from refine.compose import load
from refine.data.frames import sources
from refine.data.observation import Picture
from refine.errors import InputError
from refine.stages.arbitration import Solution
from refine.stages.orientation import Found, NothingFoundError, find_orientation, misset_rotation
from refine.stages.search import Search, describe
from sim_core.bragg.sampled import SampledBragg
from sim_core.mosaic import random_domains
from sim_core.rotations import xyz_angles, xyz_rotation
from sim_core.search.grid import TOLERANCE, scores_of
from sim_core.search.orientations import (
    distance,
    matrix_quaternion,
    quaternion_matrix,
    quaternion_product,
    table_rotations,
)
from sim_core.search.scene import Image


def image(n_cells, seed, cell):
    refinement = build(load("experiment=mosaic_misset", f"crystal.n_cells={n_cells}", f"crystal.cell={cell}"))
    experiment = start(refinement)
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(4, generator=generator).double()
    q = q / q.norm()
    crystal = replace(
        experiment.crystal, misset=xyz_angles(quaternion_matrix(q)), mosaic_spread=tensor(math.radians(0.8))
    )
    simulator = SampledBragg(random_domains(100, 7), oversample=2, dtype=torch.float32)
    with torch.no_grad():
        photons = simulator(replace(experiment, crystal=crystal)).double()
    photons = torch.poisson(photons * 100 / photons.max(), generator=generator).view(64, 64)
    return experiment, photons, q


def start(refinement):
    """The experiment where a refinement starts."""
    values = {k: v.detach() for k, v in refinement.refined().items()}
    return refinement.frames[0].model.experiment(values)


def observed(photons):
    return Picture(photons.numpy(), np.ones((64, 64), dtype=bool), "")


@pytest.mark.parametrize(
    ("n_cells", "cell"),
    [(5, [100, 100, 100, 90, 90, 90]), (20, [100, 100, 100, 90, 90, 90]), (10, [70, 80, 95, 75, 85, 98])],
)
def test_finds_the_orientation(n_cells, cell):
    experiment, photons, q = image(n_cells, 3, cell)
    found = find_orientation(experiment, observed(photons), 0.0, None)
    group = table_rotations(experiment.structure_factors, experiment.crystal.cell)
    there = matrix_quaternion(xyz_rotation(torch.deg2rad(tensor(found.misset_deg))))
    assert math.degrees(float(distance(there, q, group))) < 0.5
    assert found.report["best_score"] > found.report["runner_up_score"]
    assert found.report["symmetry_rotations"] == len(group)


@pytest.mark.parametrize("seed", [3, 4])
def test_the_model_of_the_refinement_decides_where_spots_are_narrow_and_few(seed):
    cell = [70, 80, 95, 75, 85, 98]
    _, photons, q = image(20, seed, cell)
    overrides = ["experiment=mosaic_misset", "crystal.n_cells=20", f"crystal.cell={cell}"]
    settings = load(*overrides, "initial.misset_deg=search")
    search = stages(settings)[0]
    assert isinstance(search, Search)
    (source,) = sources(settings)
    frame = replace(ImageBuilder(settings, source).frame(), picture=observed(photons))
    found = search.oriented(replace(frame, observation=frame.picture.observation()))
    report = found.entries["search"]
    there = matrix_quaternion(xyz_rotation(torch.deg2rad(found.initial["misset_deg"])))
    assert math.degrees(float(distance(there, q, q.new_tensor([[1.0, 0.0, 0.0, 0.0]])))) < 0.5
    assert report["best_score"] - report["runner_up_score"] > 20


def searched(*overrides):
    """Degrees between the truth and what a search of the small detector finds."""
    settings = load("experiment=mosaic_misset", "data.noise=poisson", "initial.misset_deg=search", *overrides)
    found = tuple(build(settings).frames[0].initial["misset_deg"].tolist())
    there, truth = (matrix_quaternion(misset_rotation(m)) for m in (found, settings.truth.misset_deg))
    return math.degrees(float(distance(there, truth, truth.new_tensor([[1.0, 0.0, 0.0, 0.0]]))))


def test_one_solution_alone_is_refined_too():
    """The closed form takes this one for settled 0.9 deg away, and sees no other."""
    crystal = ["crystal.n_cells=20", "truth.misset_deg=[89.21,-4.28,98.71]", "truth.mosaic_domains=2000"]
    assert searched(*crystal, "beam.fluence=1e29", "seed=9") < 0.1


@pytest.mark.parametrize("background", ["flat", "radial"])
def test_the_background_need_not_be_known(background):
    unknown = ["initial.background=estimate", "parameters.background.free=true", f"simulator.background={background}"]
    crystal = ["truth.misset_deg=[25,-33,47]", "truth.mosaic_domains=100", "beam.fluence=1e29"]
    assert searched(*crystal, *unknown, "truth.background=40") < 0.2


@pytest.mark.parametrize("panel", ["detector.beam_center_mm=[12.8,12.8]", "detector.beam_center_mm=[12.8,-5]"])
def test_more_reflections_than_are_looked_at_and_a_beam_beside_the_panel(panel):
    crystal = ["detector.convention=xds", "truth.misset_deg=[50,20,-60]", "truth.mosaic_domains=25"]
    assert searched(*crystal, "detector.pixels=[256,256]", panel, "beam.fluence=1e30") < 0.2


def test_equivalent_orientations_score_alike():
    settings = load("experiment=mosaic_misset", "detector.pixels=[256,256]", "detector.distance_mm=60")
    refinement = build(settings)
    picture = refinement.frames[0].picture
    photons = torch.from_numpy(picture.photons).double()
    seen = Image(start(refinement), photons, torch.from_numpy(picture.used), 0.0).scene()
    assert 1900 < len(seen.reflections.vectors) < 2000  # some were left out, and those in whole sets
    truth = matrix_quaternion(misset_rotation(settings.truth.misset_deg))
    scores = scores_of(seen, quaternion_product(truth[None], seen.group), TOLERANCE)
    assert float(scores.max() - scores.min()) < 0.01 * float(scores.abs().max())


@pytest.mark.parametrize(("misset", "radius"), [("search", 0), ("[0,0,0]", 15)])
def test_a_search_heeds_bounds(misset, radius):
    given = ["experiment=mosaic_misset", "truth.mosaic_domains=25", f"initial.misset_deg={misset}"]
    given += ["parameters.misset_deg.upper=4", f"schedule.capture_deg={radius}", "schedule.when=always"]
    if misset == "search":
        with pytest.raises(InputError, match="bounds that hold what the search found"):
            build(load(*given))
    else:
        (frame,) = build(load(*given)).frames
        assert frame.initial["misset_deg"].tolist() == [0.0, 0.0, 0.0]
        said = describe(frame.entries["search"])
        assert said == "search within 15 deg: nothing found within the bounds, the start stays"


def test_solutions_that_become_one_count_once():
    one, other = Solution((1.0, 2.0, 3.0), 0.5, 1.0, 90.0), Solution((40.0, 2.0, 3.0), 0.5, 1.0, 80.0)
    found = Found([one, other, other._replace(misset_deg=(0.0, 0.0, 80.0), score=20.0)], torch.eye(4)[:1].double(), {})
    merged = found.decided(lambda close: [one._replace(score=95.0), one._replace(score=94.0)])
    assert [s.score for s in merged.solutions] == [95.0, 20.0]
    assert merged.report == {"best_score": 95.0, "runner_up_score": 20.0}
    report = merged.report | {"orientations": 1, "symmetry_rotations": 1, "wall_s": 0}
    assert "hardly tells" not in describe(report)
    assert "hardly tells" in describe(report | {"runner_up_score": 94.0})


@pytest.mark.parametrize("mean", [0.0, 0.1, 50.0])
def test_finds_nothing_in_noise(mean):
    experiment, photons, _ = image(10, 3, [100, 100, 100, 90, 90, 90])
    noise = torch.poisson(torch.full_like(photons, mean), generator=torch.Generator().manual_seed(2))
    with pytest.raises(NothingFoundError, match="nothing found"):
        find_orientation(experiment, observed(noise), 0.0, None)


def test_stays_near_the_start_where_told_to():
    experiment, photons, q = image(10, 5, [100, 100, 100, 90, 90, 90])
    angles = torch.rad2deg(xyz_angles(quaternion_matrix(q)))
    x, y, z = (angles + tensor([4.0, -3.0, 5.0])).tolist()
    found = find_orientation(experiment, observed(photons), 0.0, (x, y, z), 15.0)
    there = matrix_quaternion(xyz_rotation(torch.deg2rad(tensor(found.misset_deg))))
    assert math.degrees(float(distance(there, q, q.new_tensor([[1.0, 0.0, 0.0, 0.0]])))) < 0.5
