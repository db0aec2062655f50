"""Cases of the reference program, the command in-process, and how two images are compared."""

import json
import os
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from refine.nanobragg.__main__ import main

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(path.stem for path in (GOLDEN / "nanobragg").glob("*.npz"))
PROGRAM = os.environ.get("NANOBRAGG_C")


@dataclass(frozen=True)
class Case:
    """A command line with its input files and what the reference made of them."""

    name: str
    group: str
    args: list[str]
    image: np.ndarray
    image_spec: np.ndarray | None
    inputs: dict[str, bytes]
    outputs: dict[str, bytes]
    stdout: list[str]


def load(name: str) -> Case:
    with np.load(GOLDEN / "nanobragg" / f"{name}.npz") as file:
        parts = {key: file[key] for key in file.files}
    if "image" not in parts:
        with np.load(GOLDEN / "nanobragg_cases" / f"{name}.npz") as file:
            parts["image"] = file["image"]
    files = {
        side: {key.split("/")[1]: value.tobytes() for key, value in parts.items() if key.startswith(side)}
        for side in ("input", "output")
    }
    return Case(
        name,
        str(parts["group"]),
        json.loads(str(parts["args"])),
        parts["image"],
        parts.get("image_spec"),
        files["input"],
        files["output"],
        json.loads(str(parts["stdout"])) if "stdout" in parts else [],
    )


def read_float(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    return np.fromfile(path, dtype="<f4").reshape(shape)


def run(case: Case, folder: Path, *more: str) -> np.ndarray:
    """The image of a case through the command line, in its own folder."""
    for name, content in case.inputs.items():
        (folder / name).write_bytes(content)
    assert main([*case.args, *more]) == 0
    return read_float(folder / "floatimage.bin", case.image.shape)


def run_program(case: Case, folder: Path) -> np.ndarray:
    """The same from the reference program itself."""
    for name, content in case.inputs.items():
        (folder / name).write_bytes(content)
    subprocess.run([str(PROGRAM), *case.args], cwd=folder, check=True, capture_output=True, timeout=600)
    return read_float(folder / "floatimage.bin", case.image.shape)


def image(*args: str, shape: tuple[int, int]) -> np.ndarray:
    """Photons [slow, fast] of a command line, run where the test stands."""
    assert main([*args, "-nonoise", "-nopgm"]) == 0
    return read_float(Path("floatimage.bin"), shape).astype(np.float64)


@dataclass(frozen=True)
class Comparison:
    name: str
    pixels_that_differ: int
    largest_ulp: int
    max_relative_error: float
    correlation: float
    sum_ratio: float
    rmse: float
    worst_pixel: tuple[int, int]

    def record(self) -> dict[str, object]:
        return asdict(self)


def compare(name: str, ours: np.ndarray, theirs: np.ndarray) -> Comparison:
    """Two images in single precision; errors relative to the brightest pixel, the worst pixel as (slow, fast)."""
    steps = np.abs(ours.view(np.int32).astype(np.int64) - theirs.view(np.int32))
    steps[(ours == 0) & (theirs == 0)] = 0
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    worst = np.unravel_index(int(np.argmax(np.abs(a - b))), a.shape)
    return Comparison(
        name,
        int((steps > 0).sum()),
        int(steps.max()),
        float(np.abs(a - b).max() / b.max()),
        float(np.corrcoef(a.ravel(), b.ravel())[0, 1]),
        float(a.sum() / b.sum()),
        float(np.sqrt(((a - b) ** 2).mean())),
        (int(worst[0]), int(worst[1])),
    )
