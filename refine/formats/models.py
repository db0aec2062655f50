"""Atomic models with their crystal: PDB and mmCIF."""

from dataclasses import dataclass
from pathlib import Path

import gemmi
import numpy as np
from jaxtyping import Float

from refine.errors import required
from refine.paths import replacing


@dataclass(frozen=True)
class Selection:
    """Which atoms of a file are kept.

    Attributes:
        hydrogens: Keep hydrogen atoms.
        waters: Keep waters.
        altloc: Which alternative location to keep; ``None`` for the first of each residue.
    """

    hydrogens: bool = False
    waters: bool = False
    altloc: str | None = None


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
        selection: Which atoms of the file these are.
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
    selection: Selection = Selection()

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
    selection = Selection(keep_hydrogens, keep_waters, altloc)
    structure = _selected(path, selection)
    cell, atoms = structure.cell, _atoms(structure)
    if not atoms:
        raise required(path, "at least one atom that is kept", "none")
    xyz = np.array([a.pos.tolist() for _, a in atoms])
    b_iso = np.array([a.b_iso for _, a in atoms])
    occupancy = np.array([a.occ for _, a in atoms])
    _check_atoms(path, xyz, b_iso)
    if not np.isfinite(occupancy).all():
        raise required(path, "finite occupancies", "others")
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
        occupancy=occupancy,
        selection=selection,
    )


def write_model(
    model: CrystalModel,
    xyz: Float[np.ndarray, "atoms 3"],
    b_iso: Float[np.ndarray, "atoms"],
    path: Path,
    u_aniso: Float[np.ndarray, "atoms 3 3"] | None = None,
) -> None:
    r"""Write the atoms of a model with new positions and displacements, read again from its file.

    Names, elements, occupancies, cell and space group stay; atoms that the model left out are left out, and so are
    statistics and remarks of the file other than its symmetry, which no longer hold.

    Args:
        model: The atoms, as :func:`read_model` has them.
        xyz: Positions [A].
        b_iso: Isotropic displacement parameters [A^2].
        path: PDB (``.pdb``, ``.ent``) or mmCIF (``.cif``, ``.mmcif``), by its ending.
        u_aniso: Anisotropic displacement parameters U [A^2] in the axes of ``xyz``, which take precedence over
            ``b_iso``; that should be :math:`8 \pi^2 \mathrm{tr}\,U / 3` then. ``None`` for isotropic atoms.

    Raises:
        InputError: if the ending is another, the model's file has changed, or a number does not fit into the file.
    """
    structure = _selected(model.path, model.selection)
    atoms = _atoms(structure)
    if [(n, a.element.name) for n, a in atoms] != list(zip(model.names, model.elements, strict=True)):
        raise required(model.path, f"the {len(model.names)} atoms that were read before", "others")
    _check_atoms(path, xyz, b_iso)
    u = np.zeros((len(atoms), 3, 3)) if u_aniso is None else u_aniso
    if not np.isfinite(u).all():
        raise required(path, "finite anisotropic displacements", "others")
    for (_, atom), place, b, ((u11, u12, u13), (_, u22, u23), (_, _, u33)) in zip(atoms, xyz, b_iso, u, strict=True):
        atom.pos, atom.b_iso = gemmi.Position(*place), float(b)
        atom.aniso = gemmi.SMat33f(u11, u22, u33, u12, u13, u23)
    structure.meta.refinement, structure.meta.software = [], []
    structure.raw_remarks = [x for x in structure.raw_remarks if x.split()[:2] == ["REMARK", "290"]]
    text = _as_text(path, structure)
    with replacing(path) as temporary:
        temporary.write_text(text)


def _as_text(path: Path, structure: gemmi.Structure) -> str:
    """The file by the ending of its path."""
    ending = path.suffix.lower()
    if ending in (".cif", ".mmcif"):
        if structure.find_spacegroup() is None:
            raise required(path, "a space group with a name for mmCIF", structure.spacegroup_hm or "none")
        structure.setup_entities()
        return structure.make_mmcif_document().as_string()
    if ending not in (".pdb", ".ent"):
        raise required(path, "the ending .pdb, .ent, .cif or .mmcif", ending or "none")
    try:
        text = structure.make_pdb_string()
    except RuntimeError as error:
        raise required(path, "names that fit into a PDB file (write mmCIF)", str(error).split("\n")[0]) from None
    _check_columns(path, structure, gemmi.read_pdb_string(text))
    return text


