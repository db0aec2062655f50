"""What is true of the closed form, alone and beside the sampled simulator."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from support import tensor

from sim_core import Experiment, Scan, Sensor, StructureFactors
from sim_core.bragg.closed_form import GAUSSIAN, SQUARE, ClosedFormBragg, neighbours_needed, parts_needed
from sim_core.bragg.sampled import SampledBragg
from sim_core.interference import Gaussian, Square
from sim_core.kernels.spots.sum import flattening, rotation_mean
from sim_core.mosaic import SIGMA_PER_SPREAD, DomainSample, normal_domains, quadrature_domains
from sim_core.rotations import axis_rotation

CLOSED = ClosedFormBragg(GAUSSIAN)
SAMPLED = SampledBragg(quadrature_domains(1), Gaussian())


def difference(image: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative L2 error."""
    return float((image - expected).norm() / expected.norm())


@pytest.fixture
def sharp(experiment, with_crystal) -> Experiment:
    """Blocks of 7 to 9 cells without mosaic spread, around their brightest spot; pixels far smaller than the spot."""
    crystal = with_crystal(experiment, n_cells=tensor([9.0, 8.0, 7.0]), mosaic_spread=tensor(0.0))
    panel = experiment.panel
    place = panel.all_pixels() + 0.5
    image = CLOSED(crystal) * ((panel.positions(place)[:, 1:].norm(dim=-1)) > 1e-3)
    corner = panel.positions(place[image.argmax()] - 3.0)
    return replace(crystal, panel=replace(panel, origin=corner, pixel_size=tensor(1e-5)))


@pytest.fixture
def spread(experiment) -> Experiment:
    """Divergence, bandwidth and a rotation of 1 degree."""
    beam = replace(experiment.beam, divergence=tensor(2e-3), bandwidth=tensor(5e-3))
    scan = replace(experiment.scan, phi=tensor([0.01]), width=torch.deg2rad(tensor(1.0)))
    return replace(experiment, beam=beam, scan=scan)


def test_one_gaussian_block_without_spread(sharp):
    pixels = sharp.panel.all_pixels()
    image = CLOSED(sharp, pixels)
    assert float(image.max()) > 10 * float(image.median())
    assert difference(image, SAMPLED(sharp, pixels)) < 2e-3
    fine = SampledBragg(quadrature_domains(1), Gaussian(), oversample=8)
    assert difference(image, fine(sharp, pixels)) < 1e-4


@pytest.mark.parametrize(("times", "parts", "most"), [(1, 1, 1e-4), (10, 1, 0.1), (10, 3, 2e-3), (30, 8, 1e-2)])
def test_parts_make_a_pixel_a_box(sharp, times, parts, most):
    """Pixels from a fraction of a spot to far beyond it against the sum of the pixels that they consist of."""
    size = sharp.panel.pixel_size * times
    large = replace(sharp.panel, pixel_size=size, image_size=(6, 6))
    fine = replace(large, pixel_size=size / 32, image_size=(192, 192))
    expected = CLOSED(replace(sharp, panel=fine)).view(6, 32, 6, 32).sum((1, 3)).flatten()
    simulator = ClosedFormBragg(GAUSSIAN, oversample=parts)
    assert difference(simulator(replace(sharp, panel=large)), expected) < most


