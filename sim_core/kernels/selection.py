"""Which implementation of a hot loop runs, and one line in the log that says so."""

import logging
from collections.abc import Iterable
from functools import cache
from importlib import import_module

import torch
from torch import Tensor

from ..interference import Gaussian, Shape, Square

KERNELS = ("auto", "eager", "compiled")
"""What can be asked for."""

WORTHWHILE = 1 << 24
"""Evaluations in one call from which on ``auto`` takes the compiled kernel: below, compiling for the first time costs
more than it saves. The size alone decides, so that a run takes the same path however often it is repeated."""

BETWEEN = 64
"""How many evaluations one counts as that fetches all neighbours of a place between reflections."""

WORTHWHILE_SPOTS = 1 << 16
"""The same for the closed form, in Gaussians: pixels times lattice points, terms and steps."""

_log = logging.getLogger("sim_core.kernels")


def entries(tensors: Iterable[object]) -> tuple[str, ...]:
    """What a kernel must be able to compute for one call: its image, and derivatives backwards or forwards.

    Args:
        tensors: Everything that the image depends on; what is no tensor does not count.
    """
    found = [t for t in tensors if isinstance(t, Tensor)]
    backwards = torch.is_grad_enabled() and any(t.requires_grad for t in found)
    forwards = any(torch.autograd.forward_ad.unpack_dual(t).tangent is not None for t in found)
    return ("image", *["gradient"] * backwards, *["tangents"] * forwards)


def select(
    wanted: str,
    evaluations: int,
    device: torch.device,
    dtype: torch.dtype,
    shape: Shape,
    interpolate: bool = False,
    amplitudes_vary: bool = False,
    needed: tuple[str, ...] = ("image",),
) -> str:
    """The kernel for one call: ``eager`` or ``compiled``.

    Args:
        wanted: ``eager``, ``compiled`` (wherever there is such a kernel) or ``auto`` (where it pays, too).
        evaluations: Rows times orientations.
        device: Where the tensors are.
        dtype: Precision of the sum.
        shape: The interference function.
        interpolate: Whether amplitudes are looked up between reflections.
        amplitudes_vary: Whether amplitudes carry a gradient, which the kernel for a GPU does not have.
        needed: What will be computed, from :func:`entries`.

    Raises:
        ValueError: for another word.
    """
    if wanted not in KERNELS:
        raise ValueError(f"kernel: expected one of {', '.join(KERNELS)}, got {wanted}")
    reason = _against(wanted, evaluations, device, dtype, shape, interpolate, amplitudes_vary)
    if not reason:
        reason = _missing("lattice.compiled" if device.type == "cpu" else "lattice.gpu", dtype, needed, interpolate)
    name = "machine code" if device.type == "cpu" else "Triton"
    precision = str(dtype).removeprefix("torch.")
    _say(f"sum over orientations: eager ({reason})" if reason else f"sum over orientations: {name}, {precision}")
    return "eager" if reason else "compiled"


def select_closed_form(
    wanted: str, evaluations: int, device: torch.device, dtype: torch.dtype, needed: tuple[str, ...] = ("image",)
) -> str:
    """The kernel for one image in closed form: ``eager`` or ``compiled``.

    Args:
        wanted: As of :func:`select`.
        evaluations: Pixels times lattice points, Gaussians and steps.
        device: Where the tensors are.
        dtype: Precision of the intensities.
        needed: What will be computed, from :func:`entries`.

    Raises:
        ValueError: for another word.
    """
    if wanted not in KERNELS:
        raise ValueError(f"kernel: expected one of {', '.join(KERNELS)}, got {wanted}")
    if wanted == "eager":
        reason = "as asked for"
    elif device.type != "cpu":
        reason = f"no compiled kernel for {device.type}"
    elif dtype not in (torch.float32, torch.float64):
        reason = f"no compiled kernel in {dtype}"
    elif wanted == "auto" and evaluations < WORTHWHILE_SPOTS:
        reason = "too small for compiling to pay"
    else:
        reason = _missing("spots.compiled", dtype, needed)
    _say(f"closed form: eager ({reason})" if reason else f"closed form: machine code, {str(dtype)[6:]}")
    return "eager" if reason else "compiled"


def _against(
    wanted: str,
    evaluations: int,
    device: torch.device,
    dtype: torch.dtype,
    shape: Shape,
    interpolate: bool,
    amplitudes_vary: bool,
) -> str:
    """Why the compiled kernel does not run; empty if it does."""
    if wanted == "eager":
        return "as asked for"
    elsewhere = "" if device.type == "cpu" else f" on {device.type}"
    if not isinstance(shape, Square) and (elsewhere or not isinstance(shape, Gaussian)):
        return f"no compiled kernel for the shape {type(shape).__name__.lower()}{elsewhere}"
    if elsewhere and interpolate:
        return f"no compiled kernel between reflections{elsewhere}"
    if elsewhere and amplitudes_vary:
        return f"no compiled kernel for the gradient in structure factors{elsewhere}"
    if dtype not in (torch.float32, torch.float64):
        return f"no compiled kernel in {dtype}"
    if wanted == "auto" and evaluations * (BETWEEN if interpolate else 1) < WORTHWHILE:
        return "too small for compiling to pay"
    if device.type != "cpu" and wanted == "auto":
        return f"the compiled kernel has not been measured on {device.type}"
    return ""


def _missing(module: str, dtype: torch.dtype, needed: tuple[str, ...], *variant: bool) -> str:
    """What stands in the way of compiling here, for the first of ``needed`` that fails."""
    return next(filter(None, (_problem(module, dtype, entry, *variant) for entry in needed)), "")


@cache
def _problem(module: str, dtype: torch.dtype, entry: str, *variant: bool) -> str:
    """Why one loop cannot run here; empty if it can."""
    try:
        kernel = import_module(f".{module}", __package__)
    except Exception as error:  # an installation without a compiler, or with a broken one, still works
        return f"{type(error).__name__}: {error}".split("\n")[0]
    reason: str = kernel.problem(dtype, entry, *variant)
    return reason


@cache
def _say(line: str) -> None:
    """One line for each choice in a process."""
    _log.info(line)
