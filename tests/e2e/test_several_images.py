"""Several images at once: shared and own parameters, from simulation and from files, and what is told of them."""

import pytest
import torch

from refine.build import build
from refine.compose import load
from refine.errors import InputError
from refine.run import refine
from refine.simulation import simulate

WEDGE = [
    "experiment=mosaic_misset",
    "simulator=closed_form",
    "truth.simulator=closed_form",
    "data.noise=poisson",
    "beam.fluence=3e28",
    "initial.misset_deg=[4.5,3.2,-1.8]",
    "parameters.scale.free=true",
    "logger=none",
]
THREE = "scan.phi_start_deg=[0,30,60]"


def test_a_wedge_is_refined_together(tmp_path):
    results = refine(load(*WEDGE, THREE), tmp_path)
    alone = refine(load(*WEDGE, "scan.phi_start_deg=0"), tmp_path / "alone")
    assert results["status"] == "converged"
    found = results["parameters"]
    assert [k for k in found if k.startswith("scale")] == ["scale_1", "scale_2", "scale_3"]
    for label in ("misset_deg_x", "misset_deg_y", "misset_deg_z", "mosaic_spread_deg", "scale_1", "scale_2", "scale_3"):
        assert abs(found[label]["error"]) < 4 * found[label]["esd"]
    assert found["misset_deg_x"]["esd"] < 0.9 * alone["parameters"]["misset_deg_x"]["esd"]
    assert results["model"]["images"] == 3
    assert results["model"]["pixels"] == 3 * 64 * 64
    assert len(set(results["data"]["sha256"])) == 3
    left = {p.name for p in tmp_path.iterdir()}
    assert {f"calculated_{i}.cbf" for i in (1, 2, 3)} | {f"refined_{i}.mat" for i in (1, 2, 3)} <= left
    assert "report.png" in left


def test_images_of_their_own_are_as_if_alone(tmp_path):
    """With every parameter per image the results are those of single refinements."""
    own = ["parameters.misset_deg.per_image=true", "parameters.mosaic_spread_deg.per_image=true"]
    together = refine(load(*WEDGE, "scan.phi_start_deg=[0,30]", *own), tmp_path / "both")
    for number, phi in ((1, 0), (2, 30)):
        alone = refine(load(*WEDGE, f"scan.phi_start_deg={phi}", f"seed={number - 1}"), tmp_path / str(number))
        for label, entry in alone["parameters"].items():
            if entry["free"]:
                twin = together["parameters"][f"{label}_{number}"]
                assert twin["refined"] == pytest.approx(entry["refined"], abs=0.02 * entry["esd"])
                assert twin["esd"] == pytest.approx(entry["esd"], rel=1e-2)


def test_linear_parts_of_the_images_do_not_mix():
    refinement = build(load(*WEDGE, THREE, "parameters.background.per_image=false"))
    for frame in refinement.frames:
        values = refinement.refined(frame=frame.index)
        parts = frame.model.parts(values)
        assert parts.shape == (64 * 64, 2)
        coefficients = torch.stack([values["scale"], values["background"]])
        torch.testing.assert_close(parts @ coefficients, frame.model(values))
    slopes = torch.func.jacfwd(refinement)(refinement.refined.vector())[:, refinement.refined.where(["scale"])]
    assert slopes.shape == (3 * 64 * 64, 3)
    owner = torch.nn.functional.one_hot(torch.arange(3).repeat_interleave(64 * 64))
    assert bool((slopes[owner == 0] == 0).all())
    parts = torch.cat([f.model.parts(refinement.refined(frame=f.index))[:, 0] for f in refinement.frames])
    torch.testing.assert_close(slopes[owner == 1], parts * refinement.refined.table("scale").repeat_interleave(64 * 64))


def test_files_and_their_headers(tmp_path):
    """What simulate.py writes of several images is read as a list, each with its own angle."""
    simulate(load(*WEDGE, THREE, "simulate.values=truth", f"output={tmp_path / 'wedge.img'}"))
    paths = [str(tmp_path / f"wedge_{i}.img") for i in (1, 2, 3)]
    settings = load(*WEDGE, f"data.image=[{','.join(paths)}]", "truth.misset_deg=null", "schedule=coarse_to_fine")
    frames = build(settings).frames
    assert [frame.model.instrument.scan.phi_start_deg for frame in frames] == [0.0, 30.0, 60.0]
    assert [str(frame.observation.path) for frame in frames] == paths
    results = refine(settings, tmp_path / "run")
    for axis, wanted in zip("xyz", (5, 3, -2), strict=True):
        assert results["parameters"][f"misset_deg_{axis}"]["refined"] == pytest.approx(wanted, abs=0.2)
    assert results["data"]["path"] == paths


