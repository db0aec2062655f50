"""The table of flags, in the order in which the rules are tried."""

from collections.abc import Sequence

from .command import Command
from .flags import (
    Flag,
    angstrom,
    constant,
    convention,
    degrees,
    ignored,
    micrometres,
    mm,
    opposite,
    percent,
    repeated,
    store,
    vector,
)
from .numbers import c_float, c_int


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
    command.noise_file = command.noise_name = values[0]


def _printout_pixel(command: Command, token: str, values: Sequence[str]) -> None:
    command.printout, command.printout_pixel = True, (c_int(values[0]), c_int(values[1]))


def _milliradians(text: str) -> float:
    return c_float(text) / 1000.0


FLAGS: tuple[Flag, ...] = (
    Flag("Crystal", "-Na", "n", "unit cells along a", store("n_cells.0", c_int), last=True),
    Flag("Crystal", "-Nb", "n", "unit cells along b", store("n_cells.1", c_int), last=True),
    Flag("Crystal", "-Nc", "n", "unit cells along c", store("n_cells.2", c_int), last=True),
    Flag("Crystal", "-N$", "n", "unit cells along each edge", repeated("n_cells.0 n_cells.1 n_cells.2", c_int), last=True),
    Flag("Crystal", "-cell", "a [b c al be ga]", "unit cell, A and degrees", _cell),
    Flag("Crystal", "-mat", "file", "MOSFLM A matrix, which carries the wavelength", store("matrix_file", str)),
    Flag("Crystal", "-misset_seed", "n", "seed of the random orientation", store("misset_seed", opposite)),
    Flag("Crystal", "-misset", "x [y z]", "rotations about lab x, y, z in degrees, or the word random", _misset),
    Flag("Crystal", "-samplesize -sample_size -xtalsize -xtal_size", "mm", "all three edges of the crystal", repeated("crystal_size.0 crystal_size.1 crystal_size.2", mm)),
    Flag("Crystal", "-sample_thick -sample_x -xtal_thick -xtal_x", "mm", "edge along a", store("crystal_size.0", mm)),
    Flag("Crystal", "-sample_width -sample_y -width -xtal_width -xtal_y", "mm", "edge along b", store("crystal_size.1", mm)),
    Flag("Crystal", "-sample_heigh -sample_z -heigh -xtal_heigh -xtal_z", "mm", "edge along c", store("crystal_size.2", mm)),
    Flag("Crystal", "-square_xtal", "", "parallelepiped of cells (default)", constant(shape="square")),
    Flag("Crystal", "-round_xtal", "", "ellipsoid of cells", constant(shape="round")),
    Flag("Crystal", "-gauss_xtal", "", "Gaussian spots", constant(shape="gauss")),
    Flag("Crystal", "-binary_spots -tophat_spots", "", "spots of constant intensity", constant(shape="tophat")),
    Flag("Crystal", "-fudge", "x", "scale of the spots' width", store("fudge")),
    Flag("Crystal", "-mosaic$ -mosaici -mosaic_spr", "deg", "largest misorientation of a block", store("mosaic_spread", degrees)),
    Flag("Crystal", "-mosaic_dom", "n", "number of blocks", store("mosaic_domains", c_int)),
    Flag("Crystal", "-mosaic_seed", "n", "seed of the misorientations (12345678)", store("mosaic_seed", opposite)),
    Flag("Crystal", "-density -sample_den", "g/cm3", "no effect", ignored),
    Flag("Crystal", "-MW$ -molec", "g/mol", "no effect", ignored),
    Flag("Detector", "-Xbeam", "mm", "beam centre", store("x_beam", mm), "beam"),
    Flag("Detector", "-Ybeam", "mm", "beam centre", store("y_beam", mm), "beam"),
    Flag("Detector", "-Xclose", "mm", "foot of the sample's perpendicular", store("x_close", mm), "sample"),
    Flag("Detector", "-Yclose", "mm", "foot of the sample's perpendicular", store("y_close", mm), "sample"),
    Flag("Detector", "-ORGX", "px", "foot of the sample's perpendicular", store("orgx"), "sample"),
    Flag("Detector", "-ORGY", "px", "foot of the sample's perpendicular", store("orgy"), "sample"),
    Flag("Detector", "-pivot", "sample|beam", "point the detector turns about (custom convention)", _pivot),
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
    Flag("Detector", "-distance", "mm", "distance along the beam (100)", store("distance", mm), "beam"),
    Flag("Detector", "-close_distance", "mm", "distance along the normal", store("close_distance", mm), "sample"),
    Flag("Detector", "-detector_abs", "um|inf", "attenuation depth of the sensor", _absorption),
    Flag("Detector", "-detector_thick$", "um", "thickness of the sensor", store("thickness", micrometres)),
    Flag("Detector", "-detector_thicksteps -thicksteps", "n", "layers of the sensor", store("layers", c_int)),
    Flag("Detector", "-twotheta", "deg", "two-theta of the detector", store("two_theta", degrees), "sample"),
    Flag("Detector", "-detector_rotx", "deg", "rotation about lab x", store("rotations.0", degrees)),
    Flag("Detector", "-detector_roty", "deg", "rotation about lab y", store("rotations.1", degrees)),
    Flag("Detector", "-detector_rotz", "deg", "rotation about lab z", store("rotations.2", degrees)),
    Flag("Detector", "-detsize$", "mm", "edge of the detector (102.4)", repeated("detector_size.0 detector_size.1", mm)),
    Flag("Detector", "-detsize_f", "mm", "edge along fast", store("detector_size.0", mm)),
    Flag("Detector", "-detsize_s", "mm", "edge along slow", store("detector_size.1", mm)),
    Flag("Detector", "-detpixels$", "n", "pixels along each edge", repeated("pixels.0 pixels.1", c_int)),
    Flag("Detector", "-detpixels_f -detpixels_x", "n", "pixels along fast", store("pixels.0", c_int)),
    Flag("Detector", "-detpixels_s -detpixels_y", "n", "pixels along slow", store("pixels.1", c_int)),
    Flag("Detector", "-curved_det", "[more]", "all pixels at one distance", constant(curved=True)),
    Flag("Detector", "-pixel", "mm", "edge of a pixel (0.1)", store("pixel_size", mm)),
    Flag("Detector", "-point_pixel", "", "solid angle 1/R^2 without area and obliquity", constant(point_pixel=True)),
    Flag("Detector", "-roi", "x0 x1 y0 y1", "pixels to simulate, both ends included", store("roi.0 roi.1 roi.2 roi.3", c_int)),
    Flag("Beam", "-lambda -wave", "A", "wavelength (1)", _wavelength),
    Flag("Beam", "-energy", "eV", "photon energy", _energy),
    Flag("Beam", "-fluence", "ph/m2", "photons per area (1.26e29)", store("fluence")),
    Flag("Beam", "-flux", "ph/s", "photons per second, with -exposure and -beamsize", store("flux")),
    Flag("Beam", "-exposure", "s", "exposure time (1)", store("exposure")),
    Flag("Beam", "-beamsize", "mm", "edge of the beam (0.1)", store("beam_size", mm)),
    Flag("Beam", "-polar$", "K", "Kahn polarisation factor (0)", _polar),
    Flag("Beam", "-nopolar", "", "no polarisation factor", constant(nopolar=True)),
    Flag("Beam", "-dispersion", "percent", "full spectral width", store("dispersion", percent)),
    Flag("Beam", "-dispsteps", "n", "wavelengths across the spectrum", store("dispersion_steps", c_int)),
    Flag("Beam", "-divergence", "mrad", "full divergence, both directions", repeated("divergence.0 divergence.1", _milliradians)),
    Flag("Beam", "-hdivrange", "mrad", "full horizontal divergence", store("divergence.0", _milliradians)),
    Flag("Beam", "-vdivrange", "mrad", "full vertical divergence", store("divergence.1", _milliradians)),
    Flag("Beam", "-hdivstep$", "mrad", "step of horizontal divergence", store("divergence_step.0", _milliradians)),
    Flag("Beam", "-vdivstep$", "mrad", "step of vertical divergence", store("divergence_step.1", _milliradians)),
    Flag("Beam", "-hdivsteps", "n", "horizontal angles", store("divergence_steps.0", c_int)),
    Flag("Beam", "-vdivsteps", "n", "vertical angles", store("divergence_steps.1", c_int)),
    Flag("Beam", "-divsteps", "n", "angles in both directions", repeated("divergence_steps.0 divergence_steps.1", c_int)),
    Flag("Beam", "-round_div", "", "trim the divergence to an ellipse (default)", constant(round_divergence=True)),
    Flag("Beam", "-square_div", "", "keep the corners of the divergence", constant(round_divergence=False)),
    Flag("Beam", "-sourcefile", "file", "plane waves: x y z weight wavelength[m] a line", store("source_file", str)),
    Flag("Beam", "-water", "um", "edge of a cube of water in the beam", store("water", micrometres)),
    Flag("Sampling", "-oversample_thick", "", "absorption for each sub-pixel", constant(oversample_thick=True), last=True),
    Flag("Sampling", "-oversample_polar", "", "polarisation for each sub-pixel", constant(oversample_polar=True), last=True),
    Flag("Sampling", "-oversample_omega", "", "solid angle for each sub-pixel", constant(oversample_omega=True), last=True),
    Flag("Sampling", "-oversample", "n", "sub-pixels along each edge (automatic)", store("oversample", c_int)),
    Flag("Sampling", "-phi$", "deg", "spindle angle at the start", store("phi", degrees)),
    Flag("Sampling", "-osc", "deg", "rotation range", store("osc", degrees)),
    Flag("Sampling", "-phistep$", "deg", "spindle step", store("phi_step", degrees)),
    Flag("Sampling", "-phisteps", "n", "spindle positions", store("phi_steps", c_int)),
    Flag("Sampling", "-dmin", "A", "resolution limit", store("d_min", angstrom)),
    Flag("Structure factors", "-hkl", "file", "reflections h k l F", store("hkl_file", str)),
    Flag("Structure factors", "-default_F", "e", "|F| of reflections not listed", store("default_F")),
    Flag("Structure factors", "-dump", "file", "binary copy of the reflections (Fdump.bin)", _dump),
    Flag("Structure factors", "-interpolate", "", "tricubic interpolation", constant(interpolate=True)),
    Flag("Structure factors", "-nointerpolate", "", "no interpolation", constant(interpolate=False)),
    Flag("Structure factors", "-stol -4stol -Q -stolout", "file", "no effect", ignored),
    Flag("Structure factors", "-coherent", "", "no effect", ignored),
    Flag("Input", "-img", "file", "SMV image whose header sets detector and beam", store("image_header", str)),
    Flag("Input", "-mask", "file", "SMV image: pixels of zero are left out, its header counts", store("mask_file", str)),
    Flag("Output", "-floatfile -floatimage", "file", "photons a pixel (floatimage.bin)", store("float_file", str)),
    Flag("Output", "-intfile -intimage", "file", "scaled SMV image (intimage.img)", store("int_file", str)),
    Flag("Output", "-pgmfile -pgmimage", "file", "picture (image.pgm)", store("pgm_file", str)),
    Flag("Output", "-nopgm", "", "no picture", constant(pgm_file=None)),
    Flag("Output", "-noisefile -noiseimage", "file", "SMV image with counting noise (noiseimage.img)", _noise),
    Flag("Output", "-nonoise", "", "no noise image", constant(noise_file=None)),
    Flag("Output", "-scale", "x", "scale of the SMV image (automatic)", store("scale")),
    Flag("Output", "-pgmscale", "x", "scale of the picture (automatic)", store("pgm_scale")),
    Flag("Output", "-adc", "counts", "offset of the SMV images (40)", store("adc")),
    Flag("Output", "-seed", "n", "seed of the counting noise (time)", store("seed", opposite)),
    Flag("Output", "-printout", "", "print every pixel", constant(printout=True)),
    Flag("Output", "-printout_pixel", "f s", "print one pixel", _printout_pixel),
    Flag("Output", "-noprogress", "", "no progress meter", constant(progress=False)),
    Flag("Output", "-progress", "", "progress meter", constant(progress=True)),
)
"""Every flag of the reference program."""

OWN = {
    "--compat": ("c|spec", "c: every quirk of the reference (default); spec: what the flags say"),
    "--device": ("name", "torch device (cpu)"),
    "--dtype": ("float64|float32", "precision of the sum (float64)"),
    "--trace": ("F S", "print every intermediate of the pixel at fast F, slow S"),
    "--max-evaluations": ("x", "refuse larger sums (1e11)"),
    "--help": ("", "this table, also -h"),
}
"""Flags of this program alone: values and meaning."""

TOPICS = ("Crystal", "Detector", "Beam", "Sampling", "Structure factors", "Input", "Output")
__all__ = ["FLAGS", "OWN", "TOPICS"]
