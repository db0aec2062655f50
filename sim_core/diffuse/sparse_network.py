r"""Single atoms on springs: the Laplacian of the network as a sparse matrix, and what it answers to forces.

.. math:: L_{ij}(k) = \delta_{ij} \sum_l \gamma_{il} - \sum_d \gamma_{ijd}\, e^{2\pi i\,\kappa \cdot d}

Decomposed into sparse triangles by SuperLU, one wavevector at a time; nothing of atoms x atoms is ever kept. Each atom
is taken from the cell to which springs lead from the first atom of its part, so that a part that shifts as a whole does
so by the same number in all its atoms, at every wavevector.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Complex, Float, Int
from numpy import ndarray
from scipy.sparse import csc_array, csgraph
from scipy.sparse.linalg import splu
from torch import Tensor

from .brillouin import Batch
from .elastic_network import Contacts
from .response import AtBragg

CHUNK = 1 << 21
"""Products of two displacements that are held at a time."""


class Parts(NamedTuple):
    """Parts of a crystal that springs tie together.

    Attributes:
        part: Number of the part of each atom.
        cell: Cell from which each atom is taken.
        loops: Part, and shift of cells, of closed paths along springs.
    """

    part: Int[Tensor, "atoms"]
    cell: Int[Tensor, "atoms 3"]
    loops: Int[Tensor, "loops 4"]

    def free(self, kappa: Float[Tensor, "3"], tolerance: float) -> Int[ndarray, "free"]:
        """Parts that shift without a force at a wavevector: all of their closed paths are whole waves."""
        waves = self.loops[:, 1:].to(kappa) @ kappa
        tied = self.loops[(waves - waves.round()).abs() > tolerance, 0]
        return np.setdiff1d(self.part.cpu().numpy(), tied.cpu().numpy())


def find_parts(contacts: Contacts) -> Parts:
    """Walk along the springs from one atom of each part to all the others."""
    size = contacts.units * contacts.atoms
    return Parts(*_FindParts.apply(contacts.first, contacts.second, contacts.cells[contacts.cell], size))


class _FindParts(torch.autograd.Function):
    """A function of whole numbers, given as plain arrays also while derivatives are taken."""

    generate_vmap_rule = True

    @staticmethod
    def forward(first: Tensor, second: Tensor, shift: Tensor, atoms: int) -> tuple[Tensor, ...]:
        i, j, step = (t.cpu().numpy() for t in (first, second, shift))
        graph = csc_array((np.ones(len(i)), (i, j)), shape=(atoms, atoms))
        part = csgraph.connected_components(graph, directed=False)[1].astype(np.int64)
        start = np.unique(part, return_index=True)[1]
        links = np.concatenate([i * (atoms + 1) + j, atoms * (atoms + 1) + start])
        links, chosen = np.unique(links, return_index=True)
        steps = np.concatenate([step, np.zeros((len(start), 3), step.dtype)])[chosen]
        ties = csc_array((np.ones(len(links)), np.divmod(links, atoms + 1)), shape=(atoms + 1, atoms + 1))
        before = csgraph.breadth_first_order(ties, atoms)[1].astype(np.int64)
        before[atoms] = atoms
        cell = np.zeros((atoms + 1, 3), step.dtype)
        cell[:atoms] = steps[np.searchsorted(links, before[:atoms] * (atoms + 1) + np.arange(atoms))]
        while (before != atoms).any():
            cell, before = cell + cell[before], before[before]
        loops = np.unique(np.column_stack([part[i], step + cell[i] - cell[j]]), axis=0)
        return tuple(torch.from_numpy(v).to(first.device) for v in (part, cell[:atoms], loops))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output)


class Layout(NamedTuple):
    """What stands where.

    Attributes:
        first: Row of each entry of the matrices: pairs, then the diagonal.
        second: Its column.
        runs: Forces of each wavevector.
        parts: Of the network.
        at_bragg: Which waves count as whole, and what to do there.
    """

    first: Int[Tensor, "entries"]
    second: Int[Tensor, "entries"]
    runs: list[slice]
    parts: Parts
    at_bragg: AtBragg


def sparse_quadratic_form(
    F: Complex[Tensor, "n atoms"], gamma: Float[Tensor, "pairs"], contacts: Contacts, batch: Batch, at_bragg: AtBragg
) -> Float[Tensor, "n"]:
    r""":math:`F^\dagger L^{-1} F` with its exact first derivatives in F, springs and wavevectors.

    Where parts of the crystal shift without a force, these shifts are left out, as the pseudo-inverse does, or the
    value is NaN.

    Args:
        F: Forces.
        gamma: Spring constant of each pair, positive [k_B T/A^2].
        contacts: The pairs.
        batch: Points and their wavevectors.
        at_bragg: Which waves count as whole, and what to do there.
    """
    parts, owner = find_parts(contacts), batch.owner()
    first, second = contacts.first, contacts.second
    loops = contacts.cells[contacts.cell] + parts.cell[first] - parts.cell[second]
    own = torch.arange(F.shape[-1], device=F.device)
    diagonal = gamma.new_zeros(len(own)).index_add(0, first, gamma)
    pairs = -gamma * _wave(batch.kappa @ loops.to(gamma).T)
    values = torch.cat([pairs, diagonal.to(pairs.dtype).expand(len(pairs), -1)], 1)
    ends = torch.bincount(owner, minlength=len(pairs)).cumsum(0).tolist()
    runs = [slice(begin, end) for begin, end in zip([0, *ends[:-1]], ends, strict=True)]
    layout = Layout(torch.cat([first, own]), torch.cat([second, own]), runs, parts, at_bragg)
    forces = F * _wave(batch.kappa @ parts.cell.to(gamma).T)[owner]
    value, _ = _SparseForm.apply(forces, values, batch.kappa.detach(), layout)
    return value


def _wave(turns: Float[Tensor, "*batch"]) -> Complex[Tensor, "*batch"]:
    return torch.polar(torch.ones_like(turns), 2 * torch.pi * turns)


class _SparseForm(torch.autograd.Function):
    """Values, and x = L^-1 F, which all derivatives are made of."""

    generate_vmap_rule = True

    @staticmethod
    def forward(F: Tensor, values: Tensor, kappa: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        x, value = torch.zeros_like(F), F.real.new_zeros(len(F))
        for run, row, k in zip(layout.runs, values, kappa, strict=True):
            free = layout.parts.free(k, layout.at_bragg.tolerance)
            if len(free) and not layout.at_bragg.finite:
                value[run] = torch.nan
            else:
                x[run] = torch.from_numpy(_solve(row.cpu().numpy(), layout, free, F[run].cpu().numpy().T).T).to(x)
                value[run] = torch.linalg.vecdot(x[run], F[run]).real
        return value, x

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.layout = inputs[3]
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(output[1])
        ctx.save_for_forward(output[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        weighted = x * gradient[..., None]
        slopes = []
        for run in ctx.layout.runs:
            left, right = weighted[run].T, x[run].conj().T
            slopes.append(torch.cat([-(left[i] * right[j]).sum(-1) for i, j in _pairs(ctx.layout, len(x[run]))]))
        return 2 * weighted, torch.stack(slopes), None, None

    @staticmethod
    def jvp(ctx: Any, dF: Tensor | None, dvalues: Tensor | None, *_: Any) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        change = torch.zeros_like(x.real[..., 0])
        if dF is not None:
            change = change + 2 * torch.linalg.vecdot(x, dF).real
        if dvalues is not None:
            rows = zip(ctx.layout.runs, dvalues.unbind(0), strict=True)
            change = change - torch.cat([_energies(x[run], row, ctx.layout) for run, row in rows])
        return change, None


def _energies(x: Complex[Tensor, "n atoms"], values: Complex[Tensor, "entries"], layout: Layout) -> Float[Tensor, "n"]:
    """Re x^H L x."""
    pieces = zip(_pairs(layout, len(x)), values.split(_pieces(len(x))), strict=True)
    return torch.stack([(row @ (x.conj().T[i] * x.T[j])).real for (i, j), row in pieces]).sum(0)


def _pairs(layout: Layout, points: int) -> Iterator[tuple[Tensor, Tensor]]:
    size = _pieces(points)
    return zip(layout.first.split(size), layout.second.split(size), strict=True)


def _pieces(points: int) -> int:
    return max(1, CHUNK // max(1, points))


def _solve(values: ndarray, layout: Layout, free: Int[ndarray, "free"], forces: ndarray) -> ndarray:
    """L^-1 f; with free parts (P L P + T T^H)^-1 P f, where T are their shifts and P = 1 - T T^H.

    One atom of each free part is tied to its place, which makes the matrix regular. Close to a Bragg point, where T
    still costs a little energy, the condition T^H x = 0 and the force of that tie are put right by Woodbury's formula.
    """
    part, loops = layout.parts.part.cpu().numpy(), layout.parts.loops.cpu().numpy()
    moving = np.flatnonzero(np.isin(part, free))
    column = np.searchsorted(free, part[moving])
    shape = len(part), len(free)
    shifts = csc_array((1 / np.sqrt(np.bincount(part)[part[moving]]), (moving, column)), shape=shape)
    tied = moving[np.unique(column, return_index=True)[1]]
    stiffness = np.abs(values).max(initial=1.0)
    entries = np.concatenate([values, np.full(len(tied), stiffness)])
    places = [np.concatenate([e.cpu().numpy(), tied]) for e in (layout.first, layout.second)]
    matrix = csc_array((entries, places), shape=(len(part), len(part)))
    solve = splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}).solve
    x = solve(forces - shifts @ (shifts.T @ forces))
    waves = np.flatnonzero(np.isin(free, loops[loops[:, 1:].any(1), 0]))
    if len(waves):
        unit = csc_array((np.ones(len(tied)), (tied, np.arange(len(tied)))), shape=shape)
        conditions = np.hstack([shifts[:, waves].toarray(), unit[:, waves].toarray()])
        answers = solve(conditions.astype(complex))
        slack = np.repeat([0, 1 / stiffness], len(waves))
        x = x - answers @ np.linalg.solve(conditions.T @ answers - np.diag(slack), conditions.T @ x)
    return x - shifts @ (shifts.T @ x)
