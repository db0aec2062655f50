"""The reference's random numbers with its one shared state: orientation, mosaic blocks, counting noise."""

import math

import numpy as np

from .vectors import Matrix, Vector, unit

_MULTIPLIER, _MODULUS, _TABLE = 16807, 2147483647, 32
_BUCKET = 67108864
_LARGEST = np.float32(1.0 - 1.2e-7)


class Generator:
    """Minimal standard generator with a shuffle table that all callers share; each caller keeps its own seed.

    Attributes:
        state: The last number shuffled out and the table of 32; zeros before the first use.

    References: Park & Miller (1988), Commun. ACM 31, 1192; ``ran1`` in nanoBragg.
    """

    def __init__(self) -> None:
        self.state = np.zeros(_TABLE + 1, dtype=np.int64)

    def uniform(self, seed: list[int]) -> float:
        """A single-precision deviate in (0, 1).

        Args:
            seed: The caller's number, updated; one that is not positive starts table and sequence anew.
        """
        if seed[0] <= 0 or self.state[0] == 0:
            seed[0] = max(1, -seed[0])
            for j in range(_TABLE + 7, -1, -1):
                seed[0] = _MULTIPLIER * seed[0] % _MODULUS
                if j < _TABLE:
                    self.state[1 + j] = seed[0]
            self.state[0] = self.state[1]
        seed[0] = _MULTIPLIER * seed[0] % _MODULUS
        slot = 1 + int(self.state[0]) // _BUCKET
        self.state[0], self.state[slot] = self.state[slot], seed[0]
        return float(min(np.float32(1.0 / _MODULUS * float(self.state[0])), _LARGEST))

    def rotation(self, largest: float, seed: list[int]) -> Matrix:
        """A random rotation by at most ``largest`` [rad], which is rounded to single precision.

        References: ``mosaic_rotation_umat`` in nanoBragg.
        """
        r1, r2, r3 = (2.0 * self.uniform(seed) - 1.0 for _ in range(3))
        ring = math.sqrt(1.0 - r2 * r2)
        x, y, z = ring * math.sin(math.pi * r1), ring * math.cos(math.pi * r1), r2
        cube = np.float32(float(np.float32(1.0 - r3 * r3)) ** float(np.float32(1.0 / 3.0)))
        angle = float(np.float32(largest) * cube)
        c, s = math.cos(angle), math.sin(angle)
        t = 1.0 - c
        return (
            (c + t * (x * x), t * x * y - s * z, t * x * z + s * y),
            (t * x * y + s * z, c + t * (y * y), t * y * z - s * x),
            (t * x * z - s * y, t * y * z + s * x, c + t * (z * z)),
        )

    def domains(self, spread: float, count: int, seed: int) -> list[Matrix]:
        """Rotations of the mosaic blocks; the first is drawn and then replaced by none."""
        own = [seed]
        drawn = [self.rotation(spread, own) for _ in range(count)]
        return [((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)), *drawn[1:]]


def rotation_angles(matrix: Matrix) -> Vector:
    """Angles about lab x, y, z [rad] of a rotation.

    References: ``umat2misset`` in nanoBragg.
    """
    (uxx, uxy, _), (uyx, uyy, _), (uzx, uzy, uzz) = (unit(row) for row in matrix)
    if uzx * uzx >= 1.0:
        return (math.pi, math.pi / 2.0, math.atan2(uxy, -uyy))
    x = math.atan2(uzy, uzz)
    y = math.atan2(-uzx, math.sqrt(uzy * uzy + uzz * uzz))
    return (x, y, math.atan2(uyx, uxx))
