"""Which implementation of the closed form runs, and one line in the log that says so."""

import logging
from functools import cache

import torch

KERNELS = ("auto", "eager", "compiled")
"""What can be asked for."""

WORTHWHILE = 1 << 16
"""Gaussians in one image from which on ``auto`` takes machine code: below, compiling for the first time costs more
than it saves. The size alone decides, so that a run takes the same path however often it is repeated."""

_log = logging.getLogger("sim_core.kernels")


def select(wanted: str, evaluations: int, device: torch.device, dtype: torch.dtype) -> str:
    """The kernel for one call: ``eager`` or ``compiled``.

    Args:
        wanted: ``eager``, ``compiled`` (wherever there is such a kernel) or ``auto`` (where it pays, too).
        evaluations: Pixels times lattice points, Gaussians and steps.
        device: Where the tensors are.
        dtype: Precision of the intensities.

    Raises:
        ValueError: for another word.
    """
    if wanted not in KERNELS:
        raise ValueError(f"kernel: expected one of {', '.join(KERNELS)}, got {wanted}")
    reason = _against(wanted, evaluations, device, dtype)
    _say(f"closed form: eager ({reason})" if reason else f"closed form: machine code, {str(dtype)[6:]}")
    return "eager" if reason else "compiled"


def _against(wanted: str, evaluations: int, device: torch.device, dtype: torch.dtype) -> str:
    """Why the compiled kernel does not run; empty if it does."""
    if wanted == "eager":
        return "as asked for"
    if device.type != "cpu":
        return f"no compiled kernel for {device.type}"
    if dtype not in (torch.float32, torch.float64):
        return f"no compiled kernel in {dtype}"
    if wanted == "auto" and evaluations < WORTHWHILE:
        return "too small for compiling to pay"
    return _missing(dtype)


@cache
def _missing(dtype: torch.dtype) -> str:
    """What stands in the way of compiling here."""
    try:
        from . import spot_compiled
    except Exception as error:  # an installation without a compiler, or with a broken one, still works
        return f"{type(error).__name__}: {error}".split("\n")[0]
    return spot_compiled.problem(dtype)


@cache
def _say(line: str) -> None:
    """One line for each choice in a process."""
    _log.info(line)
