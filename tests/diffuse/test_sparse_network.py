"""Single atoms through sparse triangles: against dense matrices, with parts that shift freely, in every derivative."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from sim_core.diffuse.bodies import SingleAtoms
from sim_core.diffuse.brillouin import separate_wavevectors
from sim_core.diffuse.dynamical_matrix import dynamical_matrix
from sim_core.diffuse.elastic_network import Springs, find_contacts, scalar_hessian
from sim_core.diffuse.one_phonon import OnePhonon
from sim_core.diffuse.sparse_network import find_parts
from sim_core.diffuse.structure import cell_positions, miller_indices, scattering_vectors

from .crystals import Case, case, f64, relative

POINTS = f64([[0.5, 1.0, 0.0], [1 / 3, 2 / 3, -4 / 3], [0.21, -1.37, 2.45], [1.0, 0.0, 2.0], [-0.21, 0.37, 1.55]])
CUTOFFS = {"one part": 4.0, "helices": 1.6, "pieces": 1.35}
"""The shortest leave whole parts of the crystal without a spring between them."""


def network(name: str, cutoff: float) -> tuple[Case, OnePhonon]:
    one = case(name)
    contacts = find_contacts(cell_positions(one.structure), one.structure.basis, cutoff)
    return one, OnePhonon(contacts, SingleAtoms(), finite_at_bragg=True)


def dense(one: Case, simulate: OnePhonon, q: Tensor, springs: Springs) -> Tensor:
    """F^H K^+ F from all eigenvectors."""
    K = dynamical_matrix(
        scalar_hessian(simulate.contacts, springs), simulate.contacts.cells, miller_indices(q, one.structure.basis)
    )
    u_iso = one.structure.b_iso / (8 * torch.pi**2)
    F = simulate.structure_factors(one.structure, q, u_iso)
    inverse = torch.linalg.pinv(K, hermitian=True, rtol=1e-10)
    return torch.einsum("qa,qab,qb->q", F.conj(), inverse, F).real


@pytest.mark.parametrize("cutoff", CUTOFFS.values(), ids=CUTOFFS)
@pytest.mark.parametrize("name", ["helix_p1_floppy", "helix_p31"])
def test_dense_matrices_give_the_same(name: str, cutoff: float) -> None:
    one, simulate = network(name, cutoff)
    q, springs = scattering_vectors(POINTS, one.structure.basis), Springs(f64(1.3), f64(0.6))
    assert relative(simulate(one.structure, springs, q), dense(one, simulate, q, springs)) < 1e-10
    strict = replace(simulate, finite_at_bragg=False)(one.structure, springs, q)
    connected = cutoff == CUTOFFS["one part"]
    assert strict.isnan().tolist() == [not connected] * 3 + [True] + [not connected]


@pytest.mark.parametrize("cutoff", CUTOFFS.values(), ids=CUTOFFS)
def test_variances_are_the_diagonal_of_the_inverse(cutoff: float) -> None:
    one, simulate = network("helix_p31", cutoff)
    springs, kappa = Springs(f64(1.3), f64(0.6)), f64([[0, 0, 0], [0.5, 0, 0], [1 / 3, 1 / 3, 0]])
    K = dynamical_matrix(scalar_hessian(simulate.contacts, springs), simulate.contacts.cells, kappa)
    wanted = torch.linalg.pinv(K, hermitian=True, rtol=1e-10).diagonal(dim1=-1, dim2=-2).real.sum(0)
    found = simulate.bodies.covariance(one.structure, simulate.contacts, springs, kappa)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("cutoff", [4.0, 1.6])
def test_derivatives_forwards_and_backwards(cutoff: float) -> None:
    """Also in wavevectors where the shifts that are left out turn with them."""
    one, simulate = network("helix_p1_floppy", cutoff)
    simulate = replace(simulate, bragg_tolerance=1e-3)
    basis = one.structure.basis

    def intensity(gamma: Tensor, q: Tensor) -> Tensor:
        return simulate(one.structure, Springs(*gamma), q, separate_wavevectors(miller_indices(q, basis))) / 100

    inputs = (f64([1.3, 0.6]), scattering_vectors(POINTS, basis))
    backward = torch.autograd.functional.jacobian(intensity, inputs)
    forward = torch.func.jacfwd(intensity, argnums=(0, 1))(*inputs)
    for one_way, other in zip(backward, forward, strict=True):
        torch.testing.assert_close(one_way, other, rtol=1e-10, atol=1e-10)
    leaves = tuple(t.requires_grad_() for t in inputs)
    assert gradcheck(intensity, leaves, eps=1e-6, atol=1e-6, rtol=1e-6)


def test_parts_are_those_that_springs_tie() -> None:
    _, simulate = network("helix_p31", CUTOFFS["pieces"])
    contacts, parts = simulate.contacts, find_parts(simulate.contacts)
    assert torch.equal(parts.part[contacts.first], parts.part[contacts.second])
    assert 3 < int(parts.part.max()) + 1 < contacts.units * contacts.atoms
    assert len(parts.free(f64([0.3, 0.2, 0.1]), 1e-6)) == int(parts.part.max()) + 1
