"""Smooth backgrounds under the spots."""

from jaxtyping import Float
from torch import Tensor

from refine.data.sites import Sites
from refine.experiment.sample import Values
from refine.terms.term import BEAM, DETECTOR, Term
from sim_core import Experiment
from sim_core.background import RADIAL_KNOTS, flat_profile, radial_profiles, scatterer_profile


class Flat(Term[Experiment]):
    """The same in every pixel."""

    coefficient = "background"

    def forward(self, values: Values, scene: Experiment, sites: Sites) -> Float[Tensor, "n 1"]:
        """One."""
        return flat_profile(scene, sites.index)[:, None]


class Scatterer(Term[Experiment]):
    """An amorphous body that scatters alike into all angles."""

    coefficient = "background"
    reads = BEAM | DETECTOR

    def forward(self, values: Values, scene: Experiment, sites: Sites) -> Float[Tensor, "n 1"]:
        """Relative to the foot of the perpendicular."""
        return scatterer_profile(scene, sites.index)[:, None]


class Radial(Term[Experiment]):
    """What an amorphous body scatters, piecewise linear in 1/d."""

    coefficient = "background"
    reads = BEAM | DETECTOR

    def forward(self, values: Values, scene: Experiment, sites: Sites) -> Float[Tensor, "n knots"]:
        """One hat function for each knot."""
        return radial_profiles(scene, sites.index)


BACKGROUNDS: dict[str, type[Flat | Scatterer | Radial]] = {"flat": Flat, "scatterer": Scatterer, "radial": Radial}
"""By the names that configurations use."""

KNOTS = tuple(str(k) for k in range(RADIAL_KNOTS))
"""Components of a radial background."""
