"""Spots and diffuse scattering of one image refined together, as a user runs it."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import REPOSITORY
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from refine.build import build
from refine.compose import load
from refine.errors import InputError, RefinementError
from refine.formats.images import read_image
from refine.formats.models import read_model
from refine.run import refine
from refine.terms.diffuse import OnePhononSpots

SMALL = [
    "experiment=joint",
    "data.image=null",
    "data.noise=poisson",
    "beam.wavelength_A=1.0",
    "beam.fluence=3e30",
    "detector.pixels=[20,18]",
    "detector.pixel_size_mm=1.5",
    "detector.distance_mm=45",
    "detector.oversample=1",
    "crystal.n_cells=[4,4,3]",
    "crystal.mosaic_domains=7",
    "truth.mosaic_domains=7",
    "truth.misset_deg=[8,-5,13]",
    "loss.proportional=0.0",
    "scale_esds=false",
    "simulator.d_min_A=2.5",
    "schedule.capture_deg=0",
    "logger=none",
    "trainer.accelerator=cpu",
]
SPRINGS = ("gamma_intra", "gamma_inter")
MISSETS = tuple(f"misset_deg_{axis}" for axis in "xyz")
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


def command(program: str, *overrides: str) -> tuple[int, str, str]:
    """Status, output and errors of a program as a user runs it."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    line = [sys.executable, str(REPOSITORY / "refine" / f"{program}.py"), *overrides]
    done = subprocess.run(line, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=600)
    return done.returncode, done.stdout, done.stderr


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


def fitted(folder: Path, *overrides: str) -> dict[str, Any]:
    return refine(load(*SMALL, *overrides), folder)


def within(found: dict[str, Any], count: float, *names: str) -> None:
    """Whether parameters are known, and near the truth in their standard uncertainties."""
    for name in names:
        entry = found["parameters"][name]
        assert abs(entry["error"]) < count * entry["esd"], name
        assert 0 < entry["esd"] < 0.5 * abs(entry["truth"]), name


