"""Standard uncertainties, correlations and what the data leave open, from the expected information at the end.

A deviance is twice a negative log-likelihood, so the covariance of the parameters is twice the inverse of its expected
curvature.
"""

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

SINGULAR = 1e-10
"""Smallest eigenvalue of the correlation-scaled curvature, relative to one, of a direction that the data determine."""

FELT = 2e-6
"""Smallest curvature of a parameter that the data determine at all: an esd of a thousand of its natural steps."""

NAMED = 4
"""Names in the sentence about an open direction; the others are counted."""

SHARE = 0.05
"""Smallest part of an open direction that is worth a name."""


@dataclass(frozen=True)
class Uncertainty:
    """What is known of the free parameters.

    Attributes:
        labels: Names of the scalars that move.
        esds: Standard uncertainties of those that are determined, in their units.
        correlation: Correlation matrix of ``labels``; ``None`` where the data do not determine all of them.
        open: Directions that the data do not determine, each as shares by label.
    """

    labels: list[str]
    esds: dict[str, float] = field(default_factory=dict)
    correlation: Float[Tensor, "n n"] | None = None
    open: list[dict[str, float]] = field(default_factory=list)

    def scaled(self, chi2: float) -> "Uncertainty":
        """With esds as large as the misfit says: times the root of chi^2 for each degree of freedom."""
        return replace(self, esds={label: esd * chi2**0.5 for label, esd in self.esds.items()})

    def sentences(self) -> list[str]:
        """One line for each open direction: what is not determined, and with what it is degenerate."""
        found = []
        for shares in self.open:
            axes = {label.rsplit("_", 1)[-1] for label in shares}
            if len(shares) > 1 and len(axes) == 1 and all(label.startswith("xyz_") for label in shares):
                found.append(f"the data do not determine the origin along {axes.pop()}: a shift of all atoms")
                continue
            first, *others = sorted(shares, key=lambda label: -abs(shares[label]))
            named, more = others[:NAMED], len(others) - NAMED
            named += [f"{more} more"] if more > 0 else []
            with_what = f", degenerate with {' and '.join(named)}" if named else ""
            found.append(f"the data do not determine {first}{with_what}")
        return found


def uncertainty(
    curvature: Float[Tensor, "n n"], sensitivity: Float[Tensor, "m n"], names: list[str], labels: list[str]
) -> Uncertainty:
    """Standard uncertainties, correlations and open directions.

    Open directions are the eigenvectors of the curvature, scaled to a unit diagonal, whose eigenvalues vanish; the
    scalars that they do not touch keep their uncertainties.

    Args:
        curvature: Expected second derivative of the deviance and the priors, in the raw vector.
        sensitivity: Derivative of the scalars with respect to the raw vector.
        names: The entries of the raw vector.
        labels: The scalars.
    """
    size = curvature.diagonal().clamp_min(0).sqrt()
    if not bool(torch.isfinite(curvature).all()):
        return Uncertainty(labels)
    felt = size.square() > FELT
    safe = torch.where(felt, size, torch.ones_like(size))
    scaled = torch.where(felt[:, None] & felt[None, :], curvature / safe[:, None] / safe[None, :], 0.0)
    values, vectors = torch.linalg.eigh(scaled)
    known = values > SINGULAR
    inverse = (vectors[:, known] / values[known]) @ vectors[:, known].T
    covariance = sensitivity @ (2 * inverse / safe[:, None] / safe[None, :]) @ sensitivity.T
    nulls = vectors[:, ~known].T
    loose = nulls.square().sum(0) > 1e-6 if len(nulls) else torch.zeros_like(felt)
    settled = ~(sensitivity != 0)[:, loose].any(1)
    esds = covariance.diagonal().clamp_min(0).sqrt()
    found = {n: e for n, e, ok in zip(labels, esds.tolist(), settled.tolist(), strict=True) if ok and e > 0}
    open_ = [
        {names[i]: float(null[i]) for i in range(len(names)) if abs(float(null[i])) > SHARE} for null in _apart(nulls)
    ]
    if open_ or len(found) < len(labels):
        return Uncertainty(labels, found, None, open_)
    return Uncertainty(labels, found, (covariance / esds[:, None] / esds[None, :]).clamp(-1, 1), [])


def _apart(nulls: Float[Tensor, "k n"]) -> Float[Tensor, "k n"]:
    """The same space spanned by vectors of few components: reduced row echelon form, rows of unit length."""
    rows = nulls.clone()
    for k in range(len(rows)):
        pivot = int(rows[k:].abs().max(0).values.argmax())
        best = k + int(rows[k:, pivot].abs().argmax())
        rows[[k, best]] = rows[[best, k]]
        rows[k] = rows[k] / rows[k, pivot]
        others = [j for j in range(len(rows)) if j != k]
        rows[others] = rows[others] - rows[others, pivot, None] * rows[k]
    return rows / rows.norm(dim=1, keepdim=True) if len(rows) else rows
