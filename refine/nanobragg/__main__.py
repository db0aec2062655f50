"""The reference program's command line.

.. code-block:: console

    $ python -m refine.nanobragg -cell 100 100 100 90 90 90 -default_F 100 -lambda 1 -N 5 -distance 100 -detpixels 256
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from refine.errors import InputError

from .command import Command
from .parsing import help_text, parse, read_own

USAGE = 9
"""Exit status where structure factors or a crystal are missing."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line.

    Args:
        argv: Its tokens without the program's name; those of the process by default.

    Returns:
        Exit status: 0, 9 for a command line without structure factors or without a crystal, 1 for other bad input.
    """
    tokens = list(sys.argv[1:] if argv is None else argv)
    if "-h" in tokens or "--help" in tokens:
        print(help_text(), end="")
        return 0
    try:
        return _run(tokens)
    except InputError as error:
        return _fail(str(error), 1)
    except (ArithmeticError, ValueError) as error:
        return _fail(f"these numbers make no image: {error}", 1)
    except (MemoryError, RuntimeError, OSError) as error:
        text = str(error).strip().split("\n")[0] or type(error).__name__
        return _fail(f"out of memory: {text}" if isinstance(error, MemoryError) else text, 1)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)


def _fail(line: str, status: int) -> int:
    print(f"refine.nanobragg: {line}", file=sys.stderr)
    return status


def _warn(line: str) -> None:
    print(f"refine.nanobragg: warning: {line}", file=sys.stderr)


def _run(tokens: list[str]) -> int:
    command = Command()
    rest = read_own(tokens, command)
    from .ingest import ingest

    mask = ingest(rest, command)
    parse(rest, command, _warn)
    crystal = command.matrix_file is not None or command.cell is not None
    amplitudes = command.hkl_file is not None or command.default_F != 0.0 or Path(command.dump_file).is_file()
    if not (crystal and amplitudes):
        missing = "-hkl, -default_F or a dump file" if crystal else "-cell or -mat"
        return _fail(f"expected {missing}, got neither; --help lists all flags", USAGE)
    from .run import simulate

    simulate(command, mask)
    return 0


if __name__ == "__main__":
    sys.exit(main())
