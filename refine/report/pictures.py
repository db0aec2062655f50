"""Pictures: observed against calculated, and the way there."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from refine.parameters.declared import ATOMIC
from refine.paths import replacing

_COLOURS = ("tab:blue", "tab:orange", "tab:green")


def picture(observed: np.ndarray, calculated: np.ndarray) -> dict[str, np.ndarray]:
    """Observed, calculated and residual as 8-bit colour images [slow, fast, 3] on common scales.

    Args:
        observed: Photons, NaN where a pixel is not used.
        calculated: Expected photons, NaN likewise.
    """
    top = intensity_limit(observed)
    shown = {"observed": _root(observed, top), "calculated": _root(calculated, top)}
    images = {name: _coloured(values, "viridis") for name, values in shown.items()}
    images["residual"] = _coloured(residual(observed, calculated) / 12 + 0.5, "RdBu_r")
    return images


def residual(observed: np.ndarray, calculated: np.ndarray, noise: np.ndarray | None = None) -> np.ndarray:
    """Observed minus calculated in units of the noise; of that of counting (at least one photon) if none is given."""
    return (observed - calculated) / (np.sqrt(np.maximum(calculated, 1.0)) if noise is None else noise)


def intensity_limit(observed: np.ndarray) -> float:
    """Top of the colour scale: all but the brightest in a thousand pixels lie below."""
    return max(float(np.nanquantile(observed, 0.999)), 1e-12)


def write_report(
    path: Path,
    images: dict[str, np.ndarray],
    history: list[dict[str, int | float]],
    truth: dict[str, float],
    free: list[str],
    title: str,
) -> None:
    """Write report.png: observed, initial, refined and residual; loss and parameters against truth.

    Args:
        path: File to write.
        images: ``observed``, ``initial`` and ``refined`` photons [slow, fast], NaN where a pixel is not used; ``spots``
            and ``diffuse`` where the image has both, ``noise`` where that of counting is not all.
        history: One row a step.
        truth: Known values by label.
        free: Labels of the free parameters.
        title: What was run and how it ended.
    """
    joint = "diffuse" in images
    figure = Figure(figsize=(15, 12 if joint else 8), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(3 if joint else 2, 4)
    _draw_images(figure, axes[0], images, power=0.25 if joint else 0.5)
    steps = [row["step"] for row in history]
    loss = axes[1, 0]
    loss.plot(steps, [max(row["loss"], 1e-300) for row in history], ".-", color="black")
    loss.set(yscale="log", xlabel="step", title="loss")
    _curves(axes[1, 1], history, truth, [k for k in free if k.startswith("mosaic")], "mosaic spread [deg]")
    _curves(axes[1, 2], history, truth, [k for k in free if k.startswith("misset")], "misset [deg]")
    shown = ("mosaic", "misset", *ATOMIC, *(("gamma",) if joint else ()))
    others = [k for k in free if not k.startswith(shown)]
    _curves(axes[1, 3], history, truth, others, "others, relative to their start", relative=True)
    if joint:
        _draw_parts(figure, axes[2], images)
        springs = [k for k in free if k.startswith("gamma")]
        _curves(axes[2, 2], history, truth, springs, "spring constants [k_B T/A^2]")
        draw_shifts(axes[2, 3], history)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=100)


def _draw_parts(figure: Figure, axes: np.ndarray, images: dict[str, np.ndarray]) -> None:
    """What the spots and the diffuse scattering are of the refined image, each on a scale of its own."""
    used = np.isfinite(images["observed"])
    for axis, name in zip(axes, ("spots", "diffuse"), strict=False):
        part = np.where(used, images[name], np.nan)
        norm = matplotlib.colors.PowerNorm(0.5, vmin=0, vmax=intensity_limit(part))
        drawn = axis.imshow(part, norm=norm, cmap="viridis", interpolation="nearest")
        axis.set(title=f"refined: {name}", xlabel="fast [px]")
        figure.colorbar(drawn, ax=axis, shrink=0.8, label="photons")


def draw_shifts(axis: Axes, history: list[dict[str, int | float]]) -> None:
    """How far each atom moved; nothing where none did."""
    coordinates = [k for k in history[0] if k.startswith("xyz_")]
    shift = np.array([history[-1][k] - history[0][k] for k in coordinates]).reshape(-1, 3)
    if not shift.any():
        axis.axis("off")
        return
    axis.bar(np.arange(len(shift)), np.linalg.norm(shift, axis=-1))
    axis.set(xlabel="atom", title="shift [A]")


def _draw_images(figure: Figure, axes: np.ndarray, images: dict[str, np.ndarray], power: float) -> None:
    top = intensity_limit(images["observed"])
    norm = matplotlib.colors.PowerNorm(power, vmin=0, vmax=top)
    for axis, name in zip(axes, ("observed", "initial", "refined"), strict=False):
        drawn = axis.imshow(images[name], norm=norm, cmap="viridis", interpolation="nearest")
        axis.set_title(name)
    figure.colorbar(drawn, ax=list(axes[:3]), location="right", shrink=0.8, label="photons")
    spread = residual(images["observed"], images["refined"], images.get("noise"))
    limit = max(float(np.nanquantile(np.abs(spread), 0.999)), 1e-12)
    drawn = axes[3].imshow(spread, vmin=-limit, vmax=limit, cmap="RdBu_r", interpolation="nearest")
    axes[3].set_title("(observed - refined) / noise")
    figure.colorbar(drawn, ax=axes[3], location="right", shrink=0.8)
    for axis in axes:
        axis.set(xlabel="fast [px]")
    axes[0].set(ylabel="slow [px]")


def _curves(
    axis: Axes,
    history: list[dict[str, int | float]],
    truth: dict[str, float],
    names: list[str],
    title: str,
    relative: bool = False,
) -> None:
    if not names:
        axis.axis("off")
        return
    for index, name in enumerate(names):
        colour = _COLOURS[index] if index < len(_COLOURS) else None
        start = history[0][name] or 1.0
        size = start if relative else 1.0
        line = axis.plot(
            [r["step"] for r in history], [r[name] / size for r in history], ".-", color=colour, label=name
        )
        if name in truth and not relative:
            axis.axhline(truth[name], color=line[0].get_color(), linestyle=":")
    axis.set(title=title, xlabel="step")
    axis.legend(fontsize="small", title="dotted: truth" if any(n in truth for n in names) and not relative else None)


def _root(values: np.ndarray, top: float) -> np.ndarray:
    scaled: np.ndarray = np.sqrt(np.clip(values / top, 0, 1))
    return scaled


def _coloured(values: np.ndarray, name: str) -> np.ndarray:
    colours = matplotlib.colormaps[name].with_extremes(bad="grey")
    rgba: np.ndarray = colours(np.ma.masked_invalid(values), bytes=True)
    return rgba[..., :3]


def montage(frames: Sequence[np.ndarray]) -> np.ndarray:
    """Frames beside each other, in as many rows as columns where that fits, NaN between them."""
    columns = int(np.ceil(np.sqrt(len(frames))))
    height, width = (max(f.shape[axis] for f in frames) for axis in (0, 1))
    gap = 1 if len(frames) > 1 else 0
    whole = np.full((-(-len(frames) // columns) * (height + gap) - gap, columns * (width + gap) - gap), np.nan)
    for index, frame in enumerate(frames):
        row, column = divmod(index, columns)
        top, left = row * (height + gap), column * (width + gap)
        whole[top : top + frame.shape[0], left : left + frame.shape[1]] = frame
    return whole
