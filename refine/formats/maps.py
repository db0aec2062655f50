"""Maps of diffuse intensity: npz and HDF5 with their scattering vectors, CCP4/MRC as a bare box."""

import zipfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import gemmi
import h5py
import numpy as np

from refine.errors import required
from refine.paths import replacing


@dataclass(frozen=True)
class DiffuseMap:
    """Intensities at scattering vectors; the points of a grid run with the last index fastest.

    Attributes:
        q_vectors: Scattering vectors [1/A].
        hkl: Fractional Miller indices.
        intensity: Intensities, NaN where there is none.
        map_shape: Points along h, k, l; (N, 1, 1) where the points are no grid.
        cell: a, b, c [A], alpha, beta, gamma [deg].
        sampling: Lowest and highest index and points for each reciprocal cell, by axis; ``None`` without a grid.
        sigma: Standard uncertainties.
        mask: Points to be used.
    """

    q_vectors: np.ndarray
    hkl: np.ndarray
    intensity: np.ndarray
    map_shape: np.ndarray
    cell: np.ndarray
    sampling: np.ndarray | None = None
    sigma: np.ndarray | None = None
    mask: np.ndarray | None = None

    def used(self) -> np.ndarray:
        """Points that can be compared with a model."""
        used: np.ndarray = np.isfinite(self.intensity)
        if self.mask is not None:
            used &= self.mask.astype(bool)
        if self.sigma is not None:
            used &= np.isfinite(self.sigma) & (self.sigma > 0)
        return used


def write_map(path: Path, diffuse: DiffuseMap) -> None:
    """Write a map in the format that the ending names: .npz, .h5 or .hdf5, .ccp4 or .mrc or .map.

    Raises:
        InputError: if the ending is another one, or a CCP4 map is asked for points that are no grid.
    """
    writer = _WRITERS.get(path.suffix.lower())
    if writer is None:
        raise required(path, f"a map with an ending of {', '.join(_WRITERS)}", path.suffix or "none")
    with replacing(path) as temporary:
        writer(temporary, diffuse)


