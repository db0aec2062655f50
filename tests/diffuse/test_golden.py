"""Maps against those of an independent implementation and of eryx."""

import numpy as np
import pytest
import torch

from sim_core.diffuse.brillouin import unique_wavevectors, zone_grid
from sim_core.diffuse.dynamical_matrix import dynamical_matrix, normal_modes
from sim_core.diffuse.one_phonon import OnePhonon, model_u_iso
from sim_core.diffuse.reference import u_iso_of_diagonal
from sim_core.diffuse.structure import scattering_vectors

from .crystals import Case, case, folder, relative

OURS = ["helix_p1_allatom", "helix_p1_even_gamma", "helix_p1_floppy", "helix_p1_odd", "helix_p212121", "helix_p31"]
PUBLISHED = ["2ol9_p1", "5zck_p1", "7n2h_even"]
ROUNDED = {"helix_p31": 3e-5, "7n2h_even": 3e-5}
"""Made from operations with six digits."""


def masked(found: torch.Tensor, one: Case) -> np.ndarray:
    return np.where(one.arrays["res_mask"], found.numpy(), np.nan)


def counts(one: Case, cells: int) -> np.ndarray:
    units, atoms, side = one.contacts.units, one.contacts.atoms, round(cells ** (1 / 3))
    found = np.zeros((units, cells, units), dtype=np.int64)
    cell = one.contacts.cells[one.contacts.cell].numpy() + side // 2
    place = (cell[:, 0] * side + cell[:, 1]) * side + cell[:, 2]
    np.add.at(found, (one.contacts.first.numpy() // atoms, place, one.contacts.second.numpy() // atoms), 1)
    for unit in range(units):
        found[unit, cells // 2, unit] += atoms
    return found


@pytest.mark.parametrize("name", [*OURS, *(pytest.param(n, marks=pytest.mark.shared) for n in PUBLISHED)])
@pytest.mark.parametrize("reference", [False, True], ids=["corrected", "eryx"])
def test_maps(name: str, reference: bool) -> None:
    if not folder(name).is_dir():
        pytest.skip("the published structures are not kept here")
    one = case(name, reference)
    prefix = "asis" if reference else "corr2" if "corr2_ADP" in one.arrays else "corr"
    if f"{prefix}_ADP" not in one.arrays:
        pytest.skip("eryx cannot do this case")
    tolerance = 1e-10 if reference else ROUNDED.get(name, 1e-10)
    wanted = one.arrays[f"{prefix}_contact_counts"]
    np.testing.assert_array_equal(counts(one, wanted.shape[1]), wanted)
    q = scattering_vectors(one.hkl, one.structure.basis)
    wavevectors = unique_wavevectors(one.hkl)
    simulate = OnePhonon(one.contacts, one.bodies, conjugate=reference)
    moved = one.bodies.covariance(one.structure, one.contacts, one.springs, zone_grid(one.rates))
    u_iso = (u_iso_of_diagonal if reference else model_u_iso)(moved, one.structure, one.bodies)
    assert relative(u_iso, one.arrays[f"{prefix}_ADP"]) <= tolerance
    for kind, u in (("data", None), ("model", u_iso)):
        found = masked(simulate(one.structure, one.springs, q, wavevectors, u), one)
        reference_map = one.arrays[f"{prefix}_intensity_{kind}adp"]
        np.testing.assert_array_equal(np.isnan(found), np.isnan(reference_map))
        assert relative(found, reference_map) <= tolerance


@pytest.mark.parametrize(("name", "rank"), [("helix_p1_odd", 0), ("helix_p1_odd", 3), ("helix_p212121", 0)])
def test_single_modes(name: str, rank: int) -> None:
    one = case(name)
    keep = np.flatnonzero(~np.isnan(one.arrays["corr_intensity_dataadp"]))[::15]
    q = scattering_vectors(one.hkl, one.structure.basis)[keep]
    F = OnePhonon(one.contacts, one.bodies).structure_factors(one.structure, q, one.structure.b_iso / (8 * torch.pi**2))
    hessian = one.bodies.hessian(one.structure, one.contacts, one.springs)
    K = dynamical_matrix(hessian, one.contacts.cells, one.hkl[keep])
    modes = normal_modes(K, one.bodies.mass(one.structure))
    work = torch.einsum("km,km->k", F.conj(), modes.shapes[:, :, rank]).abs().square()
    alone = (modes.omega - modes.omega[:, rank : rank + 1]).abs() > 1e-6
    alone[:, rank] = True
    chosen = alone.all(-1)
    wanted = one.arrays[f"corr_intensity_rank{rank}"][keep]
    assert chosen.sum() > 0.5 * len(chosen)
    assert relative((work / modes.omega[:, rank] ** 2)[chosen], wanted[chosen.numpy()]) < 1e-9
