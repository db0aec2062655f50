"""What any right simulation of diffuse scattering obeys."""

from dataclasses import replace
from itertools import product

import pytest
import torch

from refine.experiment.atoms import build_structure
from sim_core.diffuse.bodies import SingleAtoms
from sim_core.diffuse.brillouin import Sampling, fold, grid, unique_wavevectors
from sim_core.diffuse.elastic_network import find_contacts
from sim_core.diffuse.one_phonon import OnePhonon
from sim_core.diffuse.structure import cell_positions, scattering_vectors

from .crystals import Case, case, f64, relative


def intensity(one: Case, hkl: torch.Tensor, **settings: object) -> torch.Tensor:
    simulate = OnePhonon(one.contacts, one.bodies, **settings)  # type: ignore[arg-type]
    return simulate(one.structure, one.springs, scattering_vectors(hkl, one.structure.basis))


@pytest.mark.parametrize("name", ["helix_p1_odd", "helix_p212121", "helix_p31", "helix_p1_allatom"])
def test_laue_symmetry(name: str) -> None:
    one = case(name)
    hkl = torch.rand(200, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 6 - 3
    plain = intensity(one, hkl)
    for rotation in torch.from_numpy(one.model.rotations).double():
        for sign in (1, -1):
            assert relative(intensity(one, sign * hkl @ rotation), plain) < 1e-12


@pytest.mark.parametrize("name", ["helix_p212121", "helix_p31"])
def test_folding(name: str) -> None:
    one = case(name)
    folded = fold(one.hkl, one.rates, torch.from_numpy(one.model.rotations))
    whole = intensity(one, one.hkl)
    part = intensity(one, one.hkl[folded.points])[folded.row]
    assert torch.equal(whole.isnan(), part.isnan())
    assert relative(part, whole) < 1e-12
    assert len(folded.points) < 0.3 * len(one.hkl)


@pytest.mark.parametrize("name", ["helix_p1_even_gamma", "helix_p212121", "helix_p31"])
def test_a_grid_is_its_points(name: str) -> None:
    one = case(name)
    q = scattering_vectors(one.hkl, one.structure.basis)
    simulate = OnePhonon(one.contacts, one.bodies)
    whole = simulate(one.structure, one.springs, q, unique_wavevectors(one.hkl))
    shuffled = torch.randperm(len(q), generator=torch.Generator().manual_seed(2))[:500]
    free = simulate(one.structure, one.springs, q[shuffled].requires_grad_()).detach()
    assert torch.equal(free.isnan(), whole[shuffled].isnan())
    assert ((free - whole[shuffled]).abs() / whole[shuffled]).nan_to_num().max() < 1e-12


def test_batches_do_not_matter() -> None:
    one = case("helix_p212121")
    assert relative(intensity(one, one.hkl, batch=1 << 12), intensity(one, one.hkl)) < 1e-13


def test_points_without_numbers_of_their_own_are_not_merged() -> None:
    """Rates so different that their grid has more places than double precision tells apart."""
    hkl, _ = grid(Sampling(3, 3, 97), Sampling(3, 3, 101), Sampling(0, 1, 103))
    rotations = torch.stack([torch.diag(torch.tensor(d)) for d in ((1, 1, 1), (-1, -1, 1), (1, -1, -1), (-1, 1, -1))])
    folding = fold(hkl, (97, 101, 103), rotations)
    assert len(folding.points[folding.row].unique()) == len(hkl)


@pytest.mark.parametrize("name", ["helix_p1_odd", "helix_p212121", "helix_p1_allatom"])
def test_single_precision(name: str) -> None:
    one = case(name)
    assert relative(intensity(one, one.hkl, dtype=torch.float32), intensity(one, one.hkl)) < 1e-4


@pytest.mark.parametrize("name", ["helix_p1_odd", "helix_p31"])
@pytest.mark.parametrize("single", [False, True], ids=["rigid", "atoms"])
def test_explicit_supercell(name: str, single: bool) -> None:
    """The covariance of 3 x 3 x 3 cells with every atom and every contact written out."""
    one = case(name)
    bodies = SingleAtoms() if single else one.bodies
    s, side = one.structure, 3
    shifts = torch.tensor(list(product(range(side), repeat=3)))
    cells = torch.stack([cell_positions(s) + d.double() @ s.basis for d in shifts])
    n = cells[0].shape[0] * cells[0].shape[1]
    x = cells.reshape(-1, 3)
    unit = torch.arange(len(x)) // one.contacts.atoms
    stiffness = torch.zeros(len(x), len(x), dtype=torch.float64)
    for image in product((-1, 0, 1), repeat=3):
        moved = x + (torch.tensor(image).double() * side) @ s.basis
        near = (x[:, None] - moved[None]).norm(dim=-1) <= one.params.get("gnm_cutoff", 4.0)
        same = image == (0, 0, 0)
        if same:
            near &= ~torch.eye(len(x), dtype=torch.bool)
        intra = (unit[:, None] == unit[None]) if same else torch.zeros_like(near)
        gamma = near * torch.where(intra, one.springs.gamma_intra, one.springs.gamma_inter)
        stiffness += torch.diag(gamma.sum(1)) - gamma
    if single:
        basis = torch.eye(len(x), dtype=torch.float64)
        inverse = torch.linalg.pinv(stiffness, hermitian=True, rtol=1e-11)
        coordinates = 1
    else:
        arms = (cells - cells.mean(2, keepdim=True)).reshape(-1, 3)
        basis = torch.zeros(3 * len(x), 6 * int(unit[-1] + 1), dtype=torch.float64)
        for atom, (arm, u) in enumerate(zip(arms, unit.tolist(), strict=True)):
            for axis in range(3):
                shift, turn = torch.eye(3, dtype=torch.float64)[axis], torch.eye(3, dtype=torch.float64)[axis]
                basis[3 * atom : 3 * atom + 3, 6 * u + axis] = shift
                basis[3 * atom : 3 * atom + 3, 6 * u + 3 + axis] = torch.linalg.cross(turn, arm)
        full = basis.T @ torch.kron(stiffness, torch.eye(3, dtype=torch.float64)) @ basis
        inverse = torch.linalg.pinv(full, hermitian=True, rtol=1e-11)
        coordinates = 3
    hkl = f64([[1, 0, 0], [3, 2, -1], [-6, 1, 5], [2, 2, 2]]) / 3
    q = scattering_vectors(hkl, s.basis)
    one = replace(one, bodies=bodies)
    found = intensity(one, hkl)
    simulate = OnePhonon(one.contacts, SingleAtoms())
    w = simulate.structure_factors(s, q, s.b_iso / (8 * torch.pi**2)) / q.norm(dim=-1, keepdim=True)
    phase = torch.exp(1j * (q @ (shifts.double() @ s.basis).T))
    waves = (phase[:, :, None] * w[:, None]).reshape(len(q), -1)
    if single:
        force = waves * q.norm(dim=-1, keepdim=True)
    else:
        force = (waves[:, :, None] * q[:, None]).reshape(len(q), -1) @ basis.to(torch.complex128)
    assert coordinates * len(x) == len(basis)
    assert n * side**3 == len(x)
    wanted = torch.einsum("qa,ab,qb->q", force.conj(), inverse.to(torch.complex128), force).real / side**3
    assert relative(found, wanted) < 1e-9


def test_occupancy_is_optional() -> None:
    one = case("helix_p31")
    weighted = build_structure(one.model, use_occupancy=True)
    assert weighted.weight.min() < 1
    assert build_structure(one.model).weight.min() == 1


def test_contacts_are_those_of_a_direct_search() -> None:
    generator = torch.Generator().manual_seed(3)
    basis = f64([[6.0, 0, 0], [-2.0, 5.0, 0], [1.0, -1.5, 4.0]])
    x = (torch.rand(2, 7, 3, dtype=torch.float64, generator=generator) * 3 - 1) @ basis
    for cutoff in (1.5, 4.0, 7.0):
        contacts = find_contacts(x, basis, cutoff)
        cells = map(tuple, contacts.cells[contacts.cell].tolist())
        found = set(zip(contacts.first.tolist(), contacts.second.tolist(), cells, strict=True))
        atoms = x.reshape(-1, 3)
        wanted = set()
        for d in product(range(-7, 8), repeat=3):
            near = (atoms[None] + f64(d) @ basis - atoms[:, None]).norm(dim=-1) <= cutoff
            wanted |= {(i, j, d) for i, j in near.nonzero().tolist() if d != (0, 0, 0) or i != j}
        assert found == wanted
        assert len(found) == len(contacts.first)
