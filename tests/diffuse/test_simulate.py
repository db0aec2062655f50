"""simulate.py and the experiments from the command line."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hydra.errors import HydraException

from refine.command import one_line
from refine.compose import load
from refine.formats.maps import read_map
from refine.paths import REPOSITORY

from .crystals import HERE, relative

MODEL = HERE / "helix_p212121" / "helix_p212121.pdb"
GRID = ["diffuse.sampling.h=[-3,3,3]", "diffuse.sampling.k=[-3,3,2]", "diffuse.sampling.l=[-4,4,3]"]


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(REPOSITORY / "refine" / program), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)


def test_map_of_a_grid(tmp_path: Path) -> None:
    output = tmp_path / "map.npz"
    options = ["diffuse.gamma_inter=0.6", "diffuse.d_min_A=2.0", "diffuse.bragg=nan", f"output={output}"]
    done = run("simulate.py", f"model.path={MODEL}", *GRID, *options)
    assert done.returncode == 0, done.stderr
    wanted = np.load(MODEL.parent / "arrays.npz")["corr_intensity_dataadp"]
    found = read_map(output).intensity
    np.testing.assert_array_equal(np.isnan(found), np.isnan(wanted))
    assert relative(found, wanted) < 1e-10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["diffuse.sampling.h=[0,1.1,2]"], "diffuse.sampling"),
        (["diffuse.cutoff_A=-1"], "diffuse.cutoff_A"),
        (["model.path=nowhere.pdb"], "model.path"),
        (["diffuse.q_file=nowhere.npy"], "diffuse.q_file"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, changes: list[str], message: str) -> None:
    done = run("simulate.py", f"model.path={MODEL}", *GRID, f"output={tmp_path / 'map.npz'}", *changes)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


OLD = {
    "diffuse_fit.map=x.npz": "data.map",
    "diffuse_fit.noise=0": "data.relative_noise",
    "diffuse_fit.disturb_A=0": "initial.disturb_A",
    "diffuse_fit.restraint.sigma_A=1": "parameters.xyz.restraint.sigma_A",
    "diffuse_fit.points=50": "diffuse.points",
    "diffuse_fit.q_max=3": "diffuse.q_max",
    "diffuse_fit.truth.gamma_intra=1": "truth.gamma_intra",
    "diffuse_fit.initial.gamma_inter=1": "initial.gamma_inter",
    "diffuse_fit.free=[xyz]": "parameters.gamma_intra.free",
}


@pytest.mark.parametrize("program", ["train.py", "simulate.py"])
def test_a_key_of_an_earlier_version_is_told_its_new_name(tmp_path: Path, program: str) -> None:
    folder = tmp_path / "run"
    done = run(program, "experiment=gamma", "diffuse_fit.map=x.npz", f"output_dir={folder}", "output=x.npz")
    assert done.returncode == 2
    assert done.stderr == "error: diffuse_fit.map: is now data.map\n"
    assert not folder.exists()


@pytest.mark.parametrize("old", OLD)
def test_every_key_of_an_earlier_version_has_a_new_name(old: str) -> None:
    with pytest.raises(HydraException) as error:
        load("experiment=gamma", old)
    key = old.split("=")[0]
    assert one_line(error.value).startswith(f"{key}: is now {OLD[old]}")


def test_a_new_name_is_a_key() -> None:
    known = [name for name in OLD.values() if name != "data.map"]
    settings = load("experiment=gamma")
    for name in ("data.map", *known):
        value = settings
        for part in name.split("."):
            assert part in type(value).model_fields, name
            value = getattr(value, part)


@pytest.mark.parametrize("program", ["train.py", "simulate.py"])
def test_an_experiment_with_old_keys_is_told_their_new_names(tmp_path: Path, program: str) -> None:
    (tmp_path / "experiment").mkdir()
    old = "# @package _global_\ndefaults: [gamma]\ndiffuse_fit: {map: x.npz}\n"
    (tmp_path / "experiment" / "old.yaml").write_text(old)
    folder = tmp_path / "run"
    done = run(program, "--config-dir", str(tmp_path), "experiment=old", f"output_dir={folder}", "output=x.npz")
    assert done.returncode == 2
    assert done.stderr.startswith("error: diffuse_fit: no such section any more: map is data.map, noise is ")
    assert done.stderr.count("\n") == 1
    assert not folder.exists()


@pytest.mark.slow
def test_experiment_leaves_its_files(tmp_path: Path) -> None:
    done = run("train.py", "experiment=gamma", f"output_dir={tmp_path}", "diffuse.sampling.h=[0,2,3]")
    assert done.returncode == 0, done.stderr
    names = {p.name for p in tmp_path.iterdir()}
    assert names >= {"results.json", "report.png", "history.csv", "tensorboard", "checkpoints", "calculated.npz"}
    found = json.loads((tmp_path / "results.json").read_text())["diffuse"]
    assert abs(found["gamma_inter"]["refined"] / 0.5 - 1) < 0.02
