"""Models written with new positions, and one clear line for what cannot be read or written."""

from dataclasses import replace
from pathlib import Path

import gemmi
import numpy as np
import pytest
from support import REPOSITORY

from refine.errors import InputError
from refine.formats.models import CrystalModel, read_model, write_model

NAMES = ("helix_p1", "helix_p31", "helix_p212121")


def model_of(name: str, **options: object) -> CrystalModel:
    return read_model(REPOSITORY / "data" / "diffuse" / f"{name}.pdb", **options)


def moved(model: CrystalModel) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(1)
    return model.xyz + generator.normal(0, 0.3, model.xyz.shape), generator.uniform(0, 90, len(model.xyz))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ending", ["pdb", "ent", "cif", "mmcif"])
def test_there_and_back(tmp_path: Path, name: str, ending: str) -> None:
    model, path = model_of(name), tmp_path / f"out.{ending}"
    xyz, b_iso = moved(model)
    write_model(model, xyz, b_iso, path)
    found = read_model(path)
    assert found.names == model.names
    assert found.elements == model.elements
    assert found.cell == model.cell
    assert found.space_group == model.space_group
    precise = "cif" in ending
    np.testing.assert_allclose(found.xyz, xyz, rtol=0, atol=1e-6 if precise else 5.01e-4)
    np.testing.assert_allclose(found.b_iso, b_iso, rtol=1e-5, atol=0 if precise else 5.01e-3)
    np.testing.assert_array_equal(found.occupancy, model.occupancy)
    np.testing.assert_array_equal(found.rotations, model.rotations)
    np.testing.assert_array_equal(found.translations, model.translations)
    np.testing.assert_array_equal(found.basis, model.basis)
    if not precise:
        np.testing.assert_array_equal(found.cartesian, model.cartesian)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("ending", ["pdb", "cif"])
@pytest.mark.parametrize("options", [{"keep_hydrogens": True, "keep_waters": True}, {"altloc": "B"}])
def test_the_atoms_of_the_selection(tmp_path: Path, ending: str, options: dict[str, object]) -> None:
    model, path = model_of("helix_p1", **options), tmp_path / f"out.{ending}"
    write_model(model, model.xyz, model.b_iso, path)
    found = read_model(path, keep_hydrogens=True, keep_waters=True)
    assert found.names == model.names
    np.testing.assert_allclose(found.xyz, model.xyz, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.occupancy, model.occupancy)


@pytest.mark.parametrize("ending", ["pdb", "cif"])
def test_anisotropic_displacements(tmp_path: Path, ending: str) -> None:
    model, path = model_of("helix_p31"), tmp_path / f"out.{ending}"
    root = np.random.default_rng(2).normal(0, 0.2, (len(model.xyz), 3, 3))
    u = root @ root.transpose(0, 2, 1)
    write_model(model, model.xyz, 8 * np.pi**2 / 3 * np.trace(u, axis1=1, axis2=2), path, u)
    atoms = [a for c in gemmi.read_structure(str(path))[0] for r in c for a in r]
    found = np.array([a.aniso.as_mat33().tolist() for a in atoms])
    np.testing.assert_allclose(found, u, rtol=0, atol=5.01e-5 if ending == "pdb" else 1e-6)
    np.testing.assert_allclose([a.b_eq() for a in atoms], [a.b_iso for a in atoms], atol=2e-2)
    again = read_model(path)
    write_model(again, again.xyz, again.b_iso, path)
    assert not any(a.aniso.nonzero() for c in gemmi.read_structure(str(path))[0] for r in c for a in r)


