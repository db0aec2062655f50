"""What a command line says: the reference program's variables before any of them is derived."""

import time
from dataclasses import dataclass, field

from .vectors import Vector

PIX0 = "pix0_vector"


def _minus_now() -> int:
    return -int(time.time())


@dataclass
class Command:
    """Settings of one run; metres, radians and photons/m^2 throughout, angles of the cell in radians.

    A negative step, range or count means "not given", as in the reference program.
    """

    n_cells: list[int] = field(default_factory=lambda: [1, 1, 1])
    cell: list[float] | None = None
    matrix_file: str | None = None
    misset: Vector | None = None
    misset_random: bool = False
    misset_seed: int = field(default_factory=_minus_now)
    crystal_size: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    shape: str = "square"
    fudge: float = 1.0
    mosaic_spread: float = -1.0
    mosaic_domains: int = -1
    mosaic_seed: int = -12345678

    convention: str = "mosflm"
    pivot: str = "beam"
    pivot_named: str | None = None
    x_beam: float | None = None
    y_beam: float | None = None
    x_close: float | None = None
    y_close: float | None = None
    orgx: float | None = None
    orgy: float | None = None
    vectors: dict[str, Vector] = field(default_factory=dict)
    distance: float | None = None
    close_distance: float | None = None
    attenuation: float = -1.0
    thickness: float = 0.0
    layers: int = -1
    two_theta: float = 0.0
    rotations: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    detector_size: list[float] = field(default_factory=lambda: [0.1024, 0.1024])
    pixels: list[int] = field(default_factory=lambda: [0, 0])
    pixel_size: float = 0.1e-3
    curved: bool = False
    point_pixel: bool = False
    roi: list[int] = field(default_factory=lambda: [-1, -1, -1, -1])

    wavelength: float = 1e-10
    kahn: float = 0.0
    nopolar: bool = False
    fluence: float = 125932015286227086360700780544.0
    flux: float = 0.0
    exposure: float = 1.0
    beam_size: float = 1e-4
    dispersion: float = 0.0
    dispersion_steps: int = -1
    divergence: list[float] = field(default_factory=lambda: [-1.0, -1.0])
    divergence_step: list[float] = field(default_factory=lambda: [-1.0, -1.0])
    divergence_steps: list[int] = field(default_factory=lambda: [-1, -1])
    round_divergence: bool = True
    source_file: str | None = None
    water: float = 0.0

    oversample: int = -1
    oversample_thick: bool = False
    oversample_polar: bool = False
    oversample_omega: bool = False
    phi: float = 0.0
    osc: float = -1.0
    phi_step: float = -1.0
    phi_steps: int = -1
    d_min: float = 0.0

    hkl_file: str | None = None
    default_F: float = 0.0
    dump_file: str = "Fdump.bin"
    dump_named: bool = False
    interpolate: bool | None = None
    image_header: str | None = None
    mask_file: str | None = None

    float_file: str = "floatimage.bin"
    int_file: str = "intimage.img"
    pgm_file: str | None = "image.pgm"
    noise_file: str | None = "noiseimage.img"
    scale: float = 0.0
    pgm_scale: float = 0.0
    adc: float = 40.0
    seed: int = field(default_factory=_minus_now)
    progress: bool = True
    printout: bool = False
    printout_pixel: tuple[int, int] | None = None

    compat: str = "c"
    device: str = "cpu"
    dtype: str = "float64"
    kernel: str = "auto"
    trace: tuple[int, int] | None = None
    max_evaluations: float = 1e11
