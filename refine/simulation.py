"""Forward simulation: what a refinement would compare with, without noise."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from refine.build.assemble import stages
from refine.build.images import ImageBuilder
from refine.build.maps import MapBuilder
from refine.build.values import spread_out
from refine.data.frames import sources
from refine.errors import required
from refine.formats import images, maps
from refine.report.files import cbf_header, smv_header
from refine.settings.schema import Settings
from refine.terms.model import Model

IMAGES = (".img", ".smv", ".cbf", ".npy")
"""Endings of the images that can be written."""


@torch.no_grad()
def simulate(settings: Settings) -> Path:
    """Simulate the images or the diffuse map of an experiment and write it to ``output``.

    ``simulate.values`` says at which values: those ``given`` under ``crystal``, ``detector``, ``beam`` and ``diffuse``;
    those of the ``truth``, with its mosaic blocks; or the ``initial`` ones.

    Raises:
        InputError: for whatever is wrong with the configuration or the files.
    """
    if settings.output is None:
        raise required("output", "the path of the file to write", "null")
    path = Path(settings.output).expanduser()
    endings = maps.ENDINGS if settings.of_a_map else IMAGES
    if path.suffix.lower() not in endings:
        raise required("output", f"a file with an ending of {', '.join(endings)}", settings.output)
    if settings.of_a_map:
        _simulate_map(settings, path)
    else:
        _simulate_images(settings, path)
    return path


def _simulate_images(settings: Settings, path: Path) -> None:
    """Counts of whole frames: gain times photons plus offset; those of several images are numbered."""
    truth, chosen = settings.truth, settings.simulate.values
    if chosen == "truth" and None in (truth.misset_deg, truth.mosaic_spread_deg):
        raise required("truth", "misset_deg and mosaic_spread_deg to simulate with", "null")
    builders = [ImageBuilder(settings, source) for source in sources(settings)]
    if chosen == "initial":
        frames = [builder.frame() for builder in builders]
        for stage in stages(settings):
            frames = stage(frames)
        values: list[Mapping[str, Tensor]] = [frame.initial for frame in frames]
    else:
        values = [_values(builder, chosen) for builder in builders]
    for builder, own in zip(builders, values, strict=True):
        target = path.with_stem(f"{path.stem}_{builder.source.index + 1}") if len(builders) > 1 else path
        model = builder.model(builder.whole(), of_truth=chosen == "truth")
        model.prepare(own)
        _write(builder, model, own, target)


def _values(builder: ImageBuilder, chosen: str) -> dict[str, Tensor]:
    """Given or true values."""
    given = {n: spread_out(v, builder.components[n]) for n, v in builder.fixed.items()}
    return given if chosen == "given" else given | dict(builder.known)


def _write(builder: ImageBuilder, model: Model, values: Mapping[str, Tensor], path: Path) -> None:
    fast, slow = builder.setup.instrument.panel.pixels
    data, experiment = builder.settings.data, model.experiment(values)
    counts = model(values).double().numpy().reshape(slow, fast) * data.gain + data.adc_offset
    match path.suffix.lower():
        case ".npy":
            images.write_numpy(path, counts)
        case ".cbf":
            images.write_cbf(path, counts, cbf_header(builder.setup.instrument, values, experiment))
        case _:
            images.write_smv(path, counts, smv_header(builder.setup.instrument, values, experiment))


def _simulate_map(settings: Settings, path: Path) -> None:
    builder, chosen = MapBuilder(settings), settings.simulate.values
    said = {"given": settings.diffuse, "truth": settings.truth, "initial": settings.initial}[chosen]
    springs = {name: getattr(said, name) for name in ("gamma_intra", "gamma_inter")}
    if chosen == "truth" and None in springs.values():
        raise required("truth", "gamma_intra and gamma_inter to simulate with", "null")
    values = {**(builder.known if chosen != "initial" else builder.fixed)}
    values |= {n: torch.tensor(v, dtype=torch.float64) for n, v in springs.items() if v is not None}
    values["scale"] = torch.ones((), dtype=torch.float64)
    maps.write_map(path, builder.intensities(values))
