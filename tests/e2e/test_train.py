"""The command as a user runs it."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from support import REPOSITORY, SHARED

from refine.formats.images import read_image
from refine.formats.orientation import read_mat

FILES = {
    ".hydra",
    "calculated.cbf",
    "checkpoints",
    "history.csv",
    "refined.mat",
    "report.png",
    "results.json",
    "tensorboard",
}


def start(*overrides: str, cwd: Path = REPOSITORY) -> subprocess.Popen:
    command = [sys.executable, str(REPOSITORY / "refine" / "train.py"), *overrides]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HYDRA")}
    return subprocess.Popen(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def train(folder: Path, *overrides: str, cwd: Path = REPOSITORY) -> tuple[int, str, str]:
    process = start(*overrides, f"output_dir={folder}", cwd=cwd)
    out, err = process.communicate(timeout=600)
    return process.returncode, out, err


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def errors(folder: Path) -> dict[str, float]:
    return {k: e["error"] for k, e in results(folder)["parameters"].items() if e["free"] and e["error"] is not None}


def test_mosaic_misset_recovers_the_truth_and_leaves_its_files(tmp_path):
    status, out, err = train(tmp_path / "run", "experiment=mosaic_misset")
    assert (status, err) == (0, "")
    assert {p.name for p in (tmp_path / "run").iterdir()} == FILES
    found, off = results(tmp_path / "run"), errors(tmp_path / "run")
    assert found["status"] == "converged"
    assert found["loss"]["reduction"] >= 100
    assert max(abs(off[f"misset_deg_{a}"]) for a in "xyz") <= 0.1
    assert abs(off["mosaic_spread_deg"]) <= 0.05
    assert found["parameters"]["cell_a"]["refined"] == 100.0
    assert "misset_deg_x" in out
    with (tmp_path / "run" / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == found["steps"] + 1
    matrix = np.linalg.inv(read_mat(tmp_path / "run" / "refined.mat", 1.0))
    np.testing.assert_allclose(np.linalg.norm(matrix, axis=1), 100.0, rtol=1e-9)
    assert read_image(tmp_path / "run" / "calculated.cbf").counts.shape == (64, 64)
    assert any((tmp_path / "run" / "tensorboard" / "truth").iterdir())


def test_mosaic_only_leaves_the_orientation_alone(tmp_path):
    status, _, _ = train(tmp_path / "run", "experiment=mosaic_only", "logger=none")
    assert status == 0
    assert abs(errors(tmp_path / "run")["mosaic_spread_deg"]) <= 0.05
    assert results(tmp_path / "run")["parameters"]["misset_deg_x"]["refined"] == 0.0


def test_inverse_crime_is_perfect(tmp_path):
    status, _, _ = train(tmp_path / "run", "experiment=inverse_crime", "logger=none")
    assert status == 0
    assert results(tmp_path / "run")["loss"]["reduction"] >= 1e6
    assert max(map(abs, errors(tmp_path / "run").values())) <= 0.005


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_other_optimizers_run(tmp_path, optimizer):
    overrides = ["experiment=mosaic_misset", f"optimizer={optimizer}", "trainer.max_steps=3", "logger=none"]
    status, _, _ = train(tmp_path / "run", *overrides)
    assert status == 0
    found = results(tmp_path / "run")
    assert found["status"] in ("max_steps", "converged")
    assert found["loss"]["reduction"] > 1


@pytest.mark.slow
@pytest.mark.parametrize("level", ["hi", "lo"])
def test_lysozyme_still(tmp_path, level):
    overrides = ["experiment=lysozyme_still", f"data.image=data/lysozyme/noise_{level}.img"]
    overrides += [f"beam.fluence={'3e26' if level == 'hi' else '3e25'}", "logger=none"]
    status, out, _ = train(tmp_path / "run", *overrides)
    assert status == 0
    assert "from header" in out
    assert max(abs(v) for v in errors(tmp_path / "run").values()) <= 0.04


@pytest.mark.shared
@pytest.mark.parametrize(
    ("fluence", "misset", "mosaic"), [("1e31", 0.1, 0.05), ("1e30", 0.1, 0.05), ("1e28", 0.3, 0.5)]
)
def test_images_of_the_reference_program(tmp_path, fluence, misset, mosaic):
    image = SHARED / "experiments" / "seed_mosaic_misset" / f"noise_{fluence}.img"
    overrides = [f"data.image={image}", f"beam.fluence={fluence}", "data.adc_offset=0", "logger=none"]
    status, _, _ = train(tmp_path / "run", "experiment=mosaic_misset", *overrides)
    assert status == 0
    off = errors(tmp_path / "run")
    assert max(abs(off[f"misset_deg_{a}"]) for a in "xyz") <= misset
    assert abs(off["mosaic_spread_deg"]) <= mosaic


def test_a_killed_run_resumes_bit_for_bit(tmp_path):
    overrides = ["experiment=mosaic_misset", "optimizer=adam", "trainer.max_steps=40", "data.noise=poisson", "seed=3"]
    assert train(tmp_path / "whole", *overrides)[0] == 0
    process = start(*overrides, f"output_dir={tmp_path / 'killed'}")
    checkpoint = tmp_path / "killed" / "checkpoints" / "last.ckpt"
    while not checkpoint.exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "killed" / "results.json").exists()
    assert train(tmp_path / "killed", *overrides, f"ckpt_path={checkpoint}")[0] == 0
    whole, resumed = results(tmp_path / "whole"), results(tmp_path / "killed")
    assert resumed["parameters"] == whole["parameters"]
    assert resumed["loss"] == whole["loss"]
    histories = []
    for name in ("whole", "killed"):
        with (tmp_path / name / "history.csv").open() as file:
            histories.append([{k: v for k, v in row.items() if k != "wall_s"} for row in csv.DictReader(file)])
    assert histories[0] == histories[1]
    status, _, err = train(tmp_path / "other", "experiment=mosaic_only", f"ckpt_path={checkpoint}")
    assert (status, err.count("\n")) == (2, 1)


def test_a_finished_run_resumes_to_the_same_end(tmp_path):
    overrides = ["experiment=mosaic_only", "logger=none"]
    assert train(tmp_path / "whole", *overrides)[0] == 0
    checkpoint = tmp_path / "whole" / "checkpoints" / "last.ckpt"
    assert train(tmp_path / "again", *overrides, f"ckpt_path={checkpoint}")[0] == 0
    whole, again = results(tmp_path / "whole"), results(tmp_path / "again")
    assert again["parameters"] == whole["parameters"]
    assert again["steps"] == whole["steps"]


def test_an_interrupted_run_says_so(tmp_path):
    process = start("optimizer=adam", "trainer.max_steps=100000", f"output_dir={tmp_path / 'run'}", "logger=none")
    while not (tmp_path / "run" / "history.csv").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (1, "error: interrupted\n")
    assert results(tmp_path / "run")["status"] == "failed"


def test_a_sweep_has_one_table(tmp_path):
    overrides = ["-m", "experiment=mosaic_only", "initial.mosaic_spread_deg=0.3,-1", "logger=none"]
    status, _, err = train(tmp_path / "sweep", *overrides)
    assert status == 1
    assert "job 1: initial.mosaic_spread_deg" in err
    with (tmp_path / "sweep" / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [r["status"] for r in rows] == ["converged", "failed"]
    assert float(rows[0]["mosaic_spread_deg"]) == pytest.approx(0.8, abs=0.05)


def wrong_inputs(folder: Path) -> dict[str, list[str]]:
    image = (REPOSITORY / "data" / "lysozyme" / "noise_lo.img").read_bytes()
    (folder / "short.img").write_bytes(image[:100000])
    shutil.copy(REPOSITORY / "data" / "lysozyme" / "noise_lo.img", folder / "whole.img")
    np.save(folder / "nan.npy", np.full((64, 64), np.nan))
    (folder / "empty.hkl").write_text("")
    return {
        "crystal.cel: no such key; did you mean crystal.cell?": ["crystal.cel=1"],
        "initial.misset_deg: expected 3 numbers": ["initial.misset_deg=[1,2]"],
        "initial.mosaic_spread_deg": ["initial.mosaic_spread_deg=-1"],
        "data.image: expected an existing file": ["data.image=nowhere.img"],
        "truncated": [f"data.image={folder / 'short.img'}", "experiment=lysozyme_still"],
        "finite pixel values": [f"data.image={folder / 'nan.npy'}"],
        "an image of 64 x 64 pixels": [f"data.image={folder / 'whole.img'}"],
        "an empty file": [f"structure_factors.path={folder / 'empty.hkl'}"],
        "experiment: expected one of": ["experiment=nothing"],
        "optimizer.lr: no such key": ["optimizer.lr=1"],
        "trainer.accelerator": ["trainer.accelerator=warp"],
        "no viable alternative": ["initial.misset_deg=[1,2"],
        "parameters: expected at least one": [
            "parameters.misset_deg.free=false",
            "parameters.mosaic_spread_deg.free=false",
        ],
    }


@pytest.mark.parametrize("index", range(13))
def test_wrong_input_is_one_line_and_leaves_nothing(tmp_path, index):
    expected, overrides = list(wrong_inputs(tmp_path).items())[index]
    status, _, err = train(tmp_path / "run", *overrides, cwd=tmp_path)
    assert status == 2
    assert err.startswith("error: ")
    assert expected in err
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()
