"""From checked settings to a refinement problem: image, model, parameters, truth."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from refine.builders import automatic_oversample, build_domains, convention_of, default_centre_mm, tensor
from refine.datamodule import Observation, from_file, from_simulation
from refine.errors import InputError, required
from refine.formats.images import DetectorImage, read_image
from refine.formats.orientation import read_mat
from refine.formats.reflections import read_hkl
from refine.model import BraggModel
from refine.parameters import COMPONENTS, Parameters, ParameterSpec, labels
from refine.paths import existing_file
from refine.settings import Settings
from sim_core import StructureFactors
from sim_core.bragg.mosaic import domain_rotations
from sim_core.bragg.noise import photon_noise
from sim_core.rotations import mean_rotation, xyz_angles
from sim_core.unit_cell import cell_and_orientation


@dataclass(frozen=True)
class Problem:
    """Everything a refinement needs.

    Attributes:
        settings: The configuration with what the header says filled in.
        observation: The image.
        model: Expected photons of its pixels.
        parameters: What is refined.
        truth: Known values by label.
        geometry: Rows (name, value, from the header, whether the configuration overrides it).
        mean_rotation_deg: Mean rotation of the blocks of the data and of the model, where they are known.
    """

    settings: Settings
    observation: Observation
    model: BraggModel
    parameters: Parameters
    truth: dict[str, float]
    geometry: list[tuple[str, str, str, str]] = field(default_factory=list)
    mean_rotation_deg: dict[str, list[float]] = field(default_factory=dict)


def build_problem(settings: Settings) -> Problem:
    """Read or simulate the image and set up the model.

    Raises:
        InputError: for whatever is wrong with the configuration or the files.
    """
    image = None
    if settings.data.image is not None:
        image = read_image(existing_file(settings.data.image, "data.image"), settings.data.frame)
    settings, geometry = with_header(settings, {} if image is None else _said(image))
    orientation, cell = _orientation(settings)
    factors = _structure_factors(settings)
    crystal, truth_settings = settings.crystal, settings.truth
    domains = build_domains(crystal.mosaic_model, crystal.mosaic_domains, crystal.mosaic_seed)
    true_domains = build_domains(truth_settings.mosaic_model, truth_settings.mosaic_domains, truth_settings.mosaic_seed)
    wavelength = settings.beam.wavelength_A
    assert wavelength is not None
    oversample = settings.detector.oversample or automatic_oversample(
        crystal.n_cells, cell.tolist(), settings.detector, wavelength
    )
    if image is not None:
        how = "configuration" if settings.detector.oversample else "fine enough for the spots"
        geometry.append(("detector.oversample", str(oversample), "-", how))
    fixed = _fixed_values(settings, cell)
    known = {n: v for n in COMPONENTS if (v := getattr(truth_settings, n, None)) is not None}
    if image is not None:
        observation = from_file(image, settings)
    else:
        true_values = {**fixed, **{n: tensor(v) for n, v in known.items()}}
        known = {n: v.tolist() for n, v in true_values.items()}
        frame = torch.zeros(0, 2, dtype=torch.long)
        source = BraggModel(settings, true_domains, factors, orientation, frame, oversample)
        observation = _simulate(source, true_values, settings)
    model = BraggModel(settings, domains, factors, orientation, observation.pixels(), oversample)
    initial = _initial_values(settings, fixed, model, observation)
    parameters = Parameters([_spec(settings, name, value) for name, value in initial.items()])
    if not parameters.free:
        raise required("parameters", "at least one with free=true", "none")
    if crystal.shape == "tophat" and not {"scale", "background"} >= set(parameters.free):
        raise required("crystal.shape", "square, round or gauss to refine (a top hat has no slope)", "tophat")
    truth = {k: float(x) for n, v in known.items() for k, x in zip(labels(n), np.ravel(v), strict=True)}
    means = {"model": _mean_rotation(domains, initial["mosaic_spread_deg"])}
    if "mosaic_spread_deg" in truth:
        spread = tensor(truth["mosaic_spread_deg"])
        means = {"model": _mean_rotation(domains, spread), "data": _mean_rotation(true_domains, spread)}
    return Problem(settings, observation, model, parameters, truth, geometry, means)


def with_header(settings: Settings, header: dict[str, Any]) -> tuple[Settings, list[tuple[str, str, str, str]]]:
    """Fill what the configuration leaves open from an image's header.

    Returns:
        Complete settings, and rows (name, value, from the header, status) to show.

    Raises:
        InputError: if a value is given neither here nor there.
    """
    detector, beam = settings.detector, settings.beam
    rows: list[tuple[str, str, str, str]] = []
    found: dict[str, Any] = {}
    for section, name, given in (
        ("detector", "pixels", detector.pixels),
        ("detector", "pixel_size_mm", detector.pixel_size_mm),
        ("detector", "distance_mm", detector.distance_mm),
        ("beam", "wavelength_A", beam.wavelength_A),
        ("detector", "two_theta_deg", _two_theta(detector, header)),
        ("scan", "phi_start_deg", settings.scan.phi_start_deg),
        ("scan", "osc_deg", settings.scan.osc_deg),
    ):
        value = given if given is not None else header.get(name, 0.0 if section == "scan" else None)
        if value is None:
            where = "the image's header does not say" if settings.data.image else "there is no image with a header"
            raise required(f"{section}.{name}", f"a value ({where})", "null")
        if name in ("pixel_size_mm", "distance_mm", "wavelength_A") and not float(np.min(value)) > 0:
            raise required(f"{section}.{name}", "a value above zero", f"{value} from the image's header")
        found[name] = value
        rows.append(_row(f"{section}.{name}", value, header.get(name), given is not None))
    detector = detector.model_copy(
        update={n: found[n] for n in ("pixels", "pixel_size_mm", "distance_mm", "two_theta_deg")}
    )
    centre, row = _centre(detector, header)
    if settings.data.image is not None:
        rows.append(row)
    detector = detector.model_copy(update={"beam_center_mm": centre, "org_px": None})
    beam = beam.model_copy(update={"wavelength_A": found["wavelength_A"]})
    scan = settings.scan.model_copy(update={n: found[n] for n in ("phi_start_deg", "osc_deg")})
    return settings.model_copy(update={"detector": detector, "beam": beam, "scan": scan}), rows if header else []


def _two_theta(detector: Any, header: dict[str, Any]) -> float:
    """As given, or zero; a header does not say about which axis its detector is swung."""
    if detector.two_theta_deg is not None:
        return float(detector.two_theta_deg)
    if header.get("two_theta_deg"):
        wanted = f"a value (the header says {header['two_theta_deg']:g}, but not about which axis)"
        raise required("detector.two_theta_deg", wanted, "null")
    return 0.0


def _said(image: DetectorImage) -> dict[str, Any]:
    """The header's values, with the size of the image among them."""
    slow, fast = image.counts.shape
    return {**image.header, "pixels": (fast, slow)}