def test_a_killed_run_goes_on(tmp_path):
    whole = refine(load(*WEDGE, THREE, "logger=tensorboard"), tmp_path / "whole")
    short = load(*WEDGE, THREE, "trainer.max_steps=3")
    refine(short, tmp_path / "cut")
    resumed = load(*WEDGE, THREE, f"ckpt_path={tmp_path / 'cut/checkpoints/last.ckpt'}")
    assert refine(resumed, tmp_path / "cut")["parameters"] == whole["parameters"]


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            ["scan.phi_start_deg=[0,30]", "data.frame=[0,1,2]"],
            "phi_start_deg: expected one value, or one for each of 3",
        ),
        (["data.image=[]"], "data.image: expected"),
        (["data.image=[nowhere.img,there.img]"], "data.image: expected an existing file"),
    ],
)
def test_wrong_lists_are_told_in_a_line(overrides, line):
    with pytest.raises(InputError, match=line.replace("[", r"\[")) as error:
        build(load(*WEDGE, *overrides))
    assert "\n" not in str(error.value)


def test_images_that_disagree_are_told(tmp_path):
    for number, distance in ((1, 100), (2, 120)):
        path = tmp_path / f"{number}.img"
        simulate(load(*WEDGE, f"detector.distance_mm={distance}", "simulate.values=truth", f"output={path}"))
    images = f"data.image=[{tmp_path / '1.img'},{tmp_path / '2.img'}]"
    both = [*WEDGE, images, "detector.distance_mm=null", "detector.beam_center_mm=null"]
    with pytest.raises(InputError, match="distance_mm: expected the same for all images"):
        build(load(*both))
    refinement = build(load(*both, "parameters.distance_mm.per_image=true"))
    assert refinement.refined.table("distance_mm").tolist() == [[100.0], [120.0]]
    assert bool(torch.isfinite(refinement()).all())


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_stages_under_other_optimizers(tmp_path, optimizer):
    """In a stage only the orientation has a gradient."""
    stages = ["schedule=coarse_to_fine", f"optimizer={optimizer}", "trainer.max_steps=30"]
    results = refine(load(*WEDGE, "scan.phi_start_deg=[0,30]", *stages), tmp_path)
    assert results["loss"]["final"] < results["loss"]["initial"]


def test_stills_of_different_crystals_in_tensorboard(tmp_path):
    """Settings of one image and parameters of several."""
    own = ["scan.phi_start_deg=[0,30]", "parameters.misset_deg.per_image=true", "parameters.cell.free=true"]
    own += ["parameters.cell.per_image=true", "logger=tensorboard", "schedule=coarse_to_fine"]
    results = refine(load(*WEDGE, *own), str(tmp_path))
    found = results["parameters"]
    assert found["cell_a_2"]["unit"] == "A" and found["cell_alpha_2"]["unit"] == "deg"
    assert len(results["search"]) == 2
    assert (tmp_path / "results.json").exists()


def test_problems_do_not_know_of_each_other():
    several = build(load(*WEDGE, THREE))
    build(load(*WEDGE))
    assert several().shape == (3 * 64 * 64,)
    assert several.refined.free_labels[-3:] == ["scale_1", "scale_2", "scale_3"]


def test_a_file_of_one_image_has_no_second(tmp_path):
    simulate(load(*WEDGE, "simulate.values=truth", f"output={tmp_path / 'one.npy'}"))
    with pytest.raises(InputError, match=r"data\.frame: expected 0 for a file of one image, got 1"):
        build(load(*WEDGE, f"data.image={tmp_path / 'one.npy'}", "data.frame=[0,1]"))


def test_too_few_pixels_to_look_around():
    search = build(load(*WEDGE, "detector.pixels=[1,1]")).frames[0].entries.get("search")
    assert search is None or not search["taken"]
