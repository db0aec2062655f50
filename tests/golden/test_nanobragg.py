"""Images of the reference program that need none of its quirks.

Each case is built twice: the crystal from the reference's own direct vectors (its matrix of a triclinic cell is not
exact), the detector once from the reference's vectors and once through the conventions of the configuration.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support import tensor

from refine.experiment.header import default_centre_mm, panel_shape
from refine.experiment.instrument import PanelShape, build_panel
from refine.formats.reflections import read_hkl
from refine.settings.experiment import Detector
from sim_core import Beam, Crystal, Experiment, Panel, Scan, StructureFactors
from sim_core.bragg.sampled import SampledBragg
from sim_core.interference import SHAPES, Square
from sim_core.mosaic import quadrature_domains, random_domains

CASES = [
    "base_mosflm_cubic",
    "cell_partial",
    "close_distance_tilt",
    "conv_adxv",
    "conv_adxv_default_tilt",
    "conv_custom_vectors",
    "conv_denzo",
    "conv_dials_tilt",
    "conv_mosflm_offcentre",
    "conv_xds_orgxy",
    "custom_beam_pivot",
    "custom_sample_pivot",
    "dispersion5",
    "dmin",
    "energy_detsize",
    "flux_xtalsize",
    "hkl_random",
    "hkl_sparse_defaultF",
    "mat_lambda_misset",
    "mat_triclinic",
    "misset_random",
    "mosaic_5",
    "mosaic_default_seed",
    "mosaic_phi",
    "nopolar",
    "oversample_omega_1eval",
    "phi_offset",
    "phi_osc_default_steps",
    "phi_spindle_xds",
    "polar_kahn",
    "shape_gauss",
    "shape_round",
    "shape_round_fudge",
    "tilt_mosflm",
    "tilt_xds",
    "triclinic_highres",
    "triclinic_misset",
]
FOLDER = Path(__file__).parent / "nanobragg_cases"


def load(name: str) -> tuple[dict, list[str], np.ndarray]:
    with np.load(FOLDER / f"{name}.npz") as case:
        return json.loads(str(case["meta"])), json.loads(str(case["args"])), case["image"]


def build(name: str, dtype: torch.dtype) -> tuple[SampledBragg, Experiment]:
    meta, args, _ = load(name)
    geometry, crystal, beam, sampling = meta["geometry"], meta["crystal"], meta["beam"], meta["sampling"]
    sources = tensor(meta["sources_xyz_I_lambda"])
    count, steps = len(sources), sampling["phisteps"]
    direct = tensor([crystal[k] for k in ("a_A", "b_A", "c_A")])
    phi = sampling["phi0_rad"] + sampling["phistep_rad"] * torch.arange(steps, dtype=torch.float64)
    experiment = Experiment(
        beam=Beam(
            direction=-sources[:, :3] / sources[:, :3].norm(dim=-1, keepdim=True),
            wavelength=sources[:, 4] * 1e10,
            weight=torch.full((count,), 1 / count, dtype=torch.float64),
            fluence=tensor(beam["fluence"]),
            kahn=None if beam["nopolar"] else tensor(beam["kahn"]),
            polarization_axis=tensor(geometry["polar_vector"]),
        ),
        panel=Panel(
            *(tensor(geometry[k]) for k in ("pix0_vector_m", "fdet_vector", "sdet_vector", "odet_vector")),
            pixel_size=tensor(geometry["pixel_size_m"]),
            image_size=(geometry["fpixels"], geometry["spixels"]),
        ),
        crystal=Crystal.from_matrix(
            torch.linalg.inv(direct), tensor([0.0] * 3), tensor(crystal["N"]), tensor(crystal["mosaic_spread_rad"])
        ),
        scan=Scan(tensor(geometry["spindle_vector"]), phi, torch.full((steps,), 1 / steps, dtype=torch.float64)),
        structure_factors=factors(name, args, crystal["default_F"]),
    )
    count = crystal["mosaic_domains"]
    seed = int(args[args.index("-mosaic_seed") + 1]) if "-mosaic_seed" in args else 12345678
    domains = random_domains(count, seed) if count > 1 else quadrature_domains(1)
    kind = crystal["shape"].lower()
    shape = Square() if kind == "square" else SHAPES[kind](crystal["fudge"])
    return SampledBragg(domains, shape, sampling["oversample"], sampling["dmin_m"] * 1e10, dtype), experiment


def factors(name: str, args: list[str], default: float) -> StructureFactors:
    if "-hkl" not in args:
        return StructureFactors.constant(tensor(default))
    with np.load(FOLDER / f"{name}.npz") as case:
        hkl = case["hkl"]
    low = hkl[:, :3].min(0).astype(int)
    table = np.full(hkl[:, :3].max(0).astype(int) - low + 1, default)
    table[tuple((hkl[:, :3].astype(int) - low).T)] = hkl[:, 3]
    return StructureFactors(tensor(table), torch.from_numpy(low), tensor(default))


@pytest.mark.parametrize("name", CASES)
def test_image_in_double_precision(name):
    simulator, experiment = build(name, torch.float64)
    reference = load(name)[2].astype(np.float64)
    image = simulator(experiment).numpy().reshape(reference.shape)
    bound = 1e-6 * np.abs(reference) + 1e-9 * reference.max()
    assert (np.abs(image - reference) <= bound).all()


@pytest.mark.parametrize("name", CASES)
def test_image_in_single_precision(name):
    simulator, experiment = build(name, torch.float32)
    reference = load(name)[2].astype(np.float64)
    image = simulator(experiment).double().numpy().reshape(reference.shape)
    assert np.abs(image - reference).max() <= 1e-4 * reference.max()


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("name", CASES)
def test_kernels_agree(name, dtype, bound):
    simulator, experiment = build(name, dtype)
    images = {}
    for simulator.kernel in ("eager", "compiled"):
        images[simulator.kernel] = simulator(experiment).double()
    top = images["eager"].max()
    assert float((images["eager"] - images["compiled"]).abs().max() / top) <= bound


PANELS = {
    "base_mosflm_cubic": {},
    "close_distance_tilt": {"rotations_deg": [4, 12, 5], "close_distance": 95},
    "conv_adxv": {"convention": "adxv", "beam_center_mm": [4.2, 9.7]},
    "conv_adxv_default_tilt": {"convention": "adxv", "two_theta_deg": 14, "rotations_deg": [0, 0, 7]},
    "conv_custom_vectors": {
        "convention": "custom",
        "beam_center_mm": [5.5, 8.25],
        "custom": {
            "fast": [0.1, 0, 2],
            "slow": [0, -1, 0.05],
            "normal": [1, 0.05, -0.1],
            "beam": [1, 0.02, 0],
        },
    },
    "conv_denzo": {"convention": "denzo", "beam_center_mm": [6.1, 9.7]},
    "conv_dials_tilt": {
        "convention": "dials",
        "org_px": [40.3, 61.8],
        "two_theta_deg": 12,
        "rotations_deg": [0, 6, 0],
    },
    "conv_mosflm_offcentre": {"beam_center_mm": [6.1, 9.7]},
    "conv_xds_orgxy": {"convention": "xds", "org_px": [40.3, 61.8]},
    "custom_beam_pivot": {
        "convention": "custom",
        "pivot": "beam",
        "beam_center_mm": [5.5, 8.25],
        "rotations_deg": [4, -9, 13],
    },
    "custom_sample_pivot": {
        "convention": "custom",
        "pivot": "sample",
        "beam_center_mm": [5.5, 8.25],
        "rotations_deg": [4, -9, 13],
    },
    "tilt_mosflm": {"rotations_deg": [5, 3, 2], "two_theta_deg": 10},
    "tilt_xds": {"convention": "xds", "rotations_deg": [5, 3, 2], "two_theta_deg": 10},
    "twotheta_axis": {
        "convention": "custom",
        "pivot": "beam",
        "two_theta_deg": 9,
        "custom": {"two_theta_axis": [0, 0.6, 0.8]},
    },
}


@pytest.mark.parametrize("name", PANELS)
def test_panel_from_its_convention(name):
    meta, args, _ = load(name)
    geometry = meta["geometry"]
    panel = build_panel(*settings(PANELS[name], geometry, args))
    for ours, theirs in (
        (panel.origin, "pix0_vector_m"),
        (panel.fast_axis, "fdet_vector"),
        (panel.slow_axis, "sdet_vector"),
        (panel.normal, "odet_vector"),
    ):
        torch.testing.assert_close(ours, tensor(geometry[theirs]), rtol=1e-12, atol=1e-15)


def settings(changes: dict, geometry: dict, args: list[str]) -> tuple[PanelShape, dict[str, torch.Tensor]]:
    vectors = dict.fromkeys(("fast", "slow", "normal", "beam", "two_theta_axis", "polarization", "spindle"))
    changes = dict(changes)
    close = changes.pop("close_distance", None)
    detector = Detector.model_validate(
        {
            "convention": "mosflm",
            "pixels": (geometry["fpixels"], geometry["spixels"]),
            "pixel_size_mm": geometry["pixel_size_m"] * 1000,
            "distance_mm": float(args[args.index("-distance") + 1]) if close is None else close / geometry["ratio"],
            "beam_center_mm": None,
            "org_px": None,
            "rotations_deg": [0, 0, 0],
            "two_theta_deg": 0,
            "pivot": None,
            "oversample": 1,
            "sensor_thickness_um": 0,
            "sensor_attenuation_um": None,
            "sensor_layers": 1,
        }
        | changes
        | {"custom": vectors | changes.get("custom", {})}
    )
    shape = panel_shape(detector, detector.pixels, detector.pixel_size_mm, detector.two_theta_deg)
    centre = detector.beam_center_mm or default_centre_mm(shape, detector.org_px)
    values = {
        "distance_mm": tensor(detector.distance_mm),
        "beam_center_mm": tensor(centre),
        "rotations_deg": tensor(detector.rotations_deg),
    }
    return shape, values


def test_reference_reads_the_same_reflections(tmp_path):
    with np.load(FOLDER / "hkl_sparse_defaultF.npz") as case:
        hkl = case["hkl"]
    file = tmp_path / "sparse.hkl"
    file.write_text("".join(f"{int(h)} {int(k)} {int(l)} {f:.6f}\n" for h, k, l, f in hkl))
    table, low = read_hkl(file, 7.0)
    expected = factors("hkl_sparse_defaultF", ["-hkl"], 7.0)
    np.testing.assert_allclose(table, expected.table.numpy())
    assert low.tolist() == expected.h_min.tolist()


def test_exact_metric_differs_from_the_references_only_where_it_must():
    """Orthogonal cells agree with the reference through cell constants alone."""
    simulator, experiment = build("mosaic_5", torch.float64)
    crystal = Crystal(
        tensor([100.0, 100, 100, *np.radians([90, 90, 90])]),
        torch.eye(3, dtype=torch.float64),
        torch.deg2rad(tensor([5.0, 3.0, -2.0])),
        experiment.crystal.n_cells,
        experiment.crystal.mosaic_spread,
    )
    reference = load("mosaic_5")[2].astype(np.float64)
    image = simulator(replace(experiment, crystal=crystal)).numpy().reshape(reference.shape)
    assert (np.abs(image - reference) <= 1e-6 * np.abs(reference) + 1e-9 * reference.max()).all()
