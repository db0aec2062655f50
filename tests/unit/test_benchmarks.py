"""The reference program beside our own in the benchmark: what runs is timed, what fails is one line."""

import math
import sys

import pytest
from support import REPOSITORY


@pytest.fixture
def simulator(monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    module = __import__("simulator")
    monkeypatch.setattr(module, "EDGE", 3)
    return module


def program(folder, text: str) -> str:
    script = folder / "nanoBragg"
    script.write_text(f"#!/bin/sh\n{text}\n")
    script.chmod(0o755)
    return str(script)


def test_every_flag_is_understood(simulator, tmp_path):
    """Our own command line takes the reference's flags, and says on standard error which it does not know."""
    said = tmp_path / "said"
    command = f'PYTHONPATH={REPOSITORY} exec {sys.executable} -m refine.nanobragg "$@" 2>>{said}'
    found = simulator.reference_program(program(tmp_path, command), 48, 2, 3)
    assert set(found) == {"ns"} and math.isfinite(found["ns"][0])
    assert said.read_text() == ""


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("echo no crystal >&2; exit 9", "exit status 9: no crystal"),
        ("exit 1", "exit status 1: no message"),
        (None, "No such file or directory"),
    ],
)
def test_a_program_that_fails_is_one_line(simulator, tmp_path, text, line):
    path = str(tmp_path / "missing") if text is None else program(tmp_path, text)
    assert simulator.reference_program(path, 8, 1, 1) == {"error": f"NANOBRAGG_C={path}: {line}"}
