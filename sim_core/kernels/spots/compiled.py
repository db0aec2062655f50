"""The closed form as machine code on a CPU: one vector of parameters, arrays, threads, and derivatives both ways.

All tensors of an image become one vector, so that autograd sees a function of two arguments: the parameters and the
amplitudes. Lengths of reciprocal space are measured in the width of a spot. Pixels are cut into parts whatever the
number of threads, so that results do not depend on it.
"""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..parts import in_parts
from . import machine_code as spot_machine_code
from .camera import Camera
from .sum import Settings, Spots
from .tile import BASIS, CAMERA, LANES, TERM, TERMS, Plan

PART = LANES << 7
"""Pixels of a part."""

LARGEST_TABLES = 1 << 25
"""Numbers that the gradients of all parts in the amplitudes may take."""


_NUMPY = {torch.float32: np.float32, torch.float64: np.float64}
_NO_BATCH = "spot_image: a batch of experiments is a loop; only its derivatives are batched"


class Job(NamedTuple):
    """What is not differentiated: the pixels (or none of them for the whole image), their number, width, plan."""

    pixels: Int[Tensor, "pixels 2"]
    size: int
    width: int
    plan: Plan
    dtype: torch.dtype


def spot_image(
    camera: Camera,
    spots: Spots,
    amplitudes: Float[Tensor, "reflections"],
    settings: Settings,
    pixels: Int[Tensor, "pixels 2"] | None = None,
) -> Float[Tensor, "pixels"]:
    """See :func:`sim_core.kernels.spots.image.spot_image`."""
    unit = torch.linalg.matrix_norm(spots.constant[0, 0].detach()).sqrt()
    width, height = camera.image_size
    job = Job(
        pixels=torch.zeros(0, 2, dtype=torch.long) if pixels is None else pixels,
        size=width * height if pixels is None else len(pixels),
        width=width,
        plan=_plan(camera, spots, settings, len(amplitudes), float(unit)),
        dtype=settings.dtype,
    )
    y: Tensor = _SpotImage.apply(_parameters(camera, spots, unit), amplitudes, job)
    return y


def _plan(camera: Camera, spots: Spots, settings: Settings, amplitudes: int, unit: float) -> Plan:
    low = (settings.h_min - 1).tolist() if amplitudes > 1 else (0, 0, 0)
    size = [n + 2 for n in settings.box] if amplitudes > 1 else (1, 1, 1)
    steps, terms = spots.constant.shape[:2]
    return Plan(
        float(camera.blur),
        float(camera.flatness),
        (camera.s_max / unit) ** 2,
        camera.b_iso is not None,
        camera.absorption is not None,
        spots.half_width is not None,
        terms,
        steps,
        *settings.neighbours,
        *(float(n) for n in low),
        *(float(n) for n in size),
    )


def _parameters(camera: Camera, spots: Spots, unit: Tensor) -> Float[Tensor, "parameters"]:
    """All parameters in the order of :mod:`spot_tile`: the camera, then each step."""
    none = camera.origin.new_zeros(5)
    steps, terms = spots.constant.shape[:2]
    b_iso = none[:1] if camera.b_iso is None else camera.b_iso[None] * unit**2
    absorption = none if camera.absorption is None else torch.cat([*camera.absorption])
    wave, per_wavelength = camera.wave / unit, camera.per_wavelength[None] / unit
    vectors = [camera.origin, camera.fast, camera.slow, wave, per_wavelength, camera.bandwidth[None]]
    head = torch.cat([*vectors, _six(camera.polarization), camera.area[None], b_iso, absorption, none[:1]])
    half_width = none[:1] if spots.half_width is None else spots.half_width[None]
    heights = spots.shares[:, None] * spots.heights / unit**3
    empty = none[:1].expand(steps, terms, 1)
    gaussians = torch.cat([_six(spots.constant) / unit**2, heights[..., None], empty], -1)
    turning = torch.cat([spots.axis, half_width, none[:1]]).expand(steps, 5)
    basis = (spots.basis / unit).mT.flatten(1)
    return torch.cat([head, torch.cat([basis, _six(spots.mosaic), turning, gaussians.flatten(1)], -1).flatten()])


