"""Who may import whom, and how large things may grow."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import REPOSITORY

MODULES = sorted([*(REPOSITORY / "sim_core").rglob("*.py"), *(REPOSITORY / "refine").rglob("*.py")])


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = path.relative_to(REPOSITORY).with_suffix("").parts
            base = ".".join(package[: -node.level]) if node.level else ""
            yield ".".join(filter(None, (base, node.module)))


def name(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


@pytest.mark.parametrize("path", [p for p in MODULES if "sim_core" in p.parts], ids=name)
def test_the_core_imports_tensors_only(path):
    allowed = {
        "torch",
        "jaxtyping",
        "numpy",
        "sim_core",
        "abc",
        "math",
        "typing",
        "dataclasses",
        "itertools",
        "functools",
        "collections",
    }
    if "kernels" in path.parts:
        allowed |= {
            "numba",
            "triton",
            "concurrent",
            "hashlib",
            "importlib",
            "inspect",
            "logging",
            "os",
            "pathlib",
            "types",
        }
    if path.name == "sparse_network.py":
        allowed |= {"scipy"}  # torch has no sparse decomposition
    assert {i.split(".")[0] for i in imports(path)} <= allowed


@pytest.mark.parametrize("path", [p for p in MODULES if "formats" in p.parts], ids=name)
def test_formats_know_nothing_of_the_refinement(path):
    ours = {i for i in imports(path) if i.startswith(("refine", "sim_core"))}
    assert all(i.startswith(("refine.formats", "refine.errors", "refine.paths")) for i in ours)


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_only_the_entry_points_know_hydra(path):
    users = {"train.py", "driver.py", "sweep.py", "simulate.py", "compose.py"}
    assert path.name in users or not any(i.startswith(("hydra", "omegaconf")) for i in imports(path))


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_modules_and_functions_stay_small(path):
    source = path.read_text()
    assert len(source.splitlines()) <= 300
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 60, node.name


def test_no_module_hides_one_of_the_standard_library():
    import sys

    assert not {p.stem for p in (REPOSITORY / "refine").glob("*.py")} & set(sys.stdlib_module_names)
