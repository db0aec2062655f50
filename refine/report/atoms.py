"""Atoms and springs that were refined: a summary, and the model with its new coordinates."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from refine.experiment.atoms import Atoms
from refine.fit.refinement import Refinement
from refine.formats.models import write_model

MODELS = ("refined.pdb", "refined.cif")


def atoms_of(refinement: Refinement) -> Atoms | None:
    """The atomic model of a refinement."""
    found: Atoms | None = refinement.frames[0].model.sample.atoms  # type: ignore[union-attr, assignment]
    return found


@torch.no_grad()
def described_atoms(refinement: Refinement) -> dict[str, Any]:
    """How far atoms moved, and how far they are from where they should be, where that is known [A]."""
    atoms, parameters = atoms_of(refinement), refinement.refined
    if atoms is None or "xyz" not in parameters.free:
        return {}
    start, now = parameters.specs["xyz"].initial, parameters.table("xyz").cpu()
    shift = (now - start).reshape(-1, 3).norm(dim=-1)
    found: dict[str, Any] = {"shift_A": {"rms": float(shift.square().mean().sqrt()), "largest": float(shift.max())}}
    if "xyz" in refinement.frames[0].truth:
        truth = torch.tensor(refinement.frames[0].truth["xyz"], dtype=torch.float64)
        found["rms_xyz_A"] = {n: rms_error(x, truth, atoms) for n, x in (("initial", start), ("refined", now))}
    return {"atoms": found}


def rms_error(xyz: Float[Tensor, "n"], truth: Float[Tensor, "n"], atoms: Atoms) -> float:
    """Root mean square distance of atoms from the truth [A], where the origin is free without their mean shift."""
    error = (xyz - truth).reshape(-1, 3)
    error = error - error.mean(0) if atoms.free_origin else error
    return float(error.square().sum(-1).mean().sqrt())


@torch.no_grad()
def leave_atoms(refinement: Refinement, folder: Path) -> None:
    """Write the model with refined coordinates or B factors, as PDB and mmCIF."""
    atoms, parameters = atoms_of(refinement), refinement.refined
    if atoms is None or not {"xyz", "b_atoms"} & set(parameters.free):
        return
    xyz, b = atoms.file.xyz, atoms.file.b_iso
    if "xyz" in parameters.specs:
        xyz = parameters.table("xyz").cpu().numpy().reshape(-1, 3)
    if "b_atoms" in parameters.specs:
        b = parameters.table("b_atoms").cpu().numpy()
    for name in MODELS:
        write_model(atoms.file, np.ascontiguousarray(xyz), np.ascontiguousarray(b), folder / name)
