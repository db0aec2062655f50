"""What a simulator is given: frozen records of tensors.

Lengths of the laboratory are metres, those of the crystal Angstrom; angles are radians. Every float may carry a
gradient. Geometry is kept in double precision whatever the precision of the image.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .form_factors import FormFactors
from .rotations import xyz_rotation
from .unit_cell import cell_and_orientation, direct_basis, reciprocal_basis


@dataclass(frozen=True)
class Beam:
    """Incident plane waves.

    Attributes:
        direction: Unit vectors of flight.
        wavelength: Wavelengths [A].
        weight: Share of each wave in the fluence; their sum is one.
        fluence: Photons per m^2 over the exposure.
        kahn: Kahn polarisation factor; ``None`` leaves the polarisation factor out.
        polarization_axis: Main direction of the electric field.
        divergence: Standard deviation of the direction about each transverse axis [rad], Gaussian; ``None`` for none.
        bandwidth: Relative standard deviation of the wavelength, Gaussian; ``None`` for none.
    """

    direction: Float[Tensor, "sources 3"]
    wavelength: Float[Tensor, "sources"]
    weight: Float[Tensor, "sources"]
    fluence: Float[Tensor, ""]
    kahn: Float[Tensor, ""] | None
    polarization_axis: Float[Tensor, "3"]
    divergence: Float[Tensor, ""] | None = None
    bandwidth: Float[Tensor, ""] | None = None


@dataclass(frozen=True)
class Sensor:
    """A thick sensor, cut into layers.

    Attributes:
        attenuation: Linear attenuation coefficient [1/m].
        edges: Depths of the boundaries of the layers [m].
        depths: Depth at which each layer is evaluated [m].
    """

    attenuation: Float[Tensor, ""]
    edges: Float[Tensor, "layers_1"]
    depths: Float[Tensor, "layers"]


@dataclass(frozen=True)
class Panel:
    """A flat detector.

    Attributes:
        origin: Outer corner of the first pixel [m].
        fast_axis: Unit vector along a row (the index that runs fastest in memory).
        slow_axis: Unit vector along a column.
        normal: Unit normal, away from the sample.
        pixel_size: Edge of a square pixel [m].
        image_size: Number of pixels along fast and slow.
        sensor: ``None`` for a sensor that stops every photon at its surface.
    """

    origin: Float[Tensor, "3"]
    fast_axis: Float[Tensor, "3"]
    slow_axis: Float[Tensor, "3"]
    normal: Float[Tensor, "3"]
    pixel_size: Float[Tensor, ""]
    image_size: tuple[int, int]
    sensor: Sensor | None = None

    @property
    def close_distance(self) -> Float[Tensor, ""]:
        """Distance of the panel's plane from the sample [m]."""
        return self.origin @ self.normal

    def all_pixels(self) -> Int[Tensor, "pixels 2"]:
        """Indices (slow, fast) of every pixel, fast running fastest."""
        fast, slow = (torch.arange(n, device=self.origin.device) for n in self.image_size)
        return torch.cartesian_prod(slow, fast)

    def positions(self, coordinates: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch 3"]:
        """Points of the laboratory [m] of pixel coordinates (slow, fast); pixel i covers [i, i + 1)."""
        slow, fast = (coordinates * self.pixel_size).unbind(-1)
        return self.origin + fast[..., None] * self.fast_axis + slow[..., None] * self.slow_axis


@dataclass(frozen=True)
class Crystal:
    """A mosaic crystal of identical blocks.

    Attributes:
        cell: a, b, c [A], alpha, beta, gamma [rad].
        orientation: Rotation U of A = U B before the misset.
        misset: Rotations about lab x, then y, then z [rad], applied after ``orientation``.
        n_cells: Number of unit cells of a block along a, b, c.
        mosaic_spread: Largest misorientation of a block [rad]; three numbers for rotations about the Cartesian axes
            of the crystal (a* along x, b* in the xy plane).
    """

    cell: Float[Tensor, "6"]
    orientation: Float[Tensor, "3 3"]
    misset: Float[Tensor, "3"]
    n_cells: Float[Tensor, "3"]
    mosaic_spread: Float[Tensor, "*axes"]

    @classmethod
    def from_matrix(
        cls,
        reciprocal: Float[Tensor, "3 3"],
        misset: Float[Tensor, "3"],
        n_cells: Float[Tensor, "3"],
        mosaic_spread: Float[Tensor, "*axes"],
    ) -> "Crystal":
        """A crystal from its matrix A (columns a*, b*, c* [1/A]).

        Raises:
            ValueError: if the matrix is singular or left-handed.
        """
        cell, orientation = cell_and_orientation(reciprocal)
        return cls(cell, orientation, misset, n_cells, mosaic_spread)

    @property
    def rotation(self) -> Float[Tensor, "3 3"]:
        """R(misset) U: from the Cartesian axes of the crystal to the laboratory."""
        return xyz_rotation(self.misset) @ self.orientation

    @property
    def reciprocal(self) -> Float[Tensor, "3 3"]:
        """A = R(misset) U B: columns a*, b*, c* [1/A]."""
        return self.rotation @ reciprocal_basis(self.cell)

    @property
    def direct(self) -> Float[Tensor, "3 3"]:
        """Rows a, b, c [A]."""
        return direct_basis(self.reciprocal)


@dataclass(frozen=True)
class Scan:
    """Positions of the spindle during an exposure.

    Attributes:
        axis: Unit vector of the spindle.
        phi: Angles [rad].
        weight: Share of each angle in the exposure; their sum is one.
        width: Range that each step covers, half of it on either side [rad]; ``None`` for a still.
    """

    axis: Float[Tensor, "3"]
    phi: Float[Tensor, "steps"]
    weight: Float[Tensor, "steps"]
    width: Float[Tensor, ""] | None = None


@dataclass(frozen=True)
class AmplitudeGrid:
    """Complex structure factors F [electrons] on a fine grid of reciprocal space, with which F varies within a spot.

    The point (i, j, k) stands at the fractional index (low + (i, j, k)) / rate. A grid should reach a point further
    than indices are wanted, so that all neighbours are there: beyond it, the value of its border counts.

    Attributes:
        real: Real part.
        imaginary: Imaginary part.
        low: Lowest place on the grid along each axis.
        rate: Points for each index along each axis.
    """

    real: Float[Tensor, "h k l"]
    imaginary: Float[Tensor, "h k l"]
    low: Int[Tensor, "3"]
    rate: tuple[int, int, int]


@dataclass(frozen=True)
class StructureFactors:
    """Amplitudes |F| [electrons] on a box of Miller indices, and one for all indices outside it.

    Attributes:
        table: |F| of the indices in the box.
        h_min: Lowest h, k, l of the box.
        default: |F| of every reflection outside the box.
        b_iso: Overall displacement factor [A^2], |F| exp(-B s^2/4) at s = 1/d; ``None`` for none.
        between: F between reflections, which the sampled simulator takes instead of the table; ``None`` for |F| of the
            nearest reflection.
    """

    table: Float[Tensor, "h k l"]
    h_min: Int[Tensor, "3"]
    default: Float[Tensor, ""]
    b_iso: Float[Tensor, ""] | None = None
    between: AmplitudeGrid | None = None

    @classmethod
    def constant(cls, value: Float[Tensor, ""]) -> "StructureFactors":
        """The same amplitude for every reflection."""
        empty = value.new_zeros(0, 0, 0)
        return cls(empty, torch.zeros(3, dtype=torch.long, device=value.device), value)


@dataclass(frozen=True)
class Structure:
    """The atoms of one asymmetric unit and the operations that fill the cell with copies of it; all fractional.

    Lengths come with the cell of the crystal: atoms move with a cell that changes.

    Attributes:
        fractional: Atoms of the first unit.
        rotations: Rotation of each symmetry operation.
        translations: Its translation, whole cells included that bring the unit to where it is wanted.
        b_iso: B = 8 pi^2 U of the atoms [A^2].
        weight: Their occupancies.
        mass: Their masses [dalton].
        form_factors: Their scattering power.
    """

    fractional: Float[Tensor, "atoms 3"]
    rotations: Int[Tensor, "units 3 3"]
    translations: Float[Tensor, "units 3"]
    b_iso: Float[Tensor, "atoms"]
    weight: Float[Tensor, "atoms"]
    mass: Float[Tensor, "atoms"]
    form_factors: FormFactors

    def positions(self) -> Float[Tensor, "units atoms 3"]:
        """Fractional coordinates of the atoms of every unit."""
        return self.fractional @ self.rotations.to(self.fractional).mT + self.translations[:, None]


@dataclass(frozen=True)
class Experiment:
    """Everything that determines a diffraction image."""

    beam: Beam
    panel: Panel
    crystal: Crystal
    scan: Scan
    structure_factors: StructureFactors = field(repr=False)
    structure: Structure | None = field(default=None, repr=False)