def test_against_joint_samples_of_everything(spread):
    """Block, spindle, direction, wavelength and place in the pixel of each sample from one quasi-random sequence."""
    count = 1024
    u = torch.quasirandom.SobolEngine(9, scramble=True, seed=1).draw(count, dtype=torch.float64)
    place, v = u[:, :3] - 0.5, torch.special.ndtri(u[:, 3:].clamp(1e-9, 1 - 1e-9))
    pixels = spread.panel.all_pixels()[::7]
    beam, panel, scan = spread.beam, spread.panel, spread.scan
    angles = SIGMA_PER_SPREAD * v[:, :3].norm(dim=-1)
    directions = beam.direction + beam.divergence * torch.nn.functional.pad(v[:, 3:5], (1, 0))
    expected = torch.zeros(len(pixels), dtype=torch.float64)
    for i in range(count):
        shift = panel.pixel_size * (place[i, 0] * panel.fast_axis + place[i, 1] * panel.slow_axis)
        direction = directions[i : i + 1]
        wave = replace(
            beam,
            direction=direction / direction.norm(),
            wavelength=beam.wavelength * (1 + beam.bandwidth * v[i, 5]),
            divergence=None,
            bandwidth=None,
        )
        one = replace(
            spread,
            beam=wave,
            panel=replace(panel, origin=panel.origin + shift),
            scan=Scan(scan.axis, scan.phi + scan.width * place[i, 2], scan.weight),
        )
        block = DomainSample(v[i : i + 1, :3] / v[i, :3].norm(), angles[i : i + 1], tensor([1.0]))
        expected += SampledBragg(block, Gaussian())(one, pixels) / count
    image = ClosedFormBragg(GAUSSIAN, (2, 2, 2))(spread, pixels)
    assert difference(image, expected) < 0.03
    assert float(image.sum() / expected.sum()) == pytest.approx(1, abs=0.005)


@pytest.mark.parametrize(("sigma", "most"), [(1 / 4, 0.033), (1 / 3, 0.013), (1 / 2, 0.0025), (1.0, 1e-4)])
def test_a_flattened_gaussian_is_a_box_under_a_spot(sigma, most):
    """In one dimension, where the exact answer is a difference of error functions; sigma in pixels."""
    x = torch.linspace(-6, 6, 2001, dtype=torch.float64)
    exact = torch.special.ndtr((x + 0.5) / sigma) - torch.special.ndtr((x - 0.5) / sigma)
    variance = tensor(sigma**2 + 1 / 12)
    flat = flattening(1440**-0.25 * x / variance, 1440**-0.5 / variance)
    image = torch.exp(-(x**2 / variance + flat) / 2) / (2 * math.pi * variance).sqrt()
    assert difference(image, exact) < most
    assert float(image.sum() / exact.sum()) == pytest.approx(1, abs=most / 10)


@pytest.fixture
def protein(experiment, with_crystal) -> Experiment:
    """15 cells along each edge of a tetragonal crystal: the standard deviation of a spot is a third of a pixel."""
    crystal = with_crystal(
        experiment,
        cell=tensor([79.1, 79.1, 38.4, *[math.pi / 2] * 3]),
        misset=torch.deg2rad(tensor([1.2, -0.7, 2.1])),
        n_cells=tensor([15.0, 15.0, 15.0]),
        mosaic_spread=torch.deg2rad(tensor(0.35)),
    )
    origin = tensor([0.18, 0.011, -0.011])
    panel = replace(crystal.panel, origin=origin, pixel_size=tensor(0.172e-3), image_size=(64, 64))
    factors = StructureFactors(torch.zeros(1, 1, 1).double(), torch.tensor([0, 0, 0]), tensor(100.0))
    return replace(crystal, panel=panel, structure_factors=factors)


@pytest.mark.parametrize(("range_deg", "steps", "blocks"), [(0.0, 1, 256), (0.5, 8, 64)])
def test_one_gaussian_for_pixels_as_large_as_spots(protein, range_deg, steps, blocks):
    """Against quasi-random blocks, steps of the spindle and sub-pixels; the blocks' own noise is taken away."""
    width = math.radians(range_deg)
    phi = width * ((torch.arange(steps, dtype=torch.float64) + 0.5) / steps - 0.5)
    fine = replace(protein, scan=Scan(protein.scan.axis, phi, torch.full_like(phi, 1 / steps)))
    images = []
    for seed in range(8):
        u = torch.quasirandom.SobolEngine(3, scramble=True, seed=seed).draw(blocks, dtype=torch.float64)
        vectors = SIGMA_PER_SPREAD * torch.special.ndtri(u.clamp(1e-9, 1 - 1e-9))
        angles = vectors.norm(dim=-1)
        domains = DomainSample(vectors / angles[:, None], angles, torch.full_like(angles, 1 / blocks))
        images.append(SampledBragg(domains, Gaussian(), oversample=4)(fine))
    stack = torch.stack(images)
    expected, noise = stack.mean(0), float(stack.var(0).sum() / len(stack))
    norm = float(expected.square().sum()) - noise
    turning = replace(protein, scan=replace(protein.scan, width=tensor(width) if range_deg else None))
    image = ClosedFormBragg(GAUSSIAN)(turning)
    square = float((image - expected).square().sum())
    assert noise < 2e-4 * norm
    assert square - noise < 0.02**2 * norm
    assert float(image.sum() / expected.sum()) == pytest.approx(1, abs=0.01)


