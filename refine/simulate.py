"""Simulate without refining: ``python refine/simulate.py model.path=FILE diffuse.q_file=q.npy output=map.npz``."""

import os
import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from refine.collector import imports_stay, leave
from refine.errors import InputError, RefinementError

with imports_stay():
    from refine.command import forget, one_line
    from refine.compose import CONFIGS

_failures: list[str] = []


@hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="config")
def _run(config: DictConfig) -> None:
    """Check, simulate, write exactly the path that ``output`` names."""
    from pathlib import Path

    try:
        _simulate(config)
    except (InputError, RefinementError, ValueError, OSError, OmegaConfBaseException) as error:
        _failures.append(one_line(error))
    forget(Path(HydraConfig.get().runtime.output_dir))


def _simulate(config: DictConfig) -> None:
    with imports_stay():
        from refine.settings.schema import validate
        from refine.simulation import simulate
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    settings = validate({str(k): v for k, v in plain.items()})
    print(f"wrote {simulate(settings)}")


def main() -> None:
    """Run, and report a user's mistake in one line with exit status 2."""
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        _run()
    except (HydraException, OmegaConfBaseException) as error:
        _failures.append(one_line(error))
    if _failures:
        print(f"error: {_failures[0]}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    try:
        main()
    finally:
        leave()
