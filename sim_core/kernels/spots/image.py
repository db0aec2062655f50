r"""An image of the closed form: rays from a camera to pixels, times the sum over lattice points.

Everything that carries a gradient is a property of the whole image: the plane of the detector and the beam
(:class:`Camera`), the crystal and the spindle (:class:`Spots`), the amplitudes. ``spot_image`` runs either as plain
tensors, the reference, or as machine code (:mod:`sim_core.kernels.spots.compiled`).
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..selection import entries, select_closed_form
from .camera import Camera, rays
from .sum import Settings, Spots, spot_sum

BLOCK = 1 << 14
"""Pixels that the reference holds at a time: what fits into a cache."""


def spot_image(
    camera: Camera,
    spots: Spots,
    amplitudes: Float[Tensor, "reflections"],
    settings: Settings,
    pixels: Int[Tensor, "pixels 2"] | None = None,
) -> Float[Tensor, "pixels"]:
    """Photons in each pixel, differentiable once in every tensor, forwards and backwards.

    Args:
        camera: Detector and beam.
        spots: What spreads a lattice point.
        amplitudes: |F| of the reflections, from :func:`padded_values`.
        settings: Neighbours, lookup, precision and kernel.
        pixels: Indices (slow, fast) of the pixels wanted; ``None`` for all, fast running fastest.
    """
    count = camera.image_size[0] * camera.image_size[1] if pixels is None else len(pixels)
    points = settings.neighbours[0] * settings.neighbours[1] * settings.neighbours[2]
    evaluations = count * points * spots.constant.shape[0] * spots.constant.shape[1]
    needed = entries([*camera, *(camera.absorption or ()), *spots, amplitudes])
    if select_closed_form(settings.kernel, evaluations, camera.origin.device, settings.dtype, needed) == "compiled":
        from . import compiled

        return compiled.spot_image(camera, spots, amplitudes, settings, pixels)
    if pixels is None:
        fast, slow = (torch.arange(n, device=camera.origin.device) for n in camera.image_size)
        pixels = torch.cartesian_prod(slow, fast)

    def block(part: Tensor) -> Tensor:
        s, covariance, edges, factor = rays(camera, part)
        return factor * spot_sum(s, covariance, edges, spots, amplitudes, settings)

    return torch.cat([block(part) for part in pixels.split(BLOCK)] if count else [block(pixels)]).to(settings.dtype)


__all__ = ["spot_image"]
