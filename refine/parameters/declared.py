"""Every parameter, in one line each: the only place that names it.

``Initial``, ``Truth`` and ``Parameters`` of the configuration, their defaults, labels, units and steps come from these
lines. To add one is to add a line here, and a term that reads it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import FiniteFloat

from refine.settings.types import Cell, Mosaic, NotNegative, Pair, Positive, Rings, Triple, Vector

AXES = ("x", "y", "z")


@dataclass(frozen=True)
class Declaration:
    """One parameter.

    Attributes:
        name: Name, with the unit of what people write.
        unit: Unit that is shown, one for each component where they differ; empty for a pure number.
        components: Names of its components; empty for a single number, ``None`` for as many as the problem has.
        kind: What the configuration may say of it.
        scale: A natural step in its unit; ``None`` for its initial size (a factor of e where it is logarithmic).
        lower: Lowest value.
        upper: Highest value.
        start: Default of ``initial``; ``None`` for the value under crystal, detector, beam or diffuse.
        words: Words that ``initial`` may say instead of a number.
        free: Default of ``parameters.NAME.free``.
        per_image: Whether, of several images, each has its own unless told otherwise.
        log: Refined as its logarithm; every table shows the value itself.
    """

    name: str
    unit: str | tuple[str, ...]
    components: tuple[str, ...] | None
    kind: Any
    scale: float | None = 1.0
    lower: float | None = None
    upper: float | None = None
    start: Any = None
    words: tuple[str, ...] = ()
    free: bool = False
    per_image: bool = False
    log: bool = False

    @property
    def initial_kind(self) -> Any:
        """What ``initial`` may say."""
        kind = self.kind
        if self.words:
            kind = kind | Literal[self.words]
        return kind | None if self.start is None else kind

    def unit_of(self, component: int) -> str:
        """Unit of one component."""
        return self.unit if isinstance(self.unit, str) else self.unit[component % len(self.unit)]

    def defaults(self) -> dict[str, Any]:
        """What the configuration says of how it is refined."""
        fit = {"free": self.free, "per_image": self.per_image, "scale": self.scale}
        fit |= {"lower": self.lower, "upper": self.upper, "prior": None}
        return fit | ({"restraint": {"sigma_A": None, "cutoff_A": 4.0, "to": "start"}} if self.name == "xyz" else {})


_CELL = ("a", "b", "c", "alpha", "beta", "gamma")
_SPRING = "k_B T/A^2"
_ALL = (
    Declaration("misset_deg", "deg", AXES, Vector, start=[0.0, 0.0, 0.0], words=("search",), free=True),
    Declaration("mosaic_spread_deg", "deg", (), Mosaic, 0.5, 0.01, 10.0, start=0.2, free=True),
    Declaration("cell", ("A",) * 3 + ("deg",) * 3, _CELL, Cell, 0.5, lower=1.0),
    Declaration("n_cells", "", ("a", "b", "c"), Triple, lower=1.0),
    Declaration("scale", "", (), Positive, None, 0.0, start=1.0, words=("estimate",), per_image=True),
    Declaration("background", "photon", (), NotNegative, None, 0.0, start=0.0, words=("estimate",), per_image=True),
    Declaration("distance_mm", "mm", (), Positive, lower=1.0),
    Declaration("beam_center_mm", "mm", ("x", "y"), Pair, 0.2),
    Declaration("rotations_deg", "deg", AXES, Vector, 0.5),
    Declaration("wavelength_A", "A", (), Positive, 0.01, lower=0.01),
    Declaration("b_iso_A2", "A^2", (), FiniteFloat, 2.0),
    Declaration("divergence_rms_mrad", "mrad", (), NotNegative, 0.2, lower=0.001),
    Declaration("bandwidth_rms_percent", "%", (), NotNegative, 0.1, lower=0.001),
    Declaration("gamma_intra", _SPRING, (), Positive, None, log=True),
    Declaration("gamma_inter", _SPRING, (), Positive, None, log=True),
    Declaration("xyz", "A", None, None, 0.1),
    Declaration("b_atoms", "A^2", None, None, 2.0, lower=0.0),
    Declaration("ice", "photon", None, Rings, None, 0.0, start=0.0, per_image=True),
    Declaration("ice_width", "1/A", (), Positive, 0.002, 1e-4, start=0.01),
)
DECLARED: Mapping[str, Declaration] = {d.name: d for d in _ALL}
"""Every parameter by its name. ``xyz`` and ``b_atoms`` start from the model's file."""

ATOMIC = ("xyz_", "b_atoms_")
"""Beginnings of labels that are too many for a table or a curve each."""

GIVEN = tuple(d.name for d in _ALL if d.kind is not None)
"""Those whose values the configuration can say."""


def labels(name: str, components: tuple[str, ...] | None = None) -> list[str]:
    """Names of the scalars of a parameter: ``misset_deg_x`` ..."""
    named = DECLARED[name].components if components is None else components
    return [f"{name}_{c}" for c in named or ()] or [name]


def defaults() -> dict[str, dict[str, Any]]:
    """Defaults of the three groups of the configuration that parameters make."""
    return {
        "initial": {name: DECLARED[name].start for name in GIVEN},
        "truth": dict.fromkeys(GIVEN),
        "parameters": {name: d.defaults() for name, d in DECLARED.items()},
    }