def test_pixels_are_cut_where_the_narrowest_spot_is_below_a_quarter_of_one(protein, with_crystal):
    size = (79.1 * 15 * math.sqrt(2 * math.pi)) ** -1 * 0.18 / 0.172e-3
    for times, parts in ((0.99, 1), (1.01, 2)):
        cells = protein.crystal.n_cells * tensor([4 * size * times, 1.0, 1.0])
        assert parts_needed(with_crystal(protein, n_cells=cells), GAUSSIAN) == parts
    assert parts_needed(with_crystal(protein, n_cells=cells), GAUSSIAN, point_spread=0.1) == 1


def test_two_gaussians_are_nearer_to_parallelepipeds(sharp):
    expected = SampledBragg(quadrature_domains(1), Square(), oversample=2)(sharp)
    errors = [difference(ClosedFormBragg(b, (2, 2, 2))(sharp), expected) for b in (GAUSSIAN, SQUARE)]
    assert errors[1] < 0.09 < 0.13 < errors[0]


def test_integrated_intensity_does_not_depend_on_what_spreads_a_spot(experiment, with_crystal):
    """The reflection 0 1 0 of a cubic crystal, turned through the sphere, and caught whole."""
    cubic = with_crystal(
        experiment,
        cell=tensor([50.0, 50.0, 50.0, *[math.pi / 2] * 3]),
        n_cells=tensor([30.0, 30.0, 30.0]),
        mosaic_spread=torch.deg2rad(tensor(0.5)),
        misset=torch.zeros(3, dtype=torch.float64),
    )
    turning = replace(
        cubic,
        beam=replace(cubic.beam, kahn=None),
        scan=replace(cubic.scan, phi=tensor([0.01]), width=torch.deg2rad(tensor(10.0))),
        structure_factors=StructureFactors(torch.full((1, 1, 1), 50.0).double(), torch.tensor([0, 1, 0]), tensor(0.0)),
    )
    others = [
        with_crystal(turning, mosaic_spread=torch.deg2rad(tensor(1.5))),
        with_crystal(turning, mosaic_spread=torch.deg2rad(tensor([0.2, 0.5, 1.5]))),
        with_crystal(turning, n_cells=tensor([25.0, 30.0, 36.0])),
        replace(turning, beam=replace(turning.beam, divergence=tensor(2e-3), bandwidth=tensor(0.02))),
    ]
    simulator = ClosedFormBragg(GAUSSIAN, oversample=4)
    image = simulator(turning)
    assert float(image.max()) > 10 * float(image.mean())
    sums = [float(simulator(e).sum() / image.sum()) for e in others]
    assert sums == pytest.approx([1, 1, 1, 1], rel=5e-3)


def test_three_equal_mosaic_spreads_are_one(spread, with_crystal):
    three = with_crystal(spread, mosaic_spread=spread.crystal.mosaic_spread.repeat(3))
    torch.testing.assert_close(CLOSED(three), CLOSED(spread))
    still = replace(spread, scan=replace(spread.scan, width=None))
    sampled = SampledBragg(normal_domains(500, 3), Gaussian())
    three = with_crystal(still, mosaic_spread=still.crystal.mosaic_spread.repeat(3))
    pixels = torch.tensor([[30, 31]])
    frame = still.crystal.rotation
    domains = sampled.domains
    spindle = axis_rotation(still.scan.axis, still.scan.phi[0])
    lab = SampledBragg(domains._replace(axes=domains.axes @ (spindle @ frame).T), Gaussian())
    torch.testing.assert_close(sampled(three, pixels), lab(still, pixels))


