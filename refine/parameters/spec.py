"""What is said of one parameter before it moves."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from refine.errors import required
from refine.parameters.declared import DECLARED, labels


@dataclass(frozen=True)
class ParameterSpec:
    """One parameter, a scalar or a vector, in users' units.

    Attributes:
        name: Name, one of :data:`DECLARED`.
        initial: Where the refinement starts: the components, in a row for each frame where each has its own.
        scale: A natural step; ``None`` for the size of the initial value (one where that is zero).
        free: Refined or frozen.
        lower: Lowest value allowed.
        upper: Highest value allowed.
        prior: Mean and standard deviation of a Gaussian prior, each as the initial value or one for several of it.
        ties: Components (rows) that each free scalar (column) moves; ``None`` for one scalar a component.
        components: Names of the components; ``None`` for those of the declaration.
    """

    name: str
    initial: Float[Tensor, "*frames n"]
    scale: float | None = 1.0
    free: bool = False
    lower: float | None = None
    upper: float | None = None
    prior: tuple[Float[Tensor, "..."], Float[Tensor, "..."]] | None = None
    ties: Float[Tensor, "n free"] | None = None
    components: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        sides = {"lower": ("least", self.initial.ge), "upper": ("most", self.initial.le)}
        for side, (word, ok) in sides.items():
            bound = getattr(self, side)
            if bound is not None and not bool(ok(bound).all()):
                limits = f"at {word} parameters.{self.name}.{side}={bound:g} in every component"
                raise required(f"initial.{self.name}", limits, self.initial.tolist())

    @property
    def own(self) -> bool:
        """Whether each frame has its own."""
        return self.initial.ndim == 2

    @property
    def size(self) -> int:
        """Number of components."""
        return self.initial.shape[-1]

    @property
    def log(self) -> bool:
        """Whether it is refined as its logarithm."""
        return DECLARED[self.name].log

    @property
    def is_scalar(self) -> bool:
        """Whether it is a number rather than a vector."""
        named = DECLARED[self.name].components if self.components is None else self.components
        return not named

    @property
    def rows_of_labels(self) -> list[list[str]]:
        """Names of its scalars, row by row; those of frames end with their numbers."""
        names = labels(self.name, self.components)
        return [[f"{n}_{i}" for n in names] for i in range(1, len(self.initial) + 1)] if self.own else [names]

    @property
    def labels(self) -> list[str]:
        """Names of all its scalars."""
        return [label for row in self.rows_of_labels for label in row]

    def unit(self, index: int) -> str:
        """Unit of one of its scalars."""
        return DECLARED[self.name].unit_of(index % self.size)
