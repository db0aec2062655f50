"""What an image must show, whatever program made it."""

import math
from pathlib import Path

import numpy as np
import pytest
from reference_cases import image

from refine.nanobragg.command import Command
from refine.nanobragg.parsing import parse
from refine.nanobragg.setup import Setup, resolve

CUBIC = ["-cell", "100", "100", "100", "90", "90", "90", "-default_F", "100", "-oversample", "1"]
SMOOTH = [*CUBIC, "-N", "1", "-nopolar"]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def resolved(*args: str) -> Setup:
    command = Command()
    parse([*CUBIC, *args], command, lambda line: None)
    return resolve(command, None)


def brightest(photons: np.ndarray) -> tuple[int, int]:
    slow, fast = np.unravel_index(int(np.argmax(photons)), photons.shape)
    return int(slow), int(fast)


def directions(n: int, pixel_mm: float, distance_mm: float) -> np.ndarray:
    """Unit vectors (beam, y, z) to the pixel centres of a detector with the beam at pixel n/2 + 1 (MOSFLM)."""
    s, f = np.meshgrid(*[(np.arange(n) + 0.5 - (n / 2 + 1)) * pixel_mm] * 2, indexing="ij")
    d = np.stack([np.full_like(s, distance_mm), -s, f], -1)
    return d / np.linalg.norm(d, axis=-1, keepdims=True)


@pytest.mark.parametrize("n", [32, 64, 128])
@pytest.mark.parametrize(
    ("convention", "offset"), [("mosflm", 1.0), ("denzo", 0.5), ("adxv", 0.5), ("xds", 0.0), ("dials", 0.0)]
)
def test_default_beam_centre_follows_the_detector_size(n: int, convention: str, offset: float) -> None:
    setup = resolved("-detpixels", str(n), f"-{convention}")
    assert np.allclose(np.array(setup.geometry.beam_centre) / setup.geometry.pixel_size, n / 2 + offset)


@pytest.mark.parametrize("pixel_mm", [0.05, 0.1, 0.2, 0.4])
def test_spot_stays_in_place_when_the_pixel_size_changes(pixel_mm: float) -> None:
    n = round(12.8 / pixel_mm)
    args = ["-N", "10", "-detpixels", str(n), "-pixel", str(pixel_mm), "-lambda", "6.2"]
    photons = image(*CUBIC, *args, "-Xbeam", "6.4", "-Ybeam", "6.4", shape=(n, n))
    photons[np.hypot(*(np.indices((n, n)) + 0.5 - 6.4 / pixel_mm)) * pixel_mm < 3] = 0
    slow, fast = brightest(photons)
    assert math.hypot((slow + 0.5) * pixel_mm - 6.4, (fast + 0.5) * pixel_mm - 6.4) == pytest.approx(
        100 * math.tan(2 * math.asin(0.031)), abs=0.4 + pixel_mm
    )


@pytest.mark.parametrize(("x", "y"), [(2.0, 6.0), (6.0, 2.0), (5.5, 1.5)])
def test_off_centre_beam_moves_the_direct_beam(x: float, y: float) -> None:
    photons = image(*CUBIC, "-N", "10", "-detpixels", "80", "-Xbeam", str(x), "-Ybeam", str(y), shape=(80, 80))
    assert abs(np.array(brightest(photons)) - np.array([x, y]) / 0.1).max() <= 1


def test_mosflm_beam_centre_is_half_a_pixel_further() -> None:
    flags = ["-detpixels", "64", "-Xbeam", "3", "-Ybeam", "2"]
    mosflm, denzo = (np.array(resolved(*flags, c).geometry.beam_centre) for c in ("-mosflm", "-denzo"))
    assert np.allclose(mosflm - denzo, 0.5e-4)


