"""From checked settings to the refinement of a diffuse map: data, model, parameters, truth."""

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from refine.data.observation import Observation
from refine.errors import required
from refine.fit.losses import KnownNoise
from refine.formats.maps import read_map
from refine.formats.models import CrystalModel
from refine.parameters.parameters import Parameters, ParameterSpec, declare, labels
from refine.parameters.restraints import ElasticNetwork
from refine.paths import existing_file
from refine.settings.schema import Settings
from refine.terms.diffuse import DiffuseModel, Points, open_model, points_of, zone_rates
from sim_core.diffuse.structure import miller_indices

JACOBIAN_BATCH = 1 << 15
"""Numbers worked on at a time: a Jacobian holds them once for each parameter."""
RATIO = "scale is free: only gamma_intra/gamma_inter is determined, so gamma_inter is held at its initial value"
NO_SIGMA = "the map has no uncertainties: all points weigh the same, and refined values have none either"
ORIGIN = "the origin of P 1 is free: errors of coordinates are relative to their mean shift"


class MaskedModel(nn.Module):
    """Intensities of the points that are compared.

    Args:
        model: The whole map.
        chosen: Which of its points.
    """

    chosen: Tensor

    def __init__(self, model: DiffuseModel, chosen: Tensor) -> None:
        """Keep what is given."""
        super().__init__()
        self.model = model
        self.register_buffer("chosen", chosen)

    def forward(self, values: dict[str, Tensor]) -> Float[Tensor, "points"]:
        """Intensity at given values."""
        intensity: Tensor = self.model(values)
        return intensity[self.chosen]


@dataclass(frozen=True)
class DiffuseProblem:
    """Everything a refinement against a diffuse map needs.

    Attributes:
        settings: The configuration.
        crystal: The atomic model as read.
        observation: Intensities as one row, and which are used.
        model: Expected intensities of those.
        parameters: What is refined.
        loss: Squared residuals over the known variances.
        truth: Known values by label.
        true_xyz: Coordinates that simulated data were made with [A].
        notes: What the data cannot determine.
    """

    settings: Settings
    crystal: CrystalModel
    observation: Observation
    model: MaskedModel
    parameters: Parameters
    loss: KnownNoise
    truth: dict[str, float]
    true_xyz: Tensor | None
    notes: list[str]
    mean_rotation_deg: dict[str, list[float]] = field(default_factory=dict)


@torch.no_grad()
def build_diffuse_problem(settings: Settings) -> DiffuseProblem:
    """Read or simulate the map and set up the model.

    Raises:
        InputError: for whatever is wrong with the configuration or the files.
    """
    model, crystal = forward_model(settings)
    intensity, sigma, true_xyz, path = _data(settings, model)
    used = torch.isfinite(intensity) & (sigma is None or torch.isfinite(sigma) & (sigma > 0))
    if not bool(used.any()):
        raise required("diffuse", "at least one point with an intensity", "none")
    chosen = used.nonzero()[:, 0]
    start = start_of(settings, model)
    model.rebuild(start)
    model.simulator = replace(model.simulator, batch=JACOBIAN_BATCH)
    specs, notes = _specs(settings, start, len(crystal.rotations) == 1)
    if sigma is None:
        loss = KnownNoise(torch.full_like(intensity, float(intensity[chosen].square().mean().sqrt()))[chosen])
        loss.is_likelihood = False
        notes.append(NO_SIGMA)
    else:
        loss = KnownNoise(sigma[chosen])
    digest = hashlib.sha256(intensity.numpy().tobytes()).hexdigest()
    return DiffuseProblem(
        settings,
        crystal,
        Observation(intensity.numpy(), used.numpy(), digest, path),
        MaskedModel(model, chosen),
        Parameters(specs, _restraints(settings, start)),
        loss,
        _truth(settings, true_xyz, {s.name for s in specs}),
        true_xyz,
        notes,
    )


