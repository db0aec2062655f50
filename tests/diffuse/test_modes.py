"""Normal modes: acoustic branches, their slopes, the density of states."""

import torch

from sim_core.diffuse.bodies import SingleAtoms
from sim_core.diffuse.dynamical_matrix import density_of_states, dispersion, dynamical_matrix, normal_modes
from sim_core.diffuse.elastic_network import Springs, find_contacts, scalar_hessian

from .crystals import case, f64

SPRINGS = Springs(f64(1.3), f64(0.6))


def test_a_chain_of_atoms() -> None:
    """One atom and its two neighbours: omega = 2 sqrt(gamma/m) |sin(pi kappa)|."""
    basis = f64([[3.0, 0, 0], [0, 9.0, 0], [0, 0, 9.0]])
    contacts = find_contacts(torch.zeros(1, 1, 3, dtype=torch.float64), basis, 4.0)
    corners = f64([[0, 0, 0], [0.5, 0, 0], [0.5, 0.5, 0]])
    kappa, omega = dispersion(scalar_hessian(contacts, SPRINGS), contacts.cells, f64([[12.0]]), corners, 8)
    assert len(kappa) == len(omega) == 17
    torch.testing.assert_close(kappa[8], corners[1])
    wanted = 2 * (0.6 / 12) ** 0.5 * torch.sin(torch.pi * kappa[:, 0]).abs()
    torch.testing.assert_close(omega[:, 0], wanted, rtol=1e-10, atol=1e-8)


def test_dispersion_along_a_path() -> None:
    one = case("helix_p212121")
    hessian = one.bodies.hessian(one.structure, one.contacts, SPRINGS)
    mass = one.bodies.mass(one.structure)
    corners = f64([[0, 0, 0], [0.5, 0, 0], [0.5, 0.5, 0], [0, 0, 0]])
    kappa, omega = dispersion(hessian, one.contacts.cells, mass, corners, 20)
    assert omega.shape == (61, 24)
    assert (omega[0, :3] < 1e-6 * omega.max()).all() and omega[0, 3] > 1e-3 * omega.max()
    torch.testing.assert_close(omega[0], omega[-1], atol=1e-7, rtol=1e-9)
    assert (omega.diff(dim=1) > -1e-9).all()
    # acoustic branches are straight where they leave the origin
    slope = omega[1:3, :3] / kappa[1:3].norm(dim=-1, keepdim=True)
    torch.testing.assert_close(slope[0], slope[1], rtol=0.02, atol=0)
    mirrored = dispersion(hessian, one.contacts.cells, mass, -corners, 20)[1]
    torch.testing.assert_close(mirrored, omega, atol=1e-7, rtol=1e-9)


def test_density_of_states_counts_every_mode() -> None:
    one = case("helix_p31")
    hessian = one.bodies.hessian(one.structure, one.contacts, SPRINGS)
    kappa = torch.rand(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    K = dynamical_matrix(hessian, one.contacts.cells, kappa)
    omega = normal_modes(K, one.bodies.mass(one.structure)).omega
    edges, density = density_of_states(omega, 40)
    assert len(edges) == 41
    torch.testing.assert_close((density * edges.diff()).sum(), f64(float(omega.shape[1])))
    below = (omega < edges[10]).sum() / len(omega)
    torch.testing.assert_close((density * edges.diff())[:10].sum(), below.double())


def test_masses_do_not_change_the_covariance() -> None:
    one = case("helix_p1_allatom")
    bodies = SingleAtoms()
    hessian = bodies.hessian(one.structure, one.contacts, SPRINGS)
    K = dynamical_matrix(hessian, one.contacts.cells, f64([[0.3, 0.1, 0.2]]))
    modes = normal_modes(K, bodies.mass(one.structure))
    inverse = (modes.shapes / modes.omega[:, None].square()) @ modes.shapes.mH
    torch.testing.assert_close(inverse, torch.linalg.inv(K), rtol=1e-9, atol=1e-12)
