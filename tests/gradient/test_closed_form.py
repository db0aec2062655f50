"""Every continuous parameter of the closed form, backwards and forwards, with each kernel."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from support import tensor

from sim_core import Experiment, Scan, Sensor
from sim_core.bragg.closed_form import GAUSSIAN, SQUARE, ClosedFormBragg

PIXELS = torch.tensor([[5, 7], [30, 31], [33, 40], [50, 10], [12, 60]])


@pytest.fixture
def rich(experiment, table) -> Experiment:
    """Everything at once: two steps of a scan, two waves, divergence, bandwidth, a layer, a table, B, three mosaics."""
    waves = torch.nn.functional.normalize(tensor([[1.0, 0.0, 0.002], [1.0, 0.001, 0.0]]), dim=-1)
    beam = replace(experiment.beam, direction=waves, wavelength=tensor([1.0, 1.01]), weight=tensor([0.4, 0.6]))
    return replace(
        experiment,
        beam=replace(beam, divergence=tensor(1e-3), bandwidth=tensor(2e-3)),
        panel=replace(experiment.panel, sensor=Sensor(tensor(2000.0), tensor([1e-4, 4e-4]), tensor([2e-4]))),
        crystal=replace(experiment.crystal, mosaic_spread=torch.deg2rad(tensor([0.5, 0.8, 0.2]))),
        scan=Scan(tensor([0.0, 0.0, 1.0]), tensor([0.0, 0.02]), tensor([0.3, 0.7]), tensor(0.02)),
        structure_factors=replace(table, b_iso=tensor(20.0)),
    )


UNITS = {
    "crystal": {"misset": 0.01, "mosaic_spread": 0.01, "n_cells": 1.0, "orientation": 0.01, "cell": None},
    "beam": {
        "wavelength": 0.1,
        "direction": 0.01,
        "weight": 1.0,
        "fluence": 1e29,
        "kahn": 1.0,
        "polarization_axis": 1.0,
        "divergence": 1e-3,
        "bandwidth": 1e-3,
    },
    "panel": {"origin": 1e-3, "fast_axis": 0.01, "slow_axis": 0.01, "normal": 1.0, "pixel_size": 1e-5},
    "scan": {"axis": 0.1, "phi": 0.01, "weight": 1.0, "width": 0.01},
    "structure_factors": {"default": 1.0, "b_iso": 10.0},
}
"""Steps in which the parameters of each record are alike."""


def function_of(
    simulator: ClosedFormBragg, experiment: Experiment, part: str, pixels: torch.Tensor = PIXELS
) -> tuple[Callable[..., torch.Tensor], list[torch.Tensor]]:
    """The image, relative to its maximum, of the parameters of one record in their units, and their values."""
    record = getattr(experiment, part)
    lengths_and_angles = tensor([1.0, 1.0, 1.0, 0.01, 0.01, 0.01])
    units = {k: lengths_and_angles if v is None else tensor(v) for k, v in UNITS[part].items()}
    units = {k: v for k, v in units.items() if getattr(record, k) is not None}
    top = simulator(experiment, pixels).max().double()

    def image(*values: torch.Tensor) -> torch.Tensor:
        changed = {k: v * unit for (k, unit), v in zip(units.items(), values, strict=True)}
        return simulator(replace(experiment, **{part: replace(record, **changed)}), pixels) / top

    return image, [(getattr(record, k) / unit).clone().requires_grad_() for k, unit in units.items()]


def check(function: Callable[..., torch.Tensor], inputs: list[torch.Tensor]) -> None:
    assert torch.autograd.gradcheck(function, inputs, check_forward_ad=True, eps=1e-6, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("part", UNITS)
@pytest.mark.parametrize("kernel", ["eager", "compiled"])
def test_every_parameter_of_a_rotation(rich, kernel, part):
    check(*function_of(ClosedFormBragg(GAUSSIAN, d_min=12.0, point_spread=0.4, kernel=kernel), rich, part))


@pytest.mark.parametrize("part", UNITS)
@pytest.mark.parametrize("kernel", ["eager", "compiled"])
def test_every_parameter_of_a_still(experiment, kernel, part):
    check(*function_of(ClosedFormBragg(SQUARE, kernel=kernel), experiment, part))


@pytest.mark.parametrize("part", ["crystal", "beam", "panel", "scan"])
@pytest.mark.parametrize("width", [None, 0.003])
@pytest.mark.parametrize("kernel", ["eager", "compiled"])
def test_spots_narrower_than_pixels(rich, kernel, width, part):
    """Where the flattening of a Gaussian matters: at and around the brightest pixel."""
    crystal = replace(rich.crystal, n_cells=tensor([40.0, 35.0, 30.0]))
    beam = replace(rich.beam, divergence=tensor(1e-4), bandwidth=tensor(2e-4))
    scan = replace(rich.scan, width=None if width is None else tensor(width))
    narrow = replace(rich, crystal=crystal, beam=beam, scan=scan)
    simulator = ClosedFormBragg(GAUSSIAN, kernel=kernel)
    slow, fast = divmod(int(simulator(narrow).view(60, 64)[1:-1, 1:-1].argmax()), 62)
    pixels = torch.tensor([1 + slow, 1 + fast]) + torch.tensor([[0, 0], [0, 1], [1, 0], [-1, 0], [0, -1]])
    check(*function_of(simulator, narrow, part, pixels))


@pytest.mark.parametrize("kernel", ["eager", "compiled"])
@pytest.mark.parametrize("width", [0.0, 1e-4])
def test_a_rotation_that_is_hardly_one(experiment, kernel, width):
    moved = replace(experiment, scan=replace(experiment.scan, width=tensor(width + 1e-9)))
    check(*function_of(ClosedFormBragg(kernel=kernel), moved, "scan"))


@pytest.mark.parametrize("kernel", ["eager", "compiled"])
def test_structure_factors(rich, kernel):
    simulator = ClosedFormBragg(neighbours=(1, 1, 2), kernel=kernel)
    top, table = simulator(rich, PIXELS).max(), rich.structure_factors

    def image(part: torch.Tensor) -> torch.Tensor:
        values = torch.cat([part, table.table.flatten()[len(part) :]]).view(table.table.shape)
        return simulator(replace(rich, structure_factors=replace(table, table=values)), PIXELS) / top

    whole = table.table.flatten()
    seen = torch.autograd.functional.jacobian(image, whole).abs().sum(0)
    assert float(seen.max()) > 1e-4
    part = whole[: int(seen.argmax()) + 1].clone().requires_grad_()
    assert torch.autograd.gradcheck(image, part, check_forward_ad=True, fast_mode=True, eps=1e-4, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("part", UNITS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_jacobians_agree_in_both_modes_and_with_the_reference(rich, part, dtype):
    jacobians = []
    for kernel in ("eager", "compiled"):
        image, inputs = function_of(ClosedFormBragg(SQUARE, (1, 1, 2), dtype=dtype, kernel=kernel), rich, part)
        values = [v.detach() for v in inputs]
        every = tuple(range(len(values)))
        jacobians += [mode(image, every)(*values) for mode in (torch.func.jacfwd, torch.func.jacrev)]
    reference, *others = jacobians
    share = 1e-9 if dtype == torch.float64 else 2e-4
    for other in others:
        for a, b in zip(reference, other, strict=True):
            torch.testing.assert_close(b.double(), a.double(), rtol=0, atol=share * float(a.abs().max()))
