"""`facerelay`, and `python -m facerelay`."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import NoReturn

from facerelay.cli import main
from facerelay.commands import logs
from facerelay.commands.exits import Exit


def run() -> NoReturn:
    """Run the command line, and end without Python's own farewell.

    The bucket library's threads may still let go of Python objects while the interpreter is taken down:
    about one short command in forty was aborted by that after its work was done.
    """
    code = int(Exit.FAULT)
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:  # noqa: BLE001 - what the interpreter would have printed
        logs.fault(error)
    with contextlib.suppress(OSError):  # a reader that left, as `head` does
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    run()
