"""Every parameter of spots, diffuse scattering, background and ice on one image, through the model that is refined."""

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor

from refine.build import build
from refine.compose import load
from refine.parameters.declared import DECLARED
from refine.terms.model import Model

STILL = [
    "experiment=joint",
    "data.image=null",
    "data.noise=none",
    "beam.wavelength_A=1.0",
    "beam.fluence=1e29",
    "beam.polarization=0.3",
    "detector.pixels=[12,10]",
    "detector.pixel_size_mm=2.0",
    "detector.distance_mm=45",
    "detector.beam_center_mm=[12.3,9.8]",
    "detector.oversample=1",
    "crystal.n_cells=[3.3,2.7,2.2]",
    "crystal.mosaic_domains=7",
    "simulator.d_min_A=3.0",
    "simulator.background=scatterer",
    "simulator.ice=true",
    "schedule.capture_deg=0",
    "initial.rotations_deg=[0.4,-0.3,0.7]",
    "initial.scale=1.3",
    "initial.background=2",
    "initial.ice=[0,1,2,3,4,5,6,7,8,9,10]",
    "parameters.cell.free=true",
    "parameters.b_iso_A2.free=true",
    "initial.b_iso_A2=1.5",
    "parameters.xyz.free=true",
]
ROTATION = ["scan.phi_start_deg=10", "scan.osc_deg=0.5", "scan.phi_steps=2"]
CLOSED = ["simulator=closed_form", "simulator.diffuse=one_phonon", "structure_factors.at=reflection"]
REFLECTION = ["structure_factors.at=reflection"]
DATA = ["model.adp=data", "parameters.b_atoms.free=true"]
MODEL = ["model.adp=model", "parameters.b_atoms.free=true"]
ANISOTROPIC = ["initial.mosaic_spread_deg=[0.4,0.9,0.6]"]
SPREAD = ["initial.divergence_rms_mrad=3", "initial.bandwidth_rms_percent=0.8"]
TRICLINIC = [
    "model.path=data/diffuse/helix_p1.pdb",
    "crystal.cell=null",
    "truth.cell=null",
]
CASES = {
    "pixel, network, square, still": [],
    "pixel, data, gaussian, rotation": [*DATA, "crystal.shape=gaussian", *ROTATION],
    "pixel, model, square, anisotropic": [*MODEL, *ANISOTROPIC],
    "pixel, network, triclinic, sub-pixels, rotation": [*TRICLINIC, *ROTATION, "detector.oversample=2"],
    "pixel, a beam that spreads": [*SPREAD, "initial.mosaic_spread_deg=0.1"],
    "reflection, network, square, rotation": [*REFLECTION, *ROTATION],
    "reflection, data, gaussian, anisotropic": [*REFLECTION, *ANISOTROPIC, *DATA, "crystal.shape=gaussian"],
    "reflection, model, triclinic": [*REFLECTION, *TRICLINIC, *MODEL],
    "closed form, network, square, still": CLOSED,
    "closed form, data, gaussian, rotation": [*CLOSED, *ROTATION, *DATA, "crystal.shape=gaussian"],
    "closed form, model, triclinic, anisotropic": [*CLOSED, *TRICLINIC, *ANISOTROPIC, *MODEL],
    "closed form, a beam that spreads": [*CLOSED, *SPREAD],
    "solvent": ["model.solvent=flat"],
}
QUICK = (
    "pixel, network, square, still",
    "reflection, network, square, rotation",
    "reflection, data, gaussian, anisotropic",
)
FEW = {"xyz": (0, 16, 38, 65), "b_atoms": (1, 7)}
"""Components of the parameters of atoms that are looked at."""

SMALL = 1e-4
"""Part of its natural step that a parameter is moved by."""


def steps_of(name: str, value: Tensor) -> Tensor:
    """A natural step of every component."""
    scale = DECLARED[name].scale
    return value.abs().clamp_min(1.0) if scale is None else torch.full_like(value, scale)


def parts_of(model: Model, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Photons of every term."""
    scene, sites = model.experiment(values), model.sites
    terms = {name: (term, values[term.coefficient].reshape(-1)) for name, term in model.terms.items()}
    return {name: term(values, scene, sites) @ coefficient for name, (term, coefficient) in terms.items()}


def photons_of(model: Model, values: dict[str, Tensor]) -> tuple[Callable[[Tensor], Tensor], list[str]]:
    """Photons of every term, relative to their largest, as a function of natural steps of all parameters."""
    chosen = [(name, i) for name, v in values.items() for i in FEW.get(name, range(v.numel()))]
    largest = {name: part.max() for name, part in parts_of(model, values).items()}
    assert all(float(most) > 0 for most in largest.values())

    def photons(moves: Tensor) -> Tensor:
        moved = {}
        for name, value in values.items():
            rows = [row for row, (owner, _) in enumerate(chosen) if owner == name]
            places = torch.tensor([chosen[row][1] for row in rows])
            change = torch.zeros_like(value).flatten().index_put((places,), moves[rows]).reshape(value.shape)
            moved[name] = value + change * steps_of(name, value)
        return torch.cat([part / largest[name] for name, part in parts_of(model, moved).items()])

    return photons, [f"{name}[{i}]" for name, i in chosen]


@pytest.fixture(params=[pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in CASES])
def case(request: pytest.FixtureRequest) -> tuple[list[str], Model, dict[str, Tensor]]:
    (frame,) = build(load(*STILL, *CASES[request.param])).frames
    values = {name: value.clone() for name, value in frame.initial.items()}
    frame.model.prepare(values)
    return CASES[request.param], frame.model, values


def differences(photons: Callable[[Tensor], Tensor], count: int) -> Tensor:
    """Central differences."""
    moves = SMALL * torch.eye(count, dtype=torch.float64)
    return torch.stack([(photons(move) - photons(-move)) / (2 * SMALL) for move in moves], -1)


def test_every_derivative(case: tuple[list[str], Model, dict[str, Tensor]]) -> None:
    overrides, model, values = case
    photons, labels = photons_of(model, values)
    start = torch.zeros(len(labels), dtype=torch.float64)
    forwards = torch.func.jacfwd(photons)(start)
    with torch.no_grad():
        torch.testing.assert_close(torch.stack(list(parts_of(model, values).values())).sum(0), model(values))
        wanted = differences(photons, len(labels))
    heights = wanted.abs().amax(0)
    errors = (forwards - wanted).abs().amax(0)
    assert {n: float(e) for n, e, h in zip(labels, errors, heights, strict=True) if not e < 1e-5 * (1 + h)} == {}
    moving = {label.split("[")[0] for label, height in zip(labels, heights, strict=True) if height > 1e-7}
    idle = set() if SPREAD[0] in overrides else {"divergence_rms_mrad", "bandwidth_rms_percent"}
    assert set(values) - moving == idle
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(len(forwards), generator=generator, dtype=torch.float64)
    (backwards,) = torch.autograd.grad((photons(start.requires_grad_()) * weight).sum(), start)
    torch.testing.assert_close(backwards, weight @ forwards, rtol=1e-9, atol=1e-9 * float(backwards.abs().max()))
