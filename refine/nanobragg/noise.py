"""Counting noise as the reference draws it, compiled: millions of deviates from one sequence, one after the other.

Single precision stands where the reference has ``float`` variables; nothing is fused, so that the same deviates come
out. A difference in the last bit of one would shift the sequence for all pixels after it.

References: ``poidev``, ``gammln``, ``gaussdev`` and ``ran1`` in nanoBragg, after Numerical Recipes.
"""

import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

_F = np.float32
_LANCZOS = (
    76.18009172947146,
    -86.50532032941677,
    24.01409824083091,
    -1.231739572450155,
    0.1208650973866179e-2,
    -0.5395239384953e-5,
)


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Machine code of a function, kept between runs; a wrapper that checks arguments while tests run is taken off."""
    machine_code: Callable[..., Any] = njit(cache=True)(inspect.unwrap(function))
    return machine_code


@_compiled
def _uniform(state, seed):  # type: ignore[no-untyped-def]
    """The generator of :class:`refine.nanobragg.generator.Generator`, on the same state."""
    if seed[0] <= 0 or state[0] == 0:
        seed[0] = max(1, -seed[0])
        for j in range(39, -1, -1):
            seed[0] = 16807 * seed[0] % 2147483647
            if j < 32:
                state[1 + j] = seed[0]
        state[0] = state[1]
    seed[0] = 16807 * seed[0] % 2147483647
    slot = 1 + state[0] // 67108864
    state[0] = state[slot]
    state[slot] = seed[0]
    value = _F((1.0 / 2147483647) * state[0])
    return min(value, _F(1.0 - 1.2e-7))


@_compiled
def log_gamma(xx):  # type: ignore[no-untyped-def]
    """Logarithm of the gamma function by six terms of Lanczos, in double precision from single and to single."""
    x = float(xx)
    y = x
    tmp = x + 5.5
    tmp -= (x + 0.5) * math.log(tmp)
    series = 1.000000000190015
    for c in _LANCZOS:
        y += 1.0
        series += c / y
    return _F(-tmp + math.log(2.5066282746310005 * series / x))


@_compiled
def _normal(state, seed, spare):  # type: ignore[no-untyped-def]
    """A normal deviate by the polar method; ``spare`` keeps the second of each pair and whether there is one."""
    if spare[1] != 0.0:
        spare[1] = 0.0
        return spare[0]
    while True:
        v1 = _F(2.0 * float(_uniform(state, seed)) - 1.0)
        v2 = _F(2.0 * float(_uniform(state, seed)) - 1.0)
        r2 = _F(_F(v1 * v1) + _F(v2 * v2))
        if r2 < 1.0 and r2 != 0.0:
            break
    factor = _F(math.sqrt(-2.0 * math.log(float(r2)) / float(r2)))
    spare[0] = _F(v1 * factor)
    spare[1] = 1.0
    return _F(v2 * factor)


@_compiled
def _rejected(m, state, seed):  # type: ignore[no-untyped-def]
    """A Poisson deviate of mean m >= 12 by rejection from a Lorentzian."""
    width = _F(math.sqrt(2.0 * float(m)))
    log_m = _F(math.log(float(m)))
    g = _F(_F(m * log_m) - log_gamma(_F(float(m) + 1.0)))
    while True:
        count = _F(-1.0)
        y = _F(0.0)
        while count < 0.0:
            y = _F(math.tan(math.pi * float(_uniform(state, seed))))
            count = _F(_F(width * y) + m)
        count = _F(math.floor(float(count)))
        exponent = _F(_F(_F(count * log_m) - log_gamma(_F(float(count) + 1.0))) - g)
        t = _F(0.9 * (1.0 + float(_F(y * y))) * math.exp(float(exponent)))
        if _uniform(state, seed) <= t:
            return count


@_compiled
def poisson(m, state, seed, spare):  # type: ignore[no-untyped-def]
    """A Poisson deviate of mean m: products of deviates, rejection, or (beyond a million) a Gaussian."""
    if m > 1.0e6:
        return _F(float(m) + math.sqrt(float(m)) * float(_normal(state, seed, spare)))
    if not m < 12.0:
        return _rejected(m, state, seed)
    g = _F(math.exp(-float(m)))
    count = _F(0.0)
    t = _uniform(state, seed)
    while t > g:
        t = _F(t * _uniform(state, seed))
        count += _F(1.0)
    return count


@_compiled
def add_noise(expected, adc, state, seed, out):  # type: ignore[no-untyped-def]
    """Write noisy counts of expected photons, row by row.

    Args:
        expected: Photons [slow, fast], single precision.
        adc: Offset of the counts.
        state: State of the generator, updated.
        seed: The noise's own seed, updated.
        out: Counts [slow, fast], 16 bits.

    Returns:
        Photons drawn, and pixels that were clipped at 65535.
    """
    spare = np.zeros(2, dtype=np.float32)
    photons, overloads = 0.0, 0
    for i in range(expected.shape[0]):
        for j in range(expected.shape[1]):
            m = expected[i, j]
            drawn = float(poisson(m if m == m else _F(0.0), state, seed, spare))
            photons += drawn
            value = drawn + adc
            if value > 65535.0:
                value = 65535.0
                overloads += 1
            out[i, j] = np.uint16(max(value, 0.0))
    return photons, overloads
