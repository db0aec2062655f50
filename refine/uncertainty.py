"""Standard uncertainties from the expected information at the end of a refinement."""

import torch
from jaxtyping import Float
from torch import Tensor


def covariance(curvature: Float[Tensor, "n n"]) -> Float[Tensor, "n n"] | None:
    """Covariance of the parameters, or ``None`` where the data do not determine all of them.

    A deviance is twice a negative log-likelihood, so the covariance is twice the inverse of its expected curvature.

    Args:
        curvature: Expected second derivative of the deviance and the priors.
    """
    size = curvature.diagonal().sqrt()
    if not bool(torch.isfinite(size).all() & (size > 0).all()):
        return None
    correlation = curvature / size[:, None] / size[None, :]
    if torch.linalg.eigvalsh(correlation)[0] < 1e-12:
        return None
    return 2 * torch.linalg.inv(correlation) / size[:, None] / size[None, :]
