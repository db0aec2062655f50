"""The matching rules of the command line, the sampling rules, and what ``spec`` changes."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
from reference_cases import image
from support import REPOSITORY

from refine.nanobragg.arguments import OWN, TABLE
from refine.nanobragg.c_numbers import c_float, c_int
from refine.nanobragg.command import Command
from refine.nanobragg.parsing import parse, read_own
from refine.nanobragg.sampling import Steps, angles_after_carry_over, even_steps, phi_steps
from refine.nanobragg.setup import Setup, resolve

BASE = ["-cell", "60", "70", "80", "85", "95", "100", "-default_F", "100", "-N", "4", "-oversample", "1"]
BASE += ["-detpixels", "16", "-pixel", "0.5"]


def parsed(line: str, compat: str = "c") -> Command:
    command = Command(compat=compat)
    parse(line.split(), command, lambda warning: None)
    return command


def resolved(line: str, compat: str = "c") -> Setup:
    return resolve(parsed(" ".join(BASE) + " " + line, compat), None)


@pytest.mark.parametrize(
    ("text", "value"), [("1.5mm", 1.5), ("abc", 0), ("-3e2x", -300), ("0x10", 16), (".5", 0.5), ("", 0), ("1e", 1)]
)
def test_numbers_are_the_leading_part_of_a_text(text: str, value: float) -> None:
    assert c_float(text) == value


def test_whole_numbers_stop_at_the_point_and_wrap_around() -> None:
    assert [c_int(t) for t in ("12.9", "1e3", "x", "-7", "2147483648")] == [12, 1, 0, -7, -2147483648]
    assert c_int("9" * 5000) == -1


def test_names_match_anywhere_in_a_token() -> None:
    assert parsed("-wavelength 2").wavelength == 2e-10
    assert parsed("-mosaic_domains 7").mosaic_domains == 7
    assert parsed("-detector_absorb 500").attenuation == pytest.approx(2000)
    assert parsed("-matrix A.mat").matrix_file == "A.mat"
    assert parsed("-mosaicity 1").mosaic_spread == pytest.approx(math.radians(1))
    assert parsed("-mosaicx 1").mosaic_spread == -1


def test_later_flags_win_and_missing_values_are_left_out() -> None:
    assert parsed("-distance 100 -distance 50").distance == 0.05
    assert parsed("-distance 50 -distance").distance == 0.05
    assert parsed("-cell 50 60 -N 3").cell == [50, 60, 0, 0, 0, 0]
    assert parsed("-Xbeam 1 -close_distance 3").pivot == "sample"


def test_twotheta_axis_is_also_a_twotheta_but_not_with_spec() -> None:
    assert parsed("-twotheta_axis 1 0 0").two_theta == pytest.approx(math.radians(1))
    assert parsed("-twotheta_axis 1 0 0", "spec").two_theta == 0
    assert parsed("-misset random -misset_seed 5 1 2").misset is not None
    assert parsed("-misset random -misset_seed 5 1 2", "spec").misset_random


def test_own_flags_are_taken_out() -> None:
    command = Command()
    assert read_own(["-N", "5", "--compat", "spec", "--trace", "3", "4", "-hkl"], command) == ["-N", "5", "-hkl"]
    assert (command.compat, command.trace) == ("spec", (3, 4))


@pytest.mark.parametrize(
    ("line", "count", "step", "osc"),
    [
        ("", 1, 0, 0),
        ("-phistep 2", 2, 2, 2),
        ("-osc 3", 2, 1.5, 3),
        ("-osc 3 -phistep 2", 2, 2, 3),
        ("-phisteps 4", 4, 0.25, 1),
        ("-phisteps 4 -phistep 2", 2, 2, 2),
        ("-phisteps 4 -osc 2", 4, 0.5, 2),
        ("-phisteps 4 -osc 2 -phistep 3", 4, 3, 2),
        ("-phisteps 0 -osc 2", 1, 2, 2),
    ],
)
def test_spindle_steps(line: str, count: int, step: float, osc: float) -> None:
    steps = phi_steps(parsed(line))
    assert (steps.count, steps.step, steps.osc) == (
        count,
        pytest.approx(math.radians(step)),
        pytest.approx(math.radians(osc)),
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((-1, -1.0, -1.0), Steps()),
        ((-1, -1.0, 0.5), Steps(2, 0.5, 0.5)),
        ((-1, 2.0, -1.0), Steps(2, 2.0, 2.0)),
        ((-1, 2.0, 0.6), Steps(4, 2.0, 0.6)),
        ((4, -1.0, -1.0), Steps(4, 1.0, 0.25)),
        ((4, -1.0, 0.5), Steps(2, 0.5, 0.5)),
        ((1, 2.0, -1.0), Steps(2, 2.0, 2.0)),
        ((5, 2.0, 0.1), Steps(5, 2.0, 0.1)),
        ((5, 0.0, -1.0), Steps()),
    ],
)
def test_steps_of_divergence(given: tuple[int, float, float], expected: Steps) -> None:
    assert even_steps(*given, "-hdivstep") == expected


def test_step_at_zero_keeps_what_the_step_before_left() -> None:
    assert angles_after_carry_over([0.0, 1.0, 2.0], 0.0) == [0, 1, 2]
    assert angles_after_carry_over([0.0, 1.0, 2.0], 2.0) == [2, 1, 2]
    assert angles_after_carry_over([-1.0, 0.0, 1.0], 0.0) == [-1, -1, 1]


def test_spec_honours_the_corner_of_the_first_pixel() -> None:
    metres = resolved("-pix0_vector 0.2 0.004 -0.003", "spec").geometry
    millimetres = resolved("-pix0_vector_mm 200 4 -3", "spec").geometry
    ignored = resolved("-pix0_vector 0.2 0.004 -0.003").geometry
    assert metres.origin == pytest.approx((0.2, 0.004, -0.003))
    assert millimetres.origin == pytest.approx(metres.origin)
    assert metres.distance == pytest.approx(0.2)
    assert metres.beam_centre == pytest.approx((0.003, 0.004))
    assert ignored.origin[0] == pytest.approx(0.1)


def test_spec_honours_the_pivot() -> None:
    line = "-pivot sample -detector_rotz 20"
    assert resolved(line).geometry.origin == resolved("-detector_rotz 20").geometry.origin
    assert resolved(line, "spec").geometry.foot == pytest.approx((0.004, 0.004))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_spec_takes_solid_angle_and_polarisation_of_each_sub_pixel(folder: Path) -> None:
    flags = [*BASE, "-N", "1", "-pixel", "3", "-distance", "30", "--compat", "spec"]
    each = image(*flags, "-oversample", "2", "-oversample_omega", "-oversample_polar", shape=(16, 16))
    fine = image(*flags, "-detpixels", "32", "-pixel", "1.5", "-Xbeam", "26.25", "-Ybeam", "26.25", shape=(32, 32))
    assert np.allclose(each, 4 * fine.reshape(16, 2, 16, 2).mean((1, 3)), rtol=1e-5)


def test_spec_interpolates_every_evaluation_that_has_neighbours(folder: Path) -> None:
    index = range(-4, 5)
    lines = [f"{h} {k} {l} {100 + 5 * k + 3 * l}" for h in index for k in index for l in index]
    (folder / "F.hkl").write_text("\n".join(lines) + "\n")
    flags = ["-hkl", "F.hkl", "-cell", "100", "-N", "1", "-detpixels", "100", "-oversample", "1"]
    flags += ["-nopolar", "-point_pixel"]
    once, always = (image(*flags, "--compat", c, shape=(100, 100)) for c in ("c", "spec"))
    amplitude = np.sqrt(always * 0.1**2)
    slow, fast = np.array([[40, 51], [60, 55], [50, 45]]).T
    expected = 100 - 0.5 * (slow + 0.5 - 51) + 0.3 * (fast + 0.5 - 51)
    assert np.allclose(amplitude[slow, fast], expected, rtol=1e-3)
    assert not np.allclose(once[slow, fast], always[slow, fast], rtol=1e-5)


@pytest.mark.parametrize("compat", ["c", "spec"])
def test_box_without_neighbours_is_not_interpolated(compat: str, folder: Path) -> None:
    (folder / "F.hkl").write_text("0 0 0 50\n0 0 1 70\n")
    nearest, between = (
        image("-hkl", "F.hkl", *BASE, flag, "--compat", compat, shape=(16, 16))
        for flag in ("-nointerpolate", "-interpolate")
    )
    assert (nearest == between).all()


def test_spec_reads_comments_and_further_columns(folder: Path) -> None:
    (folder / "F.hkl").write_text("# h k l F sigma\n0 0 0 50 1\n0 0 1 70 2 # weak\n")
    command = parsed("-hkl F.hkl -cell 50", "spec")
    listed = resolve(command, None).reflections
    assert (listed.listed, listed.table.tolist()) == (2, [[[50, 70]]])


def test_dump_left_behind_is_used_silently_but_not_with_spec(folder: Path) -> None:
    (folder / "F.hkl").write_text("0 0 0 50\n0 0 1 70\n")
    resolve(parsed("-hkl F.hkl -cell 50"), None)
    assert resolve(parsed("-default_F 1 -cell 50"), None).reflections.table.tolist() == [[[50, 70]]]
    assert resolve(parsed("-default_F 1 -cell 50", "spec"), None).reflections.listed == 0
    assert resolve(parsed("-cell 50", "spec"), None).reflections.listed == 2


def test_documentation_lists_the_flags_of_the_parser() -> None:
    text = (REPOSITORY / "docs" / "nanobragg.md").read_text().split("\n## Flags\n")[1]
    rows = [tuple(cell.strip() for cell in row.split("|")[1:4]) for row in text.splitlines() if row.startswith("| `-")]
    documented = {(names.replace("`", ""), values.replace("`", ""), meaning) for names, values, meaning in rows}
    flags = {(" ".join(f.texts), f.shown, f.meaning) for flags in TABLE.values() for f in flags}
    own = {(name, values, meaning) for name, (values, meaning) in OWN.items()}
    assert documented == {tuple(part.replace("|", "/") for part in row) for row in flags | own}
    assert re.findall(r"^### (.*)$", text, re.MULTILINE) == [*TABLE, "This program's own"]
