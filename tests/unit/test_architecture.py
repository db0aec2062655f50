"""Who may import whom, and how large things may grow."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest
from support import REPOSITORY

MODULES = sorted([*(REPOSITORY / "sim_core").rglob("*.py"), *(REPOSITORY / "refine").rglob("*.py")])

LONGEST, USUAL, FUNCTION = 300, 130, 60
"""Lines of a module at most, of half of all modules at most, and of a function, which stays below."""

KNOW_HYDRA = {
    "refine/build/assemble.py",
    "refine/command.py",
    "refine/compose.py",
    "refine/report/sweep.py",
    "refine/simulate.py",
    "refine/train.py",
}


def name(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def dotted(path: Path) -> str:
    """A module's name; a package's is that of its folder."""
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def statements(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Every import of a file, lazy and type-only ones too: the module, and what is taken from it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = path.relative_to(REPOSITORY).with_suffix("").parts
            base = ".".join(package[: -node.level]) if node.level else ""
            yield ".".join(filter(None, (base, node.module))), [alias.name for alias in node.names]


def imports(path: Path) -> Iterator[str]:
    yield from (module for module, _ in statements(path))


def graph(modules: list[Path]) -> dict[str, set[str]]:
    """Our own modules that each of ours imports; a name that is a module of a package counts as that module."""
    known = {dotted(path) for path in modules}
    found: dict[str, set[str]] = {}
    for path in modules:
        needed: set[str] = set()
        for module, names in statements(path):
            inner = {f"{module}.{taken}" for taken in names} & known
            needed |= inner
            if len(inner) < max(1, len(names)):
                needed.add(module)
        found[dotted(path)] = (needed & known) - {dotted(path)}
    return found


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Modules of which each imports the next and the last the first; empty if there are none."""
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return path[path.index(module) :]
        if module in done:
            return []
        for other in sorted(graph[module]):
            if found := visit(other, [*path, module]):
                return found
        done.add(module)
        return []

    return next((found for module in sorted(graph) if (found := visit(module, []))), [])


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
    assert name(path) in KNOW_HYDRA or not any(i.startswith(("hydra", "omegaconf")) for i in imports(path))


def test_no_file_imports_in_a_circle():
    found = graph(MODULES)
    assert len(found) == len(MODULES)
    assert "refine.fit.losses" in found["refine.fit.objective"]  # by an absolute name
    assert "sim_core.form_factors" in found["sim_core.diffuse.structure"]  # by a relative one
    assert circle(found) == []


def test_circles_are_found(tmp_path, monkeypatch):
    """Lazy imports, type-only ones and relative ones close a circle too."""
    monkeypatch.setitem(globals(), "REPOSITORY", tmp_path)
    folder = tmp_path / "ours"
    (folder / "inner").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "inner" / "__init__.py").write_text("")
    (folder / "one.py").write_text("def f():\n    from ours.inner import two\n")
    (folder / "inner" / "two.py").write_text("if TYPE_CHECKING:\n    from ..three import x\n")
    (folder / "three.py").write_text("import ours.inner\n")
    modules = sorted(folder.rglob("*.py"))
    assert circle(graph(modules)) == []
    (folder / "three.py").write_text("import ours.one\n")
    assert sorted(circle(graph(modules))) == ["ours.inner.two", "ours.one", "ours.three"]


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_modules_and_functions_stay_small(path):
    source = path.read_text()
    assert len(source.splitlines()) <= LONGEST
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < FUNCTION, node.name


def test_half_of_the_modules_are_short():
    assert median(len(path.read_text().splitlines()) for path in MODULES) <= USUAL


def test_no_module_hides_one_of_the_standard_library():
    assert not {p.stem for p in (REPOSITORY / "refine").glob("*.py")} & set(sys.stdlib_module_names)
