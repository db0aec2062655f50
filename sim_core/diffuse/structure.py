"""Atoms in the Cartesian frame of atomic models: a along x, b in the xy plane."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from ..experiment import Structure
from ..form_factors import FormFactors


@dataclass(frozen=True)
class Placed:
    """A crystal structure placed in a cell; all Cartesian, in Angstrom.

    Attributes:
        basis: Rows a, b, c of the cell [A].
        rotations: Rotation of each symmetry operation.
        translations: Translation of each symmetry operation [A].
        xyz: Atoms of the first asymmetric unit [A].
        b_iso: Their B = 8 pi^2 U [A^2].
        weight: Their occupancies.
        mass: Their masses [dalton].
        form_factors: Their scattering power.
    """

    basis: Float[Tensor, "3 3"]
    rotations: Float[Tensor, "units 3 3"]
    translations: Float[Tensor, "units 3"]
    xyz: Float[Tensor, "atoms 3"]
    b_iso: Float[Tensor, "atoms"]
    weight: Float[Tensor, "atoms"]
    mass: Float[Tensor, "atoms"]
    form_factors: FormFactors

    @property
    def units(self) -> int:
        """Number of asymmetric units in the cell."""
        return len(self.rotations)

    @property
    def atoms(self) -> int:
        """Number of atoms in one asymmetric unit."""
        return len(self.xyz)


def placed(structure: Structure, basis: Float[Tensor, "3 3"]) -> Placed:
    """A structure in a cell.

    Args:
        structure: Fractional coordinates.
        basis: Rows a, b, c [A], from :func:`sim_core.unit_cell.pdb_basis`.
    """
    rotations = basis.T @ structure.rotations.to(basis) @ torch.linalg.inv(basis).T
    return Placed(
        basis=basis,
        rotations=rotations,
        translations=structure.translations @ basis,
        xyz=structure.fractional @ basis,
        b_iso=structure.b_iso,
        weight=structure.weight,
        mass=structure.mass,
        form_factors=structure.form_factors,
    )


def cell_positions(structure: Placed) -> Float[Tensor, "units atoms 3"]:
    """Atoms of every asymmetric unit of the cell [A]: x_a = R_a x + t_a."""
    turned = structure.xyz @ structure.rotations.transpose(-1, -2)
    return turned + structure.translations[:, None]


def packed(structure: Placed) -> Placed:
    """The same crystal with every asymmetric unit moved by lattice vectors until its centre lies in the cell."""
    centres = cell_positions(structure).detach().mean(1)
    outside = torch.floor(centres @ torch.linalg.inv(structure.basis))
    return replace(structure, translations=structure.translations - outside @ structure.basis)


def miller_indices(q: Float[Tensor, "points 3"], basis: Float[Tensor, "3 3"]) -> Float[Tensor, "points 3"]:
    """Fractional Miller indices of scattering vectors q [1/A]: h = (a, b, c) . q / 2 pi."""
    return q @ basis.T / (2 * torch.pi)


def scattering_vectors(hkl: Float[Tensor, "points 3"], basis: Float[Tensor, "3 3"]) -> Float[Tensor, "points 3"]:
    """Scattering vectors q = 2 pi S [1/A] of fractional Miller indices."""
    return 2 * torch.pi * hkl @ torch.linalg.inv(basis).T