def _check_columns(path: Path, meant: gemmi.Structure, found: gemmi.Structure) -> None:
    """Whether a PDB file says what was meant: numbers and names that are too long run into other columns."""
    if found.spacegroup_hm != meant.spacegroup_hm:
        raise required(path, "a space group that fits into a PDB file (write mmCIF)", meant.spacegroup_hm)
    for (name, atom), (other, copy) in zip(_atoms(meant), _atoms(found), strict=True):
        if name != other or atom.pos.dist(copy.pos) > 2e-3 or abs(atom.b_iso - copy.b_iso) > 1e-2:
            x, y, z = atom.pos.tolist()
            got = f"{name} at {x:g} {y:g} {z:g} with B {atom.b_iso:g}"
            raise required(path, "atoms that fit into a PDB file (write mmCIF)", got)


def _check_atoms(path: Path, xyz: np.ndarray, b_iso: np.ndarray) -> None:
    if not (np.isfinite(xyz).all() and np.isfinite(b_iso).all() and (b_iso >= 0).all()):
        raise required(path, "finite positions and B factors not below zero", "others")


def _atoms(structure: gemmi.Structure) -> list[tuple[str, gemmi.Atom]]:
    """Atoms of the first model, with the names of chain, residue and atom."""
    return [(f"{c.name} {r.name} {r.seqid} {a.name}", a) for c in structure[0] for r in c for a in r]


def _selected(path: Path, selection: Selection) -> gemmi.Structure:
    """The first model of a file, with a cell, and only the atoms of a selection."""
    structure = _read(path)
    cell = structure.cell
    if not (cell.is_crystal() and cell.volume > 1.5 and np.isfinite(cell.orth.mat.tolist()).all()):
        raise required(path, "the cell of a crystal", f"{cell.a:g} x {cell.b:g} x {cell.c:g}")
    del structure[1:]
    _select(structure, selection)
    return structure


def _read(path: Path) -> gemmi.Structure:
    """Any file that gemmi knows; it takes text of any kind for a PDB file without atoms."""
    if not path.is_file():
        raise required(path, "a PDB or mmCIF file", "none")
    if path.stat().st_size == 0:
        raise required(path, "a PDB or mmCIF file", "an empty file")
    try:
        structure = gemmi.read_structure(str(path))
    except (RuntimeError, ValueError, UnicodeDecodeError) as error:
        raise required(path, "a PDB or mmCIF file", str(error).split("\n")[0]) from None
    if len(structure) == 0 or structure[0].count_atom_sites() == 0:
        raise required(path, "a PDB or mmCIF file with atoms", "none")
    return structure


def _select(structure: gemmi.Structure, selection: Selection) -> None:
    if selection.altloc is not None:
        for chain in structure[0]:
            for residue in chain:
                for index in reversed(range(len(residue))):
                    if residue[index].altloc not in ("\0", selection.altloc):
                        del residue[index]
    structure.remove_alternative_conformations()
    if not selection.hydrogens:
        structure.remove_hydrogens()
    if not selection.waters:
        structure.remove_waters()
    structure.remove_empty_chains()


def _operations(path: Path, structure: gemmi.Structure) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Exact operations of the space group, in the file's order where it lists the same ones."""
    try:
        listed, cartesian = _remark_290(structure)
    except (RuntimeError, ValueError) as error:
        raise required(path, "symmetry operations in REMARK 290", str(error).split("\n")[0]) from None
    group = structure.find_spacegroup()
    if group is None and not listed:
        raise required(path, "a space group that is known", structure.spacegroup_hm or "none")
    known = list(group.operations()) if group is not None else listed
    same = sorted(o.wrap().triplet() for o in listed) == sorted(o.wrap().triplet() for o in known)
    operations = listed if same else known
    denominator = gemmi.Op.DEN
    rotations, rest = np.divmod([o.rot for o in operations], denominator)
    if rest.any():
        raise required(path, "symmetry operations of whole-numbered rotations", "others")
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
