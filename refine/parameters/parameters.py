"""Free and frozen parameters: a raw vector in natural steps becomes physical values in users' units.

``value = initial + ties (scale * raw)``: raw values start at zero, so a frozen parameter, or a free one before the
first step, is bit-equal to its initial value. ``ties`` makes components move together, as the edges of a cubic cell do.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from refine.errors import required
from refine.parameters.restraints import ElasticNetwork

AXES = ("x", "y", "z")
COMPONENTS: dict[str, tuple[str, ...]] = {
    "misset_deg": AXES,
    "mosaic_spread_deg": (),
    "cell": ("a", "b", "c", "alpha", "beta", "gamma"),
    "n_cells": ("a", "b", "c"),
    "scale": (),
    "background": (),
    "distance_mm": (),
    "beam_center_mm": ("x", "y"),
    "rotations_deg": AXES,
    "wavelength_A": (),
    "b_iso_A2": (),
    "divergence_rms_mrad": (),
    "bandwidth_rms_percent": (),
    "log_gamma_intra": (),
    "log_gamma_inter": (),
}
"""Names of the parameters and of their components."""


_FIXED = dict(COMPONENTS)


def declare_none() -> None:
    """Forget what :func:`declare` was told."""
    COMPONENTS.clear()
    COMPONENTS.update(_FIXED)


def declare(name: str, components: tuple[str, ...]) -> None:
    """Name the components of a parameter whose number depends on the problem, such as the coordinates of a model."""
    COMPONENTS[name] = components


_UNITS = {"xyz": "A", "_deg": "deg", "_mm": "mm", "_A": "A", "_A2": "A^2", "_mrad": "mrad", "_percent": "%"}


def labels(name: str) -> list[str]:
    """Names of the scalars of a parameter: ``misset_deg_x`` ..."""
    return [f"{name}_{c}" for c in COMPONENTS[name]] or [name]


def unit(name: str, index: int) -> str:
    """Unit of one scalar of a parameter; empty for a pure number."""
    if name == "cell":
        return "A" if index % 6 < 3 else "deg"
    if name == "background":
        return "photon"
    return next((u for ending, u in _UNITS.items() if name.endswith(ending)), "")


@dataclass(frozen=True)
class ParameterSpec:
    """One parameter, a scalar or a vector, in users' units.

    Attributes:
        name: Name, one of :data:`COMPONENTS`.
        initial: Where the refinement starts.
        scale: A natural step; ``None`` for the size of the initial value (one where that is zero).
        free: Refined or frozen.
        lower: Lowest value allowed.
        upper: Highest value allowed.
        prior: Mean and standard deviation of a Gaussian prior.
        ties: Components (rows) that each free scalar (column) moves; ``None`` for one scalar a component.
        labels: Names of the scalars, as they are declared when this is made.
        is_scalar: Whether it is a number rather than a vector.
    """

    name: str
    initial: Float[Tensor, "n"]
    scale: float | None = 1.0
    free: bool = False
    lower: float | None = None
    upper: float | None = None
    prior: tuple[Float[Tensor, "n"], Float[Tensor, "n"]] | None = None
    ties: Float[Tensor, "n free"] | None = None
    labels: tuple[str, ...] = ()
    is_scalar: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(labels(self.name)))
        object.__setattr__(self, "is_scalar", not COMPONENTS[self.name])
        sides = {"lower": ("least", self.initial.ge), "upper": ("most", self.initial.le)}
        for side, (word, ok) in sides.items():
            bound = getattr(self, side)
            if bound is not None and not bool(ok(bound).all()):
                limits = f"at {word} parameters.{self.name}.{side}={bound:g} in every component"
                raise required(f"initial.{self.name}", limits, self.initial.tolist())


class Parameters(nn.Module):
    """All parameters of a model; the free ones hold one raw vector each.

    Args:
        specs: One for each parameter.
        restraints: What is expected of all numbers of a parameter together, by its name.
    """

    def __init__(self, specs: list[ParameterSpec], restraints: dict[str, ElasticNetwork] | None = None) -> None:
        super().__init__()
        self.restraints = nn.ModuleDict(restraints)
        self.specs = {spec.name: spec for spec in specs}
        self.raw = nn.ParameterDict()
        for spec in specs:
            initial = spec.initial.double()
            ties = torch.eye(len(initial)).double() if spec.ties is None else spec.ties.double()
            leading = ties.argmax(0)
            scale = torch.full_like(initial, spec.scale) if spec.scale is not None else initial.abs()
            scale = torch.where(scale == 0, torch.ones_like(scale), scale)
            self.register_buffer(f"initial_{spec.name}", initial)
            self.register_buffer(f"ties_{spec.name}", ties)
            self.register_buffer(f"leading_{spec.name}", leading)
            self.register_buffer(f"scale_{spec.name}", scale[leading])
            self.register_buffer(f"lower_{spec.name}", _bound(initial, spec.lower, -torch.inf))
            self.register_buffer(f"upper_{spec.name}", _bound(initial, spec.upper, torch.inf))
            if spec.prior is not None:
                self.register_buffer(f"mean_{spec.name}", spec.prior[0].double().expand_as(initial).clone())
                self.register_buffer(f"sigma_{spec.name}", spec.prior[1].double().expand_as(initial).clone())
            if spec.free:
                self.raw[spec.name] = nn.Parameter(torch.zeros_like(scale[leading]))

    @property
    def free(self) -> list[str]:
        """Names of the free parameters, in the order of the raw vector."""
        return list(self.raw.keys())

    @property
    def free_labels(self) -> list[str]:
        """Names of the free scalars, in the order of the raw vector; tied components go by the name of the first."""
        return [self.specs[name].labels[i] for name in self.free for i in self._get("leading", name).tolist()]

    @property
    def moving_labels(self) -> list[str]:
        """Names of all components that move, tied ones included, in the order of :meth:`sensitivity`."""
        named = [(self.specs[name].labels, self._get("ties", name).any(1).tolist()) for name in self.free]
        return [label for labels, moves in named for label, yes in zip(labels, moves, strict=True) if yes]

    def sensitivity(self) -> Float[Tensor, "moving free"]:
        """Derivative of every component that moves, in its unit, with respect to the raw vector."""
        blocks = [self._get("ties", name) * self._get("scale", name) for name in self.free]
        return torch.block_diag(*[block[block.any(1)] for block in blocks])

    def vector(self) -> Float[Tensor, "free"]:
        """The raw values of all free parameters in one row, detached."""
        return torch.cat([self.raw[name].detach() for name in self.free])

    def where(self, names: tuple[str, ...]) -> Bool[Tensor, "free"]:
        """Which entries of the raw vector belong to the parameters with these names."""
        return torch.cat([torch.full_like(self.raw[n], n in names, dtype=torch.bool) for n in self.free]).detach()

    def bounds(self) -> tuple[Float[Tensor, "free"], Float[Tensor, "free"]]:
        """Lowest and highest raw values."""
        low: list[Tensor] = []
        high: list[Tensor] = []
        for name in self.free:
            moves = self._get("ties", name) > 0
            for side, found in (("lower", low), ("upper", high)):
                room = self._get(side, name) - self._get("initial", name)
                if side == "lower":
                    nearest = torch.where(moves, room[:, None], -torch.inf).amax(0)
                else:
                    nearest = torch.where(moves, room[:, None], torch.inf).amin(0)
                found.append(nearest / self._get("scale", name))
        return torch.cat(low), torch.cat(high)

    def scales(self) -> Float[Tensor, "free"]:
        """Natural steps of the free scalars."""
        return torch.cat([self._get("scale", name) for name in self.free])

    def forward(self, vector: Float[Tensor, "free"] | None = None) -> dict[str, Float[Tensor, "..."]]:
        """Physical values by name; scalars have no dimension.

        Args:
            vector: Raw values instead of the module's own, for derivatives.
        """
        raw = dict(self.raw.items()) if vector is None else self._split(vector)
        values = {}
        for name in self.specs:
            value = self._get("initial", name)
            if name in raw:
                change = self._get("scale", name) * raw[name]
                value = value + (change if self.specs[name].ties is None else self._get("ties", name) @ change)
            values[name] = value[0] if self.specs[name].is_scalar else value
        return values

    def limits(self, names: tuple[str, ...]) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
        """Lower and upper bounds of the components of some parameters."""
        low, high = (torch.cat([self._get(side, name) for name in names]) for side in ("lower", "upper"))
        return low, high

    def replaced(self, vector: Float[Tensor, "free"], values: dict[str, Tensor]) -> Float[Tensor, "free"]:
        """The raw vector with other values of some parameters whose components are not tied."""
        parts = self._split(vector)
        for name, value in values.items():
            parts[name] = (value - self._get("initial", name)) / self._get("scale", name)
        return torch.cat([parts[name] for name in self.free])

    def penalty(self, values: dict[str, Float[Tensor, "..."]]) -> Float[Tensor, ""]:
        """Twice the negative logarithm of the priors."""
        total = self._get("initial", next(iter(self.specs))).new_zeros(())
        for name, spec in self.specs.items():
            if spec.prior is not None and spec.free:
                pull = (values[name].reshape(-1) - self._get("mean", name)) / self._get("sigma", name)
                total = total + pull[self._get("leading", name)].square().sum()
        for name, restraint in self.restraints.items():
            total = total + restraint(values[name])
        return total

    @torch.no_grad()
    def penalty_derivatives(self, vector: Float[Tensor, "free"]) -> tuple[Tensor, Float[Tensor, "free free"]]:
        """Gradient of the penalty in the raw values, and its expected curvature."""
        gradient = torch.func.grad(lambda v: self.penalty(self(v)))(vector)
        values, blocks = self(vector), []
        for name in self.free:
            change = self._get("ties", name) * self._get("scale", name)
            block = change.new_zeros(change.shape[1], change.shape[1])
            if self.specs[name].prior is not None:
                leading = self._get("leading", name)
                pull = change[leading] / self._get("sigma", name)[leading, None]
                block = 2 * pull.T @ pull
            if name in self.restraints:
                restraint = self.restraints[name]
                assert isinstance(restraint, ElasticNetwork)
                block = block + change.T @ restraint.curvature(values[name]) @ change
            blocks.append(block)
        return gradient, torch.block_diag(*blocks)

    @torch.no_grad()
    def project(self) -> None:
        """Move raw values that left their bounds back onto them."""
        low, high = (self._split(b) for b in self.bounds())
        for name, raw in self.raw.items():
            raw.clamp_(low[name], high[name])

    def _split(self, vector: Tensor) -> dict[str, Tensor]:
        return dict(zip(self.free, vector.split([self.raw[n].numel() for n in self.free]), strict=True))

    def _get(self, kind: str, name: str) -> Tensor:
        tensor: Tensor = getattr(self, f"{kind}_{name}")
        return tensor


def _bound(like: Tensor, value: float | None, missing: float) -> Tensor:
    return torch.full_like(like, missing if value is None else value)
