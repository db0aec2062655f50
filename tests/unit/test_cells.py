"""Cells keep the metric of their crystal system."""

import pytest
import torch
from support import tensor

from refine.errors import InputError
from refine.parameters.cells import cell_ties, system_of
from refine.parameters.parameters import Parameters
from refine.parameters.spec import ParameterSpec

CELLS = {
    "cubic": ([80, 80, 80, 90, 90, 90], 1),
    "hexagonal": ([80, 80, 120, 90, 90, 120], 2),
    "trigonal": ([80, 80, 80, 75, 75, 75], 2),
    "tetragonal": ([80, 80, 38, 90, 90, 90], 2),
    "orthorhombic": ([80, 60, 38, 90, 90, 90], 3),
    "monoclinic": ([80, 60, 38, 90, 104, 90], 4),
    "triclinic": ([80, 60, 38, 85, 104, 97], 6),
}


@pytest.mark.parametrize("system", CELLS)
def test_a_cell_keeps_its_metric_wherever_it_moves(system):
    cell, freedom = tensor(CELLS[system][0]), CELLS[system][1]
    assert system_of(cell) == system
    ties = cell_ties(cell, "auto", "crystal.cell")
    assert ties.shape == (6, freedom)
    parameters = Parameters([ParameterSpec("cell", cell, 0.5, True, ties=ties)])
    vector = torch.linspace(0.5, 2.0, freedom).double()
    moved = parameters(vector)["cell"]
    cell_ties(moved, system, "crystal.cell")
    assert system_of(moved) == system
    names = parameters.free_labels
    assert len(names) == freedom
    assert set(names) <= set(parameters.moving_labels)
    assert parameters.sensitivity().shape == (len(parameters.moving_labels), freedom)


def test_tied_edges_have_one_bound_and_one_prior():
    cell = tensor(CELLS["cubic"][0])
    ties = cell_ties(cell, "cubic", "crystal.cell")
    spec = ParameterSpec("cell", cell, 0.5, True, 79.0, 100.0, (cell + 1, torch.full_like(cell, 0.5)), ties)
    parameters = Parameters([spec])
    assert [b.tolist() for b in parameters.bounds()] == [[-2.0], [40.0]]
    assert float(parameters.penalty()) == 4.0


def test_rhombohedral_and_hexagonal_axes_are_both_trigonal():
    assert cell_ties(tensor(CELLS["hexagonal"][0]), "trigonal", "crystal.cell").shape == (6, 2)
    assert cell_ties(tensor(CELLS["trigonal"][0]), "trigonal", "crystal.cell").shape == (6, 2)


def test_monoclinic_cells_may_have_any_unique_axis():
    assert cell_ties(tensor([80, 60, 38, 90, 90, 104]), "monoclinic", "crystal.cell")[5].sum() == 1


def test_a_cell_of_another_system_is_one_line():
    with pytest.raises(InputError, match=r"crystal.cell: expected a cell with the metric of the cubic system"):
        cell_ties(tensor(CELLS["tetragonal"][0]), "cubic", "crystal.cell")
