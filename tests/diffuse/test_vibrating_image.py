"""One-phonon scattering of vibrating blocks in the pixels of a detector."""

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from refine.formats.models import CrystalModel, read_model
from sim_core import Experiment, Scan, Sensor
from sim_core.amplitudes_of_atoms import amplitudes
from sim_core.constants import R_E_SQUARED
from sim_core.diffuse.elastic_network import Springs
from sim_core.diffuse.image import AtomsAt, OnePhononImage
from sim_core.diffuse.one_phonon import OnePhonon
from sim_core.diffuse.structure import placed, scattering_vectors
from sim_core.diffuse.vibrations import contacts_of, isotropic
from sim_core.interference import Gaussian, Square
from sim_core.mosaic import orientations, quadrature_domains
from sim_core.rays import point_weights, polarization, subpixel_points
from sim_core.rotations import xyz_angles, xyz_rotation
from sim_core.unit_cell import pdb_basis

from .crystals import f64
from .vibrating import helix, shared_case, still

SPRINGS = Springs(f64(2.0), f64(4.0))
PIXELS = torch.tensor([[10, 20], [33, 31], [40, 55], [63, 2]])


def simulated(model: CrystalModel, simulate: OnePhononImage, pixels: Tensor = PIXELS, **changes: object) -> Tensor:
    experiment = still(model, **changes)
    assert experiment.structure is not None
    contacts = contacts_of(experiment.structure, experiment.crystal.cell, 4.0)
    return simulate(experiment, contacts, SPRINGS, pixels)


def rays(experiment: Experiment, pixels: Tensor, oversample: int = 1) -> tuple[Tensor, Tensor]:
    """S [1/A] of sub-pixels, and photons for one electron^2."""
    points = subpixel_points(experiment.panel, pixels, oversample)
    flight = points / points.norm(dim=-1, keepdim=True)
    s = ((flight - experiment.beam.direction[0]) / experiment.beam.wavelength[0])[:, 0]
    f = (point_weights(experiment.panel, points) * polarization(experiment.beam, flight)[..., 0])[:, 0]
    return s, f * R_E_SQUARED * experiment.beam.fluence


@pytest.mark.parametrize("cell", ["triclinic", "trigonal"])
def test_a_large_block_scatters_like_a_crystal(cell: str) -> None:
    """Also a test of frames: the older simulator knows Cartesian atoms and q only."""
    model = helix("helix_p31") if cell == "trigonal" else helix("helix_p1_odd")
    n = [9.0, 8.0, 7.0] if cell == "trigonal" else [21.0, 22.0, 20.0]
    experiment = still(model, n_cells=n)
    structure, crystal = experiment.structure, experiment.crystal
    assert structure is not None
    contacts = contacts_of(structure, crystal.cell, 4.0)
    s, photons = rays(experiment, PIXELS)
    hkl = s[:, 0] @ crystal.direct.T
    basis = pdb_basis(crystal.cell)
    q = scattering_vectors(hkl, basis)
    assert torch.allclose(q.norm(dim=-1), 2 * torch.pi * s[:, 0].norm(dim=-1))
    atoms = placed(structure, basis)
    wanted = OnePhonon(contacts)(atoms, SPRINGS, q) * f64(n).prod() * photons[:, 0]
    simulate = OnePhononImage(quadrature_domains(1))
    found = simulate(experiment, contacts, SPRINGS, PIXELS, isotropic(structure))
    far = (hkl - hkl.round()).abs().amax(-1) > 0.2
    assert bool(far.any())
    assert torch.allclose(found[far], wanted[far], rtol=0.08)


def test_turning_crystal_and_laboratory_alike_changes_nothing() -> None:
    experiment = still(helix("helix_p1_odd"), spread_deg=0.3, n_cells=(3.0, 4.0, 5.0))
    assert experiment.structure is not None
    contacts = contacts_of(experiment.structure, experiment.crystal.cell, 4.0)
    simulate = OnePhononImage(quadrature_domains(65, "normal"))
    turn = xyz_rotation(f64([0.4, -1.1, 2.0]))
    beam, panel, crystal = experiment.beam, experiment.panel, experiment.crystal
    turned = replace(
        experiment,
        beam=replace(beam, direction=beam.direction @ turn.T, polarization_axis=turn @ beam.polarization_axis),
        panel=replace(panel, **{n: turn @ getattr(panel, n) for n in ("origin", "fast_axis", "slow_axis", "normal")}),
        crystal=replace(crystal, misset=xyz_angles(turn @ crystal.rotation)),
    )
    one, other = (simulate(e, contacts, SPRINGS, PIXELS) for e in (experiment, turned))
    assert torch.allclose(one, other, rtol=1e-3)  # the rule for misorientations has directions of its own


