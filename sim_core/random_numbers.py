"""The reference program's random numbers: the minimal standard generator with a shuffle."""

from collections.abc import Iterator

import numpy as np

_MULTIPLIER, _MODULUS, _TABLE = 16807, 2147483647, 32
_BUCKET = 67108864
_LARGEST = np.float32(1 - 1.2e-7)


def ran1(seed: int) -> Iterator[float]:
    """Endless single-precision deviates in (0, 1).

    Args:
        seed: A positive number.

    References: Park & Miller (1988), Commun. ACM 31, 1192, with a Bays-Durham shuffle of 32 entries.
    """
    state = max(1, seed)
    table = [0] * _TABLE
    for j in range(_TABLE + 7, -1, -1):
        state = _MULTIPLIER * state % _MODULUS
        if j < _TABLE:
            table[j] = state
    shuffled = table[0]
    while True:
        state = _MULTIPLIER * state % _MODULUS
        slot = shuffled // _BUCKET
        shuffled, table[slot] = table[slot], state
        yield float(min(np.float32(1.0 / _MODULUS * shuffled), _LARGEST))
