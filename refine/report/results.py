"""What a run reports: results.json and the closing table."""

import json
import math
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from refine.fit.callbacks.history import History, physical
from refine.fit.refinement import Refinement
from refine.fit.uncertainty import Uncertainty, uncertainty
from refine.parameters.declared import ATOMIC
from refine.paths import replacing
from refine.settings.schema import Settings

SMALL = ", and the esds are too small"

CLOSE = 0.99
"""Correlation of two parameters above which a reader is warned."""


def versions() -> dict[str, str]:
    """Of what computed the result."""
    found = {"python": platform.python_version()}
    for package in ("diffraction-refine", "torch", "lightning", "hydra-core", "numpy", "fabio"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def parameter_entries(
    module: Refinement, esds: dict[str, float], last: dict[str, float] | None
) -> dict[str, dict[str, Any]]:
    """Truth, initial, refined (or the ``last`` known values), error, esd and unit of every scalar parameter."""
    initial = {
        k: v
        for spec in module.refined.specs.values()
        for k, v in zip(spec.labels, spec.initial.flatten().tolist(), strict=True)
    }
    refined = last or physical(module)
    free = set(module.refined.moving_labels)
    entries = {}
    for spec in module.refined.specs.values():
        for index, label in enumerate(spec.labels):
            truth = module.truth.get(label)
            entries[label] = {
                "truth": truth,
                "initial": initial[label],
                "refined": _finite(refined[label]),
                "error": None if truth is None else _finite(refined[label] - truth),
                "esd": esds.get(label),
                "unit": spec.unit(index),
                "free": label in free,
            }
    return entries


def standard_uncertainties(module: Refinement) -> Uncertainty:
    """Standard uncertainties and correlations of what moves; empty where the loss is no likelihood."""
    refined = module.refined
    if not module.loss.is_likelihood:
        return Uncertainty(refined.moving_labels)
    curvature = module.normal_equations(refined.vector()).curvature
    return uncertainty(curvature, refined.sensitivity(), refined.free_labels, refined.moving_labels)


@torch.no_grad()
def agreement(module: Refinement) -> dict[str, float | None]:
    """Correlation, R factor and chi^2 for each degree of freedom over the pixels that are used."""
    observed, expected = module.observed, module()
    cc = float(torch.corrcoef(torch.stack([observed, expected]))[0, 1]) if len(observed) > 1 else math.nan
    total = float(observed.abs().sum())
    residual = observed - expected
    freedom = len(observed) - len(module.refined.free_labels)
    chi2 = None
    if module.loss.is_likelihood and freedom > 0:
        weights = [
            module.loss.curvature(photons, seen.sigma)  # type: ignore[arg-type]
            for photons, seen in zip(module.expected(), module.seen, strict=True)
        ]
        chi2 = _finite(float((residual.square() * torch.cat(weights) / 2).sum()) / freedom)
    r_factor = float(residual.abs().sum()) / total if total > 0 else math.nan
    return {"cc": _finite(cc), "r_factor": _finite(r_factor), "chi2": chi2}


def write_results(path: Path, results: dict[str, Any]) -> None:
    """Write results.json, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(results, indent=2, allow_nan=False) + "\n")


def value_with_esd(value: float, esd: float | None) -> str:
    """``value(esd)`` with the uncertainty in the last digits: 4.9972(13)."""
    if esd is None or not math.isfinite(esd) or esd <= 0:
        return f"{value:.6g}"
    digits = max(0, 1 - math.floor(math.log10(esd)))
    return f"{value:.{digits}f}({round(esd * 10**digits)})"


def print_table(
    console: Console, entries: dict[str, dict[str, Any]], atoms: dict[str, dict[str, float]] | None = None
) -> None:
    """The closing table of the free parameters; those of atoms are one line.

    Args:
        console: Where it is printed.
        entries: Of results.json.
        atoms: How far they moved, and how far they are from the truth [A], where they were refined.
    """
    table = Table(box=None, pad_edge=False)
    for column in ("parameter", "truth", "initial", "refined", "error", "unit"):
        table.add_column(column, justify="left" if column in ("parameter", "unit") else "right")
    for label, e in entries.items():
        if e["free"] and not label.startswith(ATOMIC):
            truth = "-" if e["truth"] is None else f"{e['truth']:.6g}"
            error = "-" if e["error"] is None else f"{e['error']:+.2g}"
            refined = value_with_esd(e["refined"], e["esd"])
            table.add_row(label, truth, f"{e['initial']:.6g}", refined, error, e["unit"])
    console.print(table)
    if atoms:
        shift, errors = atoms["shift_A"], atoms.get("rms_xyz_A")
        told = f"xyz: moved by {shift['rms']:.3g} A rms, {shift['largest']:.3g} A at most"
        if errors:
            told += f"; rms error {errors['initial']:.3g} -> {errors['refined']:.3g} A"
        console.print(told, soft_wrap=True, highlight=False)
    count = sum(e["free"] and label.startswith("b_atoms") for label, e in entries.items())
    if count:
        console.print(f"b_atoms: {count} B factors", highlight=False)


def print_verdict(console: Console, results: dict[str, Any]) -> None:
    """Status, agreement and what a reader should be warned of."""
    loss, fit = results["loss"], results["agreement"]
    numbers = {"cc": fit["cc"], "R": fit["r_factor"], "chi^2/dof": fit["chi2"]}
    agreed = ", ".join(f"{name} {v:.4g}" for name, v in numbers.items() if v is not None)
    lines = [
        f"{results['status']}: {results['reason']}",
        f"loss {loss['initial']:.4g} -> {loss['final']:.4g} in {results['steps']} steps, {agreed}; "
        f"{results['wall_s']:.1f} s on {results['device']}",
        *(f"warning: {text}" for text in results["warnings"]),
    ]
    console.print("\n".join(lines), soft_wrap=True, highlight=False)


def find_warnings(
    module: Refinement, fit: dict[str, float | None], known: Uncertainty, scaled: bool = False
) -> list[str]:
    """What makes a result doubtful: a model that does not explain the image, a parameter at its bound or left open."""
    found = []
    chi2 = fit["chi2"]
    if chi2 is not None and chi2 > 1.5:
        found.append(f"chi^2/dof is {chi2:.3g}: the model does not explain the image{'' if scaled else SMALL}")
    vector, (low, high) = module.refined.vector(), module.bounds()
    for label, here, least, most in zip(module.refined.free_labels, vector, low, high, strict=True):
        if bool((here <= least) | (here >= most)):
            found.append(f"{label} is at its bound")
    return found + known.sentences() + _close_pairs(known)


def _close_pairs(known: Uncertainty) -> list[str]:
    """Pairs of parameters that the data hardly tell apart."""
    if known.correlation is None:
        return []
    pairs = (known.correlation.triu(1).abs() > CLOSE).nonzero().tolist()
    names = known.labels
    tied = [(names[i], names[j], float(known.correlation[i, j])) for i, j in pairs]
    return [f"{one} and {other} are correlated ({r:+.4f})" for one, other, r in tied if abs(r) < 1 - 1e-9]


def print_geometry(console: Console, rows: list[tuple[str, str, str, str]]) -> None:
    """What the image's header says against what is used."""
    table = Table("value", "used", "from header", "", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def summary(settings: Settings, module: Refinement, history: History, status: str, reason: str) -> dict[str, Any]:
    """What results.json holds: strict JSON, null where there is no number."""
    losses = [row["loss"] for row in history.rows] or [math.inf]
    loss = {"initial": losses[0], "final": losses[-1], "reduction": losses[0] / max(losses[-1], 1e-300)}
    failed, data = status == "failed", module.frames[0].observation
    known = Uncertainty([]) if failed else standard_uncertainties(module)
    fit = agreement(module) if not failed else dict.fromkeys(("cc", "r_factor", "chi2"))
    if settings.scale_esds and fit["chi2"] is not None:
        known = known.scaled(fit["chi2"])
    return {
        "experiment": settings.experiment_name,
        "status": status,
        "reason": reason,
        "steps": len(history.rows) if failed else len(history.rows) - 1,
        "wall_s": history.wall,
        "device": device_name(module.device),
        "dtype": settings.dtype,
        "seed": settings.seed,
        "loss": {name: _finite(value) for name, value in loss.items()},
        "parameters": parameter_entries(module, known.esds, history.rows[-1] if failed and history.rows else None),
        "agreement": fit,
        "warnings": [] if failed else find_warnings(module, fit, known, settings.scale_esds),
        "correlation": _correlation(known),
        "data": {
            "path": None if data.path is None else str(data.path),
            "sha256": data.sha256,
        },
        "versions": versions(),
    }


def _correlation(known: Uncertainty) -> dict[str, Any] | None:
    """The correlation matrix with the names of its rows."""
    if known.correlation is None:
        return None
    return {"labels": known.labels, "matrix": [[round(x, 6) for x in row] for row in known.correlation.tolist()]}


def device_name(device: torch.device) -> str:
    """The name of a GPU, or ``cpu``."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
