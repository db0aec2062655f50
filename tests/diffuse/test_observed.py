"""Refinement against maps that were read."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from refine.build import build
from refine.build.assemble import NO_SIGMA
from refine.compose import load
from refine.errors import InputError
from refine.formats.maps import DiffuseMap, read_map, write_map
from refine.run import refine
from refine.simulation import simulate

from .crystals import relative

GRID = ["diffuse.sampling.h=[-2,2,2]", "diffuse.sampling.k=[-1,1,3]", "diffuse.sampling.l=[0,3,2]"]


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> DiffuseMap:
    path = tmp_path_factory.mktemp("truth") / "truth.npz"
    simulate(load("experiment=gamma", *GRID, "simulate.values=truth", "diffuse.d_min_A=0", f"output={path}"))
    return read_map(path)


def observed(truth: DiffuseMap) -> DiffuseMap:
    """With 1 % noise, uncertainties, a mask over points that are wrong, and points that are not measured."""
    generator = np.random.default_rng(7)
    sigma = 0.01 * truth.intensity
    intensity = truth.intensity + sigma * generator.standard_normal(len(sigma))
    mask = generator.random(len(sigma)) > 0.1
    intensity[~mask] *= 100
    intensity[::17] = np.nan
    return replace(truth, intensity=intensity, sigma=sigma, mask=mask)


@pytest.mark.parametrize("ending", ["npz", "h5"])
def test_springs_from_a_map(tmp_path: Path, truth: DiffuseMap, ending: str) -> None:
    path = tmp_path / f"map.{ending}"
    write_map(path, observed(truth))
    plain = ["truth.gamma_intra=null", "truth.gamma_inter=null", "diffuse.d_min_A=0"]
    settings = load("experiment=gamma", *GRID, *plain, f"data.map={path}", "logger=none")
    model = build(settings).frames[0].model
    term = model.terms["diffuse"]
    assert len(term.twin[term.kept].unique()) < 0.4 * len(truth.q_vectors)  # folded
    used = observed(truth).used()
    assert len(model.sites) == used.sum()
    refine(settings, tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["status"] == "converged"
    assert results["diffuse"]["gamma_intra"]["refined"] == pytest.approx(2.0, rel=0.01)
    assert results["diffuse"]["gamma_inter"]["refined"] == pytest.approx(0.5, rel=0.01)
    calculated = read_map(tmp_path / "run" / "calculated.npz")
    np.testing.assert_array_equal(calculated.map_shape, truth.map_shape)
    assert relative(calculated.intensity, truth.intensity) < 0.02
    assert (tmp_path / "run" / "report.png").stat().st_size > 1e4


def test_a_ccp4_map_has_no_uncertainties(tmp_path: Path, truth: DiffuseMap) -> None:
    path = tmp_path / "map.ccp4"
    write_map(path, truth)
    refinement = build(load("experiment=gamma", "diffuse.d_min_A=0", f"data.map={path}"))
    model = refinement.frames[0].model
    assert NO_SIGMA in refinement.notes
    assert not refinement.loss.is_likelihood
    assert len(model.sites) == np.isfinite(truth.intensity).sum()
    assert model.terms["diffuse"].grid.shape == tuple(truth.map_shape)


def test_maps_of_another_crystal(tmp_path: Path, truth: DiffuseMap) -> None:
    path = tmp_path / "map.npz"
    write_map(path, replace(truth, q_vectors=truth.q_vectors * 1.01))
    with pytest.raises(InputError, match=r"data.map: expected the cell of the model"):
        build(load("experiment=gamma", f"data.map={path}"))
    write_map(path, replace(truth, sampling=truth.sampling + np.array([[0, 1, 0]])))
    with pytest.raises(InputError, match=r"data.map: expected hkl and map_shape"):
        build(load("experiment=gamma", f"data.map={path}"))
    write_map(path, replace(truth, mask=np.zeros(len(truth.intensity), dtype=bool)))
    with pytest.raises(InputError, match="at least one point"):
        build(load("experiment=gamma", f"data.map={path}"))


def test_resuming_asks_for_the_same_model(tmp_path: Path) -> None:
    small = ["experiment=gamma", *GRID, "logger=none", "trainer.max_steps=1"]
    refine(load(*small), tmp_path)
    checkpoint = f"ckpt_path={tmp_path / 'checkpoints' / 'last.ckpt'}"
    for change, section in (("diffuse.cutoff_A=5", "diffuse"), ("model.keep_waters=true", "model")):
        with pytest.raises(InputError, match=f"checkpoint of the same {section}"):
            refine(load(*small, checkpoint, change), tmp_path / "other")
