"""Every experiment composes, is valid and can be built; wrong input is one line."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from support import REPOSITORY

from refine.build import build
from refine.compose import CONFIGS, load
from refine.errors import InputError
from refine.experiment.header import set_up

EXPERIMENTS = sorted(p.stem for p in (CONFIGS / "experiment").glob("*.yaml"))
NEEDS = {"image": ["data.image=data/lysozyme/noise_lo.img"]}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment_composes_and_reads_like_a_methods_section(name):
    settings = load(f"experiment={name}", *NEEDS.get(name, []))
    assert settings.trainer.max_steps > 0
    lines = (CONFIGS / "experiment" / f"{name}.yaml").read_text().splitlines()
    assert 25 <= len(lines) <= 50


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment_can_be_built(name):
    refinement = build(load(f"experiment={name}", *NEEDS.get(name, [])))
    assert refinement.refined.free
    for frame in refinement.frames:
        assert len(frame.model.sites) == len(frame.photons)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("initial.misset_deg=[1,2]", "initial.misset_deg: expected 3 numbers, got [1, 2]"),
        ("initial.misset_deg=abc", "initial.misset_deg: expected a list of numbers"),
        ("initial.mosaic_spread_deg=-0.2", "initial.mosaic_spread_deg: expected a number greater than or equal to 0"),
        ("crystal.cell=[100,100,100,90,90]", "crystal.cell: expected 6 numbers"),
        ("crystal.cell=[100,100,100,90,90,200]", "crystal.cell: expected angles that close"),
        ("crystal.cell=[100,100,100,30,40,90]", "crystal.cell: expected angles that close"),
        ("crystal.shape=blob", "crystal.shape: expected 'square'"),
        ("detector.oversample=x", "detector.oversample: expected a whole number"),
        ("detector.oversample=0", "detector.oversample: expected a number greater"),
        ("beam.polarization=2", "beam.polarization: expected a number less"),
        ("beam.fluence=nan", "beam.fluence: expected a finite number"),
        ("+parameters.misset_deg.fre=true", "parameters.misset_deg.fre: no such key"),
        ("parameters.mosaic_spread_deg.lower=20", "lower bound below the upper"),
        ("dtype=float16", "dtype: expected 'float64' or 'float32'"),
        ("truth.misset_deg=null", "data.image: expected an image, or truth.misset_deg"),
        ("beam.wavelength_A=null", "beam.wavelength_A"),
    ],
)
def test_a_wrong_value_is_one_line(override, message):
    with pytest.raises(InputError) as caught:
        load(override)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_group_says_what_its_keys_are():
    for file in CONFIGS.glob("*/*.yaml"):
        text = Path(file).read_text()
        assert "#" in text or len(text.splitlines()) <= 3, file


def test_a_number_of_cells_for_all_axes():
    assert load("crystal.n_cells=7").crystal.n_cells == (7, 7, 7)


def test_the_readme_speaks_python_that_runs():
    code = (REPOSITORY / "README.md").read_text().split("```python\n")[1].split("```")[0]
    names: dict = {}
    exec(code, names)
    assert float(names["gradient"].abs().min()) > 0


def test_the_run_folder_has_a_default_for_runs_and_sweeps():
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        hydra = compose("config", return_hydra_config=True).hydra
        for folder in (Path(hydra.run.dir), Path(hydra.sweep.dir)):
            assert folder.parent == REPOSITORY / "outputs" / "mosaic_misset"
        given = compose("config", overrides=["output_dir=given/here"], return_hydra_config=True).hydra
        assert given.sweep.dir == given.run.dir == "given/here"


def test_a_beam_centre_comes_from_the_header_or_is_said_to_be_a_default():
    settings = load("data.image=unused")
    cases = {
        "from header": {"beam_fast_slow_mm": (3.3, 3.2)},
        "default of mosflm": {},
    }
    for status, header in cases.items():
        filled = set_up(settings, {"osc_deg": 0.5, **header}, None)
        assert filled.rows[-1][0] == "detector.beam_center_mm"
        assert filled.rows[-1][3] == status
        assert filled.instrument.scan.osc_deg == 0.5
    filled = set_up(settings, {"beam_fast_slow_mm": (3.3, 3.2)}, None)
    assert filled.values["beam_center_mm"] == pytest.approx((3.15, 3.25))
    filled = set_up(settings, {"beam_center_mm": [3.0, 3.1]}, None)
    assert filled.values["beam_center_mm"] == (3.0, 3.1)
