"""Lookup of structure factor amplitudes at the nearest reflection."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..experiment import StructureFactors


def padded_values(structure_factors: StructureFactors) -> Float[Tensor, "n"]:
    """The box with a layer of the default all around, l running fastest; one value for a constant."""
    table, default = structure_factors.table, structure_factors.default
    if table.numel() == 0:
        return default.reshape(1)
    for axis in range(3):
        shape = [*table.shape]
        shape[axis] = 1
        layer = default.expand(shape)
        table = torch.cat([layer, table, layer], axis)
    return table.flatten()


def nearest_reflection(h: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """The nearest integers; a half is rounded down, as in the reference program."""
    return torch.ceil(h - 0.5)


def padded_index(
    hkl: Float[Tensor, "3 rows samples"], h_min: Int[Tensor, "3"], box: tuple[int, int, int]
) -> Int[Tensor, "rows samples"]:
    """Places of whole-numbered reflections in :func:`padded_values`: outside the box in its layer of the default."""
    size = torch.tensor(box, device=hkl.device, dtype=hkl.dtype).view(3, 1, 1)
    low = (h_min - 1).to(hkl.dtype).view(3, 1, 1)
    h, k, l = (torch.clamp(hkl, low, low + size + 1) - low).unbind(0)
    return h.mul(box[1] + 2).add_(k).mul_(box[2] + 2).add_(l).long()
