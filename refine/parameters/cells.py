"""Crystal systems: which edges and angles of a cell are equal, fixed or free.

References: International Tables for Crystallography A, table 2.1.2.1; settings with conventional axes.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from refine.errors import required

TOLERANCE = 1e-4
"""Largest relative difference of edges, or difference of angles [deg / 100], that count as equal."""


class _Metric(NamedTuple):
    """Components that move together, and the angles [deg] that are fixed."""

    together: tuple[tuple[int, ...], ...]
    fixed: tuple[tuple[int, float], ...]


_RIGHT = ((3, 90.0), (4, 90.0), (5, 90.0))
_METRICS: dict[str, list[_Metric]] = {
    "cubic": [_Metric(((0, 1, 2),), _RIGHT)],
    "hexagonal": [_Metric(((0, 1), (2,)), (*_RIGHT[:2], (5, 120.0)))],
    "trigonal": [
        _Metric(((0, 1), (2,)), (*_RIGHT[:2], (5, 120.0))),
        _Metric(((0, 1, 2), (3, 4, 5)), ()),
    ],
    "tetragonal": [_Metric(((0, 1), (2,)), _RIGHT)],
    "orthorhombic": [_Metric(((0,), (1,), (2,)), _RIGHT)],
    "monoclinic": [
        _Metric(((0,), (1,), (2,), (4,)), (_RIGHT[0], _RIGHT[2])),
        _Metric(((0,), (1,), (2,), (5,)), _RIGHT[:2]),
        _Metric(((0,), (1,), (2,), (3,)), _RIGHT[1:]),
    ],
    "triclinic": [_Metric(((0,), (1,), (2,), (3,), (4,), (5,)), ())],
}
SYSTEMS = tuple(_METRICS)
"""The crystal systems, highest symmetry first; trigonal cells have hexagonal or rhombohedral axes."""


def system_of(cell: Float[Tensor, "6"]) -> str:
    """The highest crystal system whose metric a cell a, b, c [A], alpha, beta, gamma [deg] has."""
    return next(name for name in SYSTEMS if _fitting(cell, name) is not None)


def cell_ties(cell: Float[Tensor, "6"], system: str, field: str) -> Float[Tensor, "6 free"]:
    """What each free scalar of a cell moves.

    Args:
        cell: a, b, c [A], alpha, beta, gamma [deg].
        system: One of :data:`SYSTEMS`, or ``auto`` for the highest that the cell's metric has.
        field: Where the cell comes from, for the message.

    Raises:
        InputError: if the cell does not have the metric of the system.
    """
    system = system_of(cell) if system == "auto" else system
    metric = _fitting(cell, system)
    if metric is None:
        raise required(field, f"a cell with the metric of the {system} system", [round(x, 6) for x in cell.tolist()])
    ties = torch.zeros(6, len(metric.together), dtype=torch.float64)
    for column, group in enumerate(metric.together):
        ties[list(group), column] = 1.0
    return ties


def _fitting(cell: Tensor, system: str) -> _Metric | None:
    """The first metric of a system that a cell has."""
    for metric in _METRICS[system]:
        equal = all(
            abs(float(cell[i] - cell[g[0]])) <= TOLERANCE * (float(cell[i]) if i < 3 else 100)
            for g in metric.together
            for i in g
        )
        if equal and all(abs(float(cell[i]) - angle) <= 100 * TOLERANCE for i, angle in metric.fixed):
            return metric
    return None
