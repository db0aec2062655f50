"""One table of a sweep."""

import csv
import json
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from refine.paths import replacing

failed_runs: list[str] = []
"""Jobs of the sweep that just ended without a refined result."""


class SweepSummary(Callback):
    """Gathers results.json and the overrides of every job of a sweep into ``sweep.csv``."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Write the table."""
        folder = Path(config.hydra.sweep.dir)
        rows = [_row(job) for job in sorted(folder.iterdir(), key=_number) if (job / ".hydra").is_dir()]
        columns = list(dict.fromkeys(name for row in rows for name in row))
        with replacing(folder / "sweep.csv") as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
        failed_runs[:] = [str(row["job"]) for row in rows if row["status"] == "failed"]
        print(f"{len(rows)} runs, {len(failed_runs)} failed: {folder / 'sweep.csv'}")


def _number(job: Path) -> tuple[int, str]:
    return (int(job.name), "") if job.name.isdigit() else (1 << 30, job.name)


def _row(job: Path) -> dict[str, Any]:
    overrides = OmegaConf.to_object(OmegaConf.load(job / ".hydra" / "overrides.yaml"))
    assert isinstance(overrides, list)
    row: dict[str, Any] = {"job": job.name, **dict(str(o).split("=", 1) for o in overrides)}
    file = job / "results.json"
    if not file.exists():
        return row | {"status": "failed"}
    results = json.loads(file.read_text())
    row |= {name: results[name] for name in ("status", "steps", "wall_s")}
    row |= {f"loss_{k}": v for k, v in results["loss"].items()}
    for label, entry in results["parameters"].items():
        if entry["free"]:
            row |= {label: entry["refined"], f"{label}_error": entry["error"]}
    return row
