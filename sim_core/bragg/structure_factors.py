"""Lookup of structure factor amplitudes at the nearest reflection."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..experiment import StructureFactors


def flat_values(structure_factors: StructureFactors) -> Float[Tensor, "n"]:
    """All amplitudes in one row: the box with l running fastest, then the default."""
    return torch.cat([structure_factors.table.flatten(), structure_factors.default.reshape(1)])


def nearest_reflection(h: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """The nearest integers; a half is rounded down, as in the reference program."""
    return torch.ceil(h - 0.5)


def flat_index(
    hkl: Float[Tensor, "rows 3 samples"], h_min: Int[Tensor, "3"], box: tuple[int, int, int]
) -> Int[Tensor, "rows samples"]:
    """Places of whole-numbered reflections in :func:`flat_values`; outside the box the last place."""
    size = torch.tensor(box, device=hkl.device)[:, None]
    offset = hkl.long() - h_min[:, None]
    inside = ((offset >= 0) & (offset < size)).all(dim=-2)
    h, k, l = offset.unbind(dim=-2)
    last = box[0] * box[1] * box[2]
    return torch.where(inside, (h * box[1] + k) * box[2] + l, last)
