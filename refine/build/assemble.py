"""Frames, stages, parameters and objectives of a configuration."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from torch import Tensor

from refine.build.images import ImageBuilder
from refine.build.maps import MapBuilder
from refine.build.values import Components, by_label, check_start
from refine.data.frames import Frame, sources
from refine.errors import InputError, required
from refine.experiment.builders import tensor
from refine.fit.losses import KnownNoise, Loss, MeanSquare
from refine.fit.objective import Objective
from refine.fit.refinement import Refinement
from refine.parameters.cells import cell_ties
from refine.parameters.parameters import Parameters
from refine.parameters.restraints import ElasticNetwork
from refine.parameters.spec import ParameterSpec
from refine.settings.schema import Settings
from refine.stages.boxes import Boxes
from refine.stages.capture import captures
from refine.stages.estimate import Estimate
from refine.stages.search import Search
from sim_core.bragg.closed_form import BLOCKS, GAUSSIAN

Stage = Callable[[list[Frame]], list[Frame]]

ESTIMATED = ("scale", "background", "ice")
"""Parameters whose starting values come from each image; shared ones start from the mean."""

RATIO = "scale is free: only gamma_intra/gamma_inter is determined, so gamma_inter is held at its initial value"
NO_SIGMA = "the map has no uncertainties: all points weigh the same, and refined values have none either"
ORIGIN = "the origin of P 1 is free: errors of coordinates are relative to their mean shift"


def build(settings: Settings) -> Refinement:
    """Read or simulate the data, set up their models, find where the refinement starts.

    Raises:
        InputError: for whatever is wrong with the configuration or the files.
        NothingFoundError: if an orientation search finds nothing.
    """
    frames, named = _map(settings) if settings.of_a_map else _images(settings)
    specs = [_spec(settings, name, frames, named) for name in frames[0].initial]
    if not any(spec.free for spec in specs):
        raise required("parameters", "at least one with free=true", "none")
    parameters = Parameters(specs, _restraints(settings, frames, specs), len(frames))
    check_start(frames[0].initial, parameters.free)
    if settings.crystal.shape == "tophat" and not {"scale", "background", "ice"} >= set(parameters.free):
        raise required("crystal.shape", "square, round or gauss to refine (a top hat has no slope)", "tophat")
    last = Objective([frame.model for frame in frames], _loss(settings, frames))
    objectives, choice = [last], settings.schedule
    if choice.inflation_deg and "misset_deg" in parameters.free and not settings.of_a_map:
        dtype = getattr(torch, settings.dtype)
        how = (settings.simulator, dtype, choice.inflation_deg, choice.steps)
        objectives = [*captures(frames, parameters, *how), last]
    make_optimizer = from_config("optimizer", settings.optimizer, _partial_=True)
    truth, notes = _truth(settings, frames, named), _notes(settings, frames, parameters)
    return Refinement(frames, parameters, objectives, make_optimizer, truth, notes)


def _map(settings: Settings) -> tuple[list[Frame], Components]:
    builder = MapBuilder(settings)
    return [builder.frame()], builder.components


def _images(settings: Settings) -> tuple[list[Frame], Components]:
    builders = [ImageBuilder(settings, source) for source in sources(settings)]
    frames = [builder.frame() for builder in builders]
    for stage in stages(settings):
        frames = stage(frames)
    return frames, builders[0].components


def stages(settings: Settings) -> list[Stage]:
    """What is done to images before the fit, in this order."""
    data, d_min = settings.data, settings.simulator.d_min_A
    misset, background = settings.parameters.misset_deg, settings.parameters.background
    planes = settings.simulator.background == "planes"
    known = settings.initial.background != "estimate" and not background.free and not planes
    search = Search(
        schedule=settings.schedule,
        shared=not misset.per_image,
        limits=misset,
        background_known=known,
        blocks=BLOCKS.get(settings.crystal.shape, GAUSSIAN),
        readout=data.readout / data.gain,
        d_min=d_min,
        differentiable=settings.crystal.shape != "tophat",
    )
    found: list[Stage] = [search]
    if planes or data.pixels == "boxes":
        found.append(Boxes(data.box_px, data.box_reach, d_min, planes))
    return [*found, Estimate()]


def _loss(settings: Settings, frames: Sequence[Frame]) -> Loss:
    """Squared residuals over the variances of a map, or that of the configuration."""
    if settings.of_a_map:
        return KnownNoise(frames[0].observation.sigma is not None)
    loss: Loss = from_config("loss", settings.loss, readout=settings.data.readout / settings.data.gain)
    if isinstance(loss, MeanSquare):
        loss.points = sum(len(frame.photons) for frame in frames)
    return loss


def _spec(settings: Settings, name: str, frames: Sequence[Frame], named: Components) -> ParameterSpec:
    """How one parameter is refined, and where it starts."""
    choice = getattr(settings.parameters, name)
    eliminated = name == "background" and settings.simulator.background == "planes"
    held = name == "gamma_inter" and _only_ratio(settings)
    free = choice.free and not eliminated and not held
    starts = torch.stack([frame.initial[name].reshape(-1) for frame in frames])
    initial = starts if choice.per_image and len(frames) > 1 else _common(name, starts)
    prior = None
    if choice.prior is not None:
        mean = initial if choice.prior.mean is None else tensor(choice.prior.mean).reshape(-1)
        sigma = tensor(choice.prior.sigma).reshape(-1)
        if any(v.shape[-1] not in (1, starts.shape[1]) for v in (mean, sigma)):
            wanted = f"one number or {starts.shape[1]}"
            raise required(f"parameters.{name}.prior", wanted, f"{mean.shape[-1]} and {len(sigma)}")
        prior = (mean, sigma)
    lower, upper = (choice.lower, choice.upper) if free else (None, None)
    ties = None
    if name == "cell" and free:
        field = "crystal.cell" if settings.initial.cell is None else "initial.cell"
        ties = cell_ties(starts[0], settings.crystal.system, field)
    return ParameterSpec(name, initial, choice.scale, free, lower, upper, prior, ties, named[name])


def _common(name: str, starts: Tensor) -> Tensor:
    """The start that all frames share."""
    if name in ESTIMATED:
        return starts.mean(0)
    if not torch.allclose(starts, starts[:1].expand_as(starts), rtol=1e-6, atol=1e-9):
        wanted = f"the same for all images, or parameters.{name}.per_image=true"
        raise required(name, wanted, " and ".join(str([round(x, 6) for x in s]) for s in starts.tolist()))
    return starts[0]


def _restraints(
    settings: Settings, frames: Sequence[Frame], specs: Sequence[ParameterSpec]
) -> dict[str, ElasticNetwork]:
    """Distances of neighbours: as the refinement starts, or as the model's file has them, undisturbed."""
    restraint = settings.parameters.xyz.restraint
    found = [spec for spec in specs if spec.name == "xyz" and spec.free]
    if restraint.sigma_A is None or not found:
        return {}
    kept = found[0].initial.reshape(-1, 3)
    if restraint.to == "file":
        atoms = frames[0].model.sample.atoms  # type: ignore[union-attr]
        kept = torch.from_numpy(np.ascontiguousarray(atoms.file.xyz))  # type: ignore[union-attr]
    return {"xyz": ElasticNetwork(kept, restraint.cutoff_A, restraint.sigma_A)}