@pytest.mark.parametrize(
    ("flags", "place"),
    [
        (["-mosflm", "-Xbeam", "3", "-Ybeam", "2"], (2.05, 3.05)),
        (["-denzo", "-Xbeam", "3", "-Ybeam", "2"], (2, 3)),
        (["-adxv", "-Xbeam", "3", "-Ybeam", "2"], (3, 4.4)),
        (["-xds", "-ORGX", "30.5", "-ORGY", "20.5"], (3, 2)),
        (["-beam_vector", "1", "0", "0", "-Xbeam", "3", "-Ybeam", "2"], (3, 2)),
        (["-beam_vector", "1", "0", "0", "-Xclose", "3", "-Yclose", "2"], (3, 2)),
    ],
)
def test_beam_centre_flags_mean_what_their_convention_says(flags: list[str], place: tuple[float, float]) -> None:
    setup = resolved("-detpixels", "64", *flags)
    assert np.allclose(np.array(setup.geometry.beam_centre) * 1000, place)


@pytest.mark.parametrize("order", [2, 4, 6])
def test_single_reflection_obeys_braggs_law(order: int) -> None:
    theta = math.asin(order / 20 / 2)
    args = ["-cell", "20", "20", "20", "-default_F", "10", "-N", "30", "-misset", "0", "0", str(math.degrees(theta))]
    args += ["-detpixels", "700", "-oversample", "1", "-Xbeam", "69", "-Ybeam", "1", "-roi", "0", "20", "0", "670"]
    photons = image(*args, shape=(700, 700))
    slow, _ = brightest(photons)
    assert 69.05 - (slow + 0.5) * 0.1 == pytest.approx(100 * math.tan(2 * theta), abs=0.1)


def test_detector_rotation_of_a_full_turn_changes_nothing() -> None:
    plain = image(*CUBIC, "-N", "5", "-detpixels", "32", shape=(32, 32))
    turned = image(*CUBIC, "-N", "5", "-detpixels", "32", "-detector_rotx", "360", "-twotheta", "360", shape=(32, 32))
    assert np.allclose(plain, turned, rtol=1e-6)


def test_detector_rotation_about_the_beam_turns_the_image() -> None:
    flags = ["-N", "4", "-detpixels", "32", "-denzo", "-Xbeam", "1.6", "-Ybeam", "1.6", "-misset", "5", "7", "9"]
    plain = image(*CUBIC, *flags, "-nopolar", shape=(32, 32))
    turned = image(*CUBIC, *flags, "-nopolar", "-detector_rotx", "90", shape=(32, 32))
    assert np.allclose(np.rot90(plain, 3), turned, rtol=1e-5) or np.allclose(np.rot90(plain), turned, rtol=1e-5)


def test_many_peaks_lie_where_the_lattice_predicts() -> None:
    photons = image(*CUBIC, "-N", "8", "-detpixels", "128", shape=(128, 128))
    found = 0
    for k in range(-4, 5):
        for l in range(-4, 5):
            x = 1 - (k**2 + l**2) * 1e-4 / 2
            slow, fast = (int(65 + sign * i * 0.01 / x * 1000) for sign, i in ((-1, k), (1, l)))
            window = photons[slow - 3 : slow + 4, fast - 3 : fast + 4]
            found += max(abs(i - 3) for i in brightest(window)) <= 1
    assert found == 81


@pytest.mark.parametrize("n", [2, 3, 5, 8, 20])
def test_peak_grows_with_the_sixth_power_of_the_block(n: int) -> None:
    at_beam = ["-detpixels", "3", "-Xbeam", "0.1", "-Ybeam", "0.1"]
    one, many = (image(*CUBIC, "-N", str(m), *at_beam, shape=(3, 3))[1, 1] for m in (1, n))
    assert many / one == pytest.approx(n**6, rel=1e-6)


def test_intensity_grows_with_the_square_of_the_amplitude() -> None:
    one, three = (image(*CUBIC, "-default_F", F, "-N", "5", "-detpixels", "16", shape=(16, 16)) for F in ("100", "300"))
    assert np.allclose(three, 9 * one, rtol=1e-6)


def test_solid_angle_falls_with_the_cube_of_the_distance() -> None:
    photons = image(*SMOOTH, "-detpixels", "32", "-pixel", "2", "-distance", "50", shape=(32, 32))
    cosine = directions(32, 2, 50)[..., 0]
    assert np.allclose(photons, 1e4 * (2 / 50) ** 2 * cosine**3, rtol=1e-6)


