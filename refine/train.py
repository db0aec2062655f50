"""Refine an experiment: ``python refine/train.py experiment=mosaic_misset``."""

import os
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from refine.collector import imports_stay, leave
from refine.errors import RefinementError

with imports_stay():
    from refine.command import forget, one_line
    from refine.compose import CONFIGS

trace_wanted = "HYDRA_FULL_ERROR" in os.environ
"""Whether the user asked for tracebacks."""

exit_status: list[int] = []
"""Of a single run that did not end well."""


@hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="config")
def _run(config: DictConfig) -> None:
    """One job: check, refine; in a sweep a job that fails does not end the others."""
    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    try:
        _refine(config, folder, clear_first=hydra_config.mode == RunMode.MULTIRUN)
    except (ValueError, OSError, OmegaConfBaseException) as error:
        if trace_wanted:
            raise
        if hydra_config.mode != RunMode.MULTIRUN:
            forget(folder)
        _report(hydra_config, one_line(error), 2)
    except RefinementError as error:
        _report(hydra_config, str(error), 1)


def _report(hydra_config: Any, message: str, status: int) -> None:
    """Say what went wrong; a single run also remembers its exit status (Hydra would print about an exception)."""
    job = f"job {hydra_config.job.num}: " if hydra_config.mode == RunMode.MULTIRUN else ""
    print(f"error: {job}{message}", file=sys.stderr)
    if not job:
        exit_status.append(status)


def _refine(config: DictConfig, folder: Path, clear_first: bool) -> None:
    with imports_stay():
        from refine.settings.schema import validate

    if clear_first:
        from refine.run import clear

        clear(folder)
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    settings = validate({str(k): v for k, v in plain.items()})
    with imports_stay():
        from refine.run import refine
    refine(settings, folder)


def main() -> None:
    """Run, and report a user's mistake in one line: exit status 2; a refinement that failed: 1."""
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        _run()
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        sys.exit(130)
    except (HydraException, OmegaConfBaseException, ValueError, OSError) as error:
        if trace_wanted:
            raise
        print(f"error: {one_line(error)}", file=sys.stderr)
        sys.exit(2)
    from refine.report.sweep import failed_runs

    if exit_status or failed_runs:
        sys.exit(max(exit_status, default=1))


if __name__ == "__main__":
    try:
        main()
    finally:
        leave()
