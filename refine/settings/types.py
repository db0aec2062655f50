"""Numbers and vectors of the configuration's schema."""

from typing import Annotated, Literal

from annotated_types import Ge, Gt
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, FiniteFloat

Positive = Annotated[FiniteFloat, Gt(0)]
NotNegative = Annotated[FiniteFloat, Ge(0)]
Count = Annotated[int, Ge(1)]
Vector = tuple[FiniteFloat, FiniteFloat, FiniteFloat]
Pair = tuple[FiniteFloat, FiniteFloat]
Triple = Annotated[
    tuple[Positive, Positive, Positive], BeforeValidator(lambda v: [v] * 3 if isinstance(v, int | float) else v)
]


def _closes(cell: tuple[float, ...]) -> tuple[float, ...]:
    """Angles that three vectors in space can have."""
    alpha, beta, gamma = cell[3:]
    if max(alpha, beta, gamma) >= 180 or alpha + beta + gamma >= 360 or 2 * max(cell[3:]) >= alpha + beta + gamma:
        raise ValueError(f"expected angles that close to a cell, got {list(cell[3:])}")
    return cell


Cell = Annotated[tuple[Positive, Positive, Positive, Positive, Positive, Positive], AfterValidator(_closes)]
MosaicModel = Literal["quadrature", "random"]
Rings = NotNegative | list[NotNegative]
Mosaic = NotNegative | tuple[NotNegative, NotNegative, NotNegative]


class Section(BaseModel):
    """A part of the configuration; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)
