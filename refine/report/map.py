"""What a refinement against a diffuse map shows and leaves."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from refine.data.sites import Points, as_map, whole_map
from refine.fit.callbacks import History
from refine.formats.maps import write_map
from refine.report.atoms import described_atoms, leave_atoms
from refine.report.map_pictures import central_slices, residual_picture, shells, write_diffuse_report
from refine.report.report import Report
from refine.report.results import print_table
from refine.terms.diffuse import OnePhononMap
from refine.terms.model import Model

SPRINGS = ("gamma_intra", "gamma_inter")


class MapReport(Report):
    """A map."""

    @property
    def model(self) -> Model:
        """Its model."""
        return self.models[0]

    @property
    def term(self) -> OnePhononMap:
        """Its only term."""
        term: OnePhononMap = self.model.terms["diffuse"]  # type: ignore[assignment]
        return term

    def picture(self, expected: Tensor) -> dict[str, np.ndarray]:
        """Central slices."""
        return residual_picture(self._slices(self.refinement.observed), self._slices(expected))

    def _slices(self, intensity: Tensor) -> np.ndarray:
        """Intensities of the points that are compared as central slices."""
        whole = whole_map(self.term.grid, self.model.sites.index, intensity.detach().double())
        return central_slices(whole.numpy(), self.term.grid.shape)

    @torch.no_grad()
    def calculated(self) -> Tensor:
        """Intensities at the start."""
        expected: Tensor = self.refinement(self.start())
        return expected

    @torch.no_grad()
    def entries(self) -> dict[str, Any]:
        """Springs, errors of the coordinates, correlation by shell."""
        refinement, parameters = self.refinement, self.refinement.refined
        truth = {n: refinement.truth.get(n) for n in SPRINGS}
        first = {n: float(parameters.specs[n].initial[0]) for n in SPRINGS}
        refined = {n: float(parameters.table(n)[0]) for n in SPRINGS}
        found: dict[str, Any] = {"notes": refinement.notes}
        if "scale" not in parameters.free:
            found |= {n: {"truth": truth[n], "initial": first[n], "refined": refined[n]} for n in SPRINGS}
        said = {n: refinement.frames[0].truth.get(n) for n in SPRINGS}
        ratios = [_ratio(s) for s in (said, first, refined)]
        found["gamma_ratio"] = dict(zip(("truth", "initial", "refined"), ratios, strict=True))
        moved = described_atoms(refinement)
        if "rms_xyz_A" in moved.get("atoms", {}):
            found["rms_xyz_A"] = moved["atoms"]["rms_xyz_A"]
        q = self.term.grid.q[self.model.sites.index].cpu().numpy()
        found["shells"] = shells(q, refinement.observed.cpu().numpy(), refinement().cpu().numpy())
        return {"diffuse": found, **moved}

    @torch.no_grad()
    def leave(self, history: History, results: dict[str, Any], before: Any, folder: Path) -> None:
        """Picture, calculated map and atoms."""
        after = self.refinement()
        images = {"observed": self.refinement.observed, "initial": before, "refined": after}
        slices = {name: self._slices(intensity) for name, intensity in images.items()}
        title = f"{self.title}: {results['status']} after {results['steps']} steps"
        are_points, by_shell = self.term.grid.shape[1:] == (1, 1), results["diffuse"]["shells"]
        truth, path = self.refinement.truth, folder / "report.png"
        write_diffuse_report(path, slices, are_points, by_shell, history.rows, truth, title)
        model = self.model.cpu()
        kept = model.at(Points(self.term.kept))
        values = {n: v.cpu() for n, v in self.refinement.refined().items()}
        cell, rows = self.term.atoms.file.cell, self.term.kept
        write_map(folder / "calculated.npz", as_map(self.term.grid, cell, rows, kept(values)))
        leave_atoms(self.refinement, folder)

    def show(self, console: Console, results: dict[str, Any]) -> None:
        """Springs and agreement; coordinates stand in results.json."""
        print_table(console, results["parameters"], results.get("atoms"))
        for name, value in results["diffuse"].items():
            if isinstance(value, dict):
                console.print(f"{name}: " + ", ".join(f"{k} {v:.5g}" for k, v in value.items() if v is not None))


def _ratio(springs: dict[str, Any]) -> float | None:
    intra, inter = (springs[n] for n in SPRINGS)
    return None if intra is None or inter is None else float(np.ravel(intra)[0] / np.ravel(inter)[0])