def forward_model(settings: Settings) -> tuple[DiffuseModel, CrystalModel]:
    """The map that an experiment compares with, and the atomic model as read.

    Its points are those of the observed map, or of the configuration, or random ones.

    Raises:
        InputError: for whatever is wrong with the configuration or the files.
    """
    crystal = open_model(settings.model)
    fit, diffuse = settings.diffuse_fit, settings.diffuse
    points = None
    if fit.map is not None:
        points = points_of(read_map(existing_file(fit.map, "diffuse_fit.map")), crystal, zone_rates(diffuse))
    elif diffuse.q_file is None and diffuse.sampling.h is None:
        generator = torch.Generator().manual_seed(settings.seed + 1)
        direction = torch.randn(fit.points, 3, dtype=torch.float64, generator=generator)
        length = fit.q_max * torch.rand(fit.points, 1, dtype=torch.float64, generator=generator) ** (1 / 3)
        q = direction / direction.norm(dim=-1, keepdim=True) * length
        hkl = miller_indices(q, torch.from_numpy(np.ascontiguousarray(crystal.basis)))
        points = Points(q, hkl, (len(q), 1, 1), None, zone_rates(diffuse))
    dtype = getattr(torch, settings.dtype)
    model = DiffuseModel(crystal, diffuse, settings.model.adp, settings.model.use_occupancy, dtype, points)
    return model, crystal


def start_of(settings: Settings, model: DiffuseModel) -> Float[Tensor, "atoms 3"]:
    """Coordinates that the refinement starts from [A]: the model's, disturbed where the configuration says so."""
    xyz, disturb = model.structure.xyz, settings.diffuse_fit.disturb_A
    if disturb == 0:
        return xyz
    generator = torch.Generator().manual_seed(settings.seed + 2)
    shift = torch.randn(xyz.shape, dtype=xyz.dtype, generator=generator)
    return xyz + disturb * shift / shift.square().sum(-1).mean().sqrt()


def _data(settings: Settings, model: DiffuseModel) -> tuple[Tensor, Tensor | None, Tensor | None, Path | None]:
    """Intensities of the points that are kept, their uncertainties, the true coordinates, the file."""
    fit = settings.diffuse_fit
    if fit.map is not None:
        path = existing_file(fit.map, "diffuse_fit.map")
        observed = read_map(path)
        intensity = torch.from_numpy(np.where(observed.used(), observed.intensity, np.nan)).double()[model.kept]
        sigma = None if observed.sigma is None else torch.from_numpy(observed.sigma).double()[model.kept]
        return intensity, sigma, None, path
    values = {n: v for n, v in fit.truth.model_dump().items() if v is not None}
    if len(values) < 2:
        raise required("diffuse_fit.truth", "gamma_intra and gamma_inter (or a map in diffuse_fit.map)", "null")
    exact = model({n: torch.tensor(v, dtype=torch.float64) for n, v in values.items()})
    generator = torch.Generator().manual_seed(settings.seed)
    noise = torch.randn(exact.shape, dtype=torch.float64, generator=generator)
    return exact * (1 + fit.noise * noise), (fit.noise or 1e-6) * exact, model.structure.xyz, None


def _specs(settings: Settings, start: Tensor, free_origin: bool) -> tuple[list[ParameterSpec], list[str]]:
    fit = settings.diffuse_fit
    free, notes = set(fit.free), []
    if "scale" in free and {"gamma_intra", "gamma_inter"} & free:
        free.discard("gamma_inter")
        notes.append(RATIO)
    if "xyz" in free and free_origin:
        notes.append(ORIGIN)
    specs = []
    for name in ("gamma_intra", "gamma_inter"):
        value = torch.tensor([getattr(fit.initial, name)], dtype=torch.float64).log()
        specs.append(ParameterSpec("log_" + name, value, free=name in free))
    one = torch.ones(1, dtype=torch.float64)
    specs.append(ParameterSpec("scale", one, free="scale" in free, lower=0.0 if "scale" in free else None))
    if "xyz" in free:
        flat = start.flatten()
        declare("xyz", tuple(f"{n}_{c}" for n in range(len(start)) for c in "xyz"))
        specs.append(ParameterSpec("xyz", flat, scale=0.1, free=True))
    return specs, notes


def _restraints(settings: Settings, start: Tensor) -> dict[str, ElasticNetwork]:
    restraint = settings.diffuse_fit.restraint
    if restraint.sigma_A is None or "xyz" not in settings.diffuse_fit.free:
        return {}
    return {"xyz": ElasticNetwork(start, restraint.cutoff_A, restraint.sigma_A)}


def _truth(settings: Settings, true_xyz: Tensor | None, names: set[str]) -> dict[str, float]:
    known = {n: v for n, v in settings.diffuse_fit.truth.model_dump().items() if v is not None}
    truth = {"log_" + n: float(np.log(v)) for n, v in known.items()}
    if "scale" in settings.diffuse_fit.free:
        return {}
    if true_xyz is not None and "xyz" in names:
        truth |= dict(zip(labels("xyz"), true_xyz.flatten().tolist(), strict=True))
    return truth
