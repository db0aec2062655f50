"""Every intermediate of a pixel, and where two such logs part."""

from pathlib import Path

import numpy as np
import pytest
from reference_cases import load, read_float

from refine.nanobragg import trace_diff
from refine.nanobragg.__main__ import main
from refine.nanobragg.trace_diff import read_trace, relative_error


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def traced(name: str, fast: int, slow: int, folder: Path, capsys: pytest.CaptureFixture[str], *more: str) -> str:
    case = load(name)
    for file, content in case.inputs.items():
        (folder / file).write_bytes(content)
    assert main([*case.args, "-nonoise", "--trace", str(fast), str(slow), *more]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    "name", ["base_mosflm_cubic", "phi_from_zero", "oversample_thick", "tricubic_out_of_range", "water", "div_disp_xds"]
)
@pytest.mark.parametrize("pixel", [(0, 0), (33, 30), (11, 35)])
def test_trace_ends_with_the_photons_of_the_image(
    name: str, pixel: tuple[int, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fast, slow = pixel
    text = traced(name, fast, slow, tmp_path, capsys)
    (tmp_path / "log").write_text(text)
    trace = read_trace("log")
    assert all(" = " in line for line in text.splitlines())
    image = read_float(Path("floatimage.bin"), load(name).image.shape)
    assert np.float32(trace["I"][0]) == image[slow, fast]


def test_trace_names_indices_and_factors_of_each_evaluation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "log").write_text(traced("mosaic_phi", 5, 6, tmp_path, capsys))
    trace = read_trace("log")
    for step in range(3):
        for domain in range(12):
            at = f"[0][phi {step}][domain {domain}]"
            product = np.prod([trace[f"F_latt_{axis}{at}"][0] for axis in "abc"])
            assert abs(product) == pytest.approx(trace[f"F_latt{at}"][0], rel=1e-12)
            assert trace[f"F_cell{at}"] == pytest.approx([100])
            assert len(trace[f"hkl{at}"]) == 3
    for name in ("pixel_pos[0]", "S[0]", "polar", "omega_pixel", "steps", "I_before_scaling", "I"):
        assert name in trace


def test_first_pixel_and_later_pixels_tell_different_spindle_angles(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for pixel in (0, 1):
        (tmp_path / f"log{pixel}").write_text(traced("phi_from_zero", pixel, 0, tmp_path, capsys))
    first, later = (read_trace(f"log{pixel}")["phi[0][phi 0][domain 0]"] for pixel in (0, 1))
    assert first == [0]
    assert later == read_trace("log1")["phi[0][phi 5][domain 0]"]


def test_traces_of_one_run_agree_and_of_two_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a").write_text(traced("base_mosflm_cubic", 3, 4, tmp_path, capsys))
    (tmp_path / "b").write_text(traced("base_mosflm_cubic", 3, 4, tmp_path, capsys, "-distance", "101"))
    assert trace_diff.main(["a", "a"]) == 0
    assert "no divergence" in capsys.readouterr().out
    assert trace_diff.main(["a", "b"]) == 1
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first == "first divergence: pix0_vector"
    assert second.startswith("pix0_vector: ")
    assert "relative error 0.00986" in second


def test_bad_traces_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").write_text("nothing\n")
    for arguments in (["empty", "empty"], ["nowhere", "empty"], ["a"]):
        assert trace_diff.main(arguments) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_relative_error_of_vectors() -> None:
    assert relative_error([1.0, 0.0], [1.0, 1e-9]) == pytest.approx(1e-9)
    assert relative_error([1.0], [1.0, 2.0]) == np.inf
    assert relative_error([0.0], [0.0]) == 0