@pytest.mark.parametrize("kahn", [-1.0, 0.0, 0.5, 1.0])
def test_polarisation_is_that_of_theory(kahn: float) -> None:
    flags = ["-detpixels", "32", "-pixel", "2", "-distance", "20"]
    plain = image(*SMOOTH, *flags, shape=(32, 32))
    polarised = image(*SMOOTH, *flags, "-polar", str(kahn), shape=(32, 32))
    x, y, z = np.moveaxis(directions(32, 2, 20), -1, 0)
    assert np.allclose(polarised / plain, 0.5 * (1 + x**2 - kahn * (z**2 - y**2)), rtol=1e-5)


@pytest.mark.parametrize(
    "flags",
    [
        ["-lambda", "0.1"],
        ["-lambda", "20"],
        ["-fluence", "1e20"],
        ["-distance", "1e4"],
        ["-distance", "1"],
        ["-pixel", "0.001"],
        ["-cell", "3", "4", "5", "90", "90", "90"],
        ["-cell", "1000", "900", "800", "70", "80", "60"],
        ["-N", "1000"],
    ],
)
def test_extreme_scales_stay_finite(flags: list[str]) -> None:
    photons = image(*CUBIC, "-N", "5", "-detpixels", "24", *flags, shape=(24, 24))
    assert np.isfinite(photons).all()
    assert photons.max() > 0
    assert photons.min() >= 0


def test_grazing_panel_sees_less_solid_angle() -> None:
    setup = resolved("-detpixels", "24", "-detector_rotz", "85")
    assert setup.geometry.close_distance == pytest.approx(0.1 * math.cos(math.radians(85)))
    photons = image(*SMOOTH, "-detpixels", "24", "-detector_rotz", "85", shape=(24, 24))
    face_on = image(*SMOOTH, "-detpixels", "24", shape=(24, 24))
    assert photons.mean() / face_on.mean() == pytest.approx(math.cos(math.radians(85)), rel=0.02)


def test_boundary_cases_one_pixel_empty_region_nothing_resolved() -> None:
    assert image(*CUBIC, "-detpixels", "1", shape=(1, 1))[0, 0] > 0
    region = ["-detpixels", "8", "-roi", "3", "3", "5", "5"]
    assert np.argwhere(image(*CUBIC, *region, shape=(8, 8))).tolist() == [[5, 3]]
    assert not image(*CUBIC, "-detpixels", "8", "-roi", "20", "30", "20", "30", shape=(8, 8)).any()
    assert not image(*CUBIC, "-detpixels", "8", "-dmin", "1e6", shape=(8, 8)).any()


@pytest.mark.parametrize("compat", ["c", "spec"])
def test_everything_combined_gives_a_sane_image(compat: str) -> None:
    args = "-cell 70 80 90 75 85 95 -default_F 100 -N 5 -mosaic 1 -mosaic_dom 3 -phi 0 -osc 2 -phisteps 3 -twotheta 9"
    args += " -detector_rotx 5 -detector_thick 300 -thicksteps 3 -polar 0.9 -dispersion 2 -dispsteps 2 -hdivrange 1"
    args += " -hdivsteps 2 -water 5 -oversample 2 -detpixels 24 -misset 10 20 30 -round_xtal"
    photons = image(*args.split(), "--compat", compat, shape=(24, 24))
    assert np.isfinite(photons).all()
    assert photons.min() > 0


def test_phi_turns_the_crystal_about_the_spindle() -> None:
    turned = image(*CUBIC, "-N", "5", "-detpixels", "32", "-phi", "7", shape=(32, 32))
    misset = image(*CUBIC, "-N", "5", "-detpixels", "32", "-misset", "0", "0", "7", shape=(32, 32))
    assert np.allclose(turned, misset, rtol=1e-5, atol=1e-9 * misset.max())


