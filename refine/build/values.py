"""Values of parameters as the configuration gives them: fixed, true and initial ones."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from refine.errors import required
from refine.experiment.atoms import Atoms, disturbed
from refine.experiment.builders import tensor
from refine.parameters.declared import AXES, DECLARED, GIVEN, labels
from refine.settings.schema import Settings
from refine.terms.background import KNOTS
from refine.terms.ice import RINGS

SPREADS = ("divergence_rms_mrad", "bandwidth_rms_percent")
"""Gaussian spreads that a beam may have: they add up in squares, so from zero they have no slope."""

SPRINGS = ("gamma_intra", "gamma_inter")
ICE = ("ice", "ice_width")

Components = Mapping[str, tuple[str, ...]]
"""Names of the components of each parameter of a problem."""


def parameter_names(settings: Settings, atoms: Atoms | None) -> list[str]:
    """The parameters that a problem has."""
    used = {name: getattr(settings.parameters, name).free for name in ("xyz", "b_atoms")}
    used["xyz"] = used["xyz"] or settings.initial.disturb_A > 0
    used["b_atoms"] = used["b_atoms"] and settings.model.adp != "network"
    springs = settings.of_a_map or settings.simulator.diffuse != "none" or settings.model.adp != "data"
    names = [n for n in GIVEN if n not in (*SPRINGS, *ICE)] if not settings.of_a_map else ["scale"]
    names += [*SPRINGS] * (atoms is not None and springs) + [*ICE] * settings.simulator.ice
    names += [name for name, wanted in used.items() if atoms is not None and wanted]
    for name in ("xyz", "b_atoms"):
        if getattr(settings.parameters, name).per_image:
            raise required(f"parameters.{name}.per_image", "false: all images are of the same atoms", "true")
    for name in DECLARED:
        idle = settings.of_a_map and name in ("misset_deg", "mosaic_spread_deg")
        if getattr(settings.parameters, name).free and name not in names and not idle:
            raise required(f"parameters.{name}.free", "false (nothing in this experiment depends on it)", "true")
    return [name for name in DECLARED if name in names]


def components(settings: Settings, names: Sequence[str], atoms: Atoms | None) -> Components:
    """Names of the components of the parameters, where the problem says how many there are."""
    found: dict[str, tuple[str, ...]] = {n: DECLARED[n].components or () for n in names}
    if any(isinstance(s.mosaic_spread_deg, tuple) for s in (settings.initial, settings.truth)):
        found["mosaic_spread_deg"] = AXES
    if settings.simulator.background == "radial":
        found["background"] = KNOTS
    found["ice"] = RINGS
    if atoms is not None:
        count = range(len(atoms.file.xyz))
        found["xyz"] = tuple(f"{n}_{c}" for n in count for c in "xyz")
        found["b_atoms"] = tuple(str(n) for n in count)
    return {name: found[name] for name in names}


def spread_out(value: object, named: tuple[str, ...]) -> Tensor:
    """A value for each component: one mosaic spread, background or ring stands for several equal ones.

    Raises:
        ValueError: if there are several, but not as many as components.
    """
    found = tensor(value)
    if named and found.numel() == 1:
        return found.reshape(1).expand(len(named)).clone()
    if named and found.numel() != len(named):
        raise ValueError(f"expected one number or {len(named)}, got {found.numel()}")
    return found


def true_values(settings: Settings, fixed: Mapping[str, Tensor], named: Components) -> dict[str, Any]:
    """What the configuration knows of the truth, by name."""
    given = {n: getattr(settings.truth, n) for n in fixed if n in GIVEN}
    return {n: _checked(f"truth.{n}", v, named[n]) for n, v in given.items() if v is not None}


def initial_values(
    settings: Settings, fixed: Mapping[str, Tensor], named: Components
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Values of the parameters where the refinement starts, and the words that stand for some of them."""
    given = {n: getattr(settings.initial, n) if n in GIVEN else None for n in fixed}
    words = {n: v for n, v in given.items() if isinstance(v, str)}
    numbers = {n: fixed[n] if v is None or n in words else v for n, v in given.items()}
    return {n: _checked(f"initial.{n}", v, named[n]) for n, v in numbers.items()}, words


def _checked(field: str, value: object, named: tuple[str, ...]) -> Tensor:
    try:
        return spread_out(value, named)
    except ValueError as error:
        raise required(field, *str(error).removeprefix("expected ").split(", got ")) from None


def by_label(known: Mapping[str, Any], named: Components) -> dict[str, float]:
    """Values of every component by its label."""
    return {
        label: float(number)
        for name, value in known.items()
        for label, number in zip(labels(name, named[name]), np.ravel(value), strict=True)
    }


def check_start(initial: Mapping[str, Tensor], free: Sequence[str]) -> None:
    """Refuse a start from which a parameter has no slope.

    Raises:
        InputError: if a width is zero.
    """
    for name in SPREADS:
        if name in free and not bool((initial[name] > 0).all()):
            raise required(f"initial.{name}", "a value above zero to be refined", initial[name].reshape(-1).tolist())


def coordinates(settings: Settings, atoms: Atoms, disturb: bool = True) -> dict[str, Tensor]:
    """Coordinates and B factors of the model's file, the former disturbed where the configuration says so."""
    xyz, rms = torch.from_numpy(np.ascontiguousarray(atoms.file.xyz)), settings.initial.disturb_A
    xyz = disturbed(xyz, rms, settings.seed + 2) if rms > 0 and disturb else xyz
    return {"xyz": xyz.flatten(), "b_atoms": atoms.start.b_iso}
