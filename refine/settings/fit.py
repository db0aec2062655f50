"""What is allowed in the configuration of truth, start, parameters and the loop.

``Initial``, ``Truth`` and ``Parameters`` have a key for each declared parameter.
"""

from typing import Annotated, Any, Literal

from annotated_types import Ge, Le
from pydantic import FiniteFloat, create_model, model_validator

from refine.parameters.declared import DECLARED, GIVEN
from refine.settings.types import Count, MosaicModel, NotNegative, Positive, Section


class Prior(Section):
    """A Gaussian prior in the parameter's unit; a null mean is the initial value."""

    mean: FiniteFloat | list[FiniteFloat] | None = None
    sigma: Positive | list[Positive]


class Restraint(Section):
    """Distances of neighbours are kept as they start, or as the file has them; without a deviation they are not."""

    sigma_A: Positive | None
    cutoff_A: Positive
    to: Literal["start", "file"]


class Parameter(Section):
    """How one parameter is refined."""

    free: bool
    per_image: bool
    scale: Positive | None
    lower: FiniteFloat | None
    upper: FiniteFloat | None
    prior: Prior | None

    @model_validator(mode="after")
    def _ordered(self) -> "Parameter":
        if self.lower is not None and self.upper is not None and not self.lower < self.upper:
            raise ValueError(f"expected a lower bound below the upper one, got {self.lower} and {self.upper}")
        return self


class Coordinates(Parameter):
    """How coordinates are refined."""

    restraint: Restraint


class _Truth(Section):
    """Ground truth: what simulated data are made with, or what is known of the image; null where unknown."""

    simulator: Literal["sampled", "closed_form"]
    mosaic_model: MosaicModel
    mosaic_domains: Count
    mosaic_seed: Count


class _Initial(Section):
    """Where the refinement starts; null for the value under crystal, detector, beam or diffuse."""

    disturb_A: NotNegative


_TRUTH: dict[str, Any] = {name: (DECLARED[name].kind | None, ...) for name in GIVEN}
_INITIAL: dict[str, Any] = {name: (DECLARED[name].initial_kind, ...) for name in GIVEN}
_PARAMETERS: dict[str, Any] = {name: (Coordinates if name == "xyz" else Parameter, ...) for name in DECLARED}

Truth: Any = create_model("Truth", __base__=_Truth, __doc__=_Truth.__doc__, **_TRUTH)
Initial: Any = create_model("Initial", __base__=_Initial, __doc__=_Initial.__doc__, **_INITIAL)
Parameters: Any = create_model("Parameters", __base__=Section, **_PARAMETERS)


class Schedule(Section):
    """Stages before the likelihood."""

    capture_deg: Annotated[FiniteFloat, Ge(0), Le(30)]
    when: Literal["far", "always"]
    inflation_deg: list[Positive]
    steps: Count


class Simulate(Section):
    """Which values ``simulate.py`` takes: those given under ``diffuse`` or ``crystal``, or the experiment's."""

    values: Literal["given", "truth", "initial"]


class Trainer(Section):
    """The loop."""

    max_steps: Annotated[int, Ge(0)]
    accelerator: str
    log_every: Count
    image_every: Count
    checkpoint_every: Count


class Logger(Section):
    """Where curves and pictures go."""

    kind: Literal["tensorboard", "none"]
