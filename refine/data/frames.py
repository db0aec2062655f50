"""Several images of one crystal at once: parameters that they share, and parameters that each has of its own."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from refine.data.observation import Observation
from refine.errors import required
from refine.parameters.parameters import COMPONENTS, Parameters, ParameterSpec, declare, labels
from refine.settings.schema import Settings
from refine.terms.bragg import LINEAR

if TYPE_CHECKING:
    from refine.build import Problem

ESTIMATED = ("scale", "background")
"""Parameters whose starting values come from each image; shared ones start from the mean."""


def separate(settings: Settings) -> list[Settings]:
    """The configuration of each image; lists of ``data.image``, ``data.frame`` and ``scan.phi_start_deg`` name them.

    Raises:
        InputError: if two lists differ in length, or one is empty.
    """
    named = {
        "data.image": settings.data.image,
        "data.frame": settings.data.frame,
        "scan.phi_start_deg": settings.scan.phi_start_deg,
    }
    lists = {field: value for field, value in named.items() if isinstance(value, list)}
    lengths = {field: len(value) for field, value in lists.items()}
    for field, length in lengths.items():
        if length == 0:
            raise required(field, "at least one value", "none")
        if length != max(lengths.values()):
            raise required(field, f"one value, or one for each of {max(lengths.values())} images", length)
    found = []
    for index in range(max(lengths.values(), default=1)):
        image, frame, phi = (v[index] if isinstance(v, list) else v for v in named.values())
        data = settings.data.model_copy(update={"image": image, "frame": frame})
        scan = settings.scan.model_copy(update={"phi_start_deg": phi})
        found.append(settings.model_copy(update={"data": data, "scan": scan, "seed": settings.seed + index}))
    return found


class Several(nn.Module):
    """Models of several images, one after the other.

    Args:
        models: Of each image: functions of the values of its parameters.
        own: Names and components of the parameters that each image has of its own.
    """

    def __init__(self, models: Sequence[nn.Module], own: Mapping[str, tuple[str, ...]]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)
        self.own = dict(own)

    @property
    def each(self) -> list[Any]:
        """The models."""
        return list(self.models)

    def of(self, values: Mapping[str, Tensor], index: int) -> dict[str, Tensor]:
        """Values of one image's parameters."""
        found = dict(values)
        for name, components in self.own.items():
            mine = values[name].reshape(len(self.models), -1)[index]
            found[name] = mine if components else mine[0]
        return found

    def forward(self, values: Mapping[str, Tensor]) -> Float[Tensor, "n"]:
        """Expected photons."""
        return torch.cat([model(self.of(values, i)) for i, model in enumerate(self.each)])

    def prepare(self, values: Mapping[str, Tensor]) -> None:
        """Let each model choose what depends on the values and carries no derivative."""
        for index, model in enumerate(self.each):
            model.prepare(self.of(values, index))


class SeveralImages(Several):
    """The forward models of several images."""

    linear = LINEAR

    def parts(self, values: Mapping[str, Tensor]) -> Float[Tensor, "n parts"]:
        """Photons for each unit of the linear parameters; those of one image are zero in the others."""
        images = [model.parts(self.of(values, i)) for i, model in enumerate(self.each)]
        columns = []
        for name, at in zip(self.linear, (slice(0, 1), slice(1, None)), strict=True):
            blocks = [image[:, at] for image in images]
            columns.append(torch.block_diag(*blocks) if name in self.own else torch.cat(blocks))
        return torch.cat(columns, -1)

    @property
    def least(self) -> Float[Tensor, "n"] | None:
        """Fewest photons that are expected; ``None`` for any."""
        found = [model.least for model in self.each if model.least is not None]
        return torch.cat(found) if found else None

    @property
    def pixels(self) -> Tensor:
        """Indices (slow, fast) of the pixels of all images."""
        return torch.cat([model.pixels for model in self.each])

    @property
    def evaluations(self) -> int:
        """Terms of all sums."""
        return sum(model.evaluations for model in self.each)

    def described(self) -> dict[str, Any]:
        """What the simulators are."""
        return {"images": len(self.models), **self.each[0].described()}


