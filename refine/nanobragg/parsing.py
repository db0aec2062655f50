"""From tokens to settings, by the reference program's matching rules.

Only tokens that begin with ``-`` are looked at. A flag is recognised wherever its name occurs in a token, later flags
override earlier ones, and values are looked at again as tokens of their own.
"""

from collections.abc import Callable, Sequence

from refine.errors import required

from .arguments import FLAGS, OWN, TABLE
from .c_numbers import c_float, looks_numeric
from .command import Command
from .flags import MORE

Warn = Callable[[str], None]


def read_own(tokens: Sequence[str], command: Command) -> list[str]:
    """Take this program's own flags out of the tokens.

    Raises:
        InputError: if a value is missing or none of those allowed.
    """
    rest = []
    position = 0
    while position < len(tokens):
        token = tokens[position]
        if token not in OWN or token == "--help":
            rest.append(token)
            position += 1
            continue
        count = len(OWN[token][0].split())
        values = list(tokens[position + 1 : position + 1 + count])
        if len(values) < count:
            raise required(token, OWN[token][0], "nothing")
        _own(command, token, values)
        position += 1 + count
    return rest


def _own(command: Command, token: str, values: list[str]) -> None:
    if token == "--trace":
        if not all(v.isdecimal() and len(v) < 10 for v in values):
            raise required(token, "a pixel as two whole numbers F S", " ".join(values))
        command.trace = (int(values[0]), int(values[1]))
    elif token == "--max-evaluations":
        command.max_evaluations = c_float(values[0])
    else:
        allowed = OWN[token][0].split("|")
        if len(allowed) > 1 and values[0] not in allowed:
            raise required(token, " or ".join(allowed), values[0])
        setattr(command, token[2:], values[0])


def parse(tokens: Sequence[str], command: Command, warn: Warn) -> None:
    """Write what the tokens say into the settings, first to last.

    Args:
        tokens: The command line without the program's name and without its own flags.
        command: Settings, perhaps with values from an image header already.
        warn: Called with one line for each token that means nothing.
    """
    used: set[int] = set()
    for position, token in enumerate(tokens):
        if not token.startswith("-"):
            continue
        values = tokens[position + 1 :]
        matching = [flag for flag in FLAGS if flag.matches(token)]
        if command.compat == "spec":
            matching = [flag for flag in matching if token in flag.texts] or matching
        for flag in matching:
            used.add(position)
            if len(values) < flag.count or (flag.values == MORE and not values and command.compat == "c"):
                warn(f"{token}: expected {flag.values}, got nothing; ignored")
                continue
            flag.action(command, token, values)
            used.update(range(position + 1, position + 1 + _taken(flag.values, values)))
            if flag.pivot is not None:
                command.pivot = flag.pivot
            if flag.last:
                break
        if not matching and position not in used and not looks_numeric(token):
            warn(f"{token}: unknown flag, ignored")
            used.add(position)
    for position, token in enumerate(tokens):
        if position not in used and not token.startswith("-"):
            warn(f"{token}: belongs to no flag, ignored")


def _taken(pattern: str, values: Sequence[str]) -> int:
    """How many tokens a flag's values are, for the sake of warnings alone."""
    if pattern == MORE:
        return 0
    count = len(pattern.replace("[", "").replace("]", "").split())
    if "[" not in pattern:
        return count
    if "rand" in values[0]:
        return 1
    stops = [n for n, text in enumerate(values[:count]) if text.startswith("-") and not looks_numeric(text)]
    return min([count, *stops])


def help_text() -> str:
    """The flags by topic."""
    lines = ["usage: python -m refine.nanobragg -cell a b c al be ga -default_F 100 [flags]", ""]
    for topic, flags in TABLE.items():
        lines.append(topic)
        lines += [f"  {' '.join(flag.texts):<46} {flag.shown:<18} {flag.meaning}" for flag in flags]
        lines.append("")
    lines.append("This program's own")
    lines += [f"  {name:<46} {values:<18} {meaning}" for name, (values, meaning) in OWN.items()]
    return "\n".join(lines) + "\n"
