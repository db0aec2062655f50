"""From what people write (degrees, millimetres, conventions) to what the core takes."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from refine.errors import required
from refine.experiment.conventions import CONVENTIONS, Convention, unit
from refine.settings.experiment import Detector as DetectorSettings
from sim_core.mosaic import (
    DomainSample,
    Misorientation,
    domain_rotations,
    normal_domains,
    quadrature_domains,
    random_domains,
)
from sim_core.rotations import mean_rotation, xyz_angles


def tensor(values: object) -> Tensor:
    """Double-precision tensor."""
    return torch.as_tensor(values, dtype=torch.float64)


def convention_of(detector: DetectorSettings) -> Convention:
    """The detector's convention; for ``custom`` with the vectors that were given.

    A normal that is not of unit length is replaced by fast x slow, as in the reference program.
    """
    base = CONVENTIONS[detector.convention]
    if detector.convention != "custom":
        return base
    given = {k: v for k, v in detector.custom.model_dump().items() if v is not None}
    merged = {name: given.get(name, getattr(base, name)) for name in detector.custom.model_dump()}
    units = {n: unit(v, f"detector.custom.{n}") for n, v in merged.items() if n != "normal"}
    normal = np.asarray(merged["normal"], dtype=np.float64)
    if float(np.linalg.norm(normal)) != 1.0:
        normal = unit(np.cross(units["fast"], units["slow"]), "detector.custom.fast x slow")
    _check_axes(units)
    vectors = {name: tuple(v.tolist()) for name, v in {**units, "normal": normal}.items()}
    return Convention(
        **vectors,
        swapped=base.swapped,
        half_pixel=base.half_pixel,
        flipped=base.flipped,
        default_centre=base.default_centre,
        pivot=base.pivot,
    )


def _check_axes(units: dict[str, np.ndarray]) -> None:
    for one, other in (("fast", "slow"), ("beam", "polarization")):
        if abs(float(units[one] @ units[other])) > 0.99:
            raise required(f"detector.custom.{other}", f"another direction than {one}", units[other].tolist())


def build_domains(model: str, count: int, seed: int, misorientation: Misorientation) -> DomainSample:
    """The sample of mosaic blocks of a configuration."""
    if model == "quadrature":
        return quadrature_domains(count, misorientation)
    return random_domains(count, seed) if misorientation == "cap" else normal_domains(count, seed)


def mean_rotation_deg(simulator: str, domains: DomainSample, spread_deg: Tensor) -> list[float]:
    """Angles [deg] about x, y, z by which the blocks are turned on average; the closed form has none."""
    if simulator == "closed_form":
        return [0.0, 0.0, 0.0]
    rotations = domain_rotations(domains, torch.deg2rad(spread_deg))
    degrees: list[float] = torch.rad2deg(xyz_angles(mean_rotation(rotations, domains.weights))).tolist()
    return degrees


def automatic_oversample(
    n_cells: Sequence[float], cell: Sequence[float], pixel_size_mm: float, distance_mm: float, wavelength_A: float
) -> int:
    """Sub-pixels that resolve the spots of the largest block: three across its first minimum.

    References: the automatic choice of nanoBragg.
    """
    largest = max(n * length for n, length in zip(n_cells, cell[:3], strict=True))
    return max(1, math.ceil(3 * largest / (wavelength_A * distance_mm / pixel_size_mm)))
