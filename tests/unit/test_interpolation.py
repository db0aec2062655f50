"""Structure factors between the reflections."""

from collections.abc import Callable

import pytest
import torch
from support import tensor
from torch import Tensor

from sim_core import Experiment, StructureFactors
from sim_core.amplitudes import interpolable, tricubic
from sim_core.bragg.sampled import SampledBragg
from sim_core.interference import Gauss, Gaussian, Round, Shape, Square
from sim_core.mosaic import random_domains

LOW = torch.tensor([-3, -4, -2])


def sampled(function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
    axes = [torch.arange(low, low + n).double() for low, n in zip(LOW.tolist(), (8, 9, 7), strict=True)]
    return function(*torch.meshgrid(*axes, indexing="ij"))


def test_cubic_polynomials_are_exact() -> None:
    def cubic(h: Tensor, k: Tensor, l: Tensor) -> Tensor:
        return 3 + h - 2 * k**2 + 0.5 * l**3 + h * k * l - 0.1 * h**3 * k

    hkl = tensor([[0.3, -0.9, 1.0], [1.7, -2.0, 0.2], [0.5, 1.99, 0.0]])
    assert torch.allclose(tricubic(sampled(cubic), LOW, hkl), cubic(*hkl))


def test_reflections_are_met() -> None:
    table = torch.rand(8, 9, 7, dtype=torch.float64)
    hkl = tensor([[1.0], [-2.0], [0.0]])
    assert tricubic(table, LOW, hkl) == table[4, 2, 2]


def test_neighbours_must_be_in_the_box() -> None:
    h = tensor([-1.01, -1.0, 2.0, 2.01])
    assert interpolable(torch.stack([h, 0 * h, 0 * h]), LOW, (8, 9, 7)).tolist() == [False, True, True, False]


def test_derivatives_of_the_interpolation() -> None:
    table = torch.rand(8, 9, 7, dtype=torch.float64, requires_grad=True)
    hkl = tensor([[0.3, -0.9], [1.7, -1.5], [0.5, 1.2]]).requires_grad_()
    assert torch.autograd.gradcheck(lambda t, h: tricubic(t, LOW, h), (table, hkl), check_forward_ad=True)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("shape", [Square(), Round(), Gauss(0.001), Gaussian()])
def test_derivatives_of_an_interpolated_image(
    shape: Shape, experiment: Experiment, table: StructureFactors, with_crystal: Callable[..., Experiment]
) -> None:
    simulator = SampledBragg(random_domains(3, 5), shape, interpolate=True)
    pixels = torch.tensor([[20, 30], [33, 35], [40, 10]])

    def scaled(misset: Tensor, n_cells: Tensor, values: Tensor) -> Tensor:
        changed = with_crystal(experiment, misset=misset, n_cells=n_cells)
        factors = StructureFactors(values, table.h_min, table.default)
        photons: Tensor = simulator(
            Experiment(changed.beam, changed.panel, changed.crystal, changed.scan, factors), pixels
        )
        return photons

    inputs = [experiment.crystal.misset, tensor([2.0, 3.0, 2.0]), table.table]
    inputs = [x.clone().requires_grad_() for x in inputs]
    scale = float(scaled(*inputs).detach().max())
    assert torch.autograd.gradcheck(
        lambda *x: scaled(*x) / scale, inputs, check_forward_ad=True, eps=1e-6, rtol=1e-4, atol=1e-6, fast_mode=True
    )
    misset, *others = (x.detach() for x in inputs)
    forward = torch.func.jacfwd(lambda m: scaled(m, *others) / scale)(misset)
    assert torch.allclose(forward, torch.autograd.functional.jacobian(lambda m: scaled(m, *others) / scale, misset))


def test_interpolated_image_of_a_constant_table_is_that_of_the_constant(experiment: Experiment) -> None:
    domains = random_domains(2, 5)
    constant = StructureFactors(torch.full((13, 13, 13), 100.0).double(), torch.tensor([-6] * 3), tensor(100.0))
    changed = Experiment(experiment.beam, experiment.panel, experiment.crystal, experiment.scan, constant)
    assert torch.allclose(
        SampledBragg(domains, interpolate=True)(changed), SampledBragg(domains)(experiment), rtol=1e-9
    )
