"""Gradients in structure factors, and structure factors between reflections: machine code is the eager reference."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from support import tensor
from torch import Tensor

from sim_core import AmplitudeGrid, Sensor, StructureFactors
from sim_core.amplitudes import intensity_between, padded_values
from sim_core.bragg.closed_form import ClosedFormBragg
from sim_core.bragg.sampled import SampledBragg
from sim_core.interference import Gauss, Gaussian, Shape, Square
from sim_core.kernels import selection
from sim_core.kernels.lattice import compiled
from sim_core.kernels.lattice.interpolated_sum import interpolated_sum
from sim_core.kernels.lattice.lattice_sum import lattice_sum
from sim_core.kernels.lattice.settings import Settings
from sim_core.mosaic import random_domains

Inputs = dict[str, Tensor]
BOUND = {torch.float64: 1e-10, torch.float32: 2e-4}
PIXELS = torch.tensor([[20, 30], [33, 35], [40, 10], [5, 7]])


def problem(n: float = 4.5, rows: int = 700, samples: int = 3) -> Inputs:
    generator = torch.Generator().manual_seed(rows)
    s = 0.1 * (2 * torch.rand(rows, 3, generator=generator, dtype=torch.float64) - 1)
    turns = torch.eye(3, dtype=torch.float64) + 0.01 * torch.randn(samples, 3, 3, generator=generator).double()
    weights = torch.rand(samples, generator=generator, dtype=torch.float64)
    return {"s": s, "a": 70 * turns, "w": weights, "n": tensor([n, n + 1, max(1.0, n - 2)])}


def everything(function: Callable[[Inputs], Tensor], inputs: Inputs) -> dict[str, Tensor]:
    """Values, gradients in every input, and tangents along a direction of each and of all of them."""
    leaves = {k: v.clone().requires_grad_() for k, v in inputs.items()}
    y = function(leaves)
    upstream = torch.linspace(-1, 2, len(y), dtype=y.dtype)
    found = {"value": y.detach()}
    found |= dict(zip(leaves, torch.autograd.grad(y @ upstream, list(leaves.values())), strict=True))
    generator = torch.Generator().manual_seed(1)
    directions = {k: torch.randn(v.shape, generator=generator).double() for k, v in inputs.items()}

    def along(x: Tensor) -> Tensor:
        return function({k: v + (x[i] + x[-1]) * directions[k] for i, (k, v) in enumerate(inputs.items())})

    tangents = torch.func.jacfwd(along)(torch.zeros(len(inputs) + 1).double())
    return found | {f"along {k}": t for k, t in zip([*inputs, "all"], tangents.unbind(-1), strict=True)}


def assert_same(
    function: Callable[[str, torch.dtype], Callable[[Inputs], Tensor]], inputs: Inputs, dtype: torch.dtype
) -> None:
    ours = everything(function("compiled", dtype), inputs)
    theirs = everything(function("eager", torch.float64), inputs)
    assert ours["value"].dtype == dtype
    for name, exact in theirs.items():
        error = float((ours[name].double() - exact).abs().max())
        assert error <= BOUND[dtype] * float(exact.abs().max()), (name, error / float(exact.abs().max()))


@pytest.mark.parametrize("shape", [Square(), Gaussian()])
@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize("low", [[-6, -5, -4], [0, 0, 0], [1000, 0, 0], None])
def test_gradients_in_amplitudes(table: StructureFactors, low: list[int] | None, dtype: torch.dtype, shape: Shape):
    """Inside, partly outside and wholly outside the box, and with one number for every reflection."""
    factors = StructureFactors.constant(tensor(3.0)) if low is None else replace(table, h_min=torch.tensor(low))

    def function(kernel: str, precision: torch.dtype) -> Callable[[Inputs], Tensor]:
        settings = Settings(shape, factors.h_min, tuple(factors.table.shape), precision, kernel)

        def total(x: Inputs) -> Tensor:
            moved = factors if low is None else replace(factors, table=x["table"])
            moved = replace(moved, default=x["default"])
            values = padded_values(moved)
            if kernel == "compiled" and low is not None:
                values = torch.cat([moved.table.flatten(), moved.default[None]])
            parameters = shape.parameters(x["n"], torch.eye(3).double())
            return lattice_sum(x["s"], x["a"], x["w"], parameters, values, settings)

        return total

    inputs = problem() | {"default": factors.default} | ({} if low is None else {"table": factors.table})
    assert_same(function, inputs, dtype)


@pytest.mark.parametrize("n", [1.0, 5.0, 20.0, 60.0])
def test_gradients_in_amplitudes_for_any_number_of_cells(table: StructureFactors, n: float):
    def function(kernel: str, precision: torch.dtype) -> Callable[[Inputs], Tensor]:
        settings = Settings(Square(), table.h_min, tuple(table.table.shape), precision, kernel, float(table.default))
        inputs = problem()

        def total(x: Inputs) -> Tensor:
            alone = kernel == "compiled"
            values = x["table"].flatten() if alone else padded_values(replace(table, table=x["table"]))
            return lattice_sum(inputs["s"], inputs["a"], inputs["w"], tensor([n, n, n]), values, settings)

        return total

    assert_same(function, {"table": table.table}, torch.float64)


@pytest.mark.parametrize(
    "simulator", [SampledBragg(random_domains(3, 5), kernel="compiled"), ClosedFormBragg(kernel="compiled")]
)
@pytest.mark.parametrize("listed", [True, False])
def test_gradcheck_in_amplitudes(experiment, table, simulator, listed: bool):
    part = replace(table, table=table.table[4:8, 3:7, 2:6], h_min=torch.tensor([-1, -2, -1]))
    factors = part if listed else StructureFactors.constant(tensor(100.0))
    top = float(simulator(replace(experiment, structure_factors=factors), PIXELS).max())

    def image(default: Tensor, values: Tensor) -> Tensor:
        moved = replace(factors, default=default, table=values)
        return simulator(replace(experiment, structure_factors=moved), PIXELS) / top

    inputs = [factors.default.clone().requires_grad_(), factors.table.clone().requires_grad_(listed)]
    assert torch.autograd.gradcheck(image, inputs, check_forward_ad=True, eps=1e-4, rtol=1e-5, atol=1e-7)
    tangents = torch.func.jacfwd(image, argnums=(0, 1))(*(x.detach() for x in inputs))
    gradients = torch.autograd.functional.jacobian(image, tuple(inputs))
    for ours, theirs in zip(tangents, gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-14)
        assert ours.numel() == 0 or float(ours.abs().max()) > 1e-6


def test_the_gradient_in_a_table_does_not_depend_on_threads_or_parts(experiment, table, monkeypatch):
    def gradient(threads: int) -> Tensor:
        torch.set_num_threads(threads)
        values = table.table.clone().requires_grad_()
        factors = replace(table, table=values)
        SampledBragg(random_domains(3, 5), kernel="compiled")(
            replace(experiment, structure_factors=factors)
        ).sum().backward()
        return values.grad

    one = gradient(1)
    assert torch.equal(one, gradient(2))
    monkeypatch.setattr(compiled, "LARGEST_TABLES", 1)
    torch.testing.assert_close(gradient(2), one, rtol=1e-12, atol=1e-12 * float(one.max()))


def test_what_a_gpu_does_not_have(monkeypatch, caplog):
    selection._say.cache_clear()
    caplog.set_level("INFO", "sim_core.kernels")
    cuda = torch.device("cuda")
    for shape, between, vary in ((Square(), False, True), (Square(), True, False), (Gaussian(), False, False)):
        assert selection.select("compiled", 1, cuda, torch.float32, shape, between, vary) == "eager"
    assert [m.split("(")[1] for m in caplog.messages] == [
        "no compiled kernel for the gradient in structure factors on cuda)",
        "no compiled kernel between reflections on cuda)",
        "no compiled kernel for the shape gaussian on cuda)",
    ]


def grid_of(size: tuple[int, int, int] = (90, 80, 85), rate: tuple[int, int, int] = (6, 5, 6)) -> AmplitudeGrid:
    generator = torch.Generator().manual_seed(4)
    real, imaginary = (torch.randn(size, generator=generator).double() for _ in range(2))
    return AmplitudeGrid(real, imaginary, torch.tensor([-n // 2 for n in size]), rate)


@pytest.mark.parametrize("shape", [Square(), Gaussian()])
@pytest.mark.parametrize("dtype", BOUND)
def test_kernels_agree_on_a_grid(shape: Shape, dtype: torch.dtype):
    """With indices beyond the grid, too."""
    grid = grid_of((60, 40, 50))

    def function(kernel: str, precision: torch.dtype) -> Callable[[Inputs], Tensor]:
        settings = Settings(shape, torch.zeros(3, dtype=torch.long), (0, 0, 0), precision, kernel)

        def total(x: Inputs) -> Tensor:
            moved = replace(grid, real=x["real"], imaginary=x["imaginary"])
            parameters = shape.parameters(x["n"], torch.eye(3).double())
            return interpolated_sum(x["s"], x["a"], x["w"], parameters, moved, settings)

        return total

    inputs = problem(rows=300) | {"real": grid.real, "imaginary": grid.imaginary}
    h = inputs["s"] @ inputs["a"].mT
    assert float((h[..., 0] * 6).max()) > 30
    assert_same(function, inputs, dtype)


@pytest.mark.parametrize("shape", [Square(), Gaussian()])
@pytest.mark.parametrize("dtype", BOUND)
def test_kernels_agree_between_reflections(table: StructureFactors, shape: Shape, dtype: torch.dtype):
    """Where neighbours are missing the nearest reflection counts, where that is missing the default."""

    def function(kernel: str, precision: torch.dtype) -> Callable[[Inputs], Tensor]:
        settings = Settings(shape, table.h_min, tuple(table.table.shape), precision, kernel)

        def total(x: Inputs) -> Tensor:
            moved = replace(table, table=x["table"], default=x["default"])
            parameters = shape.parameters(x["n"], torch.eye(3).double())
            return interpolated_sum(x["s"], x["a"], x["w"], parameters, moved, settings)

        return total

    assert_same(function, problem() | {"table": table.table, "default": table.default}, dtype)


def test_a_table_of_few_reflections_has_no_between(experiment, table):
    small = replace(table, table=table.table[:3])
    images = [
        SampledBragg(random_domains(3, 5), interpolate=between, kernel=kernel)(
            replace(experiment, structure_factors=small)
        )
        for kernel in ("eager", "compiled")
        for between in (False, True)
    ]
    for image in images[1:]:
        torch.testing.assert_close(image, images[0], rtol=1e-9, atol=1e-10 * float(images[0].max()))


def on_grid(experiment, grid: AmplitudeGrid | None = None):
    factors = replace(experiment.structure_factors, between=grid or grid_of())
    return replace(experiment, structure_factors=factors)


@pytest.mark.parametrize("shape", [Square(), Gaussian(), Gauss()])
@pytest.mark.parametrize("part", ["panel", "sensor", "wavelength", "b_iso"])
def test_images_on_a_grid(experiment, with_crystal, shape: Shape, part: str):
    """Sub-pixels, plane waves and steps; geometry on the way, and where it cannot be."""
    beam = experiment.beam
    directions = torch.nn.functional.normalize(tensor([[1.0, 0, 0], [1.0, 0.01, 0]]), dim=-1)
    beam = replace(beam, direction=directions, wavelength=tensor([1.0, 1.01]), weight=tensor([0.5, 0.5]))
    experiment = on_grid(replace(experiment, beam=beam))
    if part == "sensor":
        sensor = Sensor(tensor(4000.0), tensor([0.0, 1e-4, 3e-4]), tensor([5e-5, 2e-4]))
        experiment = replace(experiment, panel=replace(experiment.panel, sensor=sensor))
    if part == "b_iso":
        factors = replace(experiment.structure_factors, b_iso=tensor(30.0))
        experiment = replace(experiment, structure_factors=factors)
    found = []
    for kernel in ("compiled", "eager"):
        wavelength = beam.wavelength.clone().requires_grad_(part == "wavelength")
        misset = experiment.crystal.misset.clone().requires_grad_()
        moved = with_crystal(replace(experiment, beam=replace(beam, wavelength=wavelength)), misset=misset)
        image = SampledBragg(random_domains(3, 5), shape, oversample=2, d_min=15.0, kernel=kernel)(moved, PIXELS)
        image.square().sum().backward()
        found.append([image.detach(), misset.grad, *([wavelength.grad] if part == "wavelength" else [])])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10 * float(theirs.abs().max()))


@pytest.mark.parametrize("kernel", ["eager", "compiled"])
@pytest.mark.parametrize("shape", [Square(), Gaussian()])
def test_gradcheck_on_a_grid(experiment, with_crystal, shape: Shape, kernel: str):
    simulator = SampledBragg(random_domains(3, 5), shape, kernel=kernel)
    start = on_grid(experiment)
    top, c = float(simulator(start, PIXELS).max()), experiment.crystal

    grid = grid_of()

    def image(misset: Tensor, spread: Tensor, cell: Tensor, n_cells: Tensor, wavelength: Tensor, box: Tensor) -> Tensor:
        moved = with_crystal(start, misset=misset * 0.01, mosaic_spread=spread * 0.01, cell=cell, n_cells=n_cells)
        real = torch.cat([grid.real[:40], grid.real[40:50] + box, grid.real[50:]])
        factors = replace(start.structure_factors, between=replace(grid, real=real))
        beam = replace(start.beam, wavelength=wavelength)
        return simulator(replace(moved, beam=beam, structure_factors=factors), PIXELS) / top

    inputs = [c.misset * 100, c.mosaic_spread * 100, c.cell, c.n_cells + 0.3, experiment.beam.wavelength]
    inputs = [x.clone().requires_grad_() for x in (*inputs, torch.zeros(10, 1, 1).double())]
    assert torch.autograd.gradcheck(image, inputs, check_forward_ad=True, eps=1e-6, rtol=1e-4, atol=1e-6)
    inputs = [x.detach() for x in inputs]
    tangents = torch.func.jacfwd(image, argnums=tuple(range(6)))(*inputs)
    gradients = torch.autograd.functional.jacobian(image, tuple(inputs))
    for ours, theirs in zip(tangents, gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10 * float(theirs.abs().max()))


@pytest.mark.parametrize("kernel", ["eager", "compiled"])
@pytest.mark.parametrize("shape", [Square(), Gaussian()])
def test_gradcheck_near_lattice_points(shape: Shape, kernel: str):
    """Close to reflections, where the profile is stationary and what moves is F itself."""
    near = tensor([[1.0, -2.0, 0.0], [0.0, 1.0, 1.0]]) + tensor([1e-4, -2e-4, 1e-4])
    grid, eye = grid_of(), torch.eye(3).double()
    settings = Settings(shape, torch.zeros(3, dtype=torch.long), (0, 0, 0), torch.float64, kernel)
    parameters = shape.parameters(tensor([3.0, 3.5, 4.0]), eye)

    def total(s: Tensor, turn: Tensor) -> Tensor:
        return interpolated_sum(s, turn, tensor([1.0]), parameters, grid, settings) / 1e3

    inputs = [near.requires_grad_(), eye[None].clone().requires_grad_()]
    assert torch.autograd.gradcheck(total, inputs, check_forward_ad=True, eps=1e-6, rtol=1e-6, atol=1e-6)
    slope = torch.autograd.functional.jacobian(lambda h: intensity_between(grid, h.T), near.detach())
    moved = torch.autograd.functional.jacobian(lambda s: total(s, eye[None]), near.detach())
    assert float((moved - slope * 42.0**2 / 1e3 * (1 if shape == Square() else 1 / 42**2)).abs().max()) < 0.05 * float(
        moved.abs().max()
    )


@pytest.mark.parametrize(("rate", "bound"), [(6, 1e-3), (8, 5e-4)])
@pytest.mark.parametrize("kernel", ["eager", "compiled"])
def test_a_few_atoms_between_reflections(rate: int, bound: float, kernel: str):
    r"""|sum_a f_a e^{2 pi i h x_a}|^2 of atoms within half a cell, from a grid of it."""
    x = 0.25 * torch.rand(5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 0.125
    f = tensor([6.0, 7.0, 8.0, 6.0, 16.0])

    def amplitude(h: Tensor) -> Tensor:
        return torch.exp(2j * math.pi * (h @ x.T)) @ f.to(torch.complex128)

    axis = torch.arange(-3 * rate, 3 * rate + 1).double() / rate
    values = amplitude(torch.cartesian_prod(axis, axis, axis)).view(*[len(axis)] * 3)
    grid = AmplitudeGrid(values.real.clone(), values.imag.clone(), torch.tensor([-3 * rate] * 3), (rate,) * 3)
    h = 4 * torch.rand(2000, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64) - 2
    settings = Settings(Gaussian(), torch.zeros(3, dtype=torch.long), (0, 0, 0), torch.float64, kernel)
    flat = torch.zeros(9, dtype=torch.float64)
    found = interpolated_sum(h, torch.eye(3).double()[None], tensor([1.0]), flat, grid, settings)
    assert float((found - amplitude(h).abs() ** 2).abs().max()) < bound * float(f.sum() ** 2)


@pytest.mark.parametrize("kernel", ["eager", "compiled"])
def test_a_subset_of_pixels_on_a_grid(experiment, kernel: str):
    simulator = SampledBragg(random_domains(3, 5), oversample=2, kernel=kernel)
    chosen = torch.tensor([3, 77, 1000, 3839, 5])
    part = simulator(on_grid(experiment), experiment.panel.all_pixels()[chosen])
    torch.testing.assert_close(part, simulator(on_grid(experiment))[chosen], rtol=1e-12, atol=0)
    assert simulator(on_grid(experiment), torch.zeros(0, 2, dtype=torch.long)).shape == (0,)


@pytest.mark.parametrize("kernel", ["eager", "compiled"])
def test_the_border_counts_beyond_a_grid(kernel: str):
    grid = grid_of((5, 6, 4), (1, 1, 1))
    settings = Settings(Gaussian(), torch.zeros(3, dtype=torch.long), (0, 0, 0), torch.float64, kernel)
    corner = grid.low.double()
    h = torch.stack([corner, corner - 7, corner + tensor([4.0, 5.0, 3.0]), corner + 30])
    common = (torch.eye(3).double()[None], tensor([1.0]), torch.zeros(9, dtype=torch.float64))
    found = interpolated_sum(h, *common, grid, settings)
    first, last = (grid.real[i, i, i] ** 2 + grid.imaginary[i, i, i] ** 2 for i in (0, -1))
    torch.testing.assert_close(found, torch.stack([first, first, last, last]))
    with pytest.raises(ValueError, match=r"between: expected at least 4 points along each axis, got \(5, 6, 3\)"):
        interpolated_sum(h, *common, grid_of((5, 6, 3)), settings)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_spoils_its_own_row_only(value: float):
    inputs, grid = problem(rows=256), grid_of()
    settings = Settings(Square(), torch.zeros(3, dtype=torch.long), (0, 0, 0), torch.float64, "compiled")

    def total(s: Tensor) -> Tensor:
        return interpolated_sum(s, inputs["a"], inputs["w"], inputs["n"], grid, settings)

    clean, s = total(inputs["s"]), inputs["s"].clone()
    s[37, 0] = value
    found = total(s)
    assert bool(found[37].isnan())
    torch.testing.assert_close(found[torch.arange(256) != 37], clean[torch.arange(256) != 37])


def test_threads_do_not_change_a_bit_on_a_grid(experiment):
    def gradient(threads: int) -> Tensor:
        torch.set_num_threads(threads)
        grid = grid_of()
        grid.imaginary.requires_grad_()
        SampledBragg(random_domains(3, 5), kernel="compiled")(on_grid(experiment, grid)).sum().backward()
        return grid.imaginary.grad

    assert torch.equal(gradient(1), gradient(2))


def test_the_line_in_the_log(experiment, caplog):
    selection._say.cache_clear()
    caplog.set_level("INFO", "sim_core.kernels")
    for shape in (Square(), Gauss()):
        SampledBragg(random_domains(3, 5), shape, kernel="compiled")(on_grid(experiment), PIXELS)
    assert caplog.messages == [
        "sum over orientations: machine code, float64",
        "sum over orientations: eager (no compiled kernel for the shape gauss)",
    ]