def join(problems: Sequence["Problem"], settings: Settings) -> "Problem":
    """One problem of all images.

    Args:
        problems: Of each image.
        settings: With the lists of images.

    Raises:
        InputError: if images differ in the start of a parameter that they share.
    """
    own = {n: COMPONENTS[n] for n in problems[0].parameters.specs if getattr(settings.parameters, n).per_image}
    truth: dict[str, float] = {}
    for number, problem in enumerate(problems, 1):
        mine = {label for name in own for label in labels(name)}
        truth |= {f"{k}_{number}" if k in mine else k: v for k, v in problem.truth.items()}
    specs = {n: [p.parameters.specs[n] for p in problems] for n in problems[0].parameters.specs}
    numbers = range(1, len(problems) + 1)
    for name, components in own.items():
        declare(name, tuple(f"{c}_{i}" if c else f"{i}" for i in numbers for c in components or ("",)))
    joined = [_own(found) if name in own else _shared(found) for name, found in specs.items()]
    first = problems[0].settings
    scan = first.scan.model_copy(update={"phi_start_deg": [p.settings.scan.phi_start_deg for p in problems]})
    complete = first.model_copy(update={"data": settings.data, "scan": scan})
    return replace(
        problems[0],
        settings=complete,
        observation=_together([p.observation for p in problems]),
        model=SeveralImages([p.model for p in problems], own),
        parameters=Parameters(joined),
        truth=truth,
        search=None,
        geometry=_rows([p.geometry for p in problems]),
        images=tuple(problems),
    )


def _rows(tables: Sequence[list[tuple[str, str, str, str]]]) -> list[tuple[str, str, str, str]]:
    """The first image's rows, and what is different in others."""
    first, *others = tables
    more = [(i, row) for i, rows in enumerate(others, 2) for row in rows if row not in first]
    return first + [(f"{row[0]} (image {i})", *row[1:]) for i, row in more]


def _own(specs: Sequence[ParameterSpec]) -> ParameterSpec:
    """One after the other."""
    size, first = len(specs[0].initial), specs[0]
    ties = None if first.ties is None else torch.block_diag(*[s.ties for s in specs if s.ties is not None])
    priors = [tuple(v.expand(size) for v in s.prior) for s in specs if s.prior is not None]
    prior = (torch.cat([m for m, _ in priors]), torch.cat([s for _, s in priors])) if priors else None
    return replace(first, initial=torch.cat([s.initial for s in specs]), ties=ties, prior=prior)


def _shared(specs: Sequence[ParameterSpec]) -> ParameterSpec:
    starts = torch.stack([s.initial for s in specs])
    name = specs[0].name
    if name in ESTIMATED:
        return replace(specs[0], initial=starts.mean(0))
    if not torch.allclose(starts, starts[:1].expand_as(starts), rtol=1e-6, atol=1e-9):
        wanted = f"the same for all images, or parameters.{name}.per_image=true"
        raise required(name, wanted, " and ".join(str([round(x, 6) for x in s]) for s in starts.tolist()))
    return specs[0]


def _together(observations: Sequence[Observation]) -> Observation:
    photons = torch.cat([o.observed() for o in observations]).numpy()
    digest = hashlib.sha256("".join(o.sha256 for o in observations).encode()).hexdigest()
    return Observation(photons, np.ones(photons.shape, dtype=bool), digest)


def montage(frames: Sequence[np.ndarray]) -> np.ndarray:
    """Frames beside each other, in as many rows as columns where that fits, NaN between them."""
    columns = int(np.ceil(np.sqrt(len(frames))))
    height, width = (max(f.shape[axis] for f in frames) for axis in (0, 1))
    gap = 1 if len(frames) > 1 else 0
    whole = np.full((-(-len(frames) // columns) * (height + gap) - gap, columns * (width + gap) - gap), np.nan)
    for index, frame in enumerate(frames):
        row, column = divmod(index, columns)
        top, left = row * (height + gap), column * (width + gap)
        whole[top : top + frame.shape[0], left : left + frame.shape[1]] = frame
    return whole
