"""The table of flags, in the order in which the rules are tried."""

from collections.abc import Sequence

from .c_numbers import c_float, c_int
from .command import Command
from .flags import (
    MORE,
    Flag,
    all_of,
    angstrom,
    constant,
    convention,
    degrees,
    each_of,
    ignored,
    micrometres,
    mm,
    opposite,
    percent,
    store,
    vector,
)


def _cell(command: Command, token: str, values: Sequence[str]) -> None:
    """Up to six values; the list ends at the first token that begins with a minus sign."""
    cell = [0.0] * 6
    for place, text in enumerate(values[:6]):
        if text.startswith("-"):
            break
        cell[place] = c_float(text) if place < 3 else degrees(text)
    command.cell = cell


def _misset(command: Command, token: str, values: Sequence[str]) -> None:
    """Three angles, or the word random."""
    if "rand" in values[0]:
        command.misset, command.misset_random = None, True
    elif len(values) >= 3:
        command.misset = (degrees(values[0]), degrees(values[1]), degrees(values[2]))
        command.misset_random = False


def _pivot(command: Command, token: str, values: Sequence[str]) -> None:
    for name in ("sample", "beam"):
        if name in values[0]:
            command.pivot = command.pivot_named = name


def _absorption(command: Command, token: str, values: Sequence[str]) -> None:
    """An infinite or zero depth means no absorption and takes the thickness back."""
    depth = c_float(values[0])
    if "inf" in values[0] or depth == 0.0:
        command.attenuation = command.thickness = 0.0
    else:
        command.attenuation = 1.0 / (depth * 1e-6)


def _polar(command: Command, token: str, values: Sequence[str]) -> None:
    command.kahn, command.nopolar = c_float(values[0]), False


def _wavelength(command: Command, token: str, values: Sequence[str]) -> None:
    command.wavelength = c_float(values[0]) / 1e10


def _energy(command: Command, token: str, values: Sequence[str]) -> None:
    energy = c_float(values[0])
    command.wavelength = (12398.42 / energy) / 1e10 if energy != 0.0 else float("inf")


def _dump(command: Command, token: str, values: Sequence[str]) -> None:
    command.dump_file, command.dump_named = values[0], True


def _noise(command: Command, token: str, values: Sequence[str]) -> None:
    command.noise_file = values[0]


def _printout_pixel(command: Command, token: str, values: Sequence[str]) -> None:
    command.printout, command.printout_pixel = True, (c_int(values[0]), c_int(values[1]))


def _milliradians(text: str) -> float:
    return c_float(text) / 1000.0