def _only_ratio(settings: Settings) -> bool:
    """Whether nothing but the ratio of the spring constants is determined."""
    choice = settings.parameters
    return settings.of_a_map and choice.scale.free and (choice.gamma_intra.free or choice.gamma_inter.free)


def _notes(settings: Settings, frames: Sequence[Frame], parameters: Parameters) -> list[str]:
    """What the data cannot determine, known beforehand."""
    if not settings.of_a_map:
        return []
    found = [RATIO] if _only_ratio(settings) else []
    if "xyz" in parameters.free and frames[0].model.sample.atoms.free_origin:  # type: ignore[union-attr]
        found.append(ORIGIN)
    return found + [NO_SIGMA] * (frames[0].observation.sigma is None)


def _truth(settings: Settings, frames: Sequence[Frame], named: Components) -> dict[str, float]:
    """Known values by label; those of a parameter that each frame has of its own end with its number."""
    if settings.of_a_map and settings.parameters.scale.free:
        return {}
    found: dict[str, float] = {}
    for frame in frames:
        for name, value in frame.truth.items():
            own = len(frames) > 1 and getattr(settings.parameters, name).per_image
            end = f"_{frame.index + 1}" if own else ""
            found |= {label + end: number for label, number in by_label({name: value}, named).items()}
    return found


def from_config(field: str, config: Mapping[str, Any], **extra: Any) -> Any:
    """The object that a section with a ``_target_`` describes.

    Raises:
        InputError: if there is none, or it cannot be made.
    """
    if "_target_" not in config:
        raise required(field, "a _target_", config)
    try:
        return instantiate(config, **extra)
    except Exception as error:
        raise InputError(f"{field}: {str(error.__cause__ or error).strip().splitlines()[0]}") from None
