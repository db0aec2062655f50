"""The compiled sum over orientations is the eager one: values, gradients and tangents, whatever the sizes."""

import math
import time
from dataclasses import replace

import pytest
import torch
from support import tensor

from sim_core import Sensor, StructureFactors
from sim_core.amplitudes import padded_values
from sim_core.bragg.sampled import SampledBragg
from sim_core.interference import SHAPES, Square
from sim_core.kernels import selection
from sim_core.kernels.lattice import compiled
from sim_core.kernels.lattice.lanes import LANES
from sim_core.kernels.lattice.lattice_sum import lattice_sum
from sim_core.kernels.lattice.settings import Settings
from sim_core.kernels.parts import in_parts
from sim_core.mosaic import random_domains

BOUND = {torch.float64: 1e-11, torch.float32: 2e-5}
PRECISIONS = list(BOUND)


def problem(rows: int, n: list[float], table: StructureFactors, samples: int = 3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(rows + samples)
    s = 0.1 * (2 * torch.rand(rows, 3, generator=generator, dtype=torch.float64) - 1)
    turns = torch.eye(3, dtype=torch.float64) + 0.01 * torch.randn(samples, 3, 3, generator=generator).double()
    weights = torch.rand(samples, generator=generator, dtype=torch.float64)
    return {"s": s, "a": 70 * turns, "w": weights, "n": tensor(n)}


def lattice(kernel: str, inputs: dict[str, torch.Tensor], table: StructureFactors, dtype: torch.dtype) -> torch.Tensor:
    box = tuple(table.table.shape)
    settings = Settings(Square(), table.h_min, box, dtype, kernel, float(table.default))
    alone = kernel == "compiled" and table.table.numel() > 0
    amplitudes = table.table.flatten() if alone else padded_values(table)
    return lattice_sum(inputs["s"], inputs["a"], inputs["w"], inputs["n"], amplitudes, settings)


def assert_near(ours: torch.Tensor, theirs: torch.Tensor, bound: float) -> None:
    top = float(theirs.abs().max()) if theirs.numel() else 1.0
    torch.testing.assert_close(ours.double(), theirs.double(), rtol=0, atol=bound * max(top, 1e-300))


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("rows", [0, 1, 2, LANES - 1, LANES, LANES + 1, 1000, 16 * LANES + 3])
def test_any_number_of_rows(rows, dtype, table):
    inputs = problem(rows, [5.0, 4.0, 12.0], table)
    images = [lattice(k, inputs, table, dtype) for k in ("compiled", "eager")]
    assert images[0].dtype == dtype
    assert_near(*images, BOUND[dtype])


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("n", [1, 2, 3, 7, 11, 12, 13, 16, 50, 111, 200, 4.5, 0.7])
def test_any_number_of_cells(n, dtype, table):
    """Values, gradients in every input and tangents; single precision loses digits in proportion to N x."""
    inputs = problem(700, [n, 5.0, max(1.0, n // 2)], table)
    reference = tangents("eager", inputs, table, torch.float64), gradients("eager", inputs, table, torch.float64)
    ours = tangents("compiled", inputs, table, dtype), gradients("compiled", inputs, table, dtype)
    bound = (1e-8 if dtype == torch.float64 else 1e-4) * max(1, n / 50)
    for mine, theirs in zip((*ours[0], *ours[1]), (*reference[0], *reference[1]), strict=True):
        assert_near(mine, theirs, bound)


def gradients(kernel: str, inputs: dict, table: StructureFactors, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    leaves = {k: v.clone().requires_grad_() for k, v in inputs.items()}
    image = lattice(kernel, leaves, table, dtype)
    upstream = torch.linspace(-1, 2, len(image), dtype=dtype)
    return (image.detach(), *torch.autograd.grad(image @ upstream, list(leaves.values())))


def tangents(kernel: str, inputs: dict, table: StructureFactors, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    directions = {k: torch.randn(v.shape, generator=generator, dtype=torch.float64) for k, v in inputs.items()}

    def image(x: torch.Tensor) -> torch.Tensor:
        moved = {k: v + x[i] * directions[k] for i, (k, v) in enumerate(inputs.items())}
        return lattice(kernel, moved, table, dtype)

    return tuple(torch.func.jacfwd(image)(torch.zeros(4, dtype=torch.float64)).unbind(-1))


@pytest.mark.parametrize("n", [5.0, 20.0])
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_on_a_lattice_point_and_half_way(n, dtype):
    """Indices that are whole or half-whole to the last bit: the stationary peak, and where a half is rounded to."""
    h = torch.cartesian_prod(*[tensor([-2.0, -0.5, 0.0, 0.5, 1.0])] * 3)
    values = torch.rand(7, 7, 7, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    table = StructureFactors(values, torch.tensor([-3, -3, -3]), tensor(0.5))
    inputs = {"s": h, "a": torch.eye(3).double()[None], "w": tensor([1.0]), "n": tensor([n, n, n])}
    ours, theirs = (gradients(k, inputs, table, dtype) for k in ("compiled", "eager"))
    peak = (h == h.round()).all(1)
    places = [tuple(p) for p in (h[peak].long() + 3).tolist()]
    squares = torch.stack([values[p] ** 2 for p in places])
    torch.testing.assert_close(ours[0][peak].double(), n**6 * squares, rtol=1e-6, atol=0)
    assert_near(ours[0], theirs[0], BOUND[dtype])
    assert float((ours[2] - theirs[2]).abs().max()) <= 1e-4 * math.pi * n**7


@pytest.mark.parametrize("turn", [0.0, 0.01])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 8, 11, 50, 200, 4.5])
def test_lanes_close_to_one_another(n, turn, table):
    """Distances in single precision from the middle of a group; unturned, every few lanes are half-way to the bit."""
    steps = torch.arange(3000, dtype=torch.float64)
    s = tensor([-2.0, 1.0, -1.5]) + steps[:, None] * 2.0 ** -math.ceil(math.log2(2 * n)) * tensor([1.0, -0.25, 0.125])
    s = s - (s / 8).round() * 8
    inputs = problem(3000, [n, n, max(1.0, n - 1)], table) | {"s": s}
    turns = torch.randn(3, 3, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    inputs["a"] = torch.eye(3, dtype=torch.float64) + turn * turns
    assert compiled.REACH / n > 32 * float((s[1] - s[0]).abs().max())
    ours, theirs = (gradients(k, inputs, table, d) for k, d in (("compiled", torch.float32), ("eager", torch.float64)))
    assert_near(ours[0], theirs[0], 1e-5)
    for mine, exact in zip(ours[2:4], theirs[2:4], strict=True):
        top = max(float(exact.abs().max()), float(theirs[0].max()))  # one cell has no slope
        assert float((mine.double() - exact).abs().max()) <= 1e-4 * max(1, n / 50) * top


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("lane", [0, 37, 255])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_spoils_its_own_lane_only(lane, value, dtype, table):
    s = tensor([1.2, 0.7, -2.3]) + torch.linspace(0, 0.03, 256, dtype=torch.float64)[:, None]
    inputs = problem(256, [5.0, 5.0, 5.0], table) | {"s": s, "a": torch.eye(3, dtype=torch.float64)[None]}
    inputs["w"] = tensor([1.0])
    clean = lattice("compiled", inputs, table, dtype)
    inputs["s"][lane, 0] = value
    image = lattice("compiled", inputs, table, dtype)
    others = torch.arange(256) != lane
    assert bool(image[lane].isnan())
    assert_near(image[others], clean[others], BOUND[dtype])
    inputs["a"] = inputs["a"] * math.nan
    assert bool(lattice("compiled", inputs, table, dtype).isnan().all())


@pytest.mark.parametrize("kernel", ["compiled", "eager"])
def test_a_table_of_one_reflection_is_not_every_reflection(kernel, experiment):
    one = StructureFactors(torch.full((1, 1, 1), 100.0).double(), torch.tensor([1, 0, 0]), tensor(7.0))
    two = replace(one, table=torch.cat([one.table, 0 * one.table + 7], 1))
    images = [
        SampledBragg(random_domains(2, 1), dtype=torch.float64, kernel=kernel)(
            replace(experiment, structure_factors=table)
        )
        for table in (one, two)
    ]
    torch.testing.assert_close(images[0], images[1], rtol=1e-12, atol=0)
    constant = replace(experiment, structure_factors=StructureFactors.constant(tensor(100.0)))
    assert float(images[0].median()) < 0.01 * float(SampledBragg(random_domains(2, 1))(constant).median())


def test_an_interrupt_leaves_no_work_behind():
    done = []

    def work(start: int, stop: int) -> None:
        done.append(start)
        time.sleep(0.001)
        if start == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        in_parts(1000, 1, work)
    assert len(done) < 500


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_reflections_beyond_the_table_take_the_default(dtype, table):
    inputs = problem(600, [5.0, 5.0, 5.0], table)
    for low in ([-6, -5, -4], [0, 0, 0], [5, -5, -4], [1000, 0, 0]):
        moved = replace(table, h_min=torch.tensor(low))
        assert_near(lattice("compiled", inputs, moved, dtype), lattice("eager", inputs, moved, dtype), BOUND[dtype])
    constant = StructureFactors.constant(tensor(3.0))
    assert_near(lattice("compiled", inputs, constant, dtype), lattice("eager", inputs, constant, dtype), BOUND[dtype])


def test_results_do_not_depend_on_the_number_of_threads(table):
    inputs = problem(5000, [5.0, 5.0, 5.0], table)
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(gradients("compiled", inputs, table, torch.float64))
    assert all(torch.equal(x, y) for x, y in zip(*found, strict=True))


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_geometry_on_the_way(experiment, table, dtype):
    """Sub-pixels, plane waves, polarisation, a resolution limit and any pixels: the same image and misset gradient."""
    beam = experiment.beam
    directions = torch.nn.functional.normalize(tensor([[1.0, 0, 0], [1.0, 0.01, 0], [1.0, 0, -0.02]]), dim=-1)
    beam = replace(beam, direction=directions, wavelength=tensor([1.0, 1.01, 0.99]), weight=tensor([0.5, 0.3, 0.2]))
    experiment = replace(experiment, beam=beam, structure_factors=table)
    chosen = experiment.panel.all_pixels()[torch.tensor([3, 77, 5, 3839, 5])]
    for kahn, pixels in ((tensor(0.6), None), (None, chosen), (tensor(0.0), chosen[:0])):
        found = []
        for kernel in ("compiled", "eager"):
            misset = experiment.crystal.misset.clone().requires_grad_()
            changed = replace(
                experiment, crystal=replace(experiment.crystal, misset=misset), beam=replace(beam, kahn=kahn)
            )
            simulator = SampledBragg(random_domains(3, 5), oversample=2, d_min=20.0, dtype=dtype, kernel=kernel)
            image = simulator(changed, pixels)
            image.square().sum().backward()
            found.append((image.detach(), misset.grad))
        for ours, theirs in zip(*found, strict=True):
            assert_near(ours, theirs, 1e-10 if dtype == torch.float64 else 1e-4)


@pytest.mark.parametrize("part", ["sensor", "wavelength"])
def test_geometry_that_cannot_be_on_the_way(experiment, part):
    """A thick sensor, or a gradient in the beam: the same kernel over scattering vectors."""
    wavelength = experiment.beam.wavelength.clone().requires_grad_(part == "wavelength")
    experiment = replace(experiment, beam=replace(experiment.beam, wavelength=wavelength))
    if part == "sensor":
        edges = torch.linspace(0, 3e-4, 3, dtype=torch.float64)
        sensor = Sensor(tensor(4000.0), edges, (edges[1:] + edges[:-1]) / 2)
        experiment = replace(experiment, panel=replace(experiment.panel, sensor=sensor))
    images = [SampledBragg(random_domains(3, 5), kernel=k)(experiment).detach() for k in ("compiled", "eager")]
    assert_near(*images, 1e-11)


@pytest.mark.parametrize("shape", ["round", "gauss", "tophat"])
def test_what_has_no_compiled_kernel_runs_eagerly(experiment, shape, caplog):
    selection._say.cache_clear()
    caplog.set_level("INFO", "sim_core.kernels")
    images = [SampledBragg(random_domains(3, 5), SHAPES[shape](), kernel=k)(experiment) for k in selection.KERNELS]
    assert torch.equal(images[0], images[1]) and torch.equal(images[1], images[2])
    assert f"no compiled kernel for the shape {shape}" in caplog.text


@pytest.fixture
def forgetful():
    """Nothing is known of the compiler before and after the test."""
    known = (selection._problem, selection._say, compiled.problem)
    for function in known:
        function.cache_clear()
    yield
    for function in known:
        function.cache_clear()


def image_and_slope(simulator, experiment, with_crystal, way: str) -> tuple[torch.Tensor, ...]:
    spread = tensor(0.01)
    if way == "tangents":
        image = simulator(with_crystal(experiment, mosaic_spread=spread))
        return image, torch.func.jacfwd(lambda x: simulator(with_crystal(experiment, mosaic_spread=x)))(spread)
    image = simulator(with_crystal(experiment, mosaic_spread=spread.requires_grad_()))
    return image.detach(), *torch.autograd.grad(image.sum(), spread)


@pytest.mark.parametrize("way", ["image", "gradient", "tangents"])
def test_one_loop_that_cannot_be_compiled_is_a_line_in_the_log(
    experiment, with_crystal, way, monkeypatch, caplog, forgetful
):
    """Where a loop is needed and fails, the whole call runs eagerly; without need of it the others run."""

    def broken(*args: object) -> None:
        raise RuntimeError("no such instruction\nand a long story")

    monkeypatch.setattr(compiled.machine_code, way, broken)
    caplog.set_level("INFO", "sim_core.kernels")
    wanted, eager = (SampledBragg(random_domains(3, 5), kernel=k) for k in ("compiled", "eager"))
    kind = "tangents" if way == "tangents" else "gradient"
    for ours, theirs in zip(
        *(image_and_slope(s, experiment, with_crystal, kind) for s in (wanted, eager)), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9 * float(theirs.abs().max()))
    line = f"sum over orientations: eager ({way}: RuntimeError: no such instruction)"
    assert caplog.messages.count(line) == 1
    if way != "image":
        wanted(experiment)
        assert caplog.messages.count("sum over orientations: machine code, float64") == 1


def test_auto_goes_by_the_size_alone(monkeypatch):
    def chosen(evaluations: int) -> str:
        return selection.select("auto", evaluations, torch.device("cpu"), torch.float64, Square())

    assert (chosen(selection.WORTHWHILE - 1), chosen(selection.WORTHWHILE)) == ("eager", "compiled")
    with pytest.raises(ValueError, match="kernel: expected one of auto, eager, compiled, got fast"):
        selection.select("fast", 1, torch.device("cpu"), torch.float64, Square())


def test_the_first_call_may_be_a_jacobian(experiment, with_crystal):
    """What finds out whether there is a compiler runs inside the transformation, then."""
    selection._problem.cache_clear()
    simulator = SampledBragg(random_domains(3, 5), kernel="compiled")
    torch.func.jacfwd(lambda x: simulator(with_crystal(experiment, mosaic_spread=x)))(torch.tensor(0.01).double())
    assert selection._missing("lattice.compiled", torch.float64, ("image", "tangents")) == ""
