"""Vibrating crystals on a detector, for the tests of diffuse scattering in images."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from support import tensor
from torch import Tensor

from refine.formats.models import CrystalModel, read_model
from sim_core import Beam, Crystal, Experiment, Panel, Scan, Structure, StructureFactors
from sim_core.form_factors import FormFactors

from .crystals import f64, folder


def record(model: CrystalModel) -> Structure:
    """The atoms of a file, every unit packed into the cell."""
    fractional = f64(model.xyz) @ torch.linalg.inv(f64(model.basis))
    a, b, c, kind = model.form_factors()
    structure = Structure(
        fractional,
        torch.from_numpy(np.ascontiguousarray(model.rotations)).long(),
        f64(model.translations),
        f64(model.b_iso),
        torch.ones(len(fractional), dtype=torch.float64),
        f64(model.mass),
        FormFactors(f64(a), f64(b), f64(c), torch.from_numpy(kind)),
    )
    return replace(structure, translations=structure.translations - torch.floor(structure.positions().mean(1)))


def cell_of(model: CrystalModel) -> Tensor:
    """a, b, c [A], alpha, beta, gamma [rad]."""
    return torch.cat([f64(model.cell[:3]), torch.deg2rad(f64(model.cell[3:]))])


def still(
    model: CrystalModel,
    pixels: int = 64,
    pixel_mm: float = 0.75,
    distance_mm: float = 45.0,
    misset_deg: Sequence[float] = (8.0, -5.0, 13.0),
    n_cells: Sequence[float] = (8.0, 8.0, 6.0),
    spread_deg: float = 0.0,
    fluence: float = 6.3e29,
) -> Experiment:
    """A square panel behind the crystal, the beam along z through its middle."""
    edge = pixels * pixel_mm / 2
    return Experiment(
        beam=Beam(
            direction=tensor([[0.0, 0.0, 1.0]]),
            wavelength=tensor([1.0]),
            weight=tensor([1.0]),
            fluence=tensor(fluence),
            kahn=tensor(0.0),
            polarization_axis=tensor([1.0, 0.0, 0.0]),
        ),
        panel=Panel(
            origin=tensor([-edge, -edge, distance_mm]) / 1000,
            fast_axis=tensor([1.0, 0.0, 0.0]),
            slow_axis=tensor([0.0, 1.0, 0.0]),
            normal=tensor([0.0, 0.0, 1.0]),
            pixel_size=tensor(pixel_mm / 1000),
            image_size=(pixels, pixels),
        ),
        crystal=Crystal(
            cell=cell_of(model),
            orientation=torch.eye(3, dtype=torch.float64),
            misset=torch.deg2rad(tensor(misset_deg)),
            n_cells=tensor(n_cells),
            mosaic_spread=torch.deg2rad(tensor(spread_deg)),
        ),
        scan=Scan(tensor([1.0, 0.0, 0.0]), tensor([0.0]), tensor([1.0])),
        structure_factors=StructureFactors.constant(tensor(1.0)),
        structure=record(model),
    )


def helix(name: str) -> CrystalModel:
    """One of the synthetic crystals."""
    return read_model(next(folder(name).glob("*.pdb")))


def shared_case(name: str) -> Path:
    """An image made by a Monte-Carlo program of its own."""
    return Path(__file__).resolve().parents[3] / "shared" / "golden" / "joint" / name
