"""From checked settings to a refinement problem: image, model, parameters, truth."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from refine.data.frames import SeveralImages, join, separate
from refine.data.observation import Observation, from_file, from_simulation
from refine.errors import InputError, required
from refine.experiment.builders import automatic_oversample, build_domains, tensor
from refine.experiment.header import header_of, with_header
from refine.formats.images import read_image
from refine.formats.orientation import read_mat
from refine.formats.reflections import read_hkl
from refine.parameters.cells import cell_ties
from refine.parameters.parameters import AXES, COMPONENTS, Parameters, ParameterSpec, declare, declare_none, labels
from refine.paths import existing_file
from refine.settings.schema import Settings
from refine.stages.search import oriented
from refine.terms.bragg import SPREADS, BraggModel
from refine.terms.planes import BoxPlanes, box_of_each_pixel
from sim_core import StructureFactors
from sim_core.background import RADIAL_KNOTS
from sim_core.bragg.mosaic import DomainSample, domain_rotations
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
        search: What an orientation search saw; ``None`` without one.
        images: The problem of each image, where there are several.
    """

    settings: Settings
    observation: Observation
    model: BraggModel | SeveralImages
    parameters: Parameters
    truth: dict[str, float]
    geometry: list[tuple[str, str, str, str]] = field(default_factory=list)
    mean_rotation_deg: dict[str, list[float]] = field(default_factory=dict)
    search: dict[str, Any] | None = None
    images: tuple["Problem", ...] = ()

    def each(self, values: dict[str, Tensor]) -> list[tuple["Problem", dict[str, Tensor]]]:
        """The problem of each image and the values of its parameters."""
        if isinstance(self.model, SeveralImages):
            return [(image, self.model.of(values, i)) for i, image in enumerate(self.images)]
        return [(self, values)]


def build_problem(settings: Settings) -> Problem:
    """Read or simulate the image, or several, and set up the model.

    The first of several images says where a shared orientation starts.

    Raises:
        InputError: for whatever is wrong with the configuration or the files.
        NothingFoundError: if an orientation search finds nothing.
    """
    declare_none()
    one, *others = separate(settings)
    problems = [build_image(one)]
    for other in others:
        if not settings.parameters.misset_deg.per_image:
            start = other.initial.model_copy(update={"misset_deg": problems[0].settings.initial.misset_deg})
            here = other.schedule.model_copy(update={"capture_deg": 0.0})
            other = other.model_copy(update={"initial": start, "schedule": here})
        problems.append(build_image(other))
    return join(problems, settings) if others else problems[0]


def build_image(settings: Settings) -> Problem:
    """The problem of one image."""
    image = None
    path, frame = settings.data.image, settings.data.frame
    if path is not None:
        assert isinstance(path, str) and isinstance(frame, int)
        image = read_image(existing_file(path, "data.image"), frame)
    settings, geometry = with_header(settings, {} if image is None else header_of(image))
    orientation, cell = _orientation(settings)
    factors = _structure_factors(settings)
    crystal, truth_settings = settings.crystal, settings.truth
    anisotropic = any(isinstance(s.mosaic_spread_deg, tuple) for s in (settings.initial, truth_settings))
    declare("mosaic_spread_deg", AXES if anisotropic else ())
    knots = tuple(str(k) for k in range(RADIAL_KNOTS)) if settings.simulator.background == "radial" else ()
    declare("background", knots)
    domains, true_domains = (
        build_domains(s.mosaic_model, s.mosaic_domains, s.mosaic_seed, crystal.misorientation)
        for s in (crystal, truth_settings)
    )
    wavelength = settings.beam.wavelength_A
    assert wavelength is not None
    oversample = settings.detector.oversample or automatic_oversample(
        crystal.n_cells, cell.tolist(), settings.detector, wavelength
    )
    if image is not None and settings.simulator.model == "sampled":
        how = "configuration" if settings.detector.oversample else "fine enough for the spots"
        geometry.append(("detector.oversample", str(oversample), "-", how))
    fixed = _fixed_values(settings, cell)
    known = {n: v for n in COMPONENTS if (v := getattr(truth_settings, n, None)) is not None}
    if image is not None:
        observation = from_file(image, settings)
    else:
        true_values = {**fixed, **{n: tensor(v) for n, v in known.items()}}
        true_values["background"] = true_values["background"].expand([len(knots)] if knots else [])
        known = {n: v.tolist() for n, v in true_values.items()}
        nowhere = torch.zeros(0, 2, dtype=torch.long)
        source = BraggModel(settings, true_domains, factors, orientation, nowhere, oversample, truth_settings.simulator)
        source.prepare(true_values)
        observation = _simulate(source, true_values, settings)
    model = BraggModel(settings, domains, factors, orientation, observation.pixels(), oversample)
    settings, searched = oriented(settings, _given_values(settings, fixed), model, observation)
    if "boxes" in (settings.data.pixels, "boxes" if settings.simulator.background == "planes" else ""):
        observation = _boxed(settings, fixed, model, observation)
    initial = _initial_values(settings, fixed, model, observation)
    parameters = Parameters([_spec(settings, name, value) for name, value in initial.items()])
    if not parameters.free:
        raise required("parameters", "at least one with free=true", "none")
    _check_start(parameters)
    if crystal.shape == "tophat" and not {"scale", "background"} >= set(parameters.free):
        raise required("crystal.shape", "square, round or gauss to refine (a top hat has no slope)", "tophat")
    truth = {k: float(x) for n, v in known.items() for k, x in zip(labels(n), _spread_out(n, v), strict=True)}
    blocks = {"model": (settings.simulator.model, domains)}
    if "mosaic_spread_deg" in known:
        blocks["data"] = (truth_settings.simulator, true_domains)
    spread = tensor(known["mosaic_spread_deg"]) if "data" in blocks else initial["mosaic_spread_deg"]
    means = {whose: _mean_rotation(kind, sample, spread) for whose, (kind, sample) in blocks.items()}
    return Problem(settings, observation, model, parameters, truth, geometry, means, searched)


