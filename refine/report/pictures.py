"""Pictures: observed against calculated, and the way there."""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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


def residual(observed: np.ndarray, calculated: np.ndarray) -> np.ndarray:
    """Observed minus calculated in units of the expected noise (at least one photon)."""
    return (observed - calculated) / np.sqrt(np.maximum(calculated, 1.0))


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
        images: ``observed``, ``initial`` and ``refined`` photons [slow, fast], NaN where a pixel is not used.
        history: One row a step.
        truth: Known values by label.
        free: Labels of the free parameters.
        title: What was run and how it ended.
    """
    figure = Figure(figsize=(15, 8), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(2, 4)
    _draw_images(figure, axes[0], images)
    steps = [row["step"] for row in history]
    loss = axes[1, 0]
    loss.plot(steps, [max(row["loss"], 1e-300) for row in history], ".-", color="black")
    loss.set(yscale="log", xlabel="step", title="loss")
    _curves(axes[1, 1], history, truth, [k for k in free if k.startswith("mosaic")], "mosaic spread [deg]")
    _curves(axes[1, 2], history, truth, [k for k in free if k.startswith("misset")], "misset [deg]")
    others = [k for k in free if not k.startswith(("mosaic", "misset"))]
    _curves(axes[1, 3], history, truth, others, "others, relative to their start", relative=True)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=100)


def _draw_images(figure: Figure, axes: np.ndarray, images: dict[str, np.ndarray]) -> None:
    top = intensity_limit(images["observed"])
    norm = matplotlib.colors.PowerNorm(0.5, vmin=0, vmax=top)
    for axis, name in zip(axes, ("observed", "initial", "refined"), strict=False):
        drawn = axis.imshow(images[name], norm=norm, cmap="viridis", interpolation="nearest")
        axis.set_title(name)
    figure.colorbar(drawn, ax=axes[:3], location="right", shrink=0.8, label="photons")
    spread = residual(images["observed"], images["refined"])
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
