"""Items given on the command line instead of a source: written to a file, which the run keeps at its destination."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from imgtx.errors import UsageError
from pipeline.tasks import commands

# The parameters of a command that say where it reads and writes; the others are options of its spec.
PARAMETERS = ("source", "destination", "inline")


@contextmanager
def source_given(command: str, given: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Give source, destination and options of a command as click read them.

    Items given inline are in a file as long as the block lasts. Raises UsageError for too few or too many places.
    """
    source, destination = places(command, given)
    options = {name: value for name, value in given.items() if name not in PARAMETERS}
    inline = commands()[command][0].inline
    if inline is None or not given.get("inline"):
        yield source, destination, options
        return
    with tempfile.TemporaryDirectory(prefix="imgtx-inline-") as folder:
        path = Path(folder) / inline.file
        path.write_bytes(inline.write(given["inline"]))
        yield str(path), destination, options


def places(command: str, given: Mapping[str, Any]) -> tuple[str, str]:
    """Return source and destination of a command, the source "" where items are given inline; UsageError as above."""
    source, destination = given.get("source"), given.get("destination")
    task = commands()[command][0]
    if task.inline and given.get("inline"):
        if source and destination:
            raise UsageError(
                f"{source} and {task.inline.short}: give either {task.source_name} or {task.inline.short}"
            )
        source, destination = "", source
    if task.inline and not destination:
        raise UsageError(
            f"imgtx {command} needs {task.source_name} and DESTINATION, or DESTINATION and {task.inline.short} TEXT: "
            f"imgtx {command} --help has examples"
        )
    return source or "", destination or ""
