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


def box_limits(h_min: Int[Tensor, "3"], box: tuple[int, int, int]) -> tuple[Float[Tensor, "3 1 1"], list[int]]:
    """Lowest indices of the padded box, and its size, for :func:`padded_index`."""
    return (h_min - 1).double().view(3, 1, 1), [n + 2 for n in box]


def padded_index(
    hkl: Float[Tensor, "3 rows samples"], low: Float[Tensor, "3 1 1"], size: list[int]
) -> Int[Tensor, "rows samples"]:
    """Places of whole-numbered reflections in :func:`padded_values`: outside the box in its layer of the default."""
    h, k, l = ((hkl[i] - low[i]).clamp_(0, size[i] - 1) for i in range(3))
    return h.mul_(size[1]).add_(k).mul_(size[2]).add_(l).long()