def parameters(
    model: CrystalModel, simulate: OnePhononImage, pixels: Tensor, full: bool
) -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
    """Relative photons as a function of everything that can be refined, and where it starts."""
    experiment = still(model, n_cells=(2.2, 3.0, 1.9), spread_deg=0.7)
    structure = experiment.structure
    assert structure is not None
    if full:
        sensor = Sensor(f64(2000.0), f64([0.0, 2e-4, 5e-4]), f64([1e-4, 3.5e-4]))
        beam = replace(experiment.beam, divergence=f64(1e-3), kahn=f64(0.6))
        scan = Scan(f64([1.0, 0.0, 0.0]), f64([-0.01, 0.01]), f64([0.4, 0.6]))
        panel = replace(experiment.panel, sensor=sensor)
        experiment = replace(experiment, beam=beam, scan=scan, panel=panel)
    contacts = contacts_of(structure, experiment.crystal.cell, 4.0)

    def photons(
        misset: Tensor, cell: Tensor, n: Tensor, spread: Tensor, gamma: Tensor, xyz: Tensor, b: Tensor, mm: Tensor
    ) -> Tensor:
        crystal = replace(experiment.crystal, misset=misset, cell=cell, n_cells=n, mosaic_spread=spread)
        moved = replace(structure, fractional=torch.cat([xyz, structure.fractional[2:]]))
        factors = replace(experiment.structure_factors, b_iso=b)
        origin = experiment.panel.origin + torch.stack([0 * mm, 0 * mm, mm / 1000])
        changed = replace(
            experiment,
            crystal=crystal,
            structure=moved,
            structure_factors=factors,
            panel=replace(experiment.panel, origin=origin),
        )
        return simulate(changed, contacts, Springs(gamma[0], gamma[1]), pixels) / scale

    crystal = experiment.crystal
    start = (crystal.misset, crystal.cell, crystal.n_cells, crystal.mosaic_spread, f64([2.0, 4.0]))
    start = (*start, structure.fractional[:2], f64(1.5), f64(0.3))
    scale = f64(1.0)
    scale = photons(*start).mean()
    return photons, start


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("shape", [Square(), Gaussian()])
def test_gradients(full: bool, shape: Square | Gaussian) -> None:
    simulate = OnePhononImage(quadrature_domains(7), shape, oversample=1 + full, d_min=0.9, tile=300)
    photons, start = parameters(helix("helix_p1_odd"), simulate, PIXELS[: 2 if full else 4], full)
    start = tuple(t.clone().requires_grad_() for t in start)
    assert gradcheck(photons, start, eps=1e-6, atol=1e-6, rtol=1e-5, check_forward_ad=True, fast_mode=full)


