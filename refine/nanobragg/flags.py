"""The flags of the command line as data: names, values, meaning, and what each does to the settings.

A name stands for every token that contains it; a name that ends in ``$`` stands for itself alone. Flags act in the
order of this table, and one token may be several flags.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .c_numbers import c_float, c_int
from .command import Command
from .vectors import DEGREES, Vector

Action = Callable[[Command, str, Sequence[str]], None]
Unit = Callable[[str], Any]

MORE = "[more]"
"""Values of a flag that takes none and yet is not recognised as the last token."""


def mm(text: str) -> float:
    """Millimetres to metres."""
    return c_float(text) / 1000.0


def micrometres(text: str) -> float:
    """Micrometres to metres."""
    return c_float(text) * 1e-6


def angstrom(text: str) -> float:
    """Angstrom to metres."""
    return c_float(text) * 1e-10


def degrees(text: str) -> float:
    """Degrees to radians."""
    return c_float(text) / DEGREES


def percent(text: str) -> float:
    """Percent to a fraction."""
    return c_float(text) / 100.0


def opposite(text: str) -> int:
    """The generator starts anew from a seed that is not positive."""
    return -c_int(text)


@dataclass(frozen=True)
class Flag:
    """One rule of the command line.

    Attributes:
        names: Texts that are looked for, separated by spaces.
        values: The values that must follow, as the help shows them.
        meaning: One phrase for the help.
        action: Writes into the settings, given the token and the tokens after it.
        pivot: What the detector's pivot becomes.
        last: No later rule looks at the token.
    """

    names: str
    values: str
    meaning: str
    action: Action
    pivot: str | None = None
    last: bool = False

    @property
    def count(self) -> int:
        """Number of values that must follow; an optional one is in brackets."""
        return len(self.values.split("[")[0].split())

    def matches(self, token: str) -> bool:
        """Whether the rule is about this token."""
        return any(token == n[:-1] if n.endswith("$") else n in token for n in self.names.split())

    @property
    def texts(self) -> list[str]:
        """The names as they are written."""
        return self.names.replace("$", "").split()

    @property
    def shown(self) -> str:
        """The values as the help shows them."""
        return "" if self.values == MORE else self.values


def store(name: str, unit: Unit = c_float) -> Action:
    """Write the converted value to a field; ``field.i`` is an entry of a list."""
    field, _, index = name.partition(".")

    def act(command: Command, token: str, values: Sequence[str]) -> None:
        if index:
            getattr(command, field)[int(index)] = unit(values[0])
        else:
            setattr(command, field, unit(values[0]))

    return act


def constant(**fields: Any) -> Action:
    """Write fixed values."""

    def act(command: Command, token: str, values: Sequence[str]) -> None:
        for name, value in fields.items():
            setattr(command, name, value)

    return act


def all_of(field: str, unit: Unit) -> Action:
    """Write one value to all entries of a list."""

    def act(command: Command, token: str, values: Sequence[str]) -> None:
        setattr(command, field, [unit(values[0])] * len(getattr(command, field)))

    return act


def each_of(field: str, unit: Unit) -> Action:
    """Write one value to each entry of a list."""

    def act(command: Command, token: str, values: Sequence[str]) -> None:
        setattr(command, field, [unit(text) for text in values[: len(getattr(command, field))]])

    return act


def ignored(command: Command, token: str, values: Sequence[str]) -> None:
    """Read for the sake of old scripts, without an effect on the image."""


def convention(name: str, pivot: str) -> Flag:
    """A flag that names one of the five conventions."""
    return Flag(f"-{name}", "", f"{name.upper()} convention", constant(convention=name), pivot)


def vector(name: str, meaning: str) -> Flag:
    """A flag that sets a vector of the laboratory."""

    def act(command: Command, token: str, values: Sequence[str]) -> None:
        x: Vector = (c_float(values[0]), c_float(values[1]), c_float(values[2]))
        command.vectors[name] = (x[0] / 1000.0, x[1] / 1000.0, x[2] / 1000.0) if token.endswith("_mm") else x
        command.convention = "custom"

    return Flag(f"-{name}", "x y z", meaning, act)
