"""What the closed form recovers from a noisy image, and what it says where the data leave something open."""

import pytest
import torch

from refine.build import build
from refine.compose import load
from refine.fit.optimizers import LevenbergMarquardt
from refine.fit.uncertainty import Uncertainty
from refine.report.results import standard_uncertainties

STILL = [
    "experiment=lysozyme_still",
    "simulator=closed_form",
    "crystal.shape=gaussian",
    "structure_factors.path=null",
    "structure_factors.default_F=60",
    "beam.fluence=2e27",
    "detector.pixels=[128,128]",
    "detector.pixel_size_mm=0.344",
    "detector.distance_mm=120",
    "data.image=null",
    "data.noise=poisson",
    "data.adc_offset=0",
    "truth.simulator=closed_form",
    "truth.misset_deg=[11,-17,23]",
    "truth.background=12",
    "initial.misset_deg=[11.05,-17.05,23.05]",
    "initial.mosaic_spread_deg=0.4",
    "initial.background=10",
]
CELLS = {
    "cubic": [80, 80, 80, 90, 90, 90],
    "hexagonal": [80, 80, 60, 90, 90, 120],
    "trigonal": [80, 80, 80, 75, 75, 75],
    "tetragonal": [80, 80, 38, 90, 90, 90],
    "orthorhombic": [80, 60, 45, 90, 90, 90],
    "monoclinic": [80, 60, 45, 90, 104, 90],
    "triclinic": [80, 60, 45, 85, 104, 97],
}


def refined(*overrides: str) -> tuple[dict[str, float], Uncertainty, dict[str, float]]:
    """Refined values, uncertainties and truth by label."""
    module = build(load(*STILL, "loss=poisson", *overrides))
    optimizer = LevenbergMarquardt([module.refined.raw[n] for n in module.refined.free])
    for _ in range(30):
        before = module.refined.vector()
        module.prepare()
        optimizer.step(problem=module)
        if float((module.refined.vector() - before).abs().max()) < 1e-5:
            break
    with torch.no_grad():
        values, named = module.refined(), {n: spec.labels for n, spec in module.refined.specs.items()}
    flat = {k: float(x) for n, v in values.items() for k, x in zip(named[n], v.reshape(-1), strict=True)}
    return flat, standard_uncertainties(module), module.truth


@pytest.mark.parametrize("system", CELLS)
def test_a_cell_half_a_percent_off_is_recovered(system):
    cell = CELLS[system]
    start = [x * 1.005 for x in cell[:3]] + cell[3:]
    names = ("crystal.cell", "initial.cell")
    cells = [f"{name}={value}".replace(" ", "") for name, value in zip(names, (cell, start), strict=True)]
    values, known, truth = refined(*cells, f"crystal.system={system}", "parameters.cell.free=true")
    found = [label for label in known.esds if label.startswith("cell_")]
    assert {"cell_a", "cell_b", "cell_c"} <= set(found)
    for label in found:
        assert abs(values[label] - truth[label]) < 3.5 * known.esds[label], label
        assert known.esds[label] < 1e-3 * truth[label], label


def test_a_detector_a_millimetre_off_is_recovered():
    values, known, truth = refined("initial.distance_mm=121", "parameters.distance_mm.free=true")
    assert known.esds["distance_mm"] < 0.2
    assert abs(values["distance_mm"] - truth["distance_mm"]) < 3 * known.esds["distance_mm"]


BEAM = ["truth.divergence_rms_mrad=1.0", "truth.bandwidth_rms_percent=0.3"]
OTHERS = {
    "beam centre": ["initial.beam_center_mm=[22.2,22.1]", "parameters.beam_center_mm.free=true"],
    "tilts": ["initial.rotations_deg=[0.1,-0.1,0.1]", "parameters.rotations_deg.free=true"],
    "B": ["truth.b_iso_A2=5", "parameters.b_iso_A2.free=true"],
    "beam": [
        *BEAM,
        "initial.divergence_rms_mrad=0.7",
        "parameters.divergence_rms_mrad.free=true",
        "initial.bandwidth_rms_percent=0.2",
        "parameters.bandwidth_rms_percent.free=true",
    ],
    "anisotropic mosaic": ["truth.mosaic_spread_deg=[0.3,0.4,0.5]", "initial.mosaic_spread_deg=[0.4,0.4,0.4]"],
    "numbers of cells": ["initial.n_cells=[16,17,19]", "parameters.n_cells.free=true"],
}


@pytest.mark.parametrize("what", OTHERS)
def test_other_parameters_are_recovered(what):
    values, known, truth = refined(*OTHERS[what])
    for label, esd in known.esds.items():
        if label in truth:
            assert abs(values[label] - truth[label]) < 4 * esd, label


def test_what_the_data_leave_open_is_named():
    free = ["parameters.cell.free=true", "parameters.wavelength_A.free=true", "parameters.distance_mm.free=true"]
    _, known, _ = refined("crystal.cell=[80,80,80,90,90,90]", *free)
    assert known.correlation is None
    assert any("cell_a" in line and "wavelength_A" in line for line in known.sentences())
    assert "cell_a" not in known.esds
    assert "scale" in known.esds or "background" in known.esds
