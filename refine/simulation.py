"""Forward simulation: what a refinement would compare with, without noise."""

from pathlib import Path

import torch

from refine.diffuse_model import DiffuseModel, as_map, open_model
from refine.errors import required
from refine.formats.maps import ENDINGS, write_map
from refine.settings import Settings


@torch.no_grad()
def simulate(settings: Settings) -> Path:
    """Simulate the diffuse map of a model and write it to ``output``.

    Raises:
        InputError: for whatever is wrong with the configuration or the files.
    """
    if settings.output is None:
        raise required("output", "the path of the file to write", "null")
    path = Path(settings.output).expanduser()
    if path.suffix.lower() not in ENDINGS:
        raise required("output", f"a file with an ending of {', '.join(ENDINGS)}", settings.output)
    crystal = open_model(settings.model)
    dtype = getattr(torch, settings.dtype)
    model = DiffuseModel(crystal, settings.diffuse, settings.model.adp, settings.model.use_occupancy, dtype)
    springs = {name: getattr(settings.diffuse, name) for name in ("gamma_intra", "gamma_inter")}
    values = {name: torch.tensor(value, dtype=torch.float64) for name, value in springs.items()}
    write_map(path, as_map(model, crystal, model(values)))
    return path