def test_sweep_is_the_mean_of_its_steps() -> None:
    flags = ["-N", "5", "-detpixels", "32"]
    sweep = image(*CUBIC, *flags, "-phi", "5", "-osc", "3", "-phisteps", "3", shape=(32, 32))
    steps = [image(*CUBIC, *flags, "-phi", phi, shape=(32, 32)) for phi in ("5", "6", "7")]
    assert np.allclose(sweep, np.mean(steps, axis=0), rtol=1e-6)


def test_misset_turns_about_x_then_y_then_z() -> None:
    setup = resolved("-misset", "90", "90", "0")
    assert np.allclose(np.array(setup.lattice.direct) / 100, [[0, 0, -1], [1, 0, 0], [0, -1, 0]], atol=1e-12)


@pytest.mark.parametrize(
    ("seed", "angles"),
    [
        (42, (-11.585886639425025, 56.20768899769955, -1.333374204498232)),
        (12345, (105.72075473063306, -34.95131836318661, -97.82357144065507)),
    ],
)
def test_random_misset_is_that_of_the_reference(seed: int, angles: tuple[float, ...]) -> None:
    setup = resolved("-misset_seed", str(seed), "-misset", "random")
    assert np.allclose(np.degrees(setup.lattice.misset), angles, rtol=1e-13)


def test_peak_lies_on_the_beam() -> None:
    photons = image(*CUBIC, "-N", "20", "-detpixels", "64", "-Xbeam", "3.0", "-Ybeam", "2.0", shape=(64, 64))
    assert brightest(photons) == (30, 20)


def test_triclinic_metric_is_exact_only_with_spec() -> None:
    def angles(*args: str) -> np.ndarray:
        rows = np.array(resolved("-cell", "80", "80", "80", "60", "60", "60", *args).lattice.direct)
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return np.degrees(np.arccos([unit[1] @ unit[2], unit[2] @ unit[0], unit[0] @ unit[1]]))

    command = Command(compat="spec")
    parse(["-cell", "80", "80", "80", "60", "60", "60", "-default_F", "1"], command, lambda line: None)
    rows = np.array(resolve(command, None).lattice.direct)
    assert np.allclose(rows @ rows.T, 3200 * (1 + np.eye(3)), rtol=1e-10)
    assert np.allclose(np.sort(angles()), [57.85, 57.85, 58.53], atol=0.005)


def test_stronger_reflection_is_brighter(tmp_path: Path) -> None:
    indices = [(h, k, l) for h in (-1, 0, 1) for k in (-2, -1, 0, 1, 2) for l in (-2, -1, 0, 1, 2)]
    lines = [f"{h} {k} {l} {200 if (k, l) == (1, 1) else 100}" for h, k, l in indices]
    (tmp_path / "F.hkl").write_text("\n".join(lines) + "\n")
    flags = ["-cell", "100", "100", "100", "90", "90", "90", "-N", "20", "-detpixels", "64", "-oversample", "1"]
    listed = image(*flags, "-hkl", "F.hkl", "-dump", "F.bin", shape=(64, 64))
    uniform = image(*CUBIC, "-N", "20", "-detpixels", "64", shape=(64, 64))
    ratio = listed / uniform
    assert ratio[23, 43] == pytest.approx(4, rel=1e-5)
    assert ratio[33, 33] == pytest.approx(1, rel=1e-5)


def test_more_sub_pixels_remove_the_aliasing() -> None:
    flags = ["-N", "10", "-detpixels", "24", "-misset", "1", "2", "3"]
    one, three, nine = (image(*CUBIC, *flags, "-oversample", n, shape=(24, 24)) for n in ("1", "3", "9"))
    assert abs(three - nine).sum() < 0.5 * abs(one - nine).sum()


def test_layers_of_a_thick_sensor_absorb_no_more_than_everything() -> None:
    flags = ["-detpixels", "8", "-detector_abs", "100", "-detector_thick", "5000", "--compat", "c"]
    surface = image(*SMOOTH, "-detpixels", "8", shape=(8, 8))
    assert (image(*SMOOTH, *flags, shape=(8, 8)) <= 2 * surface).all()
