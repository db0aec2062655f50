"""Atomic models with their crystal: PDB and mmCIF."""

from dataclasses import dataclass
from pathlib import Path

import gemmi
import numpy as np

from refine.errors import required


@dataclass(frozen=True)
class CrystalModel:
    """One asymmetric unit and how it fills the cell.

    Attributes:
        path: The file.
        space_group: Its name.
        cell: a, b, c [A], alpha, beta, gamma [deg].
        basis: Rows a, b, c [A]: a along x, b in the xy plane.
        rotations: Rotations of the operations in fractional coordinates, whole numbers [units, 3, 3].
        translations: Their translations in fractional coordinates [units, 3].
        cartesian: Operations as the file writes them, rotation and translation [A], rounded [units, 3, 4]; ``None``
            where it does not.
        names: Chain, residue and name of each atom.
        elements: Element of each atom.
        xyz: Positions [A].
        b_iso: Isotropic displacement parameters [A^2].
        occupancy: Occupancies.
    """

    path: Path
    space_group: str
    cell: tuple[float, ...]
    basis: np.ndarray
    rotations: np.ndarray
    translations: np.ndarray
    cartesian: np.ndarray | None
    names: list[str]
    elements: list[str]
    xyz: np.ndarray
    b_iso: np.ndarray
    occupancy: np.ndarray

    @property
    def mass(self) -> np.ndarray:
        """Masses of the atoms [dalton]."""
        return np.array([gemmi.Element(e).weight for e in self.elements])

    def form_factors(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Coefficients a, b, c of neutral atoms by element, and the row of each atom (Int. Tables C, 6.1.1.4)."""
        kinds = sorted(set(self.elements))
        tables = [gemmi.Element(e).it92 for e in kinds]
        a, b = np.array([t.a for t in tables]), np.array([t.b for t in tables])
        return a, b, np.array([t.c for t in tables]), np.array([kinds.index(e) for e in self.elements])


def read_model(
    path: Path, keep_hydrogens: bool = False, keep_waters: bool = False, altloc: str | None = None
) -> CrystalModel:
    """Read the first model of a file.

    Args:
        path: PDB or mmCIF.
        keep_hydrogens: Keep hydrogen atoms.
        keep_waters: Keep waters.
        altloc: Which alternative location to keep; ``None`` for the first of each residue.

    Returns:
        Its atoms in the order of the file.

    Raises:
        InputError: if the file is no model, or has no atoms, no cell or a space group that is not known.
    """
    structure = _read(path)
    cell = structure.cell
    if not cell.is_crystal() or cell.volume <= 1.5:
        raise required(path, "the cell of a crystal", f"{cell.a:g} x {cell.b:g} x {cell.c:g}")
    _select(structure, keep_hydrogens, keep_waters, altloc)
    atoms = [(f"{c.name} {r.name} {r.seqid} {a.name}", a) for c in structure[0] for r in c for a in r]
    if not atoms:
        raise required(path, "at least one atom that is kept", "none")
    xyz = np.array([a.pos.tolist() for _, a in atoms])
    b_iso = np.array([a.b_iso for _, a in atoms])
    if not (np.isfinite(xyz).all() and np.isfinite(b_iso).all() and (b_iso >= 0).all()):
        raise required(path, "finite positions and B factors not below zero", "others")
    unknown = next((n for n, a in atoms if a.element.atomic_number == 0), None)
    if unknown is not None:
        raise required(path, "the element of every atom", f"none for {unknown}")
    rotations, translations, cartesian = _operations(path, structure)
    return CrystalModel(
        path=path,
        space_group=structure.spacegroup_hm or "P 1",
        cell=cell.parameters,
        basis=np.array(cell.orth.mat.tolist()).T,
        rotations=rotations,
        translations=translations,
        cartesian=cartesian,
        names=[n for n, _ in atoms],
        elements=[a.element.name for _, a in atoms],
        xyz=xyz,
        b_iso=b_iso,
        occupancy=np.array([a.occ for _, a in atoms]),
    )


def _read(path: Path) -> gemmi.Structure:
    """Any file that gemmi knows; it takes text of any kind for a PDB file without atoms."""
    if path.stat().st_size == 0:
        raise required(path, "a PDB or mmCIF file", "an empty file")
    try:
        structure = gemmi.read_structure(str(path))
    except (RuntimeError, ValueError, UnicodeDecodeError) as error:
        raise required(path, "a PDB or mmCIF file", str(error).split("\n")[0]) from None
    if len(structure) == 0 or structure[0].count_atom_sites() == 0:
        raise required(path, "a PDB or mmCIF file with atoms", "none")
    return structure


def _select(structure: gemmi.Structure, keep_hydrogens: bool, keep_waters: bool, altloc: str | None) -> None:
    if altloc is not None:
        for chain in structure[0]:
            for residue in chain:
                for index in reversed(range(len(residue))):
                    if residue[index].altloc not in ("\0", altloc):
                        del residue[index]
    structure.remove_alternative_conformations()
    if not keep_hydrogens:
        structure.remove_hydrogens()
    if not keep_waters:
        structure.remove_waters()
    structure.remove_empty_chains()


def _operations(path: Path, structure: gemmi.Structure) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Exact operations of the space group, in the file's order where it lists the same ones."""
    listed, cartesian = _remark_290(structure)
    group = structure.find_spacegroup()
    if group is None and not listed:
        raise required(path, "a space group that is known", structure.spacegroup_hm or "none")
    known = list(group.operations()) if group is not None else listed
    same = sorted(o.wrap().triplet() for o in listed) == sorted(o.wrap().triplet() for o in known)
    operations = listed if same else known
    denominator = gemmi.Op.DEN
    rotations = np.array([o.rot for o in operations]) // denominator
    translations = np.array([o.tran for o in operations]) / denominator
    return rotations, translations, cartesian if same and cartesian is not None else None


def _remark_290(structure: gemmi.Structure) -> tuple[list[gemmi.Op], np.ndarray | None]:
    """Symmetry operations as a PDB file lists them: triplets, and Cartesian matrices."""
    triplets, rows = [], []
    for line in structure.raw_remarks:
        fields = line.split()
        if fields[:2] != ["REMARK", "290"]:
            continue
        if len(fields) == 4 and fields[2].endswith("555"):
            triplets.append(gemmi.Op(fields[3]))
        elif len(fields) == 8 and fields[2].startswith("SMTRY"):
            rows.append([float(x) for x in fields[4:]])
    if len(rows) != 3 * len(triplets) or not triplets:
        return triplets, None
    return triplets, np.array(rows).reshape(-1, 3, 4)
