"""The configuration's schema: one validation pass that catches typos, wrong types, wrong lengths and ranges.

The defaults stand in ``configs/`` and :mod:`refine.parameters.declared`; here stands what is allowed. Units are in the
names.
"""

from typing import Annotated, Any, Literal

from annotated_types import Ge, Le
from pydantic import ValidationError

from refine.errors import InputError, required
from refine.settings.data import Data
from refine.settings.experiment import Beam, Crystal, Detector, Scan, StructureFactors
from refine.settings.fit import Initial, Logger, Parameters, Schedule, Simulate, Trainer, Truth
from refine.settings.messages import first_error, moved
from refine.settings.terms import Diffuse, ModelFile, Simulator
from refine.settings.types import Section


class Settings(Section):
    """The whole configuration."""

    experiment_name: str
    crystal: Crystal
    detector: Detector
    beam: Beam
    scan: Scan
    structure_factors: StructureFactors
    simulator: Simulator
    data: Data
    truth: Truth
    initial: Initial
    parameters: Parameters
    model: ModelFile
    diffuse: Diffuse
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

    @property
    def of_a_map(self) -> bool:
        """Whether the data are a diffuse map: there is an atomic model that no image is made of."""
        return self.model.path is not None and not self.atoms_on_images

    @property
    def atoms_on_images(self) -> bool:
        """Whether an image is made of the atoms of the model."""
        return self.simulator.diffuse != "none" or self.structure_factors.source == "atoms"


def validate(config: dict[str, Any]) -> Settings:
    """Check a composed configuration.

    Raises:
        InputError: one line that names the first field that is wrong, what was required and what came.
    """
    for key in config:
        if moved(str(key)):
            raise InputError(f"{key}: {moved(str(key))}")
    try:
        settings = Settings.model_validate(config)
    except ValidationError as error:
        raise InputError(first_error(error)) from None
    _check(settings)
    return settings


def _check(settings: Settings) -> None:
    """What one section alone cannot know."""
    data, truth = settings.data, settings.truth
    if settings.of_a_map:
        if data.image is not None:
            ways = "simulator.diffuse=one_phonon and structure_factors.source=atoms put its atoms on an image"
            raise required("data.image", f"null (model.path alone makes the data a diffuse map; {ways})", data.image)
        return
    if data.map is not None:
        raise required("data.map", "model.path, and neither diffuse scattering nor atoms on an image", data.map)
    if settings.atoms_on_images and settings.model.path is None:
        raise required("model.path", "a PDB or mmCIF file", "null")
    if data.image is None and None in (truth.misset_deg, truth.mosaic_spread_deg):
        wanted = "an image, or truth.misset_deg and truth.mosaic_spread_deg to simulate one"
        raise required("data.image", wanted, "null")
    if settings.beam.wavelength_A is None and data.image is None:
        raise required("beam.wavelength_A", "a number (there is no image with a header)", "null")
