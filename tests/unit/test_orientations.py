"""Grids of rotations and the symmetry of a table."""

import math

import pytest
import torch
from support import tensor

from sim_core import StructureFactors
from sim_core.search import orientations as o

CELLS = {
    "cubic": ((100, 100, 100, 90, 90, 90), 24),
    "tetragonal": ((79.1, 79.1, 38.4, 90, 90, 90), 8),
    "hexagonal": ((60, 60, 90, 90, 90, 120), 12),
    "rhombohedral": ((60, 60, 60, 75, 75, 75), 6),
    "orthorhombic": ((50, 60, 70, 90, 90, 90), 4),
    "monoclinic": ((50, 60, 70, 90, 105, 90), 2),
    "triclinic": ((50, 60, 70, 80, 95, 100), 1),
}


def radians(cell):
    return torch.cat([tensor(cell[:3]), torch.deg2rad(tensor(cell[3:]))])


def random_rotations(count, seed=0):
    q = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed)).double()
    return q / q.norm(dim=-1, keepdim=True)


def test_every_rotation_is_near_a_point_of_the_grid():
    covering = math.radians(10)
    grid = o.even_rotations(o.grid_size(covering))
    nearest = (random_rotations(4000) @ grid.T).abs().amax(-1)
    assert 2 * math.acos(float(nearest.min())) < covering
    assert len(grid) < 5 * 8 * math.pi**2 / (4 / 3 * math.pi * covering**3)


@pytest.mark.parametrize("name", CELLS)
def test_lattice_rotations_keep_the_metric_and_form_a_group(name):
    cell, count = CELLS[name]
    group = o.table_rotations(StructureFactors.constant(tensor(1.0)), radians(cell))
    assert len(group) == count
    products = o.quaternion_product(group[:, None], group).flatten(0, 1)
    assert float((products @ group.T).abs().amax(-1).min()) > 1 - 1e-6


def table(laue_quarter_turn, half_turns):
    """Amplitudes on -4..4 that turns about c by 90 deg, and about a by 180 deg, leave as they are or not."""
    values = torch.rand(9, 9, 9, generator=torch.Generator().manual_seed(1)).double() + 1
    turns = [lambda f: f.flip(0, 1, 2)]
    if laue_quarter_turn:
        turns.append(lambda f: f.transpose(0, 1).flip(0))
    if half_turns:
        turns.append(lambda f: f.flip(1, 2))
    for _ in range(6):
        for turn in turns:
            values = (values + turn(values) + (turn(turn(turn(values))))) / 3
    for _ in range(200):
        for turn in turns:
            values = (values + turn(values)) / 2
    return StructureFactors(values, torch.tensor([-4, -4, -4]), tensor(0.0))


@pytest.mark.parametrize(("quarter", "half", "count"), [(False, False, 1), (True, False, 4), (True, True, 8)])
def test_the_table_decides_which_rotations_count(quarter, half, count):
    factors = table(quarter, half)
    assert len(o.table_rotations(factors, radians((79.1, 79.1, 38.4, 90, 90, 90)))) == count


def test_zone_holds_one_of_each_set_of_equivalent_rotations():
    group = o.table_rotations(StructureFactors.constant(tensor(1.0)), radians(CELLS["cubic"][0]))
    grid = o.even_rotations(20000)
    zone = o.in_zone(grid, group)
    assert len(zone) == pytest.approx(20000 / 24, rel=0.05)
    some = random_rotations(200)
    assert float(torch.rad2deg(torch.stack([o.distance(zone, q, group).min() for q in some]).max())) < 12


def test_quaternions_and_matrices_agree():
    p, q = random_rotations(50), random_rotations(50, 1)
    product = o.quaternion_matrix(o.quaternion_product(p, q))
    torch.testing.assert_close(product, o.quaternion_matrix(p) @ o.quaternion_matrix(q))
    torch.testing.assert_close(o.quaternion_matrix(o.matrix_quaternion(product)), product)


def test_nearest_equivalent_is_the_same_solution():
    group = o.table_rotations(StructureFactors.constant(tensor(1.0)), radians(CELLS["hexagonal"][0]))
    q, goal = random_rotations(2)
    near = o.nearest_equivalent(q, group, goal)
    assert float(o.distance(near, q, group)) < 1e-6
    assert float(o.distance(near, goal, group[:1])) == pytest.approx(float(o.distance(q, goal, group)), abs=1e-6)
