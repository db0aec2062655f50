"""Bulk solvent: the mask and its transform against gemmi, direct sums and symmetry."""

from dataclasses import replace

import gemmi
import numpy as np
import pytest
from support import REPOSITORY

from refine.errors import InputError
from refine.formats.models import CrystalModel, read_model
from refine.formats.solvent import RADII, SolventMask, fine_amplitudes, mask_amplitudes, solvent_mask

NAMES = ("helix_p1", "helix_p31", "helix_p212121")
LOW, HIGH = (-3, -2, -4), (3, 4, 2)


@pytest.fixture(params=NAMES)
def model(request: pytest.FixtureRequest) -> CrystalModel:
    return read_model(REPOSITORY / "data" / "diffuse" / f"{request.param}.pdb")


def box() -> np.ndarray:
    axes = [np.arange(a, b + 1) for a, b in zip(LOW, HIGH, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)


def structure_of(model: CrystalModel) -> gemmi.Structure:
    """The atoms of the model, by gemmi alone."""
    structure = gemmi.read_structure(str(model.path))
    structure.remove_alternative_conformations()
    structure.remove_hydrogens()
    structure.remove_waters()
    structure.remove_empty_chains()
    return structure


@pytest.mark.parametrize("radii", RADII)
def test_gemmi_says_the_same(model: CrystalModel, radii: str) -> None:
    structure, grid = structure_of(model), gemmi.FloatGrid()
    grid.setup_from(structure, 0.4)
    gemmi.SolventMasker(RADII[radii]).put_mask_on_float_grid(grid, structure[0])
    mask = solvent_mask(model, spacing=0.4, radii=radii)
    np.testing.assert_array_equal(mask.values, grid.array)
    assert mask.fraction > 0.05 or radii == "refmac"  # which drops small islands
    transform, hkl = gemmi.transform_map_to_f_phi(grid), box()
    theirs = transform.get_value_by_hkl(hkl.astype(np.int32))
    np.testing.assert_allclose(mask_amplitudes(mask, hkl), theirs, rtol=0, atol=1e-5 * mask.volume)


def test_the_factor_is_the_one_of_gemmi(model: CrystalModel) -> None:
    scaling = gemmi.Scaling(gemmi.UnitCell(*model.cell), structure_of(model).find_spacegroup())
    scaling.use_solvent, scaling.k_sol, scaling.b_sol = True, 0.35, 46.0
    s = 1 / 3.2
    assert scaling.get_solvent_scale(s * s / 4) == pytest.approx(0.35 * np.exp(-46.0 * s * s / 4))


def test_the_atoms_of_gemmi_have_the_same_phases(model: CrystalModel) -> None:
    """Solvent is where atoms are not: at low angles the two are opposite."""
    structure, cell = structure_of(model), gemmi.UnitCell(*model.cell)
    calculator = gemmi.StructureFactorCalculatorX(structure.cell)
    hkl = np.array([h for h in box().tolist() if any(h) and cell.calculate_d(h) > 3.5])
    atoms = np.array([calculator.calculate_sf_from_model(structure[0], h) for h in hkl.tolist()])
    mask = mask_amplitudes(solvent_mask(model), hkl)
    length = np.linalg.norm(atoms) * np.linalg.norm(mask)
    cosine, of_the_other_sign = (atoms * mask.conj()).sum() / length, (atoms * mask).sum() / length
    assert cosine.real < -0.4
    assert abs(cosine.imag) < 0.1
    assert abs(of_the_other_sign) < 0.3


def test_symmetry(model: CrystalModel) -> None:
    """A density with the group's operations has F(h) = F(h R) exp(2 pi i h t)."""
    mask, hkl = solvent_mask(model), box()
    one = mask_amplitudes(mask, hkl)
    for rotation, translation in zip(model.rotations, model.translations, strict=True):
        other = mask_amplitudes(mask, hkl @ rotation) * np.exp(2j * np.pi * hkl @ translation)
        np.testing.assert_allclose(other, one, rtol=0, atol=1e-9 * np.abs(one).max())


def test_origin_and_friedel(model: CrystalModel) -> None:
    mask, hkl = solvent_mask(model), box()
    assert mask_amplitudes(mask, np.array([[0, 0, 0]]))[0] == pytest.approx(mask.fraction * mask.volume)
    np.testing.assert_allclose(mask_amplitudes(mask, -hkl), mask_amplitudes(mask, hkl).conj(), atol=1e-9)
    assert mask.volume == pytest.approx(abs(np.linalg.det(model.basis)), rel=1e-5)


def test_moved_positions(model: CrystalModel) -> None:
    """A shift by a lattice vector changes nothing, another one does."""
    mask = solvent_mask(model)
    same = solvent_mask(model, model.xyz + np.array([1, -2, 3]) @ model.basis)
    np.testing.assert_array_equal(same.values, mask.values)
    assert np.abs(solvent_mask(model, model.xyz + np.array([1.0, 0.7, 0.3])).values - mask.values).max() == 1


def test_axes_that_the_file_turned(model: CrystalModel) -> None:
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    turned = replace(model, basis=model.basis @ turn, xyz=model.xyz @ turn)
    differing = (solvent_mask(turned).values != solvent_mask(model).values).mean()
    assert differing < 1e-3  # points that lie on a sphere


@pytest.mark.parametrize("centre", [(0.5, 0.5, 0.5), (0.0, 0.0, 0.0), (-0.31, 0.92, 4.17)])
def test_a_fine_grid_is_the_sum_over_one_cell(model: CrystalModel, centre: tuple[float, float, float]) -> None:
    mask, rates = solvent_mask(model, spacing=0.8), (3, 1, 4)
    fine = fine_amplitudes(mask, LOW, HIGH, rates, centre)
    assert fine.shape == tuple((b - a) * r + 1 for a, b, r in zip(LOW, HIGH, rates, strict=True))
    axes = [np.arange(n) / n for n in mask.values.shape]
    x = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    x = x - np.floor(x - (np.array(centre) - 0.5) + 1e-9)
    assert (np.abs(x - centre) <= 0.5 + 1e-8).all()
    generator = np.random.default_rng(4)
    for _ in range(5):
        place = [int(generator.integers(n)) for n in fine.shape]
        h = np.array(LOW) + np.array(place) / rates
        wanted = mask.volume / len(x) * (mask.values.reshape(-1) * np.exp(2j * np.pi * x @ h)).sum()
        assert fine[tuple(place)] == pytest.approx(wanted, abs=1e-9 * mask.volume)


def test_reflections_of_a_fine_grid_know_no_centre(model: CrystalModel) -> None:
    mask = solvent_mask(model)
    wanted = mask_amplitudes(mask, box())
    for rates, centre in (((1, 1, 1), (0.5, 0.5, 0.5)), ((2, 3, 4), (0.13, -0.4, 0.77))):
        fine = fine_amplitudes(mask, LOW, HIGH, rates, centre)[:: rates[0], :: rates[1], :: rates[2]]
        np.testing.assert_allclose(fine.reshape(-1), wanted, rtol=0, atol=1e-9 * mask.volume)


def test_a_box_of_solvent_is_a_product_of_sinc() -> None:
    """Between reflections too: a block about the centre of the cell, on a fine grid."""
    n, half = 64, 16
    values = np.zeros((n, n, n), dtype=np.float32)
    inside = slice(n // 2 - half, n // 2 + half + 1)
    values[inside, inside, inside] = 1
    fine = fine_amplitudes(SolventMask(values, 1000.0), (0, 0, 0), (3, 2, 1), (4, 4, 4))
    h, k, l = np.meshgrid(*(np.arange(m) / 4 for m in fine.shape), indexing="ij")
    width = (2 * half + 1) / n
    wanted = 1000 * width**3 * np.sinc(width * h) * np.sinc(width * k) * np.sinc(width * l)
    np.testing.assert_allclose(fine * np.exp(-1j * np.pi * (h + k + l)), wanted, rtol=0, atol=1.0)


def test_bad_settings(model: CrystalModel) -> None:
    with pytest.raises(InputError, match="cctbx or refmac"):
        solvent_mask(model, radii="bondi")
    with pytest.raises(InputError, match="spacing"):
        solvent_mask(model, spacing=0.0)
    with pytest.raises(InputError, match="space group"):
        solvent_mask(replace(model, rotations=model.rotations[:1] * 2, translations=model.translations[:1]))
    mask = solvent_mask(model, spacing=1.0)
    with pytest.raises(InputError, match="wave of index"):
        mask_amplitudes(mask, np.array([[9, 0, 0]]))
    with pytest.raises(InputError, match="wave of index"):
        fine_amplitudes(mask, (0, 0, -12), (1, 1, 1))
