"""What is true of any right simulator of Bragg spots."""

import math
from dataclasses import replace

import pytest
import torch
from support import tensor

from sim_core import Sensor
from sim_core.bragg.sampled import SampledBragg, orientations
from sim_core.interference import SHAPES, Round, Square
from sim_core.mosaic import DomainSample, quadrature_domains, random_domains
from sim_core.rotations import axis_rotation

pytestmark = pytest.mark.usefixtures("kernel")

ONE = quadrature_domains(1)


@pytest.mark.parametrize("shape", SHAPES)
def test_turning_the_whole_laboratory_leaves_the_image(experiment, shape):
    simulator = SampledBragg(quadrature_domains(1), SHAPES[shape]())
    turn = axis_rotation(tensor([1.0, 2.0, -0.5]), tensor(0.7))
    b, p, c, s = experiment.beam, experiment.panel, experiment.crystal, experiment.scan
    turned = replace(
        experiment,
        beam=replace(b, direction=b.direction @ turn.T, polarization_axis=turn @ b.polarization_axis),
        panel=replace(p, **{n: turn @ getattr(p, n) for n in ("origin", "fast_axis", "slow_axis", "normal")}),
        crystal=type(c).from_matrix(turn @ c.reciprocal, torch.zeros_like(c.misset), c.n_cells, c.mosaic_spread),
        scan=replace(s, axis=turn @ s.axis),
    )
    expected = simulator(experiment)
    torch.testing.assert_close(simulator(turned), expected, rtol=1e-9, atol=1e-12 * float(expected.max()))


def test_a_subset_of_pixels_is_the_same_pixels_of_the_whole(experiment):
    simulator = SampledBragg(quadrature_domains(7), oversample=2)
    pixels = experiment.panel.all_pixels()
    chosen = torch.tensor([3, 77, 1000, 3839])
    torch.testing.assert_close(simulator(experiment, pixels[chosen]), simulator(experiment)[chosen])


def test_no_pixels_are_an_empty_image(experiment):
    assert SampledBragg(ONE)(experiment, torch.zeros(0, 2, dtype=torch.long)).shape == (0,)


def test_friedel_mates_have_the_same_interference():
    x = torch.rand(3, 50, 4, dtype=torch.float64) - 0.5
    for shape in SHAPES.values():
        parameters = shape().parameters(tensor([4.0, 5.0, 6.0]), torch.eye(3, dtype=torch.float64) / 80)
        torch.testing.assert_close(shape().profile(x, parameters), shape().profile(-x, parameters))


def test_period_of_the_interference_function_is_one(experiment, with_crystal):
    n = tensor([4.0, 5.0, 6.0])
    h = tensor([0.13, -0.21, 0.37]) + tensor([3.0, -2.0, 7.0])
    direct = ((math.pi * n * h).sin() / (math.pi * h).sin()).prod() ** 2
    x = (h - h.round()).view(3, 1, 1)
    torch.testing.assert_close(Square().profile(x, n)[0, 0], direct)


def test_peak_and_integral_of_a_parallelepiped():
    n = tensor([5.0, 1.0, 1.0])
    x = torch.zeros(3, 20001, 1, dtype=torch.float64)
    x[0, :, 0] = torch.linspace(-0.5, 0.5, 20001, dtype=torch.float64)
    profile = Square().profile(x, n)[:, 0]
    assert float(profile.max()) == pytest.approx(25)
    assert float(torch.trapezoid(profile, x[0, :, 0])) == pytest.approx(5, rel=1e-6)


