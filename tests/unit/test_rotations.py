import math

import torch
from support import tensor

from sim_core.rotations import axis_rotation, mean_rotation, skew, xyz_angles, xyz_rotation


def test_a_quarter_turn_about_z_takes_x_to_y():
    turned = axis_rotation(tensor([0.0, 0.0, 2.0]), tensor(math.pi / 2)) @ tensor([1.0, 0.0, 0.0])
    torch.testing.assert_close(turned, tensor([0.0, 1.0, 0.0]))


def test_x_acts_before_y_and_z():
    turned = xyz_rotation(tensor([math.pi / 2, math.pi / 2, 0.0])) @ tensor([0.0, 1.0, 0.0])
    torch.testing.assert_close(turned, tensor([1.0, 0.0, 0.0]))


def test_angles_and_matrix_are_inverse():
    angles = tensor([0.3, -1.2, 2.5])
    torch.testing.assert_close(xyz_angles(xyz_rotation(angles)), angles)


def test_skew_is_the_cross_product():
    v, w = tensor([1.0, 2.0, 3.0]), tensor([-2.0, 0.5, 4.0])
    torch.testing.assert_close(skew(v) @ w, torch.linalg.cross(v, w))


def test_mean_of_opposite_turns_is_none():
    axis = tensor([[1.0, 2.0, 3.0]]).expand(2, 3)
    mean = mean_rotation(axis_rotation(axis, tensor([0.2, -0.2])), tensor([0.5, 0.5]))
    torch.testing.assert_close(mean, torch.eye(3, dtype=torch.float64))
