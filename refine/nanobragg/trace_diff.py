"""Where two traces part: ``python -m refine.nanobragg.trace_diff A B``."""

import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from refine.errors import InputError, required

from .c_numbers import float_prefix

TOLERANCE = 1e-12
"""Relative difference from which values count as different."""

Trace = dict[str, list[float]]


def read_trace(path: str) -> Trace:
    """Values by name, in the order of the file; lines of another form are passed over.

    Raises:
        InputError: if the file cannot be read or holds no line ``name = value``.
    """
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError) as error:
        raise required("trace", "a readable file", f"{path} ({getattr(error, 'strerror', None) or error})") from None
    trace: Trace = {}
    for line in text.splitlines():
        found = re.match(r"\s*(\S[^=]*?)\s*=\s*(.+)$", line)
        if found is None:
            continue
        numbers = [float_prefix(word) for word in found[2].split()]
        values = [x for x in numbers if x is not None]
        if values and len(values) == len(numbers):
            trace[found[1]] = values
    if not trace:
        raise required(path, "lines name = value", "none")
    return trace


def relative_error(a: Sequence[float], b: Sequence[float]) -> float:
    """Largest difference of two vectors relative to the larger of their norms."""
    if len(a) != len(b):
        return math.inf
    size = max(math.hypot(*a), math.hypot(*b))
    largest = max(0.0 if x == y or (x != x and y != y) else abs(x - y) for x, y in zip(a, b, strict=True))
    if largest == 0.0:
        return 0.0
    return largest / size if math.isfinite(largest) and size > 0.0 else math.inf


def report(a: Trace, b: Trace, tolerance: float) -> tuple[list[str], bool]:
    """Lines of the report, and whether the traces agree."""
    common = [name for name in a if name in b]
    lines = []
    first = None
    for name in common:
        error = relative_error(a[name], b[name])
        if error <= tolerance:
            continue
        first = first or name
        values = " | ".join(" ".join(f"{x:.15g}" for x in side) for side in (a[name], b[name]))
        lines.append(f"{name}: {values} (relative error {error:.3g})")
    single = [f"only in A: {name}" for name in a if name not in b] + [
        f"only in B: {name}" for name in b if name not in a
    ]
    head = f"first divergence: {first}" if first else f"no divergence in {len(common)} common values"
    return [head, *lines, *single], first is None and bool(common)


def main(argv: Sequence[str] | None = None) -> int:
    """Compare two traces.

    Returns:
        0 if they agree, 1 if they part, 2 for bad input.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    tolerance = TOLERANCE
    if len(arguments) == 4 and arguments[2] == "--tolerance":
        tolerance = float_prefix(arguments[3]) or 0.0
        arguments = arguments[:2]
    if len(arguments) != 2:
        print("usage: python -m refine.nanobragg.trace_diff A B [--tolerance 1e-12]", file=sys.stderr)
        return 2
    try:
        lines, same = report(read_trace(arguments[0]), read_trace(arguments[1]), tolerance)
    except InputError as error:
        print(f"trace_diff: {error}", file=sys.stderr)
        return 2
    print("\n".join(lines))
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
