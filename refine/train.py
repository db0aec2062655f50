"""Refine an experiment: ``python refine/train.py experiment=mosaic_misset``."""

import difflib
import os
import re
import shutil
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
from refine.paths import REPOSITORY

with imports_stay():
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
            _forget(folder)
        _report(hydra_config, _one_line(error), 2)
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
        from refine.driver import clear

        clear(folder)
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    settings = validate({str(k): v for k, v in plain.items()})
    with imports_stay():
        if settings.model.path is None:
            from refine.run import refine
        else:
            from refine.report.map import refine_map as refine
    refine(settings, folder)


def _forget(folder: Path) -> None:
    """Remove the folder of a run that never started, unless it holds something of another run."""
    if folder.is_dir() and {p.name for p in folder.iterdir()} <= {".hydra"}:
        shutil.rmtree(folder)
        default = REPOSITORY / "outputs"
        if folder.parent.parent == default and not any(folder.parent.iterdir()):
            folder.parent.rmdir()


def _one_line(error: Exception) -> str:
    """Hydra's many lines as one, with the nearest key where one was mistyped."""
    text = str(error.__cause__ or error) if isinstance(error, HydraException) else str(error)
    lines = [line.strip() for line in (str(error) + "\n" + text).splitlines() if line.strip()]
    unknown = re.search(r"Could not override '([^']+)'", str(error)) or re.search(r"full_key: (\S+)", text)
    if "is not in struct" in text or "Key '" in text:
        key = unknown[1] if unknown else lines[0]
        known = _known_keys()
        near = difflib.get_close_matches(key, known, n=1)
        if key in known:
            return f"{key}: no such key in the {key.split('.')[0]} that was chosen"
        return f"{key}: no such key" + (f"; did you mean {near[0]}?" if near else "")
    missing = re.search(r"Could not find '([^']+)'", str(error))
    if missing:
        group, _, name = missing[1].rpartition("/")
        options = sorted(p.stem for p in (CONFIGS / group).glob("*.yaml"))
        return f"{group}: expected one of {', '.join(options)}, got {name}"
    return lines[0]


def _known_keys() -> list[str]:
    """Every key of the default configuration, dotted."""
    keys = []
    for file in CONFIGS.glob("*/*.yaml"):
        group = file.parent.name
        if group != "experiment":
            content = OmegaConf.load(file)
            keys += [f"{group}.{key!s}" for key in content]
            keys += [f"{group}.{key!s}.{k}" for key, v in content.items() if OmegaConf.is_dict(v) for k in v]
    return [*keys, "experiment", "seed", "dtype", "ckpt_path", "logger", "output_dir"]


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
        print(f"error: {_one_line(error)}", file=sys.stderr)
        sys.exit(2)
    from refine.report.sweep import failed_runs

    if exit_status or failed_runs:
        sys.exit(max(exit_status, default=1))


if __name__ == "__main__":
    try:
        main()
    finally:
        leave()