def _six(m: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 6"]:
    """Entries xx, yy, zz, yz, xz, xy of symmetric matrices."""
    return m.flatten(-2)[..., [0, 4, 8, 5, 2, 1]]


class _SpotImage(torch.autograd.Function):
    @staticmethod
    def forward(parameters: Tensor, amplitudes: Tensor, job: Job) -> Tensor:
        out = np.empty(job.size, _NUMPY[job.dtype])
        common = _arguments(parameters, amplitudes, job)
        in_parts(job.size, PART, lambda start, stop: spot_machine_code.image(*common, start, stop, out))
        return torch.from_numpy(out)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *tensors, ctx.job = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)
        ctx.set_materialize_grads(False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad is None:
            return None, None, None
        by_parameters, by_amplitudes = _Gradient.apply(*ctx.saved_tensors, grad, ctx.job, ctx.needs_input_grad[1])
        return by_parameters, by_amplitudes if ctx.needs_input_grad[1] else None, None

    @staticmethod
    def jvp(ctx: Any, directions: Tensor | None, changes: Tensor | None, _: None) -> Tensor:
        y: Tensor = _Tangents.apply(*ctx.saved_tensors, directions, changes, ctx.job)
        return y

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        raise NotImplementedError(_NO_BATCH)


class _Gradient(torch.autograd.Function):
    """The gradient against weights of the pixels; rows of weights are a loop."""

    @staticmethod
    def forward(parameters: Tensor, amplitudes: Tensor, grad: Tensor, job: Job, table: bool) -> tuple[Tensor, Tensor]:
        return _gradient(parameters, amplitudes, grad, job, table)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        pass

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        if in_dims[0] is not None or in_dims[1] is not None:
            raise NotImplementedError(_NO_BATCH)
        parameters, amplitudes, grad, job, table = args
        rows = [_gradient(parameters, amplitudes, g, job, table) for g in grad.movedim(in_dims[2], 0)]
        by_parameters, by_amplitudes = zip(*rows, strict=True)
        return (torch.stack(by_parameters), torch.stack(by_amplitudes)), (0, 0)


class _Tangents(torch.autograd.Function):
    """The derivative along directions; all directions of a Jacobian in one pass."""

    @staticmethod
    def forward(
        parameters: Tensor, amplitudes: Tensor, directions: Tensor | None, changes: Tensor | None, job: Job
    ) -> Tensor:
        directions, changes = (None if t is None else t[None] for t in (directions, changes))
        return _tangents(parameters, amplitudes, directions, changes, job)[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> Any:
        if in_dims[0] is not None or in_dims[1] is not None:
            raise NotImplementedError(_NO_BATCH)
        parameters, amplitudes, *tangents, job = args
        directions, changes = (
            t if t is None else t.expand(info.batch_size, *t.shape) if d is None else t.movedim(d, 0)
            for t, d in zip(tangents, in_dims[2:4], strict=True)
        )
        return _tangents(parameters, amplitudes, directions, changes, job), 0


def _tangents(
    parameters: Tensor, amplitudes: Tensor, directions: Tensor | None, changes: Tensor | None, job: Job
) -> Float[Tensor, "directions pixels"]:
    given = next(t for t in (directions, changes) if t is not None)
    along = _array(given.new_zeros(len(given), len(parameters)) if directions is None else directions)
    moving = np.zeros((0, 0)) if changes is None else _array(changes)
    out = np.empty((len(given), job.size), _NUMPY[job.dtype])
    common = _arguments(parameters, amplitudes, job)
    rest = (along.astype(out.dtype), moving, bool(along[:, :CAMERA].any()), out)
    in_parts(job.size, PART, lambda start, stop: spot_machine_code.tangents(*common, start, stop, *rest))
    return torch.from_numpy(out)


def _gradient(
    parameters: Tensor, amplitudes: Tensor, grad: Tensor, job: Job, table: bool
) -> tuple[Float[Tensor, "parameters"], Float[Tensor, "reflections"]]:
    common = _arguments(parameters, amplitudes, job)
    upstream = grad.detach().to(job.dtype).contiguous().numpy()
    most = max(1, LARGEST_TABLES // len(amplitudes)) if table else job.size
    size = max(PART, LANES * -(-job.size // (LANES * most))) if job.size else PART
    parts = -(-job.size // size)
    sums, tables = np.zeros((parts, len(parameters))), np.zeros((parts, len(amplitudes) if table else 0))

    def work(start: int, stop: int) -> None:
        part = start // size
        spot_machine_code.gradient(*common, start, stop, upstream, sums[part], tables[part])

    in_parts(job.size, size, work)
    return torch.from_numpy(sums.sum(0)), torch.from_numpy(tables.sum(0))


def _arguments(parameters: Tensor, amplitudes: Tensor, job: Job) -> tuple[Any, ...]:
    """What all loops are given first."""
    p = _array(parameters)
    steps = p[CAMERA:].reshape(job.plan.steps, TERMS + TERM * job.plan.terms)
    basis = steps[:, BASIS : BASIS + 9].reshape(-1, 3, 3).transpose(0, 2, 1)
    inverses = np.ascontiguousarray(np.linalg.inv(basis))
    return job.pixels.contiguous().numpy(), job.width, job.plan, p, inverses, _array(amplitudes)


def _array(t: Tensor) -> Any:
    return t.detach().double().contiguous().numpy()


@cache
def problem(dtype: torch.dtype, entry: str) -> str:
    """Why a loop of :mod:`spot_machine_code` cannot run here; empty if it can. Compiles it, or loads it from the disk.

    With arrays of no pixels, since the tensors that are made while a Jacobian is computed are wrapped.
    """
    number, p = _NUMPY[dtype], np.zeros(CAMERA + TERMS + TERM)
    plan = Plan(0.0, 0.0, 0.0, False, False, False, 1, 1, 1, 1, 1, *(0.0,) * 6)
    common = (np.zeros((0, 2), np.int64), 1, plan, p, np.zeros((1, 3, 3)), np.zeros(1), 0, 0)
    rest: dict[str, tuple[Any, ...]] = {
        "image": (np.empty(0, number),),
        "gradient": (np.empty(0, number), p, np.empty(0)),
        "tangents": (np.zeros((1, len(p)), number), np.zeros((0, 0)), False, np.zeros((1, 0), number)),
    }
    try:
        getattr(spot_machine_code, entry)(*common, *rest[entry])
    except Exception as error:  # whatever the compiler has to say must not end the program
        return f"{entry}: {type(error).__name__}: {str(error).strip()}".split("\n")[0]
    return ""
