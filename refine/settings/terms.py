"""What is allowed in the configuration of the terms: simulator, atomic model, diffuse scattering."""

from typing import Annotated, Literal

from annotated_types import Ge, Le, Len
from pydantic import BeforeValidator, FiniteFloat, model_validator

from refine.settings.types import Count, NotNegative, Positive, Section

Axis = tuple[FiniteFloat, FiniteFloat, Annotated[int, Ge(1), Le(1000)]]


class Simulator(Section):
    """How spots are computed, and what lies under and between them."""

    model: Literal["sampled", "closed_form"]
    diffuse: Literal["none", "one_phonon"]
    point_spread_px: NotNegative
    parts: Count | None
    d_min_A: NotNegative
    background: Literal["flat", "scatterer", "radial", "planes"]
    ice: bool
    kernel: Literal["auto", "eager", "compiled"]


class ModelFile(Section):
    """The atomic model."""

    path: str | None
    adp: Literal["data", "model", "network"]
    keep_hydrogens: bool
    keep_waters: bool
    altloc: Annotated[str, Len(1, 1)] | None
    use_occupancy: bool
    solvent: Literal["none", "flat"]
    k_sol: NotNegative
    b_sol_A2: FiniteFloat


class GridSampling(Section):
    """Lowest index, highest index and points for each reciprocal cell, by axis."""

    h: Axis | None
    k: Axis | None
    l: Axis | None

    @model_validator(mode="after")
    def _whole(self) -> "GridSampling":
        axes = {"h": self.h, "k": self.k, "l": self.l}
        if any(axis is None for axis in axes.values()) and any(axis is not None for axis in axes.values()):
            raise ValueError("expected all of h, k and l or none of them")
        for name, axis in axes.items():
            if axis is None:
                continue
            low, high, rate = axis
            steps = rate * (high - low)
            if high < low or abs(steps - round(steps)) > 1e-6:
                raise ValueError(
                    f"{name}: expected [min, max, rate] with whole steps from min to max, got {list(axis)}"
                )
        return self


class Diffuse(Section):
    """Where intensity is wanted, and the elastic network."""

    sampling: GridSampling
    q_file: str | None
    gamma_intra: Positive
    gamma_inter: Positive
    cutoff_A: Positive
    points: Count
    q_max: Positive
    d_min_A: NotNegative
    group_by: Literal["asu", "none"]
    compat: Literal["none", "eryx"]
    bragg: Annotated[Literal["nan", "finite"], BeforeValidator(lambda v: "nan" if v != v else v)]
