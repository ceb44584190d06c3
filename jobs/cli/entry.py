"""The end of the process: what `imgtx`, `python -m imgtx` and `python -m jobs.cli` start."""

import os
import sys
from contextlib import suppress

from jobs.cli.app import main
from jobs.cli.streams import open_missing


def run(prog_name: str | None = None) -> None:
    """Run the command line and end the process with its exit code.

    Threads of Ray that are still at work crash the interpreter while it finalizes, and the exit code is lost: after
    Ctrl-C during a start it was -11 instead of 130. Everything of ours is closed by then, so where Ray was used the
    process ends without finalizing.
    """
    open_missing()
    try:
        main(prog_name=prog_name)
    except SystemExit as end:
        if "ray" not in sys.modules or not isinstance(end.code, int | None):
            raise
        # ValueError, OSError: closed, or its reader is gone.
        with suppress(ValueError, OSError):
            sys.stdout.flush()
        with suppress(ValueError, OSError):
            sys.stderr.flush()
        os._exit(end.code or 0)
