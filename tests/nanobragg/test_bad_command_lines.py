"""Whatever stands on the command line: an image or one clear line, never a traceback."""

import random
from pathlib import Path

import pytest

from refine.nanobragg.__main__ import main
from refine.nanobragg.arguments import FLAGS, OWN

BASE = ["-cell", "60", "70", "80", "85", "95", "100", "-default_F", "10", "-detpixels", "16", "-pixel", "1", "-N", "3"]
BASE += ["-oversample", "1", "--max-evaluations", "3e6"]
JUNK = [
    "",
    "-",
    "--",
    "abc",
    "0",
    "-1",
    "1",
    "2",
    "3.5",
    "1e3",
    "1e300",
    "-1e300",
    "nan",
    "inf",
    "-inf",
    "1e-300",
    "0x10",
]
JUNK += ["99999999999999999999", "missing.file", "empty", "binary", "broken.img", ".", "random", "sample", "é", "1,2"]
HEADER = b"{\nHEADER_BYTES=512;\nDIM=2;\nSIZE1=16;\nSIZE2=16;\nPIXEL_SIZE=1;\n}"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    (tmp_path / "broken.img").write_bytes(HEADER)
    return tmp_path


def random_line(generator: random.Random) -> list[str]:
    line = list(BASE) if generator.random() < 0.9 else []
    for _ in range(generator.randint(1, 4)):
        texts = [text for flag in FLAGS for text in flag.texts] + ["--dtype", "--compat", "--trace", "-unknown"]
        values = [generator.choice(JUNK) for _ in range(generator.randint(0, 4))]
        place = generator.choice((0, len(line)))
        line[place:place] = [generator.choice(texts), *values]
    return line


@pytest.mark.parametrize("seed", range(200))
def test_random_command_line(seed: int, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = random_line(random.Random(seed))
    status = main(line)
    errors = capsys.readouterr().err.splitlines()
    assert status in (0, 1, 9), line
    assert all(error.startswith("refine.nanobragg: ") for error in errors), (line, errors)
    assert status == 0 or len([e for e in errors if "warning:" not in e]) == 1, (line, errors)
    assert not list(folder.glob(".*tmp*")), line


@pytest.mark.parametrize(
    ("line", "status", "what"),
    [
        ([], 9, "-cell or -mat"),
        (["-cell", "100"], 9, "-hkl, -default_F"),
        (["-default_F", "1"], 9, "-cell or -mat"),
        ([*BASE, "-mat", "nowhere.mat"], 1, "nowhere.mat"),
        ([*BASE, "-hkl", "empty"], 1, "reflections h k l F"),
        ([*BASE, "-pixel", "0"], 1, "-pixel"),
        ([*BASE, "-lambda", "x"], 1, "wavelength"),
        ([*BASE, "-fdet_vector", "0", "0", "0"], 1, "-fdet_vector"),
        ([*BASE, "-img", "broken.img"], 1, "broken.img"),
        ([*BASE, "-floatfile", "."], 1, "."),
        ([*BASE, "-phisteps", "999999999"], 1, "-phisteps"),
        ([*BASE, "-oversample", "30000"], 1, "--max-evaluations"),
        ([*BASE, "-detpixels", "100000"], 1, "-detpixels"),
        ([*BASE, "--trace", "16", "0"], 1, "--trace"),
        ([*BASE, "--compat", "d"], 1, "c or spec"),
        ([*BASE, "--device", "abacus"], 1, "--device"),
    ],
)
def test_bad_input_is_one_line_that_names_the_flag(
    line: list[str], status: int, what: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line) == status
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert what in errors[0]


def test_unknown_tokens_are_warned_about(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*BASE, "-detpixel_size", "-dispstep", "3", "stray"]) == 0
    errors = capsys.readouterr().err.splitlines()
    assert [e.split("warning: ")[1] for e in errors] == [
        "-detpixel_size: unknown flag, ignored",
        "-dispstep: unknown flag, ignored",
        "3: belongs to no flag, ignored",
        "stray: belongs to no flag, ignored",
    ]


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_lists_every_flag(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([flag]) == 0
    out = capsys.readouterr().out
    assert all(text in out for f in FLAGS for text in f.texts)
    assert all(name in out for name in OWN)
