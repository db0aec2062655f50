"""Where files are looked for, and how they are written."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from refine.errors import required

REPOSITORY = Path(__file__).resolve().parents[1]
"""The folder that holds ``configs`` and ``data``."""


def existing_file(path: str, field: str) -> Path:
    """A file that exists: a relative path is looked up from where the user stands, then from the repository.

    Raises:
        InputError: if there is no such file.
    """
    for base in (Path.cwd(), REPOSITORY):
        candidate = (base / Path(path).expanduser()).resolve()
        if candidate.is_file():
            return candidate
    raise required(field, "an existing file", path)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place if the block ends well, and vanishes if not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
