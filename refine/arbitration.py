"""Which of a few orientations the model of the refinement itself prefers."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from refine.builders import tensor
from refine.losses import SquareRoot
from refine.model import BraggModel
from refine.module import RefinementModule
from refine.optimizers import LevenbergMarquardt
from refine.parameters import Parameters, ParameterSpec

Misset = tuple[float, float, float]

STEPS = 4
"""Steps from each orientation."""

AFFORDABLE = 1 << 22
"""Terms of the model's sum above which asking it takes too long."""


def preferred(
    model: BraggModel, values: Mapping[str, Tensor], observed: Tensor, missets: Sequence[Misset]
) -> tuple[Misset, list[float]]:
    """The best of several starts after a few steps, and the deviance of the square roots that each came to.

    Orientation, mosaic spread and scale move; all else stays as it is.

    Args:
        model: Of the refinement.
        values: Every parameter.
        observed: Photons of the model's pixels.
        missets: Starts [deg].
    """
    ends = [_refined(model, values, observed, misset) for misset in missets]
    losses = [loss for _, loss in ends]
    best = min(range(len(losses)), key=losses.__getitem__)
    return ends[best][0], losses


def _refined(model: BraggModel, values: Mapping[str, Tensor], observed: Tensor, misset: Misset) -> tuple[Misset, float]:
    start = {**values, "misset_deg": tensor(misset)}
    if float(start["mosaic_spread_deg"].max()) == 0:
        start["mosaic_spread_deg"] = start["mosaic_spread_deg"] + 0.2
    free = {"misset_deg": (1.0, None, None), "mosaic_spread_deg": (0.5, 0.01, 10.0), "scale": (None, 0.0, None)}
    specs = []
    for name, value in start.items():
        scale, lower, upper = free.get(name, (1.0, None, None))
        specs.append(ParameterSpec(name, value.reshape(-1), scale, name in free, lower, upper))
    parameters = Parameters(specs)
    module = RefinementModule(model, parameters, SquareRoot(), observed, LevenbergMarquardt)
    optimizer = LevenbergMarquardt([parameters.raw[name] for name in parameters.free])
    for _ in range(STEPS):
        module.prepare()
        before = parameters.vector()
        optimizer.step(problem=module)
        if float((parameters.vector() - before).abs().max()) < 1e-2:
            break
    x, y, z = (round(v, 4) for v in parameters()["misset_deg"].tolist())
    return (x, y, z), float(module.loss_at(parameters.vector()))
