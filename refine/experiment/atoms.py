"""From an atomic model as a file has it to the core's structure."""

import numpy as np
import torch
from torch import Tensor

from refine.formats.models import CrystalModel
from sim_core.diffuse.reference import packed_by_axes
from sim_core.diffuse.structure import Structure, packed
from sim_core.form_factors import FormFactors


def build_structure(model: CrystalModel, use_occupancy: bool = False) -> Structure:
    """The crystal with exact operations, every unit packed into the cell.

    Args:
        model: As read.
        use_occupancy: Weight atoms by their occupancies; otherwise all are one.
    """
    to_cartesian = model.basis.T
    rotations = to_cartesian @ model.rotations @ np.linalg.inv(to_cartesian)
    return packed(_structure(model, rotations, model.translations @ model.basis, use_occupancy))


def build_reference_structure(model: CrystalModel) -> Structure:
    """The crystal as eryx builds it: the file's rounded Cartesian operations, its own packing.

    Without such operations it adds fractional translations to coordinates in Angstrom, and fractional rotations turn
    Cartesian vectors.
    """
    if model.cartesian is None:
        structure = _structure(model, model.rotations.astype(float), model.translations, False)
    else:
        structure = _structure(model, model.cartesian[..., :3], model.cartesian[..., 3], False)
    return packed_by_axes(structure, torch.from_numpy(model.rotations))


def _structure(model: CrystalModel, rotations: np.ndarray, translations: np.ndarray, use_occupancy: bool) -> Structure:
    a, b, c, kind = model.form_factors()
    return Structure(
        basis=_tensor(model.basis),
        rotations=_tensor(rotations),
        translations=_tensor(translations),
        xyz=_tensor(model.xyz),
        b_iso=_tensor(model.b_iso),
        weight=_tensor(model.occupancy if use_occupancy else np.ones(len(model.xyz))),
        mass=_tensor(model.mass),
        form_factors=FormFactors(_tensor(a), _tensor(b), _tensor(c), torch.from_numpy(kind)),
    )


def _tensor(array: np.ndarray) -> Tensor:
    return torch.as_tensor(np.ascontiguousarray(array), dtype=torch.float64)
