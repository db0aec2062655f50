"""Images: what the configuration and a file's header make of one of them."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from refine.build.values import (
    SPREADS,
    Components,
    components,
    coordinates,
    initial_values,
    parameter_names,
    spread_out,
    true_values,
)
from refine.data.frames import Frame, Source
from refine.data.observation import Picture, from_file, from_simulation
from refine.data.sites import Pixels
from refine.errors import required
from refine.experiment.amplitudes import AtomAmplitudes, build_solvent
from refine.experiment.atoms import Atoms, build_atoms
from refine.experiment.builders import automatic_oversample, build_domains, mean_rotation_deg, tensor
from refine.experiment.header import Setup, header_of, set_up
from refine.experiment.instrument import build_panel
from refine.experiment.sample import Sample
from refine.formats.images import DetectorImage, read_image
from refine.formats.orientation import read_mat
from refine.formats.reflections import read_hkl
from refine.parameters.declared import DECLARED
from refine.paths import existing_file
from refine.settings.schema import Settings
from refine.terms.background import BACKGROUNDS, Flat
from refine.terms.bragg import Spots, closed_form_spots, sampled_spots, shape_of
from refine.terms.diffuse import OnePhononSpots
from refine.terms.ice import IceRings
from refine.terms.model import Model
from refine.terms.term import Term
from sim_core import StructureFactors
from sim_core.bragg.noise import photon_noise
from sim_core.diffuse.image import OnePhononImage
from sim_core.mosaic import DomainSample, quadrature_domains
from sim_core.unit_cell import cell_and_orientation

MISORIENTATIONS = 7
"""Nodes of the rule over misorientations of the diffuse scattering."""

SUBPIXELS = 3
"""Most sub-pixels along each edge that diffuse scattering takes unless it is told: it has no fringes."""

SIGMAS = 2.0
"""Largest misorientation of the closed form that counts, in mosaic spreads: four standard deviations."""

APART = 0.05
"""Largest relative difference of edges, or difference of angles [100 deg], between crystal and model."""

CUBE = (100.0, 100.0, 100.0, 90.0, 90.0, 90.0)
"""The cell where nothing names one."""


class ImageBuilder:
    """One image: reads its file, and makes models of it.

    Args:
        settings: The configuration.
        source: Which image.

    Raises:
        InputError: for whatever is wrong with the configuration or the files.
    """

    def __init__(self, settings: Settings, source: Source) -> None:
        self.settings, self.source = settings, source
        self.image: DetectorImage | None = None
        if source.image is not None:
            self.image = read_image(existing_file(source.image, "data.image"), source.frame)
        header = {} if self.image is None else header_of(self.image)
        spreading = frozenset(n for n in SPREADS if _is_used(settings, n))
        self.setup: Setup = set_up(settings, header, source.phi_start_deg, spreading)
        self.atoms = _atoms(settings)
        self.solvent = None if self.atoms is None else build_solvent(settings.model, self.atoms.file)
        self.orientation, self.cell = self._orientation()
        if self.atoms is not None:
            _check_cell(self.cell, tensor(self.atoms.file.cell))
        self.names = parameter_names(settings, self.atoms)
        self.components: Components = components(settings, self.names, self.atoms)

    def _orientation(self) -> tuple[Tensor, Tensor]:
        """Rotation U before the misset and the cell [A, deg]."""
        crystal, values = self.settings.crystal, self.setup.values
        if crystal.a_matrix_path is None:
            own = None if self.atoms is None else self.atoms.file.cell
            return torch.eye(3, dtype=torch.float64), tensor(crystal.cell or own or CUBE)
        path = existing_file(crystal.a_matrix_path, "crystal.a_matrix_path")
        radians, rotation = cell_and_orientation(tensor(read_mat(path, values["wavelength_A"])))
        return rotation, torch.cat([radians[:3], torch.rad2deg(radians[3:])])

    @cached_property
    def fixed(self) -> dict[str, Tensor]:
        """Values of every parameter as crystal, detector, beam and diffuse give them."""
        settings, zero = self.settings, {"mosaic_spread_deg": 0.0, "background": 0.0, "ice": 0.0}
        given: dict[str, Any] = {
            "misset_deg": torch.zeros(3, dtype=torch.float64),
            "cell": self.cell,
            "n_cells": settings.crystal.n_cells,
            "scale": 1.0,
            "b_iso_A2": settings.structure_factors.b_iso_A2,
            "divergence_rms_mrad": settings.beam.divergence_rms_mrad,
            "bandwidth_rms_percent": settings.beam.bandwidth_rms_percent,
            "gamma_intra": settings.diffuse.gamma_intra,
            "gamma_inter": settings.diffuse.gamma_inter,
            "ice_width": DECLARED["ice_width"].start,
            **zero,
            **self.setup.values,
            **({} if self.atoms is None else coordinates(settings, self.atoms)),
        }
        return {name: tensor(given[name]) for name in self.names}

    @cached_property
    def known(self) -> dict[str, Any]:
        """What is known of the truth: everything of simulated data."""
        exact = {} if self.atoms is None else coordinates(self.settings, self.atoms, disturb=False)
        exact = {n: v for n, v in exact.items() if n in self.names}
        given = true_values(self.settings, self.fixed, self.components)
        if self.image is None:
            spread = {n: spread_out(v, self.components[n]) for n, v in self.fixed.items()}
            return {**spread, **given, **exact}
        return {**given, **(exact if self.settings.initial.disturb_A > 0 else {})}

    def domains(self, of_truth: bool = False) -> DomainSample:
        """The mosaic blocks of the model, or of the data."""
        said = self.settings.truth if of_truth else self.settings.crystal
        misorientation = self.settings.crystal.misorientation
        return build_domains(said.mosaic_model, said.mosaic_domains, said.mosaic_seed, misorientation)

    @cached_property
    def oversample(self) -> int:
        """Sub-pixels along each edge."""
        shape, values = self.setup.instrument.panel, self.setup.values
        distances = (shape.pixel_size_mm, values["distance_mm"], values["wavelength_A"])
        n_cells = self.settings.crystal.n_cells
        return self.settings.detector.oversample or automatic_oversample(n_cells, self.cell.tolist(), *distances)

    def kind(self, of_truth: bool = False) -> str:
        """How spots are computed."""
        return str(self.settings.truth.simulator if of_truth else self.settings.simulator.model)

    def model(self, sites: Pixels, of_truth: bool = False) -> Model:
        """The sum of terms at some pixels, as it is refined or as data are made of it."""
        settings = self.settings
        terms: dict[str, Term[Any]] = {"spots": self._spots(of_truth)}
        terms["background"] = BACKGROUNDS.get(settings.simulator.background, Flat)()
        if settings.simulator.ice:
            terms["ice"] = IceRings()
        if settings.simulator.diffuse == "one_phonon":
            terms["diffuse"] = self._diffuse()
        return Model(self.setup.instrument, self.sample(of_truth), sites, terms)

    def _diffuse(self) -> OnePhononSpots:
        """Diffuse scattering, with a rule of few misorientations: the spots are sharper than it is."""
        crystal, atoms = self.settings.crystal, self.atoms
        assert atoms is not None
        domains = quadrature_domains(MISORIENTATIONS, crystal.misorientation)
        dtype, d_min = getattr(torch, self.settings.dtype), self.settings.simulator.d_min_A
        parts = self.settings.detector.oversample or min(self.oversample, SUBPIXELS)
        return OnePhononSpots(atoms, OnePhononImage(domains, shape_of(crystal), parts, d_min, dtype))

    def _spots(self, of_truth: bool) -> Spots:
        crystal, simulator, dtype = self.settings.crystal, self.settings.simulator, getattr(torch, self.settings.dtype)
        between = self.settings.structure_factors.interpolate
        if self.kind(of_truth) == "sampled":
            return sampled_spots(crystal, simulator, self.domains(of_truth), self.oversample, dtype, between)
        return closed_form_spots(crystal, simulator, dtype, between)

    def sample(self, of_truth: bool = False) -> Sample:
        """What stands in the beam."""
        settings = self.settings
        has_b_iso = _is_used(settings, "b_iso_A2")
        if settings.structure_factors.source == "table":
            return Sample(self.orientation, _table(settings), has_b_iso, self.atoms)
        at_pixel, sampled = settings.structure_factors.at == "pixel", self.kind(of_truth) == "sampled"
        if at_pixel and not sampled:
            raise required("structure_factors.at", "reflection for the closed form", "pixel")
        widest = max(float(self.domains(of_truth).angles.abs().max()), SIGMAS)
        amplitudes = AtomAmplitudes(at_pixel, settings.simulator.d_min_A, widest, self.solvent)
        nothing = StructureFactors.constant(tensor(0.0))
        return Sample(self.orientation, nothing, has_b_iso, self.atoms, amplitudes)

    def whole(self) -> Pixels:
        """Every pixel."""
        fast, slow = self.setup.instrument.panel.pixels
        return Pixels(torch.cartesian_prod(torch.arange(slow), torch.arange(fast)))

    @torch.no_grad()
    def simulated(self, noise: str) -> Picture:
        """The image of the truth."""
        source, size = self.model(self.whole(), of_truth=True), self.setup.instrument.panel.pixels
        source.prepare(self.known)
        photons = source(self.known)
        if not bool(torch.isfinite(photons).all() & (photons >= 0).all() & (photons < 1e15).all()):
            raise required("truth", "values that give a finite image of at most 1e15 photons a pixel", "others")
        if noise == "poisson":
            photons = photon_noise(photons, self.settings.seed + self.source.index)
        return from_simulation(photons, self.settings.data, size)

    def frame(self) -> Frame:
        """The image with its model."""
        settings, size = self.settings, self.setup.instrument.panel.pixels
        if self.image is None:
            picture = self.simulated(settings.data.noise)
        else:
            picture = from_file(self.image, settings.data, size)
        if settings.simulator.d_min_A > 0:
            picture = self._resolved(picture)
        initial, words = initial_values(settings, self.fixed, self.components)
        model = self.model(picture.pixels())
        rows = list(self.setup.rows)
        if self.image is not None and self.kind() == "sampled":
            how = "configuration" if settings.detector.oversample else "fine enough for the spots"
            rows.append(("detector.oversample", str(self.oversample), "-", how))
        truth = {n: v.tolist() for n, v in self.known.items()}
        entries = {"mean_domain_rotation_deg": self._mean_rotations(initial)}
        data = picture.observation()
        return Frame(self.source.index, model, data, initial, words, truth, picture, rows, entries)

    def _resolved(self, picture: Picture) -> Picture:
        """The image without pixels of which a part lies beyond the resolution limit: no spot is computed there.

        Raises:
            InputError: if no pixel is left.
        """
        d_min, values = self.settings.simulator.d_min_A, {n: tensor(v) for n, v in self.setup.values.items()}
        panel, direction = self.setup.instrument.panel, tensor(self.setup.instrument.panel.convention.beam)
        slow, fast = (torch.arange(n + 1, dtype=torch.float64) for n in picture.used.shape)
        corners = build_panel(panel, values).positions(torch.cartesian_prod(slow, fast))
        flight = corners / corners.norm(dim=-1, keepdim=True)
        s = ((flight - direction).norm(dim=-1) / values["wavelength_A"]).view(len(slow), len(fast))
        inside = (s <= 1 / d_min).numpy()
        used = picture.used & inside[1:, 1:] & inside[1:, :-1] & inside[:-1, 1:] & inside[:-1, :-1]
        if not used.any():
            raise required("simulator.d_min_A", "a limit within which there are pixels", d_min)
        return replace(picture, used=used)

    def _mean_rotations(self, initial: Mapping[str, Tensor]) -> dict[str, list[float]]:
        """Of the blocks of the data and of the model, where they are known."""
        whose = {"model": False} | ({"data": True} if "mosaic_spread_deg" in self.known else {})
        spread = self.known.get("mosaic_spread_deg", initial["mosaic_spread_deg"])
        return {name: mean_rotation_deg(self.kind(true), self.domains(true), spread) for name, true in whose.items()}


def _atoms(settings: Settings) -> Atoms | None:
    """The atomic model, where an image is made of one."""
    if not settings.atoms_on_images:
        return None
    said = settings.diffuse
    for field, value, wanted in (("group_by", said.group_by, "asu"), ("compat", said.compat, "none")):
        if value != wanted:
            raise required(f"diffuse.{field}", f"{wanted} on an image", value)
    if settings.crystal.shape == "gaussian" and settings.crystal.fudge != 1:
        raise required("crystal.fudge", "1 for blocks that vibrate", settings.crystal.fudge)
    atoms = build_atoms(settings.model, settings.diffuse, shape_of(settings.crystal))
    springs = settings.simulator.diffuse != "none" or settings.model.adp != "data"
    if springs and bool(atoms.contacts.intra().all()):
        raise required("diffuse.cutoff_A", "a distance within which asymmetric units touch", said.cutoff_A)
    return atoms


def _check_cell(cell: Tensor, own: Tensor) -> None:
    """Refuse a cell that cannot be that of the model: its atoms would be stretched with it."""
    apart = torch.cat([(cell[:3] / own[:3]).log().abs(), (cell[3:] - own[3:]).abs() / 100])
    if bool((apart > APART).any()):
        said, wanted = (" ".join(f"{x:g}" for x in c.tolist()) for c in (cell, own))
        raise required("crystal.cell", f"the cell of the model to 5 % and 5 deg, {wanted}", said)


def _is_used(settings: Settings, name: str) -> bool:
    """Whether a parameter that is absent at zero is there: given, refined or in the truth."""
    given = {"divergence_rms_mrad": settings.beam.divergence_rms_mrad, "b_iso_A2": settings.structure_factors.b_iso_A2}
    given["bandwidth_rms_percent"] = settings.beam.bandwidth_rms_percent
    others = (getattr(settings.initial, name), getattr(settings.truth, name))
    return bool(given[name]) or any(others) or getattr(settings.parameters, name).free


def _table(settings: Settings) -> StructureFactors:
    """Amplitudes of the file, or the same for all reflections."""
    choice = settings.structure_factors
    default = tensor(choice.default_F)
    if choice.path is None:
        if choice.default_F == 0:
            raise required("structure_factors", "a path or a default_F above zero", "neither")
        return StructureFactors.constant(default)
    table, low = read_hkl(existing_file(choice.path, "structure_factors.path"), choice.default_F)
    return StructureFactors(tensor(table), torch.from_numpy(low), default)