def test_a_ball_approaches_its_series_smoothly():
    t = torch.linspace(0.0039, 0.0042, 7, dtype=torch.float64)
    value, slope = Round()._radial(t)
    numeric = torch.gradient(value, spacing=(t,))[0][1:-1]
    torch.testing.assert_close(slope[1:-1], numeric, rtol=1e-5, atol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_single_precision_is_near_double(experiment, table, shape):
    experiment = replace(experiment, structure_factors=table)
    images = [SampledBragg(ONE, SHAPES[shape](), dtype=d)(experiment).double() for d in (torch.float64, torch.float32)]
    assert float((images[0] - images[1]).abs().max() / images[0].max()) < 1e-4


@pytest.mark.gpu
def test_gpu_and_cpu_agree(experiment, table):
    experiment = replace(experiment, structure_factors=table)
    simulator = SampledBragg(quadrature_domains(25), oversample=2)
    image = simulator(experiment)
    moved = replace(
        experiment,
        **{
            name: replace(part, **{k: v.cuda() for k, v in vars(part).items() if isinstance(v, torch.Tensor)})
            for name, part in vars(experiment).items()
        },
    )
    torch.testing.assert_close(simulator.cuda()(moved).cpu(), image, rtol=1e-10, atol=1e-12 * float(image.max()))


def test_intensity_is_proportional_to_fluence_and_amplitude_squared(experiment):
    simulator = SampledBragg(ONE)
    more = replace(
        experiment,
        beam=replace(experiment.beam, fluence=experiment.beam.fluence * 3),
        structure_factors=replace(experiment.structure_factors, default=tensor(200.0)),
    )
    torch.testing.assert_close(simulator(more), 12 * simulator(experiment))


def test_pixels_outside_the_table_take_the_default(experiment, table):
    far = replace(table, h_min=table.h_min + 1000)
    constant = replace(experiment.structure_factors, default=table.default)
    simulator = SampledBragg(ONE)
    images = [simulator(replace(experiment, structure_factors=f)) for f in (far, constant)]
    torch.testing.assert_close(*images)


def test_resolution_limit_removes_what_lies_beyond(experiment):
    image = SampledBragg(ONE, d_min=30.0)(experiment).view(60, 64)
    points = experiment.panel.positions(experiment.panel.all_pixels() + 0.5)
    two_theta = torch.acos(points[:, 0] / points.norm(dim=-1)).view(60, 64)
    d = 1 / (2 * torch.sin(two_theta / 2))
    assert bool((image[d < 30.0] == 0).all() & (image[d > 30.0] > 0).all())


def test_many_layers_stop_what_one_thick_layer_stops(experiment):
    def total(layers: int) -> torch.Tensor:
        edges = torch.linspace(0, 1e-13, layers + 1, dtype=torch.float64)
        sensor = Sensor(tensor(1e13), edges, (edges[1:] + edges[:-1]) / 2)
        return SampledBragg(ONE)(replace(experiment, panel=replace(experiment.panel, sensor=sensor)))

    thin = SampledBragg(ONE)(experiment)
    torch.testing.assert_close(total(4), total(1), rtol=1e-5, atol=1e-9)
    ratio = total(1) / thin
    assert 1 - math.exp(-1) <= float(ratio.min()) + 1e-6
    assert float(ratio.max()) < 0.65


def test_sub_pixels_average_finer_pixels(experiment):
    coarse = SampledBragg(ONE, oversample=2)(experiment).view(60, 64)
    panel = experiment.panel
    fine_panel = replace(panel, pixel_size=panel.pixel_size / 2, image_size=(128, 120))
    fine = SampledBragg(ONE)(replace(experiment, panel=fine_panel)).view(60, 2, 64, 2).sum((1, 3))
    torch.testing.assert_close(coarse, fine)


def test_a_scan_is_the_mean_of_its_stills(experiment):
    angles = tensor([0.1, 0.2, 0.3])
    simulator = SampledBragg(quadrature_domains(7))
    scan = replace(experiment.scan, phi=angles, weight=torch.full((3,), 1 / 3, dtype=torch.float64))
    stills = [simulator(replace(experiment, scan=replace(scan, phi=a[None], weight=tensor([1.0])))) for a in angles]
    torch.testing.assert_close(simulator(replace(experiment, scan=scan)), torch.stack(stills).mean(0))


def test_orientations_keep_the_cell(experiment):
    rows, weights = orientations(experiment.crystal, experiment.scan, random_domains(9, 5))
    metric = rows @ rows.mT
    torch.testing.assert_close(metric, metric[:1].expand_as(metric))
    assert float(weights.sum()) == pytest.approx(1)


def test_chunks_do_not_change_the_image_or_its_gradient(experiment, with_crystal, monkeypatch):
    def image_and_gradient() -> tuple[torch.Tensor, torch.Tensor]:
        misset = experiment.crystal.misset.clone().requires_grad_()
        image = SampledBragg(quadrature_domains(7), oversample=2)(with_crystal(experiment, misset=misset))
        image.square().sum().backward()
        return image.detach(), misset.grad

    whole = image_and_gradient()
    monkeypatch.setattr("sim_core.bragg.sampled.BLOCK", 1000)
    monkeypatch.setattr("sim_core.kernels.lattice.eager.TILE", {"cpu": 700})
    torch.testing.assert_close(image_and_gradient(), whole)


def test_two_backward_passes_with_an_update_between(experiment, with_crystal):
    spread = experiment.crystal.mosaic_spread.clone().requires_grad_()
    simulator = SampledBragg(quadrature_domains(7))
    gradients = []
    for _ in range(2):
        spread.grad = None
        simulator(with_crystal(experiment, mosaic_spread=spread)).square().sum().backward()
        gradients.append(float(spread.grad))
        with torch.no_grad():
            spread.mul_(1.1)
    assert gradients[0] != gradients[1]


def test_one_domain_without_spread_is_a_perfect_crystal(experiment, with_crystal):
    still = with_crystal(experiment, mosaic_spread=tensor(0.0))
    torch.testing.assert_close(SampledBragg(random_domains(20, 1))(still), SampledBragg(ONE)(still))


def test_weights_of_domains_count(experiment):
    pair = quadrature_domains(13)
    doubled = DomainSample(pair.axes.repeat(2, 1), pair.angles.repeat(2), pair.weights.repeat(2) / 2)
    torch.testing.assert_close(SampledBragg(doubled)(experiment), SampledBragg(pair)(experiment))
