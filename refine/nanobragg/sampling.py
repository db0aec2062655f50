"""How many steps a range is cut into, from whichever of count, range and step are given."""

import math
from dataclasses import dataclass

from refine.errors import required

from .command import Command


@dataclass(frozen=True)
class Steps:
    """Equal steps from ``-range / 2``: their number, the full range and the step."""

    count: int = 1
    range: float = 0.0
    step: float = 0.0


@dataclass(frozen=True)
class PhiSteps:
    """Spindle angles at the starts of the steps, and the range that the header tells [rad]."""

    start: float
    step: float
    count: int
    osc: float

    @property
    def angles(self) -> list[float]:
        """Angles [rad], the end of the range left out."""
        return [self.start + self.step * i for i in range(self.count)]


def steps_within(range_: float, step: float, field: str) -> int:
    """Steps that cover a range, the last perhaps beyond its end.

    Raises:
        InputError: if there are more than any sum could hold.
    """
    ratio = range_ / step
    if not ratio < 1e9:
        raise required(field, "fewer than 1e9 steps", f"{ratio:g}")
    return math.ceil(ratio)


def even_steps(
    count: int, range_: float, step: float, field: str, default_range: float = 1.0, halves: bool = False
) -> Steps:
    """The reference's rule for divergence, dispersion and sensor layers.

    Args:
        count: Number of steps; not given if not positive.
        range_: Full range; not given if negative.
        step: Step; not given if not positive.
        field: Name for errors.
        default_range: Range that goes with a count alone.
        halves: A range alone becomes two steps of half the range, instead of one step between its ends.
    """
    if step > 0.0:
        if range_ < 0.0:
            count, range_ = 2, step
        elif count <= 0:
            count = steps_within(range_, step, field)
    elif count > 0:
        if range_ < 0.0:
            range_ = default_range
            step = range_ / count
        else:
            count = max(count, 2)
            step = range_ / (count - 1)
    elif range_ >= 0.0:
        count, step = 2, (range_ / 2.0 if halves else range_)
    else:
        count, range_, step = 1, 0.0, 0.0
    if range_ <= 0.0 or step <= 0.0 or count <= 0:
        return Steps()
    return Steps(count, range_, step)


def phi_steps(command: Command) -> PhiSteps:
    """The reference's rule for the spindle."""
    count, osc, step = command.phi_steps, command.osc, command.phi_step
    if count < 0:
        if osc < 0.0:
            count, osc, step = (2, step, step) if step > 0.0 else (1, 0.0, 0.0)
        elif step <= 0.0:
            count, step = 2, osc / 2.0
        else:
            count = steps_within(osc, step, "-phistep")
    else:
        count = max(count, 1)
        if osc < 0.0:
            if step <= 0.0:
                osc = 1.0 / (180.0 / math.pi)
                step = osc / count
            else:
                osc, count = step, 2
        elif step < 0.0:
            step = osc / count
    return PhiSteps(command.phi, step, max(count, 1), osc)


def sensor_layers(command: Command) -> tuple[Steps, float]:
    """Layers of the sensor [m] and its attenuation coefficient [1/m].

    A count n gives n layers of ``thickness / (n - 1)`` each, as in the reference.
    """
    steps = even_steps(command.layers, command.thickness, -1.0, "-detector_thick", 0.5e-6, halves=True)
    attenuation = command.attenuation
    if steps.range > 0.0 and attenuation < 0.0:
        attenuation = 1.0 / steps.range
    return steps, attenuation


def mosaic_domains(command: Command) -> tuple[float, int]:
    """Mosaic spread [rad] and number of blocks; ten unless given."""
    if command.mosaic_spread <= 0.0:
        return 0.0, 1
    return command.mosaic_spread, command.mosaic_domains if command.mosaic_domains > 0 else 10


def angles_after_carry_over(angles: list[float], before: float) -> list[float]:
    """Angles [rad] at which each step of a sweep is evaluated when a step at zero keeps the previous orientation.

    The reference turns the crystal only where the angle is not zero and otherwise leaves what the step before left.

    Args:
        angles: Angles of the sweep.
        before: Angle that the previous sweep ended with; zero before the first.
    """
    seen = []
    for angle in angles:
        before = angle if angle != 0.0 else before
        seen.append(before)
    return seen