def test_joint_recovers_the_truth_and_leaves_its_files(tmp_path: Path) -> None:
    status, out, err = command("train", "experiment=joint", f"output_dir={tmp_path / 'run'}")
    assert (status, err) == (0, "")
    assert {p.name for p in (tmp_path / "run").iterdir()} == FILES
    found = results(tmp_path / "run")
    off = {name: entry["error"] for name, entry in found["parameters"].items() if entry["free"]}
    assert found["status"] == "converged"
    assert max(abs(off[name]) for name in MISSETS) < 0.03
    assert abs(off["mosaic_spread_deg"]) < 0.06
    assert abs(off["gamma_intra"]) < 0.2 * 2
    assert abs(off["gamma_inter"]) < 0.1 * 4
    assert all(name in out for name in SPRINGS)
    with (tmp_path / "run" / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == found["steps"] + 1
    for name, start in zip(SPRINGS, (1.2, 7.0), strict=True):
        assert float(rows[0][name]) == pytest.approx(start)
        assert float(rows[-1][name]) == pytest.approx(found["parameters"][name]["refined"])
    data, model = (
        read_image(path).counts for path in (REPOSITORY / "data/joint/still.cbf", tmp_path / "run" / "calculated.cbf")
    )
    assert np.corrcoef(data[data >= 0], model[data >= 0])[0, 1] > 0.99
    labels, matrix = found["correlation"]["labels"], np.array(found["correlation"]["matrix"])
    assert matrix[labels.index("gamma_intra"), labels.index("gamma_inter")] < -0.5


def test_coordinates_are_one_line_and_one_curve(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = ["parameters.xyz.free=true", "initial.disturb_A=0.05", "parameters.xyz.restraint.sigma_A=0.02"]
    said += ["parameters.xyz.restraint.to=file", "trainer.max_steps=2", "logger=tensorboard", "detector.pixels=[12,10]"]
    found = fitted(tmp_path, *said)
    table = capsys.readouterr().out.splitlines()
    assert sum("xyz" in line for line in table) == 1
    assert found["atoms"]["rms_xyz_A"]["initial"] == pytest.approx(0.05)
    assert found["atoms"]["rms_xyz_A"]["refined"] < 0.05
    assert found["atoms"]["shift_A"]["largest"] >= found["atoms"]["shift_A"]["rms"] > 0
    curves = EventAccumulator(str(tmp_path / "tensorboard" / "refined")).Reload().Tags()["scalars"]
    assert [curve for curve in curves if "xyz" in curve] == ["parameters/xyz_rms_shift"]
    assert {f"parameters/{name}" for name in SPRINGS} <= set(curves)
    xyz = [found["parameters"][f"xyz_{n}_{c}"]["refined"] for n in range(22) for c in "xyz"]
    start = read_model(REPOSITORY / "data" / "joint" / "helix.pdb")
    for name in ("refined.pdb", "refined.cif"):
        model = read_model(tmp_path / name)
        np.testing.assert_allclose(model.xyz.ravel(), xyz, atol=6e-4)
        assert (model.elements, model.cell) == (start.elements, start.cell)
        np.testing.assert_array_equal(model.rotations, start.rotations)


def test_rings_of_ice(tmp_path: Path) -> None:
    """Amplitudes of the rings on the panel are found and none falls below zero; others are said to be unknown."""
    said = ["simulator.ice=true", "truth.ice=20", "initial.ice=5", "parameters.ice.free=true", "initial.scale=1.1"]
    found = fitted(tmp_path, *said)
    within(found, 4, *MISSETS, *SPRINGS, "scale", "ice_3.89", "ice_3.66", "ice_3.44", "ice_2.67")
    none = fitted(tmp_path, *said[:1], "truth.ice=0", *said[2:])
    rings = {n: e for n, e in none["parameters"].items() if n.startswith("ice_") and n != "ice_width"}
    assert len(rings) == 11
    assert all(entry["refined"] >= 0 for entry in rings.values())
    assert all(rings[f"ice_{d}"]["refined"] < 4 * rings[f"ice_{d}"]["esd"] for d in ("3.89", "3.66", "3.44", "2.67"))
    assert "the data do not determine ice_1.52" in none["warnings"]


@pytest.mark.parametrize(
    "background",
    [
        ["simulator.background=radial", "truth.background=5", "parameters.background.free=true"],
        ["simulator.background=planes", "data.pixels=boxes", "data.box_px=3"],
    ],
    ids=["radial", "planes"],
)
def test_backgrounds_of_other_kinds(tmp_path: Path, background: list[str]) -> None:
    found = fitted(tmp_path, *background, "initial.background=estimate")
    assert found["status"] == "converged"
    within(found, 4, *MISSETS, *SPRINGS, "mosaic_spread_deg", "scale")


SHARP = ["detector.pixels=[40,36]", "detector.pixel_size_mm=0.75", "crystal.n_cells=[8,8,6]", "simulator.d_min_A=3"]


@pytest.mark.parametrize("at", ["pixel", "reflection"])
def test_an_orientation_is_searched_with_amplitudes_of_atoms(tmp_path: Path, at: str) -> None:
    found = fitted(tmp_path, *SHARP, "initial.misset_deg=search", f"structure_factors.at={at}")
    start = [found["parameters"][name]["initial"] for name in MISSETS]
    assert start == pytest.approx([8, -5, 13], abs=0.05)
    assert found["search"]["best_score"] > 10 * found["search"]["significant_score"]
    within(found, 4, *MISSETS, *SPRINGS, "mosaic_spread_deg", "scale")


@pytest.mark.slow
def test_closed_form_spots_of_a_rotation(tmp_path: Path) -> None:
    said = ["experiment=joint_simulated", "logger=none", "trainer.accelerator=cpu"]
    found = refine(load(*said), tmp_path)
    assert found["status"] == "converged"
    within(found, 4, *MISSETS, *SPRINGS, "mosaic_spread_deg", "scale")


MAP, TABLE = "experiment=gamma", "experiment=mosaic_misset"
IMAGE = "data.image=data/joint/still.cbf"
WRONG = {
    "model.path: expected a PDB or mmCIF file": [TABLE, "simulator.diffuse=one_phonon"],
    "model.path: expected a PDB or mmCIF file, got null": [TABLE, "structure_factors.source=atoms"],
    "structure_factors.at: expected reflection for the closed form": ["simulator.model=closed_form"],
    "crystal.shape: expected square or gaussian for blocks that vibrate, got round": ["crystal.shape=round"],
    "diffuse.group_by: expected asu on an image": ["diffuse.group_by=none"],
    "diffuse.compat: expected none on an image": ["diffuse.compat=eryx"],
    "diffuse.cutoff_A: expected a distance within which asymmetric units touch": ["diffuse.cutoff_A=2"],
    "parameters.gamma_intra.free: expected false": [TABLE, "parameters.gamma_intra.free=true"],
    "parameters.gamma_intra.free: expected false (nothing": ["simulator.diffuse=none", "model.adp=data"],
    "parameters.b_atoms.free: expected false": ["parameters.b_atoms.free=true"],
    "parameters.cell.free: expected false": [MAP, "parameters.cell.free=true"],
    "parameters.ice.free: expected false": ["parameters.ice.free=true"],
    "data.map: expected model.path, and neither diffuse": ["data.map=map.npz"],
    "data.map: expected model.path": [TABLE, "data.map=map.npz"],
    "data.image: expected null (model.path alone makes": [TABLE, "model.path=data/joint/helix.pdb", IMAGE],
    "data.image: expected null": [MAP, IMAGE],
    "truth.ice: expected one number or 11, got 2": ["simulator.ice=true", "truth.ice=[1,2]"],
    "initial.ice: expected one number or 11, got 3": ["simulator.ice=true", "initial.ice=[1,2,3]"],
    "model.adp: expected data or model for a diffuse map, got network": [MAP, "model.adp=network"],
    "simulator.d_min_A: expected a limit within which there are pixels, got 100": ["simulator.d_min_A=100"],
    "crystal.fudge: expected 1 for blocks that vibrate": ["crystal.shape=gaussian", "crystal.fudge=2"],
    "initial.gamma_intra: expected a number greater than 0": ["initial.gamma_intra=0"],
    "truth: expected values that give a finite image": [*SMALL, "beam.fluence=1e300"],
    "crystal.cell: expected the cell of the model to 5 %": ["crystal.cell=[300,300,300,90,90,90]"],
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_input_is_one_line(tmp_path: Path, message: str) -> None:
    said = WRONG[message] if WRONG[message][0].startswith("experiment=") else ["experiment=joint", *WRONG[message]]
    with pytest.raises(InputError) as caught:
        refine(load(*said), tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("program", ["train", "simulate"])
def test_wrong_input_ends_with_status_two(tmp_path: Path, program: str) -> None:
    said = [TABLE, "simulator.diffuse=one_phonon", f"output={tmp_path / 'image.cbf'}", f"output_dir={tmp_path / 'run'}"]
    status, _, err = command(program, *said)
    assert (status, err) == (2, "error: model.path: expected a PDB or mmCIF file, got null\n")
    assert not any(tmp_path.iterdir())


def test_results_that_are_no_numbers_are_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = OnePhononSpots.forward
    monkeypatch.setattr(OnePhononSpots, "forward", lambda *args: whole(*args) / 0)
    with pytest.raises(RefinementError) as caught:
        refine(load("experiment=joint", "initial.scale=1", "simulator.d_min_A=8", "logger=none"), tmp_path)
    assert "\n" not in str(caught.value)
    assert json.loads((tmp_path / "results.json").read_text())["status"] == "failed"


def test_more_amplitudes_than_can_be_held_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sim_core.sphere.LARGEST", 1000)
    with pytest.raises(InputError, match=r"structure_factors\.at: expected fewer amplitudes"):
        build(load("experiment=joint"))


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_other_optimizers(tmp_path: Path, optimizer: str) -> None:
    choice = [f"optimizer={optimizer}", "trainer.max_steps=2", "logger=none", "schedule=none"]
    coarse = [
        "detector.pixels=[16,16]",
        "detector.pixel_size_mm=3",
        "detector.oversample=1",
        "simulator.kernel=compiled",
    ]
    results = refine(load("experiment=joint_simulated", *coarse, *choice), tmp_path)
    assert results["loss"]["final"] < results["loss"]["initial"]
