"""Polarisation, solid angle and sources against theory."""

import math

import pytest
import torch
from support import tensor

from sim_core.beam import centred_grid, divergence_grid, tilted_directions
from sim_core.detector import solid_angle
from sim_core.polarization import kahn_factor

BEAM, E_AXIS = tensor([1.0, 0.0, 0.0]), tensor([0.0, 0.0, 1.0])


@pytest.mark.parametrize("angle", [0.0, 0.3, 1.2])
def test_polarized_light_does_not_scatter_along_its_field(angle):
    along = tensor([math.cos(angle), 0.0, math.sin(angle)])
    across = tensor([math.cos(angle), math.sin(angle), 0.0])
    full = tensor(1.0)
    assert float(kahn_factor(BEAM, along, E_AXIS, full)) == pytest.approx(math.cos(angle) ** 2)
    assert float(kahn_factor(BEAM, across, E_AXIS, full)) == pytest.approx(1)
    for direction in (along, across):
        expected = 0.5 * (1 + math.cos(angle) ** 2)
        assert float(kahn_factor(BEAM, direction, E_AXIS, tensor(0.0))) == pytest.approx(expected)


def test_solid_angle_of_a_large_sphere_of_pixels():
    axis = (torch.arange(400, dtype=torch.float64) - 199.5) * 0.01
    grid = torch.cartesian_prod(axis, axis)
    points = torch.cat([torch.ones(len(grid), 1, dtype=torch.float64), grid], 1)
    total = solid_angle(points, tensor(1.0), tensor(0.01)).sum()
    a = 2.0
    assert float(total) == pytest.approx(4 * math.asin(a**2 / (1 + a**2)), rel=1e-4)


def test_grid_of_directions_is_centred_and_trimmed():
    h, v = divergence_grid((4e-3, 3e-3), (5, 5))
    assert len(h) == 13
    assert float(h.sum().abs() + v.sum().abs()) < 1e-15
    assert len(divergence_grid((4e-3, 3e-3), (4, 4), trim=False)[0]) == 16
    assert centred_grid(1.0, 1).tolist() == [0.0]


def test_tilted_directions_are_unit_vectors_at_the_right_angle():
    directions = tilted_directions(BEAM, E_AXIS, tensor([1e-3, 0.0]), tensor([0.0, 2e-3]))
    torch.testing.assert_close(directions.norm(dim=-1), tensor([1.0, 1.0]))
    torch.testing.assert_close(torch.asin(directions[:, 1:].norm(dim=-1)), tensor([1e-3, 2e-3]))