@pytest.mark.parametrize("ending", ["pdb", "cif"])
def test_the_same_bytes_and_over_its_own_source(tmp_path: Path, ending: str) -> None:
    model = model_of("helix_p212121")
    xyz, b_iso = moved(model)
    for name in ("one", "two"):
        write_model(model, xyz, b_iso, tmp_path / f"{name}.{ending}")
    one, two = (tmp_path / f"{name}.{ending}" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    again = read_model(one)
    write_model(again, again.xyz, again.b_iso, one)
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("ending", ["pdb", "cif"])
def test_old_statistics_and_links_to_lost_atoms_are_left_out(tmp_path: Path, ending: str) -> None:
    source, path = tmp_path / "in.pdb", tmp_path / f"out.{ending}"
    text = (REPOSITORY / "data" / "diffuse" / "helix_p1.pdb").read_text()
    link = "LINK         N   ALA A   1                 O   HOH A 101     1555   1555  2.00"
    statistics = "REMARK   3   R VALUE            (WORKING SET) : 0.150\n"
    source.write_text(statistics + text.replace("CRYST1", f"{link}\nCRYST1"))
    if ending == "cif":
        structure = gemmi.read_structure(str(source))
        structure.setup_entities()
        source = tmp_path / "in.cif"
        document = structure.make_mmcif_document()
        for tag, value in {"pdbx_refine_id": "X-RAY", "ls_d_res_high": "2.0", "ls_R_factor_R_work": "0.150"}.items():
            document.sole_block().set_pair(f"_refine.{tag}", value)
        document.write_file(str(source))
        assert gemmi.read_structure(str(source)).meta.refinement[0].r_work == 0.15
        assert "_struct_conn" in source.read_text()
    model = read_model(source)
    write_model(model, model.xyz, model.b_iso, path)
    assert "0.15" not in path.read_text()
    assert "LINK" not in path.read_text()
    assert "_struct_conn" not in path.read_text()
    assert ("SMTRY1" in path.read_text()) == (ending == "pdb")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"xyz": np.nan}, "finite"),
        ({"b_iso": -1.0}, "below zero"),
        ({"b_iso": 1200.0}, "mmCIF"),
        ({"xyz": -12345.678}, "mmCIF"),
        ({"u": np.inf}, "anisotropic"),
        ({"ending": "txt"}, "ending"),
    ],
)
def test_what_cannot_be_written(tmp_path: Path, change: dict[str, object], what: str) -> None:
    model, path = model_of("helix_p1"), tmp_path / f"out.{change.get('ending', 'pdb')}"
    path.write_text("as before")
    xyz, b_iso, u = model.xyz.copy(), model.b_iso.copy(), np.zeros((len(model.xyz), 3, 3))
    xyz[3, 1] = change.get("xyz", xyz[3, 1])
    b_iso[3] = change.get("b_iso", b_iso[3])
    u[3] = change.get("u", 0.0)
    with pytest.raises(InputError, match=what) as error:
        write_model(model, xyz, b_iso, path, u)
    assert "\n" not in str(error.value)
    assert path.read_text() == "as before"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(("kind", "name"), [("chain", "ABCDE"), ("residue", "A1LU6"), ("atom", "CB123")])
def test_long_names_need_mmcif(tmp_path: Path, kind: str, name: str) -> None:
    structure = gemmi.read_structure(str(REPOSITORY / "data" / "diffuse" / "helix_p1.pdb"))
    chain = structure[0][0]
    {"chain": chain, "residue": chain[0], "atom": chain[0][0]}[kind].name = name
    structure.setup_entities()
    structure.make_mmcif_document().write_file(str(tmp_path / "in.cif"))
    model = read_model(tmp_path / "in.cif")
    with pytest.raises(InputError, match="mmCIF"):
        write_model(model, model.xyz, model.b_iso, tmp_path / "out.pdb")
    write_model(model, model.xyz, model.b_iso, tmp_path / "out.cif")
    assert read_model(tmp_path / "out.cif").names == model.names


def test_a_source_that_changed(tmp_path: Path) -> None:
    source = tmp_path / "in.pdb"
    source.write_text((REPOSITORY / "data" / "diffuse" / "helix_p1.pdb").read_text())
    model = read_model(source)
    source.write_text(source.read_text().replace("CB  ALA A   1", "CX  ALA A   1"))
    with pytest.raises(InputError, match="read before"):
        write_model(model, model.xyz, model.b_iso, tmp_path / "out.pdb")
    source.unlink()
    with pytest.raises(InputError, match="PDB or mmCIF"):
        write_model(model, model.xyz, model.b_iso, tmp_path / "out.pdb")


def test_a_group_without_a_name(tmp_path: Path) -> None:
    source = tmp_path / "in.pdb"
    source.write_text((REPOSITORY / "data" / "diffuse" / "helix_p31.pdb").read_text().replace("P 31 ", "P 99 "))
    model = read_model(source)
    with pytest.raises(InputError, match="space group"):
        write_model(model, model.xyz, model.b_iso, tmp_path / "out.cif")
    write_model(model, model.xyz, model.b_iso, tmp_path / "out.pdb")
    np.testing.assert_array_equal(read_model(tmp_path / "out.pdb").rotations, model.rotations)


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("-Y,X-Y,Z+1/3", "-Y,X-Y,Q+1/3", "REMARK 290"),
        ("2 -0.500000", "2 -0.5X0000", "REMARK 290"),
        ("P 31 ", "P 99 ", "whole"),
        (" 90.00  90.00 120.00", " 90.00  10.00 170.00", "cell"),
        ("  1.00 11.78", "   nan 11.78", "occupancies"),
    ],
)
def test_damaged_models(tmp_path: Path, old: str, new: str, what: str) -> None:
    path = tmp_path / "model.pdb"
    text = (REPOSITORY / "data" / "diffuse" / "helix_p31.pdb").read_text()
    path.write_text(text.replace(old, new).replace(*("-X+Y", "-X/2+Y") if what == "whole" else ("", "")))
    with pytest.raises(InputError, match=what) as error:
        read_model(path)
    assert "\n" not in str(error.value)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="PDB or mmCIF"):
        read_model(tmp_path / "nowhere.pdb")
    assert replace(model_of("helix_p1")).selection == model_of("helix_p1").selection
