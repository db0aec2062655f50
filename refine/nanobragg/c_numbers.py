"""Numbers as C reads them: the longest numeric prefix counts, and what is no number is zero."""

import re

_FLOAT = re.compile(
    r"\s*([-+]?(?:0[xX](?:[0-9a-fA-F]+\.?[0-9a-fA-F]*|\.[0-9a-fA-F]+)(?:[pP][-+]?\d+)?"
    r"|(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|inf(?:inity)?|nan))",
    re.IGNORECASE,
)
_INTEGER = re.compile(r"\s*([-+]?\d+)")
_LONG = 2**63


def float_prefix(text: str) -> float | None:
    """Value of the numeric prefix, ``None`` if there is none (``strtod``)."""
    found = _FLOAT.match(text)
    if found is None:
        return None
    digits = found[1]
    try:
        return float.fromhex(digits) if "x" in digits.lower() else float(digits)
    except OverflowError:
        return float("inf")


def c_float(text: str) -> float:
    """``atof``: the numeric prefix, or zero."""
    value = float_prefix(text)
    return 0.0 if value is None else value


def c_int(text: str) -> int:
    """``atoi``: the integer prefix, or zero; a number that does not fit is clamped to 64 bits, then cut to 32."""
    found = _INTEGER.match(text)
    if found is None:
        return 0
    value = min(max(int(found[1][:40]), -_LONG), _LONG - 1)
    return (value + 2**31) % 2**32 - 2**31


def looks_numeric(text: str) -> bool:
    """Whether a token beginning with ``-`` is a negative number and no flag."""
    found = _FLOAT.match(text)
    return found is not None and found.end() == len(text)