def _spread_out(name: str, value: Any) -> np.ndarray:
    """A known value for each component: one mosaic spread or background stands for several equal ones."""
    flat = np.ravel(value)
    return np.repeat(flat, len(labels(name))) if len(labels(name)) > len(flat) else flat


def _check_start(parameters: Parameters) -> None:
    """Widths add up in squares: from zero they have no slope."""
    for name in SPREADS:
        spec = parameters.specs[name]
        if spec.free and not bool((spec.initial > 0).all()):
            raise required(f"initial.{name}", "a value above zero to be refined", spec.initial.tolist())


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
        "b_iso_A2": tensor(settings.structure_factors.b_iso_A2),
        "divergence_rms_mrad": tensor(settings.beam.divergence_rms_mrad),
        "bandwidth_rms_percent": tensor(settings.beam.bandwidth_rms_percent),
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
def _boxed(settings: Settings, fixed: dict[str, Tensor], model: BraggModel, observation: Observation) -> Observation:
    """The image with the pixels outside the boxes of predicted spots masked, planes under the boxes if wanted."""
    data = settings.data
    experiment = model.experiment(_given_values(settings, fixed))
    owner = box_of_each_pixel(experiment, data.box_px, settings.simulator.d_min_A, data.box_reach)
    used = observation.used & (owner >= 0)
    if not used.any():
        raise required("data.pixels", "a start that predicts spots on the detector for boxes", "none")
    if settings.simulator.background == "planes":
        model.planes = BoxPlanes(observation.photons, observation.used, owner)
    model.pixels = torch.from_numpy(np.argwhere(used))
    return replace(observation, used=used)


def _given_values(settings: Settings, fixed: dict[str, Tensor]) -> dict[str, Tensor]:
    """Values of the parameters where the refinement starts, words left out."""
    given = {n: getattr(settings.initial, n) for n in fixed}
    values = {n: fixed[n] if v is None or isinstance(v, str) else tensor(v) for n, v in given.items()}
    for name in ("mosaic_spread_deg", "background"):
        values[name] = values[name].expand(len(labels(name))) if len(labels(name)) > 1 else values[name]
    return values


@torch.no_grad()
def _initial_values(
    settings: Settings, fixed: dict[str, Tensor], model: BraggModel, observation: Observation
) -> dict[str, Tensor]:
    """Where the refinement starts; the word ``estimate`` takes the median background and the total of the spots."""
    words = {n for n in fixed if getattr(settings.initial, n) == "estimate"}
    values = _given_values(settings, fixed)
    model.prepare(values)
    observed = observation.observed()
    if model.planes is not None:
        values["background"], under = tensor(1.0), model.planes.rim
    else:
        profile = model.profile(model.experiment(values), model.pixels).sum(-1)
        if "background" in words:
            values["background"] = (observed / profile).median().clamp_min(0.0).expand(values["background"].shape)
        under = values["background"].reshape(-1)[0] * profile
    if "scale" in words:
        values["scale"] = ((observed - under).sum() / model.spots(values).sum()).clamp_min(1e-6)
    if not all(torch.isfinite(v).all() for v in values.values()):
        raise InputError("initial: expected finite values; the model has no spot on this detector")
    return values


def _spec(settings: Settings, name: str, initial: Tensor) -> ParameterSpec:
    choice = getattr(settings.parameters, name)
    eliminated = name == "background" and settings.simulator.background == "planes"
    free = choice.free and not eliminated
    initial = initial.reshape(-1)
    prior = None
    if choice.prior is not None:
        mean = initial if choice.prior.mean is None else tensor(choice.prior.mean).reshape(-1)
        sigma = tensor(choice.prior.sigma).reshape(-1)
        if any(len(v) not in (1, len(initial)) for v in (mean, sigma)):
            raise required(f"parameters.{name}.prior", f"one number or {len(initial)}", f"{len(mean)} and {len(sigma)}")
        prior = (mean, sigma)
    lower, upper = (choice.lower, choice.upper) if free else (None, None)
    ties = None
    if name == "cell" and free:
        field = "crystal.cell" if settings.initial.cell is None else "initial.cell"
        ties = cell_ties(initial, settings.crystal.system, field)
    return ParameterSpec(name, initial, choice.scale, free, lower, upper, prior, ties)


def _mean_rotation(simulator: str, domains: DomainSample, spread_deg: Tensor) -> list[float]:
    """Angles [deg] about x, y, z by which the blocks are turned on average; the closed form has none."""
    if simulator == "closed_form":
        return [0.0, 0.0, 0.0]
    rotations = domain_rotations(domains, torch.deg2rad(spread_deg))
    degrees: list[float] = torch.rad2deg(xyz_angles(mean_rotation(rotations, domains.weights))).tolist()
    return degrees
