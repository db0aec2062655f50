"""Errors of the schema in the one line that users read."""

from pydantic import ValidationError


def first_error(error: ValidationError) -> str:
    """The first of the errors: field, what was expected, what came."""
    first, *others = error.errors()
    place = [part for part in first["loc"] if not _is_branch(part)]
    kind, got, message = first["type"], first["input"], first["msg"]
    if isinstance(place[-1], int) and kind in ("missing", "too_long"):
        place = place[:-1]
        kind = "too_long"
    if kind == "too_long":
        missing = sum(1 for e in (first, *others) if e["type"] == "missing" and e["loc"][: len(place)] == (*place,))
        expected = first["ctx"]["max_length"] if "ctx" in first else len(got) + missing
        message = f"expected {expected} numbers, got {_short(got)}"
    elif kind == "extra_forbidden":
        message = "no such key"
    elif kind == "value_error":
        message = message.removeprefix("Value error, ")
    else:
        message = f"expected {_EXPECTED.get(kind, _plain(message))}, got {_short(got)}"
    return f"{'.'.join(str(p) for p in place)}: {message}"


def _is_branch(part: object) -> bool:
    """Whether a step of pydantic's path names a branch of a union, not a key."""
    return isinstance(part, str) and ("[" in part or "-" in part or part in ("float", "int", "str", "tuple"))


def _plain(message: str) -> str:
    message = message.removeprefix("Input should be ")
    return f"a number {message}" if message.startswith(("greater", "less")) else message


_EXPECTED = {
    "tuple_type": "a list of numbers",
    "list_type": "a list of numbers",
    "float_parsing": "a number",
    "float_type": "a number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "model_type": "a section of keys",
    "missing": "a value",
}


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


_MOVED = {
    "diffuse_fit.map": "data.map",
    "diffuse_fit.noise": "data.relative_noise",
    "diffuse_fit.disturb_A": "initial.disturb_A",
    "diffuse_fit.restraint": "parameters.xyz.restraint",
    "diffuse_fit.points": "diffuse.points",
    "diffuse_fit.q_max": "diffuse.q_max",
    "diffuse_fit.truth": "truth",
    "diffuse_fit.initial": "initial",
    "diffuse_fit.free": "parameters.gamma_intra.free, parameters.gamma_inter.free, parameters.xyz.free and "
    "parameters.scale.free",
}
"""Where keys of earlier versions are now."""


def moved(key: str) -> str:
    """What to say of a key of an earlier version; empty for any other key."""
    if key == "diffuse_fit":
        return "no such section any more: " + ", ".join(f"{old[12:]} is {new}" for old, new in _MOVED.items())
    for old, new in _MOVED.items():
        if key == old or key.startswith(old + "."):
            return f"is now {new}{key.removeprefix(old)}"
    return ""