def _centre(detector: Any, header: dict[str, Any]) -> tuple[tuple[float, float], tuple[str, str, str, str]]:
    """Beam centre (X, Y) [mm]: as given, or the header's in this convention, or the convention's default."""
    convention = convention_of(detector)
    pivot = detector.pivot or convention.pivot
    places = ["beam_fast_slow_mm", "foot_fast_slow_mm"]
    wanted, other = places if pivot == "beam" else places[::-1]
    upright = not any(detector.rotations_deg) and detector.two_theta_deg == 0
    fast_slow = header.get(wanted, header.get(other) if upright else None)
    said = header.get("beam_center_mm")
    if fast_slow is not None:
        fast, slow = fast_slow
        said = convention.x_y(fast, slow, detector.pixel_size_mm, detector.pixels[1] * detector.pixel_size_mm)
    given = detector.beam_center_mm
    if given is None and detector.org_px is not None:
        given = default_centre_mm(detector)
    centre = given or said or default_centre_mm(detector)
    row = _row("detector.beam_center_mm", centre, said, given is not None)
    if given is None and said is None:
        row = (*row[:3], f"default of {detector.convention}")
    return (centre[0], centre[1]), row


def _row(name: str, value: Any, said: Any, given: bool) -> tuple[str, str, str, str]:
    def text(v: Any) -> str:
        return " ".join(f"{x:g}" for x in np.ravel(v))

    if said is None:
        return name, text(value), "-", "configuration"
    same = bool(np.allclose(value, said, rtol=1e-5, atol=1e-9))
    return name, text(value), text(said), "agrees" if same and given else "from header" if not given else "overridden"


