"""Searches and schedules as a user runs them."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import REPOSITORY

SMALL = ["experiment=mosaic_misset", "data.noise=poisson", "beam.fluence=1e29", "truth.mosaic_domains=100"]


def start(folder: Path, *overrides: str) -> subprocess.Popen:
    command = [sys.executable, str(REPOSITORY / "refine" / "train.py"), *overrides, f"output_dir={folder}"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HYDRA")}
    return subprocess.Popen(
        [*command, "logger=none"],
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def train(folder: Path, *overrides: str) -> tuple[int, str, str]:
    process = start(folder, *overrides)
    out, err = process.communicate(timeout=600)
    return process.returncode, out, err


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def errors(folder: Path) -> list[float]:
    return [abs(results(folder)["parameters"][f"misset_deg_{a}"]["error"]) for a in "xyz"]


def test_search_needs_no_start(tmp_path):
    status, out, err = train(tmp_path, *SMALL, "truth.misset_deg=[25,-33,47]", "initial.misset_deg=search")
    assert (status, err) == (0, "")
    assert max(errors(tmp_path)) < 0.3
    found = results(tmp_path)["search"]
    assert found["symmetry_rotations"] == 24
    assert found["best_score"] > found["runner_up_score"]
    assert sum(line.startswith("search: score") for line in out.splitlines()) == 1


def test_search_says_that_there_is_nothing_to_find(tmp_path):
    noise = ["truth.scale=1e-12", "truth.background=3", "initial.misset_deg=search"]
    status, _, err = train(tmp_path, *SMALL, *noise)
    assert status == 1
    assert err.startswith("error: orientation search: nothing found") and err.count("\n") == 1
    left = results(tmp_path)
    assert left["status"] == "failed" and "nothing found" in left["reason"]
    assert left["search"]["best_score"] < left["search"]["significant_score"]


@pytest.mark.parametrize("simulator", ["sampled", "closed_form"])
def test_coarse_to_fine_comes_home_from_far(tmp_path, simulator):
    far = ["schedule=coarse_to_fine", "initial.misset_deg=[8,-4,3]", f"simulator={simulator}"]
    status, out, _ = train(tmp_path, *SMALL, *far)
    assert status == 0
    assert max(errors(tmp_path)) < 0.3
    assert results(tmp_path)["search"]["taken"]
    assert "search within 15 deg" in out


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_start_whose_spots_miss_is_looked_around(tmp_path, axis):
    """Three degrees about the beam, and across it, with nothing but the defaults."""
    truth = [1.2, -0.7, 2.1]
    start = [t + 3.0 * (i == axis) for i, t in enumerate(truth)]
    still = ["experiment=lysozyme_still", "simulator=closed_form", f"initial.misset_deg={start}", "logger=none"]
    status, out, _ = train(tmp_path, *still)
    assert status == 0
    assert "search within 15 deg" in out
    found = results(tmp_path)["parameters"]
    assert max(abs(found[f"misset_deg_{a}"]["error"]) for a in "xyz") < 0.05


def test_a_start_whose_spots_meet_is_taken(tmp_path):
    near = ["experiment=lysozyme_still", "simulator=closed_form", "logger=none"]
    status, out, _ = train(tmp_path, *near)
    assert status == 0 and "search" not in out
    assert "search" not in results(tmp_path)


def test_stages_alone_widen_the_capture_and_a_killed_run_resumes_in_the_middle_of_them(tmp_path):
    overrides = [*SMALL, "initial.misset_deg=[7.5,3,-2]", "schedule=coarse_to_fine", "schedule.capture_deg=0"]
    overrides.append("schedule.inflation_deg=[2,1,0.5,0.25]")
    assert train(tmp_path / "whole", *overrides)[0] == 0
    assert max(errors(tmp_path / "whole")) < 0.3
    process = start(tmp_path / "killed", *overrides)
    checkpoint = tmp_path / "killed" / "checkpoints" / "last.ckpt"
    while not checkpoint.exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "killed" / "results.json").exists()
    assert train(tmp_path / "killed", *overrides, f"ckpt_path={checkpoint}")[0] == 0
    assert results(tmp_path / "killed")["parameters"] == results(tmp_path / "whole")["parameters"]
    histories = []
    for name in ("whole", "killed"):
        with (tmp_path / name / "history.csv").open() as file:
            histories.append([{k: v for k, v in row.items() if k != "wall_s"} for row in csv.DictReader(file)])
    assert histories[0] == histories[1]
