"""Frames: an image, or a map, with the model that explains it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from refine.data.observation import Observation, Picture
from refine.errors import required
from refine.settings.schema import Settings


@dataclass(frozen=True)
class Source:
    """Where one frame comes from.

    Attributes:
        index: Its place among the frames, from 0.
        image: The file; ``None`` to simulate one.
        frame: Which image of a file of several.
        phi_start_deg: Where its rotation starts; ``None`` for what its header says.
    """

    index: int
    image: str | None
    frame: int
    phi_start_deg: float | None


def sources(settings: Settings) -> list[Source]:
    """The frames that lists of ``data.image``, ``data.frame`` and ``scan.phi_start_deg`` name.

    Raises:
        InputError: if two lists differ in length, or one is empty.
    """
    named: dict[str, Any] = {
        "data.image": settings.data.image,
        "data.frame": settings.data.frame,
        "scan.phi_start_deg": settings.scan.phi_start_deg,
    }
    lengths = {name: len(value) for name, value in named.items() if isinstance(value, list)}
    for name, length in lengths.items():
        if length == 0:
            raise required(name, "at least one value", "none")
        if length != max(lengths.values()):
            raise required(name, f"one value, or one for each of {max(lengths.values())} images", length)
    count = max(lengths.values(), default=1)
    columns = [value if isinstance(value, list) else [value] * count for value in named.values()]
    return [Source(index, *row) for index, row in enumerate(zip(*columns, strict=True))]


@dataclass(frozen=True)
class Frame:
    """Everything of one image, or of a map.

    Attributes:
        index: Its place among the frames.
        model: Expected photons of the sites of the observation.
        observation: What was seen there.
        initial: Values of all parameters where the refinement starts.
        words: Those that the configuration leaves to a stage: ``search``, ``estimate``.
        truth: Known values.
        picture: The whole image; ``None`` for a map.
        rows: What came from the header, to show.
        entries: What stages left, for results.json.
    """

    index: int
    model: nn.Module
    observation: Observation
    initial: Mapping[str, Tensor] = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)
    truth: Mapping[str, Any] = field(default_factory=dict)
    picture: Picture | None = None
    rows: Sequence[tuple[str, str, str, str]] = ()
    entries: Mapping[str, Any] = field(default_factory=dict)

    @property
    def photons(self) -> Tensor:
        """The data in a row."""
        return self.observation.photons

    def on_whole(self, photons: Tensor) -> Tensor:
        """Values of the sites on the whole image [slow, fast], NaN elsewhere."""
        assert self.picture is not None
        whole = torch.full(self.picture.used.shape, torch.nan, dtype=torch.float64)
        whole[torch.from_numpy(self.picture.used)] = photons.detach().cpu().double()
        return whole


class Frames(L.LightningDataModule):
    """One batch an epoch, of the numbers of all frames: every step sees all of them.

    Args:
        count: How many frames there are.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def train_dataloader(self) -> DataLoader[Any]:
        """The batch."""
        return DataLoader(range(self.count), batch_size=self.count)  # type: ignore[arg-type]
