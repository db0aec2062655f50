"""A refinement has the same answer with each kernel."""

import pytest

from refine.compose import load
from refine.run import refine


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mosaic_misset", "lysozyme_still"])
def test_refinement_ends_at_the_same_values(name, tmp_path):
    found = {}
    for kernel in ("eager", "compiled"):
        settings = load(f"experiment={name}", f"simulator.kernel={kernel}", "logger.kind=none")
        found[kernel] = refine(settings, tmp_path / kernel)["parameters"]
    for label, eager in found["eager"].items():
        if eager["free"]:
            change = abs(eager["refined"] - found["compiled"][label]["refined"])
            assert change <= 0.1 * eager["esd"], label
