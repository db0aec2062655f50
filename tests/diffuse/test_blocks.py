"""Vibrations of finite blocks: windows, inverse dynamical matrices, displacements."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from refine.formats.models import read_model
from sim_core.diffuse.blocks import (
    Bell,
    Triangle,
    Window,
    axis_weights,
    block_grid,
    block_inverses,
    outer,
    pack,
    unpack,
    window_of,
)
from sim_core.diffuse.dynamical_matrix import dynamical_matrix
from sim_core.diffuse.elastic_network import Contacts, Springs, rigid_body_hessian
from sim_core.diffuse.vibrations import contacts_of, vibrations
from sim_core.interference import Gaussian, Round, Square

from .crystals import f64
from .vibrating import cell_of, helix, record, shared_case

SPRINGS = Springs(f64(2.0), f64(4.0))


def network(name: str = "helix_p212121") -> tuple[Tensor, Contacts]:
    model = helix(name)
    structure, cell = record(model), cell_of(model)
    contacts = contacts_of(structure, cell, 4.0)
    return vibrations(structure, cell, contacts, SPRINGS, f64([2.0, 2.0, 2.0]), Triangle()).lever_arms, contacts


def whole(inverses: Tensor, window: Window, n_cells: Tensor) -> tuple[Tensor, Tensor]:
    """Inverses at all wavevectors of a block, and these."""
    grid = block_grid(window, n_cells)
    kappa = torch.zeros(grid.sizes[0] * grid.sizes[1] * grid.sizes[2], 3, dtype=torch.float64)
    out = torch.zeros(len(kappa), *inverses.shape[1:], dtype=inverses.dtype)
    kappa[grid.minus], out[grid.minus] = -grid.kappa, inverses.conj()
    kappa[grid.plus], out[grid.plus] = grid.kappa, inverses
    return out, kappa


def windowed(h: Tensor, window: Window, n_cells: Tensor) -> Tensor:
    """Weights of all wavevectors of a block."""
    sizes = block_grid(window, n_cells).sizes
    a, b, c = (axis_weights(window, x, n, m, torch.float64).value for x, n, m in zip(h.T, n_cells, sizes, strict=True))
    return torch.einsum("pa,pb,pc->pabc", a, b, c).flatten(1)


@pytest.mark.parametrize("window", [Triangle(), Bell()])
@pytest.mark.parametrize("n", [1.0, 2.0, 5.3, 7.8])
def test_weights_add_up_to_one(window: Window, n: float) -> None:
    h = f64([0.0, 0.13, 1.0, -2.5, 17.77])
    weights = axis_weights(window, h, f64(n), window.points(n), torch.float64)
    assert torch.allclose(weights.value.sum(-1), torch.ones(5, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(weights.by_h.sum(-1), torch.zeros(5, dtype=torch.float64), atol=1e-10)
    assert torch.allclose(weights.by_n.sum(-1), torch.zeros(5, dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize("shape", [Square(), Gaussian()])
def test_weights_are_the_interference_function(shape: Square | Gaussian) -> None:
    window, n = window_of(shape), 6.0
    h = f64([0.0, 0.02, 0.11, 0.5, 0.93])
    size = window.points(n)
    weights = axis_weights(window, h, f64(n), size, torch.float64).value
    x = h[:, None] - torch.arange(size) / size
    x = x - x.round()
    p = shape.parameters(f64([n, n, n]), torch.eye(3, dtype=torch.float64))
    profile = shape.profile(torch.stack([x, 0 * x, 0 * x]), p)
    wanted = profile / profile.new_tensor(n**6 if isinstance(shape, Square) else 1)
    assert torch.allclose(weights, wanted * n / size, atol=1e-5)


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="round"):
        window_of(Round())


@pytest.mark.parametrize("window", [Triangle(), Bell()])
def test_slopes_of_weights(window: Window) -> None:
    h, n, size = f64([0.0, 0.31, 2.0, -0.5]).requires_grad_(), f64(4.3).requires_grad_(), window.points(4.3)

    class Weights(torch.autograd.Function):
        @staticmethod
        def forward(ctx, h, n):
            ctx.axis = axis_weights(window, h, n, size, torch.float64)
            return ctx.axis.value

        @staticmethod
        def backward(ctx, g):
            return (g * ctx.axis.by_h).sum(-1), (g * ctx.axis.by_n).sum()

    assert gradcheck(Weights.apply, (h, n))


@pytest.mark.parametrize("name", ["helix_p1_odd", "helix_p212121"])
def test_a_sum_over_lags_is_a_window(name: str) -> None:
    lever_arms, contacts = network(name)
    n_cells = f64([3.0, 2.0, 4.0])
    inverses = block_inverses(lever_arms, contacts, SPRINGS, block_grid(Triangle(), n_cells))
    K, kappa = whole(inverses, Triangle(), n_cells)
    h = f64([[0.21, -1.37, 2.45], [1.0, 0.0, 2.0], [0.5, 0.25, 0.1]])
    G = torch.einsum("pk,kab->pab", windowed(h, Triangle(), n_cells).to(K), K)
    wanted = torch.zeros_like(G)
    lags = torch.cartesian_prod(*(torch.arange(-n + 1, n) for n in (3, 2, 4))).double()
    for d in lags:
        C = torch.einsum("k,kab->ab", torch.exp(2j * torch.pi * (kappa @ d)), K) / len(kappa)
        share = (1 - d.abs() / n_cells).prod()
        wanted += share * C * torch.exp(-2j * torch.pi * (h @ d))[:, None, None]
    assert torch.allclose(G, wanted, atol=1e-12 * float(wanted.abs().max()))


def test_a_large_block_is_a_crystal() -> None:
    lever_arms, contacts = network("helix_p1_odd")
    n_cells = f64([24.0, 24.0, 24.0])
    inverses = block_inverses(lever_arms, contacts, SPRINGS, block_grid(Triangle(), n_cells))
    K, _ = whole(inverses, Triangle(), n_cells)
    h = f64([[0.5, 0.5, 0.5], [0.31, -0.42, 0.45]])
    G = torch.einsum("pk,kab->pab", windowed(h, Triangle(), n_cells).to(K), K)
    hessian = rigid_body_hessian(lever_arms, contacts, SPRINGS)
    wanted = torch.linalg.inv(dynamical_matrix(hessian, contacts.cells, h))
    assert torch.allclose(G, wanted, atol=0.03 * float(wanted.abs().max()))


def test_packed_matrices() -> None:
    generator = torch.Generator().manual_seed(1)
    A = torch.randn(5, 12, 12, dtype=torch.complex128, generator=generator)
    X, F = A @ A.mH, torch.randn(5, 12, dtype=torch.complex128, generator=generator)
    packed, V = pack(X), outer(F.real, F.imag)
    found = (V.real * packed.real).sum(-1) + (V.imaginary * packed.imaginary).sum(-1)
    assert torch.allclose(found, torch.einsum("pa,pab,pb->p", F.conj(), X, F).real)
    assert torch.allclose(torch.complex(*unpack(packed, 12)), X)


@pytest.mark.shared
@pytest.mark.parametrize("name", ["still_one_block", "still_mosaic"])
def test_displacements_of_the_monte_carlo_program(name: str) -> None:
    model = read_model(shared_case(name) / "model.pdb")
    structure, cell = record(model), cell_of(model)
    contacts = contacts_of(structure, cell, 4.0)
    u = vibrations(structure, cell, contacts, SPRINGS, f64([8.0, 8.0, 6.0]), Triangle()).u_cart
    wanted = np.load(shared_case(name) / "float.npz")["u_cart"]
    assert np.abs(u.reshape(-1, 3, 3).numpy() - wanted).max() < 1e-7