TABLE: dict[str, tuple[Flag, ...]] = {
    "Crystal": (
        Flag("-Na", "n", "unit cells along a", store("n_cells.0", c_int), last=True),
        Flag("-Nb", "n", "unit cells along b", store("n_cells.1", c_int), last=True),
        Flag("-Nc", "n", "unit cells along c", store("n_cells.2", c_int), last=True),
        Flag("-N$", "n", "unit cells along each edge", all_of("n_cells", c_int), last=True),
        Flag("-cell", "a [b c al be ga]", "unit cell, A and degrees", _cell),
        Flag("-mat", "file", "MOSFLM A matrix, which carries the wavelength", store("matrix_file", str)),
        Flag("-misset_seed", "n", "seed of the random orientation", store("misset_seed", opposite)),
        Flag("-misset", "x [y z]", "rotations about lab x, y, z in degrees, or the word random", _misset),
        Flag(
            "-samplesize -sample_size -xtalsize -xtal_size",
            "mm",
            "all three edges of the crystal",
            all_of("crystal_size", mm),
        ),
        Flag("-sample_thick -sample_x -xtal_thick -xtal_x", "mm", "edge along a", store("crystal_size.0", mm)),
        Flag("-sample_width -sample_y -width -xtal_width -xtal_y", "mm", "edge along b", store("crystal_size.1", mm)),
        Flag("-sample_heigh -sample_z -heigh -xtal_heigh -xtal_z", "mm", "edge along c", store("crystal_size.2", mm)),
        Flag("-square_xtal", "", "parallelepiped of cells (default)", constant(shape="square")),
        Flag("-round_xtal", "", "ellipsoid of cells", constant(shape="round")),
        Flag("-gauss_xtal", "", "Gaussian spots", constant(shape="gauss")),
        Flag("-binary_spots -tophat_spots", "", "spots of constant intensity", constant(shape="tophat")),
        Flag("-fudge", "x", "scale of the spots' width", store("fudge")),
        Flag(
            "-mosaic$ -mosaici -mosaic_spr", "deg", "largest misorientation of a block", store("mosaic_spread", degrees)
        ),
        Flag("-mosaic_dom", "n", "number of blocks", store("mosaic_domains", c_int)),
        Flag("-mosaic_seed", "n", "seed of the misorientations (12345678)", store("mosaic_seed", opposite)),
        Flag("-density -sample_den", "g/cm3", "no effect", ignored),
        Flag("-MW$ -molec", "g/mol", "no effect", ignored),
    ),
    "Detector": (
        Flag("-Xbeam", "mm", "beam centre", store("x_beam", mm), "beam"),
        Flag("-Ybeam", "mm", "beam centre", store("y_beam", mm), "beam"),
        Flag("-Xclose", "mm", "foot of the sample's perpendicular", store("x_close", mm), "sample"),
        Flag("-Yclose", "mm", "foot of the sample's perpendicular", store("y_close", mm), "sample"),
        Flag("-ORGX", "px", "foot of the sample's perpendicular", store("orgx"), "sample"),
        Flag("-ORGY", "px", "foot of the sample's perpendicular", store("orgy"), "sample"),
        Flag("-pivot", "sample|beam", "point the detector turns about (custom convention)", _pivot),
        convention("mosflm", "beam"),
        convention("xds", "sample"),
        convention("adxv", "beam"),
        convention("denzo", "beam"),
        convention("dials", "beam"),
        vector("fdet_vector", "fast axis; custom convention"),
        vector("sdet_vector", "slow axis; custom convention"),
        vector("odet_vector", "detector normal; custom convention"),
        vector("beam_vector", "direction of the beam; custom convention"),
        vector("polar_vector", "electric field; custom convention"),
        vector("spindle_axis", "spindle; custom convention"),
        vector("twotheta_axis", "axis of two-theta; custom convention"),
        vector("pix0_vector", "corner of the first pixel [m], _mm for mm; custom convention"),
        Flag("-distance", "mm", "distance along the beam (100)", store("distance", mm), "beam"),
        Flag("-close_distance", "mm", "distance along the normal", store("close_distance", mm), "sample"),
        Flag("-detector_abs", "um|inf", "attenuation depth of the sensor", _absorption),
        Flag("-detector_thick$", "um", "thickness of the sensor", store("thickness", micrometres)),
        Flag("-detector_thicksteps -thicksteps", "n", "layers of the sensor", store("layers", c_int)),
        Flag("-twotheta", "deg", "two-theta of the detector", store("two_theta", degrees), "sample"),
        Flag("-detector_rotx", "deg", "rotation about lab x", store("rotations.0", degrees)),
        Flag("-detector_roty", "deg", "rotation about lab y", store("rotations.1", degrees)),
        Flag("-detector_rotz", "deg", "rotation about lab z", store("rotations.2", degrees)),
        Flag("-detsize$", "mm", "edge of the detector (102.4)", all_of("detector_size", mm)),
        Flag("-detsize_f", "mm", "edge along fast", store("detector_size.0", mm)),
        Flag("-detsize_s", "mm", "edge along slow", store("detector_size.1", mm)),
        Flag("-detpixels$", "n", "pixels along each edge", all_of("pixels", c_int)),
        Flag("-detpixels_f -detpixels_x", "n", "pixels along fast", store("pixels.0", c_int)),
        Flag("-detpixels_s -detpixels_y", "n", "pixels along slow", store("pixels.1", c_int)),
        Flag("-curved_det", MORE, "all pixels at one distance", constant(curved=True)),
        Flag("-pixel", "mm", "edge of a pixel (0.1)", store("pixel_size", mm)),
        Flag("-point_pixel", "", "solid angle 1/R^2 without area and obliquity", constant(point_pixel=True)),
        Flag("-roi", "x0 x1 y0 y1", "pixels to simulate, both ends included", each_of("roi", c_int)),
    ),
    "Beam": (
        Flag("-lambda -wave", "A", "wavelength (1)", _wavelength),
        Flag("-energy", "eV", "photon energy", _energy),
        Flag("-fluence", "ph/m2", "photons per area (1.26e29)", store("fluence")),
        Flag("-flux", "ph/s", "photons per second, with -exposure and -beamsize", store("flux")),
        Flag("-exposure", "s", "exposure time (1)", store("exposure")),
        Flag("-beamsize", "mm", "edge of the beam (0.1)", store("beam_size", mm)),
        Flag("-polar$", "K", "Kahn polarisation factor (0)", _polar),
        Flag("-nopolar", "", "no polarisation factor", constant(nopolar=True)),
        Flag("-dispersion", "percent", "full spectral width", store("dispersion", percent)),
        Flag("-dispsteps", "n", "wavelengths across the spectrum", store("dispersion_steps", c_int)),
        Flag("-divergence", "mrad", "full divergence, both directions", all_of("divergence", _milliradians)),
        Flag("-hdivrange", "mrad", "full horizontal divergence", store("divergence.0", _milliradians)),
        Flag("-vdivrange", "mrad", "full vertical divergence", store("divergence.1", _milliradians)),
        Flag("-hdivstep$", "mrad", "step of horizontal divergence", store("divergence_step.0", _milliradians)),
        Flag("-vdivstep$", "mrad", "step of vertical divergence", store("divergence_step.1", _milliradians)),
        Flag("-hdivsteps", "n", "horizontal angles", store("divergence_steps.0", c_int)),
        Flag("-vdivsteps", "n", "vertical angles", store("divergence_steps.1", c_int)),
        Flag("-divsteps", "n", "angles in both directions", all_of("divergence_steps", c_int)),
        Flag("-round_div", "", "trim the divergence to an ellipse (default)", constant(round_divergence=True)),
        Flag("-square_div", "", "keep the corners of the divergence", constant(round_divergence=False)),
        Flag("-sourcefile", "file", "plane waves: x y z weight wavelength[m] a line", store("source_file", str)),
        Flag("-water", "um", "edge of a cube of water in the beam", store("water", micrometres)),
    ),
    "Sampling": (
        Flag("-oversample_thick", "", "absorption for each sub-pixel", constant(oversample_thick=True), last=True),
        Flag("-oversample_polar", "", "polarisation for each sub-pixel", constant(oversample_polar=True), last=True),
        Flag("-oversample_omega", "", "solid angle for each sub-pixel", constant(oversample_omega=True), last=True),
        Flag("-oversample", "n", "sub-pixels along each edge (automatic)", store("oversample", c_int)),
        Flag("-phi$", "deg", "spindle angle at the start", store("phi", degrees)),
        Flag("-osc", "deg", "rotation range", store("osc", degrees)),
        Flag("-phistep$", "deg", "spindle step", store("phi_step", degrees)),
        Flag("-phisteps", "n", "spindle positions", store("phi_steps", c_int)),
        Flag("-dmin", "A", "resolution limit", store("d_min", angstrom)),
    ),
    "Structure factors": (
        Flag("-hkl", "file", "reflections h k l F", store("hkl_file", str)),
        Flag("-default_F", "e", "|F| of reflections not listed", store("default_F")),
        Flag("-dump", "file", "binary copy of the reflections (Fdump.bin)", _dump),
        Flag("-interpolate", "", "tricubic interpolation", constant(interpolate=True)),
        Flag("-nointerpolate", "", "no interpolation", constant(interpolate=False)),
        Flag("-stol -4stol -Q -stolout", "file", "no effect", ignored),
        Flag("-coherent", "", "no effect", ignored),
    ),
    "Input": (
        Flag("-img", "file", "SMV image whose header sets detector and beam", store("image_header", str)),
        Flag("-mask", "file", "SMV image: pixels of zero are left out, its header counts", store("mask_file", str)),
    ),
    "Output": (
        Flag("-floatfile -floatimage", "file", "photons a pixel (floatimage.bin)", store("float_file", str)),
        Flag("-intfile -intimage", "file", "scaled SMV image (intimage.img)", store("int_file", str)),
        Flag("-pgmfile -pgmimage", "file", "picture (image.pgm)", store("pgm_file", str)),
        Flag("-nopgm", "", "no picture", constant(pgm_file=None)),
        Flag("-noisefile -noiseimage", "file", "SMV image with counting noise (noiseimage.img)", _noise),
        Flag("-nonoise", "", "no noise image", constant(noise_file=None)),
        Flag("-scale", "x", "scale of the SMV image (automatic)", store("scale")),
        Flag("-pgmscale", "x", "scale of the picture (automatic)", store("pgm_scale")),
        Flag("-adc", "counts", "offset of the SMV images (40)", store("adc")),
        Flag("-seed", "n", "seed of the counting noise (time)", store("seed", opposite)),
        Flag("-printout", "", "print every pixel", constant(printout=True)),
        Flag("-printout_pixel", "f s", "print one pixel", _printout_pixel),
        Flag("-noprogress", "", "no progress meter", constant(progress=False)),
        Flag("-progress", "", "progress meter", constant(progress=True)),
    ),
}
"""The reference program's flags by topic."""

FLAGS = tuple(flag for flags in TABLE.values() for flag in flags)
"""Every flag of the reference program."""

OWN = {
    "--compat": ("c|spec", "c: every quirk of the reference (default); spec: what the flags say"),
    "--device": ("name", "torch device (cpu)"),
    "--dtype": ("float64|float32", "precision of the sum (float64)"),
    "--kernel": ("auto|eager|compiled", "sum over samples; auto: eager in float64, for the reference's last bits"),
    "--trace": ("F S", "print every intermediate of the pixel at fast F, slow S"),
    "--max-evaluations": ("x", "refuse larger sums (1e11)"),
    "--help": ("", "this table, also -h"),
}
"""Flags of this program alone: values and meaning."""
