"""Errors that a user can act on: each is one line that names the field or file, what was required, what came."""

from pathlib import Path


class InputError(ValueError):
    """Bad input."""


class RefinementError(RuntimeError):
    """A refinement that started and could not go on."""


def required(where: str | Path, what: str, got: object) -> InputError:
    """The one form in which bad input is reported."""
    return InputError(f"{where}: expected {what}, got {got}")
