"""Shared records, and the import hook that checks shapes while tests run."""

import os
from collections.abc import Callable
from dataclasses import replace

import pytest
from jaxtyping import install_import_hook

install_import_hook(["sim_core", "refine"], "beartype.beartype")

import refine  # noqa: E402, F401, I001  (before torch: how threads wait)
import torch  # noqa: E402
from support import SHARED, tensor  # noqa: E402

from sim_core import Beam, Crystal, Experiment, Panel, Scan, StructureFactors  # noqa: E402


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
        if "shared" in item.keywords and not SHARED.is_dir():
            item.add_marker(pytest.mark.skip(reason="the reference images are not beside the repository"))


@pytest.fixture(autouse=True)
def _two_threads() -> None:
    torch.set_num_threads(min(2, os.cpu_count() or 1))


@pytest.fixture(params=["eager", "compiled"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every simulator of the test takes this implementation, if it has it."""
    monkeypatch.setattr("sim_core.kernels.selection.WORTHWHILE", 0 if request.param == "compiled" else 1 << 62)
    return request.param


@pytest.fixture
def experiment() -> Experiment:
    """A triclinic crystal in front of a small panel along x, with everything that can be switched on."""
    return Experiment(
        beam=Beam(
            direction=tensor([[1.0, 0.0, 0.0]]),
            wavelength=tensor([1.0]),
            weight=tensor([1.0]),
            fluence=tensor(1e29),
            kahn=tensor(0.6),
            polarization_axis=tensor([0.0, 0.0, 1.0]),
        ),
        panel=Panel(
            origin=tensor([0.1, 0.0033, -0.0033]),
            fast_axis=tensor([0.0, 0.0, 1.0]),
            slow_axis=tensor([0.0, -1.0, 0.0]),
            normal=tensor([1.0, 0.0, 0.0]),
            pixel_size=tensor(1e-4),
            image_size=(64, 60),
        ),
        crystal=Crystal(
            cell=torch.cat([tensor([70.0, 80.0, 90.0]), torch.deg2rad(tensor([75.0, 85.0, 95.0]))]),
            orientation=torch.eye(3, dtype=torch.float64),
            misset=torch.deg2rad(tensor([5.0, 3.0, -2.0])),
            n_cells=tensor([4.0, 5.0, 6.0]),
            mosaic_spread=torch.deg2rad(tensor(0.8)),
        ),
        scan=Scan(tensor([0.0, 0.0, 1.0]), tensor([0.0]), tensor([1.0])),
        structure_factors=StructureFactors.constant(tensor(100.0)),
    )


@pytest.fixture
def table() -> StructureFactors:
    """Random amplitudes on a small box."""
    generator = torch.Generator().manual_seed(3)
    values = 50 + 100 * torch.rand(13, 11, 9, generator=generator, dtype=torch.float64)
    return StructureFactors(values, torch.tensor([-6, -5, -4]), tensor(7.0))


@pytest.fixture
def with_crystal() -> Callable[..., Experiment]:
    """``with_crystal(experiment, misset=...)``: the experiment with a changed crystal."""
    return lambda experiment, **changes: replace(experiment, crystal=replace(experiment.crystal, **changes))