def test_mosaic_spread_about_one_axis_against_blocks(experiment, with_crystal):
    spread = torch.deg2rad(tensor([0.1, 2.5, 0.5]))
    crystal = with_crystal(experiment, mosaic_spread=spread, n_cells=tensor([7.0, 7.0, 6.0]))
    blocks = SampledBragg(quadrature_domains(187, "normal"), Gaussian(), oversample=2)
    pixels = crystal.panel.all_pixels()[::3]
    pixels = pixels[crystal.panel.positions(pixels + 0.5)[:, 1:].norm(dim=-1) > 1.5e-3]  # not the direct beam
    expected = blocks(crystal, pixels)
    assert difference(CLOSED(crystal, pixels), expected) < 0.03
    other = with_crystal(crystal, mosaic_spread=spread.roll(1))
    assert difference(CLOSED(other, pixels), expected) > 0.1


def test_splitting_a_rotation_changes_nothing(spread):
    whole = replace(spread, scan=replace(spread.scan, phi=tensor([0.01]), width=tensor(0.008)))
    halves = replace(
        whole, scan=replace(whole.scan, phi=tensor([0.008, 0.012]), weight=tensor([0.5, 0.5]), width=tensor(0.004))
    )
    assert difference(CLOSED(halves), CLOSED(whole)) < 2e-3


def test_a_rotation_is_the_mean_of_many_stills(spread):
    middles = (torch.arange(40, dtype=torch.float64) + 0.5) / 40 - 0.5
    turning = replace(spread, scan=replace(spread.scan, width=tensor(0.008)))
    phi = turning.scan.phi + 0.008 * middles
    stills = replace(turning, scan=Scan(turning.scan.axis, phi, torch.full((40,), 1 / 40, dtype=torch.float64)))
    pixels = spread.panel.all_pixels()[::11]
    assert difference(CLOSED(turning, pixels), CLOSED(stills, pixels)) < 2e-3


