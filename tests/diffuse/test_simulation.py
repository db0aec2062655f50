"""What simulate.py writes: images and maps at given, true or initial values."""

from pathlib import Path

import numpy as np
import pytest
import torch

from refine.build import build
from refine.compose import load
from refine.errors import InputError
from refine.formats.images import read_image
from refine.formats.maps import read_map
from refine.simulation import simulate

from .crystals import relative

SMALL = ["detector.pixels=[24,20]", "truth.mosaic_domains=20"]


def image(path: Path, *overrides: str) -> np.ndarray:
    simulate(load("experiment=mosaic_misset", *SMALL, f"output={path}", *overrides))
    return read_image(path).counts


@pytest.mark.parametrize("ending", ["npy", "img", "cbf"])
def test_the_true_image_is_the_data(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"x.{ending}"
    counts = image(path, "simulate.values=truth", "data.adc_offset=10", "data.gain=2")
    wanted = 2 * build(load(*SMALL)).frames[0].picture.photons + 10
    assert counts.shape == (20, 24)
    assert np.abs(counts - wanted).max() <= (0 if ending == "npy" else 0.5)
    assert counts.max() > 20
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_values_differ(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    given, initial, truth = (image(path, f"simulate.values={v}") for v in ("given", "initial", "truth"))
    assert relative(given, initial) > 1e-4
    assert relative(truth, initial) > 0.01
    turned = image(path, "simulate.values=initial", "initial.misset_deg=[0,0,0]", "initial.mosaic_spread_deg=0")
    np.testing.assert_array_equal(turned, given)
    only_seen = image(path, "parameters.misset_deg.free=false", "parameters.mosaic_spread_deg.free=false")
    np.testing.assert_array_equal(only_seen, given)


@pytest.mark.parametrize("ending", ["img", "cbf"])
def test_headers_give_the_geometry_back(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"x.{ending}"
    given = ["detector.beam_center_mm=[1.3,0.9]", "scan.phi_start_deg=5", "scan.osc_deg=0.5"]
    image(path, *given)
    header = read_image(path).header
    settings = load(*SMALL, *given)
    again = [
        "detector.pixels=null",
        "detector.pixel_size_mm=null",
        "detector.distance_mm=null",
        "beam.wavelength_A=null",
    ]
    open_fields = [*again, "scan.phi_start_deg=null", "scan.osc_deg=null"]
    (frame,) = build(load(f"data.image={path}", *open_fields)).frames
    instrument = frame.model.instrument
    assert header["distance_mm"] == pytest.approx(100)
    assert frame.initial["beam_center_mm"].tolist() == pytest.approx((1.3, 0.9), abs=2e-4)
    assert (instrument.panel.pixels, instrument.scan.osc_deg) == (settings.detector.pixels, 0.5)
    assert float(frame.initial["wavelength_A"]) == pytest.approx(1.0)


def test_too_bright_pixels_are_saturated(tmp_path: Path) -> None:
    path = tmp_path / "x.img"
    counts = image(path, "beam.fluence=1e32")
    assert counts.max() == 65535
    assert read_image(path).largest == 65535


def test_true_values_of_an_image_that_was_read(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    settings = load("experiment=lysozyme_still", "simulate.values=truth", "truth.mosaic_domains=1", f"output={path}")
    simulate(settings.model_copy(update={"dtype": "float32"}))
    assert np.load(path).shape == (512, 512)
    unknown = ["experiment=image", "data.image=data/lysozyme/noise_lo.img", "simulate.values=truth"]
    with pytest.raises(InputError, match=r"truth: expected misset_deg"):
        simulate(load(*unknown, f"output={path}"))


@pytest.mark.parametrize("output", ["x.txt", "x.npz", "x"])
def test_unknown_endings(tmp_path: Path, output: str) -> None:
    with pytest.raises(InputError, match=r"output: expected a file with an ending of \.img"):
        simulate(load(f"output={tmp_path / output}"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("experiment", ["gamma", "gamma_xyz"])
def test_maps_at_the_experiments_values(tmp_path: Path, experiment: str) -> None:
    path = tmp_path / "map.npz"
    few = ["diffuse.points=40"]
    found = {}
    for values in ("given", "truth", "initial"):
        simulate(load(f"experiment={experiment}", *few, f"simulate.values={values}", f"output={path}"))
        found[values] = read_map(path).intensity
    refinement = build(load(f"experiment={experiment}", *few, "data.relative_noise=0"))
    (frame,) = refinement.frames
    used = frame.model.sites.index
    assert relative(found["truth"][used], frame.photons) < 1e-12
    assert relative(found["initial"][used], refinement().detach()) < 1e-12
    # springs of 1 and 1 are the default of both; initial coordinates may be disturbed
    assert (relative(found["given"], found["initial"]) < 1e-12) == (experiment == "gamma")
    assert relative(found["given"], found["truth"]) > 0.1


def test_points_of_a_file_with_displacements_of_the_model(tmp_path: Path) -> None:
    grid = [f"diffuse.sampling.{axis}=[-1,1,{rate}]" for axis, rate in zip("hkl", (2, 3, 2), strict=True)]
    model = ["experiment=gamma", *grid, "model.adp=model", "diffuse.d_min_A=0"]
    simulate(load(*model, f"output={tmp_path / 'grid.npz'}"))
    whole = read_map(tmp_path / "grid.npz")
    order = np.random.default_rng(1).permutation(len(whole.q_vectors))[:60]
    np.save(tmp_path / "q.npy", whole.q_vectors[order])
    simulate(load(*model, f"diffuse.q_file={tmp_path / 'q.npy'}", f"output={tmp_path / 'free.npz'}"))
    free = read_map(tmp_path / "free.npz")
    np.testing.assert_array_equal(np.isnan(free.intensity), np.isnan(whole.intensity[order]))
    assert relative(free.intensity, whole.intensity[order]) < 1e-12
    assert torch.isfinite(torch.from_numpy(free.intensity)).sum() > 50
