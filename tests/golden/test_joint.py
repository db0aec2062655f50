"""Images of vibrating blocks through the commands, against others: a Monte Carlo, and a sum over atoms and cells."""

from itertools import product
from pathlib import Path
from typing import Any

import gemmi
import numpy as np
import pytest
from support import REPOSITORY, SHARED

from refine.compose import load
from refine.run import refine
from refine.simulation import simulate

CASE = SHARED / "golden" / "joint" / "still_one_block"
HELIX = REPOSITORY / "data" / "diffuse" / "helix_p1.pdb"
R_E = 2.8179403262e-15

JOINT = [
    "experiment=image",
    "simulator.diffuse=one_phonon",
    "structure_factors.source=atoms",
    "structure_factors.at=pixel",
    "model.adp=network",
    "beam.polarization=0",
    "detector.convention=xds",
    "detector.oversample=1",
    "crystal.mosaic_domains=1",
    "simulator.background=flat",
    "initial.background=0",
    "initial.mosaic_spread_deg=0",
    "parameters.background.free=false",
    "parameters.mosaic_spread_deg.free=false",
]
STILL = [
    *JOINT,
    f"model.path={CASE / 'model.pdb'}",
    f"data.image={CASE / 'noise.cbf'}",
    "crystal.n_cells=[8,8,6]",
    "beam.fluence=6.3031638522647726e29",
    "truth.misset_deg=[8,-5,13]",
    "truth.mosaic_spread_deg=0",
    "truth.mosaic_domains=1",
    "truth.gamma_intra=2",
    "truth.gamma_inter=4",
    "truth.scale=1",
]
CELL = "crystal.cell=[12.895,11.564,16.132,90,90,90]"


def simulated(folder: Path, *overrides: str) -> tuple[np.ndarray, np.ndarray]:
    """Photons of spots, and of the diffuse scattering between them, as ``simulate.py`` writes them."""
    images = []
    for kind in ("none", "one_phonon"):
        said = [*overrides, "simulate.values=truth", f"output={folder / kind}.npy", f"simulator.diffuse={kind}"]
        images.append(np.load(simulate(load(*said))))
    return images[0], images[1] - images[0]


def flight(pixels: tuple[int, int], size: float, centre: tuple[float, float], distance: float) -> np.ndarray:
    """From the sample to the middle of every pixel [mm], the beam along z, fast along x, slow along y."""
    y, x = np.mgrid[: pixels[1], : pixels[0]] + 0.5
    return np.stack([x * size - centre[0], y * size - centre[1], np.full(x.shape, distance)], -1)


@pytest.mark.shared
def test_monte_carlo_of_vibrating_blocks(tmp_path: Path) -> None:
    spots, diffuse = simulated(tmp_path, *STILL, CELL)
    known = np.load(CASE / "float.npz")
    mean, sd = known["mean"], known["sd"]
    r = flight((64, 64), 0.75, (24.0, 24.0), 45.0)
    q = 2 * np.pi * np.linalg.norm(r / np.linalg.norm(r, axis=-1, keepdims=True) - [0, 0, 1], axis=-1)
    low, high = (q > 0.35) & (q < 1.5), q > 0.35
    assert np.mean(((mean - spots - diffuse) / sd)[low] ** 2) <= 1.3
    assert abs((mean - spots)[low].sum() / diffuse[low].sum() - 1) < 0.03
    assert abs((mean - spots)[high].sum() / diffuse[high].sum() - 1) < 0.14  # several phonons at once are left out


OPEN = ["crystal.cell=null", "initial.scale=estimate", "initial.background=estimate", "parameters.background.free=true"]
"""What a user may leave to the program."""


@pytest.mark.shared
@pytest.mark.parametrize(
    "more", [[CELL, "initial.scale=1.105170918"], pytest.param(OPEN, marks=pytest.mark.slow)], ids=["known", "open"]
)
def test_refinement_of_the_monte_carlo_image(tmp_path: Path, more: list[str]) -> None:
    start = ["initial.misset_deg=[8.3,-5.3,12.8]", "initial.gamma_intra=1", "initial.gamma_inter=8"]
    free = [f"parameters.{name}.free=true" for name in ("gamma_intra", "gamma_inter", "scale")]
    said = [*STILL, "simulator.d_min_A=3.5", *start, *free, *more, "logger=none", "trainer.accelerator=cpu"]
    found = refine(load(*said), tmp_path)
    assert found["status"] == "converged"
    assert found["agreement"]["chi2"] < 1.5
    entries: dict[str, dict[str, Any]] = found["parameters"]
    within = {f"misset_deg_{axis}": 0.005 for axis in "xyz"}
    within |= {"gamma_inter": 0.05 * 4, "gamma_intra": 0.15 * 2, "scale": 0.01}
    for name, limit in within.items():
        entry = entries[name]
        assert abs(entry["error"]) < limit, name
        assert 0 < entry["esd"] < limit, name
        assert abs(entry["error"]) < 4 * entry["esd"], name
    if more is OPEN:
        assert entries["background"]["refined"] < 3 * entries["background"]["esd"] + 1


def skew(s: np.ndarray) -> np.ndarray:
    """S with S l = l x s: how far an atom at s goes when its body turns by l."""
    return np.array([[0, s[2], -s[1]], [-s[2], 0, s[0]], [s[1], -s[0], 0]])


