"""Rings of ice: where they stand, how wide they are, and their derivatives."""

import math
from dataclasses import replace

import gemmi
import numpy as np
import pytest
import torch
from support import tensor

from sim_core import Beam, Experiment, Panel
from sim_core.background import scatterer_profile
from sim_core.ice import ICE_CELL, ICE_INDICES, ice_labels, ice_rings, ice_spacings

WIDTH = 0.002
PUBLISHED = [3.897, 3.669, 3.441, 2.671, 2.249, 2.072, 1.948, 1.918, 1.883, 1.721, 1.524]
"""Spacings [A] that programs for integration leave out."""


@pytest.fixture
def far(experiment) -> Experiment:
    """One row of fine pixels from the beam outwards, to beyond the last ring."""
    count = 5000
    panel = Panel(
        origin=tensor([0.1, 0.0, 0.0]),
        fast_axis=tensor([0.0, 0.0, 1.0]),
        slow_axis=tensor([0.0, -1.0, 0.0]),
        normal=tensor([1.0, 0.0, 0.0]),
        pixel_size=tensor(2e-5),
        image_size=(count, 1),
    )
    return replace(experiment, panel=panel)


def reciprocal_length(experiment: Experiment, pixels: torch.Tensor) -> torch.Tensor:
    """s = 2 sin(theta) / wavelength, from the angle at the sample; the beam is along x."""
    panel, beam = experiment.panel, experiment.beam
    points = panel.positions(pixels + 0.5)
    two_theta = torch.atan2(points[:, 1:].norm(dim=-1), points[:, 0])
    return 2 * torch.sin(two_theta / 2) / beam.wavelength[0]


def test_spacings_are_the_published_ones():
    np.testing.assert_allclose(ice_spacings(), PUBLISHED, rtol=2.5e-3)
    assert list(ice_spacings()) == sorted(ice_spacings(), reverse=True)


def test_labels_tell_rings_apart():
    assert len(set(ice_labels())) == len(ICE_INDICES)
    assert ice_labels()[0] == "3.89"


def test_rings_are_the_strong_reflections_of_ice():
    """Powder intensities of the oxygens, with multiplicity, form factor and Lorentz factor."""
    a, c = ICE_CELL
    cell, group = gemmi.UnitCell(a, a, c, 90, 90, 120), gemmi.SpaceGroup("P 63/m m c")
    site = gemmi.Fractional(1 / 3, 2 / 3, 0.0623)
    oxygens = {tuple(np.round(np.mod(o.apply_to_xyz(site.tolist()), 1), 6)) for o in group.operations()}
    assert len(oxygens) == 4
    intensity = {}
    for hkl in gemmi.make_miller_array(cell, group, 1.5, 0, True).tolist():
        s = 1 / cell.calculate_d(hkl)
        amplitude = np.exp(2j * np.pi * np.array(list(oxygens)) @ hkl).sum()
        f = gemmi.Element("O").it92.calculate_sf(s * s / 4)
        equivalents = {tuple(o.apply_to_hkl(hkl)) for o in group.operations().sym_ops}
        intensity[tuple(hkl)] = abs(amplitude * f) ** 2 * len(equivalents) / s**2
    strongest = max(intensity.values())
    assert {k for k, v in intensity.items() if v > 1e-3 * strongest} == set(ICE_INDICES)
    for hkl, d in zip(ICE_INDICES, ice_spacings(), strict=True):
        assert d == pytest.approx(cell.calculate_d(hkl), rel=1e-12)


def test_crests_stand_at_their_spacings_and_have_the_height_of_the_body(far):
    pixels = far.panel.all_pixels()
    s, profile = reciprocal_length(far, pixels), scatterer_profile(far, pixels)
    rings = ice_rings(far, pixels, tensor(WIDTH))
    step = float(s.diff().max())
    top = (rings / profile[:, None]).max(0)
    for ring, d in enumerate(ice_spacings()):
        assert abs(float(s[top.indices[ring]]) - 1 / d) <= step
    torch.testing.assert_close(top.values, torch.ones(len(ICE_INDICES), dtype=torch.float64), rtol=0, atol=5e-3)


