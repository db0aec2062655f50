"""What the commands that Hydra starts have in common: errors in one line, and folders of runs that never began."""

import difflib
import re
import shutil
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from refine.compose import CONFIGS
from refine.parameters.declared import defaults
from refine.paths import REPOSITORY
from refine.settings.messages import moved


def forget(folder: Path) -> None:
    """Remove the folder of a run that never started, unless it holds something of another run."""
    if folder.is_dir() and {p.name for p in folder.iterdir()} <= {".hydra"}:
        shutil.rmtree(folder)
        default = REPOSITORY / "outputs"
        if folder.parent.parent == default and not any(folder.parent.iterdir()):
            folder.parent.rmdir()


def one_line(error: Exception) -> str:
    """Hydra's many lines as one, with the nearest key where one was mistyped."""
    text = str(error.__cause__ or error) if isinstance(error, HydraException) else str(error)
    lines = [line.strip() for line in (str(error) + "\n" + text).splitlines() if line.strip()]
    unknown = re.search(r"Could not override '([^']+)'", str(error)) or re.search(r"full_key: (\S+)", text)
    if "is not in struct" in text or "Key '" in text:
        key = unknown[1] if unknown else lines[0]
        if moved(key):
            return f"{key}: {moved(key)}"
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
            keys += _dotted(group, {str(k): v for k, v in OmegaConf.load(file).items() if k != "defaults"})
    for group, content in defaults().items():
        keys += _dotted(group, content)
    return [*keys, "experiment", "seed", "dtype", "ckpt_path", "logger", "output_dir"]


def _dotted(group: str, content: dict[str, Any]) -> list[str]:
    """The keys of a group, and those of its sections."""
    inner = [f"{group}.{key}.{k!s}" for key, v in content.items() if isinstance(v, dict | DictConfig) for k in v]
    return [f"{group}.{key}" for key in content] + inner
