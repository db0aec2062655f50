"""What a refinement against images shows and leaves."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from refine.data.frames import Frame
from refine.data.sites import Pixels
from refine.experiment.instrument import Instrument
from refine.fit.callbacks import History
from refine.fit.refinement import Refinement
from refine.formats.images import write_cbf
from refine.formats.orientation import write_mat
from refine.report.atoms import described_atoms, leave_atoms
from refine.report.files import cbf_header
from refine.report.pictures import montage, picture, write_report
from refine.report.report import Report
from refine.report.results import print_geometry, print_table
from refine.settings.schema import Settings
from refine.stages.search import describe
from refine.terms.model import Model
from sim_core.mosaic import SIGMA_PER_SPREAD
from sim_core.rotations import xyz_rotation

SEEN_DEG = 1e-3
"""Mean rotation of the blocks of simulated data that is worth a line [deg]."""


class ImageReport(Report):
    """One image or several."""

    def __init__(self, settings: Settings, refinement: Refinement) -> None:
        super().__init__(settings, refinement)
        self.frames = refinement.frames
        self.several = len(self.frames) > 1

    def begin(self, console: Console) -> None:
        """Searches, and what came from headers."""
        super().begin(console)
        for frame in self.frames:
            if "search" in frame.entries:
                which = f"image {frame.index + 1}: " if self.several else ""
                console.print(which + describe(frame.entries["search"]), soft_wrap=True, highlight=False)
        if self.frames[0].rows:
            print_geometry(console, self._rows())

    def _rows(self) -> list[tuple[str, str, str, str]]:
        """The first image's rows, and what is different in others."""
        first, *others = (frame.rows for frame in self.frames)
        more = [(i, row) for i, rows in enumerate(others, 2) for row in rows if row not in first]
        return [*first, *((f"{row[0]} (image {i})", *row[1:]) for i, row in more)]

    def picture(self, expected: Tensor) -> dict[str, np.ndarray]:
        """Observed and expected photons and their difference."""
        return picture(self._on_frames(self.refinement.observed), self._on_frames(expected))

    def _on_frames(self, photons: Tensor) -> np.ndarray:
        """Values of the pixels that are used on the whole frames, NaN elsewhere."""
        parts = photons.split([len(frame.photons) for frame in self.frames])
        return montage([f.on_whole(part).numpy() for f, part in zip(self.frames, parts, strict=True)])

    def calculated(self) -> np.ndarray:
        """The whole frames at the start."""
        return montage([self._expected(frame, self.start()) for frame in self.frames])

    @torch.no_grad()
    def _expected(self, frame: Frame, vector: Tensor | None = None, part: str | None = None) -> np.ndarray:
        """Expected photons of a whole frame [slow, fast], or those of some of its terms."""
        model, picture = frame.model, frame.picture
        assert isinstance(model, Model) and picture is not None
        values, pixels = self.refinement.refined(vector, frame.index), _every_pixel(picture.used, model)
        photons = model(values, pixels) if part is None else model.part(values, part, pixels)
        whole: np.ndarray = photons.cpu().double().numpy().reshape(picture.used.shape)
        return whole

    @torch.no_grad()
    def _noise(self) -> Tensor:
        """Standard deviation that the loss expects of each pixel."""
        loss = self.refinement.loss
        return torch.cat([(2 / loss.curvature(photons)).sqrt() for photons in self.refinement.expected()])

    def entries(self) -> dict[str, Any]:
        """What the model was, the standard deviation of its misorientations, the mean rotation of blocks."""
        sigma = (SIGMA_PER_SPREAD * self.refinement.refined.table("mosaic_spread_deg")).flatten().tolist()
        seen = [frame.observation for frame in self.frames]
        paths, digests = [None if o.path is None else str(o.path) for o in seen], [o.sha256 for o in seen]
        searches = [frame.entries.get("search") for frame in self.frames]
        found: dict[str, Any] = {
            "model": {"pixels": sum(len(f.photons) for f in self.frames), **self._described()},
            "data": {"path": paths if self.several else paths[0], "sha256": digests if self.several else digests[0]},
            "mosaic_sigma_deg": sigma if len(sigma) > 1 else sigma[0],
            "mean_domain_rotation_deg": self.frames[0].entries["mean_domain_rotation_deg"],
        }
        if any(searches):
            found["search"] = searches if self.several else searches[0]
        return found | described_atoms(self.refinement)

    def _described(self) -> dict[str, Any]:
        return {"images": len(self.frames)} | self.models[0].described() if self.several else self.models[0].described()

    def leave(self, history: History, results: dict[str, Any], before: Any, folder: Path) -> None:
        """Picture, orientation matrix, calculated image and atoms."""
        refined = [self._expected(frame) for frame in self.frames]
        images = {"observed": self._on_frames(self.refinement.observed), "initial": before}
        images["refined"] = montage(refined)
        if self.settings.loss.get("proportional"):
            images["noise"] = self._on_frames(self._noise())
        if "diffuse" in self.models[0].terms:
            for name in ("spots", "diffuse"):
                images[name] = montage([self._expected(frame, None, name) for frame in self.frames])
        title = f"{self.title}: {results['status']} after {results['steps']} steps"
        labels, truth = self.refinement.refined.free_labels, self.refinement.truth
        write_report(folder / "report.png", images, history.rows, truth, labels, title)
        for frame, photons in zip(self.frames, refined, strict=True):
            self._leave_image(frame, photons, folder)
        leave_atoms(self.refinement, folder)

    @torch.no_grad()
    def _leave_image(self, frame: Frame, photons: np.ndarray, folder: Path) -> None:
        model, data = frame.model.cpu(), self.settings.data
        assert isinstance(model, Model)
        values = {k: v.cpu() for k, v in self.refinement.refined(frame=frame.index).items()}
        experiment, number = model.experiment(values), f"_{frame.index + 1}" if self.several else ""
        crystal = experiment.crystal
        turn = xyz_rotation(crystal.misset) @ crystal.orientation
        matrix = crystal.reciprocal.numpy(), turn.numpy(), values["cell"].numpy(), float(values["wavelength_A"])
        write_mat(folder / f"refined{number}.mat", *matrix)
        assert isinstance(model.instrument, Instrument)
        header = cbf_header(model.instrument, values, experiment)
        write_cbf(folder / f"calculated{number}.cbf", photons * data.gain + data.adc_offset, header)

    def show(self, console: Console, results: dict[str, Any]) -> None:
        """The closing table."""
        print_table(console, results["parameters"], results.get("atoms"))

    def remark(self, console: Console, results: dict[str, Any]) -> None:
        """The spread in another measure."""
        spread = ", ".join(f"{s:.4g}" for s in np.ravel(results["mosaic_sigma_deg"]))
        console.print(f"mosaic spread as a standard deviation about each axis: {spread} deg", highlight=False)
        turned = results["mean_domain_rotation_deg"].get("data", [])
        if max(map(abs, turned), default=0.0) > SEEN_DEG:
            angles = " ".join(f"{a:.3f}" for a in turned)
            told = f"the blocks of the truth are turned by {angles} deg on average: part of the errors above"
            console.print(told, soft_wrap=True, highlight=False)


def _every_pixel(used: np.ndarray, model: Model) -> Pixels:
    slow, fast = (torch.arange(n, device=model.sites.index.device) for n in used.shape)
    return Pixels(torch.cartesian_prod(slow, fast))