def test_full_width_at_half_maximum(far):
    pixels = far.panel.all_pixels()
    s = reciprocal_length(far, pixels)
    shape = ice_rings(far, pixels, tensor(WIDTH)) / scatterer_profile(far, pixels)[:, None]
    for ring in shape.T:
        above = s[ring > 0.5]
        assert float(above[-1] - above[0]) == pytest.approx(2 * math.sqrt(2 * math.log(2)) * WIDTH, abs=5e-4)


def test_each_ring_has_its_area(far):
    """Integral over s: no ring takes from another."""
    pixels = far.panel.all_pixels()
    s = reciprocal_length(far, pixels)
    shape = ice_rings(far, pixels, tensor(WIDTH)) / scatterer_profile(far, pixels)[:, None]
    areas = torch.trapezoid(shape, s, dim=0)
    torch.testing.assert_close(areas, torch.full_like(areas, math.sqrt(2 * math.pi) * WIDTH), rtol=1e-3, atol=0)
    total = torch.trapezoid(shape @ torch.arange(11.0, dtype=torch.float64), s)
    assert float(total) == pytest.approx(55 * math.sqrt(2 * math.pi) * WIDTH, rel=1e-3)


def test_pixels_far_from_every_ring_and_at_the_beam_have_none(experiment):
    pixels = torch.tensor([[0, 0], [33, 33]])
    rings = ice_rings(experiment, pixels, tensor(WIDTH))
    assert float(rings.abs().max()) == 0
    assert rings.shape == (2, len(ICE_INDICES))


def test_no_pixels(experiment):
    assert ice_rings(experiment, torch.zeros(0, 2, dtype=torch.long), tensor(WIDTH)).shape == (0, len(ICE_INDICES))


def test_a_subset_is_the_same(far):
    pixels = far.panel.all_pixels()[1000:3000]
    torch.testing.assert_close(
        ice_rings(far, pixels, tensor(WIDTH))[::7], ice_rings(far, pixels[::7], tensor(WIDTH)), rtol=1e-12, atol=0
    )


def test_every_parameter(far):
    """Width, distance and the other numbers of the geometry, both modes, on the slopes of three rings."""
    s = reciprocal_length(far, far.panel.all_pixels())
    slopes = [1 / d + side * 0.008 for d in ice_spacings()[::4] for side in (-1, 0.1, 1)]
    pixels = torch.stack([torch.zeros(9, dtype=torch.long), torch.searchsorted(s, tensor(slopes))], 1)

    def rings(width: torch.Tensor, *geometry: torch.Tensor) -> torch.Tensor:
        distance, wavelength, direction, fast_axis, kahn = geometry
        origin = torch.stack([distance, tensor(0.0), tensor(0.0)])
        beam: Beam = replace(far.beam, wavelength=wavelength, direction=direction, kahn=kahn)
        panel = replace(far.panel, origin=origin, fast_axis=fast_axis)
        return ice_rings(replace(far, beam=beam, panel=panel), pixels, width / 100)

    values = [tensor(0.8), tensor(0.1), tensor([1.0]), far.beam.direction, far.panel.fast_axis, tensor(0.6)]
    inputs = [v.clone().requires_grad_() for v in values]
    assert float(rings(*values).max()) > 0.1
    assert torch.autograd.gradcheck(rings, inputs, check_forward_ad=True, eps=1e-7, rtol=1e-4, atol=1e-5)


def test_gradients_at_the_beam_are_finite(far):
    """Where the scattering vector vanishes its length has a kink; no ring reaches there."""
    panel = replace(far.panel, origin=tensor([0.1, 1e-5, -1e-5]))

    def rings(origin: torch.Tensor) -> torch.Tensor:
        moved = replace(far, panel=replace(panel, origin=origin))
        return ice_rings(moved, torch.tensor([[0, 0]]), tensor(WIDTH))

    for mode in (torch.func.jacfwd, torch.func.jacrev):
        assert float(mode(rings)(panel.origin).abs().max()) == 0
