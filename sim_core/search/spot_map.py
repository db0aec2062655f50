r"""An image thinned for the search of an orientation: what stands out of the background, by length and azimuth of S.

To turn a crystal about the beam moves its spots along rings of equal |S|, and to tilt it only brings reflections into
and out of diffraction. So a tolerance in the orientation is a blur along the azimuth and in the distance from the Ewald
sphere, never in |S|, and a reflection can only be found in the ring of its own |q|.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..amplitudes import padded_index, padded_values
from ..experiment import StructureFactors


class Pixels(NamedTuple):
    """The pixels of an image that are used.

    Attributes:
        scattering: Scattering vectors [1/A] in the frame of :func:`beam_frame`.
        signal: What stands out of the background, in its standard deviations, zero where nothing does.
        width: Extent of S over a pixel [1/A].
    """

    scattering: Float[Tensor, "n 3"]
    signal: Float[Tensor, "n"]
    width: float


class Reflections(NamedTuple):
    """Lattice points that can be seen, in the crystal's frame.

    Attributes:
        vectors: B h [1/A].
        amplitudes: |F|, with the falloff of the image's brightness where it is known.
        sigma: Standard deviation of a spot without its mosaic spread [1/A].
    """

    vectors: Float[Tensor, "n 3"]
    amplitudes: Float[Tensor, "n"]
    sigma: Float[Tensor, "n"]

    def strongest(self, count: int) -> "Reflections":
        """The first ones, without a set of equivalents that ``count`` would cut: equivalent rotations score alike."""
        if len(self.vectors) <= count:
            return self
        length = self.vectors.norm(dim=-1)
        cut = (self.amplitudes == self.amplitudes[count]) & ((length / length[count] - 1).abs() < 1e-6)
        cut[count:] = True
        return Reflections(*(x[~cut] for x in self))


def beam_frame(direction: Float[Tensor, "3"]) -> Float[Tensor, "3 3"]:
    """Rows: two unit vectors across the beam and the one along it."""
    along = direction / direction.norm()
    helper = torch.eye(3, dtype=along.dtype)[along.abs().argmin()]
    first = torch.linalg.cross(helper, along)
    first = first / first.norm()
    return torch.stack([first, torch.linalg.cross(along, first), along])


def local_background(
    photons: Float[Tensor, "slow fast"], used: Bool[Tensor, "slow fast"], window: int
) -> tuple[Float[Tensor, "slow fast"], Float[Tensor, "slow fast"]]:
    """Mean and variance of the pixels around each pixel, without those that stand out by three standard deviations.

    Args:
        photons: The image.
        used: Which of its pixels count.
        window: Edge of the square around a pixel [pixels], shortened to the image.
    """
    size = 2 * (min(window, *photons.shape) // 2) + 1
    kept = used
    mean = variance = torch.zeros_like(photons)

    def box(x: Tensor) -> Tensor:
        rows = torch.nn.functional.avg_pool2d(x[None, None], (1, size), 1, (0, size // 2))
        return torch.nn.functional.avg_pool2d(rows, (size, 1), 1, (size // 2, 0))[0, 0]

    for _ in range(6):
        share = box(kept.double()).clamp_min(1e-9)
        clean = torch.where(kept, photons, 0.0)
        mean = box(clean) / share
        variance = (box(clean.square()) / share - mean.square()).clamp_min(0.0)
        limit = mean + 3 * variance.sqrt() + 0.5
        now = used & (photons <= limit)
        if bool((now == kept).all()):
            break
        kept = now
    return mean, variance


def standing_out(
    photons: Float[Tensor, "*n"], mean: Float[Tensor, "*n"], variance: Float[Tensor, "*n"], threshold: float = 2.0
) -> Float[Tensor, "*n"]:
    """Difference of the square roots of photons and background in standard deviations, above a threshold."""
    root = 2 * ((photons.clamp_min(0) + 0.375).sqrt() - (mean.clamp_min(0) + 0.375).sqrt())
    excess = (variance / mean.clamp_min(0.375)).clamp_min(1.0).sqrt()
    z = root / excess
    return torch.where(z > threshold, z, 0.0)


def amplitudes_of(factors: StructureFactors, hkl: Int[Tensor, "n 3"]) -> Float[Tensor, "n"]:
    """|F| of whole-numbered reflections."""
    values = padded_values(factors)
    if len(values) == 1:
        return values.expand(len(hkl))
    low = (factors.h_min - 1).double().view(3, 1, 1)
    return values[padded_index(hkl.T.double()[:, :, None], low, [n + 2 for n in factors.table.shape])[:, 0]]


def visible_reflections(
    basis: Float[Tensor, "3 3"],
    factors: StructureFactors,
    limits: tuple[float, float],
    n_cells: Float[Tensor, "3"],
) -> Reflections:
    """Lattice points with |q| within limits, but for the origin, the strongest first, of those the shortest.

    Args:
        basis: B, columns a*, b*, c* [1/A].
        factors: Amplitudes.
        limits: Smallest and largest |q| [1/A].
        n_cells: Cells of a block.
    """
    direct = torch.linalg.inv(basis)
    reach = [int(float(row.norm()) * limits[1]) for row in direct]
    hkl = torch.cartesian_prod(*[torch.arange(-n, n + 1) for n in reach]).view(-1, 3)
    q = hkl.double() @ basis.T
    length = q.norm(dim=-1)
    inside = (length >= limits[0]) & (length <= limits[1]) & (hkl != 0).any(-1)
    hkl, q = hkl[inside], q[inside]
    amplitudes = amplitudes_of(factors, hkl)
    sizes = basis / (n_cells * math.sqrt(2 * math.pi))
    sigma = (q @ sizes).norm(dim=-1) / q.norm(dim=-1)
    order = length[inside].argsort(stable=True)
    order = order[amplitudes[order].argsort(descending=True, stable=True)]
    order = order[amplitudes[order] > 0]
    return Reflections(q[order], amplitudes[order], sigma[order])


class RingMap(NamedTuple):
    """Signal by |S| (rows) and azimuth about the beam (columns), blurred along the azimuth.

    Attributes:
        signal: Without the mean of its ring.
        coverage: Share of the surroundings of a point that pixels cover.
        step: Height of a row [1/A].
    """

    signal: Float[Tensor, "rings azimuths"]
    coverage: Float[Tensor, "rings azimuths"]
    step: float


def ring_map(pixels: Pixels, tolerance: float, ring_sigma: float) -> RingMap:
    """Sum the signal over rings and sectors and blur it.

    Args:
        pixels: What stands out.
        tolerance: Standard deviation of the blur along the azimuth, on top of a pixel's own extent [rad].
        ring_sigma: Standard deviation of the blur in |S|, on top of a pixel's own extent [1/A].
    """
    length = pixels.scattering.norm(dim=-1)
    azimuth = torch.atan2(pixels.scattering[:, 1], pixels.scattering[:, 0])
    step = pixels.width
    rings = int(float(length.max()) / step) + 3
    sectors = 2 * math.ceil(math.pi / max(tolerance / 1.5, 2e-3))
    row = (length / step).long()
    column = ((azimuth / (2 * math.pi) + 0.5) * sectors).long().clamp(max=sectors - 1)
    place = row * sectors + column
    empty = torch.zeros(rings * sectors, dtype=torch.float64)
    signal = empty.index_add(0, place, pixels.signal.double()).view(rings, sectors)
    count = empty.index_add(0, place, torch.ones_like(pixels.signal).double()).view(rings, sectors)
    radius = (torch.arange(rings) + 0.5).double()
    sigma = (tolerance**2 + (0.5 / radius) ** 2).sqrt()
    signal, count = (_blurred(x, sigma, max(ring_sigma / step, 0.4)) for x in (signal, count))
    full = radius * sigma * math.sqrt(2 * math.pi)
    coverage = (count / (0.5 * full[:, None])).clamp(0, 1)
    mean = (signal.sum(1) / count.sum(1).clamp_min(1e-9))[:, None] * count
    return RingMap((signal - mean).float(), coverage.float(), step)


def _blurred(x: Float[Tensor, "rings azimuths"], sigma: Float[Tensor, "rings"], rows: float) -> Tensor:
    """Sums under Gaussians of height one: of sigma(ring) [rad] along the azimuth, of ``rows`` rings across."""
    sectors = x.shape[1]
    order = torch.arange(sectors // 2 + 1).double()
    width = 2 * math.pi / sectors
    kernel = torch.exp(-0.5 * (order * sigma[:, None]) ** 2) * (math.sqrt(2 * math.pi) * sigma[:, None] / width)
    along = torch.fft.irfft(torch.fft.rfft(x, dim=1) * kernel, n=sectors, dim=1)
    index = torch.arange(len(x)).double()
    across = torch.exp(-0.5 * ((index[:, None] - index) / rows) ** 2)
    return across @ along


def match(
    rotations: Float[Tensor, "n 3 3"],
    reflections: Reflections,
    rings: RingMap,
    wavelength: float,
    tolerance: float,
    mosaic: float,
) -> Float[Tensor, "n"]:
    r"""How well the reflections that an orientation brings into diffraction agree with what stands out.

    .. math:: \frac{\sum_q p_q T(|q|, \varphi_q)}{\sqrt{\sum_q p_q^2 + p_0^2}}, \quad
        p_q = |F_q| e^{-\varepsilon_q^2/4 w_q^2}

    with the map T and the distance epsilon of a reflection from the Ewald sphere. Reflections that should be there
    and are not lower it twice: T is negative where its ring is brighter elsewhere, and they raise the denominator.

    Args:
        rotations: From the crystal's frame to that of the map.
        reflections: Lattice points.
        rings: The map, made with the same tolerance.
        wavelength: [A].
        tolerance: Standard deviation of the orientation [rad].
        mosaic: Standard deviation of the mosaic spread [rad].
    """
    q = reflections.vectors
    length = q.norm(dim=-1)
    row = (length / rings.step).long()
    sectors = rings.signal.shape[1]
    inside = row < len(rings.signal)
    q, length, row = q[inside], length[inside], row[inside]
    width2 = reflections.sigma[inside] ** 2 + (mosaic**2 + tolerance**2) * length**2
    amplitude = (reflections.amplitudes[inside] / reflections.amplitudes[0]).float()
    start, bend = (row * sectors).int(), (wavelength / 2 * length**2).float()
    sharp = (-0.25 / width2).float()
    signal, coverage = rings.signal.flatten(), rings.coverage.flatten()
    top, bottom = [], []
    for part in rotations.float().split(max(1, (1 << 17) // max(1, len(q)))):
        x, y, z = (part.transpose(0, 1) @ q.T.float()).unbind(0)
        p = z.add_(bend).square_().mul_(sharp).clamp_(min=-60).exp_().mul_(amplitude)
        place = (
            torch.atan2(y, x).mul_(sectors / (2 * math.pi)).add_(sectors / 2).clamp_(0, sectors - 1).int().add_(start)
        )
        top.append((p * torch.take(signal, place.long())).sum(-1))
        bottom.append((p.square_() * torch.take(coverage, place.long())).sum(-1))
    below = torch.cat(bottom)
    return torch.cat(top) / (below + 0.1 * below.median()).clamp_min(1e-30).sqrt()
