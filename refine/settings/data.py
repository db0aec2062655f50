"""What is allowed in the configuration of the data."""

from typing import Annotated, Literal

from annotated_types import Ge
from pydantic import FiniteFloat

from refine.settings.types import Count, NotNegative, Positive, Section


class Data(Section):
    """The images, or the map, to refine against."""

    image: str | list[str] | None
    map: str | None
    frame: Annotated[int, Ge(0)] | list[Annotated[int, Ge(0)]]
    noise: Literal["none", "poisson"]
    relative_noise: NotNegative
    adc_offset: FiniteFloat
    gain: Positive
    readout: NotNegative
    saturation: Positive | None
    mask: str | None
    hot_sigma: Positive | None
    pixels: Literal["all", "boxes"]
    box_px: Count
    box_reach: Positive
