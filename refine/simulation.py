"""Forward simulation: what a refinement would compare with, without noise."""

from pathlib import Path
from typing import Any

import torch

from refine.build import Problem, build_problem
from refine.diffuse_problem import forward_model, start_of
from refine.errors import required
from refine.formats import images, maps
from refine.report.files import cbf_header, smv_header
from refine.settings.schema import Settings
from refine.terms.bragg import BraggModel
from refine.terms.diffuse import as_map

IMAGES = (".img", ".smv", ".cbf", ".npy")
"""Endings of the images that can be written."""


@torch.no_grad()
def simulate(settings: Settings) -> Path:
    """Simulate the image or the diffuse map of an experiment and write it to ``output``.

    ``simulate.values`` says at which values: those ``given`` under ``crystal``, ``detector`` and ``beam``, or under
    ``diffuse``; those of the ``truth``, with its mosaic blocks; or the ``initial`` ones.

    Raises:
        InputError: for whatever is wrong with the configuration or the files.
    """
    if settings.output is None:
        raise required("output", "the path of the file to write", "null")
    path = Path(settings.output).expanduser()
    endings = IMAGES if settings.model.path is None else maps.ENDINGS
    if path.suffix.lower() not in endings:
        raise required("output", f"a file with an ending of {', '.join(endings)}", settings.output)
    if settings.model.path is None:
        _simulate_image(settings, path)
    else:
        _simulate_map(settings, path)
    return path


def _simulate_image(settings: Settings, path: Path) -> None:
    """Counts of whole frames: gain times photons plus offset; those of several images are numbered."""
    joint = build_problem(_source(settings))
    for number, (problem, values) in enumerate(joint.each(joint.parameters()), 1):
        target = path.with_stem(f"{path.stem}_{number}") if joint.images else path
        _write_image(problem, {k: v.detach() for k, v in values.items()}, settings.simulate.values == "truth", target)


def _write_image(problem: Problem, values: dict[str, torch.Tensor], observed: bool, path: Path) -> None:
    model, settings = problem.model, problem.settings
    assert isinstance(model, BraggModel)
    model.prepare(values)
    complete = problem.settings
    assert complete.detector.pixels is not None
    fast, slow = complete.detector.pixels
    if observed:
        photons = problem.observation.photons
    else:
        frame = torch.cartesian_prod(torch.arange(slow), torch.arange(fast))
        photons = model(values, frame).double().numpy().reshape(slow, fast)
    counts = photons * settings.data.gain + settings.data.adc_offset
    experiment = model.experiment(values)
    match path.suffix.lower():
        case ".npy":
            images.write_numpy(path, counts)
        case ".cbf":
            images.write_cbf(path, counts, cbf_header(complete, values, experiment))
        case _:
            images.write_smv(path, counts, smv_header(complete, values, experiment))


def _source(settings: Settings) -> Settings:
    """The refinement that compares with the image that is wanted."""
    only_scale = {n: p.model_copy(update={"free": n == "scale"}) for n, p in settings.parameters}
    settings = settings.model_copy(update={"parameters": settings.parameters.model_copy(update=only_scale)})
    if settings.simulate.values == "given":
        nothing: dict[str, Any] = dict.fromkeys(type(settings.initial).model_fields)
        nothing |= {"misset_deg": (0.0, 0.0, 0.0), "mosaic_spread_deg": 0.0, "scale": 1.0, "background": 0.0}
        return settings.model_copy(update={"initial": settings.initial.model_copy(update=nothing)})
    if settings.simulate.values == "initial":
        return settings
    if None in (settings.truth.misset_deg, settings.truth.mosaic_spread_deg):
        raise required("truth", "misset_deg and mosaic_spread_deg to simulate with", "null")
    if settings.data.image is not None:
        settings = build_problem(settings).settings
    data = settings.data.model_copy(update={"image": None, "noise": "none", "mask": None})
    return settings.model_copy(update={"data": data})


def _simulate_map(settings: Settings, path: Path) -> None:
    model, crystal = forward_model(settings)
    fit, chosen = settings.diffuse_fit, settings.simulate.values
    springs = {"given": settings.diffuse, "truth": fit.truth, "initial": fit.initial}[chosen]
    values = {name: getattr(springs, name) for name in ("gamma_intra", "gamma_inter")}
    if None in values.values():
        raise required(f"diffuse_fit.{chosen}", "gamma_intra and gamma_inter to simulate with", "null")
    tensors = {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}
    if chosen == "initial":
        tensors["xyz"] = start_of(settings, model)
        model.rebuild(tensors["xyz"])
    maps.write_map(path, as_map(model, crystal, model(tensors)))
