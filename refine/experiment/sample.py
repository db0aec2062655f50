"""The sample of one frame: crystal, amplitudes and atoms as functions of parameter values."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from refine.experiment.amplitudes import AtomAmplitudes
from refine.experiment.atoms import Atoms
from refine.threads import one_thread
from sim_core import Crystal, Experiment, StructureFactors

Values = Mapping[str, Tensor]


class Sample(nn.Module):
    """What stands in the beam.

    Args:
        orientation: Rotation U of A = U B before the misset.
        table: |F| of a list; not used where amplitudes are those of atoms.
        has_b_iso: Whether there is an overall displacement factor.
        atoms: The atomic model; ``None`` without one.
        amplitudes: Makes amplitudes of the atoms; ``None`` for those of the table.
    """

    orientation: Tensor
    table: Tensor
    h_min: Tensor
    default_F: Tensor

    def __init__(
        self,
        orientation: Float[Tensor, "3 3"],
        table: StructureFactors,
        has_b_iso: bool = False,
        atoms: Atoms | None = None,
        amplitudes: AtomAmplitudes | None = None,
    ) -> None:
        super().__init__()
        self.has_b_iso, self.atoms, self.amplitudes = has_b_iso, atoms, amplitudes
        self.register_buffer("orientation", orientation)
        self.register_buffer("table", table.table)
        self.register_buffer("h_min", table.h_min)
        self.register_buffer("default_F", table.default)

    def crystal(self, values: Values) -> Crystal:
        """The crystal, from cell [A, deg], misset [deg], mosaic spread [deg] and number of cells."""
        cell = values["cell"]
        return Crystal(
            cell=torch.cat([cell[:3], torch.deg2rad(cell[3:])]),
            orientation=self.orientation,
            misset=torch.deg2rad(values["misset_deg"]),
            n_cells=values["n_cells"],
            mosaic_spread=torch.deg2rad(values["mosaic_spread_deg"]),
        )

    def listed(self, values: Values) -> StructureFactors:
        """Amplitudes of the table."""
        b_iso = values["b_iso_A2"] if self.has_b_iso else None
        return StructureFactors(self.table, self.h_min, self.default_F, b_iso)

    def completed(self, values: Values, bare: Experiment, everywhere: bool = False) -> Experiment:
        """An experiment with the atoms, and with their amplitudes where these are wanted.

        Args:
            values: Every parameter.
            bare: The experiment with the amplitudes of the table.
            everywhere: Amplitudes of all reflections, wherever the crystal is turned.
        """
        if self.atoms is None:
            return bare
        bare = replace(bare, structure=self.atoms.structure(values))
        if self.amplitudes is None:
            return bare
        with one_thread():
            u_cart = self.atoms.displacements(values, bare)
            found = self.amplitudes(bare, u_cart, bare.structure_factors.b_iso, everywhere)
        return replace(bare, structure_factors=found)

    def prepare(self, values: Values) -> None:
        """Choose what depends on the values and carries no derivative."""
        if self.atoms is not None:
            self.atoms.prepare(values)
