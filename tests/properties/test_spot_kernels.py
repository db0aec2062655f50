"""What is true of the closed form with any kernel, and of both kernels together."""

import logging
from dataclasses import replace

import pytest
import torch
from support import tensor

from sim_core import Scan, Sensor
from sim_core.bragg.closed_form import GAUSSIAN, SQUARE, ClosedFormBragg
from sim_core.kernels import selection
from sim_core.kernels.spots import compiled as spot_compiled
from sim_core.kernels.spots.sum import rotation_mean

BOUND = {torch.float64: 1e-10, torch.float32: 1e-5}


def variants(experiment, table):
    """A still, a table, a scan with divergence and bandwidth, a thick sensor with a displacement factor."""
    beam = replace(experiment.beam, divergence=tensor(1e-3), bandwidth=tensor(2e-3))
    scan = Scan(tensor([0.0, 0.0, 1.0]), tensor([0.0, 0.01]), tensor([0.3, 0.7]), tensor(0.01))
    sensor = Sensor(tensor(2000.0), tensor([0.0, 2e-4, 5e-4]), tensor([1e-4, 3e-4]))
    factors = replace(table, b_iso=tensor(20.0))
    return {
        "still": experiment,
        "table": replace(experiment, structure_factors=table),
        "scan": replace(experiment, beam=beam, scan=scan, structure_factors=factors),
        "sensor": replace(
            experiment, panel=replace(experiment.panel, sensor=sensor), beam=replace(experiment.beam, kahn=None)
        ),
    }


@pytest.mark.parametrize("variant", ["still", "table", "scan", "sensor"])
@pytest.mark.parametrize("n", [1.0, 5.0, 60.0])
def test_kernels_agree(experiment, table, with_crystal, variant, n):
    moved = with_crystal(variants(experiment, table)[variant], n_cells=tensor([n, n + 1, n + 2]))
    for blocks in (GAUSSIAN, SQUARE):
        options = {"blocks": blocks, "neighbours": (1, 2, 3), "d_min": 12.0, "point_spread": 0.4}
        reference = ClosedFormBragg(**options, kernel="eager")(moved)
        for dtype, bound in BOUND.items():
            image = ClosedFormBragg(**options, dtype=dtype, kernel="compiled")(moved)
            assert image.dtype == dtype
            torch.testing.assert_close(image.double(), reference, rtol=0, atol=bound * float(reference.max()))


@pytest.mark.parametrize("kernel", ["eager", "compiled"])
def test_a_subset_of_pixels_is_the_same_pixels_of_the_whole(experiment, kernel):
    simulator = ClosedFormBragg(kernel=kernel)
    chosen = torch.tensor([3, 77, 1000, 3839, 5])
    part = simulator(experiment, experiment.panel.all_pixels()[chosen])
    torch.testing.assert_close(part, simulator(experiment)[chosen], rtol=1e-12, atol=0)
    assert simulator(experiment, torch.zeros(0, 2, dtype=torch.long)).shape == (0,)


def test_threads_do_not_change_a_bit(experiment, with_crystal, monkeypatch):
    monkeypatch.setattr(spot_compiled, "PART", 512)

    def results(threads: int) -> tuple[torch.Tensor, ...]:
        torch.set_num_threads(threads)
        misset = experiment.crystal.misset.clone().requires_grad_()
        image = ClosedFormBragg(kernel="compiled")(with_crystal(experiment, misset=misset))
        image.square().sum().backward()
        return image.detach(), misset.grad

    for one, two in zip(results(1), results(2), strict=True):
        assert torch.equal(one, two)


def test_the_size_alone_decides(experiment, monkeypatch, caplog):
    selection._say.cache_clear()
    caplog.set_level(logging.INFO, "sim_core.kernels")
    ClosedFormBragg()(experiment)
    monkeypatch.setattr(selection, "WORTHWHILE_SPOTS", 60 * 64)
    ClosedFormBragg()(experiment)
    assert caplog.messages == [
        "closed form: eager (too small for compiling to pay)",
        "closed form: machine code, float64",
    ]
    with pytest.raises(ValueError, match="kernel: expected one of auto, eager, compiled, got fast"):
        ClosedFormBragg(kernel="fast")(experiment)


def test_the_first_call_may_be_a_jacobian(experiment, with_crystal, monkeypatch):
    """What finds out whether there is a compiler runs inside the transformation, then."""
    selection._problem.cache_clear()
    spot_compiled.problem.cache_clear()
    simulator = ClosedFormBragg(kernel="compiled")
    torch.func.jacfwd(lambda x: simulator(with_crystal(experiment, mosaic_spread=x)))(tensor(0.01))
    assert selection._missing("spots.compiled", torch.float64, ("image", "tangents")) == ""


def test_without_a_compiler_the_reference_runs(experiment, monkeypatch, caplog):
    selection._say.cache_clear()
    caplog.set_level(logging.INFO, "sim_core.kernels")
    monkeypatch.setattr(selection, "_missing", lambda module, dtype, needed: "no compiler")
    image = ClosedFormBragg(kernel="compiled")(experiment)
    torch.testing.assert_close(image, ClosedFormBragg(kernel="eager")(experiment))
    assert caplog.messages[0] == "closed form: eager (no compiler)"


def test_the_mean_over_a_rotation_is_its_integral():
    a, b, c, flat, w = (tensor(x) for x in (30.0, -4.0, 3.0, 0.2, 0.4))
    phi = torch.linspace(-0.4, 0.4, 4001, dtype=torch.float64)
    mean = torch.trapezoid(torch.exp(-(c + flat + 2 * b * phi + a * phi**2) / 2), phi) / 0.8
    torch.testing.assert_close(rotation_mean(a, b, c, flat, w), mean, rtol=1e-6, atol=0)
