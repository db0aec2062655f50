"""The stage that finds where a refinement starts, if the configuration says ``initial.misset_deg=search``."""

import math
import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from refine.data.frames import Frame
from refine.errors import required
from refine.experiment.builders import tensor
from refine.fit.losses import Gaussian
from refine.settings.fit import Parameter, Schedule
from refine.stages.arbitration import Misset, overlap, ranked
from refine.stages.orientation import NothingFoundError, find_orientation
from refine.terms.bragg import SampledSpots
from refine.terms.model import Model
from refine.threads import SMALL
from sim_core.bragg.closed_form import Blocks

FAR = 0.1
"""Overlap of the start and the image below which the start is far."""

UNDECIDED = 10.0
"""Scores that differ by less do not tell two solutions apart."""


@dataclass(frozen=True)
class Search:
    """The stage that looks for orientations: everywhere where ``initial.misset_deg`` says so, or around the start.

    Around the start it is looked always, or where the start is far, and the start stays where nothing is found.

    Attributes:
        schedule: How far, and when.
        shared: Whether all images have one orientation: those after the first start where the first does.
        limits: How the misset is refined.
        background_known: Whether the background of the start is to be believed.
        blocks: Interference function that the last few candidates are compared with.
        readout: Read-out noise [photons].
        d_min: Resolution limit [A]; zero for none.
        differentiable: Whether the model of the refinement has slopes.
    """

    schedule: Schedule
    shared: bool
    limits: Parameter
    background_known: bool
    blocks: Blocks
    readout: float
    d_min: float
    differentiable: bool

    def __call__(self, frames: list[Frame]) -> list[Frame]:
        """Frames with the orientations that were found, and reports of the searches.

        Raises:
            NothingFoundError: if nothing was found.
            InputError: if what was found lies outside the bounds of the misset.
        """
        found: list[Frame] = []
        for frame in frames:
            if found and self.shared:
                found.append(_started(frame, found[0].initial["misset_deg"]))
            else:
                found.append(self.oriented(frame))
        return found

    def oriented(self, frame: Frame) -> Frame:
        """One frame."""
        everywhere, radius = "misset_deg" in frame.words, self.schedule.capture_deg
        if not everywhere and (radius == 0 or not self.limits.free):
            return frame
        start = time.perf_counter()
        given: Misset = tuple(frame.initial["misset_deg"].tolist())
        near: Misset | None = given
        if everywhere:
            near = tuple(frame.truth["misset_deg"]) if "misset_deg" in frame.truth else None
        if not everywhere and self.schedule.when == "far" and overlap(frame) > FAR:
            return frame
        assert isinstance(frame.model, Model) and frame.picture is not None
        within = None if everywhere else radius
        try:
            with torch.no_grad():
                experiment = frame.model.experiment(frame.initial, everywhere=True)
                found = find_orientation(experiment, frame.picture, self.d_min, near, within, self.blocks)
        except NothingFoundError as error:
            if everywhere:
                raise
            return _reported(frame, error.search | {"within_deg": radius, "taken": False})
        if frame.model.evaluations < SMALL and self.differentiable:
            loss = Gaussian(self.readout)
            other = isinstance(frame.model.terms["spots"], SampledSpots)  # the closed form was fitted already
            found = found.decided(lambda close: ranked(frame, close, loss, self.background_known), other)
        report = found.report | {"wall_s": time.perf_counter() - start}
        allowed = _inside(found.misset_deg, self.limits)
        if not everywhere:
            report |= {"within_deg": radius, "taken": allowed}
        if not allowed:
            if everywhere:
                wanted = "bounds that hold what the search found"
                raise required("parameters.misset_deg", wanted, list(found.misset_deg))
            return _reported(frame, report)
        return _reported(_started(frame, tensor(found.misset_deg)), report)


def _started(frame: Frame, misset_deg: Tensor) -> Frame:
    return replace(frame, initial={**frame.initial, "misset_deg": misset_deg})


def _reported(frame: Frame, report: dict[str, Any]) -> Frame:
    return replace(frame, entries={**frame.entries, "search": report})


def _inside(misset_deg: Misset, limits: Parameter) -> bool:
    lower = -math.inf if limits.lower is None else limits.lower
    upper = math.inf if limits.upper is None else limits.upper
    return all(lower <= angle <= upper for angle in misset_deg)


def describe(report: dict[str, Any]) -> str:
    """The one line that is printed."""
    second = report["runner_up_score"]
    if not report.get("taken", True):
        within_bounds = " within the bounds" if report["best_score"] > report["significant_score"] else ""
        return f"search within {report['within_deg']:g} deg: nothing found{within_bounds}, the start stays"
    kind = f"search within {report['within_deg']:g} deg" if "within_deg" in report else "search"
    close = second is not None and report["best_score"] - second < UNDECIDED
    return (
        f"{kind}: score {report['best_score']:.4g}, runner-up {'none' if second is None else f'{second:.4g}'}"
        f"{' (the image hardly tells the two apart)' if close else ''}; "
        f"{report['orientations']} orientations, each {report['symmetry_rotations']} times by symmetry; "
        f"{report['wall_s']:.1f} s"
    )
