"""Amplitudes and diffuse scattering of atoms as images of the configuration have them."""

from typing import Any

import gemmi
import numpy as np
import pytest
import torch
from support import REPOSITORY, tensor
from torch import Tensor

from refine.build.images import ImageBuilder
from refine.compose import load
from refine.data.frames import sources
from refine.terms.bragg import shape_of
from refine.terms.diffuse import OnePhononSpots
from sim_core import Experiment
from sim_core.amplitudes import intensity_between
from sim_core.amplitudes_of_atoms import amplitudes
from sim_core.diffuse.image import OnePhononImage
from sim_core.mosaic import orientations, quadrature_domains

MODELS = ("data/joint/helix.pdb", "data/diffuse/helix_p212121.pdb", "data/diffuse/helix_p1.pdb")
SMALL = [
    "experiment=joint",
    "data.image=null",
    "beam.wavelength_A=1.0",
    "crystal.cell=null",
    "detector.pixels=[16,15]",
    "detector.pixel_size_mm=3",
    "detector.distance_mm=45",
    "detector.oversample=1",
    "simulator.d_min_A=0",
    "truth.misset_deg=[8,-5,13]",
]


def built(*overrides: str) -> ImageBuilder:
    settings = load(*SMALL, *overrides)
    return ImageBuilder(settings, sources(settings)[0])


def values_of(builder: ImageBuilder, **changes: Any) -> dict[str, Tensor]:
    given = {name: tensor(value) for name, value in {**builder.fixed, **builder.known}.items()}
    return {**given, **{name: tensor(value) for name, value in changes.items()}}


def structure_of(path: str) -> gemmi.Structure:
    structure = gemmi.read_structure(str(REPOSITORY / path))
    structure.remove_alternative_conformations()
    structure.remove_hydrogens()
    structure.remove_waters()
    structure.remove_empty_chains()
    for place in structure[0].all():
        place.atom.occ = 1.0
    return structure


def calculated(structure: gemmi.Structure, solvent: bool) -> gemmi.ComplexAsuData:
    """Fcalc of gemmi to 2 A, by summing over atoms; with a flat solvent through its scaling."""
    group = structure.find_spacegroup()
    density = gemmi.FloatGrid()
    density.setup_from(structure, 0.5)
    d_min = 2.0
    hkl = gemmi.make_miller_array(structure.cell, group, d_min)
    calculator = gemmi.StructureFactorCalculatorX(structure.cell)
    F = [calculator.calculate_sf_from_model(structure[0], list(map(int, h))) for h in hkl]
    found = gemmi.ComplexAsuData(structure.cell, group, hkl.astype(np.int32), np.array(F, dtype=np.complex64))
    if solvent:
        gemmi.SolventMasker(gemmi.AtomicRadiiSet.Cctbx).put_mask_on_float_grid(density, structure[0])
        mask = gemmi.transform_map_to_f_phi(density).prepare_asu_data(dmin=d_min)
        scaling = gemmi.Scaling(structure.cell, group)
        scaling.use_solvent, scaling.k_sol, scaling.b_sol, scaling.k_overall = True, 0.4, 50.0, 1.0
        scaling.scale_data(found, mask)
    return found


@pytest.mark.parametrize("solvent", [False, True])
@pytest.mark.parametrize("path", MODELS)
def test_amplitudes_are_those_of_gemmi(path: str, solvent: bool) -> None:
    said = ["model.solvent=flat", "model.k_sol=0.4", "model.b_sol_A2=50"] if solvent else []
    builder = built(f"model.path={path}", "model.adp=data", "structure_factors.at=reflection", *said)
    model = builder.model(builder.whole())
    factors = model.experiment(values_of(builder), everywhere=True).structure_factors
    wanted = calculated(structure_of(path), solvent)
    places = torch.from_numpy(wanted.miller_array.copy()).long() - factors.h_min
    inside = ((places >= 0) & (places < torch.tensor(factors.table.shape))).all(-1)
    assert int(inside.sum()) > 100
    h, k, l = places[inside].T
    found, heights = factors.table[h, k, l].numpy(), np.abs(wanted.value_array)[inside.numpy()]
    np.testing.assert_allclose(found, heights, rtol=1e-4, atol=1e-4 * np.sqrt(np.mean(heights**2)))


