"""What is allowed in the configuration of sample, detector, beam and scan; units are in the names."""

from typing import Annotated, Literal

from annotated_types import Ge, Le, Len
from pydantic import FiniteFloat, model_validator

from refine.parameters.cells import SYSTEMS
from refine.settings.types import Cell, Count, MosaicModel, NotNegative, Pair, Positive, Section, Triple, Vector


class Crystal(Section):
    """The sample."""

    cell: Cell | None
    system: Literal["auto", *SYSTEMS]  # type: ignore[valid-type]
    a_matrix_path: str | None
    n_cells: Triple
    shape: Literal["square", "gaussian", "round", "gauss", "tophat"]
    fudge: Positive
    misorientation: Literal["cap", "normal"]
    mosaic_model: MosaicModel
    mosaic_domains: Count
    mosaic_seed: Count


class CustomVectors(Section):
    """Directions in the laboratory for ``convention: custom``; null takes the default of the reference program."""

    fast: Vector | None
    slow: Vector | None
    normal: Vector | None
    beam: Vector | None
    two_theta_axis: Vector | None
    polarization: Vector | None
    spindle: Vector | None


class Detector(Section):
    """The panel; null for what the image's header says."""

    convention: Literal["mosflm", "adxv", "denzo", "xds", "dials", "custom"]
    custom: CustomVectors
    pixels: Annotated[tuple[Count, Count], Len(2)] | None
    pixel_size_mm: Positive | None
    distance_mm: Positive | None
    beam_center_mm: Pair | None
    org_px: Pair | None
    rotations_deg: Vector
    two_theta_deg: FiniteFloat | None
    pivot: Literal["beam", "sample"] | None
    oversample: Count | None
    sensor_thickness_um: NotNegative
    sensor_attenuation_um: Positive | None
    sensor_layers: Count

    @model_validator(mode="after")
    def _one_centre(self) -> "Detector":
        if self.beam_center_mm is not None and self.org_px is not None:
            raise ValueError("expected beam_center_mm or org_px, got both")
        return self


class Beam(Section):
    """The incident photons."""

    wavelength_A: Positive | None
    fluence: Positive
    polarization: Annotated[FiniteFloat, Ge(-1), Le(1)] | None
    divergence_mrad: tuple[NotNegative, NotNegative]
    divergence_steps: tuple[Count, Count]
    dispersion_percent: Annotated[FiniteFloat, Ge(0), Le(100)]
    dispersion_steps: Count
    divergence_rms_mrad: NotNegative
    bandwidth_rms_percent: NotNegative


class Scan(Section):
    """The rotation of the crystal during the exposure, sampled at the middle of each step."""

    phi_start_deg: FiniteFloat | list[FiniteFloat] | None
    osc_deg: FiniteFloat | None
    phi_steps: Count


class StructureFactors(Section):
    """Amplitudes, of a table or of the atoms of the model."""

    source: Literal["table", "atoms"]
    at: Literal["reflection", "pixel"]
    path: str | None
    default_F: NotNegative
    interpolate: bool
    b_iso_A2: FiniteFloat
