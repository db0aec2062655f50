"""The stage that estimates scale and background of the start where the configuration says ``estimate``."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from refine.data.frames import Frame
from refine.errors import InputError
from refine.experiment.builders import tensor
from refine.terms.model import Model


@dataclass(frozen=True)
class Estimate:
    """The median background, and the scale that gives the spots their total."""

    def __call__(self, frames: list[Frame]) -> list[Frame]:
        """Frames with numbers in place of words."""
        return [replace(frame, initial=self.estimated(frame)) for frame in frames]

    @torch.no_grad()
    def estimated(self, frame: Frame) -> Mapping[str, Tensor]:
        """Of one frame.

        Raises:
            InputError: if the model has no spot on the detector.
        """
        model, values, observed = frame.model, dict(frame.initial), frame.photons
        assert isinstance(model, Model)
        model.prepare(values)
        columns = model.summed(values, model.sites)
        if model.planes is not None:
            values["background"], under = tensor(1.0), model.planes.rim
        else:
            profile = columns["background"].sum(-1)
            if "background" in frame.words:
                level = (observed / profile).median().clamp_min(0.0)
                values["background"] = level.expand(values["background"].shape)
            under = values["background"].reshape(-1)[0] * profile
        if "scale" in frame.words:
            values["scale"] = ((observed - under).sum() / columns["scale"].sum()).clamp_min(1e-6)
        if not all(torch.isfinite(v).all() for v in values.values()):
            raise InputError("initial: expected finite values; the model has no spot on this detector")
        return values