@pytest.mark.parametrize("path", MODELS)
def test_amplitudes_of_pixels_are_those_of_their_places(path: str) -> None:
    """Between the points of the grid, wherever pixels of the image fall, for mosaic blocks too."""
    builder = built(f"model.path={path}", "simulator.d_min_A=1.8")
    model, values = builder.model(builder.whole()), values_of(builder, mosaic_spread_deg=1.0)
    scene: Experiment = model.experiment(values)
    grid = scene.structure_factors.between
    assert grid is not None and scene.structure is not None
    panel = scene.panel
    middles = panel.positions(builder.whole().index + 0.5)
    s = (middles / middles.norm(dim=-1, keepdim=True) - scene.beam.direction[0]) / scene.beam.wavelength[0]
    s = s[s.norm(dim=-1) < 1 / 1.8]
    blocks, _ = orientations(scene.crystal, scene.scan, quadrature_domains(65, "normal"))
    hkl = torch.cat([s @ rows.T for rows in blocks])
    u = model.sample.atoms.displacements(values, scene)
    exact = amplitudes(scene.structure, scene.crystal.cell, u, hkl).abs()
    found = intensity_between(grid, hkl.T).sqrt()
    assert len(hkl) > 1000
    assert float((found - exact).square().mean().sqrt()) < 1e-3 * float(exact.square().mean().sqrt())


def diffuse(builder: ImageBuilder, term: OnePhononSpots, spread_deg: float) -> Tensor:
    values, sites = values_of(builder, mosaic_spread_deg=spread_deg), builder.whole()
    scene = builder.model(sites).experiment(values)
    with torch.no_grad():
        return term(values, scene, sites)[:, 0]


CASES = {
    "a wide panel": [],
    "large pixels in parts": ["detector.pixel_size_mm=1.5", "detector.oversample=3", "simulator.d_min_A=3.5"],
    "pixels near the limit": ["detector.pixel_size_mm=0.5", "detector.oversample=3"],
    "gaussian blocks": ["crystal.shape=gaussian"],
    "bandwidth": ["beam.bandwidth_rms_percent=0.5"],
    "divergence": ["beam.divergence_rms_mrad=3"],
}


@pytest.mark.parametrize("path", ["data/joint/helix.pdb", "data/diffuse/helix_p1.pdb"])
@pytest.mark.parametrize("case", CASES)
def test_atoms_are_summed_where_they_vary(path: str, case: str) -> None:
    """At the largest spread for which they are not summed at every sample: within 1 % of the diffuse photons."""
    builder = built(f"model.path={path}", *CASES[case])
    model, sites = builder.model(builder.whole()), builder.whole()
    term = model.terms["diffuse"]

    def chosen(spread_deg: float) -> str:
        values = values_of(builder, mosaic_spread_deg=spread_deg)
        term.prepare(values, model.experiment(values), sites)
        return term.simulator.atoms_at

    low, high = 0.0, 10.0
    assert (chosen(low) != "sample", chosen(high)) == (True, "sample")
    while high - low > 0.01:
        low, high = (low, (low + high) / 2) if chosen((low + high) / 2) == "sample" else ((low + high) / 2, high)
    chosen(low)
    found = diffuse(builder, term, low)
    simulator = term.simulator
    nodes, shape = quadrature_domains(65, "normal"), shape_of(builder.settings.crystal)
    term.simulator = OnePhononImage(nodes, shape, simulator.oversample, simulator.d_min, atoms_at="sample")
    wanted = diffuse(builder, term, low)
    assert float((found - wanted).abs().sum()) < 0.01 * float(wanted.sum())