@pytest.mark.parametrize("atoms_at", ["pixel", "subpixel", "sample"])
def test_jacobian_of_all_directions_at_once(atoms_at: AtomsAt, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forwards in one pass equals backwards with every block of pixels computed again."""
    monkeypatch.setattr("sim_core.diffuse.image.BLOCK", 14)
    simulate = OnePhononImage(quadrature_domains(7), oversample=1 + (atoms_at == "subpixel"), atoms_at=atoms_at)
    photons, start = parameters(helix("helix_p212121"), simulate, PIXELS, False)
    forwards = torch.func.jacfwd(photons, argnums=tuple(range(len(start))))(*start)
    backwards = torch.autograd.functional.jacobian(photons, start)
    for one, other in zip(forwards, backwards, strict=True):
        assert torch.allclose(one, other, atol=1e-9 * float(other.abs().max()))


def test_single_precision() -> None:
    found = []
    for dtype in (torch.float64, torch.float32):
        simulate = OnePhononImage(quadrature_domains(7), dtype=dtype)
        photons, start = parameters(helix("helix_p212121"), simulate, PIXELS, False)
        start = tuple(t.clone().requires_grad_() for t in start)
        value = photons(*start)
        tangents = torch.func.jacfwd(photons, argnums=(0, 4))(*(t.detach() for t in start))
        found.append([value, *torch.autograd.grad(value.sum(), start), *tangents])
    for double, single in zip(*([t.detach() for t in row] for row in found), strict=True):
        assert torch.allclose(single.double(), double, atol=1e-4 * float(double.abs().max()))


@pytest.mark.parametrize("spread_deg", [0.1, 0.2])
def test_atoms_may_be_summed_once_a_pixel(spread_deg: float) -> None:
    """The error grows with the square of the spread: within 1 % everywhere up to 0.2 degrees."""
    model = helix("helix_p212121")
    pixels = torch.cartesian_prod(torch.arange(0, 64, 2), torch.arange(0, 64, 2))
    exact = OnePhononImage(quadrature_domains(25, "normal"), atoms_at="sample")
    wanted = simulated(model, exact, pixels, spread_deg=spread_deg)
    found = simulated(model, OnePhononImage(quadrature_domains(13, "normal")), pixels, spread_deg=spread_deg)
    error = found / wanted - 1
    assert error.abs().max() < 0.015
    assert error.square().mean().sqrt() < 0.003


def expected(name: str, spots: int, samples: int) -> tuple[np.ndarray, ...]:
    """Bragg part, diffuse part, mean and sd of the Monte-Carlo image, and q [1/A] of its pixels."""
    params = json.loads((shared_case(name) / "params.json").read_text())
    known = np.load(shared_case(name) / "float.npz")
    misset = xyz_rotation(torch.deg2rad(f64(params["mean_block_rotation_deg"])))
    misset = misset @ xyz_rotation(torch.deg2rad(f64(params["misset_deg"])))
    experiment = still(
        read_model(shared_case(name) / "model.pdb"),
        misset_deg=torch.rad2deg(xyz_angles(misset)).tolist(),
        spread_deg=params["mosaic_spread_deg"],
        fluence=params["fluence"],
    )
    assert experiment.structure is not None
    contacts = contacts_of(experiment.structure, experiment.crystal.cell, params["cutoff"])
    oversample = 1 if spots == 1 else 3
    simulate = OnePhononImage(
        quadrature_domains(samples, "normal"), oversample=oversample, atoms_at="sample", dtype=torch.float32
    )
    diffuse = simulate(experiment, contacts, SPRINGS)
    u = simulate.vibrations(experiment, contacts, SPRINGS).u_cart
    s, photons = rays(experiment, experiment.panel.all_pixels(), oversample)
    rows, weights = orientations(experiment.crystal, experiment.scan, quadrature_domains(spots, "normal"))
    bragg = torch.zeros(len(s), dtype=torch.float64)
    for row, weight in zip(rows, weights, strict=True):
        hkl = (s @ row.T).flatten(0, 1)
        F = amplitudes(experiment.structure, experiment.crystal.cell, u, hkl, dtype=torch.float32)
        x = (hkl - hkl.round()).T[:, :, None]
        lattice = Square().profile(x, experiment.crystal.n_cells)[:, 0]
        bragg += weight * ((F.abs().square() * lattice).unflatten(0, (-1, oversample**2)) * photons).sum(-1)
    q = 2 * torch.pi * s.mean(1).norm(dim=-1)
    return bragg.numpy(), diffuse.numpy(), known["mean"].flatten(), known["sd"].flatten(), q.numpy()


@pytest.mark.shared
def test_monte_carlo_of_vibrating_blocks() -> None:
    bragg, diffuse, mean, sd, q = expected("still_one_block", 1, 1)
    low, high = (q > 0.35) & (q < 1.5), q > 0.35
    assert np.mean(((mean - bragg - diffuse) / sd)[low] ** 2) < 1.3
    assert abs(np.sum((mean - bragg)[low]) / np.sum(diffuse[low]) - 1) < 0.03
    assert 1 < np.sum((mean - bragg)[high]) / np.sum(diffuse[high]) < 1.14


@pytest.mark.shared
@pytest.mark.slow
def test_monte_carlo_of_a_mosaic_crystal() -> None:
    bragg, diffuse, mean, sd, q = expected("still_mosaic", 187, 25)
    low = (q > 0.35) & (q < 1.5)
    noise = np.hypot(sd, 0.05 * bragg)  # the grain of 800 blocks
    assert np.mean(((mean - bragg - diffuse) / noise)[low] ** 2) < 2.4
