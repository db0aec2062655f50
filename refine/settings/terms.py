"""What is allowed in the configuration of diffuse scattering; units are in the names."""

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Len
from pydantic import BaseModel, BeforeValidator, ConfigDict, FiniteFloat, model_validator

Axis = tuple[FiniteFloat, FiniteFloat, Annotated[int, Ge(1), Le(1000)]]
Positive = Annotated[FiniteFloat, Gt(0)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelFile(_Section):
    """The atomic model."""

    path: str | None
    adp: Literal["data", "model"]
    keep_hydrogens: bool
    keep_waters: bool
    altloc: Annotated[str, Len(1, 1)] | None
    use_occupancy: bool


class GridSampling(_Section):
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


class Diffuse(_Section):
    """Where intensity is wanted, and the elastic network."""

    sampling: GridSampling
    q_file: str | None
    gamma_intra: Positive
    gamma_inter: Positive
    cutoff_A: Positive
    d_min_A: Annotated[FiniteFloat, Ge(0)]
    group_by: Literal["asu", "none"]
    compat: Literal["none", "eryx"]
    bragg: Annotated[Literal["nan", "finite"], BeforeValidator(lambda v: "nan" if v != v else v)]


class Simulate(_Section):
    """Which values ``simulate.py`` takes: those given under ``diffuse`` or ``crystal``, or the experiment's."""

    values: Literal["given", "truth", "initial"]


class SpringConstants(_Section):
    """Spring constants [k_B T/A^2]; null where unknown."""

    gamma_intra: Positive | None
    gamma_inter: Positive | None


class Restraint(_Section):
    """Distances of neighbours are kept; without a standard deviation they are not."""

    sigma_A: Positive | None
    cutoff_A: Positive


class DiffuseFit(_Section):
    """A refinement against a diffuse map."""

    map: str | None
    points: Annotated[int, Ge(1)]
    q_max: Positive
    noise: Annotated[FiniteFloat, Ge(0)]
    disturb_A: Annotated[FiniteFloat, Ge(0)]
    restraint: Restraint
    truth: SpringConstants
    initial: SpringConstants
    free: list[Literal["gamma_intra", "gamma_inter", "xyz", "scale"]]

    @model_validator(mode="after")
    def _complete(self) -> "DiffuseFit":
        if None in (self.initial.gamma_intra, self.initial.gamma_inter):
            raise ValueError("initial: expected gamma_intra and gamma_inter, got null")
        if not self.free:
            raise ValueError("free: expected at least one parameter, got none")
        return self