def _orientation(settings: Settings) -> tuple[Tensor, Tensor]:
    """Rotation U before the misset and the cell [A, deg]."""
    if settings.crystal.a_matrix_path is None:
        return torch.eye(3, dtype=torch.float64), tensor(settings.crystal.cell)
    assert settings.beam.wavelength_A is not None
    path = existing_file(settings.crystal.a_matrix_path, "crystal.a_matrix_path")
    radians, rotation = cell_and_orientation(tensor(read_mat(path, settings.beam.wavelength_A)))
    return rotation, torch.cat([radians[:3], torch.rad2deg(radians[3:])])


def _structure_factors(settings: Settings) -> StructureFactors:
    choice = settings.structure_factors
    default = tensor(choice.default_F)
    if choice.path is None:
        if choice.default_F == 0:
            raise required("structure_factors", "a path or a default_F above zero", "neither")
        return StructureFactors.constant(default)
    table, low = read_hkl(existing_file(choice.path, "structure_factors.path"), choice.default_F)
    return StructureFactors(tensor(table), torch.from_numpy(low), default)


def _fixed_values(settings: Settings, cell: Tensor) -> dict[str, Tensor]:
    """Values of every parameter as crystal, detector and beam give them."""
    return {
        "misset_deg": torch.zeros(3, dtype=torch.float64),
        "mosaic_spread_deg": tensor(0.0),
        "cell": cell,
        "n_cells": tensor(settings.crystal.n_cells),
        "scale": tensor(1.0),
        "background": tensor(0.0),
        "distance_mm": tensor(settings.detector.distance_mm),
        "beam_center_mm": tensor(settings.detector.beam_center_mm),
        "rotations_deg": tensor(settings.detector.rotations_deg),
        "wavelength_A": tensor(settings.beam.wavelength_A),
    }


@torch.no_grad()
def _simulate(source: BraggModel, values: dict[str, Tensor], settings: Settings) -> Observation:
    assert settings.detector.pixels is not None
    fast, slow = settings.detector.pixels
    photons = source(values, torch.cartesian_prod(torch.arange(slow), torch.arange(fast)))
    if not bool(torch.isfinite(photons).all() & (photons >= 0).all() & (photons < 1e15).all()):
        raise required("truth", "values that give a finite image of at most 1e15 photons a pixel", "others")
    if settings.data.noise == "poisson":
        photons = photon_noise(photons, settings.seed)
    return from_simulation(photons, settings)


@torch.no_grad()
def _initial_values(
    settings: Settings, fixed: dict[str, Tensor], model: BraggModel, observation: Observation
) -> dict[str, Tensor]:
    """Where the refinement starts; the word ``estimate`` takes the median background and the total of the spots."""
    given = {n: getattr(settings.initial, n) for n in fixed}
    words = {n for n, v in given.items() if v == "estimate"}
    values = {n: fixed[n] if v is None or n in words else tensor(v) for n, v in given.items()}
    observed = observation.observed()
    profile = model.profile(model.experiment(values), model.pixels)
    if "background" in words:
        values["background"] = (observed / profile).median().clamp_min(0.0)
    if "scale" in words:
        spots = model({**values, "scale": tensor(1.0), "background": tensor(0.0)}).sum()
        values["scale"] = ((observed - values["background"] * profile).sum() / spots).clamp_min(1e-6)
    if not all(torch.isfinite(v).all() for v in values.values()):
        raise InputError("initial: expected finite values; the model has no spot on this detector")
    return values


def _spec(settings: Settings, name: str, initial: Tensor) -> ParameterSpec:
    choice = getattr(settings.parameters, name)
    initial = initial.reshape(-1)
    prior = None
    if choice.prior is not None:
        mean = initial if choice.prior.mean is None else tensor(choice.prior.mean).reshape(-1)
        sigma = tensor(choice.prior.sigma).reshape(-1)
        if any(len(v) not in (1, len(initial)) for v in (mean, sigma)):
            raise required(f"parameters.{name}.prior", f"one number or {len(initial)}", f"{len(mean)} and {len(sigma)}")
        prior = (mean, sigma)
    lower, upper = (choice.lower, choice.upper) if choice.free else (None, None)
    return ParameterSpec(name, initial, choice.scale, choice.free, lower, upper, prior)


def _mean_rotation(domains: Any, spread_deg: Tensor) -> list[float]:
    rotations = domain_rotations(domains, torch.deg2rad(spread_deg))
    degrees: list[float] = torch.rad2deg(xyz_angles(mean_rotation(rotations, domains.weights))).tolist()
    return degrees
