"""Structure factors of atoms against gemmi, and between the points of a grid."""

from dataclasses import replace

import gemmi
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from sim_core import Structure
from sim_core.amplitudes_of_atoms import (
    amplitude_grid,
    amplitude_table,
    amplitudes,
    between,
    middle,
    modulus,
    needed_rates,
)
from sim_core.diffuse.vibrations import isotropic

from .crystals import f64
from .vibrating import cell_of, folder, helix, record

LOW, SIZE = torch.tensor([-3, -2, -4]), (7, 5, 9)


def first_atoms(structure: Structure, count: int) -> Structure:
    names = ("fractional", "b_iso", "weight", "mass")
    few = {n: getattr(structure, n)[:count] for n in names}
    table = replace(structure.form_factors, kind=structure.form_factors.kind[:count])
    return replace(structure, **few, form_factors=table)


@pytest.mark.parametrize("name", ["helix_p212121", "helix_p31", "helix_p1_odd"])
def test_gemmi(name: str) -> None:
    model = helix(name)
    structure, cell = record(model), cell_of(model)
    table = amplitude_table(structure, cell, isotropic(structure), LOW, SIZE)
    file = gemmi.read_structure(str(next(folder(name).glob("*.pdb"))))
    small = gemmi.SmallStructure()
    small.cell, small.spacegroup = file.cell, gemmi.SpaceGroup(model.space_group)
    for atom, element, b in zip(structure.fractional.tolist(), model.elements, model.b_iso, strict=True):
        site = gemmi.SmallStructure.Site()
        site.fract, site.element, site.occ = gemmi.Fractional(*atom), gemmi.Element(element), 1.0
        site.u_iso = b / (8 * torch.pi**2)
        small.add_site(site)
    small.setup_cell_images()
    calculator = gemmi.StructureFactorCalculatorX(small.cell)
    axes = [range(int(low), int(low) + n) for low, n in zip(LOW, SIZE, strict=True)]
    wanted = [
        abs(calculator.calculate_sf_from_small_structure(small, (h, k, l)))
        for h in axes[0]
        for k in axes[1]
        for l in axes[2]
    ]
    assert torch.allclose(table.flatten(), f64(wanted), rtol=1e-4, atol=1e-4)


def test_anisotropic_displacements_turn_with_the_atoms() -> None:
    """In a triclinic cell, q.U.q with q from the cell's own frame."""
    model = helix("helix_p1_odd")
    structure, cell = record(model), cell_of(model)
    one = first_atoms(structure, 1)
    root = f64([[0.2, 0.1, 0.0], [0.0, 0.3, -0.1], [0.05, 0.0, 0.1]])
    u, hkl = (root @ root.T)[None, None], f64([[1.0, 2.0, 3.0], [-2.3, 0.4, 1.1]])
    q = 2 * torch.pi * hkl @ torch.linalg.inv(f64(model.basis)).T
    height = amplitudes(one, cell, u, hkl).abs() / amplitudes(one, cell, 0 * u, hkl).abs()
    assert torch.allclose(height, torch.exp(-0.5 * torch.einsum("pi,ij,pj->p", q, u[0, 0], q)))


def test_between_the_points_of_a_grid() -> None:
    model = helix("helix_p212121")
    structure, cell = record(model), cell_of(model)
    rates = needed_rates(structure)
    low = torch.tensor([-4, -5, -3])
    F = amplitude_grid(structure, cell, isotropic(structure), low, (rates[0] + 9, rates[1] + 9, rates[2] + 9), rates)
    generator = torch.Generator().manual_seed(2)
    places = 3 + torch.rand(400, 3, dtype=torch.float64, generator=generator) * f64(rates)
    hkl = (places + low) / f64(rates)
    exact = amplitudes(structure, cell, isotropic(structure), hkl, middle(structure))
    error = (between(F, places) - exact).abs().square().mean().sqrt()
    assert error < 1.2e-3 * exact.abs().square().mean().sqrt()


def amplitude_of(name: str) -> tuple[object, tuple[Tensor, ...]]:
    model = helix(name)
    structure, cell = record(model), cell_of(model)
    hkl = f64([[1.0, 0.0, -2.0], [0.3, 1.4, 2.2], [0.0, 0.0, 0.0]])
    few = first_atoms(structure, 5)

    def amplitude(xyz: Tensor, cell: Tensor, u: Tensor, hkl: Tensor) -> Tensor:
        return torch.view_as_real(amplitudes(replace(few, fractional=xyz), cell, (u + u.mT) / 2, hkl))

    u = 0.02 * torch.eye(3, dtype=torch.float64).repeat(1, 5, 1, 1)
    return amplitude, (few.fractional, cell, u, hkl)


def test_gradients() -> None:
    F, inputs = amplitude_of("helix_p1_odd")
    inputs = tuple(t.clone().requires_grad_() for t in inputs)
    assert gradcheck(F, inputs, check_forward_ad=True, atol=1e-6)


def test_jacobian_of_all_directions_at_once() -> None:
    F, inputs = amplitude_of("helix_p1_odd")
    forwards = torch.func.jacfwd(F, argnums=(0, 1, 2, 3))(*inputs)
    backwards = torch.autograd.functional.jacobian(F, inputs)
    for one, other in zip(forwards, backwards, strict=True):
        assert torch.allclose(one, other, atol=1e-10 * float(other.abs().max()))


def test_modulus_of_nothing() -> None:
    F = torch.zeros(2, dtype=torch.complex128, requires_grad=True)
    modulus(F).sum().backward()
    assert F.grad is not None and bool((F.grad == 0).all())
