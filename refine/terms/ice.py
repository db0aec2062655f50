"""Rings of hexagonal ice."""

from jaxtyping import Float
from torch import Tensor

from refine.data.sites import Sites
from refine.experiment.sample import Values
from refine.terms.term import BEAM, DETECTOR, Term
from sim_core import Experiment
from sim_core.ice import ice_labels, ice_rings


class IceRings(Term[Experiment]):
    """One amplitude for each ring, which is not below zero, and a width that all share."""

    coefficient = "ice"
    reads = BEAM | DETECTOR | {"ice_width"}

    def forward(self, values: Values, scene: Experiment, sites: Sites) -> Float[Tensor, "n rings"]:
        """One where a ring is highest, at the foot of the perpendicular."""
        return ice_rings(scene, sites.index, values["ice_width"])


RINGS = ice_labels()
"""Components of ``ice``: the spacings [A]."""
