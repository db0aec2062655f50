"""The configuration's schema: one validation pass that catches typos, wrong types, wrong lengths and ranges.

The defaults stand in ``configs/``; this file says what is allowed. Units are in the names.
"""

from typing import Annotated, Any, Literal

from annotated_types import Ge, Le
from pydantic import (
    FiniteFloat,
    ValidationError,
    model_validator,
)

from refine.errors import InputError, required
from refine.settings.experiment import Beam, Crystal, Detector, Scan, Simulator, StructureFactorTable
from refine.settings.messages import first_error
from refine.settings.terms import Diffuse, DiffuseFit, ModelFile, Simulate
from refine.settings.types import Cell, Count, Mosaic, MosaicModel, NotNegative, Pair, Positive, Section, Triple, Vector


class Data(Section):
    """The image to refine against."""

    image: str | list[str] | None
    frame: Annotated[int, Ge(0)] | list[Annotated[int, Ge(0)]]
    noise: Literal["none", "poisson"]
    adc_offset: FiniteFloat
    gain: Positive
    readout: NotNegative
    saturation: Positive | None
    mask: str | None
    hot_sigma: Positive | None
    pixels: Literal["all", "boxes"]
    box_px: Count
    box_reach: Positive


class Truth(Section):
    """Ground truth: what simulated data are made with, or what is known of the image; null where unknown."""

    simulator: Literal["sampled", "closed_form"]
    misset_deg: Vector | None
    mosaic_spread_deg: Mosaic | None
    mosaic_model: MosaicModel
    mosaic_domains: Count
    mosaic_seed: Count
    cell: Cell | None
    n_cells: Triple | None
    scale: Positive | None
    background: NotNegative | None
    distance_mm: Positive | None
    beam_center_mm: Pair | None
    rotations_deg: Vector | None
    wavelength_A: Positive | None
    b_iso_A2: FiniteFloat | None
    divergence_rms_mrad: NotNegative | None
    bandwidth_rms_percent: NotNegative | None


class Initial(Section):
    """Where the refinement starts; null for the value under crystal, detector or beam."""

    misset_deg: Vector | Literal["search"]
    mosaic_spread_deg: Mosaic
    cell: Cell | None
    n_cells: Triple | None
    scale: Positive | Literal["estimate"]
    background: NotNegative | Literal["estimate"]
    distance_mm: Positive | None
    beam_center_mm: Pair | None
    rotations_deg: Vector | None
    wavelength_A: Positive | None
    b_iso_A2: FiniteFloat | None
    divergence_rms_mrad: NotNegative | None
    bandwidth_rms_percent: NotNegative | None


class Prior(Section):
    """A Gaussian prior in the parameter's unit; a null mean is the initial value."""

    mean: FiniteFloat | list[FiniteFloat] | None = None
    sigma: Positive | list[Positive]


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


class Parameters(Section):
    """Every parameter that can be free."""

    misset_deg: Parameter
    mosaic_spread_deg: Parameter
    cell: Parameter
    n_cells: Parameter
    scale: Parameter
    background: Parameter
    distance_mm: Parameter
    beam_center_mm: Parameter
    rotations_deg: Parameter
    wavelength_A: Parameter
    b_iso_A2: Parameter
    divergence_rms_mrad: Parameter
    bandwidth_rms_percent: Parameter


class Schedule(Section):
    """Stages before the likelihood."""

    capture_deg: Annotated[FiniteFloat, Ge(0), Le(30)]
    when: Literal["far", "always"]
    inflation_deg: list[Positive]
    steps: Count


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


class Settings(Section):
    """The whole configuration."""

    experiment_name: str
    crystal: Crystal
    detector: Detector
    beam: Beam
    scan: Scan
    structure_factors: StructureFactorTable
    simulator: Simulator
    data: Data
    truth: Truth
    initial: Initial
    parameters: Parameters
    model: ModelFile
    diffuse: Diffuse
    diffuse_fit: DiffuseFit
    simulate: Simulate
    output: str | None
    schedule: Schedule
    loss: dict[str, Any]
    optimizer: dict[str, Any]
    trainer: Trainer
    scale_esds: bool
    seed: Annotated[int, Ge(0), Le(2**63 - 1)]
    dtype: Literal["float64", "float32"]
    ckpt_path: str | None
    logger: Logger
    output_dir: str | None


def validate(config: dict[str, Any]) -> Settings:
    """Check a composed configuration.

    Raises:
        InputError: one line that names the first field that is wrong, what was required and what came.
    """
    try:
        settings = Settings.model_validate(config)
    except ValidationError as error:
        raise InputError(first_error(error)) from None
    if settings.model.path is not None:
        return settings
    if settings.data.image is None and None in (settings.truth.misset_deg, settings.truth.mosaic_spread_deg):
        wanted = "an image, or truth.misset_deg and truth.mosaic_spread_deg to simulate one"
        raise required("data.image", wanted, "null")
    if settings.beam.wavelength_A is None and settings.data.image is None:
        raise required("beam.wavelength_A", "a number (there is no image with a header)", "null")
    return settings
