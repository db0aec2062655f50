"""Free and frozen parameters: raw values in natural steps become physical values in users' units.

``value = initial + ties (scale * raw)``, or ``initial * exp(scale * raw)`` for a logarithmic one: raw values start at
zero, so a frozen parameter, or a free one before the first step, is bit-equal to its initial value. ``ties`` makes
components move together, as the edges of a cubic cell do. A parameter is shared by all frames or each has its own.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from refine.parameters.restraints import ElasticNetwork
from refine.parameters.spec import ParameterSpec

Values = Mapping[str, Tensor]
"""Every parameter of one frame by its name, in users' units."""


class Parameters(nn.Module):
    """All parameters of some frames; the free ones hold raw values: a row, or a row for each frame.

    Args:
        specs: One for each parameter.
        restraints: What is expected of all numbers of a parameter together, by its name.
        frames: How many frames there are.
    """

    def __init__(
        self, specs: Sequence[ParameterSpec], restraints: dict[str, ElasticNetwork] | None = None, frames: int = 1
    ) -> None:
        super().__init__()
        self.restraints = nn.ModuleDict(restraints)
        self.specs = {spec.name: spec for spec in specs}
        self.frames = frames
        self.raw = nn.ParameterDict()
        for spec in specs:
            initial = spec.initial.double()
            ties = torch.eye(spec.size).double() if spec.ties is None else spec.ties.double()
            leading = ties.argmax(0)
            size = torch.ones_like(initial) if spec.log else initial.abs()
            if spec.scale is not None:
                size = spec.scale / initial if spec.log else torch.full_like(initial, spec.scale)
            scale = torch.where(size == 0, torch.ones_like(size), size)[..., leading]
            missing = {"lower": -torch.inf, "upper": torch.inf}
            bounds = {s: missing[s] if getattr(spec, s) is None else getattr(spec, s) for s in missing}
            found = {"initial": initial, "ties": ties, "leading": leading, "scale": scale}
            found |= {side: torch.full_like(initial, bound) for side, bound in bounds.items()}
            if spec.prior is not None:
                found |= {k: v.double().expand_as(initial) for k, v in zip(("mean", "sigma"), spec.prior, strict=True)}
            for kind, tensor in found.items():
                self.register_buffer(f"{kind}_{spec.name}", tensor.contiguous().clone())
            if spec.free:
                self.raw[spec.name] = nn.Parameter(torch.zeros_like(scale))

    @property
    def free(self) -> list[str]:
        """Names of the free parameters, in the order of the raw vector."""
        return list(self.raw.keys())

    @property
    def free_labels(self) -> list[str]:
        """Names of the free scalars, in the order of the raw vector; tied components go by the name of the first."""
        return [
            row[i]
            for name in self.free
            for row in self.specs[name].rows_of_labels
            for i in self._get("leading", name).tolist()
        ]

    @property
    def moving_labels(self) -> list[str]:
        """Names of all components that move, tied ones included, in the order of :meth:`sensitivity`."""
        moving = {name: self._get("ties", name).any(1).tolist() for name in self.free}
        return [
            label
            for name in self.free
            for row in self.specs[name].rows_of_labels
            for label, moves in zip(row, moving[name], strict=True)
            if moves
        ]

    def sensitivity(self) -> Float[Tensor, "moving free"]:
        """Derivative of every component that moves, in its unit, with respect to the raw vector, where it is now."""
        vector = self.vector()
        blocks = [block[block.any(1)] for name in self.free for block in self._changes(name, vector)]
        return torch.block_diag(*blocks)

    def vector(self) -> Float[Tensor, "free"]:
        """The raw values of all free parameters in one row, detached."""
        return torch.cat([self.raw[name].detach().flatten() for name in self.free])

    def columns(self, frame: int) -> Int[Tensor, "own"]:
        """Entries of the raw vector that one frame depends on."""
        found, start = [], 0
        for name in self.free:
            size, wide = self.raw[name].numel(), self.raw[name].shape[-1]
            first = start + frame * wide if self.specs[name].own else start
            found.append(torch.arange(first, first + wide, device=self.raw[name].device))
            start += size
        return torch.cat(found)

    def where(self, names: Sequence[str]) -> Bool[Tensor, "free"]:
        """Which entries of the raw vector belong to the parameters with these names."""
        return torch.cat([torch.full_like(self.raw[n], n in names, dtype=torch.bool).flatten() for n in self.free])

    def bounds(self) -> tuple[Float[Tensor, "free"], Float[Tensor, "free"]]:
        """Lowest and highest raw values."""
        low: list[Tensor] = []
        high: list[Tensor] = []
        for name in self.free:
            moves = self._get("ties", name) > 0
            for side, found in (("lower", low), ("upper", high)):
                room = self._room(name, self._get(side, name))
                if side == "lower":
                    nearest = torch.where(moves, room[..., None], -torch.inf).amax(-2)
                else:
                    nearest = torch.where(moves, room[..., None], torch.inf).amin(-2)
                found.append((nearest / self._get("scale", name)).flatten())
        return torch.cat(low), torch.cat(high)

    def _room(self, name: str, value: Tensor) -> Tensor:
        """How far a value is from the initial one, in what raw values move."""
        initial = self._get("initial", name)
        return (value.clamp_min(0) / initial).log() if self.specs[name].log else value - initial

    def scales(self) -> Float[Tensor, "free"]:
        """Natural steps of the free scalars."""
        return torch.cat([self._get("scale", name).flatten() for name in self.free])

    def table(self, name: str, vector: Float[Tensor, "free"] | None = None) -> Float[Tensor, "..."]:
        """Values of one parameter: its components, in a row for each frame where each has its own."""
        initial = self._get("initial", name)
        if name not in self.raw:
            return initial
        change = self._get("scale", name) * (self.raw[name] if vector is None else self._split(vector)[name])
        if self.specs[name].log:
            return initial * change.exp()
        return initial + (change if self.specs[name].ties is None else change @ self._get("ties", name).mT)

    def forward(self, vector: Float[Tensor, "free"] | None = None, frame: int = 0) -> dict[str, Float[Tensor, "..."]]:
        """Physical values of one frame by name; scalars have no dimension.

        Args:
            vector: Raw values instead of the module's own, for derivatives.
            frame: Whose values.
        """
        values = {}
        for name, spec in self.specs.items():
            value = self.table(name, vector)
            value = value[frame] if spec.own else value
            values[name] = value[0] if spec.is_scalar else value
        return values

    def limits(self, name: str) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
        """Lower and upper bounds, shaped like :meth:`table`."""
        return self._get("lower", name), self._get("upper", name)

    def replaced(self, vector: Float[Tensor, "free"], tables: Values) -> Float[Tensor, "free"]:
        """The raw vector with other values of some parameters whose components are not tied."""
        parts = self._split(vector)
        for name, value in tables.items():
            parts[name] = self._room(name, value) / self._get("scale", name)
        return torch.cat([parts[name].flatten() for name in self.free])

    def penalty(self, vector: Float[Tensor, "free"] | None = None) -> Float[Tensor, ""]:
        """Twice the negative logarithm of the priors."""
        total = self._get("initial", next(iter(self.specs))).new_zeros(())
        for name, spec in self.specs.items():
            if spec.prior is not None and spec.free:
                pull = (self.table(name, vector) - self._get("mean", name)) / self._get("sigma", name)
                total = total + pull[..., self._get("leading", name)].square().sum()
        for name, restraint in self.restraints.items():
            total = total + restraint(self.table(name, vector))
        return total

    @torch.no_grad()
    def penalty_derivatives(self, vector: Float[Tensor, "free"]) -> tuple[Tensor, Float[Tensor, "free free"]]:
        """Gradient of the penalty in the raw values, and its expected curvature."""
        gradient = torch.func.grad(self.penalty)(vector)
        blocks = []
        for name in self.free:
            for row, change in enumerate(self._changes(name, vector)):
                block = change.new_zeros(change.shape[1], change.shape[1])
                if self.specs[name].prior is not None:
                    leading = self._get("leading", name)
                    sigma = torch.atleast_2d(self._get("sigma", name))[row, leading]
                    pull = change[leading] / sigma[:, None]
                    block = 2 * pull.T @ pull
                if name in self.restraints:
                    restraint = self.restraints[name]
                    assert isinstance(restraint, ElasticNetwork)
                    block = block + change.T @ restraint.curvature(self.table(name, vector)) @ change
                blocks.append(block)
        return gradient, torch.block_diag(*blocks)

    @torch.no_grad()
    def project(self) -> None:
        """Move raw values that left their bounds back onto them."""
        low, high = (self._split(b) for b in self.bounds())
        for name, raw in self.raw.items():
            raw.clamp_(low[name], high[name])

    def _changes(self, name: str, vector: Tensor) -> list[Tensor]:
        """Derivative of the components [n, free] in the raw values, for each row."""
        scale = torch.atleast_2d(self._get("scale", name))
        if self.specs[name].log:
            return list(torch.diag_embed(torch.atleast_2d(self.table(name, vector)) * scale))
        return [self._get("ties", name) * row for row in scale]

    def _split(self, vector: Tensor) -> dict[str, Tensor]:
        parts = vector.split([self.raw[n].numel() for n in self.free])
        return {n: part.view(self.raw[n].shape) for n, part in zip(self.free, parts, strict=True)}

    def _get(self, kind: str, name: str) -> Tensor:
        tensor: Tensor = getattr(self, f"{kind}_{name}")
        return tensor
