"""The expected counts of one frame: a sum of terms."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from refine.data.sites import Sites
from refine.devices import device_of, on_device
from refine.experiment.sample import Sample, Values
from refine.terms.planes import BoxPlanes
from refine.terms.term import Term


@runtime_checkable
class SceneMaker(Protocol):
    """An instrument."""

    def experiment(self, values: Values, sample: Sample, everywhere: bool = False) -> Any:
        """What it makes of values and a sample."""


class Model(nn.Module):
    """Expected photons of the sites of one frame as a function of its parameters' values.

    Args:
        instrument: Makes an experiment of values and sample.
        sample: What stands in the beam.
        sites: Where there are data.
        terms: The summands, by names of their own.
        planes: Planes of background under boxes, eliminated; ``None`` without.
    """

    def __init__(
        self,
        instrument: SceneMaker,
        sample: Sample,
        sites: Sites,
        terms: Mapping[str, Term[Any]],
        planes: BoxPlanes | None = None,
    ) -> None:
        super().__init__()
        self.instrument, self.sample, self.sites = instrument, sample, sites
        self.terms = nn.ModuleDict(terms)
        self.planes = planes

    @property
    def linear(self) -> tuple[str, ...]:
        """Coefficients, in the order of the columns."""
        names = [term.coefficient for term in self.each] + ["background"] * (self.planes is not None)
        return tuple(dict.fromkeys(names))

    @property
    def each(self) -> list[Term[Any]]:
        """The terms."""
        return list(self.terms.values())  # type: ignore[arg-type]

    @property
    def reads(self) -> frozenset[str]:
        """Parameters that the photons depend on."""
        return frozenset(self.linear).union(*(term.reads for term in self.each))

    @property
    def whole(self) -> bool:
        """Whether the photons of one site depend on which others there are."""
        return self.planes is not None

    def experiment(self, values: Values, everywhere: bool = False) -> Any:
        """The experiment at given values, in the core's units; ``everywhere`` with amplitudes of all reflections."""
        return self.instrument.experiment(values, self.sample, everywhere)

    def summed(self, values: Values, sites: Sites) -> dict[str, Float[Tensor, "n columns"]]:
        """Photons for each unit of each linear parameter, by its name: the sum over terms."""
        scene = self.experiment(values)
        columns: dict[str, Tensor] = {}
        for term in self.each:
            name, photons = term.coefficient, term(values, scene, sites)
            columns[name] = columns[name] + photons if name in columns else photons
        return columns

    def design(self, values: Values, sites: Sites) -> Float[Tensor, "n columns"]:
        """The same beside each other."""
        return torch.cat(list(self.summed(values, sites).values()), -1)

    def parts(self, values: Values, sites: Sites | None = None) -> Float[Tensor, "n columns"]:
        """The design; where planes are eliminated, what they leave of it and, last, the planes of the data."""
        columns = self.design(values, self.sites if sites is None else sites)
        if self.planes is None:
            return columns
        seen = columns if sites is None else self.design(values, self.sites)
        return self.planes.eliminated(columns, seen, None if sites is None else sites.index)

    def forward(self, values: Values, sites: Sites | None = None) -> Float[Tensor, "n"]:
        """Expected photons; with planes under boxes not below what is least.

        Args:
            values: Every parameter of the frame by name, in users' units.
            sites: Other sites than the model's own.
        """
        coefficients = torch.cat([values[name].reshape(-1) for name in self.linear])
        photons = self.parts(values, sites) @ coefficients
        least = self.least(sites)
        return photons if least is None else torch.maximum(photons, least)

    def least(self, sites: Sites | None = None) -> Float[Tensor, "n"] | None:
        """Fewest photons that are expected; ``None`` where they are sums of what is positive."""
        return None if self.planes is None else self.planes.least(None if sites is None else sites.index)

    def at(self, sites: Sites, planes: BoxPlanes | None = None) -> "Model":
        """The same at other sites; planes take the place of a background."""
        terms = {n: t for n, t in self.terms.items() if planes is None or t.coefficient != "background"}
        return Model(self.instrument, self.sample, sites, terms, planes)  # type: ignore[arg-type]

    def part(self, values: Values, name: str, sites: Sites | None = None) -> Float[Tensor, "n"]:
        """Photons of one coefficient's terms, times it."""
        scene, where = self.experiment(values), self.sites if sites is None else sites
        terms = [t for key, t in self.terms.items() if key == name or t.coefficient == name]
        photons = [term(values, scene, where) @ values[str(term.coefficient)].reshape(-1) for term in terms]
        return torch.stack(photons).sum(0)

    @torch.no_grad()
    def prepare(self, values: Values) -> None:
        """Let sample and terms choose what depends on the values and carries no derivative."""
        self.sample.prepare(values)
        scene = self.experiment(values)
        for term in self.each:
            term.prepare(values, scene, self.sites)
        if self.planes is not None:
            self.planes.reweight(self.part(values, "scale"))

    @property
    def evaluations(self) -> int:
        """Terms of all sums."""
        return sum(term.evaluations(self.sites) for term in self.each)

    def described(self) -> dict[str, Any]:
        """What the terms are, for results.json."""
        return {key: value for term in self.each for key, value in term.described().items()}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Model":
        """Also move the sites."""
        super()._apply(fn, recurse)
        self.sites = on_device(self.sites, device_of(fn))
        return self
