r"""Flat bulk solvent: the mask of a model's solvent and its Fourier transform.

The caller scales it, with s = 1/d [1/A]:

.. math:: F = F_\mathrm{atoms} + k_\mathrm{sol}\,e^{-B_\mathrm{sol} s^2/4} F_\mathrm{mask}

Amplitudes have the phases of :math:`F = \sum f e^{+2\pi i h x}` and the unit of a density of one electron per A^3; a
mask has no derivative by the positions.

References: Jiang & Bruenger, J. Mol. Biol. 243 (1994) 100-115.
"""

from dataclasses import dataclass

import gemmi
import numpy as np
from jaxtyping import Complex, Float, Integer

from refine.errors import required

from .models import CrystalModel

RADII = {"cctbx": gemmi.AtomicRadiiSet.Cctbx, "refmac": gemmi.AtomicRadiiSet.Refmac}
"""Sets of radii of atoms, each with the radius of its probe and how far the mask shrinks afterwards."""


@dataclass(frozen=True)
class SolventMask:
    """The solvent of one cell on a grid.

    Attributes:
        values: One in the solvent, zero in the molecules, at the fractions i/u, j/v, k/w of the cell.
        volume: Of the cell [A^3].
    """

    values: Float[np.ndarray, "u v w"]
    volume: float

    @property
    def fraction(self) -> float:
        """Share of the cell that is solvent."""
        return float(self.values.mean(dtype=np.float64))


def solvent_mask(
    model: CrystalModel,
    xyz: Float[np.ndarray, "atoms 3"] | None = None,
    spacing: float = 0.5,
    radii: str = "cctbx",
) -> SolventMask:
    """Where the solvent is: farther than a probe from every atom, all operations of the space group applied.

    Hydrogens and atoms without occupancy leave it as it is; so do waters that the model left out.

    Args:
        model: Atoms, cell and space group.
        xyz: Positions [A]; ``None`` for those of the model.
        spacing: Largest distance of grid points [A].
        radii: Name of a set in :data:`RADII`.

    Raises:
        InputError: if the radii are not known, or the operations are no space group.
    """
    if radii not in RADII:
        raise required("radii of the solvent mask", " or ".join(RADII), radii)
    if not spacing > 0:
        raise required("spacing of the solvent mask", "more than zero", spacing)
    grid = gemmi.FloatGrid()
    cell = gemmi.UnitCell(*model.cell)
    grid.set_unit_cell(cell)
    grid.spacegroup = _space_group(model)
    grid.set_size_from_spacing(spacing, gemmi.GridSizeRounding.Up)
    fractional = (model.xyz if xyz is None else xyz) @ np.linalg.inv(model.basis)
    gemmi.SolventMasker(RADII[radii]).put_mask_on_float_grid(grid, _atoms(model, cell, fractional))
    return SolventMask(np.array(grid.array), cell.volume)


def mask_amplitudes(mask: SolventMask, hkl: Integer[np.ndarray, "n 3"]) -> Complex[np.ndarray, "n"]:
    r"""Amplitudes of the mask at reflections.

    .. math:: F(h) = \frac{V}{N} \sum_x m(x)\,e^{2\pi i h x}

    Raises:
        InputError: if the grid is too coarse for a reflection.
    """
    _check_resolution(mask, np.abs(hkl).max(axis=0, initial=0))
    whole = np.fft.ifftn(mask.values.astype(np.float64)) * mask.volume
    h, k, l = (hkl % mask.values.shape).T
    return whole[h, k, l]


def fine_amplitudes(
    mask: SolventMask,
    low: tuple[int, int, int],
    high: tuple[int, int, int],
    rates: tuple[int, int, int] = (1, 1, 1),
    centre: tuple[float, float, float] = (0.5, 0.5, 0.5),
) -> Complex[np.ndarray, "h k l"]:
    r"""Amplitudes of one cell's mask on a grid of reciprocal space, between the reflections too.

    .. math:: F(h) = \frac{V}{N} \sum_{x \in [c - 1/2,\,c + 1/2)} m(x)\,e^{2\pi i h x}

    The sum is done one axis after the other. At reflections it does not depend on the centre; between them it does,
    because the mask is cut at other faces.

    Args:
        mask: The solvent.
        low: Lowest h, k, l.
        high: Highest ones, included.
        rates: Points for each index along the axes.
        centre: Fractional centre c of the cell that is cut out.

    Returns:
        Amplitudes at ``low + i / rate`` along each axis.

    Raises:
        InputError: if the grid is too coarse for a corner.
    """
    _check_resolution(mask, np.abs([low, high]).max(axis=0))
    e_h, e_k, e_l = (
        _waves(np.arange((b - a) * r + 1) / r + a, n, c)
        for a, b, r, n, c in zip(low, high, rates, mask.values.shape, centre, strict=True)
    )
    planes = np.stack([e_k @ (plane.astype(np.float64) @ e_l.T) for plane in mask.values])
    return np.tensordot(e_h, planes, 1) * (mask.volume / mask.values.size)


def _waves(h: Float[np.ndarray, "h"], points: int, centre: float) -> Complex[np.ndarray, "h points"]:
    r""":math:`e^{2\pi i h x}` at the grid points of a cell about a centre, each in the column of its remainder."""
    first = np.ceil((centre - 0.5) * points - 1e-9)
    x = first + (np.arange(points) - first) % points
    return np.exp(2j * np.pi / points * np.outer(h, x))


def _check_resolution(mask: SolventMask, highest: Integer[np.ndarray, "3"]) -> None:
    """A grid of n points tells frequencies up to n/2 apart."""
    shape = mask.values.shape
    if any(2 * h > n for h, n in zip(highest, shape, strict=True)):
        h, k, l = highest
        got = " x ".join(map(str, shape))
        raise required("spacing of the solvent mask", f"two points or more for a wave of index {h}, {k}, {l}", got)


def _space_group(model: CrystalModel) -> gemmi.SpaceGroup:
    """The group of the model's operations: its name may stand for two settings, or for none."""
    den = gemmi.Op.DEN
    operations = []
    for rotation, translation in zip(model.rotations, model.translations, strict=True):
        one = gemmi.Op("x,y,z")
        one.rot, one.tran = (rotation * den).tolist(), np.rint(translation * den).astype(int).tolist()
        operations.append(one.wrap())
    group = gemmi.find_spacegroup_by_ops(gemmi.GroupOps(operations))
    if group is None:
        raise required(model.path, "a space group that is known", model.space_group)
    return group


def _atoms(model: CrystalModel, cell: gemmi.UnitCell, fractional: Float[np.ndarray, "atoms 3"]) -> gemmi.Model:
    residue = gemmi.Residue()
    for element, occupancy, place in zip(model.elements, model.occupancy, fractional, strict=True):
        atom = gemmi.Atom()
        atom.element, atom.occ = gemmi.Element(element), float(occupancy)
        atom.pos = cell.orthogonalize(gemmi.Fractional(*place))
        residue.add_atom(atom)
    chain = gemmi.Chain("A")
    chain.add_residue(residue)
    whole = gemmi.Model(1)
    whole.add_chain(chain)
    return whole
