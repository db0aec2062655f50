"""Reflection lists and orientation matrices."""

import numpy as np
import pytest

from refine.errors import InputError
from refine.formats.orientation import read_mat, write_mat
from refine.formats.reflections import read_hkl


def test_last_entry_of_a_reflection_wins(tmp_path):
    (tmp_path / "a.hkl").write_text("0 0 1 5\n-1 2 0 7.5\n\n0 0 1 6\n")
    table, low = read_hkl(tmp_path / "a.hkl", 3.0)
    assert low.tolist() == [-1, 0, 0]
    assert table.shape == (2, 3, 2)
    assert (table[1, 0, 1], table[0, 2, 0], table[0, 0, 0]) == (6.0, 7.5, 3.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("  \n\n", "empty"),
        ("1 2 3\n", "3 in line 1"),
        ("1 2 3 4\n1 2 x 4\n", "could not convert"),
        ("1 2 3 nan\n", "finite"),
        ("1.5 2 3 4\n", "whole"),
        ("1 2 3 4 5\n", "5 in line 1"),
        ("-100000 0 0 1\n100000 900000 0 1\n", "200 million"),
    ],
)
def test_a_bad_list_is_one_line(tmp_path, text, message):
    (tmp_path / "a.hkl").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_hkl(tmp_path / "a.hkl", 0.0)
    assert "\n" not in str(caught.value)


def test_a_binary_list_is_one_line(tmp_path):
    (tmp_path / "a.hkl").write_bytes(bytes(range(256)))
    with pytest.raises(InputError, match="binary"):
        read_hkl(tmp_path / "a.hkl", 0.0)


def test_matrix_round_trip(tmp_path):
    rng = np.random.default_rng(0)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    turn *= np.sign(np.linalg.det(turn))
    matrix = turn @ np.diag([1 / 70, 1 / 80, 1 / 90])
    write_mat(tmp_path / "a.mat", matrix, turn, np.array([70, 80, 90, 90, 90, 90.0]), 1.3)
    np.testing.assert_allclose(read_mat(tmp_path / "a.mat", 1.3), matrix, atol=1e-12)


@pytest.mark.parametrize("text", ["", "1 2 3", "a b c d e f g h i", "1 0 0 0 1 0 0 0 -1"])
def test_a_bad_matrix_is_one_line(tmp_path, text):
    (tmp_path / "a.mat").write_text(text)
    with pytest.raises(InputError, match=r"a\.mat"):
        read_mat(tmp_path / "a.mat", 1.0)
