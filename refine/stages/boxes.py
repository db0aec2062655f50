"""The stage that keeps pixels around predicted spots only, with planes of background under them if wanted."""

from dataclasses import dataclass, replace

import torch

from refine.data.frames import Frame
from refine.errors import required
from refine.terms.model import Model
from refine.terms.planes import BoxPlanes, box_of_each_pixel


@dataclass(frozen=True)
class Boxes:
    """Pixels outside the boxes of spots that the start predicts are not used.

    Attributes:
        half_width: Pixels on either side of the pixel that holds a spot.
        reach: Largest excitation error of a spot [standard deviations].
        d_min: Resolution limit [A]; zero for none.
        planes: Whether there is a plane of background under each box.
    """

    half_width: int
    reach: float
    d_min: float
    planes: bool

    def __call__(self, frames: list[Frame]) -> list[Frame]:
        """Frames with fewer pixels."""
        return [self.boxed(frame) for frame in frames]

    @torch.no_grad()
    def boxed(self, frame: Frame) -> Frame:
        """One frame.

        Raises:
            InputError: if there is no spot on the detector.
        """
        model, picture = frame.model, frame.picture
        assert isinstance(model, Model) and picture is not None
        owner = box_of_each_pixel(model.experiment(frame.initial), self.half_width, self.d_min, self.reach)
        used = picture.used & (owner >= 0)
        if not used.any():
            raise required("data.pixels", "a start that predicts spots on the detector for boxes", "none")
        under = BoxPlanes(picture.photons, picture.used, owner) if self.planes else None
        inside = replace(picture, used=used)
        moved = model.at(inside.pixels(), under)
        return replace(frame, picture=inside, observation=inside.observation(), model=moved)
