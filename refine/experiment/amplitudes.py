"""Amplitudes of the atoms of a model, where an image needs them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from refine.devices import constant
from refine.errors import required
from refine.formats.models import CrystalModel
from refine.formats.solvent import SolventMask, fine_amplitudes, solvent_mask
from refine.settings.terms import ModelFile
from sim_core import AmplitudeGrid, Experiment, StructureFactors
from sim_core.amplitudes_of_atoms import amplitudes, middle, modulus, needed_rates
from sim_core.sphere import highest_indices, near_sphere

Values = Mapping[str, Tensor]
Rates = tuple[int, int, int]

WHOLE: Rates = (1, 1, 1)


@dataclass(frozen=True)
class Solvent:
    """A flat bulk solvent.

    Attributes:
        mask: Where it is.
        density: k_sol [electron/A^3].
        b_iso: B_sol [A^2].
    """

    mask: SolventMask
    density: float
    b_iso: float


def build_solvent(model: ModelFile, file: CrystalModel) -> Solvent | None:
    """That of a configuration: around the atoms of the file, constant in every derivative."""
    if model.solvent == "none":
        return None
    return Solvent(solvent_mask(file), model.k_sol, model.b_sol_A2)


@dataclass(frozen=True)
class AtomAmplitudes:
    """Structure factors of atoms near the Ewald sphere.

    Attributes:
        at_pixel: Whether spots take F at the pixel's own place in reciprocal space, not that of the reflection.
        d_min: Resolution limit [A]; zero for none.
        widest: Largest misorientation of a block, in mosaic spreads.
        solvent: Between the molecules; ``None`` for none.
        dtype: Precision of the sums over atoms.
    """

    at_pixel: bool
    d_min: float
    widest: float
    solvent: Solvent | None = None
    dtype: torch.dtype = torch.float64

    def __call__(
        self, bare: Experiment, u_cart: Float[Tensor, "units atoms 3 3"], b_iso: Tensor | None, everywhere: bool = False
    ) -> StructureFactors:
        """Amplitudes for one image.

        Args:
            bare: The experiment with its atoms, before it has amplitudes.
            u_cart: Mean square displacements of the atoms [A^2].
            b_iso: Overall displacement factor [A^2]; ``None`` for none.
            everywhere: All reflections, wherever the crystal is turned.
        """
        highest = tuple(h + 2 for h in highest_indices(constant(bare), self.d_min))
        table = modulus(self._grid(bare, u_cart, highest, WHOLE, 1.5, everywhere))
        low = torch.tensor([-h for h in highest], device=table.device)
        nothing = table.new_zeros(())
        if not self.at_pixel or everywhere:
            return StructureFactors(table, low, nothing, b_iso)
        assert bare.structure is not None
        rates = needed_rates(bare.structure)
        F = self._grid(bare, u_cart, highest, rates, 2.5, False)
        fine = AmplitudeGrid(F.real, F.imag, low * low.new_tensor(rates), rates)
        return StructureFactors(table.detach(), low, nothing, b_iso, fine)

    def _grid(
        self,
        bare: Experiment,
        u_cart: Tensor,
        highest: tuple[int, ...],
        rates: Rates,
        steps: float,
        everywhere: bool,
    ) -> Complex[Tensor, "h k l"]:
        """F on a grid, zero away from the sphere; phases are relative to the middle of the atoms."""
        structure, cell = bare.structure, bare.crystal.cell
        assert structure is not None
        h, k, l = (2 * n * r + 1 for n, r in zip(highest, rates, strict=True))
        most = (highest[0], highest[1], highest[2])
        if everywhere:
            rows = torch.arange(h * k * l, device=cell.device)
        else:
            widest = self.widest * float(constant(bare).crystal.mosaic_spread.max())
            try:
                rows = near_sphere(constant(bare), most, rates, steps, widest)
            except ValueError as error:
                fewer = "fewer amplitudes: structure_factors.at=reflection or a simulator.d_min_A"
                raise required("structure_factors.at", fewer, str(error)) from None
        hkl = _indices(rows, (h, k, l), most, rates)
        F = amplitudes(structure, cell, u_cart, hkl, middle(structure), self.dtype)
        if self.solvent is not None:
            F = F + self._solvent(rows, hkl, most, rates, middle(structure), bare)
        parts = [part.new_zeros(h * k * l).index_put((rows,), part).reshape(h, k, l) for part in (F.real, F.imag)]
        return torch.complex(*parts)

    def _solvent(
        self,
        rows: Tensor,
        hkl: Float[Tensor, "n 3"],
        highest: tuple[int, int, int],
        rates: Rates,
        origin: Tensor,
        bare: Experiment,
    ) -> Complex[Tensor, "n"]:
        """What the solvent adds, with the same phases; its mask carries no derivative."""
        assert self.solvent is not None
        low, high = [(sign * highest[0], sign * highest[1], sign * highest[2]) for sign in (-1, 1)]
        x, y, z = origin.tolist()
        found = torch.from_numpy(np.ascontiguousarray(fine_amplitudes(self.solvent.mask, low, high, rates, (x, y, z))))
        s2 = (hkl @ bare.crystal.reciprocal.T).square().sum(-1)
        factor = self.solvent.density * torch.exp(-self.solvent.b_iso / 4 * s2)
        phase = -2 * torch.pi * hkl @ origin
        return found.flatten().to(hkl.device)[rows] * torch.polar(factor, phase)


def _indices(
    rows: Int[Tensor, "n"], sizes: tuple[int, int, int], highest: tuple[int, int, int], rates: Rates
) -> Float[Tensor, "n 3"]:
    """Indices of rows of a grid."""
    places = torch.stack([rows // (sizes[1] * sizes[2]), rows // sizes[2] % sizes[1], rows % sizes[2]], -1)
    steps = torch.tensor(rates, dtype=torch.float64, device=rows.device)
    return places / steps - torch.tensor(highest, dtype=torch.float64, device=rows.device)
