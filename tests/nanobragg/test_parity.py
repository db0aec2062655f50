"""Every case of the reference program through the command line, with a table, a JSON file and pictures of failures.

The report lies in ``outputs/parity``. With ``NANOBRAGG_C`` set to a binary of the reference program the table is made
against its live images instead of the stored ones.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from reference_cases import CASES, PROGRAM, Case, Comparison, compare, load, run, run_program
from support import REPOSITORY

REPORT = REPOSITORY / "outputs" / "parity"


@pytest.fixture(scope="module")
def table() -> Iterator[list[Comparison]]:
    """Rows of the matrix, printed and written when all cases have run."""
    rows: list[Comparison] = []
    yield rows
    REPORT.mkdir(parents=True, exist_ok=True)
    (REPORT / "parity.json").write_text(json.dumps([row.record() for row in rows], indent=1) + "\n")
    print(f"\n{'case':<30}{'differ':>8}{'ulp':>6}{'max rel':>10}{'corr':>12}{'sum ratio':>12}{'rmse':>10}  worst")
    for r in rows:
        print(
            f"{r.name:<30}{r.pixels_that_differ:>8}{r.largest_ulp:>6}{r.max_relative_error:>10.1e}"
            f"{r.correlation:>12.8f}{r.sum_ratio:>12.8f}{r.rmse:>10.1e}  {r.worst_pixel}"
        )


def draw_difference(name: str, ours: np.ndarray, theirs: np.ndarray) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4), layout="constrained")
    for axes, (title, values) in zip(
        figure.subplots(1, 3), {"ours": ours, "reference": theirs, "difference": ours - theirs}.items(), strict=True
    ):
        figure.colorbar(axes.imshow(values), ax=axes)
        axes.set_title(title)
    path = REPORT / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path


def truth(case: Case, folder: Path) -> np.ndarray:
    if PROGRAM is None:
        return case.image
    live = folder / "reference"
    live.mkdir()
    return run_program(case, live)


@pytest.mark.parametrize("name", CASES)
def test_image_is_the_reference_to_the_last_bit(
    name: str, table: list[Comparison], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    case = load(name)
    theirs = truth(case, tmp_path)
    ours = run(case, tmp_path, *([] if case.outputs else ["-nonoise"]))
    result = compare(name, ours, theirs)
    table.append(result)
    if result.pixels_that_differ:
        draw_difference(name, ours, theirs)
    assert result.pixels_that_differ == 0, result


@pytest.mark.parametrize("name", CASES)
def test_single_precision_is_near(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    case = load(name)
    result = compare(name, run(case, tmp_path, "-nonoise", "--dtype", "float32"), case.image)
    assert result.correlation >= 0.99999
    assert result.max_relative_error <= 1e-5


@pytest.mark.parametrize(
    "name",
    ["base_mosflm_cubic", "dispersion5", "dmin", "hkl_sparse_defaultF", "mosaic_phi", "oversample_thick",
     "phi_from_zero", "phi_through_zero", "shape_round", "tricubic_forced", "water"],
)  # fmt: skip
def test_compiled_kernel_is_near(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within 1e-10 of the maximum and the rounding of the file to single precision."""
    monkeypatch.chdir(tmp_path)
    case = load(name)
    ours = run(case, tmp_path, "-nonoise", "--kernel", "compiled").astype(np.float64)
    theirs = case.image.astype(np.float64)
    assert (np.abs(ours - theirs) <= 1e-10 * theirs.max() + 1.2e-7 * theirs).all()


@pytest.mark.parametrize("name", [name for name in CASES if load(name).image_spec is not None])
def test_spec_leaves_the_carry_over_out(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    case = load(name)
    assert case.image_spec is not None
    result = compare(name, run(case, tmp_path, "-nonoise", "--compat", "spec"), case.image_spec)
    assert result.largest_ulp <= 1


@pytest.mark.parametrize("name", [name for name in CASES if load(name).outputs])
def test_files_are_the_reference_byte_for_byte(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    case = load(name)
    run(case, tmp_path)
    assert {file: (tmp_path / file).read_bytes() == content for file, content in case.outputs.items()} == dict.fromkeys(
        case.outputs, True
    )
    assert capsys.readouterr().out.splitlines() == case.stdout


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["base_mosflm_cubic", "tricubic_forced", "phi_from_zero", "oversample_thick", "water"])
def test_gpu_image_is_that_of_the_cpu(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    case = load(name)
    result = compare(name, run(case, tmp_path, "-nonoise", "--device", "cuda"), case.image)
    assert result.largest_ulp <= 1