def read_map(path: Path) -> DiffuseMap:
    """Read a map that has intensities, and scattering vectors or Miller indices.

    Raises:
        InputError: if the file is damaged, or arrays are missing or do not fit together.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise required(path, f"a map with an ending of {', '.join(_READERS)}", path.suffix or "none")
    try:
        arrays = reader(path)
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile) as error:
        raise required(path, f"a readable {path.suffix} map", str(error).split("\n")[0]) from None
    return _checked(path, arrays)


def read_points(path: Path) -> np.ndarray:
    """Scattering vectors [N, 3] [1/A] from a npy file.

    Raises:
        InputError: if the file holds anything else.
    """
    try:
        points = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise required(path, "an array in npy format", str(error).split("\n")[0]) from None
    if not isinstance(points, np.ndarray) or points.ndim != 2 or points.shape[1] != 3 or points.dtype.kind not in "fiu":
        raise required(path, "numbers [N, 3]", f"shape {getattr(points, 'shape', 'of an archive')}")
    if not len(points) or not np.isfinite(points).all():
        raise required(path, "at least one point, all of them finite", "others" if len(points) else "none")
    return points.astype(np.float64)


def _checked(path: Path, arrays: dict[str, np.ndarray]) -> DiffuseMap:
    missing = [n for n in ("q_vectors", "hkl", "intensity", "map_shape", "cell") if n not in arrays]
    if missing:
        raise required(path, "arrays q_vectors, hkl, intensity, map_shape and cell", f"no {missing[0]}")
    known = {f.name: arrays[f.name] for f in fields(DiffuseMap) if f.name in arrays}
    n = known["intensity"].size
    shapes = {"q_vectors": (n, 3), "hkl": (n, 3), "intensity": (n,), "map_shape": (3,), "cell": (6,)}
    shapes |= {"sampling": (3, 3), "sigma": (n,), "mask": (n,)}
    for name, value in known.items():
        if value.shape != shapes[name]:
            raise required(path, f"{name} of shape {shapes[name]}", value.shape)
    if int(np.prod(known["map_shape"])) != n:
        raise required(path, f"map_shape of {n} points", known["map_shape"].tolist())
    return DiffuseMap(**known)


def _arrays(diffuse: DiffuseMap) -> dict[str, np.ndarray]:
    return {f.name: v for f in fields(diffuse) if (v := getattr(diffuse, f.name)) is not None}


def _write_npz(path: Path, diffuse: DiffuseMap) -> None:
    arrays: dict[str, Any] = _arrays(diffuse)
    np.savez_compressed(path, **arrays)


def _write_hdf5(path: Path, diffuse: DiffuseMap) -> None:
    with h5py.File(path, "w") as file:
        for name, value in _arrays(diffuse).items():
            file.create_dataset(name, data=value, compression="gzip" if value.size > 64 else None)
        file["q_vectors"].attrs["units"] = "1/angstrom"
        file["cell"].attrs["units"] = "angstrom, degree"


def _write_ccp4(path: Path, diffuse: DiffuseMap) -> None:
    """Sections along l; where the box begins and its spacing stand in a label, for a CCP4 header holds a cell only."""
    if diffuse.sampling is None:
        raise required(path, "a map on a grid", "single points")
    box = np.nan_to_num(diffuse.intensity.reshape(diffuse.map_shape), nan=0.0).astype(np.float32)
    ccp4 = gemmi.Ccp4Map()
    ccp4.grid = gemmi.FloatGrid(np.ascontiguousarray(box))
    a, b, c, alpha, beta, gamma = diffuse.cell
    ccp4.grid.set_unit_cell(gemmi.UnitCell(a, b, c, alpha, beta, gamma))
    ccp4.grid.spacegroup = gemmi.SpaceGroup("P 1")
    ccp4.update_ccp4_header(2)
    ccp4.set_header_str(57, ("hkl " + " ".join(f"{v:.7g}" for v in diffuse.sampling.ravel())).ljust(80))
    ccp4.write_ccp4_map(str(path))


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _read_hdf5(path: Path) -> dict[str, np.ndarray]:
    with h5py.File(path, "r") as file:
        return {name: np.asarray(file[name]) for name in file}


def _read_ccp4(path: Path) -> dict[str, np.ndarray]:
    """A map that :func:`write_map` wrote; zero stands for no value."""
    ccp4 = gemmi.read_ccp4_map(str(path))
    label = ccp4.header_str(57, 80).split()
    if len(label) != 10 or label[0] != "hkl":
        raise ValueError("no sampling of reciprocal space in its first label")
    sampling = np.array([float(v) for v in label[1:]]).reshape(3, 3)
    box = np.array(ccp4.grid.array, dtype=np.float64)
    axes = [np.linspace(low, high, n) for (low, high, _), n in zip(sampling, box.shape, strict=True)]
    hkl = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    cell = ccp4.grid.unit_cell
    fractional = np.array(cell.frac.mat.tolist())
    return {
        "q_vectors": 2 * np.pi * hkl @ fractional,
        "hkl": hkl,
        "intensity": np.where(box == 0, np.nan, box).ravel(),
        "map_shape": np.array(box.shape),
        "cell": np.array(cell.parameters),
        "sampling": sampling,
    }


_WRITERS = {".npz": _write_npz, ".h5": _write_hdf5, ".hdf5": _write_hdf5}
_WRITERS |= {".ccp4": _write_ccp4, ".mrc": _write_ccp4, ".map": _write_ccp4}
ENDINGS = tuple(_WRITERS)
"""Of the files that can be written."""
_READERS = {".npz": _read_npz, ".h5": _read_hdf5, ".hdf5": _read_hdf5}
_READERS |= {".ccp4": _read_ccp4, ".mrc": _read_ccp4, ".map": _read_ccp4}
