"""The atomic model of a sample: from a file to structure and elastic network as functions of parameter values."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from refine.devices import device_of, on_device
from refine.errors import required
from refine.formats.models import CrystalModel, read_model
from refine.paths import existing_file
from refine.settings.terms import Diffuse, ModelFile
from sim_core import Experiment, Structure
from sim_core.diffuse.blocks import Triangle, Window, window_of
from sim_core.diffuse.bodies import Bodies, RigidUnits, SingleAtoms
from sim_core.diffuse.elastic_network import Contacts, Springs, find_contacts
from sim_core.diffuse.reference import REACH, accumulated, packed_by_axes
from sim_core.diffuse.structure import Placed, cell_positions, placed
from sim_core.diffuse.vibrations import isotropic, vibrations
from sim_core.form_factors import FormFactors
from sim_core.interference import Shape
from sim_core.unit_cell import pdb_basis

Values = Mapping[str, Tensor]

SQUARE = Triangle()


@dataclass(frozen=True)
class Network:
    """What the elastic network is made of.

    Attributes:
        cutoff: Longest contact [A].
        bodies: What moves as one.
        reach: Cells along each axis in which neighbours are looked for; ``None`` for all.
        window: Shape of the blocks that vibrate, on images.
    """

    cutoff: float
    bodies: Bodies
    reach: int | None = None
    window: Window = SQUARE


class Atoms(nn.Module):
    """Structure and elastic network of an atomic model.

    Args:
        file: The model as read.
        network: The elastic network.
        adp: Where displacements come from: ``data``, ``model`` or ``network``.
        use_occupancy: Weight atoms by their occupancies; otherwise all are one.
        reference: The structure as another program places it, whose coordinates alone may change.
    """

    def __init__(
        self,
        file: CrystalModel,
        network: Network,
        adp: str = "data",
        use_occupancy: bool = False,
        reference: Placed | None = None,
    ) -> None:
        super().__init__()
        self.file, self.network, self.adp, self.reference = file, network, adp, reference
        self.start = build_structure(file, use_occupancy)
        self.basis = _tensor(file.basis)
        self.contacts: Contacts = self._contacts({})

    @property
    def free_origin(self) -> bool:
        """Whether a shift of all atoms changes nothing (P 1)."""
        return len(self.file.rotations) == 1

    def structure(self, values: Values) -> Structure:
        """Atoms at given values: ``xyz``, all coordinates in a row [A] in the cell of the file, and ``b_atoms``."""
        found = self.start
        if "xyz" in values:
            found = replace(found, fractional=values["xyz"].reshape(-1, 3) @ torch.linalg.inv(self.basis))
        return replace(found, b_iso=values["b_atoms"]) if "b_atoms" in values else found

    def placed(self, values: Values) -> Placed:
        """The same in the cell of the values, or of the file where they have none."""
        if self.reference is not None:
            xyz = values["xyz"].reshape(-1, 3) if "xyz" in values else self.reference.xyz
            return replace(self.reference, xyz=xyz, b_iso=values.get("b_atoms", self.reference.b_iso))
        basis = self.basis
        if "cell" in values:
            cell = values["cell"]
            basis = pdb_basis(torch.cat([cell[:3], torch.deg2rad(cell[3:])]))
        return placed(self.structure(values), basis)

    def springs(self, values: Values) -> Springs:
        """Spring constants."""
        return Springs(values["gamma_intra"], values["gamma_inter"])

    def displacements(self, values: Values, experiment: Experiment) -> Float[Tensor, "units atoms 3 3"]:
        """Mean square displacements [A^2] of the atoms of a block, as the image is made with.

        Those of the ``data`` are the B factors of the file; those of the ``model`` are isotropic, the network's scaled
        to their mean; those of the ``network`` are its own.
        """
        structure, crystal = experiment.structure, experiment.crystal
        assert structure is not None
        file = isotropic(structure)
        if self.adp == "data":
            return file
        springs, n_cells = self.springs(values), crystal.n_cells
        own = vibrations(structure, crystal.cell, self.contacts, springs, n_cells, self.network.window).u_cart
        if self.adp == "network":
            return own
        mean = own.diagonal(dim1=-1, dim2=-2).mean((0, -1))
        mean = mean * (structure.b_iso.mean() / (8 * torch.pi**2) / mean.mean())
        return mean[None, :, None, None] * torch.eye(3, dtype=mean.dtype, device=mean.device).expand_as(own)

    def prepare(self, values: Values) -> None:
        """Find the contacts at the coordinates as they are now: they carry no derivative."""
        if "xyz" in values:
            self.contacts = self._contacts(values)

    @torch.no_grad()
    def _contacts(self, values: Values) -> Contacts:
        now = self.placed(values)
        return find_contacts(cell_positions(now), now.basis, self.network.cutoff, self.network.reach)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Atoms":
        """Also move what stands in records."""
        super()._apply(fn, recurse)
        for name in ("start", "basis", "contacts", "reference"):
            setattr(self, name, on_device(getattr(self, name), device_of(fn)))
        return self


def build_structure(file: CrystalModel, use_occupancy: bool = False) -> Structure:
    """The crystal with exact operations, every unit packed into the cell."""
    fractional = np.linalg.solve(file.basis.T, file.xyz.T).T
    centres = file.rotations @ fractional.mean(0) + file.translations
    a, b, c, kind = file.form_factors()
    return Structure(
        fractional=_tensor(fractional),
        rotations=torch.from_numpy(np.ascontiguousarray(file.rotations)),
        translations=_tensor(file.translations - np.floor(centres)),
        b_iso=_tensor(file.b_iso),
        weight=_tensor(file.occupancy if use_occupancy else np.ones(len(file.xyz))),
        mass=_tensor(file.mass),
        form_factors=FormFactors(_tensor(a), _tensor(b), _tensor(c), torch.from_numpy(kind)),
    )


def build_reference_structure(file: CrystalModel) -> Placed:
    """The crystal as eryx builds it: the file's rounded Cartesian operations, its own packing.

    Without such operations it adds fractional translations to coordinates in Angstrom, and fractional rotations turn
    Cartesian vectors.
    """
    ours = placed(build_structure(file), _tensor(file.basis))
    if file.cartesian is None:
        rotations, translations = file.rotations.astype(float), file.translations
    else:
        rotations, translations = file.cartesian[..., :3], file.cartesian[..., 3]
    written = replace(ours, xyz=_tensor(file.xyz), rotations=_tensor(rotations), translations=_tensor(translations))
    return packed_by_axes(written, torch.from_numpy(file.rotations))


def open_model(model: ModelFile) -> CrystalModel:
    """Read the model that the configuration names.

    Raises:
        InputError: if there is none, or it cannot be used.
    """
    if model.path is None:
        raise required("model.path", "a PDB or mmCIF file", "null")
    path = existing_file(model.path, "model.path")
    return read_model(path, model.keep_hydrogens, model.keep_waters, model.altloc)


def build_atoms(model: ModelFile, diffuse: Diffuse, shape: Shape | None = None) -> Atoms:
    """The atoms of a configuration.

    Args:
        model: The file, and how it is read.
        diffuse: The network.
        shape: Interference function of the blocks of an image; ``None`` for a map.

    Raises:
        InputError: if the model cannot be used, or sections contradict each other.
    """
    file, eryx = open_model(model), diffuse.compat == "eryx"
    reference = build_reference_structure(file) if eryx else None
    if eryx and diffuse.group_by != "asu":
        raise required("diffuse.group_by", "asu with compat: eryx", diffuse.group_by)
    bodies: Bodies = SingleAtoms()
    if diffuse.group_by == "asu":
        bodies = RigidUnits(accumulated) if eryx else RigidUnits()
    window = Triangle() if shape is None else _window(shape)
    network = Network(diffuse.cutoff_A, bodies, REACH if eryx else None, window)
    return Atoms(file, network, model.adp, model.use_occupancy, reference)


def _window(shape: Shape) -> Window:
    try:
        return window_of(shape)
    except ValueError:
        wanted = "square or gaussian for blocks that vibrate"
        raise required("crystal.shape", wanted, type(shape).__name__.lower()) from None


def disturbed(xyz: Float[Tensor, "atoms 3"], rms: float, seed: int) -> Float[Tensor, "atoms 3"]:
    """Coordinates shifted at random, by so much in the root mean square [A]."""
    generator = torch.Generator().manual_seed(seed)
    shift = torch.randn(xyz.shape, dtype=xyz.dtype, generator=generator)
    return xyz + rms * shift / shift.square().sum(-1).mean().sqrt()


def _tensor(array: np.ndarray) -> Tensor:
    return torch.as_tensor(np.ascontiguousarray(array), dtype=torch.float64)
