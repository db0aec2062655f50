"""First derivatives against finite differences: grid and free points, zone faces, degenerate modes, Bragg points."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from sim_core.diffuse.bodies import Bodies, RigidUnits, SingleAtoms
from sim_core.diffuse.brillouin import Wavevectors, separate_wavevectors, unique_wavevectors, zone_grid
from sim_core.diffuse.columns import find_columns
from sim_core.diffuse.dynamical_matrix import dynamical_matrix, normal_modes
from sim_core.diffuse.elastic_network import Springs, find_contacts
from sim_core.diffuse.one_phonon import OnePhonon, model_u_iso
from sim_core.diffuse.structure import Placed, cell_positions, scattering_vectors

from .crystals import case, f64, structure_of

POINTS = f64(
    [
        [0.5, 1.0, 0.0],  # zone face, degenerate in P212121
        [1.5, -0.5, 0.5],  # corner
        [1 / 3, 2 / 3, -4 / 3],
        [0.21, -1.37, 2.45],
        [1.0, 0.0, 2.0],  # Bragg point
        [0.0, 0.0, 0.0],
    ]
)
GRID = torch.cartesian_prod(f64([0.5, 1.0]), f64([1.0, -0.5]), f64([0.0, 0.5, -4 / 3]))
"""Zone faces, degenerate wavevectors and Bragg points that fill a box."""
ALL = {"helix_p212121": RigidUnits(), "helix_p31": RigidUnits(), "helix_p1_allatom": SingleAtoms()}


def network(name: str) -> tuple[Placed, OnePhonon]:
    one = case(name)
    structure = replace(one.structure, b_iso=one.structure.b_iso + 0.5)
    return structure, OnePhonon(one.contacts, ALL[name], finite_at_bragg=True, bragg_tolerance=1e-3)


def check(function: object, *inputs: Tensor) -> None:
    inputs = tuple(t.clone().requires_grad_() for t in inputs)
    assert gradcheck(function, inputs, eps=1e-5, atol=1e-7, rtol=1e-6, fast_mode=False)


def few(structure: Placed, simulate: OnePhonon, grid: bool) -> tuple[object, object]:
    """Relative intensity as a function of the springs, of shifts of four atoms, of their B, and of q."""
    q0 = scattering_vectors(POINTS, structure.basis)
    start = Springs(f64(1.3), f64(0.6))
    find = unique_wavevectors if grid else separate_wavevectors
    scale = simulate(structure, start, q0, find(POINTS)).max().detach()

    def intensity(gamma: Tensor, xyz: Tensor, b: Tensor) -> Tensor:
        moved = torch.cat([structure.xyz[:4] + xyz, structure.xyz[4:]])
        changed = replace(structure, xyz=moved, b_iso=torch.cat([b, structure.b_iso[4:]]))
        return simulate(changed, Springs(*gamma), q0, find(POINTS)) / scale

    def of_q(q: Tensor) -> Tensor:
        return simulate(structure, start, q) / scale

    return intensity, of_q


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("grid", [True, False], ids=["grid", "free"])
def test_springs_coordinates_and_b(name: str, grid: bool) -> None:
    structure, simulate = network(name)
    intensity, _ = few(structure, simulate, grid)
    check(intensity, f64([1.3, 0.6]), torch.zeros(4, 3, dtype=torch.float64), structure.b_iso[:4])


@pytest.mark.parametrize("name", ALL)
def test_scattering_vectors(name: str) -> None:
    structure, simulate = network(name)
    _, of_q = few(structure, simulate, False)
    # 0 itself is left out for single atoms only: |q| has a corner there
    points = POINTS[:5] if isinstance(simulate.bodies, SingleAtoms) else POINTS
    check(of_q, scattering_vectors(points, structure.basis))


@pytest.mark.parametrize("name", ["helix_p212121", "helix_p31"])
def test_columns_of_a_grid(name: str) -> None:
    structure, simulate = network(name)
    assert find_columns(GRID, structure.basis) is not None
    q = scattering_vectors(GRID, structure.basis)
    start = Springs(f64(1.3), f64(0.6))
    free = separate_wavevectors(GRID)
    scale = simulate(structure, start, q, free).max()

    def intensity(gamma: Tensor, xyz: Tensor, b: Tensor, wavevectors: Wavevectors | None = None) -> Tensor:
        changed = replace(structure, xyz=xyz, b_iso=b)
        return simulate(changed, Springs(*gamma), q, wavevectors) / scale

    inputs = (f64([1.3, 0.6]), structure.xyz, structure.b_iso)
    torch.testing.assert_close(intensity(*inputs), intensity(*inputs, free), rtol=1e-12, atol=0)
    wanted = torch.autograd.functional.jacobian(lambda *v: intensity(*v, free), inputs)
    backward = torch.autograd.functional.jacobian(intensity, inputs)
    forward = torch.func.jacfwd(intensity, argnums=(0, 1, 2))(*inputs)
    for one, other, third in zip(wanted, backward, forward, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(one, third, rtol=1e-10, atol=1e-12)

    def few(gamma: Tensor, xyz: Tensor, b: Tensor) -> Tensor:
        moved = torch.cat([structure.xyz[:2] + xyz, structure.xyz[2:]])
        return intensity(gamma, moved, torch.cat([b, structure.b_iso[2:]]))

    check(few, f64([1.3, 0.6]), torch.zeros(2, 3, dtype=torch.float64), structure.b_iso[:2])


def test_the_points_are_degenerate() -> None:
    structure, simulate = network("helix_p212121")
    hessian = simulate.bodies.hessian(structure, simulate.contacts, Springs(f64(1.3), f64(0.6)))
    K = dynamical_matrix(hessian, simulate.contacts.cells, POINTS[:1])
    omega = normal_modes(K, simulate.bodies.mass(structure)).omega[0]
    assert omega.diff().min() < 1e-12


@pytest.mark.parametrize("bodies", [RigidUnits(), SingleAtoms()], ids=["rigid", "atoms"])
def test_displacements_of_the_model(bodies: Bodies) -> None:
    one = case("helix_p31")

    def u_iso(gamma: Tensor, xyz: Tensor) -> Tensor:
        changed = replace(one.structure, xyz=torch.cat([one.structure.xyz[:2] + xyz, one.structure.xyz[2:]]))
        moved = bodies.covariance(changed, one.contacts, Springs(*gamma), zone_grid((2, 2, 1)))
        return 100 * model_u_iso(moved, changed, bodies)

    check(u_iso, f64([1.3, 0.6]), torch.zeros(2, 3, dtype=torch.float64))


def test_forwards_and_backwards_agree() -> None:
    structure, simulate = network("helix_p212121")
    q = scattering_vectors(POINTS[:4], structure.basis)

    def intensity(gamma: Tensor, xyz: Tensor) -> Tensor:
        return simulate(replace(structure, xyz=xyz), Springs(*gamma), q)

    inputs = (f64([1.3, 0.6]), structure.xyz)
    forward = torch.func.jacfwd(intensity, argnums=(0, 1))(*inputs)
    backward = torch.autograd.functional.jacobian(intensity, inputs)
    for one, other in zip(forward, backward, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-9)


def test_masked_points_leave_the_gradient_finite() -> None:
    one = case("helix_p1_odd")
    gamma = f64([1.0, 1.0]).requires_grad_()
    q = scattering_vectors(POINTS, one.structure.basis)
    intensity = OnePhonon(one.contacts)(one.structure, Springs(*gamma), q)
    keep = ~intensity.isnan()
    assert keep.sum() == 4
    intensity[keep].sum().backward()
    assert gamma.grad is not None
    assert torch.isfinite(gamma.grad).all()


def test_parts_without_contacts() -> None:
    """With ``finite`` every mode that costs no energy is left out."""
    one = case("helix_p1_floppy")
    structure = structure_of(one.model)
    contacts = find_contacts(cell_positions(structure), structure.basis, 1.6)
    q = scattering_vectors(POINTS, structure.basis)
    gamma = f64([1.0, 1.0]).requires_grad_()
    intensity = OnePhonon(contacts, finite_at_bragg=True)(structure, Springs(*gamma), q)
    assert torch.isfinite(intensity).all()
    intensity.sum().backward()
    assert gamma.grad is not None
    assert torch.isfinite(gamma.grad).all()
