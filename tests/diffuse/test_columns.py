"""Which points count as a grid, and in what order they are worked on."""

import pytest
import torch

from sim_core.diffuse.brillouin import Sampling, grid
from sim_core.diffuse.columns import enumerate_columns, find_columns

from .crystals import f64

CELLS = {
    "orthorhombic": f64([[9.0, 0, 0], [0, 7.0, 0], [0, 0, 5.0]]),
    "monoclinic": f64([[9.0, 0, 0], [0, 7.0, 0], [-2.0, 0, 5.0]]),
    "hexagonal": f64([[9.0, 0, 0], [-4.5, 4.5 * 3**0.5, 0], [0, 0, 5.0]]),
}


@pytest.mark.parametrize(("name", "axis"), [("orthorhombic", 0), ("monoclinic", 1), ("hexagonal", 2)])
def test_columns_stand_for_their_points(name: str, axis: int) -> None:
    hkl, _ = grid(Sampling(-1, 1, 3), Sampling(0, 2, 4), Sampling(-1, 1, 2))
    chosen = hkl[hkl.norm(dim=-1) < 1.8]
    columns = find_columns(chosen, CELLS[name])
    assert columns is not None
    assert columns.axes[2] == axis
    rebuilt = torch.cat([columns.pairs[columns.column], columns.levels[columns.level][:, None]], -1)
    assert torch.equal(rebuilt, chosen[:, list(columns.axes)])
    seen = []
    for start, points in enumerate_columns(columns, 4):
        assert ((columns.column[points] >= start) & (columns.column[points] < start + 4)).all()
        seen.append(points)
    assert torch.equal(torch.cat(seen).sort().values, torch.arange(len(chosen)))


def test_columns_with_the_same_fractions_stand_together() -> None:
    hkl, _ = grid(Sampling(-2, 2, 3), Sampling(-2, 2, 3), Sampling(0, 4, 3))
    columns = find_columns(hkl, CELLS["hexagonal"])
    assert columns is not None
    fraction = torch.round(3 * columns.pairs) % 3
    changes = (fraction.diff(dim=0) != 0).any(-1).sum()
    assert changes == 8


def test_no_grid() -> None:
    triclinic = f64([[9.0, 0, 0], [-2.0, 7.0, 0], [1.0, 0.5, 5.0]])
    hkl, _ = grid(Sampling(-1, 1, 3), Sampling(0, 2, 4), Sampling(-1, 1, 2))
    assert find_columns(hkl, triclinic) is None
    scattered = torch.rand(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert find_columns(scattered, CELLS["orthorhombic"]) is None
    assert find_columns(hkl[:0], CELLS["orthorhombic"]) is None
