"""The experiments of ``accuracy.py``."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from refine.formats.reflections import read_hkl
from sim_core import Beam, Crystal, Experiment, Panel, Scan, StructureFactors
from sim_core.interference import Gaussian, Shape, Square

ROOT = Path(__file__).parents[1]


def tensor(values: object) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


@dataclass(frozen=True)
class Case:
    """An experiment, the shape of its blocks and its share of the random samples."""

    name: str
    experiment: Experiment
    truth: str
    share: float = 1.0

    @property
    def shape(self) -> Shape:
        return Gaussian() if self.truth == "gaussian" else Square()


def panel(pixel: float, distance: float, pixels_to_beam: int) -> Panel:
    """256 x 256 pixels in front of the beam, whose centre is as many pixels from either edge."""
    half = pixels_to_beam * pixel
    return Panel(
        origin=tensor([distance, half, -half]),
        fast_axis=tensor([0.0, 0.0, 1.0]),
        slow_axis=tensor([0.0, -1.0, 0.0]),
        normal=tensor([1.0, 0.0, 0.0]),
        pixel_size=tensor(pixel),
        image_size=(256, 256),
    )


def crystal(cell: list[float], n_cells: float, mosaic_deg: float) -> Crystal:
    return Crystal(
        cell=tensor([*cell, *[math.pi / 2] * 3]),
        orientation=torch.eye(3, dtype=torch.float64),
        misset=torch.deg2rad(tensor([1.2, -0.7, 2.1])),
        n_cells=tensor([n_cells] * 3),
        mosaic_spread=torch.deg2rad(tensor(mosaic_deg)),
    )


def lysozyme(spread: bool, rotation_deg: float, mosaic_deg: float) -> Experiment:
    """79 x 79 x 38 A, 15 cells along each edge; a quarter of a detector with the beam in its corner, to 3 A there."""
    beam = Beam(
        direction=tensor([[1.0, 0.0, 0.0]]),
        wavelength=tensor([1.0]),
        weight=tensor([1.0]),
        fluence=tensor(3e26),
        kahn=None,
        polarization_axis=tensor([0.0, 0.0, 1.0]),
        divergence=tensor(0.5e-3) if spread else None,
        bandwidth=tensor(1e-3) if spread else None,
    )
    scan = Scan(tensor([0.0, 0.0, 1.0]), tensor([math.radians(rotation_deg) / 2]), tensor([1.0]))
    if rotation_deg:
        scan = replace(scan, width=torch.deg2rad(tensor(rotation_deg)))
    amplitudes, low = read_hkl(ROOT / "data/lysozyme/lyso.hkl", 0.0)
    factors = StructureFactors(torch.from_numpy(amplitudes), torch.from_numpy(low), tensor(0.0))
    return Experiment(beam, panel(0.172e-3, 0.18, 256), crystal([79.1, 79.1, 38.4], 15.0, mosaic_deg), scan, factors)


def large_pixels() -> Experiment:
    """The still on the whole detector with pixels that are twice as large, larger than many spots; 18 cells."""
    whole = lysozyme(False, 0.0, 0.35)
    return replace(whole, panel=panel(0.344e-3, 0.18, 128), crystal=crystal([79.1, 79.1, 38.4], 18.0, 0.35))


def cubic() -> Experiment:
    """100 A, 5 cells along each edge, 31 A at the middle of the detector's edges: the size alone makes the spots."""
    whole = lysozyme(False, 0.0, 0.5)
    factors = StructureFactors.constant(tensor(100.0))
    return replace(
        whole, panel=panel(0.025e-3, 0.1, 128), crystal=crystal([100.0] * 3, 5.0, 0.8), structure_factors=factors
    )


def cases(quick: bool) -> list[Case]:
    found = []
    for truth, share in (("gaussian", 1.0), ("square", 0.25)):
        for spread in (False,) if quick else (False, True):
            beam = ", divergence and bandwidth" if spread else ""
            found.append(Case(f"still{beam}", lysozyme(spread, 0.0, 0.35), truth, share))
            found.append(Case(f"rotation of 0.5 deg{beam}", lysozyme(spread, 0.5, 0.25), truth, share))
        found.append(Case("still, large pixels", large_pixels(), truth, 0.25))
        found.append(Case("cubic 100 A, N = 5, low angle", cubic(), truth, 0.25))
    return found
