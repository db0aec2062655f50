"""Every continuous parameter of the Bragg simulator, backwards and forwards, in steps of its own unit."""

from dataclasses import replace

import pytest
import torch
from support import tensor

from sim_core import Experiment, StructureFactors
from sim_core.background import flat_profile, scatterer_profile, water_photons
from sim_core.bragg.sampled import SampledBragg
from sim_core.detector import Frame, Mount, origin_about_beam, origin_about_sample, rotated_frame
from sim_core.interference import SHAPES
from sim_core.mosaic import quadrature_domains, random_domains

pytestmark = pytest.mark.usefixtures("kernel")

PIXELS = torch.tensor([[5, 7], [30, 31], [33, 40], [50, 10], [12, 60]])


def check(function, *values: torch.Tensor) -> None:
    """Reverse and forward mode against finite differences; values are in units in which steps are alike."""
    inputs = [v.clone().requires_grad_() for v in values]
    assert torch.autograd.gradcheck(function, inputs, check_forward_ad=True, eps=1e-6, rtol=1e-4, atol=1e-5)


def normalised(simulator: SampledBragg, experiment: Experiment) -> float:
    return float(simulator(experiment, PIXELS).max())


@pytest.fixture(params=["square", "round", "gauss", "gaussian"])
def simulator(request):
    return SampledBragg(random_domains(6, 42), SHAPES[request.param](), oversample=2)


@pytest.mark.parametrize(
    ("name", "unit"),
    [("misset", 0.01), ("mosaic_spread", 0.01), ("cell", None), ("n_cells", 1.0), ("orientation", 0.01)],
)
def test_crystal(experiment, with_crystal, simulator, name, unit):
    value = getattr(experiment.crystal, name)
    scale = tensor([1.0, 1.0, 1.0, 0.01, 0.01, 0.01]) if unit is None else tensor(unit)
    top = normalised(simulator, experiment)
    check(lambda x: simulator(with_crystal(experiment, **{name: x * scale}), PIXELS) / top, value / scale)


@pytest.mark.parametrize("name", ["wavelength", "direction", "weight", "fluence", "kahn", "polarization_axis"])
def test_beam(experiment, simulator, name):
    value = getattr(experiment.beam, name)
    scale = {"fluence": 1e29, "direction": 0.01}.get(name, 1.0)
    top = normalised(simulator, experiment)

    def image(x: torch.Tensor) -> torch.Tensor:
        return simulator(replace(experiment, beam=replace(experiment.beam, **{name: x * scale})), PIXELS) / top

    check(image, value / scale)


@pytest.mark.parametrize("name", ["origin", "fast_axis", "slow_axis", "normal", "pixel_size"])
def test_panel(experiment, simulator, name):
    value = getattr(experiment.panel, name)
    scale = {"origin": 1e-3, "pixel_size": 1e-5}.get(name, 1.0)
    top = normalised(simulator, experiment)

    def image(x: torch.Tensor) -> torch.Tensor:
        return simulator(replace(experiment, panel=replace(experiment.panel, **{name: x * scale})), PIXELS) / top

    check(image, value / scale)


@pytest.mark.parametrize("place", [origin_about_beam, origin_about_sample])
def test_mount(experiment, simulator, place):
    top = normalised(simulator, experiment)

    def image(centre, distance, rotations, two_theta):
        frame = Frame(*(tensor(v) for v in ([0.0, 0.0, 1.0], [0.0, -1.0, 0.0], [1.0, 0.0, 0.0])))
        mount = Mount(
            frame, tensor([1.0, 0, 0]), centre / 1000, distance / 1000, rotations, two_theta, tensor([0.0, 0, -1.0])
        )
        fast, slow, normal = rotated_frame(mount)
        panel = replace(experiment.panel, origin=place(mount), fast_axis=fast, slow_axis=slow, normal=normal)
        return simulator(replace(experiment, panel=panel), PIXELS) / top

    check(image, tensor([3.3, 3.1]), tensor(100.0), tensor([0.0, 0.0, 0.0]), tensor(0.1))
    check(image, tensor([3.3, 3.1]), tensor(100.0), tensor([0.05, -0.1, 0.2]), tensor(0.0))


def test_structure_factors(experiment, table, simulator):
    experiment = replace(experiment, structure_factors=table)
    top = normalised(simulator, experiment)
    flat = table.table.flatten()

    def image(part: torch.Tensor, default: torch.Tensor) -> torch.Tensor:
        values = torch.cat([flat[:600], part, flat[600 + len(part) :]]).view(table.table.shape)
        return (
            simulator(replace(experiment, structure_factors=StructureFactors(values, table.h_min, default)), PIXELS)
            / top
        )

    check(image, flat[600:690], table.default)
    gradient = torch.autograd.functional.jacobian(image, (flat[600:690], table.default))
    assert float(gradient[0].abs().max()) > 0


def test_at_lattice_points_and_without_misset(experiment, with_crystal):
    """A pixel that sees the direct beam: every h, k, l is zero there, and the intensity is stationary."""
    panel = replace(experiment.panel, origin=tensor([0.1, 0.00005, -0.00005]), image_size=(1, 1))
    aligned = replace(with_crystal(experiment, misset=torch.zeros(3, dtype=torch.float64)), panel=panel)
    pixel = torch.tensor([[0, 0]])
    for shape in SHAPES.values():
        simulator = SampledBragg(quadrature_domains(7), shape())
        top = float(simulator(aligned, pixel))

        def image(misset, cell, n, s=simulator, t=top):
            return s(with_crystal(aligned, misset=misset, cell=cell, n_cells=n), pixel) / t

        assert top > 0
        check(image, aligned.crystal.misset, aligned.crystal.cell, aligned.crystal.n_cells)


def test_without_mosaic_spread(experiment, with_crystal, simulator):
    top = normalised(simulator, experiment)
    check(lambda m: simulator(with_crystal(experiment, mosaic_spread=m * 0.01), PIXELS) / top, tensor(0.0))


def test_jacobian_of_all_parameters_at_once(experiment, with_crystal, simulator):
    def image(misset, spread, cell):
        return simulator(with_crystal(experiment, misset=misset, mosaic_spread=spread, cell=cell), PIXELS)

    c = experiment.crystal
    arguments = (c.misset, c.mosaic_spread, c.cell)
    forward = torch.func.jacfwd(image, argnums=(0, 1, 2))(*arguments)
    backward = torch.autograd.functional.jacobian(image, arguments)
    for f, b in zip(forward, backward, strict=True):
        torch.testing.assert_close(f, b, rtol=1e-8, atol=1e-10 * float(b.abs().max()))


@pytest.mark.parametrize("profile", [flat_profile, scatterer_profile])
def test_background(experiment, profile):
    def photons(level, origin, thickness):
        moved = replace(experiment, panel=replace(experiment.panel, origin=origin * 1e-2))
        return level * profile(moved, PIXELS) + water_photons(moved, thickness * 1e-5) * 1e-9

    assert 0.1 < float(water_photons(experiment, tensor(2e-5)) * 1e-9) < 1e2
    check(photons, tensor(3.0), experiment.panel.origin * 1e2, tensor(2.0))
