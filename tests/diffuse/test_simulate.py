"""simulate.py and the experiments from the command line."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

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


@pytest.mark.slow
def test_experiment_leaves_its_files(tmp_path: Path) -> None:
    done = run("train.py", "experiment=gamma", f"output_dir={tmp_path}", "diffuse.sampling.h=[0,2,3]")
    assert done.returncode == 0, done.stderr
    names = {p.name for p in tmp_path.iterdir()}
    assert names >= {"results.json", "report.png", "history.csv", "tensorboard", "checkpoints", "calculated.npz"}
    found = json.loads((tmp_path / "results.json").read_text())["diffuse"]
    assert abs(found["gamma_inter"]["refined"] / 0.5 - 1) < 0.02