def test_a_narrow_rotation_is_a_still(spread):
    still = CLOSED(replace(spread, scan=replace(spread.scan, width=None)))
    for width in (0.0, 1e-9, 1e-6):
        image = CLOSED(replace(spread, scan=replace(spread.scan, width=tensor(width))))
        torch.testing.assert_close(image, still, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_series_meet_the_closed_expressions(dtype, rtol):
    """Means over a rotation by many points, on both sides of where a series takes over."""
    x, mass = (torch.from_numpy(v) / 2 for v in np.polynomial.legendre.leggauss(200))
    for a in (3e-5, 0.99e-4, 1.01e-4, 0.99e-2, 1.01e-2, 0.5, 8.0, 11.0):
        a = tensor(a)
        for b in (tensor(0.0), 0.7 * a.sqrt(), -2 * a.sqrt()):
            c, flat = b * b / a + 0.4, tensor(-0.3)
            mean = torch.exp(-(c + flat + 2 * b * x * 2 + a * (2 * x) ** 2) / 2) @ mass
            value = rotation_mean(*(v.to(dtype) for v in (a, b, c, flat, tensor(1.0))))
            torch.testing.assert_close(value.double(), mean, rtol=rtol * 10, atol=0)


def test_far_from_every_spot_nothing_is_infinite(spread, with_crystal):
    """Large blocks, sharp spots: pixels many standard deviations away."""
    sharp = with_crystal(spread, n_cells=tensor([400.0, 400.0, 400.0]), mosaic_spread=tensor(1e-4))
    beam = replace(sharp.beam, divergence=None, bandwidth=None)
    for dtype in (torch.float64, torch.float32):
        for width in (tensor(1e-3), None):
            moved = replace(sharp, beam=beam, scan=replace(sharp.scan, width=width))
            misset = moved.crystal.misset.clone().requires_grad_()
            image = ClosedFormBragg(GAUSSIAN, dtype=dtype)(with_crystal(moved, misset=misset))
            (slope,) = torch.autograd.grad(image.sum(), misset)
            assert bool(image.isfinite().all() & (image >= 0).all() & slope.isfinite().all())


@pytest.mark.parametrize("blocks", [GAUSSIAN, SQUARE])
@pytest.mark.parametrize("turning", [False, True])
def test_single_precision_is_near_double(spread, table, blocks, turning):
    moving = replace(spread, structure_factors=table)
    moving = moving if turning else replace(moving, scan=replace(moving.scan, width=None))
    images = [ClosedFormBragg(blocks, dtype=d)(moving).double() for d in (torch.float64, torch.float32)]
    assert float((images[0] - images[1]).abs().max() / images[0].max()) < 1e-5


def test_subset_of_pixels_and_no_pixels(spread):
    pixels = spread.panel.all_pixels()
    chosen = torch.tensor([3, 77, 1000, 3839])
    torch.testing.assert_close(CLOSED(spread, pixels[chosen]), CLOSED(spread)[chosen])
    assert CLOSED(spread, pixels[:0]).shape == (0,)


@pytest.mark.parametrize("turning", [False, True])
def test_turning_the_whole_laboratory_leaves_the_image(spread, turning):
    turn = axis_rotation(tensor([1.0, 2.0, -0.5]), tensor(0.7))
    b, p, c, s = spread.beam, spread.panel, spread.crystal, spread.scan
    s = s if turning else replace(s, width=None)
    c = replace(c, mosaic_spread=tensor([0.01, 0.02, 0.005]))
    turned = replace(
        spread,
        beam=replace(b, direction=b.direction @ turn.T, polarization_axis=turn @ b.polarization_axis),
        panel=replace(p, **{n: turn @ getattr(p, n) for n in ("origin", "fast_axis", "slow_axis", "normal")}),
        crystal=replace(c, orientation=turn @ c.rotation, misset=torch.zeros_like(c.misset)),
        scan=replace(s, axis=turn @ s.axis),
    )
    expected = CLOSED(replace(spread, crystal=c, scan=s))
    torch.testing.assert_close(CLOSED(turned), expected, rtol=1e-8, atol=1e-12 * float(expected.max()))


def test_layers_of_a_sensor_stop_what_one_thick_layer_stops(spread):
    def total(layers: int) -> torch.Tensor:
        edges = torch.linspace(0, 1e-9, layers + 1, dtype=torch.float64)
        sensor = Sensor(tensor(1e9), edges, (edges[1:] + edges[:-1]) / 2)
        return CLOSED(replace(spread, panel=replace(spread.panel, sensor=sensor)))

    torch.testing.assert_close(total(4), total(1), rtol=1e-5, atol=1e-9)
    ratio = total(1) / CLOSED(spread)
    assert 1 - math.exp(-1) <= float(ratio.min()) + 1e-6
    assert float(ratio.max()) < 0.65


def test_a_layer_deep_in_a_sensor_moves_the_spots(spread):
    depth = tensor([0.0, 1e-3])
    sensor = Sensor(tensor(1e3), depth, depth[1:])
    shifted = replace(spread.panel, origin=spread.panel.origin + depth[1] * spread.panel.normal)
    deep = CLOSED(replace(spread, panel=replace(spread.panel, sensor=sensor)))
    plain = CLOSED(replace(spread, panel=shifted))
    assert difference(deep / deep.sum(), plain / plain.sum()) < 0.02


def test_proportional_to_fluence_and_amplitude_squared(spread):
    more = replace(
        spread,
        beam=replace(spread.beam, fluence=spread.beam.fluence * 3),
        structure_factors=replace(spread.structure_factors, default=tensor(200.0)),
    )
    torch.testing.assert_close(CLOSED(more), 12 * CLOSED(spread))


def test_plane_waves_are_their_mean_and_variance(experiment, with_crystal):
    """Six waves with the variances of a Gaussian beam make the same image as the beam itself."""
    root, sigma, relative = math.sqrt(3), 1e-3, 2e-3
    tilts = torch.zeros(6, 3, dtype=torch.float64)
    tilts[0, 1], tilts[1, 1], tilts[2, 2], tilts[3, 2] = root, -root, root, -root
    directions = experiment.beam.direction + sigma * tilts
    waves = replace(
        experiment.beam,
        direction=directions / directions.norm(dim=-1, keepdim=True),
        wavelength=1 + relative * tensor([0, 0, 0, 0, root, -root]),
        weight=torch.full((6,), 1 / 6, dtype=torch.float64),
    )
    gaussian = replace(experiment.beam, divergence=tensor(sigma), bandwidth=tensor(relative))
    images = [CLOSED(replace(experiment, beam=b)) for b in (waves, gaussian)]
    assert difference(*images) < 1e-4


def test_resolution_limit(spread):
    limited, whole = ClosedFormBragg(GAUSSIAN, d_min=30.0)(spread), CLOSED(spread)
    assert bool(((limited == whole) | (limited == 0)).all())
    assert 0 < int((limited == 0).sum()) < len(limited)


def test_blocks_of_pixels_do_not_change_the_image(spread, monkeypatch):
    whole = CLOSED(spread)
    monkeypatch.setattr("sim_core.kernels.spots.image.BLOCK", 700)
    torch.testing.assert_close(CLOSED(spread), whole)


@pytest.mark.parametrize("blocks", [GAUSSIAN, SQUARE])
@pytest.mark.parametrize(("n_cells", "mosaic_deg"), [(5.0, 0.1), (5.0, 3.0), (15.0, 0.3), (15.0, 6.0)])
def test_lattice_points_that_are_left_out_do_not_matter(experiment, with_crystal, blocks, n_cells, mosaic_deg):
    crystal = with_crystal(experiment, n_cells=tensor([n_cells] * 3), mosaic_spread=torch.deg2rad(tensor(mosaic_deg)))
    pixels = crystal.panel.all_pixels()[::13]
    needed = neighbours_needed(crystal, blocks)
    expected = ClosedFormBragg(blocks, (3, 3, 3))(crystal, pixels)
    assert difference(ClosedFormBragg(blocks, needed)(crystal, pixels), expected) < 5e-3


def test_lattice_points_needed(experiment, with_crystal):
    def needed(n_cells=20.0, mosaic_deg=0.3, width=None, blocks=GAUSSIAN, pixel=1e-4):
        crystal = with_crystal(
            experiment, n_cells=tensor([n_cells] * 3), mosaic_spread=torch.deg2rad(tensor(mosaic_deg))
        )
        scan = replace(experiment.scan, width=None if width is None else tensor(width))
        panel = replace(experiment.panel, pixel_size=tensor(pixel), image_size=(round(0.02 / pixel),) * 2)
        return neighbours_needed(replace(crystal, scan=scan, panel=panel), blocks)

    assert needed() == (1, 1, 1)
    assert needed(blocks=SQUARE) == (1, 1, 1)
    assert needed(n_cells=5.0, blocks=SQUARE) == (3, 3, 3)
    assert needed(mosaic_deg=6.0) == (3, 3, 3)
    assert min(needed(width=0.08)) > 1
    assert min(needed(pixel=1.0e-3)) > 1


def test_wrong_number_of_neighbours():
    with pytest.raises(ValueError, match="1, 2 or 3"):
        ClosedFormBragg(GAUSSIAN, (1, 4, 1))


def test_mosaic_spread_has_the_meaning_of_the_sampled_simulator():
    assert pytest.approx(0.496, abs=5e-4) == SIGMA_PER_SPREAD
