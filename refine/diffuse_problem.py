"""From checked settings to the refinement of a diffuse map: data, model, parameters, truth."""

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from refine.datamodule import Observation
from refine.diffuse_model import DiffuseModel, Points, open_model
from refine.errors import required
from refine.formats.maps import read_map
from refine.formats.models import CrystalModel
from refine.losses import KnownNoise
from refine.parameters import Parameters, ParameterSpec, declare, labels
from refine.paths import existing_file
from refine.settings import Settings
from sim_core.diffuse.structure import miller_indices

JACOBIAN_BATCH = 1 << 15
"""Numbers worked on at a time: a Jacobian holds them once for each parameter."""
RATIO = "scale is free: only gamma_intra/gamma_inter is determined, so gamma_inter is held at its initial value"
ORIGIN = "the origin of P 1 is free: errors of coordinates are relative to their mean shift"


class MaskedModel(nn.Module):
    """Intensities of the points that are compared.

    Args:
        model: The whole map.
        chosen: Which of its points.
    """

    def __init__(self, model: DiffuseModel, chosen: Tensor) -> None:
        """Keep what is given."""
        super().__init__()
        self.model = model
        self.chosen = chosen

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
    fit = settings.diffuse_fit
    crystal = open_model(settings.model)
    points = _points(settings, crystal)
    dtype = getattr(torch, settings.dtype)
    model = DiffuseModel(crystal, settings.diffuse, settings.model.adp, settings.model.use_occupancy, dtype, points)
    generator = torch.Generator().manual_seed(settings.seed)
    intensity, sigma, true_xyz, path = _data(settings, model, generator)
    used = torch.isfinite(intensity) & torch.isfinite(sigma) & (sigma > 0)
    if not bool(used.any()):
        raise required("diffuse", "at least one point with an intensity", "none")
    chosen = used.nonzero()[:, 0]
    start = model.structure.xyz
    if fit.disturb_A > 0:
        shift = torch.randn(start.shape, dtype=start.dtype, generator=generator)
        start = start + fit.disturb_A * shift / shift.square().sum(-1).mean().sqrt()
    model.rebuild(start)
    model.simulator = replace(model.simulator, batch=JACOBIAN_BATCH)
    specs, notes = _specs(settings, start, len(crystal.rotations) == 1)
    digest = hashlib.sha256(intensity.numpy().tobytes()).hexdigest()
    return DiffuseProblem(
        settings,
        crystal,
        Observation(intensity.numpy(), used.numpy(), digest, path),
        MaskedModel(model, chosen),
        Parameters(specs),
        KnownNoise(sigma[chosen]),
        _truth(settings, true_xyz, {s.name for s in specs}),
        true_xyz,
        notes,
    )


def _points(settings: Settings, crystal: CrystalModel) -> Points | None:
    """Points of the observed map, or random ones; none where the configuration says which."""
    fit, diffuse = settings.diffuse_fit, settings.diffuse
    basis = torch.from_numpy(np.ascontiguousarray(crystal.basis))
    if fit.map is not None:
        q = torch.from_numpy(read_map(existing_file(fit.map, "diffuse_fit.map")).q_vectors)
    elif diffuse.q_file is None and diffuse.sampling.h is None:
        generator = torch.Generator().manual_seed(settings.seed + 1)
        direction = torch.randn(fit.points, 3, dtype=torch.float64, generator=generator)
        length = fit.q_max * torch.rand(fit.points, 1, dtype=torch.float64, generator=generator) ** (1 / 3)
        q = direction / direction.norm(dim=-1, keepdim=True) * length
    else:
        return None
    return Points(q, miller_indices(q, basis), (len(q), 1, 1), None)


def _data(
    settings: Settings, model: DiffuseModel, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor | None, Path | None]:
    """Intensities of the points that are kept, their uncertainties, the true coordinates, the file."""
    fit = settings.diffuse_fit
    if fit.map is not None:
        path = existing_file(fit.map, "diffuse_fit.map")
        observed = read_map(path)
        intensity = torch.from_numpy(np.where(observed.used(), observed.intensity, np.nan))[model.kept]
        if observed.sigma is not None:
            return intensity, torch.from_numpy(observed.sigma)[model.kept], None, path
        return intensity, torch.full_like(intensity, float(intensity.nan_to_num().square().mean().sqrt())), None, path
    values = {n: v for n, v in fit.truth.model_dump().items() if v is not None}
    if len(values) < 2:
        raise required("diffuse_fit.truth", "gamma_intra and gamma_inter (or a map in diffuse_fit.map)", "null")
    exact = model({n: torch.tensor(v, dtype=torch.float64) for n, v in values.items()})
    sigma = (fit.noise or 1e-6) * exact
    noise = torch.randn(exact.shape, dtype=torch.float64, generator=generator)
    return exact + (sigma * noise if fit.noise else 0), sigma, model.structure.xyz, None


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
        prior = None
        if fit.restraint_A is not None:
            prior = (flat, torch.tensor([fit.restraint_A], dtype=torch.float64))
        specs.append(ParameterSpec("xyz", flat, scale=0.1, free=True, prior=prior))
    return specs, notes


def _truth(settings: Settings, true_xyz: Tensor | None, names: set[str]) -> dict[str, float]:
    known = {n: v for n, v in settings.diffuse_fit.truth.model_dump().items() if v is not None}
    truth = {"log_" + n: float(np.log(v)) for n, v in known.items()}
    if "scale" in settings.diffuse_fit.free:
        return {}
    if true_xyz is not None and "xyz" in names:
        truth |= dict(zip(labels("xyz"), true_xyz.flatten().tolist(), strict=True))
    return truth
