"""Models and maps: there and back, and one clear line for what is damaged."""

from pathlib import Path

import gemmi
import numpy as np
import pytest

from refine.errors import InputError
from refine.formats.maps import DiffuseMap, read_map, read_points, write_map
from refine.formats.models import read_model

from .crystals import HERE, case

PDB = HERE / "helix_p31" / "helix_p31.pdb"


@pytest.mark.parametrize("remark", [True, False])
def test_mmcif_is_the_same_model(tmp_path: Path, remark: bool) -> None:
    structure = gemmi.read_structure(str(PDB))
    if remark:
        other = tmp_path / "model.cif"
        structure.setup_entities()
        structure.make_mmcif_document().write_file(str(other))
    else:
        other = tmp_path / "model.pdb"
        other.write_text("".join(x for x in PDB.open() if not x.startswith("REMARK")))
    one, two = read_model(PDB), read_model(other)
    assert one.elements == two.elements
    np.testing.assert_allclose(one.xyz, two.xyz)
    assert one.cartesian is not None
    assert two.cartesian is None
    np.testing.assert_array_equal(one.rotations, two.rotations)
    np.testing.assert_array_equal(one.translations, two.translations)


def test_choices() -> None:
    plain, all_atoms = read_model(PDB), read_model(PDB, keep_hydrogens=True, keep_waters=True)
    assert "H" not in plain.elements
    assert "H" in all_atoms.elements
    first, second = read_model(PDB), read_model(PDB, altloc="B")
    assert len(first.xyz) == len(second.xyz)
    assert np.abs(first.xyz - second.xyz).max() > 0.5


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("", "empty"),
        ("this is no model\n", "atoms"),
        ("CRYST1   10.000   10.000   10.000  90.00  90.00  90.00 P 1\nEND\n", "atoms"),
        (PDB.read_text().replace("CRYST1   10.739   10.739    9.639", "CRYST1    1.000    1.000    1.000"), "cell"),
        ("\n".join(x for x in PDB.read_text().splitlines() if "290" not in x).replace("P 31 ", "P 99 "), "space group"),
    ],
)
def test_damaged_models(tmp_path: Path, content: str, what: str) -> None:
    path = tmp_path / "model.pdb"
    path.write_text(content)
    with pytest.raises(InputError, match=what) as error:
        read_model(path)
    assert "\n" not in str(error.value)


def example() -> DiffuseMap:
    one = case("helix_p31")
    intensity = one.arrays["corr_intensity_dataadp"]
    params = np.array([one.params[f"{x}sampling"] for x in "hkl"], dtype=float)
    q = 2 * np.pi * one.hkl.numpy() @ np.linalg.inv(one.model.basis).T
    return DiffuseMap(q, one.hkl.numpy(), intensity, np.array(one.shape), np.array(one.model.cell), params)


@pytest.mark.parametrize("ending", ["npz", "h5", "ccp4", "mrc"])
def test_maps_there_and_back(tmp_path: Path, ending: str) -> None:
    path, wanted = tmp_path / f"map.{ending}", example()
    write_map(path, wanted)
    found = read_map(path)
    np.testing.assert_allclose(found.intensity, wanted.intensity, rtol=1e-6 if ending in ("ccp4", "mrc") else 0)
    np.testing.assert_allclose(found.q_vectors, wanted.q_vectors, atol=1e-5)
    np.testing.assert_array_equal(found.map_shape, wanted.map_shape)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("ending", ["npz", "h5", "ccp4"])
@pytest.mark.parametrize("content", [b"", b"junk" * 300])
def test_damaged_maps(tmp_path: Path, ending: str, content: bytes) -> None:
    path = tmp_path / f"map.{ending}"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read_map(path)
    assert "\n" not in str(error.value)


def test_maps_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "map.npz"
    np.savez(path, intensity=np.zeros(4))
    with pytest.raises(InputError, match="q_vectors"):
        read_map(path)
    with pytest.raises(InputError, match="ending"):
        write_map(tmp_path / "map.txt", example())


def test_points(tmp_path: Path) -> None:
    path = tmp_path / "q.npy"
    np.save(path, np.zeros((4, 2)))
    with pytest.raises(InputError, match=r"\[N, 3\]"):
        read_points(path)
    np.save(path, np.zeros((4, 3)))
    assert read_points(path).shape == (4, 3)
