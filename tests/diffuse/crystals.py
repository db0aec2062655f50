"""Crystals and reference maps for the tests of diffuse scattering."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from refine.experiment.atoms import build_reference_structure, build_structure
from refine.formats.models import CrystalModel, read_model
from sim_core.diffuse.bodies import Bodies, RigidUnits, SingleAtoms
from sim_core.diffuse.brillouin import Sampling, grid
from sim_core.diffuse.elastic_network import Contacts, Springs, find_contacts
from sim_core.diffuse.reference import REACH, accumulated
from sim_core.diffuse.structure import Placed, cell_positions, placed

HERE = Path(__file__).resolve().parents[1] / "golden" / "one_phonon"
SHARED = Path(__file__).resolve().parents[3] / "shared" / "golden" / "one_phonon"


def f64(value: Any) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64)


@dataclass(frozen=True)
class Case:
    model: CrystalModel
    structure: Placed
    contacts: Contacts
    bodies: Bodies
    springs: Springs
    hkl: Tensor
    shape: tuple[int, int, int]
    rates: tuple[int, int, int]
    arrays: Any
    params: dict[str, Any]


def folder(name: str) -> Path:
    return HERE / name if (HERE / name).is_dir() else SHARED / name


def structure_of(model: CrystalModel) -> Placed:
    return placed(build_structure(model), f64(model.basis))


def case(name: str, reference: bool = False, reach: int | None = None) -> Case:
    path = folder(name)
    params = json.loads((path / "params.json").read_text())
    model = read_model(path / params["pdb"])
    structure = build_reference_structure(model) if reference else structure_of(model)
    contacts = find_contacts(
        cell_positions(structure), structure.basis, params.get("gnm_cutoff", 4.0), REACH if reference else reach
    )
    single = params.get("group_by", "asu") is None
    bodies = SingleAtoms() if single else RigidUnits(accumulated) if reference else RigidUnits()
    sampling = [Sampling(*params[f"{axis}sampling"]) for axis in "hkl"]
    hkl, shape = grid(*sampling)
    springs = Springs(f64(params["gamma_intra"]), f64(params["gamma_inter"]))
    rates = (sampling[0].rate, sampling[1].rate, sampling[2].rate)
    arrays = np.load(path / "arrays.npz")
    return Case(model, structure, contacts, bodies, springs, hkl, shape, rates, arrays, params)


def relative(found: Tensor, wanted: Tensor | np.ndarray) -> float:
    """Largest difference relative to the largest finite value."""
    found, wanted = np.asarray(found), np.asarray(wanted)
    return float(np.nanmax(np.abs(found - wanted)) / np.nanmax(np.abs(wanted)))
