"""One summand of the expected intensity.

A new kind of scattering is a subclass in a file of its own, and a line in :mod:`refine.build`.
"""

from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

from jaxtyping import Float
from torch import Tensor, nn

from refine.data.sites import Sites
from refine.experiment.sample import Values

Scene = TypeVar("Scene")

BEAM = frozenset({"wavelength_A", "divergence_rms_mrad", "bandwidth_rms_percent"})
DETECTOR = frozenset({"distance_mm", "beam_center_mm", "rotations_deg"})
CRYSTAL = frozenset({"misset_deg", "mosaic_spread_deg", "cell", "n_cells", "b_iso_A2"})
ATOMS = frozenset({"gamma_intra", "gamma_inter", "xyz", "b_atoms"})


class Term(nn.Module, ABC, Generic[Scene]):
    """A summand that is linear in one parameter.

    Attributes:
        coefficient: The parameter that multiplies it, whose components are its columns. Terms of the same coefficient
            add up.
        reads: Other parameters that it depends on.
    """

    coefficient: str
    reads: frozenset[str] = frozenset()

    def prepare(self, values: Values, scene: Scene, sites: Sites) -> None:
        """Choose what depends on the values and carries no derivative."""

    @abstractmethod
    def forward(self, values: Values, scene: Scene, sites: Sites) -> Float[Tensor, "n columns"]:
        """Photons for a coefficient of one.

        Args:
            values: Every parameter of the frame, in users' units.
            scene: What the frame's instrument makes of them: an experiment, or a crystal structure for a map.
            sites: Where.
        """

    def evaluations(self, sites: Sites) -> int:
        """How much work it is, in terms of sums."""
        return len(sites)

    def described(self) -> dict[str, Any]:
        """What it is, for results.json."""
        return {}
