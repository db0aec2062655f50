"""A diffuse map: what the configuration, an atomic model and an observed map make."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from refine.build.values import Components, components, coordinates, initial_values, parameter_names, true_values
from refine.data.frames import Frame
from refine.data.observation import Observation
from refine.data.sites import MapGrid, Points, as_map, grid_of_map, grid_of_settings, zone_rates
from refine.errors import required
from refine.experiment.atoms import build_atoms
from refine.experiment.builders import tensor
from refine.experiment.sample import Sample, Values
from refine.formats.maps import DiffuseMap, read_map
from refine.paths import existing_file
from refine.settings.schema import Settings
from refine.terms.diffuse import OnePhononMap
from refine.terms.model import Model
from sim_core import StructureFactors
from sim_core.diffuse.structure import Placed


@dataclass(frozen=True)
class ReciprocalSpace:
    """The instrument of a map: it measures the crystal structure itself."""

    grid: MapGrid

    def experiment(self, values: Values, sample: Sample, everywhere: bool = False) -> Placed:
        """The structure at given values."""
        assert sample.atoms is not None
        return sample.atoms.placed(values)


class MapBuilder:
    """A map: reads it, or simulates it, and makes a model of it.

    Args:
        settings: The configuration.

    Raises:
        InputError: for whatever is wrong with the configuration or the files.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        if settings.model.adp == "network":
            raise required("model.adp", "data or model for a diffuse map", "network")
        self.atoms = build_atoms(settings.model, settings.diffuse)
        self.path: Path | None = None
        self.observed: DiffuseMap | None = None
        diffuse = settings.diffuse
        if settings.data.map is not None:
            self.path = existing_file(settings.data.map, "data.map")
            self.observed = read_map(self.path)
            self.grid = grid_of_map(self.observed, self.atoms.file, zone_rates(diffuse))
        else:
            self.grid = grid_of_settings(diffuse, self.atoms.basis, settings.seed + 1)
        self.term = OnePhononMap(self.atoms, self.grid, diffuse, getattr(torch, settings.dtype))
        self.names = parameter_names(settings, self.atoms)
        self.components: Components = components(settings, self.names, self.atoms)

    @cached_property
    def fixed(self) -> dict[str, Tensor]:
        """Values as the model's file and the section diffuse give them."""
        springs = {n: getattr(self.settings.diffuse, n) for n in ("gamma_intra", "gamma_inter")}
        given = {"scale": 1.0, **springs, **coordinates(self.settings, self.atoms)}
        return {name: tensor(given[name]) for name in self.names}

    @cached_property
    def known(self) -> dict[str, Tensor]:
        """What is known of the truth: everything of simulated data."""
        given: dict[str, Tensor] = true_values(self.settings, self.fixed, self.components)
        if self.observed is not None:
            return given
        exact = coordinates(self.settings, self.atoms, disturb=False)
        return {**self.fixed, **{n: v for n, v in exact.items() if n in self.names}, **given}

    def model(self, rows: Tensor) -> Model:
        """The intensities of some points."""
        nothing = StructureFactors.constant(tensor(1.0))
        sample = Sample(torch.eye(3, dtype=torch.float64), nothing, atoms=self.atoms)
        return Model(ReciprocalSpace(self.grid), sample, Points(rows), {"diffuse": self.term})

    @torch.no_grad()
    def intensities(self, values: Mapping[str, Tensor]) -> DiffuseMap:
        """The whole map at given values."""
        model = self.model(self.term.kept)
        model.prepare(values)
        return as_map(self.grid, self.atoms.file.cell, self.term.kept, model(values))

    @torch.no_grad()
    def frame(self) -> Frame:
        """The map with its model."""
        if self.observed is None:
            intensity, sigma = self._simulated()
        else:
            found = np.where(self.observed.used(), self.observed.intensity, np.nan)
            intensity, sigma = torch.from_numpy(found).double(), None
            if self.observed.sigma is not None:
                sigma = torch.from_numpy(self.observed.sigma).double()
        kept = torch.zeros(len(intensity), dtype=torch.bool).index_fill(0, self.term.kept, True)
        used = kept & torch.isfinite(intensity) & (sigma is None or torch.isfinite(sigma) & (sigma > 0))
        if not bool(used.any()):
            raise required("diffuse", "at least one point with an intensity", "none")
        rows = used.nonzero()[:, 0]
        digest = hashlib.sha256(intensity[self.term.kept].numpy().tobytes()).hexdigest()
        seen = Observation(intensity[rows], None if sigma is None else sigma[rows], digest, self.path)
        initial, words = initial_values(self.settings, self.fixed, self.components)
        truth, model = {n: v.tolist() for n, v in self.known.items()}, self.model(rows)
        model.prepare(initial)
        return Frame(0, model, seen, initial, words, truth)

    def _simulated(self) -> tuple[Tensor, Tensor]:
        """Intensities of the truth with noise, and their uncertainties."""
        truth, noise = self.settings.truth, self.settings.data.relative_noise
        if None in (truth.gamma_intra, truth.gamma_inter):
            raise required("truth", "gamma_intra and gamma_inter (or a map in data.map)", "null")
        exact = torch.from_numpy(self.intensities(self.known).intensity)
        generator = torch.Generator().manual_seed(self.settings.seed)
        draws = torch.randn(len(self.term.kept), dtype=torch.float64, generator=generator)
        errors = torch.zeros_like(exact).index_copy(0, self.term.kept, draws)
        return exact * (1 + noise * errors), (noise or 1e-6) * exact