def turned(misset_deg: tuple[float, ...]) -> np.ndarray:
    """About the fixed axes x, then y, then z."""
    (x, y, z), c, s = np.radians(misset_deg), np.cos, np.sin
    about_x = np.array([[1, 0, 0], [0, c(x), -s(x)], [0, s(x), c(x)]])
    about_y = np.array([[c(y), 0, s(y)], [0, 1, 0], [-s(y), 0, c(y)]])
    about_z = np.array([[c(z), -s(z), 0], [s(z), c(z), 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def block(n_cells: tuple[int, ...], intra: float, inter: float, cutoff: float) -> tuple[Any, ...]:
    """Atoms of the helix and the covariance of the displacements of a block, cell by cell in real space.

    The block is repeated periodically and its energy written down contact by contact.
    """
    file = gemmi.read_structure(str(HELIX))
    file.remove_alternative_conformations()
    file.remove_hydrogens()
    file.remove_waters()
    atoms = [site.atom for site in file[0].all()]
    x = np.array([atom.pos.tolist() for atom in atoms])
    basis, arms = np.array(file.cell.orth.mat.tolist()).T, x - x.mean(0)
    move = [np.hstack([np.eye(3), skew(s)]) for s in arms]
    cells = list(product(*map(range, n_cells)))
    hessian = np.zeros((len(cells), 6, len(cells), 6))
    around = list(product((-2, -1, 0, 1, 2), repeat=3))
    for d, i, j in product(around, range(len(x)), range(len(x))):
        apart = np.linalg.norm(x[j] + np.array(d) @ basis - x[i])
        if apart > cutoff or (i == j and not any(d)):
            continue
        gamma = inter if any(d) else intra
        for row, cell in enumerate(cells):
            other = cells.index(tuple((cell[k] + d[k]) % n_cells[k] for k in range(3)))
            hessian[row, :, row] += gamma * move[i].T @ move[i]
            hessian[row, :, other] -= gamma * move[i].T @ move[j]
    size = 6 * len(cells)
    covariance = np.linalg.pinv(hessian.reshape(size, size), rcond=1e-10, hermitian=True)
    return file.cell, atoms, x, move, np.array(cells) @ basis, covariance


def photons(misset_deg: tuple[float, ...], n_cells: tuple[int, ...], r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Photons of spots and of diffuse scattering in electron^2, by summing over atoms and over the cells of a block."""
    cell, atoms, x, move, origins, covariance = block(n_cells, 2.0, 4.0, 4.0)
    basis = np.array(cell.orth.mat.tolist()).T
    busing_levy = np.linalg.cholesky(np.linalg.inv(basis @ basis.T)).T  # a* along x, b* in the xy plane
    own = covariance[:6, :6]
    spots, diffuse = [], []
    for direction in (r / np.linalg.norm(r, axis=-1, keepdims=True)).reshape(-1, 3):
        s = direction - [0, 0, 1]
        hkl = np.linalg.solve(turned(misset_deg) @ busing_levy, s)
        q = 2 * np.pi * np.array(cell.frac.mat.tolist()).T @ hkl
        F, F1 = 0j, np.zeros(6, dtype=complex)
        for atom, place, a in zip(atoms, x, move, strict=True):
            f = atom.element.it92.calculate_sf(s @ s / 4)
            wave = f * np.exp(-0.5 * q @ a @ own @ a.T @ q + 1j * q @ place)
            F, F1 = F + wave, F1 + wave * (a.T @ q)
        lattice = np.exp(1j * origins @ q)
        every = np.outer(lattice, F1).ravel()
        spots.append(abs(F * lattice.sum()) ** 2)
        diffuse.append((every.conj() @ covariance @ every).real)
    return np.reshape(spots, r.shape[:2]), np.reshape(diffuse, r.shape[:2])


def test_a_triclinic_crystal_cell_by_cell(tmp_path: Path) -> None:
    """Neither the frames of atoms and lattice, nor the order and the signs of the misset, may be exchanged."""
    misset, n_cells = (14.0, -23.0, 37.0), (3, 4, 2)
    said = [*JOINT, f"model.path={HELIX}", "crystal.cell=null", f"crystal.n_cells={list(n_cells)}"]
    said += ["detector.pixels=[16,14]", "detector.pixel_size_mm=3.1", "detector.distance_mm=45"]
    said += ["detector.beam_center_mm=[23,24.5]", "beam.wavelength_A=1.0", "beam.fluence=1e29", "data.image=null"]
    said += [f"truth.misset_deg={list(misset)}", "truth.mosaic_spread_deg=0", "truth.mosaic_domains=1"]
    said += ["truth.gamma_intra=2", "truth.gamma_inter=4", "truth.scale=1"]
    spots, diffuse = simulated(tmp_path, *said)
    r = flight((16, 14), 3.1, (23.0, 24.5), 45.0)
    length = np.linalg.norm(r, axis=-1)
    solid_angle = 3.1**2 * 45.0 / length**3
    each = R_E**2 * 1e29 * solid_angle * (1 + (r[..., 2] / length) ** 2) / 2
    wanted_spots, wanted_diffuse = (each * part for part in photons(misset, n_cells, r))
    assert wanted_diffuse.sum() > 0.01 * wanted_spots.sum()
    np.testing.assert_allclose(diffuse, wanted_diffuse, rtol=1e-5, atol=1e-6 * wanted_diffuse.max())
    error = np.sqrt(np.mean((spots - wanted_spots) ** 2) / np.mean(wanted_spots**2))
    assert error < 3e-3  # amplitudes are interpolated
