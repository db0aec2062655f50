"""Pictures and numbers of a refinement against a diffuse map."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from refine.paths import replacing
from refine.report.pictures import draw_shifts

SHELLS = 10


def central_slices(values: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """The slices h = 0, k = 0 and l = 0 of a map beside each other; single points in a square, row by row."""
    if shape[1] * shape[2] == 1:
        side = int(np.ceil(np.sqrt(len(values))))
        return np.append(values, np.full(side * side - len(values), np.nan)).reshape(side, side)
    box = values.reshape(shape)
    slices = [box[shape[0] // 2], box[:, shape[1] // 2], box[:, :, shape[2] // 2]]
    height = max(s.shape[0] for s in slices)
    padded = [np.pad(s, ((0, height - s.shape[0]), (0, 1)), constant_values=np.nan) for s in slices]
    return np.concatenate(padded, axis=1)


def residual_picture(observed: np.ndarray, calculated: np.ndarray) -> dict[str, np.ndarray]:
    """Observed and calculated on one scale and their difference on a symmetric one, 8-bit colours."""
    top = max(float(np.nanquantile(observed, 0.99)), 1e-300)
    images = {
        "observed": _coloured(observed / top, "viridis"),
        "calculated": _coloured(calculated / top, "viridis"),
        "residual": _coloured((observed - calculated) / (0.2 * top) + 0.5, "RdBu_r"),
    }
    return images


def shells(q: np.ndarray, observed: np.ndarray, calculated: np.ndarray) -> list[dict[str, Any]]:
    """Correlation in shells of equal volume of reciprocal space."""
    length = np.linalg.norm(q, axis=-1)
    edges = np.linspace(0, length.max() ** 3, SHELLS + 1) ** (1 / 3)
    edges[-1] = np.inf
    rows = []
    for low, high in pairwise(edges):
        inside = (length >= low) & (length < high)
        if inside.sum() < 3:
            continue
        cc = float(np.corrcoef(observed[inside], calculated[inside])[0, 1])
        d_min = 2 * np.pi / length[inside].max()
        rows.append({"d_min_A": float(d_min), "points": int(inside.sum()), "cc": cc if np.isfinite(cc) else None})
    return rows


def write_diffuse_report(
    path: Path,
    images: dict[str, np.ndarray],
    are_points: bool,
    by_shell: list[dict[str, Any]],
    rows: list[dict[str, Any]],
    truth: dict[str, float],
    title: str,
) -> None:
    """Write report.png: observed, initial, refined and residual intensities; correlation, loss, springs, shifts.

    Args:
        path: File to write.
        images: ``observed``, ``initial`` and ``refined`` slices.
        are_points: Whether these are single points, which make no picture.
        by_shell: From :func:`shells`.
        rows: History, one row a step.
        truth: Known values by label.
        title: What was run and how it ended.
    """
    figure = Figure(figsize=(15, 8), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(2, 4)
    if are_points:
        _draw_points(axes[0], images)
    else:
        _draw_slices(figure, axes[0], images)
    steps = [r["step"] for r in rows]
    axes[1, 0].plot(steps, [max(r["loss"], 1e-300) for r in rows], ".-", color="black")
    axes[1, 0].set(yscale="log", xlabel="step", title="loss")
    axes[1, 1].plot([1 / s["d_min_A"] for s in by_shell], [s["cc"] for s in by_shell], ".-")
    axes[1, 1].set(xlabel="1/d [1/A]", title="correlation by shell")
    for name in ("gamma_intra", "gamma_inter"):
        line = axes[1, 2].plot(steps, [r[name] for r in rows], ".-", label=name)
        if name in truth:
            axes[1, 2].axhline(truth[name], color=line[0].get_color(), linestyle=":")
    axes[1, 2].set(xlabel="step", title="spring constants [k_B T/A^2]")
    axes[1, 2].legend(fontsize="small", title="dotted: truth" if "gamma_intra" in truth else None)
    draw_shifts(axes[1, 3], rows)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=100)


def _draw_slices(figure: Figure, axes: np.ndarray, images: dict[str, np.ndarray]) -> None:
    top = max(float(np.nanquantile(images["observed"], 0.99)), 1e-300)
    for axis, name in zip(axes, ("observed", "initial", "refined"), strict=False):
        axis.imshow(images[name], vmin=0, vmax=top, interpolation="nearest")
        axis.set_title(name)
    difference = images["observed"] - images["refined"]
    limit = max(float(np.nanquantile(np.abs(difference), 0.99)), 1e-300)
    drawn = axes[3].imshow(difference, vmin=-limit, vmax=limit, cmap="RdBu_r", interpolation="nearest")
    axes[3].set_title("observed - refined")
    figure.colorbar(drawn, ax=axes[3], shrink=0.8)


def _draw_points(axes: np.ndarray, images: dict[str, np.ndarray]) -> None:
    """Calculated against observed, and how far off in parts of the observed, at the start and at the end."""
    observed = images["observed"]
    for column, name in enumerate(("initial", "refined")):
        shown = (observed > 0) & (images[name] > 0)
        x, y = observed[shown], images[name][shown]
        axes[column].loglog(x, y, ".", markersize=2)
        if len(x):
            axes[column].axline((x.min(), x.min()), (x.max(), x.max() * (1 + 1e-9)), color="black", linewidth=0.8)
        axes[column].set(xlabel="observed", ylabel="calculated", title=name)
        axes[column + 2].semilogx(x, (x - y) / x, ".", markersize=2)
        axes[column + 2].axhline(0, color="black", linewidth=0.8)
        axes[column + 2].set(xlabel="observed", title=f"(observed - {name}) / observed")


def _coloured(values: np.ndarray, name: str) -> np.ndarray:
    colours = matplotlib.colormaps[name].with_extremes(bad="grey")
    rgba: np.ndarray = colours(np.ma.masked_invalid(values), bytes=True)
    return rgba[..., :3]
