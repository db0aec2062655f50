import math

import pytest
import torch
from support import tensor

from sim_core.unit_cell import cell_and_orientation, direct_basis, reciprocal_basis, volume

CELLS = [
    [100, 100, 100, 90, 90, 90],
    [79.1, 79.1, 38.4, 90, 90, 90],
    [50, 60, 75, 90, 104, 90],
    [80, 80, 120, 90, 90, 120],
    [60, 60, 60, 60, 60, 60],
    [70, 80, 90, 75, 85, 95],
]


def radians(cell: list[float]) -> torch.Tensor:
    return torch.cat([tensor(cell[:3]), torch.deg2rad(tensor(cell[3:]))])


@pytest.mark.parametrize("cell", CELLS)
def test_metric_is_exact(cell):
    cell = radians(cell)
    direct = direct_basis(reciprocal_basis(cell))
    torch.testing.assert_close(direct.norm(dim=-1), cell[:3])
    a, b, c = direct / cell[:3, None]
    torch.testing.assert_close(torch.stack([b @ c, c @ a, a @ b]), cell[3:].cos(), rtol=0, atol=1e-14)
    torch.testing.assert_close(torch.linalg.det(direct), volume(cell))


@pytest.mark.parametrize("cell", CELLS)
def test_direct_and_reciprocal_are_dual(cell):
    reciprocal = reciprocal_basis(radians(cell))
    torch.testing.assert_close(direct_basis(reciprocal) @ reciprocal, torch.eye(3, dtype=torch.float64))


def test_a_matrix_splits_into_cell_and_rotation():
    cell = radians(CELLS[-1])
    turn = torch.linalg.matrix_exp(tensor([[0.0, -0.3, 0.2], [0.3, 0.0, -0.1], [-0.2, 0.1, 0.0]]))
    found, rotation = cell_and_orientation(turn @ reciprocal_basis(cell))
    torch.testing.assert_close(found, cell)
    torch.testing.assert_close(rotation, turn)


def test_a_left_handed_matrix_is_refused():
    with pytest.raises(ValueError, match="positive determinant"):
        cell_and_orientation(-torch.eye(3, dtype=torch.float64))


def test_volume_of_a_cube():
    assert float(volume(radians(CELLS[0]))) == pytest.approx(1e6)
    assert math.isclose(float(volume(radians(CELLS[4]))), 60**3 / math.sqrt(2), rel_tol=1e-12)
